# SPDX-License-Identifier: MIT
"""The prepared filter: everything about a filter that no bind has to find out again.

Its conjuncts, their claims (claims.py), the shapes that they need, and the native boxes in which only the binding's
number is still to be written. The text names it: a kernel has one Prepared for a text as long as anybody holds it.
Owner: the one kernel thread, which alone writes into the native boxes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from exonet.kernel.claim import Claim, Shape

__all__ = ["Box", "Prepared"]

#: A conjunct's native box, and whether only group frames are in it.
Box = tuple[Any, bool]


class Prepared:
    """text: as it was written. claims: of the conjuncts that can take a unicast frame, the only ones that can be in
    conflict (R2). count: of the conjuncts. shapes: the distinct ones. high: no less than the volume of its claims.
    likely: the claim around what was last found inside the filter, which is the likely one for the next.
    """

    __slots__ = ("__weakref__", "_box", "_boxes", "_conjuncts", "claims", "count", "high", "likely", "shapes", "text")

    def __init__(
        self,
        text: str,
        conjuncts: Sequence[Any],
        claims: Sequence[Claim],
        shapes: Sequence[Shape],
        box: Callable[[Any], Box],
    ) -> None:
        self.text = text
        self._conjuncts = tuple(conjuncts)
        self.count = len(self._conjuncts)
        self.claims = tuple(claims)
        self.shapes = tuple(shapes)
        self.high = sum(claim.high for claim in self.claims)
        self.likely: Claim | None = None
        self._box = box
        self._boxes: tuple[Box, ...] | None = None

    @property
    def conjuncts(self) -> tuple[Any, ...]:
        """The most specific first."""
        return self._conjuncts

    def boxes(self) -> tuple[Box, ...]:
        """FilterError where a conjunct does not fit the demux."""
        if self._boxes is None:
            self._boxes = tuple(map(self._box, self.conjuncts))
        return self._boxes
