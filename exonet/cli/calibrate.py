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
The file is {"costs": {…}, "about": {…}}: nanoseconds, and picoseconds for each byte. Runs on the virtual clock that are
given the same file lose the same packets, on any host. Measure on an idle machine.

examples:
  exonet calibrate --out costs.json
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
        "--repeat",
        type=common.count(1, 1000),
        default=5,
        metavar="N",
        help="measure each thing so often and take the best (default 5)",
    )


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    check_outputs([("--out", arguments.out)])
    from exonet.lab.calibrate import Calibration  # late: help and errors need no kernel
    from exonet.lab.results import host

    watched = sys.stderr.isatty()

    def say(what: str) -> None:
        if watched:
            common.say(f"measuring {what}")

    model = Calibration(arguments.repeat, say=say).measure()
    text = model.to_json({**host(), "repeat": arguments.repeat})
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
    common.say(f"written: {arguments.out}; use it as --clock virtual --costs {arguments.out}")
    return 0
