# SPDX-License-Identifier: MIT
"""Which cores the kernel's thread, its LibOS processes and the compiler run on.

By default wherever the scheduler puts them. With a core of its own the kernel is not pushed aside by LibOSes that poll:
they share the other cores of those that this process may use. So does the compiler, where there are several. A single
one it leaves to the LibOSes: what waits for the kernel's thread waits on the wire, what waits for a LibOS is lost
beyond its buffers.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from exonet.errors import UsageError

__all__ = ["Cores"]


class Cores:
    """core: the kernel's own, by number; None: no word about cores. UsageError where it cannot be had."""

    def __init__(self, core: int | None) -> None:
        allowed = os.sched_getaffinity(0)
        if core is not None and (core not in allowed or len(allowed) < 2):
            named = ", ".join(map(str, sorted(allowed)))
            raise UsageError(f"core {core}: must be one of {named}, and there must be another for the LibOSes")
        self._own = None if core is None else {core}
        self._others = allowed - (self._own or set())

    @contextmanager
    def kernel(self) -> Iterator[None]:
        """This thread runs on the kernel's core."""
        with _on(self._own):
            yield

    @contextmanager
    def others(self) -> Iterator[None]:
        """This thread, and every process and thread that it starts, runs on the other cores."""
        with _on(self._others if self._own else None):
            yield

    @contextmanager
    def compiler(self) -> Iterator[None]:
        """This thread, which makes native code, runs where that costs no frame."""
        with _on(None if self._own is None else self._others if len(self._others) > 1 else self._own):
            yield


@contextmanager
def _on(cores: set[int] | None) -> Iterator[None]:
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
