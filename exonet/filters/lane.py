# SPDX-License-Identifier: MIT
"""A lane: a masked load that is compared with constants, as the search for values sees it (uses.py)."""

from typing import NamedTuple

from exonet.filters.span import LENGTH, Field, scatter
from exonet.filters.value import Value

__all__ = ["CLOSE", "Lane", "in_general_position", "lane_of"]

#: A mask with fewer bits is compared bit by bit elsewhere: an exclusion of one bit is that bit's other value.
FEWEST_BITS = 4
#: Numbers no further from each other, or from an end of their field, may be neighbours, or leave one number between.
CLOSE = 2


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

    @property
    def whole(self) -> "Lane":
        """Its load without the mask."""
        return self._replace(mask=(1 << 8 * self.size) - 1)

    @property
    def low(self) -> int:
        """How far up the lowest bit of its mask is."""
        return (self.mask & -self.mask).bit_length() - 1

    def overlaps(self, other: "Lane") -> bool:
        """Have they bytes of one space in common, masked or not?"""
        return self.space == other.space and self.offset < other.end and other.offset < self.end

    def shares(self, field: Field) -> bool:
        """Has it bytes of the field, masked or not?"""
        return self.space == field.space and self.offset < field.end and field.offset < self.end

    def fills(self, field: Field) -> bool:
        """Are the field's bytes its bytes?"""
        return self[:3] == field

    def lies_in(self, field: Field) -> bool:
        """Are all its bytes the field's?"""
        return self.space == field.space and field.offset <= self.offset and self.end <= field.end


def lane_of(value: Value) -> Lane | None:
    """The masked load that the value is; None: more has been made of it, or it is a constant."""
    lane = Lane(value.space, value.offset, value.size, value.mask)
    plain = value == Value(*lane) and value.space != LENGTH and value.mask.bit_count() >= FEWEST_BITS
    return lane if plain else None


def in_general_position(a: int, b: int, low: int) -> bool:
    """Do two values of a lane differ by two bits at least, and are they no neighbours? Then no conjunct's sibling is
    the other's, and no run of values reaches from one to the other. low: how far up the lane's lowest bit is.
    """
    differing = a ^ b
    return differing & differing - 1 != 0 and not -CLOSE <= (a >> low) - (b >> low) <= CLOSE
