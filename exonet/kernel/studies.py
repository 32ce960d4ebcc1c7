# SPDX-License-Identifier: MIT
"""Studies: what the kernel has found out about filters, and who finds it out.

What a text decomposes into, and how two filters lie, is a function of the texts alone, so it is found once, and may be
found in any thread. To find it can take long; a system call of a LibOS must not (frames wait meanwhile). So within
`impatient()` what is not known raises Unready with the work: the call changes nothing, the work is done in a workshop,
and the call is made again. Elsewhere `find` does the work at once.

What has been found is remembered as long as there is room, and what a call needs until it is answered: however much
that is, each time it is made again it comes further.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from exonet.clock import monotonic_ns
from exonet.errors import ExhaustedError, ExonetError, KernelBug

__all__ = ["Needed", "Studies", "Unready", "again"]

Found = TypeVar("Found")

#: How much is remembered, in conjuncts.
ROOM = 1 << 14
#: What a refusal counts as, with the text that it is about.
REFUSAL = 4
#: So many studies may one call need.
MOST_NEEDED = 1024
#: For so long may a call do what takes a while without being a study.
ALLOWANCE_NS = 1_000_000


class Unready(Exception):
    """`work` has to be done, in any thread; then whatever raised this is to be tried again."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__("what it asks for is not ready")
        self.work = work


def again() -> None:
    """The work of an Unready whose call itself goes on with what is to be done, when it is made again."""


class _Refusal:
    """An error without what it drags along."""

    def __init__(self, error: Exception) -> None:
        self._kind = type(error) if isinstance(error, ExonetError) else KernelBug
        self._text = str(error) if isinstance(error, ExonetError) else f"{type(error).__name__}: {error}"

    @property
    def error(self) -> ExonetError:
        return self._kind(self._text)


#: What a call has needed so far.
Needed = dict[Hashable, Any]


class Studies:
    """Of one kernel. What was wrong is remembered, too."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._needed: Needed | None = None
        self._until = 0

    @contextmanager
    def impatient(self, needed: Needed) -> Iterator[None]:
        """Within it, `find` raises Unready instead of taking long. needed: empty for a new call, and the same each time
        that it is made again. For the kernel's thread.
        """
        self._needed, self._until = needed, monotonic_ns() + ALLOWANCE_NS
        try:
            yield
        finally:
            self._needed = None

    @property
    def patient(self) -> bool:
        return self._needed is None

    @property
    def hurried(self) -> bool:
        """Has an impatient call used up the time for what it might do itself?"""
        return self._needed is not None and monotonic_ns() >= self._until

    def find(self, key: Hashable, work: Callable[[], Found], *, weigh: Callable[[Found], int] = lambda _: 1) -> Found:
        """What `work` gives or raises (ExonetError; anything else is a KernelBug), remembered as `key`. weigh: how many
        conjuncts it holds.
        """
        needed = self._needed
        if needed is not None and key in needed:
            found = needed[key]
        elif (known := self._found.get(key)) is not None:
            found = known[0]
            if needed is not None:
                needed[key] = found
        elif needed is None:
            found = self._study(key, work, weigh, {})
        elif len(needed) >= MOST_NEEDED:
            raise ExhaustedError(f"more than {MOST_NEEDED} filters would have to be made ready or compared for it")
        else:
            raise Unready(partial(self._study, key, work, weigh, needed))
        if isinstance(found, _Refusal):
            raise found.error
        return cast(Found, found)

    def once(self, key: Hashable, work: Callable[[], Found]) -> Found:
        """What `work` gives, which a call that is made again need not do again. What that depends on is in the key."""
        needed = self._needed
        if needed is None:
            return work()
        if key not in needed:
            needed[key] = work()
        return cast(Found, needed[key])

    def _study(
        self, key: Hashable, work: Callable[[], Found], weigh: Callable[[Found], int], needed: Needed
    ) -> Found | _Refusal:
        known = self._found.get(key)  # somebody else may have asked, too
        found: Found | _Refusal
        if known is not None:
            found = known[0]
        else:
            try:
                found = work()
                weight = max(weigh(found), 1)
            except Exception as error:  # one text's failure, not the machine's
                found, weight = _Refusal(error), REFUSAL
            self._keep(key, found, weight)
        needed[key] = found
        return found

    def _keep(self, key: Hashable, found: Any, weight: int) -> None:
        """The oldest make room."""
        with self._lock:
            known = self._found.pop(key, (None, 0))
            self._found[key] = (found, weight)
            self._held += weight - known[1]
            while self._held > ROOM and len(self._found) > 1:
                self._held -= self._found.popitem(last=False)[1][1]
