# SPDX-License-Identifier: MIT
"""What happened at bind time, as typed events: a JSON line each, for `--trace FILE`. Nothing here is per packet.

Each line has `ns` (the machine's clock) and `event`, and the fields of the event's class. The catalogue:

run_begins            the machine is built, nothing is attached; what was run
environment_made      a LibOS has its rings and sockets, and no right to anything yet
environment_ready     it has set itself up and has begun to serve (processes say so; an inline one is ready when built)
environment_ended     it is gone and what it held is given back; why
binding_made          a filter has been authorised and is in the demux
shape_compiled        a shape of the demux has native code, or why it cannot have it
binding_removed       it is out again: unbound, its capability revoked, or its environment ended
refused               a system call had no effect; who asked for what, and the answer
wire_failed           a wire can neither give nor take any more; the run ends
counters              about once a second of a live run, and when everything has drained: offered, delivered, dropped
wire_ended            the run is over for a wire; what passed it
run_ended             what follows are the ends of environments; whether Ctrl-C ended it

On the virtual clock the lines repeat to the byte (invariant 7), which is why `counters` comes once there.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TextIO

from exonet.errors import ExonetError, not_written

__all__ = [
    "BindingMade",
    "BindingRemoved",
    "Counters",
    "EnvironmentEnded",
    "EnvironmentMade",
    "EnvironmentReady",
    "Event",
    "EventLog",
    "Refused",
    "RunBegins",
    "RunEnded",
    "ShapeCompiled",
    "WireEnded",
    "WireFailed",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Anything that can be traced; its name is its class's, with underscores."""

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


@dataclass(frozen=True, slots=True)
class RunBegins(Event):
    command: tuple[str, ...]
    clock: str
    seed: int


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    interrupted: bool


@dataclass(frozen=True, slots=True)
class EnvironmentMade(Event):
    env: int
    environment: str
    mode: str
    libos: str


@dataclass(frozen=True, slots=True)
class EnvironmentReady(Event):
    env: int
    environment: str


@dataclass(frozen=True, slots=True)
class EnvironmentEnded(Event):
    env: int
    environment: str
    reason: str


@dataclass(frozen=True, slots=True)
class BindingMade(Event):
    binding: int
    env: int
    environment: str
    port: int
    filter: str
    conjuncts: int
    snoop: bool


@dataclass(frozen=True, slots=True)
class ShapeCompiled(Event):
    """A shape of the demux has native code, or (`error`) cannot have it and is answered from its table."""

    shape: str
    took_ns: int
    error: str


@dataclass(frozen=True, slots=True)
class BindingRemoved(Event):
    binding: int
    env: int
    environment: str


@dataclass(frozen=True, slots=True)
class Refused(Event):
    env: int
    environment: str
    call: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class WireFailed(Event):
    port: int
    message: str


@dataclass(frozen=True, slots=True)
class WireEnded(Event):
    """Frames and bytes that the wire gave to its port and took from it."""

    port: int
    wire: str
    received: int
    received_bytes: int
    sent: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Counters(Event):
    offered: int
    delivered: int
    dropped: Mapping[str, int]


class EventLog:
    """Where events go: a file of JSON lines, or (path None) nowhere. `now`: the machine's clock, set when there is one.

    UsageError where the file cannot be made. Where it takes no more, later events go nowhere and the run goes on:
    `close` says so (RunError), once.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.now: Callable[[], int] = lambda: 0
        self._path = path
        self._file: TextIO | None = None
        self._error: ExonetError | None = None
        if path is not None:
            try:
                self._file = path.open("w", buffering=1)  # by lines: what happened is there, whatever happens next
            except OSError as error:
                raise not_written(f"trace {path}", error) from None

    @property
    def listening(self) -> bool:
        """Is there a file? What is made often need not be made where there is none."""
        return self._file is not None

    def write(self, event: Event) -> None:
        if self._file is not None:
            line = {"ns": self.now(), "event": event.name(), **asdict(event)}
            try:
                self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            except OSError as error:
                self._error = not_written(f"trace {self._path}", error)
                self._end()

    def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # a line that could not be written, which is known
                file.close()

    def close(self) -> None:
        """Idempotent; later events go nowhere. RunError where the file does not hold all that came before."""
        self._end()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except ExonetError:
            if kind is None:  # else what has gone wrong before matters more
                raise
