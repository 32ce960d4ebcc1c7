# SPDX-License-Identifier: MIT
"""A line: spans of numbers, and which of them overlap one, without a look at the others.

Spans of similar size (from 2^n on) are of one scale, whose cells are twice as long: each begins in one cell and ends in
that or the next, so that a span is found by the cells it may begin in. At most 33 scales for a field of 32 bits,
and where spans are disjoint at most three in a cell.
"""

from typing import Generic, TypeVar

__all__ = ["Line"]

T = TypeVar("T")
Span = tuple[int, int]


class Line(Generic[T]):
    """Falsy when empty. A thing that is on it twice has the same span both times, and is on it once."""

    __slots__ = ("_scales",)

    def __init__(self) -> None:
        self._scales: dict[int, dict[int, dict[T, Span]]] = {}

    def __bool__(self) -> bool:
        return bool(self._scales)

    def add(self, thing: T, low: int, high: int) -> None:
        scale = (high - low + 1).bit_length()
        self._scales.setdefault(scale, {}).setdefault(low >> scale, {})[thing] = (low, high)

    def remove(self, thing: T, low: int, high: int) -> None:
        scale = (high - low + 1).bit_length()
        cells = self._scales[scale]
        cell = cells[low >> scale]
        del cell[thing]
        if not cell:
            del cells[low >> scale]
        if not cells:
            del self._scales[scale]

    def drained(self) -> dict[int, dict[int, dict[T, Span]]]:
        """What it was made of, for somebody else to free; it is empty now."""
        scales, self._scales = self._scales, {}
        return scales

    def overlapping(self, low: int, high: int) -> list[T]:
        """Those with a value in low..high."""
        found = []
        for scale, cells in self._scales.items():
            first, last = (low >> scale) - 1, high >> scale
            for place in range(first, last + 1) if last - first < len(cells) else cells:
                cell = cells.get(place)
                if cell:
                    found += [thing for thing, (start, end) in cell.items() if start <= high and end >= low]
        return found
