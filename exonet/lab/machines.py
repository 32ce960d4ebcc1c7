# SPDX-License-Identifier: MIT
"""The machines that run on this host, and what they say when asked: the other side of kernel/statesocket.py."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exonet.errors import RunError
from exonet.kernel.statesocket import directories, is_alive, is_trusted

__all__ = ["PATIENCE_S", "Machine", "State", "running"]

PATIENCE_S = 10.0
MOST_BYTES = 1 << 30
_NAME = re.compile(r"(\d+)(-\d+)?")


@dataclass(frozen=True, slots=True)
class State:
    """What a machine said of a topic."""

    pid: int
    topic: str
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """A running machine. name: its process, and which of that process's machines where it is not the first."""

    name: str
    pid: int
    path: Path

    def ask(self, topic: str) -> State:
        """RunError where it does not answer in time, refuses, or ends meanwhile."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(PATIENCE_S)
            try:
                asked.connect(os.fspath(self.path))
                asked.sendall(topic.encode() + b"\n")
                head, *rows = _objects(asked)
            except PermissionError:
                raise RunError(f"machine {self.name}: it belongs to somebody else: try sudo") from None
            except TimeoutError:
                raise RunError(f"machine {self.name}: no answer within {PATIENCE_S:g} s") from None
            except (OSError, ValueError) as error:
                raise RunError(f"machine {self.name}: it ended, or does not answer: {error}") from None
        for row in (head, *rows):
            if "error" in row:
                raise RunError(f"machine {self.name}: {row['error']}")
        if not rows or rows[-1] != {"rows": len(rows) - 1}:
            raise RunError(f"machine {self.name}: it ended before its answer did")
        return State(self.pid, topic, tuple(rows[:-1]))


def _objects(asked: socket.socket) -> Iterator[dict[str, Any]]:
    """The lines of a reply. ValueError where they are no reply."""
    taken = 0
    with asked.makefile("rb") as lines:
        for line in lines:
            taken += len(line)
            found = json.loads(line)
            if not isinstance(found, dict) or taken > MOST_BYTES:
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
        for path in names:
            match = _NAME.fullmatch(path.stem)
            with contextlib.suppress(OSError):
                if path.suffix == ".sock" and match and is_alive(path):
                    found.append(Machine(path.stem, int(match[1]), path))
    return sorted(found, key=lambda machine: (machine.pid, machine.name)), closed
