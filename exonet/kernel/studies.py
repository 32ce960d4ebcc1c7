# SPDX-License-Identifier: MIT
"""Studies: what the kernel has found out about filters, and who finds it out.

What a text decomposes into, and how two filters lie, is a function of the texts alone, so it is found once, and may be
found in any thread. To find it can take long; a system call of a LibOS must not (frames wait meanwhile). So within
`impatient()` what is neither known nor small raises Unready with the work: the call changes nothing, the work is done
in a workshop, and the call is made again. Elsewhere `find` does the work at once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from exonet.clock import monotonic_ns
from exonet.errors import ExonetError

__all__ = ["Studies", "Unready"]

Found = TypeVar("Found")

#: How much is remembered, in conjuncts.
ROOM = 1 << 14
#: What is small is done within a system call for so long.
ALLOWANCE_NS = 1_000_000


class Unready(Exception):
    """`work` has to be done, in any thread; then whatever raised this is to be tried again."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__("what it asks for is not ready")
        self.work = work


class Studies:
    """Of one kernel. What has been found stays until there is no room; what was wrong is remembered, too."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._until: int | None = None

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Within it, `find` raises Unready instead of taking long. For the kernel's thread."""
        self._until = monotonic_ns() + ALLOWANCE_NS
        try:
            yield
        finally:
            self._until = None

    def find(
        self,
        key: Hashable,
        work: Callable[[], Found],
        *,
        small: bool = False,
        weigh: Callable[[Found], int] = lambda _: 1,
    ) -> Found:
        """What `work` gives or raises (ExonetError), remembered as `key`. small: it takes well under a millisecond.
        weigh: how many conjuncts it holds.
        """
        known = self._found.get(key)
        if known is None:
            study = partial(self._study, key, work, weigh)
            if self._until is not None and not (small and monotonic_ns() < self._until):
                raise Unready(study)
            known = study()
        found = known[0]
        if isinstance(found, ExonetError):
            raise found.with_traceback(None)
        return cast(Found, found)

    def _study(
        self, key: Hashable, work: Callable[[], Found], weigh: Callable[[Found], int]
    ) -> tuple[Found | ExonetError, int]:
        found: Found | ExonetError
        try:
            found = work()
            weight = weigh(found)
        except ExonetError as error:
            found, weight = error, 1
        self._keep(key, found, weight)
        return found, weight

    def _keep(self, key: Hashable, found: Any, weight: int) -> None:
        """The oldest make room."""
        with self._lock:
            known = self._found.pop(key, (None, 0))
            self._found[key] = (found, weight)
            self._held += weight - known[1]
            while self._held > ROOM and len(self._found) > 1:
                self._held -= self._found.popitem(last=False)[1][1]
