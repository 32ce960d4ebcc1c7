# SPDX-License-Identifier: MIT
"""Decompositions that are known but for their values: `tcp and dst port 80` and `tcp and dst port 81` differ in one
constant of libpcap's program, so the second needs no walk.

A template is a program with holes. A constant is a hole where nothing depends on its value (uses.py); the other
instructions that compare the same field with it are its followers, and a program fits only where they have what the
hole has. Where several constants are compared with one field, the result is known as long as these are *unlike*: in
general position (lane.py). An exclusion cuts an interval at its ends, so a hole in one is not near them: it is barred.

`Templates.conjuncts` finds the template of a program and fills its holes in; where there is none, it walks the program
(walk.py, simplify.py), and makes one from the same program with values that are telling (outline.py). It tries each on
other values before it trusts it.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from exonet.filters.conjunct import Conjunct
from exonet.filters.lane import CLOSE, Lane, in_general_position
from exonet.filters.libpcap import Instruction, Program
from exonet.filters.outline import SIZE, Hole, Outline, Unsuited, outline, telling
from exonet.filters.ranged import FEWEST, Range, as_values, outlines_of
from exonet.filters.steps import MAX_TRIED_STEPS, Undecomposable
from exonet.filters.uses import Values
from exonet.filters.walk import Walk

__all__ = ["Filled", "Template", "Templates"]

Decompose = Callable[[Walk], tuple[Conjunct, ...]]
KEPT = 1024
#: So many outlines are remembered, some 5 KiB each.
ROOM = 8192
#: So many of one operations and jumps: more of them would be of a form whose other constants are no holes.
MOST_ALIKE = 16
#: So often other values are drawn for a program.
DRAWN = 16


class Unlike(NamedTuple):
    """Two constants that must be in general position: where each begins and ends, and how far up its lowest bit is."""

    one: int
    end: int
    other: int
    other_end: int
    low: int

    @classmethod
    def of(cls, one: int, other: int, lane: Lane) -> "Unlike":
        return cls(one, one + lane.size, other, other + lane.size, lane.low)


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Which programs are one but for their values. mask: zero where a hole is. followers: first byte and end of a hole,
    and where its follower begins.
    """

    mask: int
    rest: int
    holes: tuple[Hole, ...]
    followers: tuple[tuple[int, int, int], ...]
    unlike: tuple[Unlike, ...]

    @classmethod
    def of(cls, code: bytes, values: Values) -> "Mask":
        holes = tuple(
            Hole(SIZE * pcs[0] + 4, lane, tuple(SIZE * pc + 4 for pc in pcs[1:]))
            for lanes, pcs in values.holes
            for lane in lanes
        )
        mask = (1 << 8 * len(code)) - 1
        for hole in holes:
            for at in hole.places:
                mask &= ~(hole.lane.mask << 8 * at)
        by_place = {hole.at: hole for hole in holes}
        pairs = [(SIZE * one + 4, SIZE * other + 4) for one, other in values.unlike]
        return cls(
            mask,
            int.from_bytes(code, "little") & mask,
            holes,
            tuple({(hole.at, hole.end, follower): None for hole in holes for follower in hole.followers}),
            tuple(Unlike.of(one, other, (by_place.get(one) or by_place[other]).lane) for one, other in pairs),
        )

    def fits(self, code: bytes, number: int) -> bool:
        """number: the code as one, the lowest byte first."""
        if number & self.mask != self.rest:
            return False
        for at, end, follower in self.followers:
            if code[follower : follower + end - at] != code[at:end]:
                return False
        number_of = int.from_bytes
        for one, end, other, other_end, low in self.unlike:
            if not in_general_position(
                number_of(code[one:end], "little"), number_of(code[other:other_end], "little"), low
            ):
                return False
        return True

    def varied(self, code: bytes, chosen: random.Random) -> bytes:
        """The program with other values in its holes, none of them near an end of its field."""
        other = bytearray(code)
        for hole in self.holes:
            most = hole.lane.mask >> hole.lane.low
            self.put(other, hole, chosen.randint(CLOSE, most - CLOSE) << hole.lane.low & hole.lane.mask)
        return bytes(other)

    def put(self, code: bytearray, hole: Hole, value: int) -> None:
        for at in hole.places:
            code[at : at + hole.lane.size] = value.to_bytes(hole.lane.size, "little")


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """What the programs of a mask decompose into. barred: first byte and end of a hole, and what it may not be."""

    form: Mask
    barred: tuple[tuple[int, int, frozenset[bytes]], ...]
    places: tuple[tuple[int, int, int], ...]  # of the holes: first byte, end, shift
    outlines: tuple[Outline, ...]
    length: int  # of the program, in bytes
    range: Range | None = None

    @classmethod
    def of(cls, code: bytes, form: Mask, values: Values, found: Sequence[Conjunct]) -> "Template":
        """code: of the form, with values that are telling; found: its conjuncts. Unsuited where holes are not all that
        differs.
        """
        holes = form.holes
        outlines = tuple(outline(conjunct, holes, code, values.compared) for conjunct in found)
        excluded = {hole for each in outlines for _, inside in each.excluded for hole in inside}
        return cls(
            form,
            tuple((holes[i].at, holes[i].end, _ends(holes[i])) for i in sorted(excluded)),
            tuple((hole.at, hole.end, hole.shift) for hole in holes),
            outlines,
            len(code),
        )

    def with_range(self, code: bytes, pairs: dict[int, int]) -> "Template":
        """Of the programs that have ranges where this one's have values, as `code` has. Unsuited where not."""
        form = self.form
        found, outlines = outlines_of(self.outlines, form.holes, pairs)
        ends = [(found.low, found.high), *found.followers]
        if any(at in (pair.one, pair.other) for pair in form.unlike for at, _ in ends):
            raise Unsuited
        if any(any(code[at + found.size : at + 4]) for pair in ends for at in pair):
            raise Unsuited  # an end beyond the field
        mask = form.mask
        for at in (each for pair in ends for each in pair):
            mask &= ~(found.most << 8 * at)
        firsts, lasts = ({pair[end] for pair in ends} for end in (0, 1))
        own = [(found.low, each) for each in firsts if each != found.low]
        own += [(found.high, each) for each in lasts if each != found.high]
        followers = {follower for follower in form.followers if follower[0] not in firsts}
        followers |= {(at, at + found.size, follower) for at, follower in own}
        ranged = replace(
            form, mask=mask, rest=int.from_bytes(code, "little") & mask, followers=tuple(sorted(followers))
        )
        return replace(self, form=ranged, outlines=outlines, range=found)

    @property
    def holes(self) -> tuple[Hole, ...]:
        return self.form.holes

    def fits(self, code: bytes, number: int) -> bool:
        """number: the code as one, the lowest byte first."""
        if not self.form.fits(code, number) or (self.range is not None and not self.range.fits(code)):
            return False
        return not self.barred or not any(code[at:end] in ends for at, end, ends in self.barred)

    def varied(self, code: bytes, chosen: random.Random, special: bool = False) -> bytes:
        """The program with other values in its holes, as they fit; special: zero and all ones, where they may be."""
        other = bytearray(self.form.varied(code, chosen))
        if self.range is not None:
            low = chosen.randint(FEWEST, self.range.most - 2 * FEWEST)
            self.range.put(other, low, chosen.randint(low + FEWEST, self.range.most - FEWEST))
        for hole in self.holes if special else ():
            before = bytes(other)
            self.form.put(other, hole, chosen.choice((0, hole.lane.mask)))
            if not self.fits(bytes(other), int.from_bytes(other, "little")):
                other = bytearray(before)
        return bytes(other)

    def bits(self, code: bytes) -> list[int]:
        """Of each hole, the value as bits of its space: a constant's bytes, the lowest first, are the field's in
        reverse, and so is what an integer of a space is.
        """
        big: Literal["big"] = "big"
        return [int.from_bytes(code[at:end], big) << shift for at, end, shift in self.places]

    def source(self, code: bytes) -> bytes:
        """What moulds copy from: the program, and behind it the breadth where a range decides on that."""
        return code if self.range is None else code + self.range.breadth_of(code).to_bytes(4, "little")

    def fill(self, code: bytes) -> tuple[Conjunct, ...]:
        bits = self.bits(code)
        if self.range is None:
            return tuple([outline.filled(bits) for outline in self.outlines])
        span, breadth = self.range.ends(code), self.range.breadth_of(code)
        return tuple([outline.filled(bits, span, breadth) for outline in self.outlines])


def _ends(hole: Hole) -> frozenset[bytes]:
    """The values near the ends of its field: beyond an excluded one there is no run of values, or a single one."""
    lane = hole.lane
    near = [value << lane.low for value in range(CLOSE)]
    return frozenset(
        value.to_bytes(lane.size, "little") for low in near for value in (low & lane.mask, lane.mask & ~low)
    )


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
    """The templates met so far, as long as there is room. `decompose`: the slow way."""

    def __init__(self, decompose: Decompose) -> None:
        self._decompose = decompose
        self._known: dict[bytes, list[Template]] = {}
        self._held = 0
        self._vain: dict[bytes, int] = {}  # how often one was tried in vain

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
        number, kind = int.from_bytes(code, "little"), _kind(code)
        walk = Walk(program.instructions)
        found = self._decompose(walk)
        if walk.steps.taken > MAX_TRIED_STEPS or self._vain.get(kind, 0) >= MOST_ALIKE:
            return Filled(code, None, found)
        made = self._learnt(kind, program, walk)
        if made is None or not self._holds(made, code, found):
            return Filled(code, None, found)
        self._keep(kind, made)
        return Filled(code, made if made.fits(code, number) else None, found)

    def _learnt(self, kind: bytes, program: Program, walk: Walk) -> Template | None:
        """From the program, or from the one that has values where it has ranges."""
        code, pairs = as_values(program.instructions)
        try:
            if pairs:
                walk = Walk(_instructions(code))
                self._decompose(walk)
            form = Mask.of(code, walk.uses.values([instruction.k for instruction in _instructions(code)]))
            if not form.holes or not self._has_room(kind, form):
                return None
            if len(self._vain) >= KEPT:
                self._vain.clear()
            self._vain[kind] = self._vain.get(kind, 0) + 1  # as long as nothing comes of it
            made = self._made(code, form)
            return made.with_range(program.code, pairs) if made and pairs else made
        except (Undecomposable, Unsuited):
            return None

    def _has_room(self, kind: bytes, form: Mask) -> bool:
        """For one that has more holes than the least of those kept, there is."""
        alike = self._known.get(kind, [])
        return len(alike) < MOST_ALIKE or len(form.holes) > len(alike[-1].holes)

    def _keep(self, kind: bytes, made: Template) -> None:
        """Those with the most holes first."""
        self._vain.pop(kind, None)
        if self._held >= ROOM:
            self._known.clear()
            self._held = 0
        alike = self._known.get(kind, [])
        if len(alike) >= MOST_ALIKE:
            self._held -= len(alike[-1].outlines)
            alike = alike[:-1]
        # A list of its own: another thread may go through the one that was there.
        self._known[kind] = sorted([*alike, made], key=lambda template: -len(template.holes))
        self._held += len(made.outlines)

    def _made(self, code: bytes, form: Mask) -> Template | None:
        """From the same program with values that are telling. None: what it does with its constants depends on their
        values.
        """
        chosen = random.Random(len(code))
        for _ in range(DRAWN):
            other = form.varied(code, chosen)
            if form.fits(other, int.from_bytes(other, "little")):
                program = _instructions(other)
                try:
                    walk = Walk(program)
                    found = self._decompose(walk)
                    values = walk.uses.values([instruction.k for instruction in program])
                    same = Mask.of(other, values)
                    if same.holes != form.holes or same.unlike != form.unlike:
                        return None
                    if telling(other, form.holes, values.compared):
                        return Template.of(other, form, values, found)
                except (Undecomposable, Unsuited):
                    return None
        return None

    def _holds(self, template: Template, code: bytes, found: tuple[Conjunct, ...]) -> bool:
        """Does it say what the slow way says, of this program and for other values too?"""
        if template.fits(code, int.from_bytes(code, "little")) and template.fill(code) != found:
            return False
        other = template.varied(code, random.Random(len(code) + 1), special=True)
        try:
            return self._decompose(Walk(_instructions(other))) == template.fill(other)
        except Undecomposable:
            return False


def _kind(code: bytes) -> bytes:
    """A program's operations and jumps."""
    return code[::SIZE] + code[2::SIZE] + code[3::SIZE]


def _instructions(code: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", code)]
