# SPDX-License-Identifier: MIT
"""Regions of header space: what a capability allows, and how two bindings' filters lie to each other (R4,
R13).

A region is a union of conjuncts. Containment and overlap are exact (solve.py), within a quota: ExhaustedError means
that it is not known, and the caller refuses. `relation` says disjoint, equal, nested or partial, with an example
frame; `separate` gives a nested binding the extra conjuncts with which the demux's order (smallest box first) lets
the narrower filter win everywhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Protocol, Self

from exonet.errors import ExhaustedError
from exonet.filters.conjunct import MAX_ATOMS, Conjunct, apart, meet
from exonet.filters.example import build, scapy_expression, wire_length
from exonet.filters.solve import QUOTA, solve
from exonet.filters.span import Interval
from exonet.wording import shown

MAX_PAIRS = 1_000_000


class HasConjuncts(Protocol):
    """A compiled filter, or anything else that is a union of conjuncts."""

    @property
    def conjuncts(self) -> tuple[Conjunct, ...]: ...


Conjuncts = Iterable[Conjunct]


@dataclass(frozen=True, slots=True)
class Example:
    """A frame that both of two filters take: its captured bytes, its length on the wire, and scapy's way to say it.
    Where a program would have to take it and does not, that says so: nothing is known of programs.
    """

    frame: bytes
    wire_len: int
    scapy: str


class Kind(Enum):
    """How the frames of two filters lie to each other."""

    DISJOINT = "disjoint"
    EQUAL = "equal"
    INSIDE = "inside"  # the first lies within the second
    AROUND = "around"  # the second lies within the first
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Relation:
    """The kind, and an example of a frame that both take (None where they are disjoint)."""

    kind: Kind
    example: Example | None


@dataclass(frozen=True, slots=True)
class Region:
    """A union of conjuncts: the frames that a capability is about."""

    conjuncts: tuple[Conjunct, ...]

    @classmethod
    def everything(cls) -> Self:
        whole = Conjunct.of({})
        return cls((whole,) if whole else ())

    @classmethod
    def nothing(cls) -> Self:
        return cls(())

    @classmethod
    def of(cls, source: HasConjuncts) -> Self:
        """The frames that a compiled filter takes."""
        return cls(tuple(source.conjuncts))

    def uncovered(self, conjuncts: Conjuncts, quota: int = QUOTA) -> Conjunct | None:
        """The first conjunct that takes a frame outside of the region; None where the region covers them all."""
        for conjunct in conjuncts:
            if any(own.contains(conjunct) for own in self.conjuncts):
                continue
            try:
                found = solve((conjunct,), self.conjuncts, quota)
            except ExhaustedError as error:
                raise ExhaustedError(f"conjunct ({shown(str(conjunct))}): {error}") from None
            if found is not None:
                return conjunct
        return None

    def covers(self, conjuncts: Conjuncts, quota: int = QUOTA) -> bool:
        """Does every frame of the conjuncts lie in the region? ExhaustedError where that takes too long to say."""
        return self.uncovered(conjuncts, quota) is None

    def overlap(self, other: HasConjuncts) -> Example | None:
        """An example of a frame in both; None where the two are disjoint."""
        return overlap(self.conjuncts, other.conjuncts)

    def union(self, other: HasConjuncts) -> Self:
        return type(self)(tuple(dict.fromkeys((*self.conjuncts, *other.conjuncts))))

    def __str__(self) -> str:
        return " or ".join(f"({conjunct})" for conjunct in self.conjuncts) or "nothing"


def _example(takers: Sequence[Conjunct], outside: Sequence[Conjunct] = (), quota: int = QUOTA) -> Example | None:
    witness = solve(takers, outside, quota)
    if witness is None:
        return None
    frame = build(witness, takers, outside)
    wire_len = wire_length(witness, frame)
    said = scapy_expression(frame, wire_len, (*takers, *outside))
    asked = [*((taker, True) for taker in takers), *((other, False) for other in outside)]
    if any(each.programs and each.matches(frame, wire_len) != wanted for each, wanted in asked):
        said += " (as far as is known without its program)"
    return Example(frame, wire_len, said)


def overlap(a: Conjuncts, b: Conjuncts, quota: int = QUOTA) -> Example | None:
    """An example of a frame that both sets of conjuncts take; None where they are disjoint."""
    first, second = list(a), list(b)
    if len(first) * len(second) > MAX_PAIRS:
        raise ExhaustedError(
            f"overlap of {len(first)} with {len(second)} conjuncts: at most {MAX_PAIRS} pairs are compared"
        )
    for conjunct in first:
        for other in second:
            if not apart(conjunct, other) and (found := _example((conjunct, other), quota=quota)):
                return found
    return None


def difference(a: Conjuncts, b: Conjuncts, quota: int = QUOTA) -> Example | None:
    """An example of a frame that `a` takes and `b` does not."""
    outside = tuple(b)
    for conjunct in a:
        if not any(other.contains(conjunct) for other in outside) and (found := _example((conjunct,), outside, quota)):
            return found
    return None


def relation(a: Conjuncts, b: Conjuncts, quota: int = QUOTA) -> Relation:
    """How two filters lie to each other (R4). ExhaustedError where that takes too long to say."""
    first, second = tuple(a), tuple(b)
    example = overlap(first, second, quota)
    if example is None:
        return Relation(Kind.DISJOINT, None)
    inside = Region(second).covers(first, quota)
    around = Region(first).covers(second, quota)
    if inside:
        return Relation(Kind.EQUAL if around else Kind.INSIDE, example)
    return Relation(Kind.AROUND if around else Kind.PARTIAL, example)


@dataclass(frozen=True, slots=True)
class Nesting:
    """How two filters lie conjunct by conjunct (R4).

    inside: (mine, the other's around it); around: (mine, the other's within it); clash: an example of a frame in two
    conjuncts that are equal or overlap in part, so that nobody can say who wins.
    """

    inside: tuple[tuple[Conjunct, Conjunct], ...] = ()
    around: tuple[tuple[Conjunct, Conjunct], ...] = ()
    clash: Example | None = None


def nesting(a: Conjuncts, b: Conjuncts, quota: int = QUOTA) -> Nesting:
    """Compares each conjunct of `a` with each of `b`. ExhaustedError where that takes too long to say."""
    inside: list[tuple[Conjunct, Conjunct]] = []
    around: list[tuple[Conjunct, Conjunct]] = []
    others = tuple(b)
    for mine in a:
        for other in others:
            found = relation((mine,), (other,), quota) if not apart(mine, other) else None
            if found is None or found.kind is Kind.DISJOINT:
                continue
            if found.kind in (Kind.EQUAL, Kind.PARTIAL):
                return Nesting(clash=found.example)
            (inside if found.kind is Kind.INSIDE else around).append((mine, other))
    return Nesting(tuple(inside), tuple(around))


def conflict(a: Conjuncts, b: Conjuncts, quota: int = QUOTA) -> Example | None:
    """An example of a frame for which neither filter wins from the other; None where they are disjoint or nested."""
    first, second = tuple(a), tuple(b)
    found = relation(first, second, quota)
    if found.kind is Kind.EQUAL:
        return found.example
    return nesting(first, second, quota).clash if found.kind is Kind.PARTIAL else None


def separate(inner: Conjuncts, outer: Conjuncts) -> tuple[Conjunct, ...]:
    """The conjuncts that a filter nested within another binds, so that it wins against the other wherever it holds.

    Where an outer conjunct would be asked before an overlapping inner one, their intersection is added: it is more
    specific than both, and its breadth is below the outer's. Mostly these are the inner's own conjuncts: `tcp port 80
    and host 10.0.0.1` wins against `tcp port 80` as it is. To be called again with the result for each further filter
    around it. ExhaustedError where an intersection does not fit the demux.
    """
    outers = tuple(outer)
    found: dict[Conjunct, Conjunct] = {}
    for conjunct in inner:
        _keep_narrowest(found, conjunct)
        for other in outers:
            if other.rank[:2] > conjunct.rank[:2] or apart(conjunct, other):
                continue
            for both in _intersections(conjunct, other):
                _keep_narrowest(found, both)
    return tuple(found.values())


def _keep_narrowest(found: dict[Conjunct, Conjunct], conjunct: Conjunct) -> None:
    known = found.get(conjunct)
    if known is None or conjunct.breadth < known.breadth:
        found[conjunct] = conjunct


def _intersections(inner: Conjunct, outer: Conjunct) -> Iterator[Conjunct]:
    """The intersection: of intervals of two fields, the one that has fewer prefixes is taken apart."""
    if inner.interval and outer.interval and inner.interval.field != outer.interval.field:
        ours, theirs = inner.plain(), outer.plain()
        pairs = product(ours, (outer,)) if len(ours) <= len(theirs) else product((inner,), theirs)
    else:
        pairs = product((inner,), (outer,))
    for one, other in pairs:
        both = None if apart(one, other) else _intersection(one, other)
        if both is not None:
            yield both


def _intersection(inner: Conjunct, outer: Conjunct) -> Conjunct | None:
    if inner.ip4_bytes and outer.ip4_bytes and inner.ip4_at != outer.ip4_at:
        raise ExhaustedError(f"{_pair(inner, outer)}: they count from two IPv4 headers")
    interval = inner.interval or outer.interval
    if interval and inner.interval and outer.interval:
        interval = interval.within(outer.interval.low, outer.interval.high)
        if interval is None:
            return None
    both = _met(inner, outer, interval, resolve=True)
    if both is not None and both.rank[:2] >= outer.rank[:2]:
        both = _met(inner, outer, interval, resolve=False)  # offsets that are the same bytes count twice, as outside
    if both is None:
        return None
    if len(both.programs) > 1:
        raise ExhaustedError(f"{_pair(inner, outer)}: each asks a program")
    if len(both.atoms) + len(both.excluded) + len(both.programs) > MAX_ATOMS:
        raise ExhaustedError(f"{_pair(inner, outer)}: more than {MAX_ATOMS} words would have to be compared")
    if solve((both,)) is None:
        return None
    if both.rank[:2] >= outer.rank[:2]:
        raise ExhaustedError(f"{_pair(inner, outer)}: no conjunct wins where both hold")
    return both


def _pair(inner: Conjunct, outer: Conjunct) -> str:
    return f"conjunct ({shown(str(inner))}) within ({shown(str(outer))})"


def _met(inner: Conjunct, outer: Conjunct, interval: Interval | None, *, resolve: bool) -> Conjunct | None:
    return Conjunct.of(
        meet(inner.known, outer.known),
        (*inner.excluded, *outer.excluded),
        interval=interval,
        frame_bytes=max(inner.frame_bytes, outer.frame_bytes),
        ip4_bytes=max(inner.ip4_bytes, outer.ip4_bytes),
        ip4_at=inner.ip4_at if inner.ip4_bytes else outer.ip4_at,
        breadth=min(inner.breadth, max(outer.breadth - 1, 0)),
        resolve=resolve,
    )
