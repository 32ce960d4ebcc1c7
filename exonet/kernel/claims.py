# SPDX-License-Identifier: MIT
"""Claims: which live bindings of a port a new filter may meet, found by look-ups and never by a scan (SEMANTICS R4).

A claim is a conjunct as the index sees it: a box (mask and value per space) and perhaps a span of one field's values.
Claims of one *kind* (masks, guards, that field) stand in one group under their values, and by their spans on a line
(line.py). A new claim asks every group once: by its own values under the group's masks
where those lie within its masks, else through a projection of the group on the bits that both compare, which is built
when it is first asked for. Where its masks lie within the group's it need not ask: what it meets there is inside it.
`near` may name an owner too many and never one too few; `lie` then says of two claims what masks, exclusions and
volumes can say, and UNCLEAR is for the exact test (filters/region.py). Volumes are shares of header space, in a world
of long frames whose IPv4 headers have 20 bytes: an upper and a lower bound, by which a union cannot cover a claim.
"""

import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from exonet.kernel.line import Line

__all__ = ["Claim", "Claims", "Kind", "Lie", "Owner", "Ruler", "Shape", "lie"]

Space = Hashable
Masks = tuple[tuple[Space, int], ...]
#: Which parts of a claim's values to take, and how to mask them.
Pick = tuple[tuple[int, int], ...]
#: Of one kind within another: which value of the outer is which of the inner's, under what mask.
Nest = tuple[tuple[int, int, int], ...]
MOST_IDLE = 16
MOST_NESTS = 64


class Ruler(Hashable, Protocol):
    """A field of a space that spans are measured on: `filters.span.Field`."""

    @property
    def space(self) -> Any: ...
    @property
    def most(self) -> int: ...
    def part(self, bits: int) -> int:
        """What bits of its space say about it."""


class Kind:
    """What claims of one group have in common. Made once for equal ones (`Regions`), so it is compared by identity."""

    __slots__ = ("__weakref__", "_known", "_nests", "field", "guards", "masks", "plain")

    def __init__(self, masks: Masks, guards: tuple[int, int, int], plain: bool, field: Ruler | None = None) -> None:
        """guards: captured bytes, bytes after the IPv4 header, where that begins. plain: nothing is excluded. field:
        what the spans of its claims are of.
        """
        self.masks = masks
        self.guards = guards
        self.plain = plain
        self.field = field
        self._nests: dict[int, tuple[weakref.ref[Kind], Nest | None]] = {}
        self._known: dict[Ruler, tuple[int, int]] = {}

    def known(self, field: Ruler) -> tuple[int, int]:
        """By which of a claim's values bits of a field are fixed, and which bits of the field."""
        found = self._known.get(field)
        if found is None:
            places = [(i, field.part(mask)) for i, (space, mask) in enumerate(self.masks) if space == field.space]
            found = self._known[field] = places[0] if places else (0, 0)
        return found

    def nest(self, inner: "Kind") -> "Nest | None":
        """By which values a claim of this plain kind contains one of `inner`; None: by none, going by masks."""
        known = self._nests.get(id(inner))
        if known is not None and known[0]() is inner:
            return known[1]
        if len(self._nests) >= MOST_NESTS:
            self._nests.clear()
        found = self._nest(inner)
        self._nests[id(inner)] = weakref.ref(inner), found
        return found

    def _nest(self, inner: "Kind") -> "Nest | None":
        if not self.admits(inner):
            return None
        places = {space: (i, mask) for i, (space, mask) in enumerate(inner.masks)}
        nest = []
        for i, (space, mask) in enumerate(self.masks):
            place, held = places.get(space, (-1, 0))
            if place < 0 or mask & ~held:
                return None
            nest.append((i, place, mask))
        return tuple(nest)

    def admits(self, inner: "Kind") -> bool:
        """Has every frame that is long enough for `inner` the length that this asks for?"""
        frame, ip4, at = self.guards
        return inner.guards[0] >= frame and (not ip4 or (inner.guards[2] == at and inner.guards[1] >= ip4))


class Shape(Protocol):
    """The name of a shape (`filters/form.py`); equal ones are one object. branch: the ethertype and protocol that the
    demux tells it by. destined: it fixes the IP destination.
    """

    @property
    def branch(self) -> int: ...
    @property
    def destined(self) -> bool: ...
    def __bytes__(self) -> bytes: ...


class Late(Protocol):
    """Makes conjuncts when they are asked for."""

    @property
    def conjuncts(self) -> Sequence[Any]: ...


class Claim:
    """A conjunct in the form of the index. low, high: bounds of its volume, 0 and infinity where nothing is known.
    span: the least and the greatest value of its kind's field.
    rank: the demux asks lower ones first. shape: what it needs of the demux; equal ones are one object.
    """

    __slots__ = ("_box", "_conjunct", "_late", "excluded", "high", "kind", "low", "rank", "shape", "span", "values")

    def __init__(
        self,
        conjunct: Any,
        kind: Kind,
        values: tuple[int, ...],
        shape: Shape,
        *,
        excluded: Sequence[tuple[Space, int, int]] = (),
        low: float,
        high: float,
        rank: int,
        span: tuple[int, int] | None = None,
    ) -> None:
        self._conjunct = conjunct
        self._late: tuple[Late, int] | None = None
        self.kind = kind
        self.values = values
        self.shape = shape
        self.excluded = excluded
        self.low = low
        self.high = high
        self.rank = rank
        self.span = span
        self._box: dict[Space, tuple[int, int]] | None = None

    def like(self, values: tuple[int, ...], span: tuple[int, int] | None, late: "Late", place: int) -> "Claim":
        """One that differs in values only, its span as wide. late: who makes its conjunct when somebody asks for it;
        place: which.
        """
        found = Claim.__new__(Claim)
        found._conjunct = found._box = None
        found._late = (late, place)
        found.kind = self.kind
        found.values = values
        found.shape = self.shape
        found.excluded = self.excluded
        found.low = self.low
        found.high = self.high
        found.rank = self.rank
        found.span = span
        return found

    @property
    def conjunct(self) -> Any:
        if self._late is not None:
            late, place = self._late
            self._conjunct, self._late = late.conjuncts[place], None
        return self._conjunct

    @property
    def box(self) -> dict[Space, tuple[int, int]]:
        """Mask and value by space: what all of its frames have."""
        if self._box is None and self.span is not None:
            self._box = self.conjunct.known
        elif self._box is None:
            pairs = zip(self.kind.masks, self.values, strict=True)
            self._box = {space: (mask, value) for (space, mask), value in pairs}
        return self._box

    @property
    def key(self) -> tuple[int, ...]:
        return self.values if self.span is None else (*self.values, *self.span)

    def bounds(self, field: Ruler) -> tuple[int, int]:
        """Between which values a field lies in all of its frames, as far as that is seen at once."""
        kind = self.kind
        place, mask = kind.known(field)
        low, high = 0, field.most
        if mask:
            low = field.part(self.values[place])
            high = low | high & ~mask
        if self.span is not None and kind.field == field:
            return max(low, self.span[0]), min(high, self.span[1])
        return low, high

    def spans(self, other: "Claim") -> bool:
        """Does its field lie within its span in all frames of `other`?"""
        if self.span is None or self.kind.field is None:
            return True
        low, high = other.bounds(self.kind.field)
        return self.span[0] <= low and high <= self.span[1]

    def contains(self, other: "Claim") -> bool:
        """Is every frame of `other` in this one? Sufficient, not necessary."""
        if not self.kind.plain:
            return bool(self.conjunct.contains(other.conjunct))
        nest = self.kind.nest(other.kind)
        if nest is None:  # a span may fix bits that this one asks for
            field = other.kind.field
            fixed = field is not None and self.kind.known(field)[1]
            return bool(fixed and self.conjunct.contains(other.conjunct))
        mine, theirs = self.values, other.values
        for own, place, mask in nest:
            if theirs[place] & mask != mine[own]:
                return False
        return self.span is None or self.spans(other)


class Lie(Enum):
    """How a claim lies to another, as far as that is seen at once."""

    APART = "apart"
    INSIDE = "inside"  # and narrower
    AROUND = "around"  # and wider
    UNCLEAR = "unclear"


def _within(inner: Mapping[Space, tuple[int, int]], outer: Mapping[Space, tuple[int, int]]) -> bool:
    for space, (mask, value) in outer.items():
        known = inner.get(space)
        if known is None or mask & ~known[0] or (value ^ known[1]) & mask:
            return False
    return True


def _apart(a: Claim, b: Claim) -> bool:
    """Do they want different values of a bit, or does one exclude all of the other?"""
    theirs = b.box
    for space, (mask, value) in a.box.items():
        other = theirs.get(space)
        if other is not None and (value ^ other[1]) & mask & other[0]:
            return True
    for one, holds in ((a, b), (b, a)):
        if one.span is not None and one.kind.field is not None:
            low, high = holds.bounds(one.kind.field)
            if high < one.span[0] or one.span[1] < low:
                return True
        for space, mask, value in one.excluded:
            if _within(holds.box, {space: (mask, value)}):
                return True
    return False


def lie(a: Claim, b: Claim) -> Lie:
    """How `a` lies to `b`. INSIDE and AROUND are strict: equal claims are UNCLEAR."""
    if _apart(a, b):
        return Lie.APART
    if a.high < b.low and b.contains(a):
        return Lie.INSIDE
    if b.high < a.low and a.contains(b):
        return Lie.AROUND
    return Lie.UNCLEAR


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

    def add(self, owner: Owner) -> None:
        for claim in owner.claims:
            self._group(claim.kind).add((owner, claim))

    def remove(self, owner: Owner) -> None:
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
