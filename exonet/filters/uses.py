# SPDX-License-Identifier: MIT
"""What a program does with the bytes that it loads, noted while it is walked: which of its constants are mere values.

A constant is one where nothing that the passes find out (walk.py, simplify.py) depends on it. All that a value can meet
are other terms on the same bytes: earlier ones on the same path, which decide what the walk does, and those of other
accepted paths, with which the conjuncts are compared. So two comparisons of common bytes are *rivals* where they are
made on one path, in a question too, or on accepted paths, unless what comes of them is apart (apart.py). Rivals of one
field, masked alike, are either one value at two places, followers of each other, as long as both constants are the
same; or *unlike*, as long as these are in general position: then the passes see nothing but that they differ. Other
rivals matter. That rivals agree is asked of a sample; that they are places of one value follows from the field: equal
constants of different fields are values each for itself. An instruction that compares several fields has its value in
all of them.

Bytes of which more is made than a comparison (arithmetic, ranges, offsets) have no values. Neither have those of which
runs of values are joined to intervals by more or less than the field (notes.py).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exonet.filters.apart import Accepted, Formed
from exonet.filters.box import Bits
from exonet.filters.lane import Lane, in_general_position, lane_of
from exonet.filters.names import naming_bytes
from exonet.filters.notes import Notes
from exonet.filters.span import FRAME
from exonet.filters.value import Value

__all__ = ["Comparison", "Uses", "Values"]

#: A program with more comparisons has no values: each would be compared with each.
MOST_COMPARED = 128


class Comparison(NamedTuple):
    """The instruction, and the field that it compares with its constant."""

    pc: int
    lane: Lane


class Values(NamedTuple):
    """What a program's constants are. holes: each value's fields, and the instructions that have it. unlike: of which
    instructions the constants are in general position. compared: all comparisons for equality.
    """

    holes: tuple[tuple[tuple[Lane, ...], tuple[int, ...]], ...] = ()
    unlike: tuple[tuple[int, int], ...] = ()
    compared: tuple[Comparison, ...] = ()


class Uses:
    """Of one program. Which comparisons a path has made is a set of their numbers, as the bits of an integer."""

    def __init__(self) -> None:
        self._numbers: dict[Comparison, int] = {}
        self._before: list[int] = []  # by comparison: those made before it on any path
        self._accepted = Accepted()
        self._naming: set[int] = set()  # bytes of the frame by whose values those of accepted paths are named
        self._unknown: set[int] = set()  # those of them that an accepted path leaves open
        self._worked: set[Lane] = set()
        self._spoilt: set[int] = set()  # instructions that compare something else, too
        self.notes = Notes()

    def work(self, value: Value) -> None:
        """More is made of the value than a comparison."""
        if not value.is_constant:
            self._worked.add(Lane(value.space, value.offset, value.size, value.mask))

    def compare(self, value: Value, pc: int, before: int) -> int:
        """The value is compared for equality with the constant at `pc`, on a path that made the comparisons `before`.
        Returns those it has made now.
        """
        lane = lane_of(value)
        if lane is None:
            self._spoilt.add(pc)
            self.work(value)
            return before
        number = self._numbers.setdefault(Comparison(pc, lane), len(self._numbers))
        if number == len(self._before):
            self._before.append(0)
        self._before[number] |= before
        return before | 1 << number

    def accept(self, made: int, bits: Bits, ip4: tuple[int, int] | None) -> None:
        """A path that made these is accepted; what is known of its frames, and where their IPv4 header begins."""
        self._accepted.add(made, bits)
        naming = naming_bytes(bits, [ip4[0]] if ip4 else [])
        known = bits.get(FRAME, (0, 0))[0]
        self._naming |= naming
        self._unknown |= {at for at in naming if known >> 8 * at & 0xFF != 0xFF}

    def values(self, constants: Sequence[int]) -> Values:
        """The values among the program's constants."""
        notes, compared = self.notes, tuple(self._numbers)
        if len(compared) > MOST_COMPARED or notes.formed is None:
            return Values()
        if self._moves_bytes() or any(self._is_worked(Lane(FRAME, at, 1, 0xFF)) for at in self._unknown):
            return Values()
        fixed = {pc for pc, lane in compared if self._is_fixed(lane, pc, constants[pc])}
        filled: dict[int, int] = {}
        for pc, lane in compared:
            filled[lane.space] = filled.get(lane.space, 0) | (0 if pc in fixed else lane.whole.bits)
        formed = Formed(notes.formed, notes.lost, tuple(notes.tried), filled)
        fixed |= {pc for number, (pc, lane) in enumerate(compared) if self._is_joined(number, lane, formed)}
        cut = {pc for number, (pc, lane) in enumerate(compared) if self._is_cut(number, lane, formed)}
        found = {pc: {pc} for pc, _ in compared}  # by instruction: all that have to agree
        unlike: list[tuple[int, int]] = []
        for one, other in self._rivals(compared, formed):
            lane, a, b = one.lane, constants[one.pc], constants[other.pc]
            if one.pc == other.pc or lane != other.lane:
                fixed |= {one.pc, other.pc}
            elif a == b:
                both = found[one.pc] | found[other.pc]
                for pc in both:
                    found[pc] = both
            elif in_general_position(a, b, lane.low) and cut.isdisjoint({one.pc, other.pc}):
                unlike.append((one.pc, other.pc))
            else:
                fixed |= {one.pc, other.pc}
        return _gathered(compared, found, (fixed, self._idle(compared)), unlike)

    def _is_fixed(self, lane: Lane, pc: int, constant: int) -> bool:
        """Does it matter, whatever it meets?"""
        return (
            pc in self._spoilt
            or bool(constant & ~lane.mask)
            or self._is_worked(lane)
            or (lane.space == FRAME and not self._naming.isdisjoint(lane.places))
        )

    def _is_joined(self, number: int, lane: Lane, formed: Formed) -> bool:
        """Are runs of values joined by a field that is more or less than the lane?"""
        joined = self.notes.joined.items()
        near = [boxes for field, boxes in joined if lane.shares(field) and not lane.fills(field)]
        return any(formed.beside(number, lane, boxes) for boxes in near)

    def _is_cut(self, number: int, lane: Lane, formed: Formed) -> bool:
        """Are conjuncts grouped by a field that has a part of the lane, so that unlike ones may be alike beside it?"""
        tried = self.notes.tried.items()
        near = [boxes for field, boxes in tried if lane.shares(field) and not lane.lies_in(field)]
        return any(formed.beside(number, lane, boxes) for boxes in near)

    def _idle(self, compared: Iterable[Comparison]) -> set[int]:
        """The instructions of which nothing is in a conjunct."""
        made = self._accepted.made
        return {pc for pc, _ in compared} - {pc for n, (pc, _) in enumerate(compared) if made >> n & 1}

    def _rivals(self, compared: Sequence[Comparison], formed: Formed) -> Iterable[tuple[Comparison, Comparison]]:
        apart = formed.apart([lane for _, lane in compared])
        accepted = self._accepted.apart(formed.filled)
        for i, one in enumerate(compared):
            for j, other in enumerate(compared[:i]):
                if not one.lane.overlaps(other.lane):
                    continue
                made = self._before[i] >> j & 1 or self._before[j] >> i & 1
                if made or not (accepted(i, j) and apart(i, j)):
                    yield one, other

    def _is_worked(self, lane: Lane) -> bool:
        return any(lane.overlaps(other) for other in self._worked)

    def _moves_bytes(self) -> bool:
        """May what is known of an IPv4 header's length make bytes after it bytes of the frame?"""
        lanes = {*self._worked, *(lane for _, lane in self._numbers)}
        lengths = [Lane(FRAME, space, 1, 0xFF) for space in {lane.space for lane in lanes} if space > 0]
        return any(length.overlaps(lane) for length in lengths for lane in lanes)


def _gathered(
    compared: tuple[Comparison, ...],
    found: dict[int, set[int]],
    without: tuple[set[int], set[int]],
    unlike: Sequence[tuple[int, int]],
) -> Values:
    """The values of those groups of which nothing is fixed, not all is idle, and that are compared with fields of one
    form. without: what is fixed, what is idle.
    """
    fixed, idle = without
    groups = {min(group): tuple(sorted(group)) for group in found.values() if group - idle and not group & fixed}
    holes = {}
    for first, group in sorted(groups.items()):
        lanes = tuple(dict.fromkeys(lane for pc, lane in compared if pc in group))
        if len({(lane.size, lane.mask) for lane in lanes}) == 1:
            holes[first] = (lanes, group)
    pairs = {(min(found[one]), min(found[other])) for one, other in unlike}
    kept = {(min(pair), max(pair)) for pair in pairs if not holes.keys().isdisjoint(pair)}
    return Values(tuple(holes.values()), tuple(sorted(kept)), compared)
