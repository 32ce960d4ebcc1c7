# SPDX-License-Identifier: MIT
"""The workshop: a thread beside the kernel's, for what takes long and changes nothing of the machine.

The kernel's thread gives jobs in, goes on with frames, and takes what they came to between two bursts: `done` is called
in its own thread, by `collect`. So bind time may be slow without use time waiting for it. Jobs are done one
after the other. Who has had least of the thread's time of late comes first: who asks now and then waits for no more
than the job under way, however much others ask for.
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
#: After so long half of what one has had is forgotten.
HALF_NS = 10_000_000_000

Job = Callable[[], Any]
Done = Callable[[Any], None]


@dataclass(slots=True)
class Turn:
    """Whose jobs they are. used: ns of the thread's time, of which half counts after HALF_NS; at: when that was so."""

    used: float = 0
    at: int = 0

    def now(self) -> float:
        now = monotonic_ns()
        self.used *= 0.5 ** ((now - self.at) / HALF_NS)
        self.at = now
        return self.used


class Workshop(Closing):
    """`fileno()` is readable when there is something to `collect`. place: where the thread runs (cores.py)."""

    def __init__(self, name: str, place: Callable[[], AbstractContextManager[None]]) -> None:
        self._name = name
        self._place = place
        self._wanted: queue.PriorityQueue[tuple[float, int, Job | None, Done, Turn]] = queue.PriorityQueue()
        self._count = itertools.count()
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
        self._wanted.put((turn.now(), next(self._count), job, done, turn))

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
                _, _, job, done, turn = self._wanted.get()
                if job is None:
                    return
                begin = monotonic_ns()
                try:
                    result = job()
                except Exception as error:  # the kernel's thread is told
                    result = error
                turn.used += monotonic_ns() - begin
                self._made.put((done, result))
                self.ring()

    def close(self) -> None:
        """Waits a little for the job under way, if there is one; those behind it are dropped. Idempotent."""
        if self._thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._wanted.get_nowait()
            self._wanted.put((-1, 0, None, _nothing, Turn()))
            self._thread.join(LEAVE_S)
            self._thread = None
        self._here.close()
        self._there.close()


def _nothing(_: Any) -> None:
    """What is done with the result of no job."""
