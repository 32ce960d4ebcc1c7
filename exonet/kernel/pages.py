# SPDX-License-Identifier: MIT
"""Physical pages: allocation by number or any, pins, guarantees, release; under capability (checked by the caller)
and quota.

The table itself is C (`csrc/page.c`). Here: which extents an environment holds, their capabilities, and their memfds
while they may still be delegated. An extent is one allocation, so one memfd: what is shared by delegation shares
nothing else.
"""

import os
from dataclasses import dataclass
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.errors import ExhaustedError
from exonet.kernel.capability import Quota
from exonet.kernel.freed import Freed

__all__ = ["Extent", "PageTable"]


@dataclass(slots=True, eq=False)
class Extent:
    """One allocation. `live`: its pages that are still held; `fd`: the kernel's own copy of its memfd, open while
    any is. `segment`: the memfd's pages, all of which its owner may fill; `shared`: others have a copy of it too.
    """

    env: int
    first: int
    count: int
    fd: int
    live: set[int]
    segment: int
    capability: int = 0
    shared: bool = False

    def within(self, first: int, count: int) -> range:
        """Those of its page numbers that are among first..first + count - 1."""
        return range(max(first, self.first), min(first + count, self.first + self.count))

    def holds(self, first: int, count: int) -> bool:
        """Is any of these pages of its?"""
        return not self.live.isdisjoint(self.within(first, count))

    def describe(self) -> dict[str, Any]:
        return {"first": self.first, "count": self.count, "held": len(self.live)}


class PageTable:
    """The pages of a machine and who holds them. `native` is its `struct exo_pages *`."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self._extents: list[Extent] = []
        self._freed: dict[int, Freed] = {}

    @property
    def total(self) -> int:
        return int(self.native.count)

    @property
    def free_count(self) -> int:
        return int(lib.exo_pages_free_count(self.native))

    @property
    def owner_fd(self) -> int:
        return int(self.native.owner_fd)

    def used(self, env: int) -> int:
        """Pages that `env` owns."""
        return sum(len(extent.live) for extent in self.extents(env))

    def extents(self, env: int) -> list[Extent]:
        return [extent for extent in self._extents if extent.env == env]

    def charged(self, env: int) -> int:
        """Pages of every segment that `env` may still fill: those that it owns and those that it has freed."""
        freed = self._freed.get(env)
        return sum(extent.segment for extent in self.extents(env)) + (freed.pages if freed else 0)

    def allocate(self, env: int, name: str, quota: Quota, first: int, count: int) -> Extent:
        """`first` is a page number, or EXO_ANY_PAGE. ExhaustedError, ConflictError (taken), UsageError (no such
        pages).
        """
        freed = self._freed.setdefault(env, Freed())
        again = freed.exact(count)
        if again is None:
            try:
                quota.charge("pages", self.charged(env), count, name)
                quota.charge("extents", len(self.extents(env)) + len(freed.segments), 1, name)
            except ExhaustedError:
                again = freed.roomy(count)
                if again is None:
                    raise
        fd = ffi.new("int32_t *", -1)
        where = "any" if first == lib.EXO_ANY_PAGE else f"{first}..{first + count - 1}"
        if again is None:
            code = lib.exo_pages_allocate(self.native, env, first, count, fd)
        else:
            code = lib.exo_pages_adopt(self.native, env, first, count, again[1])
        got = check(code, f"environment {name}: {count} pages ({where}) of {self.total}, {self.free_count} free")
        if again is not None:
            freed.segments.remove(again)
        segment, memfd = again or (count, fd[0])
        extent = Extent(env, got, count, memfd, set(range(got, got + count)), segment)
        self._extents.append(extent)
        return extent

    def whole(self, env: int, first: int, count: int) -> Extent | None:
        """The extent that is exactly these pages, if there is one: only a whole one can be shared, for its memfd
        shows all of it.
        """
        for extent in self.extents(env):
            if (extent.first, extent.count) == (first, count) and len(extent.live) == count:
                return extent
        return None

    def find(self, first: int, length: int, count: int) -> int | None:
        """The lowest run of `count` free pages inside first..first + length - 1."""
        found = int(lib.exo_pages_find(self.native, first, length, count))
        return None if found < 0 else found

    def release(self, env: int, name: str, first: int, count: int) -> list[Extent]:
        """ConflictError while pinned; UsageError where not all are its own. Returns the extents that have no page
        left.
        """
        check(lib.exo_pages_release(self.native, env, first, count), _what(name, first, count, "free"))
        return self._settle(env, first, count)

    def seize(self, env: int, name: str, first: int, count: int) -> list[Extent]:
        """By force, pinned or not; DeniedError where one is guaranteed (R15). Returns the extents that have no page
        left.
        """
        check(lib.exo_pages_seize(self.native, env, first, count), _what(name, first, count, "take"))
        return self._settle(env, first, count)

    def withdraw(self, name: str, extent: Extent) -> None:
        """The right to the extent is gone (R14): such pages of it as are still held go, pinned or guaranteed."""
        for page in sorted(extent.live):
            self.unguarantee(extent.env, name, page, 1)
            self.seize(extent.env, name, page, 1)

    def pin(self, env: int, name: str, first: int, count: int) -> None:
        check(lib.exo_pages_pin(self.native, env, first, count), _what(name, first, count, "pin"))

    def unpin(self, env: int, name: str, first: int, count: int) -> None:
        check(lib.exo_pages_unpin(self.native, env, first, count), _what(name, first, count, "unpin"))

    def guarantee(self, env: int, name: str, quota: Quota, first: int, count: int) -> None:
        """No force takes these pages from now on while env lives (R15). UsageError where not all are its own."""
        what = _what(name, first, count, "guarantee")
        had = check(lib.exo_pages_guaranteed(self.native, env, first, count), what)
        quota.charge("guaranteed", len(self.guaranteed(env)), count - had, name)
        check(lib.exo_pages_guarantee(self.native, env, first, count, 1), what)

    def unguarantee(self, env: int, name: str, first: int, count: int) -> None:
        """Of pages that are not guaranteed nothing changes."""
        check(lib.exo_pages_guarantee(self.native, env, first, count, 0), _what(name, first, count, "unguarantee"))

    def guaranteed(self, env: int) -> list[int]:
        """Those of env's pages."""
        return [page for page in self.held(env) if self.native.guaranteed[page]]

    def held(self, env: int) -> list[int]:
        """The numbers of env's pages, ascending."""
        return sorted(page for extent in self.extents(env) for page in extent.live)

    def takeable(self, env: int, *, pinned: bool) -> list[int]:
        """env's pages that are not guaranteed: those with a pin, or those without."""
        table, guaranteed = self.native.page, self.native.guaranteed
        return [page for page in self.held(env) if not guaranteed[page] and bool(table[page].pins) is pinned]

    def forget(self, env: int) -> int:
        """The environment is dead: every page of it is free, every descriptor closed. Returns how many pages went."""
        gone = check(lib.exo_pages_reclaim(self.native, env), f"environment {env}: its pages")
        self._settle(env, 0, self.total)
        freed = self._freed.pop(env, None)
        if freed is not None:
            freed.close()
        return gone

    def close(self) -> None:
        """Closes the descriptors of every extent; the native table is the machine's."""
        for extent in self._extents:
            os.close(extent.fd)
        self._extents.clear()
        for freed in self._freed.values():
            freed.close()

    def _settle(self, env: int, first: int, count: int) -> list[Extent]:
        """These pages are no longer env's; an extent without pages is let go of. Returns those."""
        ended = []
        for extent in self.extents(env):
            extent.live.difference_update(extent.within(first, count))
            if not extent.live and extent.fd >= 0:
                self._freed.setdefault(env, Freed()).keep(extent.segment, extent.fd, shared=extent.shared)
                extent.fd = -1
                self._extents.remove(extent)
                ended.append(extent)
        return ended

    def describe(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "free": self.free_count,
            "extents": [{"env": extent.env, **extent.describe()} for extent in self._extents],
        }


def _what(name: str, first: int, count: int, verb: str) -> str:
    return f"environment {name}: {verb} pages {first}..{first + count - 1}"
