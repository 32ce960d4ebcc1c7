# SPDX-License-Identifier: MIT
"""Ranges as values: `jge LOW` and `jgt HIGH` on one field ask no more than whether it is in the range, as `jeq` asks
whether it has a value. So a program is walked with one comparison for both, and where its conjuncts have the value,
those of the program have the range.

That is so wherever the value would be a hole (uses.py): then nothing else meets the field's bytes, neither on a path
nor in what comes of it, and a path is taken by the frames in the range as by those with the value. All ranges of a
program have to be the same, and in all of its conjuncts, so that these stay in order whatever its size; and it may not
be so short or simple that a walk finds no interval (interval.py).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from exonet.filters.conjunct import Conjunct
from exonet.filters.libpcap import Instruction
from exonet.filters.names import named_fields
from exonet.filters.outline import SIZE, Hole, Outline, Unsuited
from exonet.filters.simplify import MAX_OUTSIDE, breadth_of, volume_of, with_breadth
from exonet.filters.span import Field, Interval

__all__ = ["Range", "as_values", "outlines_of"]

JEQ, JGT, JGE = 0x15, 0x25, 0x35
FARTHEST = 255  # that a conditional jump reaches
#: A range of fewer values may be single ones.
FEWEST = 4
#: So many breadths are remembered.
REMEMBERED = 4096


def as_values(program: Sequence[Instruction]) -> tuple[bytes, dict[int, int]]:
    """The program with one comparison for both of a range, and where the two of each are: the lower end, the upper."""
    pairs: dict[int, int] = {}
    changed = list(program)
    for pc, (code, jt, jf, k) in enumerate(program):
        upper, outside = pc + 1 + jt, pc + 1 + jf
        if code != JGE or program[upper].code != JGT or upper + 1 + program[upper].jt != outside:
            continue
        inside = upper + 1 + program[upper].jf
        if inside - pc - 1 <= FARTHEST:
            changed[pc] = Instruction(JEQ, inside - pc - 1, jf, k)
            pairs[pc] = upper
    return b"".join(struct.pack("=HBBI", *each) for each in changed), pairs


@dataclass(frozen=True, slots=True)
class Range:
    """The one range of a program: where its ends are, of so many bytes; the same are at each of `followers`, pairs of
    first bytes. unit: the volume of its conjuncts, for each value of the range; excluded: how many terms they exclude.
    """

    low: int
    high: int
    size: int
    followers: tuple[tuple[int, int], ...]
    unit: int
    excluded: int
    _breadths: dict[int, int] = field(default_factory=dict, compare=False)

    @property
    def most(self) -> int:
        return (1 << 8 * self.size) - 1

    def ends(self, code: bytes | bytearray) -> tuple[int, int]:
        low, high = code[self.low : self.low + self.size], code[self.high : self.high + self.size]
        return int.from_bytes(low, "little"), int.from_bytes(high, "little")

    def fits(self, code: bytes) -> bool:
        """Does a walk find an interval of it, that reaches no end of the field?"""
        low, high = self.ends(code)
        return (
            0 < low <= high - FEWEST + 1
            and high < self.most
            and low.bit_count() + (self.most - high).bit_count() > MAX_OUTSIDE
        )

    def breadth_of(self, code: bytes) -> int:
        """Of the filter that the program is."""
        low, high = self.ends(code)
        size = high - low + 1
        found = self._breadths.get(size)
        if found is None:
            if len(self._breadths) >= REMEMBERED:
                self._breadths.clear()
            found = self._breadths[size] = breadth_of(size * self.unit, self.excluded)
        return found

    def put(self, code: bytearray, low: int, high: int) -> None:
        for first, last in ((self.low, self.high), *self.followers):
            code[first : first + self.size] = low.to_bytes(self.size, "little")
            code[last : last + self.size] = high.to_bytes(self.size, "little")


def outlines_of(
    found: Sequence[Outline], holes: Sequence[Hole], pairs: dict[int, int]
) -> tuple[Range, tuple[Outline, ...]]:
    """The range, and the outlines of the program, from those of the one that has values instead. Unsuited where the
    values are not everywhere, or do not behave as a range does.
    """
    ranged = {i for i, hole in enumerate(holes) if hole.at // SIZE in pairs}
    places = sorted(at for i in ranged for at in holes[i].places)
    sizes = {holes[i].lane.size for i in ranged}
    whole = all(holes[i].lane == holes[i].lane.whole for i in ranged)
    if sorted(SIZE * pc + 4 for pc in pairs) != places or len(sizes) != 1 or not whole or not found:
        raise Unsuited
    (size,) = sizes
    most = (1 << 8 * size) - 1
    model = (most // 3, most // 2)
    spanned = [_spanned(each, holes, ranged, model) for each in found]
    by_conjunct = {each.conjunct: each for each in spanned}
    if len(by_conjunct) < len(spanned):
        raise Unsuited
    ordered = with_breadth(list(by_conjunct))
    outlines = tuple(replace(by_conjunct[conjunct], conjunct=conjunct) for conjunct in ordered)
    units = [volume_of(each.conjunct, 1) for each in outlines]
    if any(volume_of(each.conjunct, most) != most * unit for each, unit in zip(outlines, units, strict=True)):
        raise Unsuited
    first, *others = ((at, SIZE * pairs[at // SIZE] + 4) for at in places)
    excluded = sum(len(each.conjunct.excluded) for each in outlines)
    return Range(*first, size, tuple(others), sum(units), excluded), outlines


def _spanned(outline: Outline, holes: Sequence[Hole], ranged: set[int], model: tuple[int, int]) -> Outline:
    """With an interval in place of the value."""
    conjunct, inside = outline.conjunct, [hole for hole in outline.holes if hole in ranged]
    if len(inside) != 1 or conjunct.interval is not None or not any(inside[0] in gap for _, gap in outline.box):
        raise Unsuited
    lane = holes[inside[0]].lane
    wanted = Field(*lane[:3])
    if (wanted, True) not in named_fields(conjunct.bits, lane.space, lane.bits):
        raise Unsuited
    bits = conjunct.bits
    mask, value = bits[lane.space]
    bits[lane.space] = (mask & ~lane.bits, value & ~lane.bits)
    made = Conjunct.of(
        bits,
        conjunct.excluded,
        interval=Interval(wanted, *model),
        frame_bytes=conjunct.frame_bytes,
        ip4_bytes=conjunct.ip4_bytes,
        ip4_at=conjunct.ip4_at,
    )
    box = tuple(
        ((space, mask & ~lane.bits, value), tuple(hole for hole in gap if hole != inside[0]))
        if inside[0] in gap
        else ((space, mask, value), gap)
        for (space, mask, value), gap in outline.box
    )
    box = tuple(gap for gap in box if gap[0][1])
    if made is None or [term[:2] for term, _ in box] != [term[:2] for term in made.box]:
        raise Unsuited
    return Outline(made, box, outline.excluded)
