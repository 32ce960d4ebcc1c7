# SPDX-License-Identifier: MIT
"""Decompositions that are known but for their values: `tcp and dst port 80` and `tcp and dst port 81` differ in one
constant of libpcap's program, so the second needs no walk.

A template is a program with holes. A constant is a hole where all that the program ever does with the bytes that it
is compared with is to compare them, as they are, with this constant at this one instruction: then nothing else can
depend on its value. `Templates.conjuncts` finds the template of a program and fills its holes in; it makes one the slow
way (walk.py, simplify.py) where there is none, and tries it on other values before it trusts it.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.libpcap import Instruction, Program
from exonet.filters.walk import Load, Walk

__all__ = ["Filled", "Gap", "Hole", "Outline", "Template", "Templates"]

Decompose = Callable[[Walk], tuple[Conjunct, ...]]
SIZE = 8  # bytes of an instruction
TRIALS = 2
KEPT = 1024
#: So many of one operations and jumps: more of them would be of a form whose other constants are no holes.
MOST_ALIKE = 16


@dataclass(frozen=True, slots=True)
class Hole:
    """The constant at byte `at` of a program, of as many bytes as the load that it is compared with."""

    at: int
    load: Load

    @property
    def size(self) -> int:
        return self.load[2]

    @property
    def shift(self) -> int:
        return 8 * self.load[1]

    @property
    def most(self) -> int:
        return (1 << 8 * self.size) - 1


#: A term without the values of holes, and which holes are in it.
Gap = tuple[Term, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outline:
    """A conjunct with holes: which of the template's stand in each term."""

    conjunct: Conjunct
    box: tuple[Gap, ...]
    excluded: tuple[Gap, ...]

    def filled(self, bits: Sequence[int]) -> Conjunct:
        excluded = _filled(self.excluded, bits)
        if len(excluded) > 1:
            excluded = tuple(sorted(excluded))
        return self.conjunct.with_values(_filled(self.box, bits), excluded)


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
    """A program but for the constants in its holes, and what it decomposes into. mask: zero where a hole is.

    ranked: no two conjuncts have one rank, so their order does not depend on values.
    """

    mask: int
    rest: int
    holes: tuple[Hole, ...]
    places: tuple[tuple[int, int, int], ...]  # of the holes: first byte, end, shift
    outlines: tuple[Outline, ...]
    ranked: bool
    length: int  # of the program, in bytes

    def varied(self, code: bytes, chosen: random.Random) -> bytes:
        """The program with other values in its holes."""
        other = bytearray(code)
        for at, end, _shift in self.places:
            other[at:end] = chosen.randbytes(end - at)
        return bytes(other)

    def fill(self, code: bytes) -> tuple[Conjunct, ...]:
        """A constant's bytes, the lowest first, are the field's in reverse, and so is what an integer of a space is."""
        big: Literal["big"] = "big"
        bits = [int.from_bytes(code[at:end], big) << shift for at, end, shift in self.places]
        found = [outline.filled(bits) for outline in self.outlines]
        if not self.ranked:
            found.sort(key=lambda c: (c.rank, c.box, c.interval or (), c.excluded))
        return tuple(found)


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

    def filled(self, program: Program) -> Filled:
        """What `conjuncts` gives, but later. Raises what the slow way does, now."""
        code = program.code
        number = int.from_bytes(code, "little")
        kind = code[::SIZE] + code[2::SIZE] + code[3::SIZE]  # operations and jumps
        alike = self._known.get(kind, ())
        for template in alike:
            if number & template.mask == template.rest:
                return Filled(code, template)
        walk = Walk(program.instructions)
        found = self._decompose(walk)
        if len(alike) >= MOST_ALIKE:
            return Filled(code, None, found)
        template = self._made(program, walk, found)
        known = bool(template.holes) and self._holds(template, program)
        if known:
            if self._count >= KEPT:
                self._known.clear()
                self._count = 0
            self._known.setdefault(kind, []).append(template)
            self._count += 1
        return Filled(code, template if known else None, found)

    def _made(self, program: Program, walk: Walk, found: tuple[Conjunct, ...]) -> Template:
        holes = tuple(Hole(SIZE * pc + 4, load) for pc, load in sorted(walk.values_only().items()))
        mask = (1 << 8 * len(program.code)) - 1
        for hole in holes:
            mask &= ~(hole.most << 8 * hole.at)
        rest = int.from_bytes(program.code, "little") & mask
        return Template(
            mask,
            rest,
            holes,
            tuple((hole.at, hole.at + hole.size, hole.shift) for hole in holes),
            tuple(_outline(conjunct, holes) for conjunct in found),
            len({conjunct.rank for conjunct in found}) == len(found),
            len(program.code),
        )

    def _holds(self, template: Template, program: Program) -> bool:
        """Does it say what the slow way says, for other values too?"""
        chosen = random.Random(len(program.code))
        for _ in range(TRIALS):
            code = template.varied(program.code, chosen)
            other = [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", code)]
            if self._decompose(Walk(other)) != template.fill(code):
                return False
        return True


def _outline(conjunct: Conjunct, holes: Sequence[Hole]) -> Outline:
    return Outline(
        conjunct,
        tuple(_gap(term, holes) for term in conjunct.box),
        tuple(_gap(term, holes) for term in conjunct.excluded),
    )


def _gap(term: Term, holes: Sequence[Hole]) -> Gap:
    space, mask, value = term
    inside = []
    for i, hole in enumerate(holes):
        bits = hole.most << hole.shift
        if hole.load[0] == space and not bits & ~mask:
            inside.append(i)
            value &= ~bits
    return (space, mask, value), tuple(inside)
