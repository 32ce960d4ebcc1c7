# SPDX-License-Identifier: MIT
"""`exonet libos`: the LibOSes that are installed, as stack=NAME and NAME@ADDRESS take them."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from exonet.cli import common
from exonet.gate.naming import installed

EPILOG = """\
A package adds a LibOS with an entry point of the group exonet.libos:
  [project.entry-points."exonet.libos"]
  mine = "my_package.mine:Mine"
Without one, name it as module:Class, installed or in the working directory:
  exonet replay trace.pcap --bind dns='udp port 53,stack=mine:Mine'
A class with OPTIONS = ("port",) is told of these options only, and any other is refused; one that says nothing of them
is told everything.
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "libos", help="list the LibOSes", description=__doc__.partition(": ")[2], epilog=EPILOG
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    found = sorted(installed().items())
    for name, target in found:
        print(f"{name:<12} {_summary(target)}")
    if not found:
        common.say("no package with a LibOS is installed here; exonet's own come with: pip install .")
    return 0


def _summary(target: str) -> str:
    """The first line of its docstring; a LibOS that cannot be imported says why."""
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        text = getattr(found, attribute).__doc__ or found.__doc__ or ""
    except Exception as error:
        return f"cannot be imported: {error}"
    return text.strip().partition("\n")[0] or target
