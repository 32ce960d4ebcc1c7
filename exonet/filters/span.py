# SPDX-License-Identifier: MIT
"""Fields of a space, and intervals of them: low <= field <= high (`struct exo_interval` of csrc/demux.h).

A field is bytes of a space read as a big-endian number; in the space of the length it is that 32-bit number. An
interval is worth the bits of its field less log2 of its size; a prefix of a field is an interval too.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

FRAME = 0
LENGTH = -1
LENGTH_BITS = 32


def program_space(code: bytes) -> int:
    """The space of a program's verdict, of which there is one bit: does it take the frame? Each program has its own, so
    whatever reasons about boxes takes the verdicts of two programs as independent of each other and of all bytes.
    """
    return LENGTH - 1 - int.from_bytes(b"\1" + code, "big")


def program_of(space: int) -> bytes | None:
    """The program whose verdict the space is; None: it is another space."""
    if space >= LENGTH:
        return None
    number = LENGTH - 1 - space
    return number.to_bytes((number.bit_length() + 7) // 8, "big")[1:]


Term = tuple[int, int, int]


def scatter(space: int, offset: int, size: int, bits: int) -> int:
    """Bits of a big-endian load, as bits of its space."""
    if space == LENGTH:
        return bits
    return int.from_bytes(bits.to_bytes(size, "big"), "little") << 8 * offset


def gather(space: int, offset: int, size: int, bits: int) -> int:
    """Bits of a space, as bits of a big-endian load."""
    if space == LENGTH:
        return bits
    return int.from_bytes((bits >> 8 * offset & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")


def log2_fixed(number: int) -> int:
    """log2 in 16.16, rounded down: to the bit as `log2_fixed` of csrc/demux_form.c."""
    whole = number.bit_length() - 1
    if number == 1 << whole:
        return whole << 16
    x, fraction = number << 31 >> whole, 0
    for _ in range(16):
        x = x * x >> 31
        fraction *= 2
        if x >= 1 << 32:
            fraction += 1
            x >>= 1
    return whole << 16 | fraction


class Field(NamedTuple):
    """`size` bytes (1, 2 or 4) at an offset of a space. The length is (LENGTH, 0, 4)."""

    space: int
    offset: int
    size: int

    @property
    def width(self) -> int:
        """In bits."""
        return LENGTH_BITS if self.space == LENGTH else 8 * self.size

    @property
    def most(self) -> int:
        return (1 << self.width) - 1

    @property
    def end(self) -> int:
        """How many bytes its space must have."""
        return self.offset + self.size

    def part(self, bits: int) -> int:
        """What bits of its space say about the field."""
        return gather(*self, bits)

    def term(self, mask: int, value: int) -> Term:
        """field & mask == value"""
        return self.space, scatter(*self, mask), scatter(*self, value)

    def reach(self, mask: int, value: int) -> tuple[int, int] | None:
        """The least and the greatest value where field & mask == value, if that is a prefix of the field."""
        rest = self.most & ~mask
        return None if rest & rest + 1 else (value, value | rest)


LENGTH_FIELD = Field(LENGTH, 0, 4)


class Interval(NamedTuple):
    """low <= field <= high, both inclusive."""

    field: Field
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many values."""
        return self.high - self.low + 1

    @property
    def is_all(self) -> bool:
        return self.size > self.field.most

    @property
    def specificity(self) -> int:
        """The bits of its field that it fixes, 16.16, as `demux_interval_bits` counts them."""
        return max((self.field.width << 16) - log2_fixed(self.size), 0)

    @property
    def common(self) -> tuple[int, int]:
        """The leading bits on which all its values agree: (mask, value) of the field."""
        mask = self.field.most & ~((1 << (self.low ^ self.high).bit_length()) - 1)
        return mask, self.low & mask

    def within(self, low: int, high: int) -> Self | None:
        """What lies in low..high too."""
        low, high = max(low, self.low), min(high, self.high)
        return self._replace(low=low, high=high) if low <= high else None

    def prefixes(self) -> Iterator[Term]:
        """Disjoint terms whose union it is: at most 2n-2 for n bits."""
        low = self.low
        while low <= self.high:
            step = low & -low or 1 << self.field.width
            while low + step - 1 > self.high:
                step >>= 1
            yield self.field.term(self.field.most & ~(step - 1), low)
            low += step

    def avoids(self, term: Term) -> bool:
        """Does the term hold for none of its values? Sufficient: exact where it wants a prefix of the field."""
        space, mask, value = term
        if space != self.field.space:
            return False
        common, shared = self.common
        wanted, value = self.field.part(mask), self.field.part(value)
        if (value ^ shared) & wanted & common:
            return True
        reach = self.field.reach(wanted | common, value | shared)
        return reach is not None and self.within(*reach) is None
