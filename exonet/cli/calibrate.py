# SPDX-License-Identifier: MIT
"""`exonet calibrate`: measures what each step of a packet costs on this host, for --costs on the virtual clock."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exonet.cli import common
from exonet.cli.outputs import check_outputs
from exonet.errors import not_written

EPILOG = """\
The file is {"costs": {…}, "libos": {KIND: {…}}, "about": {…}}: nanoseconds, and picoseconds for each byte. A LibOS of a
kind that was not measured is charged as the dearest that was. The capacity that the model predicts for each kind,
inline, is printed beside what runs reach. Runs on the virtual clock that are given the same file lose the same packets,
on any host. Measure on an idle machine.

examples:
  exonet calibrate --out costs.json
  exonet calibrate --libos sink --libos mylib:Echo --out costs.json
  exonet drops trace.pcap --clock virtual --costs costs.json --rates 500k,1M,2M,4M,8M
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="measure this host's costs, for the virtual clock",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the cost model goes (default: standard output)")
    parser.add_argument(
        "--libos",
        action="append",
        metavar="KIND",
        help="a kind of LibOS whose cost is measured, as stack= has it: sink, echo, mylib:Class; may be repeated "
        "(default: sink and echo)",
    )
    parser.add_argument(
        "--repeat",
        type=common.count(1, 1000),
        default=5,
        metavar="N",
        help="measure each thing so often and take the best (default 5)",
    )


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    check_outputs([("--out", arguments.out)])
    from exonet.lab.calibrate import KINDS, Calibration  # late: help and errors need no kernel
    from exonet.lab.results import host

    watched = sys.stderr.isatty()

    def say(what: str) -> None:
        if watched:
            common.say(f"measuring {what}")

    kinds = tuple(dict.fromkeys(arguments.libos or KINDS))
    calibration = Calibration(kinds, arguments.repeat, say=say)
    model = calibration.measure()
    agreement = [capacity.to_json() for capacity in calibration.capacities]
    text = model.to_json({**host(), "repeat": arguments.repeat, "capacities": agreement})
    if arguments.out is None:
        print(text, end="")
        return 0
    try:
        arguments.out.write_text(text)
    except OSError as error:
        raise not_written(f"cost model {arguments.out}", error) from None
    for name, value in model.describe().items():
        per = "ps a byte" if name.endswith("_byte_ps") else "ns"
        print(f"{name.removesuffix('_ps'):<14} {value:>6,} {per}")
    for kind, each in model.libos.items():
        print(f"{kind:<14} {each.consume:>6,} ns, {each.consume_byte_ps:,} ps a byte")
    print("\n".join(map(str, calibration.capacities)))
    common.say(f"written: {arguments.out}; use it as --clock virtual --costs {arguments.out}")
    return 0
