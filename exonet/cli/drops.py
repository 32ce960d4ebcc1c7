# SPDX-License-Identifier: MIT
"""`exonet drops`: loss and delivered rate against offered load, for several ring sizes; table, CSV, Parquet and PNG."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from exonet.cli import common
from exonet.cli.outputs import Output, check_outputs
from exonet.clock import Clock
from exonet.errors import UsageError, not_written
from exonet.lab.files import of_point, of_report, of_search
from exonet.lab.plan import Plan, TapSource, Tenant, TraceSource, merge, parse_ring
from exonet.lab.rates import Rate

EPILOG = """\
A rate is in packets per second (200k, 1.5M, 500000), or x2: twice the speed of the capture. A ring size is
given to the LibOS's rings, to the receive buffers it posts, and to the NIC's descriptors (unless --descriptors says
otherwise); the NIC's FIFO stays as --fifo says. Loss is relative to the load that was achieved. Left out are packets
that arrive nowhere at any load: no binding claims them, the NIC takes none so long, a LibOS's own stack turns them
away; and what LibOSes send, which is told apart. Where the achieved load is below the requested one, the table marks
it with *, and where the host was busy with other things meanwhile with !.
--pcap-out and --trace write a file for each point: FILE-RATE-RING-REPETITION.

With --tap the load is made by a sender in a network namespace of its own, on the other end of a TAP device (needs
root).

examples:
  exonet drops trace.pcap --rates 500k,1M,2M,4M,8M --rings 64,256,1024 --out report/
  exonet drops trace.pcap --clock virtual --costs dec5000 --rates 50k,100k,200k,400k --out report/
  exonet drops trace.pcap --search --rings 64,1024
  sudo exonet drops --tap exo0 --rates 50k,100k,200k --rings 256 --out report/
"""

RATES = {"trace": "500k,1M,2M,4M,8M", "tap": "25k,50k,100k,200k"}
#: How often a point is measured at most without being told.
DEFAULT_REPEAT = 3
EVERYTHING = "load=ip or ip6 or arp"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "drops",
        help="sweep offered load and ring size: where packets are lost",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
        takes_filter=True,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "trace",
        nargs="?",
        type=common.capture,
        metavar="TRACE",
        help="the capture that is the load, looped as needed; -: stdin",
    )
    parser.add_argument(
        "--tap", metavar="NAME", help="instead of a capture: live load through a TAP device of this name"
    )
    parser.add_argument(
        "--rates",
        type=common.typed(Rate.parse_list, "rates"),
        metavar="R,R,…",
        help=f"offered loads (default {RATES['trace']}; on a TAP {RATES['tap']})",
    )
    parser.add_argument(
        "--rings",
        type=common.typed(rings, "rings"),
        default=(64, 256, 1024),
        metavar="N,N,…",
        help="ring sizes, powers of two (default 64,256,1024)",
    )
    parser.add_argument(
        "--packets",
        type=common.count(100, 10**9),
        metavar="N",
        help="packets offered at each point (default: half a second of the load and a small capture whole; on the "
        "virtual clock 50000)",
    )
    parser.add_argument(
        "--repeat",
        type=common.count(1, 100),
        metavar="N",
        help="measure each point so often; table and plot show medians and ranges (default 3; on the virtual clock, "
        "where each is the same, 1)",
    )
    parser.add_argument(
        "--search",
        nargs="?",
        const=0.0,
        type=common.typed(share, "search"),
        metavar="LOSS",
        help="for each ring size, the highest rate with at most this loss (0, or as 0.1%%; default 0) to within 1 %%, "
        "as RFC 2544 and RFC 9971 have it; without --rates nothing else",
    )
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        type=common.typed(Tenant.parse_binding),
        metavar="NAME=FILTER[,…]",
        help="as in replay (default: one sink takes everything)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where drops.csv, drops.parquet, drops.json and drops.png go"
    )
    common.add_mtu(parser)
    common.add_max_gap(parser)
    common.add_memory(parser)
    common.add_impair(parser)
    common.add_pcap_out(parser)
    common.add_trace(parser)
    common.add_machine(parser, rings=False)
    parser.set_defaults(descriptors=None)


def rings(text: str) -> tuple[int, ...]:
    return tuple(parse_ring(part.strip(), "ring") for part in text.split(","))


def share(text: str) -> float:
    """A share: "0", "0.001", "0.1%"."""
    number, sign, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if sign else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value < 1:
        raise UsageError(f'loss "{text}": it must be a share from 0 to less than 1, as 0.001 or 0.1%')
    return value


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    plan = plan_of(arguments, command)
    common.find_modules(plan.tenants)
    unsaid = RATES["tap" if arguments.tap else "trace"] if arguments.search is None else ""
    rates = arguments.rates or (Rate.parse_list(unsaid) if unsaid else ())
    if arguments.out is not None:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(f"report directory {arguments.out}", error) from None
    captures = [] if arguments.trace is None else [arguments.trace]
    check_outputs(written(arguments, rates), captures, arguments.costs)
    from exonet.lab.sweep import Sweep  # late: help and errors need no kernel

    sweep = Sweep(plan, rates, arguments.rings, arguments.packets, arguments.repeat, arguments.descriptors)
    trace = sweep.load(common.say)
    points = sweep.run(trace)
    if rates:
        print(points.table())
    if arguments.search is not None and not points.interrupted:
        from exonet.lab.search import search, words

        search(sweep, arguments.search, points, trace)
        print("\n".join(map(words, points.found)))
    for note in points.notes():
        common.say(note)
    if arguments.out is not None:
        files = points.write(arguments.out)
        common.say(f"written: {', '.join(str(file) for file in files)}")
    return common.exit_code(failed=points.failed, interrupted=points.interrupted)


def written(arguments: argparse.Namespace, rates: Sequence[Rate]) -> list[Output]:
    """The report, and the files of every point."""
    report: list[Output] = [] if arguments.out is None else [("--out", path) for path in of_report(arguments.out)]
    if arguments.out is not None and arguments.search is not None:
        report.append(("--out", of_search(arguments.out)))
    points = list(product(rates, arguments.rings, range(arguments.repeat or DEFAULT_REPEAT)))
    for option, path in (("--pcap-out", arguments.pcap_out), ("--trace", arguments.event_log)):
        report += [] if path is None else [(option, of_point(path, *point)) for point in points]
    return report


def load(arguments: argparse.Namespace) -> TraceSource:
    return TraceSource(
        path=arguments.trace,
        max_gap_ns=arguments.max_gap,
        memory=arguments.memory,
        mtu=arguments.mtu,
        resegment=arguments.resegment,
    )


def plan_of(arguments: argparse.Namespace, command: Sequence[str]) -> Plan:
    if (arguments.trace is None) == (arguments.tap is None):
        raise UsageError("drops: name a capture, or --tap NAME, and not both (see exonet drops --help)")
    if arguments.tap and arguments.clock == Clock.VIRTUAL.value:
        raise UsageError("drops --tap is live: it cannot run on the virtual clock")
    tenants = merge(arguments.bind or [Tenant.parse_binding(EVERYTHING)])
    settings = replace(common.settings(arguments), descriptors=arguments.descriptors or 1024)
    if arguments.tap and (arguments.mtu is not None or arguments.resegment):
        raise UsageError("drops --tap: --mtu and --resegment are for captures")
    source: TraceSource | TapSource = TapSource(name=arguments.tap or "", ipv6=False)
    if not arguments.tap:
        source = load(arguments)
    return Plan(source=source, tenants=tenants, settings=settings, command=common.command_line(command))
