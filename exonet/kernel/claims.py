# SPDX-License-Identifier: MIT
"""Claims: which live bindings of a port a new filter may meet, found by look-ups and never by a scan (SEMANTICS R4).

Claims (claim.py) of one *kind* (masks, guards, the field of their spans) stand in one group under their values, and by
their spans on a line (line.py). A new claim asks every group once: by its own values under the group's masks where
those lie within its masks, else through a projection of the group on the bits that both compare, which is built when it
is first asked for. Where its masks lie within the group's it need not ask: what it meets there is inside it. `near` may
name an owner too many and never one too few.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from exonet.kernel.claim import Claim, Kind, Ruler
from exonet.kernel.line import Line

__all__ = ["Claims", "Owner"]

#: Which parts of a claim's values to take, and how to mask them.
Pick = tuple[tuple[int, int], ...]
MOST_IDLE = 16


class Owner(Protocol):
    """Whose claims they are. high: the sum over its claims."""

    @property
    def claims(self) -> Sequence[Claim]: ...
    @property
    def high(self) -> float: ...


Entry = tuple[Owner, Claim]
Bucket = dict[Entry, None] | Line[Entry]
Projection = dict[tuple[int, ...], Bucket]
#: What a projection is by: the picked bits of the values, and the field of its lines.
By = tuple[Pick, Ruler | None]


class _Meeting:
    """How a claim of one group asks another group."""

    __slots__ = ("around", "by", "field", "group", "inside", "mine", "projected", "settled")

    def __init__(self, asking: Kind, group: "_Group") -> None:
        mine, theirs = dict(asking.masks), group.kind.masks
        places = {space: i for i, (space, _) in enumerate(asking.masks)}
        common = [(places[s], i, mask & mine[s]) for i, (s, mask) in enumerate(theirs) if s in mine and mask & mine[s]]
        self.group = group
        self.field = _ruler(asking, group.kind)
        self.mine: Pick = tuple((own, mask) for own, _, mask in common)
        self.by: By = (tuple((other, mask) for _, other, mask in common), self.field)
        same = [mask for _, _, mask in common] == [mask for _, mask in theirs]
        #: The group's own table will not do.
        self.projected = not same or group.kind.field is not None or self.field is not None
        #: What is met is around the asking claim: by masks, guards and spans alone.
        self.inside = same and group.kind.plain and asking.plain and group.kind.admits(asking)
        #: What is met is inside the asking claim: by masks and guards alone, where the asking kind's field is known.
        around = len(common) == len(asking.masks) and all(mine[asking.masks[o][0]] == mask for o, _, mask in common)
        self.around = around and asking.plain and asking.admits(group.kind)
        #: So is all that is met on that field.
        own = asking.field
        more = _bits(group.kind) > _bits(asking)
        self.settled = self.around and more and (own is None or group.kind.known(own)[1] == own.most)

    def met(self, claim: Claim) -> Iterable[Entry]:
        """Whom the claim may meet in the group: none that is strictly inside it and smaller, if all there are."""
        group = self.group
        if not group.entries or (self.settled and claim.low > group.most):
            return ()
        key = tuple([claim.values[place] & mask for place, mask in self.mine])
        if not self.projected:
            return group.table.get(key, ())
        bucket = group.projection(self.by).get(key, ())
        if isinstance(bucket, Line) and self.field is not None:
            return bucket.overlapping(*claim.bounds(self.field))
        return () if isinstance(bucket, Line) else bucket


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

    __slots__ = ("asked", "entries", "kind", "meetings", "most", "projections", "table")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.table: dict[tuple[int, ...], tuple[Entry, ...]] = {}
        self.projections: dict[By, Projection] = {}
        self.meetings: dict[_Group, _Meeting] = {}
        self.asked: dict[By, int] = {}  # by how many groups through each projection
        self.entries = 0
        self.most = 0.0  # the greatest volume of an owner of any of them, since it was last empty

    def add(self, entry: Entry) -> None:
        owner, claim = entry
        self.table[claim.key] = (*self.table.get(claim.key, ()), entry)
        for by, projection in self.projections.items():
            _put(projection, by, entry)
        self.entries += 1
        if owner.high > self.most:
            self.most = owner.high

    def remove(self, entry: Entry) -> None:
        key = entry[1].key
        left = tuple(other for other in self.table[key] if other != entry)
        if left:
            self.table[key] = left
        else:
            del self.table[key]
        for by, projection in self.projections.items():
            _take(projection, by, entry)
        self.entries -= 1
        if not self.entries:
            self.most = 0.0

    def projection(self, by: By) -> Projection:
        """The entries by the picked bits of their values, on lines; kept in step from now on."""
        found = self.projections.get(by)
        if found is None:
            found = self.projections[by] = {}
            for entries in self.table.values():
                for entry in entries:
                    _put(found, by, entry)
        return found

    def meet(self, other: "_Group") -> None:
        """From now on it asks the other one."""
        meeting = self.meetings[other] = _Meeting(self.kind, other)
        other.asked[meeting.by] = other.asked.get(meeting.by, 0) + 1

    def forget(self, gone: "_Group") -> None:
        """Without a group, and without the projection that nobody else asks through."""
        del self.meetings[gone]
        by = gone.meetings[self].by
        self.asked[by] -= 1
        if not self.asked[by]:
            del self.asked[by]
            self.projections.pop(by, None)


def _put(projection: Projection, by: By, entry: Entry) -> None:
    pick, field = by
    claim = entry[1]
    key = tuple([claim.values[place] & mask for place, mask in pick])
    bucket = projection.get(key)
    if bucket is None:
        bucket = projection[key] = {} if field is None else Line()
    if isinstance(bucket, Line) and field is not None:
        bucket.add(entry, *claim.bounds(field))
    elif isinstance(bucket, dict):
        bucket[entry] = None


def _take(projection: Projection, by: By, entry: Entry) -> None:
    pick, field = by
    claim = entry[1]
    key = tuple([claim.values[place] & mask for place, mask in pick])
    bucket = projection[key]
    if isinstance(bucket, Line) and field is not None:
        bucket.remove(entry, *claim.bounds(field))
    elif isinstance(bucket, dict):
        del bucket[entry]
    if not bucket:
        del projection[key]


class Claims:
    """The claims of the live bindings of one port."""

    def __init__(self) -> None:
        self._groups: dict[Kind, _Group] = {}
        self._idle: dict[Kind, None] = {}
        self.changes = 0

    def add(self, owner: Owner) -> None:
        self.changes += 1
        for claim in owner.claims:
            self._group(claim.kind).add((owner, claim))

    def remove(self, owner: Owner) -> None:
        self.changes += 1
        for claim in owner.claims:
            group = self._groups[claim.kind]
            group.remove((owner, claim))
            if not group.entries:
                self._rest(claim.kind)

    def near(self, claims: Sequence[Claim]) -> dict[Any, bool]:
        """Every owner that may hold frames of these claims in another way than strictly inside one of them and asked
        first; and whether it is seen that they are strictly inside its own, and asked first.
        """
        found: dict[Owner, bool] = {}
        single = len(claims) == 1
        for claim in claims:
            for meeting in self._group(claim.kind).meetings.values():
                for owner, other in meeting.met(claim):
                    if not single and owner in found:
                        continue
                    if meeting.around and other.rank < claim.rank and claim.low > owner.high and claim.spans(other):
                        continue  # strictly inside, and asked first
                    found[owner] = (
                        single
                        and meeting.inside
                        and claim.high < other.low
                        and claim.rank < other.rank
                        and len(owner.claims) == 1
                        and other.spans(claim)
                    )
        return found

    def _group(self, kind: Kind) -> _Group:
        found = self._groups.get(kind)
        if found is None:
            found = self._groups[kind] = _Group(kind)
            for group in self._groups.values():
                found.meet(group)
                if group is not found:
                    group.meet(found)
            self._rest(kind)
        return found

    def _rest(self, kind: Kind) -> None:
        """An empty group stays for a while: the next of its kind is likely to come soon."""
        self._idle.pop(kind, None)
        self._idle[kind] = None
        while len(self._idle) > MOST_IDLE:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            if not self._groups[oldest].entries:
                gone = self._groups.pop(oldest)
                for group in self._groups.values():
                    group.forget(gone)
