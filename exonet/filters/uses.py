# SPDX-License-Identifier: MIT
"""What a program does with the bytes that it loads, noted while it is walked: which of its constants are mere values.

A constant is one where nothing that the passes find out (walk.py, simplify.py) depends on it. All that a value can meet
are other terms on the same bytes: earlier ones on the same path, which decide what the walk does, and those of other
accepted paths, with which the conjuncts are compared. So two comparisons of common bytes are *rivals* where they are
made on one path, in a question too, or both on accepted paths; a constant with a rival matters. But a rival that
compares the very same field, masked alike, with the same constant always agrees with it: the two are one value at two
places, its followers, as long as both constants are the same. That they are is asked of a sample; that they are places
of one value follows from the field: equal constants of different fields are values each for itself.

Bytes of which more is made than a comparison (arithmetic, ranges, offsets) have no values.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exonet.filters.box import Bits
from exonet.filters.names import naming_bytes
from exonet.filters.span import FRAME, LENGTH, scatter
from exonet.filters.value import Value

__all__ = ["Lane", "Uses"]

#: A mask with fewer bits is compared bit by bit elsewhere: an exclusion of one bit is that bit's other value.
FEWEST_BITS = 4
#: A program with more comparisons has no values: each would be compared with each.
MOST_COMPARED = 128


class Lane(NamedTuple):
    """A masked load, and bytes of a space."""

    space: int
    offset: int
    size: int
    mask: int

    @property
    def bits(self) -> int:
        """Of its space."""
        return scatter(*self)

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def places(self) -> range:
        return range(self.offset, self.end)

    def overlaps(self, other: "Lane") -> bool:
        """Have they bytes of one space in common, masked or not?"""
        return self.space == other.space and self.offset < other.end and other.offset < self.end


def lane_of(value: Value) -> Lane | None:
    """The masked load that the value is; None: more has been made of it."""
    lane = Lane(value.space, value.offset, value.size, value.mask)
    plain = value == Value(*lane) and value.space != LENGTH and value.mask.bit_count() >= FEWEST_BITS
    return lane if plain else None


class Uses:
    """Of one program. Which comparisons a path has made is a set of instructions, as the bits of an integer."""

    def __init__(self) -> None:
        self._compared: dict[int, Lane] = {}
        self._before: dict[int, int] = {}  # by comparison: those made before it on any path
        self._accepted = 0  # made on accepted paths
        self._naming: set[int] = set()  # bytes of the frame by whose values those of accepted paths are named
        self._unknown: set[int] = set()  # those of them that an accepted path leaves open
        self._worked: set[Lane] = set()

    def work(self, value: Value) -> None:
        """More is made of the value than a comparison."""
        if not value.is_constant:
            self._worked.add(Lane(value.space, value.offset, value.size, value.mask))

    def compare(self, value: Value, pc: int, before: int) -> int:
        """The value is compared for equality with the constant at `pc`, on a path that made the comparisons `before`.
        Returns those it has made now.
        """
        if value.is_constant:
            return before
        lane = lane_of(value)
        if lane is None or self._compared.setdefault(pc, lane) != lane:
            self.work(value)
            return before
        self._before[pc] = self._before.get(pc, 0) | before
        return before | 1 << pc

    def accept(self, made: int, bits: Bits, ip4: tuple[int, int] | None) -> None:
        """A path that made these is accepted; what is known of its frames, and where their IPv4 header begins."""
        self._accepted |= made
        naming = naming_bytes(bits, [ip4[0]] if ip4 else [])
        known = bits.get(FRAME, (0, 0))[0]
        self._naming |= naming
        self._unknown |= {at for at in naming if known >> 8 * at & 0xFF != 0xFF}

    def values(self, constants: Sequence[int]) -> list[tuple[Lane, tuple[int, ...]]]:
        """The values among the program's constants: the field, and the instructions that compare it with the value."""
        compared = self._compared
        if len(compared) > MOST_COMPARED:
            return []
        if self._moves_bytes() or any(self._is_worked(Lane(FRAME, at, 1, 0xFF)) for at in self._unknown):
            return []
        found = {pc: {pc} for pc in compared}  # by comparison: all that have to agree
        fixed = {pc for pc, lane in compared.items() if constants[pc] & ~lane.mask or self._is_worked(lane)}
        fixed |= {pc for pc, lane in compared.items() if lane.space == FRAME and self._naming & {*lane.places}}
        for one, other in self._rivals():
            if compared[one] == compared[other] and constants[one] == constants[other]:
                both = found[one] | found[other]
                for pc in both:
                    found[pc] = both
            else:
                fixed |= {one, other}
        idle = {pc for pc in compared if not self._accepted >> pc & 1}  # nothing of them is in a conjunct
        groups = {min(group): group for group in found.values() if not group & fixed and group - idle}
        return [(compared[first], tuple(sorted(group))) for first, group in sorted(groups.items())]

    def _rivals(self) -> Iterable[tuple[int, int]]:
        places = sorted(self._compared)
        for i, one in enumerate(places):
            for other in places[i + 1 :]:
                if self._compared[one].overlaps(self._compared[other]) and self._meet(one, other):
                    yield one, other

    def _meet(self, one: int, other: int) -> bool:
        both = 1 << one | 1 << other
        return bool(self._before[one] >> other & 1 or self._before[other] >> one & 1 or self._accepted & both == both)

    def _is_worked(self, lane: Lane) -> bool:
        return any(lane.overlaps(other) for other in self._worked)

    def _moves_bytes(self) -> bool:
        """May what is known of an IPv4 header's length make bytes after it bytes of the frame?"""
        headers = {lane.space for lane in (*self._compared.values(), *self._worked) if lane.space > 0}
        lengths = [Lane(FRAME, space, 1, 0xFF) for space in headers]
        return any(length.overlaps(lane) for length in lengths for lane in (*self._compared.values(), *self._worked))
