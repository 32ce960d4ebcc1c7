# SPDX-License-Identifier: MIT
"""Projections of a group of claims: its entries by some bits of their values, and on lines by a field (claims.py).

A group may have hundreds, so a change of it is only noted, once for all of them, and who asks one brings it in step
with the changes since it was last asked. That, and to make one of a group of 100,000, can take long; so it goes in
slices, between which the group may change. One that was not asked for so long that it is as well made anew is dropped.

A projection is empty (`upto` < 0), behind, or in step. It is made of a snapshot (`rest`: what is still to be put in),
and then of the changes since, which stand in `pending` without those that cancel each other out.
"""

from collections.abc import Callable, Iterable, Sequence

from exonet.kernel.claim import Entry, Ruler
from exonet.kernel.line import Line
from exonet.kernel.waste import Waste

__all__ = ["LEAST", "Bucket", "Buckets", "By", "Pick", "Projection", "Projections"]

#: Which parts of a claim's values to take, and how to mask them.
Pick = tuple[tuple[int, int], ...]
#: What a projection is by: the picked bits of the values, and the field of its lines.
By = tuple[Pick, Ruler | None]
Bucket = dict[Entry, None] | Line[Entry]
Buckets = dict[tuple[int, ...], Bucket]
Change = tuple[Entry, bool]

#: Entries between two looks at the time.
SLICE = 64
#: To read a change takes a share of what it takes to put an entry in.
READ = 8 * SLICE
#: So many entries are put in whatever the time, each time that somebody asks.
LEAST = 512
#: So many changes are taken in one by one.
FEW = 8
#: Changes between two looks at who is how far behind.
TURN = 1024
#: A projection may be so many changes behind, and half as many more as the group has entries.
MOST_BEHIND = 64
#: Of a group's projections that are being made, those asked for last are kept however far they are behind.
MOST_MAKING = 8


class Projection:
    """askers: groups that ask through it. tries: how often it was not in step though its snapshot was in."""

    __slots__ = ("askers", "buckets", "by", "level", "pending", "rest", "tries", "upto")

    def __init__(self, by: By) -> None:
        self.by = by
        self.askers = 0
        self.buckets: Buckets = {}
        self.upto = -1  # up to which change of the group they have been read
        self.level = -1  # the same, where all of that is in the buckets
        self.rest: list[Sequence[Entry]] = []
        self.pending: dict[Entry, bool] = {}
        self.tries = 0

    def read(self, changes: Sequence[Change]) -> None:
        """The next ones of the group."""
        pending = self.pending
        for entry, added in changes:
            if entry in pending:  # the opposite
                del pending[entry]
            else:
                pending[entry] = added
        self.upto += len(changes)

    def work(self) -> bool:
        """Puts a slice of what is still to be done into the buckets. Was there anything?"""
        if self.rest:
            for _ in range(min(SLICE, len(self.rest))):
                for entry in self.rest.pop():
                    self.put(entry)
            return True
        some = min(SLICE, len(self.pending))
        for _ in range(some):
            self.change(*self.pending.popitem())
        return some > 0

    def change(self, entry: Entry, added: bool) -> None:
        (self.put if added else self.take)(entry)

    def key(self, values: Sequence[int]) -> tuple[int, ...]:
        """Of the bucket for these values."""
        return tuple([values[place] & mask for place, mask in self.by[0]])

    def put(self, entry: Entry) -> None:
        claim, field = entry[1], self.by[1]
        key = self.key(claim.values)
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = {} if field is None else Line()
        if isinstance(bucket, Line) and field is not None:
            bucket.add(entry, *claim.bounds(field))
        elif isinstance(bucket, dict):
            bucket[entry] = None

    def take(self, entry: Entry) -> None:
        claim, field = entry[1], self.by[1]
        key = self.key(claim.values)
        bucket = self.buckets[key]
        if isinstance(bucket, Line) and field is not None:
            bucket.remove(entry, *claim.bounds(field))
        elif isinstance(bucket, dict):
            del bucket[entry]
        if not bucket:
            del self.buckets[key]

    def drop(self, waste: Waste) -> None:
        for heap in (self.buckets, self.rest, self.pending):
            waste.add(heap)
        self.buckets, self.rest, self.pending = {}, [], {}
        self.upto = self.level = -1
        self.tries = 0


class Projections:
    """Of one group. followed: is any of them not empty, so that changes are to be noted? end: the number of changes
    noted so far; a projection is in step where that is its `level`.
    """

    __slots__ = ("_all", "_log", "_making", "_start", "_turn", "_waste", "end", "followed")

    def __init__(self, waste: Waste) -> None:
        self._all: dict[By, Projection] = {}
        self._making: dict[Projection, None] = {}  # the last asked for last
        self._log: list[Change] = []
        self._start = 0  # the number of the first change in the log
        self._turn = 0
        self._waste = waste
        self.end = 0
        self.followed = False

    def join(self, by: By) -> Projection:
        """For one asker more."""
        found = self._all.get(by)
        if found is None:
            found = self._all[by] = Projection(by)
        found.askers += 1
        return found

    def leave(self, projection: Projection) -> None:
        projection.askers -= 1
        if not projection.askers:
            del self._all[projection.by]
            self._drop(projection)
            self._turn = self.end  # what it had not read of the log goes at the next change

    def clear(self) -> None:
        """The group is empty."""
        for projection in self._all.values():
            self._drop(projection)
        self._trim()

    def note(self, entry: Entry, added: bool, entries: int) -> None:
        """A change, where they are followed. entries: how many the group has."""
        self._log.append((entry, added))
        self.end += 1
        if self.end >= self._turn:
            self._look(entries)

    def catch_up(
        self, projection: Projection, entries: Callable[[], Iterable[Sequence[Entry]]], hurried: Callable[[], bool]
    ) -> bool:
        """Is it in step now? Whatever the time, this brings it further, and more so the longer it has taken: it gets
        there however much the group changes meanwhile. entries: of the group.
        """
        if projection.upto < 0:
            projection.rest = list(entries())
            projection.upto = self.end
            self.followed = True
        elif projection.level >= 0 and self.end - projection.level <= FEW:
            for entry, added in self._log[projection.level - self._start :]:
                projection.change(entry, added)
            projection.upto = projection.level = self.end
            return True
        projection.level = -1
        done, least = 0, LEAST * (1 + projection.tries)
        while True:
            if not projection.work():
                if projection.upto == self.end:
                    break
                at = projection.upto - self._start
                projection.read(self._log[at : at + READ])
            self._waste.free(SLICE)
            done += SLICE
            if done >= least and hurried():
                projection.tries += not projection.rest
                self._making.pop(projection, None)
                self._making[projection] = None
                return False
        self._making.pop(projection, None)
        projection.level, projection.tries = self.end, 0
        return True

    def _look(self, entries: int) -> None:
        """Now and then: who is too far behind?"""
        for projection in self._all.values():
            if projection in self._making:
                projection.read(self._log[projection.upto - self._start :])
            elif projection.upto >= 0 and self.end - projection.upto > MOST_BEHIND + entries // 2:
                self._drop(projection)
        while len(self._making) > MOST_MAKING:
            self._drop(next(iter(self._making)))
        self._trim()
        self._turn = self.end + min(TURN, MOST_BEHIND + entries // 4)

    def _drop(self, projection: Projection) -> None:
        self._making.pop(projection, None)
        projection.drop(self._waste)

    def _trim(self) -> None:
        """The log, of what all have read."""
        kept = [projection.upto for projection in self._all.values() if projection.upto >= 0]
        self.followed = bool(kept)
        read = min(kept, default=self.end) - self._start
        if read:
            self._waste.add(self._log[:read])
            del self._log[:read]
            self._start += read
