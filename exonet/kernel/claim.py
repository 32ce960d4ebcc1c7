# SPDX-License-Identifier: MIT
"""The claim: a conjunct as the index of live bindings sees it (claims.py), a box (mask and value per space) and perhaps
a span of one field's values; and what two claims say at once of how they lie to each other (R4).

Masks, guards and the spanned field make the *kind*. `lie` says what masks, exclusions and volumes can say; UNCLEAR is
for the exact test (filters/region.py). Volumes are shares of header space, in a world of long frames whose IPv4 headers
have 20 bytes: an upper and a lower bound, by which a union cannot cover a claim.
"""

import weakref
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

__all__ = ["Claim", "Entry", "Kind", "Lie", "Owner", "Ruler", "Shape", "lie"]

Space = Hashable
Masks = tuple[tuple[Space, int], ...]
#: Of one kind within another: which value of the outer is which of the inner's, under what mask.
Nest = tuple[tuple[int, int, int], ...]
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

    def like(
        self,
        values: tuple[int, ...],
        span: tuple[int, int] | None,
        excluded: Sequence[tuple[Space, int, int]],
        late: tuple["Late", int],
    ) -> "Claim":
        """One that differs in values only, its span as wide. late: who makes its conjunct when somebody asks for it,
        and which it is.
        """
        found = Claim.__new__(Claim)
        found._conjunct = found._box = None
        found._late = late
        found.kind = self.kind
        found.values = values
        found.shape = self.shape
        found.excluded = excluded
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


class Owner(Hashable, Protocol):
    """Whose claims they are. high: the sum over its claims."""

    @property
    def claims(self) -> Sequence[Claim]: ...
    @property
    def high(self) -> float: ...


Entry = tuple[Owner, Claim]


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
