# SPDX-License-Identifier: MIT
"""`exonet replay`: a capture's packets, at a speed, into LibOSes; prints what became of each."""

import argparse
from collections.abc import Sequence
from typing import Any

from exonet.cli import common
from exonet.cli.outputs import Output, check_outputs, outputs
from exonet.errors import UsageError
from exonet.lab.files import of_wire
from exonet.lab.plan import Plan, Tenant, TraceSource, merge
from exonet.lab.progress import Progress

EPILOG = """\
A binding gives the packets that FILTER takes to a LibOS called NAME. FILTER is pcap-filter syntax ('tcp port 80',
'udp and dst net 10.0.0.0/8') or an expression over header fields ('Udp.dport == 53'). After it, with commas:
  stack=LIBOS      which LibOS: sink counts and digests (the default), echo answers; `exonet libos` lists them;
                   MODULE:CLASS is one of your own, installed or in the working directory
  process, inline  its own isolated process (the default), or inside the kernel's (always so on the virtual clock)
  port=N           the UDP port that echo serves; again for more (default: those that FILTER names, else 7)
  local=ADDR/LEN   it may send from this address only; again for more; local=none: it may not send.
                   Default: local=any, it answers as whoever was asked. In a replay nothing leaves the machine:
                   what LibOSes send is counted as sent, and is in the --pcap-out file
  side=clients, side=servers   of a two-sided replay, only what that side sent (default: both)
  mac=MAC          its own station address; with local= it takes only what is sent to both
  buffers=N        receive buffers it posts
The same NAME again adds a filter to that LibOS, and options that do not contradict the ones before. Bindings of
different LibOSes must be disjoint, or one inside another: the narrower one wins, in whatever order they are written.
Every LibOS is subscribed to every group: it gets a copy of each broadcast and multicast packet that FILTER takes,
whatever others get, and of announcements (gratuitous ARP, router advertisements, DHCP offers, mDNS) also what FILTER
does not take; --exclude 'ether multicast' leaves them all out. ARP requests for a local= address go to its LibOS, ICMP
errors to the owner of the packet they quote, later fragments to that of the first (FILTERS.md: "Who gets a frame").

examples:
  exonet replay trace.pcapng --bind web='tcp port 80' --bind dns='udp port 53,stack=echo' --speed x10 --json out.json
  exonet replay trace.pcap --bind all='ip or ip6 or arp' --speed max --loop 100
  exonet replay trace.pcap --bind web='tcp port 80' --clock virtual --rings 64 --slices web:50us,-:100us
  exonet replay trace.pcap --bind v6='ip6' --speed pps=100k --impair loss=1%,reorder=2% --fates fates.parquet
"""


def demo() -> list[str]:
    """What `exonet` alone runs."""
    trace = common.demo_trace()
    common.say(f"replaying {trace} into two LibOSes: web takes 'tcp port 80', dns 'udp port 53' (more: exonet --help)")
    return ["replay", str(trace), "--bind", "web=tcp port 80", "--bind", "dns=udp port 53"]


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="replay a capture into LibOSes",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
        takes_filter=True,
    )
    parser.set_defaults(run=run)
    parser.add_argument("trace", type=common.capture, metavar="TRACE", help="pcap or pcapng, gzip or not; -: stdin")
    parser.add_argument(
        "--bind",
        action="append",
        required=True,
        type=common.typed(Tenant.parse_binding),
        metavar="NAME=FILTER[,…]",
        help="who gets which packets; as often as there are LibOSes (see below)",
    )
    how = parser.add_argument_group("how it is replayed")
    how.add_argument(
        "--speed",
        default="x1",
        metavar="S",
        help="x1 as captured (the default), xN, packets a second as 200k, mbps=N, gbps=N, or max",
    )
    how.add_argument("--loop", type=common.count(0, 2**32), default=1, metavar="N", help="so many times; 0: for ever")
    how.add_argument("--shift", action="store_true", help="loop k adds k to every address (checksums kept right)")
    how.add_argument("--limit", type=common.count(1, 2**62), metavar="N", help="at most N packets")
    how.add_argument("--duration", type=common.duration, metavar="TIME", help="at most so long, as 10s or 250ms")
    how.add_argument("--include", metavar="FILTER", help="only packets that this filter takes")
    how.add_argument("--exclude", metavar="FILTER", help="no packets that this filter takes")
    how.add_argument(
        "--rewrite",
        action="append",
        default=[],
        metavar="WHAT",
        help="smac=MAC, dmac=MAC, vlan=N|strip, ttl=N, ip=NET:NET, port=N:N; several with commas",
    )
    how.add_argument(
        "--fix-checksums",
        action="store_true",
        help="compute checksums anew (captures of offloading hosts have wrong ones)",
    )
    common.add_mtu(how)
    common.add_max_gap(how)
    common.add_memory(how)
    how.add_argument(
        "--two-sided",
        action="store_true",
        help="the two directions on two ports of the machine: what clients sent comes in on the first, what servers "
        "sent on the second; a LibOS is bound on both (unless side= says which) and answers by its first; "
        "--pcap-out writes a second file, FILE-1",
    )
    how.add_argument(
        "--clients",
        action="append",
        default=[],
        metavar="NET",
        help="two-sided: who the clients are (default: whoever speaks first)",
    )
    common.add_impair(how)
    common.add_machine(parser)
    common.add_outputs(parser)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    plan = plan_of(arguments, command)
    common.find_modules(plan.tenants)
    check_outputs(written(arguments), [arguments.trace], arguments.costs)
    from exonet.lab.run import (
        run as run_plan,
    )  # the kernel and pyarrow take a while to load; help and errors need neither

    with Progress("replay") as progress:
        result = run_plan(plan, progress=progress)
    return common.show(result, arguments.json)


def written(arguments: argparse.Namespace) -> list[Output]:
    second = arguments.two_sided and arguments.pcap_out
    return [*outputs(arguments), *([("--pcap-out", of_wire(arguments.pcap_out, 1))] if second else ())]


def plan_of(arguments: argparse.Namespace, command: Sequence[str]) -> Plan:
    if arguments.clients and not arguments.two_sided:
        raise UsageError("--clients: it names the clients of a two-sided replay; add --two-sided")
    if arguments.loop == 0 and arguments.limit is None and arguments.duration is None and arguments.clock == "virtual":
        raise UsageError("--loop 0 on the virtual clock never ends; add --limit or --duration")
    settings = common.settings(arguments)
    tenants = merge(arguments.bind)
    for tenant in tenants:
        settings.is_process(tenant)
    source = TraceSource(
        path=arguments.trace,
        speed=arguments.speed,
        loop=arguments.loop,
        shift=arguments.shift,
        limit=arguments.limit,
        max_gap_ns=arguments.max_gap,
        include=arguments.include,
        exclude=arguments.exclude,
        rewrite=tuple(arguments.rewrite),
        fix_checksums=arguments.fix_checksums,
        memory=arguments.memory,
        mtu=arguments.mtu,
        resegment=arguments.resegment,
        two_sided=arguments.two_sided,
        clients=tuple(arguments.clients),
    )
    return Plan(source=source, tenants=tenants, settings=settings, command=common.command_line(command))
