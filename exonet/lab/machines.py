# SPDX-License-Identifier: MIT
"""The machines that run on this host, and what they say when asked: the other side of kernel/statesocket.py.

Root is shown those of all users (others.py), so what one says is bounded in size and time, whoever it is.
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exonet.clock import NS_PER_S, monotonic_ns
from exonet.errors import RunError
from exonet.kernel.statesocket import OVERRIDE, directories, is_alive, is_trusted
from exonet.lab.others import connect, directories_of_others, names_in
from exonet.wording import shown

__all__ = ["PATIENCE_S", "Machine", "State", "running"]

PATIENCE_S = 10.0
LONGEST_NS = 120 * NS_PER_S
MOST_BYTES = 1 << 28
MOST_OF_LINE = 1 << 24
CHUNK = 1 << 16
_NAME = re.compile(r"([1-9]\d{0,9})(-\d{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class State:
    """What a machine said of a topic."""

    pid: int
    topic: str
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """A running machine. name: its process, and which of that process's machines where it is not the first. user:
    whose it is, where it is not ours.
    """

    name: str
    pid: int
    path: Path
    user: int | None = None

    def ask(self, topic: str) -> State:
        """RunError where it does not answer in time, refuses, or ends meanwhile."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(PATIENCE_S)
            try:
                self._connect(asked)
                asked.sendall(topic.encode() + b"\n")
                head, *rows = _objects(asked)
            except PermissionError:
                raise RunError(f"machine {self.name}: it belongs to somebody else: try sudo") from None
            except TimeoutError:
                raise RunError(f"machine {self.name}: no answer within {PATIENCE_S:g} s") from None
            except (OSError, ValueError, RecursionError) as error:
                raise RunError(f"machine {self.name}: it ended, or does not answer: {error}") from None
        for row in (head, *rows):
            if "error" in row:
                raise RunError(f"machine {self.name}: {shown(str(row['error']))}")
        if not rows or rows[-1] != {"rows": len(rows) - 1}:
            raise RunError(f"machine {self.name}: it ended before its answer did")
        return State(self.pid, topic, tuple(rows[:-1]))

    def answers(self) -> bool:
        """Does it listen? Of another user's also: is it that user's?"""
        if self.user is None:
            return is_alive(self.path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                self._connect(probe)
            except OSError:
                return False
        return True

    def _connect(self, asked: socket.socket) -> None:
        if self.user is None:
            asked.connect(os.fspath(self.path))
        else:
            connect(asked, self.path, self.user, self.pid)


def _objects(asked: socket.socket) -> Iterator[dict[str, Any]]:
    """The lines of a reply. ValueError where they are no reply."""
    end = monotonic_ns() + LONGEST_NS
    taken, rest = 0, bytearray()
    while got := asked.recv(CHUNK):
        taken += len(got)
        rest += got
        if monotonic_ns() > end:
            raise ValueError(f"it takes more than {LONGEST_NS // NS_PER_S} s")
        if taken > MOST_BYTES or len(rest) > MOST_OF_LINE:
            raise ValueError("no reply of a machine")
        if b"\n" not in got:
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("no reply of a machine")
            yield found


def running() -> tuple[list[Machine], list[str]]:
    """The machines, by process; and the places that may hold more, but are not for us to read."""
    found: list[Machine] = []
    closed: list[str] = []
    for directory in directories():
        try:
            if not is_trusted(directory):
                continue
            names = sorted(directory.iterdir())
        except PermissionError:
            closed.append(str(directory))
            continue
        except OSError:
            continue
        found += _answering(names)
    if os.geteuid() == 0 and OVERRIDE not in os.environ:
        ours = {machine.name for machine in found}
        found += [machine for machine in _of_others() if machine.name not in ours]
    return sorted(found, key=lambda machine: (machine.pid, machine.name)), closed


def _answering(paths: Iterable[Path], user: int | None = None) -> Iterator[Machine]:
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        with contextlib.suppress(OSError):
            if path.suffix == ".sock" and match:
                machine = Machine(path.stem, int(match[1]), path, user)
                if machine.answers():
                    yield machine


def _of_others() -> Iterator[Machine]:
    for user, directory in directories_of_others():
        with contextlib.suppress(OSError):
            yield from _answering([directory / name for name in names_in(directory, user)], user)
