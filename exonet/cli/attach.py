# SPDX-License-Identifier: MIT
"""`exonet attach`: LibOSes on a live TAP device, reachable from this host; prints the ledger when it ends."""

import argparse
from collections.abc import Sequence
from typing import Any

from exonet.cli import common
from exonet.cli.outputs import check_outputs, outputs
from exonet.clock import NS_PER_S
from exonet.errors import UsageError
from exonet.lab.plan import DEFAULT_MTU, MTU_MAX, MTU_MIN, Networks, Plan, TapSource, Tenant
from exonet.lab.progress import Progress

EPILOG = """\
The device is made if there is none of that name, and is gone when the run ends (Ctrl-C, --duration). Needs root, or
CAP_NET_ADMIN. A LibOS owns its addresses: it answers ARP, neighbour solicitations and ping for them, and may send from
nothing else. The echo LibOS also answers UDP on port 7.

examples:
  sudo exonet attach exo0 --host 10.7.0.1/24 --libos echo@10.7.0.2 --libos echo@10.7.0.3
      then, in another shell:  ping 10.7.0.2        echo hello | nc -u -w1 10.7.0.3 7
  sudo exonet attach exo0 --host 10.7.0.1/24 --host fd07::1/64 --libos echo@10.7.0.2+fd07::2 --spin polling
  sudo exonet attach exo0 --namespace lab --host 10.7.0.1/24 --libos echo@10.7.0.2 --duration 60s --json out.json
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "attach", help="LibOSes on a live TAP device", description=__doc__.partition(": ")[2], epilog=EPILOG
    )
    parser.set_defaults(run=run)
    parser.add_argument("name", metavar="NAME", help="the device, as exo0")
    parser.add_argument(
        "--host",
        action="append",
        required=True,
        metavar="ADDR/LEN",
        help="this host's address on the device; again for a second, as IPv6",
    )
    parser.add_argument(
        "--libos",
        action="append",
        required=True,
        metavar="LIBOS@ADDR[,…]",
        help="a LibOS (or module:Class) and its address (ADDR+ADDR for several); then, with commas: process, inline, "
        "mac=MAC, buffers=N, port=N (the UDP port that echo serves, default 7)",
    )
    parser.add_argument("--namespace", metavar="NS", help="the network namespace in which the device is")
    parser.add_argument(
        "--mtu",
        type=common.count(MTU_MIN, MTU_MAX),
        default=DEFAULT_MTU,
        metavar="N",
        help="of the device (default 1500)",
    )
    parser.add_argument(
        "--no-ipv6", action="store_true", help="no IPv6 on the device, so that the kernel sends nothing of its own"
    )
    parser.add_argument(
        "--inline",
        action="store_true",
        help="run the LibOSes inside the kernel's process: lowest latency, no protection",
    )
    parser.add_argument(
        "--mac",
        choices=("shared", "own"),
        default="shared",
        help="LibOSes share the port's MAC address (the default), or each has its own",
    )
    parser.add_argument(
        "--duration", type=common.duration, metavar="TIME", help="end after so long, as 60s (default: at Ctrl-C)"
    )
    common.add_impair(parser)
    common.add_machine(parser, clocks=False)
    common.add_outputs(parser)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    plan = plan_of(arguments, command)
    common.find_modules(plan.tenants)
    check_outputs(outputs(arguments))
    from exonet.lab.run import run as run_plan  # late: help and errors need no kernel

    names = ", ".join(address for tenant in plan.tenants for address in tenant.addresses)
    up = f"{arguments.name}: {names}; {_until(arguments.duration)}"
    with Progress("attach") as progress:
        result = run_plan(plan, progress=progress, starting=lambda: common.say(up))
    return common.show(result, arguments.json)


def _until(duration: int | None) -> str:
    return "Ctrl-C ends it" if duration is None else f"for {duration / NS_PER_S:g} s, or until Ctrl-C"


def plan_of(arguments: argparse.Namespace, command: Sequence[str]) -> Plan:
    network = Networks.parse(arguments.host)
    tenants = [Tenant.parse_libos(text, network) for text in arguments.libos]
    taken: dict[str, str] = {}
    for tenant in tenants:
        for address in tenant.addresses:
            if address in taken:
                raise UsageError(f"LibOS address {address}: two LibOSes have it; give each its own")
            taken[address] = tenant.name
    if arguments.mac == "own":
        tenants = [tenant.with_own_mac(number) for number, tenant in enumerate(tenants, start=2)]
    if arguments.inline:
        tenants = [tenant.with_options(["inline"], tenant.name) for tenant in tenants]
    source = TapSource(
        name=arguments.name,
        hosts=tuple(arguments.host),
        namespace=arguments.namespace,
        mtu=arguments.mtu,
        ipv6=not arguments.no_ipv6,
    )
    settings = common.settings(arguments)
    return Plan(source=source, tenants=tuple(tenants), settings=settings, command=common.command_line(command))
