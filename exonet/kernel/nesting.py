# SPDX-License-Identifier: MIT
"""Who is asked first of two nested bindings whose conjuncts fix equally many bits: the one of less breadth.

A filter's breadth is the logarithm of its volume, rounded: it tells most nested filters apart and not all
(R4). Where it does not, the new binding gets one between those of the bindings inside it and of those around it. Where
the wider one has a conjunct that fixes more bits than the narrower one's, the narrower one gets further conjuncts: of
what both take.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from exonet.errors import ExhaustedError
from exonet.kernel.prepared import Prepared
from exonet.kernel.standing import Filters, Pair, Standing
from exonet.wording import quoted

__all__ = ["Nester", "breadth_between"]

#: How far from its neighbour, where there is one on one side only: others may come between.
APART = 64
MOST = (1 << 32) - 1


def breadth_between(own: int, inside: Iterable[int], around: Iterable[int]) -> int:
    """Above all inside and below all around: its own where that is. ExhaustedError where there is no number left."""
    low, high = max(inside, default=-1), min(around, default=MOST + 1)
    if low < own < high:
        return own
    if low + 1 >= high:
        raise ExhaustedError("no room is left in the order of the bindings it is nested with; bind the widest first")
    if high > MOST:
        return min(low + APART, MOST)
    return max(high - APART, 0) if low < 0 else (low + high) // 2


class Placed(Hashable, Protocol):
    """A binding: `kernel.binding.Binding`. serial: 0 before it is one. breadth: where it is not its filter's."""

    filter: Prepared
    breadth: int | None

    @property
    def serial(self) -> int: ...


Bound = TypeVar("Bound", bound=Placed)


class Nester(Generic[Bound]):
    """Sees to it that of nested bindings the inner one wins everywhere."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    def settle(self, candidate: Bound, nested: Sequence[tuple[Bound, Standing]]) -> dict[Bound, list[Any]]:
        """Gives the candidate its breadth. Returns the conjuncts that it and others need beside their own.
        ExhaustedError.
        """
        self._place(candidate, nested)
        extras: dict[Bound, dict[Any, None]] = {}
        for other, found in nested:
            for winner, loser, pairs in ((candidate, other, found.inside), (other, candidate, found.around)):
                for more in self._separate(winner, loser, pairs):
                    extras.setdefault(winner, {})[more] = None
        return {binding: list(more) for binding, more in extras.items()}

    def boxes(self, binding: Bound) -> Sequence[Any]:
        """Its own conjuncts as native boxes, with its breadth."""
        if binding.breadth is None:
            return binding.filter.boxes()
        return [self._filters.box(conjunct) for conjunct in self._placed(binding, binding.filter.conjuncts)]

    def _place(self, candidate: Bound, nested: Sequence[tuple[Bound, Standing]]) -> None:
        """Its breadth, where it ties with bindings that it is nested with."""
        inside = [other for other, found in nested if self._ties(candidate, other, found.around, "around")]
        around = [other for other, found in nested if self._ties(candidate, other, found.inside, "inside")]
        own = self._filters.breadth(candidate.filter.conjuncts)
        try:
            placed = breadth_between(own, map(self._breadth, inside), map(self._breadth, around))
        except ExhaustedError as error:
            raise ExhaustedError(f"filter {quoted(candidate.filter.text)}: {error}") from None
        candidate.breadth = None if placed == own else placed

    def _ties(self, candidate: Bound, other: Bound, pairs: Sequence[Pair], how: str) -> bool:
        tied = self._filters.tied
        key = ("ties", how, candidate.filter.text, other.filter.text)
        return bool(pairs) and self._filters.studies.find(key, lambda: any(tied(*pair) for pair in pairs))

    def _breadth(self, binding: Bound) -> int:
        return self._filters.breadth(binding.filter.conjuncts) if binding.breadth is None else binding.breadth

    def _placed(self, binding: Bound, conjuncts: Sequence[Any]) -> Sequence[Any]:
        return conjuncts if binding.breadth is None else self._filters.of_breadth(conjuncts, binding.breadth)

    def _separate(self, winner: Bound, loser: Bound, pairs: Sequence[Pair]) -> Sequence[Any]:
        if not pairs:
            return ()
        key = ("extras", winner.filter.text, winner.breadth, loser.filter.text, loser.breadth)
        placed = [(self._placed(winner, inner), self._placed(loser, outer)) for inner, outer in pairs]
        work = partial(_separated, self._filters, placed)
        try:
            return self._filters.studies.find(key, work, weigh=len)
        except ExhaustedError as error:
            who = str(winner) if winner.serial else f"filter {quoted(winner.filter.text)}"
            raise ExhaustedError(f"{who}: {error}") from None


def _separated(filters: Filters, pairs: Sequence[Pair]) -> Sequence[Any]:
    return tuple(dict.fromkeys(more for pair in pairs for more in filters.separate(*pair)))
