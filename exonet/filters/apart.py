# SPDX-License-Identifier: MIT
"""What is apart: comparisons of which one is never met by what came of the other.

Accepted paths meet where one may lie within the other; conjuncts where one may contain the other, where they may be
siblings across a bit, or where an interval of a field may join them. None of that happens where they want different
values of two bits that each keeps, whatever becomes of the others: bits that no merge or interval takes out of boxes,
and whose values are none that a template fills in. An interval may be of such bits; so for each field of which one may
be made there is another such bit, or masks or guards differ in something that has no value. What holds for one choice
of values then holds for all, by induction over the passes: no step finds two that are apart to have anything to do with
each other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from exonet.filters.box import Bits
from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.lane import Lane
from exonet.filters.span import Field

__all__ = ["Accepted", "Formed"]

#: Two boxes that differ in one bit are siblings.
FEWEST_DIFFERENT = 2
#: So many pairs of boxes are compared; of the others nothing is known.
MOST_PAIRS = 8192

Box = frozenset[tuple[int, int, int]]
Bytes = Mapping[int, int]


class Accepted:
    """The accepted paths: which comparisons each has made, and what is known of its frames."""

    def __init__(self) -> None:
        self._paths: list[tuple[int, dict[int, tuple[int, int]]]] = []
        self.made = 0  # on any of them

    def add(self, made: int, bits: Bits) -> None:
        self._paths.append((made, dict(bits)))
        self.made |= made

    def apart(self, filled: Bytes) -> Callable[[int, int], bool]:
        """Says of two comparisons whether all paths with the one are apart from all with the other. filled: by space,
        the bits of values that may be filled in.
        """
        boxes: dict[int, set[Box]] = {}
        for made, bits in self._paths:
            box = _without(((space, *known) for space, known in bits.items()), filled)
            while made:
                boxes.setdefault((made & -made).bit_length() - 1, set()).add(box)
                made &= made - 1
        left = MOST_PAIRS

        def apart(one: int, other: int) -> bool:
            nonlocal left
            mine, theirs = boxes.get(one, set()), boxes.get(other, set())
            left -= len(mine) * len(theirs)
            return left >= 0 and all(_enough(a, b) for a in mine for b in theirs)

        return apart


@dataclass(frozen=True, slots=True)
class Formed:
    """The conjuncts of paths, before they are merged and joined, each with the comparisons made on these. lost: by
    space, the bits that merges and intervals take out of boxes. fields: of which intervals may be made. filled: by
    space, the bits of values that may be filled in.
    """

    conjuncts: tuple[tuple[Conjunct, int], ...]
    lost: Bytes
    fields: tuple[Field, ...]
    filled: Bytes

    def apart(self, lanes: Sequence[Lane]) -> Callable[[int, int], bool]:
        """Says of two comparisons whether all conjuncts that may have the one's value are apart from all that may have
        the other's. lanes: what each compares.
        """
        known: dict[tuple[int, int], bool] = {}
        having = [self._having(number, lane) for number, lane in enumerate(lanes)]

        def apart(one: int, other: int) -> bool:
            mine, theirs = having[one], having[other]
            for pair in ((i, j) for i in mine for j in theirs):
                if pair not in known:
                    if len(known) >= MOST_PAIRS:
                        return False
                    known[pair] = self._are_apart(*pair)
                if not known[pair]:
                    return False
            return True

        return apart

    def beside(self, number: int, lane: Lane, boxes: Iterable[tuple[Term, ...]]) -> bool:
        """May what came of a conjunct that has the comparison's value be one of these boxes?"""
        mine = [self.conjuncts[i][0].box for i in self._having(number, lane)]
        theirs = [_without(_without(box, self.filled), self.lost) for box in boxes]
        return any(not _differing(frozenset(box), other) for box in mine for other in theirs)

    def _having(self, number: int, lane: Lane) -> list[int]:
        found = enumerate(self.conjuncts)
        return [i for i, (each, made) in found if made >> number & 1 and _touches(each, lane.space, lane.bits)]

    def _are_apart(self, one: int, other: int) -> bool:
        a, b = self.conjuncts[one][0], self.conjuncts[other][0]
        if one == other or not _enough(*(_without(_without(each.box, self.filled), self.lost) for each in (a, b))):
            return False
        return all(self._differ_beside(field, a, b) for field in self.fields)

    def _differ_beside(self, field: Field, a: Conjunct, b: Conjunct) -> bool:
        """Do they differ in more than a field, for all values?"""
        space, covered, _ = field.term(field.most, 0)
        shifting = {**self.lost, space: self.lost.get(space, 0) | covered}
        if _structure(a, shifting) != _structure(b, shifting):
            return True
        return _differing(*(_without(_without(each.box, self.filled), shifting) for each in (a, b))) > 0


def _touches(conjunct: Conjunct, space: int, bits: int) -> bool:
    return any(where == space and mask & bits for where, mask, _ in (*conjunct.box, *conjunct.excluded))


def _structure(conjunct: Conjunct, shifting: Bytes) -> tuple[object, ...]:
    """Guards and masks, as far as they stay."""
    masks = [(space, left) for space, mask, _ in conjunct.box if (left := mask & ~shifting.get(space, 0))]
    excluded = [(space, mask) for space, mask, _ in conjunct.excluded if not mask & shifting.get(space, 0)]
    return conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at, masks, excluded


def _without(box: Iterable[tuple[int, int, int]], bits: Bytes) -> Box:
    return frozenset((space, mask & ~bits.get(space, 0), value & ~bits.get(space, 0)) for space, mask, value in box)


def _differing(a: Box, b: Box) -> int:
    """In how many bits they want different values."""
    other = {space: (mask, value) for space, mask, value in b}
    found = 0
    for space, mask, value in a:
        known, bits = other.get(space, (0, 0))
        found += ((value ^ bits) & mask & known).bit_count()
    return found


def _enough(a: Box, b: Box) -> bool:
    return _differing(a, b) >= FEWEST_DIFFERENT
