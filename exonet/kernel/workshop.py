# SPDX-License-Identifier: MIT
"""The workshop: a thread beside the kernel's, for what takes long and changes nothing of the machine.

The kernel's thread gives jobs in, goes on with frames, and takes what they came to between two bursts: `done` is called
in its own thread, by `collect`. So bind time may be slow without use time waiting for it (DESIGN §1). Jobs are done one
after the other. Who has had less of the thread's time comes first (start-time fair queueing, Goyal et al., SIGCOMM'96):
whatever others ask for, one waits for the job under way and for a fair share of the others.
"""

import contextlib
import itertools
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from exonet.clock import monotonic_ns
from exonet.closing import Closing
from exonet.errors import KernelBug

__all__ = ["Turn", "Workshop"]

#: A job that takes longer is left to itself: the thread is not what keeps a process alive.
LEAVE_S = 1.0

Job = Callable[[], Any]
Done = Callable[[Any], None]


@dataclass(slots=True)
class Turn:
    """Whose jobs they are. after: when the next one's turn is, ns of the thread's time."""

    after: int = 0


class Workshop(Closing):
    """`fileno()` is readable when there is something to `collect`. place: where the thread runs (cores.py)."""

    def __init__(self, name: str, place: Callable[[], AbstractContextManager[None]]) -> None:
        self._name = name
        self._place = place
        self._wanted: queue.PriorityQueue[tuple[int, int, Job | None, Done, Turn]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._now = 0  # when the turn of the job under way was
        self._made: queue.SimpleQueue[tuple[Done, Any]] = queue.SimpleQueue()
        self._here, self._there = socket.socketpair()
        for end in (self._here, self._there):
            end.setblocking(False)
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        return self._here.fileno()

    def do(self, job: Job, done: Done, turn: Turn | None = None) -> None:
        """Has `job` done in the thread, which starts with the first one; it may raise nothing but what is a bug. turn:
        of whom asks for it, who asks for nothing more until it is done; None: as one who has had nothing.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        turn = turn or Turn()
        self._wanted.put((max(turn.after, self._now), next(self._count), job, done, turn))

    def collect(self) -> None:
        """Hands on what the jobs done since have come to. KernelBug where one has failed."""
        with contextlib.suppress(BlockingIOError):
            while self._here.recv(64):
                pass
        while not self._made.empty():
            done, result = self._made.get()
            if isinstance(result, Exception):
                raise KernelBug(f"{self._name}: {type(result).__name__}: {result}") from result
            done(result)

    def ring(self) -> None:
        """Makes `fileno()` readable."""
        with contextlib.suppress(OSError):  # it is readable already, or closed
            self._there.send(b"\0")

    def _work(self) -> None:
        with self._place():
            while True:
                self._now, _, job, done, turn = self._wanted.get()
                if job is None:
                    return
                begin = monotonic_ns()
                try:
                    result = job()
                except Exception as error:  # the kernel's thread is told
                    result = error
                turn.after = self._now + monotonic_ns() - begin
                self._made.put((done, result))
                self.ring()

    def close(self) -> None:
        """Waits a little for the job under way, if there is one; those behind it are dropped. Idempotent."""
        if self._thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._wanted.get_nowait()
            self._wanted.put((0, -1, None, _nothing, Turn()))
            self._thread.join(LEAVE_S)
            self._thread = None
        self._here.close()
        self._there.close()


def _nothing(_: Any) -> None:
    """What is done with the result of no job."""
