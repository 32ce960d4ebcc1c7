# SPDX-License-Identifier: MIT
"""What the passes over conjuncts (simplify.py, interval.py) have met, noted for those who ask which values matter
(uses.py, apart.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.span import Field

__all__ = ["Boxes", "Notes"]

#: Of more conjuncts nothing is noted.
MOST_NOTED = 128

Boxes = set[tuple[Term, ...]]


@dataclass(slots=True)
class Notes:
    """formed: the conjuncts before they are merged and joined, and which comparisons were made on the paths of each;
    None where they are too many. lost: by space, the bits that merges and intervals have taken out of boxes. tried:
    fields of which intervals might have been made, and the boxes of the conjuncts that were grouped by them. joined:
    those by which several conjuncts are in one group, or one with an exclusion: where runs of values lie to each other.
    """

    formed: tuple[tuple[Conjunct, int], ...] | None = None
    lost: dict[int, int] = field(default_factory=dict)
    tried: dict[Field, Boxes] = field(default_factory=dict)
    joined: dict[Field, Boxes] = field(default_factory=dict)

    def form(self, conjuncts: Mapping[Conjunct, int]) -> None:
        self.formed = tuple(conjuncts.items()) if len(conjuncts) <= MOST_NOTED else None

    def lose(self, space: int, bits: int) -> None:
        self.lost[space] = self.lost.get(space, 0) | bits
