# SPDX-License-Identifier: MIT
"""`exonet filter`: what a filter means to the demux: its conjuncts, or why it cannot be had."""

import argparse
from collections.abc import Sequence
from typing import Any

EPILOG = """\
examples:
  exonet filter explain 'tcp port 80'
  exonet filter explain 'ip6 and not udp'
  exonet filter explain 'Udp.dport == 53 and Ip.src in "10.0.0.0/8"'
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "filter", help="explain a filter", description=__doc__.partition(": ")[2], epilog=EPILOG
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain",
        help="the conjuncts it becomes",
        description="Prints the conjuncts of a filter: each is a set of comparisons that must all hold, and a packet "
        "is taken where one of them does. Where bindings are nested, the conjunct that compares most bits wins.",
        epilog=EPILOG,
    )
    explain.add_argument("text", metavar="FILTER", help="pcap-filter syntax, or an expression over header fields")
    explain.set_defaults(run=run)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    from exonet.filters.compile import compile_filter  # late: help needs no compiler

    compiled = compile_filter(arguments.text)
    print(f"{compiled.text}: {len(compiled.conjuncts)} conjunct{'s' if len(compiled.conjuncts) != 1 else ''}")
    for conjunct in compiled.conjuncts or ("it takes nothing",):
        print(f"  {conjunct}")
    return 0
