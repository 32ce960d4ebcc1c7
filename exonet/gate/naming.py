# SPDX-License-Identifier: MIT
"""How LibOSes are named: our own, those that other packages add as entry points, and `module:Class` itself.

The kernel resolves a name before it starts a process: inside its walls a LibOS sees no package's metadata.
"""

import sys
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from exonet.errors import UsageError

__all__ = ["GROUP", "find", "installed", "resolve"]

GROUP = "exonet.libos"
#: Known without metadata, as in a source tree that is not installed.
OWN = {"echo": "libos_stacks.echo:Echo", "sink": "libos_stacks.sink:Sink"}


def installed() -> dict[str, str]:
    """`module:Class` of every LibOS that has a name; nobody takes the name of one of our own."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | OWN


def resolve(name: str) -> str:
    """`module:Class` of the LibOS called `name`, or what is in that form already. Raises UsageError."""
    if name in OWN:  # without a look at every package's metadata
        return OWN[name]
    if ":" in name:
        return name
    known = installed()
    if name not in known:
        raise UsageError(f'libos "{name}": must be module:Class or one of {", ".join(sorted(known))}')
    return known[name]


def find(name: str, beside: Path) -> None:
    """Makes sure that the module of a `module:Class` can be imported here, from directory `beside` where it is not
    installed: that then ends the search path. Nothing of it is run. Raises UsageError where there is none such.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return
    top = module.partition(".")[0]
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise UsageError(f'libos "{name}": must be module:Class, as in my_package.mine:Mine')
    if top in sys.modules or find_spec(top) is not None:
        return
    if PathFinder.find_spec(top, [str(beside)]) is None:
        raise UsageError(f'libos "{name}": there is no module {top}, neither installed nor in {beside}')
    sys.path.append(str(beside))
