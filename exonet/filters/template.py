# SPDX-License-Identifier: MIT
"""Decompositions that are known but for their values: `tcp and dst port 80` and `tcp and dst port 81` differ in one
constant of libpcap's program, so the second needs no walk.

A template is a program with holes. A constant is a hole where nothing depends on its value (uses.py); the other
instructions that compare the same field with it are its followers, and a program fits only where they have what the
hole has. What one value alone can change has no hole: an exclusion cuts an interval at its ends, so a hole in one has
neither 0 nor all ones (it is barred). `Templates.conjuncts` finds the template of a program and fills its holes in; it
makes one the slow way (walk.py, simplify.py) where there is none, and tries it on other values before it trusts it.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.libpcap import Instruction, Program
from exonet.filters.span import Interval
from exonet.filters.steps import MAX_TRIED_STEPS, Undecomposable
from exonet.filters.uses import Lane
from exonet.filters.walk import Walk

__all__ = ["Filled", "Gap", "Hole", "Outline", "Template", "Templates"]

Decompose = Callable[[Walk], tuple[Conjunct, ...]]
SIZE = 8  # bytes of an instruction
TRIALS = 2
KEPT = 1024
#: So many of one operations and jumps: more of them would be of a form whose other constants are no holes.
MOST_ALIKE = 16


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
        """A constant's bytes, the lowest first, are the field's in reverse, and so is what an integer of a space is."""
        return int.from_bytes(code[self.at : self.end], "big") << self.shift


#: A term without the values of holes, and which holes are in it.
Gap = tuple[Term, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outline:
    """A conjunct with holes: which of the template's stand in each term, and which is the interval's prefix."""

    conjunct: Conjunct
    box: tuple[Gap, ...]
    excluded: tuple[Gap, ...]
    prefix: int | None = None

    def filled(self, bits: Sequence[int]) -> Conjunct:
        excluded = _filled(self.excluded, bits)
        if len(excluded) > 1:
            excluded = tuple(sorted(excluded))
        interval = self.conjunct.interval
        if interval is not None and self.prefix is not None:
            low = interval.field.part(bits[self.prefix])
            interval = Interval(interval.field, low, low + interval.size - 1)
        return self.conjunct.with_values(_filled(self.box, bits), excluded, interval)


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


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A program but for the constants in its holes, and what it decomposes into. mask: zero where a hole is. followers
    and barred: first byte and end of a hole, and where its follower begins or what it may not be.
    """

    mask: int
    rest: int
    holes: tuple[Hole, ...]
    followers: tuple[tuple[int, int, int], ...]
    barred: tuple[tuple[int, int, tuple[bytes, ...]], ...]
    places: tuple[tuple[int, int, int], ...]  # of the holes: first byte, end, shift
    outlines: tuple[Outline, ...]
    length: int  # of the program, in bytes

    @classmethod
    def of(cls, code: bytes, holes: tuple[Hole, ...], found: Sequence[Conjunct]) -> "Template":
        """Unsuited where holes are not all that differs."""
        mask = (1 << 8 * len(code)) - 1
        for hole in holes:
            for at in hole.places:
                mask &= ~(hole.lane.mask << 8 * at)
        outlines = tuple(_outline(conjunct, holes, code) for conjunct in found)
        excluded = {hole for outline in outlines for _, inside in outline.excluded for hole in inside}
        return cls(
            mask,
            int.from_bytes(code, "little") & mask,
            holes,
            tuple((hole.at, hole.end, follower) for hole in holes for follower in hole.followers),
            tuple((holes[i].at, holes[i].end, _ends(holes[i])) for i in sorted(excluded)),
            tuple((hole.at, hole.end, hole.shift) for hole in holes),
            outlines,
            len(code),
        )

    def fits(self, code: bytes, number: int) -> bool:
        """number: the code as one, the lowest byte first."""
        if number & self.mask != self.rest:
            return False
        for at, end, follower in self.followers:
            if code[follower : follower + end - at] != code[at:end]:
                return False
        return not self.barred or not any(code[at:end] in ends for at, end, ends in self.barred)

    def varied(self, code: bytes, chosen: random.Random, special: bool = False) -> bytes:
        """The program with other values in its holes; special: zero and all ones, where they may be."""
        other = bytearray(code)
        barred = {at: ends for at, _, ends in self.barred}
        for hole in self.holes:
            value = (
                chosen.choice((0, hole.lane.mask)) if special else chosen.randint(1, hole.lane.mask) & hole.lane.mask
            )
            new = value.to_bytes(hole.lane.size, "little")
            if new not in barred.get(hole.at, ()):
                for at in hole.places:
                    other[at : at + hole.lane.size] = new
        return bytes(other)

    def fill(self, code: bytes) -> tuple[Conjunct, ...]:
        """A constant's bytes, the lowest first, are the field's in reverse, and so is what an integer of a space is."""
        big: Literal["big"] = "big"
        bits = [int.from_bytes(code[at:end], big) << shift for at, end, shift in self.places]
        return tuple([outline.filled(bits) for outline in self.outlines])


def _ends(hole: Hole) -> tuple[bytes, ...]:
    return bytes(hole.lane.size), hole.lane.mask.to_bytes(hole.lane.size, "little")


class Filled:
    """A program's conjuncts, by its template where there is one; filled in when they are asked for."""

    __slots__ = ("_conjuncts", "code", "template")

    def __init__(
        self, code: bytes, template: Template | None = None, conjuncts: tuple[Conjunct, ...] | None = None
    ) -> None:
        self.code = code
        self.template = template
        self._conjuncts = conjuncts

    @property
    def empty(self) -> bool:
        return not (self.template.outlines if self.template else self._conjuncts)

    @property
    def conjuncts(self) -> tuple[Conjunct, ...]:
        if self._conjuncts is None:
            self._conjuncts = self.template.fill(self.code) if self.template else ()
        return self._conjuncts


class Templates:
    """The templates met so far, at most KEPT. `decompose`: the slow way."""

    def __init__(self, decompose: Decompose) -> None:
        self._decompose = decompose
        self._known: dict[bytes, list[Template]] = {}
        self._count = 0

    def conjuncts(self, program: Program) -> tuple[Conjunct, ...]:
        """Of libpcap's program. Raises what the slow way does."""
        return self.filled(program).conjuncts

    def known(self, program: Program) -> Filled | None:
        """What `conjuncts` gives, but later; None where no template has it."""
        code = program.code
        number = int.from_bytes(code, "little")
        for template in self._known.get(_kind(code), ()):
            if template.fits(code, number):
                return Filled(code, template)
        return None

    def filled(self, program: Program) -> Filled:
        """The same; raises what the slow way does, now."""
        found = self.known(program)
        return self._walked(program) if found is None else found

    def _walked(self, program: Program) -> Filled:
        code = program.code
        kind = _kind(code)
        alike = self._known.get(kind, ())
        walk = Walk(program.instructions)
        found = self._decompose(walk)
        if len(alike) >= MOST_ALIKE:
            return Filled(code, None, found)
        made = self._made(program, walk, found) if walk.steps.taken <= MAX_TRIED_STEPS else None
        if made:
            if self._count >= KEPT:
                self._known.clear()
                self._count = 0
            self._known.setdefault(kind, []).append(made)
            self._count += 1
        return Filled(code, made, found)

    def _made(self, program: Program, walk: Walk, found: tuple[Conjunct, ...]) -> Template | None:
        holes = tuple(
            Hole(SIZE * first + 4, lane, tuple(SIZE * pc + 4 for pc in others))
            for lane, (first, *others) in walk.values()
        )
        try:
            template = Template.of(program.code, holes, found)
        except Unsuited:
            return None
        return template if holes and self._holds(template, program) else None

    def _holds(self, template: Template, program: Program) -> bool:
        """Does it say what the slow way says, for other values too?"""
        chosen = random.Random(len(program.code))
        for trial in range(TRIALS):
            code = template.varied(program.code, chosen, special=bool(trial))
            other = [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", code)]
            try:
                if self._decompose(Walk(other)) != template.fill(code):
                    return False
            except Undecomposable:
                return False
        return True


def _kind(code: bytes) -> bytes:
    """A program's operations and jumps."""
    return code[::SIZE] + code[2::SIZE] + code[3::SIZE]


def _outline(conjunct: Conjunct, holes: Sequence[Hole], code: bytes) -> Outline:
    if conjunct.programs:
        raise Unsuited  # every constant is in them
    return Outline(
        conjunct,
        tuple(_gap(term, holes, code) for term in conjunct.box),
        tuple(_gap(term, holes, code) for term in conjunct.excluded),
        None if conjunct.interval is None else _prefix(conjunct.interval, holes, code),
    )


def _gap(term: Term, holes: Sequence[Hole], code: bytes) -> Gap:
    space, mask, value = term
    inside = []
    for i, hole in enumerate(holes):
        bits = hole.bits
        if hole.lane.space != space or not bits & mask:
            continue
        if bits & ~mask or value & bits != hole.value(code):
            raise Unsuited
        inside.append(i)
        value &= ~bits
    return (space, mask, value), tuple(inside)


def _prefix(interval: Interval, holes: Sequence[Hole], code: bytes) -> int | None:
    """The hole that the interval's values begin with, and nothing else; None: it has no part in one."""
    space, covered, _ = interval.field.term(interval.field.most, 0)
    near = [i for i, hole in enumerate(holes) if hole.lane.space == space and _whole(hole) & covered]
    if not near:
        return None
    field, low, high = interval
    mask, value = (field.part(bits) for bits in (holes[near[0]].bits, holes[near[0]].value(code)))
    if len(near) > 1 or holes[near[0]].bits & ~covered or field.reach(mask, value) != (low, high):
        raise Unsuited
    return near[0]


def _whole(hole: Hole) -> int:
    """The bytes of its load, masked or not."""
    return hole.lane._replace(mask=(1 << 8 * hole.lane.size) - 1).bits
