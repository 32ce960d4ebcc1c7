# SPDX-License-Identifier: MIT
"""`exonet info`: what a capture holds: format, packets, link types, time, and where it is broken."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from exonet.cli import common
from exonet.clock import NS_PER_S, format_duration
from exonet.wording import counted

EPILOG = """\
examples:
  exonet info trace.pcapng
  exonet info trace.pcap.gz --json
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "info", help="what a capture holds", description=__doc__.partition(": ")[2], epilog=EPILOG
    )
    parser.set_defaults(run=run)
    parser.add_argument("trace", type=common.capture, metavar="TRACE", help="pcap or pcapng, gzip or not; -: stdin")
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")
    common.add_memory(parser)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    from exonet.lab.notes import odd_times  # late: help needs no capture reader
    from exonet.wire.capture import Trace

    with Trace.load(arguments.trace, memory_limit=arguments.memory) as trace:
        count, times, odd = trace.count, trace.times, list(odd_times(trace))
        failed = trace.broken is not None
        facts = {
            **trace.describe(),
            "link_types": list(trace.link_types),
            "interfaces": len(trace.interfaces),
            "by_interface": [asdict(interface) for interface in trace.interfaces],
            "wire_bytes": trace.wire_bytes,
            "first_timestamp_ns": trace.first_timestamp,
            "last_timestamp_ns": trace.last_timestamp,
            "times": {**asdict(times), "duration": times.duration, "odd": odd},
        }
        if arguments.json:
            print(json.dumps(facts, indent=2))
            return common.exit_code(failed=failed, interrupted=False)
        span = times.duration
        rows = [
            ("format", f"{trace.format}, {facts['interfaces']} interface{'s' if facts['interfaces'] != 1 else ''}"),
            *[("link type", line) for line in trace.told_of_link_types() or ["none"]],
            (
                "packets",
                f"{count:,}"
                + (
                    f", {count - trace.not_ethernet - trace.oversize:,} of them can be replayed"
                    if trace.not_ethernet or trace.oversize
                    else ""
                ),
            ),
            ("bytes", f"{trace.bytes:,} captured, {trace.wire_bytes:,} on the wire"),
        ]
        if times.stamped:
            begin = datetime.fromtimestamp(times.earliest // NS_PER_S, UTC)
            rows.append(("time", f"{format_duration(span)} from {begin:%Y-%m-%d %H:%M:%S} UTC"))
        rows += [("odd times", text) for text in odd]
        if span > 0:
            rows.append(
                ("mean rate", f"{count * NS_PER_S / span:,.0f} packets/s, {trace.wire_bytes * 8e3 / span:,.2f} Mbit/s")
            )
        if trace.snapped:
            rows.append(("snapped", f"the snaplen cut {counted(trace.snapped, 'packet')}"))
        if trace.fcs:
            rows.append(("FCS", f"left away from {counted(trace.fcs, 'packet')}: no part of the frame"))
        rows.append(("broken", trace.broken or "no"))
    print(arguments.trace)
    for label, text in rows:
        print(f"  {label:<11} {text}")
    return common.exit_code(failed=failed, interrupted=False)
