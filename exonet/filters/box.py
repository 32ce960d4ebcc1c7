# SPDX-License-Identifier: MIT
"""Boxes: which bits of each space have which value, as a mapping from space to (mask, value) (conjunct.py, span.py).

What two boxes have to do with each other, and what box, exclusions and interval of a conjunct say about each other.
"""

from collections.abc import Iterable, Mapping

from exonet.filters.span import FRAME, Interval, Term

Bits = Mapping[int, tuple[int, int]]


def byte_length(mask: int) -> int:
    """How many bytes a space must have to hold every bit of the mask."""
    return (mask.bit_length() + 7) // 8


def clash(a: Bits, b: Bits) -> bool:
    """Do two boxes want different values of a bit? Then they are disjoint."""
    for space, (mask, value) in a.items():
        other = b.get(space)
        if other and (value ^ other[1]) & mask & other[0]:
            return True
    return False


def meet(a: Bits, b: Bits) -> dict[int, tuple[int, int]]:
    """The box of both, which do not clash."""
    both = dict(a)
    for space, (mask, value) in b.items():
        known = both.get(space, (0, 0))
        both[space] = (known[0] | mask, known[1] | value)
    return both


def within(inner: Bits, outer: Bits) -> bool:
    """Is every point of `inner` in `outer`?"""
    for space, (mask, value) in outer.items():
        known = inner.get(space, (0, 0))
        if mask & ~known[0] or (value ^ known[1]) & mask:
            return False
    return True


def header_length(bits: Bits, at: int) -> int | None:
    """The length in bytes of the IPv4 header at `at`, where the box fixes it."""
    mask, value = bits.get(FRAME, (0, 0))
    return 4 * (value >> 8 * at & 15) if mask >> 8 * at & 15 == 15 else None


def shift_space(bits: dict[int, tuple[int, int]], at: int, end: int) -> bool:
    """Moves what counts from the end of the IPv4 header at `at` into the frame, where that is `end`. False: a clash."""
    if at not in bits:
        return True
    mask, value = bits.pop(at)
    moved = {FRAME: (mask << 8 * end, value << 8 * end)}
    if clash(bits, moved):
        return False
    bits.update(meet(bits, moved))
    return True


def _reduce(bits: dict[int, tuple[int, int]], excluded: Iterable[Term]) -> set[Term] | None:
    """What exclusions the box leaves open; bits that they force go into the box. None: nothing is left of the box."""
    pending = set(excluded)
    while True:
        left: set[Term] = set()
        forced = False
        for space, mask, value in pending:
            known = bits.get(space, (0, 0))
            if (value ^ known[1]) & mask & known[0]:
                continue
            rest = mask & ~known[0]
            if not rest:
                return None
            if rest & rest - 1 == 0:
                bits[space] = (known[0] | rest, known[1] | (value & rest ^ rest))
                forced = True
            else:
                left.add((space, rest, value & rest))
        if not forced:
            return left
        pending = left


def _cut(interval: Interval, excluded: Iterable[Term]) -> Interval | None:
    """The interval without the exclusions of its field alone that reach over one of its ends."""
    shared, common = interval.common
    for space, mask, value in excluded:
        field = interval.field
        wanted = field.part(mask)
        if space != field.space or field.term(wanted, 0)[1] != mask:
            continue
        reach = field.reach(wanted | shared, field.part(value) | common)
        if reach and reach[0] <= interval.low <= reach[1]:
            return interval.within(reach[1] + 1, field.most)
        if reach and reach[0] <= interval.high <= reach[1]:
            return interval.within(0, reach[0] - 1)
    return interval


def _clip(bits: Bits, interval: Interval) -> Interval | None:
    """The interval from the first to the last of its values that the box lets the field have."""
    field = interval.field
    mask, value = (field.part(known) for known in bits.get(field.space, (0, 0)))
    low = _least(interval.low, mask, value, field.most)
    mirrored = _least(field.most - interval.high, mask, mask & ~value, field.most)
    return interval.within(low, field.most - mirrored)


def _least(low: int, mask: int, value: int, most: int) -> int:
    """The least number from `low` on with number & mask == value; above `most` if there is none."""
    wrong = ((low ^ value) & mask).bit_length()
    if not wrong:
        return low
    if not value >> wrong - 1 & 1:
        free = most & ~mask & ~low & -(1 << wrong)  # a bit above to carry into
        if not free:
            return most + 1
        wrong = (free & -free).bit_length()
        return low >> wrong << wrong | 1 << wrong - 1 | value & (1 << wrong - 1) - 1
    return low >> wrong << wrong | value & (1 << wrong) - 1


def settle(
    bits: dict[int, tuple[int, int]], excluded: Iterable[Term], interval: Interval | None
) -> tuple[set[Term], Interval | None] | None:
    """What is left of exclusions and interval; what these fix goes into the box. None: nothing is left of it."""
    left = _reduce(bits, excluded)
    while left is not None and interval is not None and not interval.is_all:
        space, mask, value = interval.field.term(*interval.common)
        if clash(bits, {space: (mask, value)}):
            return None
        bits.update(meet(bits, {space: (mask, value)}))
        if interval.size == 1:
            interval = None
            left = _reduce(bits, left)
            break
        clipped = _clip(bits, interval)
        left = _reduce(bits, {term for term in left if clipped and not clipped.avoids(term)})
        cut = _cut(clipped, left or ()) if clipped else None
        if cut is None:
            return None
        if cut == interval and _clip(bits, cut) == cut:
            break
        interval = cut
    return None if left is None else (left, None if interval and interval.is_all else interval)


def strip(bits: dict[int, tuple[int, int]], interval: Interval) -> None:
    """Takes out of the box what the interval says anyhow."""
    space, shared, _ = interval.field.term(*interval.common)
    mask, value = bits.pop(space, (0, 0))
    if mask & ~shared:
        bits[space] = (mask & ~shared, value & ~shared)
