# SPDX-License-Identifier: MIT
"""How a LibOS comes to life: built over a gate, and the main loop of one in a process of its own.

The kernel starts the process, which confines itself and calls `run(gate)`: first the environment over that gate, then
the LibOS class that the Welcome names, an entry point of the group `exonet.libos` or `module:Class`. Between bursts the
process watches its rings for a while in C (option `spin`: how many looks), then sleeps on the wake socket until the
kernel or the stack's deadline wakes it. It ends when the kernel sets its stop word or closes the control socket.
"""

import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from exonet import errors
from exonet.gate.client import Gate
from exonet.gate.naming import resolve
from libos_stacks.environment import Environment, LibOS
from libos_stacks.settings import Settings

__all__ = ["build", "drive", "load", "run", "serve"]

#: Those that the environment itself looks at, whatever the LibOS.
ENVIRONMENT_OPTIONS = ("spin",)
STEPS_BETWEEN_LOOKS_AT_STOP = 64


def load(name: str) -> Any:
    """The LibOS class called `name`. Raises UsageError where there is none such."""
    module, _, attribute = resolve(name).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise errors.UsageError(f'libos "{name}": {error}') from error


def drive(libos: LibOS, environment: Environment) -> None:
    """Steps the LibOS until the kernel asks it to stop."""
    spin = environment.settings.spin
    while not environment.stopped:
        for _ in range(STEPS_BETWEEN_LOOKS_AT_STOP):
            if not libos.step():
                break
        else:
            continue
        if environment.spin(spin):
            continue
        try:
            environment.sleep(libos.deadline())
        except errors.LibOSError:
            if environment.stopped:  # the kernel closed the control socket because it wants us to go
                return
            raise


def build(gate: Gate) -> tuple[LibOS, Callable[[], None]]:
    """The LibOS that the Welcome names, over an environment of its own, and what closes both: the way inline."""
    environment = Environment(gate)
    try:
        return _libos(environment), environment.close
    except BaseException:
        environment.close()
        raise


def _libos(environment: Environment) -> LibOS:
    kind = load(environment.settings.libos)
    libos: LibOS = kind(environment, options_of(kind, environment.settings))
    return libos


def options_of(kind: Any, settings: Settings) -> dict[str, Any]:
    """What the LibOS class is told. One that declares `OPTIONS`, the names of those that it has, is told no others:
    UsageError. A class that declares none itself is told everything.
    """
    declared = getattr(kind, "__dict__", {}).get("OPTIONS")
    options = dict(settings.options)
    if settings.serves and (declared is None or "port" in declared):
        options.setdefault("port", list(settings.serves))
    if declared is not None:
        known = (*declared, *ENVIRONMENT_OPTIONS)
        for name in options:
            if name not in known:
                raise errors.UsageError(f'libos "{settings.libos}": option "{name}": it has {", ".join(known)} only')
    return options


def serve(gate: Gate) -> None:
    """One LibOS, from its Welcome to its end. Returns when it was asked to stop; raises what the LibOS raised."""
    with Environment(gate) as environment:
        environment.patience = environment.settings.spin
        libos = _libos(environment)
        gate.ready()
        drive(libos, environment)


def run(gate: Gate) -> int:
    """`serve`, and its exit status: whatever a LibOS raises ends its process with one line on stderr and status 1, or 2
    where what it was asked to be cannot be.
    """
    try:
        serve(gate)
    except Exception as error:
        print(f"libos: {complaint(error)}", file=sys.stderr)
        return errors.UsageError.exit_code if isinstance(error, errors.UsageError) else 1
    return 0


def complaint(error: BaseException) -> str:
    """One line for a person: ours speak for themselves, others get their type and where they were raised."""
    if isinstance(error, errors.ExonetError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})".replace("\n", " ")
