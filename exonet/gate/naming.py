# SPDX-License-Identifier: MIT
"""How LibOSes are named: our own, those that other packages add as entry points, and `module:Class` itself.

The kernel resolves a name before it starts a process: inside its walls a LibOS sees no package's metadata.
"""

from importlib.metadata import entry_points

from exonet.errors import UsageError

__all__ = ["GROUP", "installed", "resolve"]

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
