# SPDX-License-Identifier: MIT
"""Claims: which live bindings of a port a new filter may meet, found by look-ups and never by a scan (SEMANTICS R4).

A claim is a conjunct as the index sees it: a box (mask and value per space). Claims of one *kind* (masks and guards)
stand in one group under their values. A new claim asks every group once: by its own values under the group's masks
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

__all__ = ["Claim", "Claims", "Kind", "Lie", "Owner", "Shape", "lie"]

Space = Hashable
Masks = tuple[tuple[Space, int], ...]
#: Which parts of a claim's values to take, and how to mask them.
Pick = tuple[tuple[int, int], ...]
#: Of one kind within another: which value of the outer is which of the inner's, under what mask.
Nest = tuple[tuple[int, int, int], ...]
MOST_IDLE = 16
MOST_NESTS = 64


class Kind:
    """What claims of one group have in common. Made once for equal ones (`Regions`), so it is compared by identity."""

    __slots__ = ("__weakref__", "_nests", "guards", "masks", "plain")

    def __init__(self, masks: Masks, guards: tuple[int, int, int], plain: bool) -> None:
        """guards: captured bytes, bytes after the IPv4 header, where that begins. plain: nothing is excluded."""
        self.masks = masks
        self.guards = guards
        self.plain = plain
        self._nests: dict[int, tuple[weakref.ref[Kind], Nest | None]] = {}

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
    rank: the demux asks lower ones first. shape: what it needs of the demux; equal ones are one object.
    """

    __slots__ = ("_box", "_conjunct", "_late", "excluded", "high", "kind", "low", "rank", "shape", "values")

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
        self._box: dict[Space, tuple[int, int]] | None = None

    def like(self, values: tuple[int, ...], late: "Late", place: int) -> "Claim":
        """One that differs in values only. late: who makes its conjunct when somebody asks for it; place: which."""
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
        return found

    @property
    def conjunct(self) -> Any:
        if self._late is not None:
            late, place = self._late
            self._conjunct, self._late = late.conjuncts[place], None
        return self._conjunct

    @property
    def box(self) -> dict[Space, tuple[int, int]]:
        """Mask and value by space."""
        if self._box is None:
            pairs = zip(self.kind.masks, self.values, strict=True)
            self._box = {space: (mask, value) for (space, mask), value in pairs}
        return self._box

    def contains(self, other: "Claim") -> bool:
        """Is every frame of `other` in this one? Sufficient, not necessary."""
        if not self.kind.plain:
            return bool(self.conjunct.contains(other.conjunct))
        nest = self.kind.nest(other.kind)
        if nest is None:
            return False
        mine, theirs = self.values, other.values
        for own, place, mask in nest:  # noqa: SIM110 - half the time of a generator
            if theirs[place] & mask != mine[own]:
                return False
        return True


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
Projection = dict[tuple[int, ...], dict[Entry, None]]


class _Meeting:
    """How a claim of one group asks another group."""

    __slots__ = ("group", "inside", "mine", "projected", "settled", "theirs")

    def __init__(self, asking: Kind, group: "_Group") -> None:
        mine, theirs = dict(asking.masks), group.kind.masks
        places = {space: i for i, (space, _) in enumerate(asking.masks)}
        common = [(places[s], i, mask & mine[s]) for i, (s, mask) in enumerate(theirs) if s in mine and mask & mine[s]]
        self.group = group
        self.mine: Pick = tuple((own, mask) for own, _, mask in common)
        self.theirs: Pick = tuple((other, mask) for _, other, mask in common)
        #: The group's own table will not do.
        self.projected = [mask for _, _, mask in common] != [mask for _, mask in theirs]
        #: What is met is around the asking claim: by masks and guards alone.
        self.inside = not self.projected and group.kind.plain and asking.plain and group.kind.admits(asking)
        #: What is met is inside the asking claim: by masks and guards alone.
        around = len(common) == len(asking.masks) and all(mine[asking.masks[o][0]] == mask for o, _, mask in common)
        self.settled = self.projected and around and asking.plain and asking.admits(group.kind)


class _Group:
    """The claims of one kind."""

    __slots__ = ("entries", "kind", "meetings", "most", "projections", "table")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.table: dict[tuple[int, ...], tuple[Entry, ...]] = {}
        self.projections: dict[Pick, Projection] = {}
        self.meetings: dict[_Group, _Meeting] = {}
        self.entries = 0
        self.most = 0.0  # the greatest volume of an owner of any of them, since it was last empty

    def add(self, entry: Entry) -> None:
        owner, claim = entry
        self.table[claim.values] = (*self.table.get(claim.values, ()), entry)
        for pick, projection in self.projections.items():
            projection.setdefault(_project(claim.values, pick), {})[entry] = None
        self.entries += 1
        if owner.high > self.most:
            self.most = owner.high

    def remove(self, entry: Entry) -> None:
        values = entry[1].values
        left = tuple(other for other in self.table[values] if other != entry)
        if left:
            self.table[values] = left
        else:
            del self.table[values]
        for pick, projection in self.projections.items():
            key = _project(values, pick)
            del projection[key][entry]
            if not projection[key]:
                del projection[key]
        self.entries -= 1
        if not self.entries:
            self.most = 0.0

    def projection(self, pick: Pick) -> Projection:
        """The entries by the picked bits of their values; kept in step from now on."""
        found = self.projections.get(pick)
        if found is None:
            found = self.projections[pick] = {}
            for entries in self.table.values():
                for entry in entries:
                    found.setdefault(_project(entry[1].values, pick), {})[entry] = None
        return found

    def forget(self, gone: "_Group") -> None:
        """Without a group, and without the projection that nobody else asks through."""
        dropped = self.meetings.pop(gone)
        del dropped
        asked = {meeting.theirs for other in self.meetings for meeting in (other.meetings.get(self),) if meeting}
        for pick in [pick for pick in self.projections if pick not in asked]:
            del self.projections[pick]


def _project(values: tuple[int, ...], pick: Pick) -> tuple[int, ...]:
    return tuple([values[place] & mask for place, mask in pick])


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
        """Every owner that may hold frames of these claims in another way than strictly inside one of them; and
        whether it is seen that they are strictly inside its own, and asked first.
        """
        found: dict[Owner, bool] = {}
        single = len(claims) == 1
        for claim in claims:
            values, high, rank = claim.values, claim.high, claim.rank
            for meeting in self._group(claim.kind).meetings.values():
                group = meeting.group
                if not group.entries or (meeting.settled and claim.low > group.most):
                    continue
                key = tuple([values[place] & mask for place, mask in meeting.mine])
                if meeting.projected:
                    met: Iterable[Entry] = group.projection(meeting.theirs).get(key, ())
                else:
                    met = group.table.get(key, ())
                for owner, other in met:
                    found[owner] = (
                        single and meeting.inside and high < other.low and rank < other.rank and len(owner.claims) == 1
                    )
        return found

    def _group(self, kind: Kind) -> _Group:
        found = self._groups.get(kind)
        if found is None:
            found = self._groups[kind] = _Group(kind)
            for group in self._groups.values():
                found.meetings[group] = _Meeting(kind, group)
                group.meetings[found] = _Meeting(group.kind, found)
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
