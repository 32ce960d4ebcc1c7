# SPDX-License-Identifier: MIT
"""Claims: which live bindings of a port a new filter may meet, found by look-ups and never by a scan (R4).

Claims (claim.py) of one *kind* (masks, guards, the field of their spans) stand in one group under their values, and by
their spans on a line (line.py). A new claim asks every group once: by its own values under the group's masks where
those lie within its masks, else through a projection of the group on the bits that both compare (projection.py), and
not at all where all claims of the group agree on bits that it has other values of. Where its masks lie within the
group's it need not ask: what it meets there is inside it. Many claims of a kind ask together (crowd.py). `near` may
name an owner too many and never one too few.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from exonet.kernel.claim import Claim, Entry, Kind, Owner, Ruler
from exonet.kernel.crowd import Crowd
from exonet.kernel.line import Line
from exonet.kernel.projection import Projections
from exonet.kernel.studies import Unready, again
from exonet.kernel.waste import Waste

__all__ = ["Claims", "Owner"]

MOST_IDLE = 64
#: So many entries of what is needed no more are freed at each bind and unbind: some 30 µs.
FREED = 256
#: So many that were told to ask again are waited for, the last ones.
MOST_WAITING = 16
#: Fewer claims of a kind ask one by one.
CROWD = 4


def _never() -> bool:
    return False


class _Meeting:
    """How claims of one group ask another group."""

    __slots__ = ("around", "common", "field", "group", "inside", "mine", "projection", "settled")

    def __init__(self, asking: Kind, group: "_Group") -> None:
        mine, theirs = dict(asking.masks), group.kind.masks
        places = {space: i for i, (space, _) in enumerate(asking.masks)}
        common = [(places[s], i, mask & mine[s]) for i, (s, mask) in enumerate(theirs) if s in mine and mask & mine[s]]
        self.group = group
        self.common = common
        self.field = _ruler(asking, group.kind)
        self.mine = tuple([(own, mask) for own, _, mask in common])
        same = [mask for _, _, mask in common] == [mask for _, mask in theirs]
        #: None: the group's own table will do.
        self.projection = None
        if not same or group.kind.field is not None or self.field is not None:
            self.projection = group.projections.join((tuple([(other, mask) for _, other, mask in common]), self.field))
        #: What is met is around the asking claim: by masks, guards and spans alone.
        self.inside = same and group.kind.plain and asking.plain and group.kind.admits(asking)
        #: What is met is inside the asking claim: by masks and guards alone, where the asking kind's field is known.
        around = len(common) == len(asking.masks) and all(mine[asking.masks[o][0]] == mask for o, _, mask in common)
        self.around = around and asking.plain and asking.admits(group.kind)
        #: So is all that is met on that field.
        own = asking.field
        more = _bits(group.kind) > _bits(asking)
        self.settled = self.around and more and (own is None or group.kind.known(own)[1] == own.most)

    def met(self, claim: Claim, hurried: Callable[[], bool]) -> Iterable[Entry]:
        """Whom the claim may meet in the group: none that is strictly inside it and smaller, if all there are."""
        group = self.group
        if self.settled and claim.low > group.most:
            return ()
        values = claim.values
        projection = self.projection
        if projection is None:
            return group.table.get(tuple([values[place] & mask for place, mask in self.mine]), ())
        if group.contradicts(self.common, values):
            return ()
        if projection.level != group.projections.end:
            self.catch_up(hurried)
        bucket = projection.buckets.get(tuple([values[place] & mask for place, mask in self.mine]), ())
        if isinstance(bucket, Line) and self.field is not None:
            return bucket.overlapping(*claim.bounds(self.field))
        return () if isinstance(bucket, Line) else bucket

    def judge(self, entry: Entry, claim: Claim, found: dict[Owner, bool], *, single: bool) -> None:
        """Whom the claim may meet is found, unless it is strictly inside the claim and asked first."""
        owner, other = entry
        if (not single and owner in found) or (self.around and _strictly_inside(entry, claim)):
            return
        found[owner] = (
            single
            and self.inside
            and claim.high < other.low
            and claim.rank < other.rank
            and len(owner.claims) == 1
            and other.spans(claim)
        )

    def asks(self, crowd: Crowd, hurried: Callable[[], bool]) -> bool:
        """Is there anything in the group that one of the crowd may meet?"""
        group, projection = self.group, self.projection
        if self.settled and crowd.low > group.most:
            return False
        if group.contradicts(self.common, crowd.base, crowd.agreed):
            return False
        if projection is not None and projection.level != group.projections.end:
            self.catch_up(hurried)
        return True

    def name(self, crowd: Crowd, found: dict[Owner, bool]) -> None:
        """Adds whom the crowd may meet."""
        pick, table = self.mine, self.group.table
        if self.projection is None:
            for key in crowd.keys(pick, table):
                for entry in table[key]:
                    self._judge_all(entry, crowd.at(pick, key), found)
            return
        buckets = self.projection.buckets
        for key in crowd.keys(pick, buckets):
            bucket = buckets[key]
            if isinstance(bucket, Line) and self.field is not None:
                for entry, claims in crowd.overlaps(pick, key, self.field, bucket):
                    self._judge_all(entry, claims, found)
            elif isinstance(bucket, dict):
                claims = crowd.at(pick, key)
                for entry in bucket:
                    self._judge_all(entry, claims, found)

    def _judge_all(self, entry: Entry, claims: Sequence[Claim], found: dict[Owner, bool]) -> None:
        owner = entry[0]
        if owner in found:
            return
        if self.around:
            most = self.group.most if self.settled else float("inf")
            claims = [claim for claim in claims if claim.low <= most and not _strictly_inside(entry, claim)]
        if claims:
            found[owner] = False

    def catch_up(self, hurried: Callable[[], bool]) -> None:
        """Unready: it is not yet in step, but nearer to it."""
        projection, group = self.projection, self.group
        if projection is not None and not group.projections.catch_up(projection, group.table.values, hurried):
            raise Unready(again)


def _kinds(claims: Sequence[Claim]) -> tuple[Kind, ...]:
    return tuple(dict.fromkeys([claim.kind for claim in claims]))


def _strictly_inside(entry: Entry, claim: Claim) -> bool:
    """The claim, whose masks are around the entry's: is the entry also smaller, and asked first?"""
    owner, other = entry
    return other.rank < claim.rank and claim.low > owner.high and claim.spans(other)


def _bits(kind: Kind) -> int:
    return sum(mask.bit_count() for _, mask in kind.masks)


def _ruler(asking: Kind, asked: Kind) -> Ruler | None:
    """The field by which spans of the asked kind, or of the asking one, tell most of them apart."""
    field = asked.field
    if field is not None and (field == asking.field or asking.known(field)[1]):
        return field
    field = asking.field
    return field if field is not None and asked.known(field)[1] else None


class _Group:
    """The claims of one kind."""

    __slots__ = ("agreed", "entries", "kind", "meetings", "most", "projections", "same", "table")

    def __init__(self, kind: Kind, waste: Waste) -> None:
        self.kind = kind
        self.table: dict[tuple[int, ...], tuple[Entry, ...]] = {}
        self.projections = Projections(waste)
        self.meetings: dict[_Group, _Meeting] = {}
        self.entries = 0
        self.most = 0.0  # the greatest volume of an owner of any of them, since it was last empty
        self.same: list[int] = []  # by value: the bits that were the same in all of them since it was last empty,
        self.agreed: list[int] = []  # and as what

    def add(self, entry: Entry) -> None:
        owner, claim = entry
        key, values = claim.key, claim.values
        others = self.table.get(key)
        self.table[key] = (entry,) if others is None else (*others, entry)
        if not self.entries:
            self.same, self.agreed = [mask for _, mask in self.kind.masks], list(values)
        else:
            same, agreed, place = self.same, self.agreed, 0
            for value in values:
                if value & same[place] != agreed[place]:
                    same[place] &= ~(value ^ agreed[place])
                    agreed[place] &= same[place]
                place += 1  # noqa: SIM113  # twice as fast as enumerate here
        self.entries += 1
        if self.projections.followed:
            self.projections.note(entry, True, self.entries)
        if owner.high > self.most:
            self.most = owner.high

    def remove(self, entry: Entry) -> None:
        key = entry[1].key
        others = self.table[key]
        if len(others) == 1:
            del self.table[key]
        else:
            self.table[key] = tuple([other for other in others if other != entry])
        self.entries -= 1
        if self.projections.followed:
            self.projections.note(entry, False, self.entries)
        if not self.entries:
            self.most = 0.0
            if self.projections.followed:
                self.projections.clear()

    def contradicts(
        self, common: Sequence[tuple[int, int, int]], values: Sequence[int], count: Sequence[int] | None = None
    ) -> bool:
        """Do all of the group want other values of bits that are in common? count: which bits of the values count."""
        for own, place, mask in common:
            differs = (values[own] ^ self.agreed[place]) & self.same[place] & mask
            if differs and (count is None or differs & count[own]):
                return True
        return False

    def meet(self, other: "_Group") -> _Meeting:
        meeting = self.meetings[other] = _Meeting(self.kind, other)
        return meeting

    def part(self, other: "_Group") -> None:
        """It asks the other one no more."""
        meeting = self.meetings.pop(other, None)
        if meeting is not None and meeting.projection is not None:
            other.projections.leave(meeting.projection)


class Claims:
    """The claims of the live bindings of one port."""

    def __init__(self) -> None:
        self._groups: dict[Kind, _Group] = {}
        self._live: dict[_Group, None] = {}  # those that are not empty
        self._idle: dict[Kind, None] = {}
        self._waiting: dict[tuple[Kind, ...], None] = {}
        self._waste = Waste()
        self.changes = 0

    def add(self, owner: Owner) -> None:
        self.changes += 1
        for claim in owner.claims:
            group = self._groups.get(claim.kind) or self._group(claim.kind)
            if not group.entries:
                self._live[group] = None
            group.add((owner, claim))
        if self._waste:
            self._waste.free(FREED + 4 * len(owner.claims))  # faster than it comes

    def remove(self, owner: Owner) -> None:
        self.changes += 1
        for claim in owner.claims:
            group = self._groups[claim.kind]
            group.remove((owner, claim))
            if not group.entries:
                del self._live[group]
                self._rest(claim.kind)
        if self._waste:
            self._waste.free(FREED + 4 * len(owner.claims))  # faster than it comes

    def near(self, claims: Sequence[Claim], hurried: Callable[[], bool] = _never) -> dict[Any, bool]:
        """Every owner that may hold frames of these claims in another way than strictly inside one of them and asked
        first; and whether it is seen that they are strictly inside its own, and asked first.

        hurried: is there no time to do more now? Unready where there is more to be done, to be asked again.
        """
        if len(self._idle) > MOST_IDLE:
            self._forget()
        found: dict[Owner, bool] = {}
        try:
            if len(claims) >= CROWD:
                self._crowds(claims, hurried, found)
            else:
                for claim in claims:
                    group = self._groups.get(claim.kind) or self._group(claim.kind)
                    known = group.meetings
                    for other in self._live:
                        meeting = known.get(other) or group.meet(other)
                        for entry in meeting.met(claim, hurried):
                            meeting.judge(entry, claim, found, single=len(claims) == 1)
        except Unready:
            self._wait(claims)
            raise
        if self._waiting:
            self._waiting.pop(_kinds(claims), None)
        return found

    def _crowds(self, claims: Sequence[Claim], hurried: Callable[[], bool], found: dict[Owner, bool]) -> None:
        """Kind by kind. Everything is made ready before anything is asked, which may have to be done again."""
        kinds: dict[Kind, list[Claim]] = {}
        for claim in claims:
            kinds.setdefault(claim.kind, []).append(claim)
        asking: list[tuple[_Meeting, Crowd]] = []
        for kind, some in kinds.items():
            group, crowd = self._group(kind), Crowd(some)
            for other in self._live:
                meeting = group.meetings.get(other) or group.meet(other)
                if meeting.asks(crowd, hurried):
                    asking.append((meeting, crowd))
        for meeting, crowd in asking:
            meeting.name(crowd, found)

    def _group(self, kind: Kind) -> _Group:
        found = self._groups.get(kind)
        if found is None:
            found = self._groups[kind] = _Group(kind, self._waste)
            self._rest(kind)
        return found

    def _rest(self, kind: Kind) -> None:
        """An empty group stays for a while: the next of its kind is likely to come soon."""
        self._idle.pop(kind, None)
        self._idle[kind] = None

    def _forget(self) -> None:
        """Groups that have been empty for long, but for those of whoever waits."""
        waiting = {kind for kinds in self._waiting for kind in kinds}
        for kind in [kind for kind in self._idle if kind not in waiting][: len(self._idle) - MOST_IDLE]:
            del self._idle[kind]
            if not self._groups[kind].entries:
                gone = self._groups.pop(kind)
                for group in self._groups.values():
                    group.part(gone)
                    gone.part(group)

    def _wait(self, claims: Sequence[Claim]) -> None:
        kinds = _kinds(claims)
        self._waiting.pop(kinds, None)
        self._waiting[kinds] = None
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
