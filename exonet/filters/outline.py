# SPDX-License-Identifier: MIT
"""The outline: a conjunct with holes, where the constants of a program stand in it (template.py).

Which hole a value came from is seen by the value, in a program whose constants are *telling*: wherever two of them are
compared with a byte, they differ in it. What is in a box at a hole's bits is then the hole's value, or that of another
comparison, and it is seen which; and no field has more values in another program of the form (interval.py counts them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.lane import Lane
from exonet.filters.span import Interval
from exonet.filters.uses import Comparison

__all__ = ["SIZE", "Gap", "Hole", "Outline", "Unsuited", "outline", "telling", "value_at"]

SIZE = 8  # bytes of an instruction


class Unsuited(Exception):
    """What depends on a value is more than the bits of its field."""


@dataclass(frozen=True, slots=True)
class Hole:
    """The constant at byte `at` of a program, of as many bytes as the load that it is compared with; the same is at
    each of `followers`.
    """

    at: int
    lane: Lane
    followers: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.at + self.lane.size

    @property
    def places(self) -> tuple[int, ...]:
        return (self.at, *self.followers)

    @property
    def shift(self) -> int:
        return 8 * self.lane.offset

    @property
    def bits(self) -> int:
        """Of its space."""
        return self.lane.bits

    def value(self, code: bytes) -> int:
        return value_at(code, self.at, self.lane)


def value_at(code: bytes, at: int, lane: Lane) -> int:
    """A constant's bytes, the lowest first, are the field's in reverse, and so is what an integer of a space is."""
    return int.from_bytes(code[at : at + lane.size], "big") << 8 * lane.offset


#: A term without the values of holes, and which holes are in it.
Gap = tuple[Term, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outline:
    """A conjunct with holes: which of the template's stand in each term, and which is the interval's prefix. Where the
    template has a range (ranged.py), that is the interval.
    """

    conjunct: Conjunct
    box: tuple[Gap, ...]
    excluded: tuple[Gap, ...]
    prefix: int | None = None

    @property
    def holes(self) -> list[int]:
        """All that are in it."""
        found = [hole for _, inside in (*self.box, *self.excluded) for hole in inside]
        return found if self.prefix is None else [*found, self.prefix]

    def filled(self, bits: Sequence[int], span: tuple[int, int] | None = None, breadth: int = 0) -> Conjunct:
        """span: the ends of the range; breadth: what the filter has by it."""
        interval = self.conjunct.interval
        if interval is not None and span is not None:
            interval = Interval(interval.field, *span)
        elif interval is not None and self.prefix is not None:
            low = interval.field.part(bits[self.prefix])
            interval = Interval(interval.field, low, low + interval.size - 1)
        box, excluded = _filled(self.box, bits), self.exclusions(bits)
        return self.conjunct.with_values(box, excluded, interval, breadth or self.conjunct.breadth)

    def exclusions(self, bits: Sequence[int]) -> tuple[Term, ...]:
        excluded = _filled(self.excluded, bits)
        return tuple(sorted(excluded)) if len(excluded) > 1 else excluded


def _filled(gaps: Sequence[Gap], bits: Sequence[int]) -> tuple[Term, ...]:
    if not gaps:
        return ()
    filled = []
    for term, holes in gaps:
        if holes:
            space, mask, value = term
            for hole in holes:
                value |= bits[hole]
            term = (space, mask, value)
        filled.append(term)
    return tuple(filled)


def telling(code: bytes, holes: Sequence[Hole], compared: Sequence[Comparison]) -> bool:
    """Does each hole's constant differ from all others in every byte that they are compared with both?"""
    for hole in holes:
        own = {at // SIZE for at in hole.places}
        for pc, lane in compared:
            if lane.space != hole.lane.space or (pc in own and lane == hole.lane):
                continue
            common = hole.bits & lane.bits
            differing = (hole.value(code) ^ value_at(code, SIZE * pc + 4, lane)) & common
            if any(common >> at & 0xFF and not differing >> at & 0xFF for at in range(0, common.bit_length(), 8)):
                return False
    return True


def outline(conjunct: Conjunct, holes: Sequence[Hole], code: bytes, compared: Sequence[Comparison]) -> Outline:
    """Of a conjunct of a program that is telling. Unsuited where holes are not all that differs."""
    if conjunct.programs:
        raise Unsuited  # every constant is in them
    found = Outline(
        conjunct,
        tuple(_gap(term, holes, code, compared) for term in conjunct.box),
        tuple(_gap(term, holes, code, compared) for term in conjunct.excluded),
        None if conjunct.interval is None else _prefix(conjunct.interval, holes, code),
    )
    places = [holes[hole].at for hole in found.holes]
    if len(set(places)) < len(places):
        raise Unsuited  # one constant, in two fields of one conjunct
    return found


def _gap(term: Term, holes: Sequence[Hole], code: bytes, compared: Sequence[Comparison]) -> Gap:
    space, mask, value = term
    near = [i for i, hole in enumerate(holes) if hole.lane.space == space and hole.bits & mask]
    inside = [i for i in near if not holes[i].bits & ~mask and value & holes[i].bits == holes[i].value(code)]
    told = 0
    for i in inside:
        if told & holes[i].bits:
            raise Unsuited
        told |= holes[i].bits
    rest = value & ~told
    for pc, lane in compared:
        if lane.space == space and not lane.bits & ~mask and value & lane.bits == value_at(code, SIZE * pc + 4, lane):
            told |= lane.bits
    if any(holes[i].bits & mask & ~told for i in near):
        raise Unsuited  # a part of a value, or what came of it
    return (space, mask, rest), tuple(inside)


def _prefix(interval: Interval, holes: Sequence[Hole], code: bytes) -> int | None:
    """The hole that the interval's values begin with, and nothing else; None: it has no part in one."""
    field, low, high = interval
    near = [i for i, hole in enumerate(holes) if hole.lane.shares(field)]
    inside = [
        i
        for i in near
        if holes[i].lane.lies_in(field)
        and field.reach(field.part(holes[i].bits), field.part(holes[i].value(code))) == (low, high)
    ]
    if near and len(inside) != 1:
        raise Unsuited
    return inside[0] if inside else None
