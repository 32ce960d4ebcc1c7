# SPDX-License-Identifier: MIT
"""The standing of a filter to another (R4): apart, nested conjunct by conjunct, or in conflict.

Most is seen at once on the claims (claims.py); what is not goes to the exact tests of `filters/region.py`, for which
the whole filters are compared: a union can lie within another though none of its conjuncts lies within one of the
other's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from exonet.errors import ExhaustedError
from exonet.kernel.claim import Claim, Lie, Shape, lie
from exonet.kernel.prepared import Prepared
from exonet.kernel.studies import Studies
from exonet.wording import quoted

__all__ = ["MOST_PAIRS", "Filters", "Standing", "clash", "exact", "quick", "stand"]

#: So many pairs of conjuncts are looked at for two filters: a quarter of a second.
MOST_PAIRS = 1 << 18
#: So many are looked at without a study.
QUICK_PAIRS = 256
Pair = tuple[Sequence[Any], Sequence[Any]]


class Filters(Protocol):
    """What binding asks of the filter compiler: `kernel/regions.py`. Whatever may take long goes through `studies`."""

    studies: Studies

    def prepare(self, source: Any) -> Prepared:
        """A filter that is ready to be bound; None: everything. FilterError."""

    def whole(self, region: str | None) -> bool:
        """Is it made of whole IP destinations?"""

    def relation(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """.kind and .example. ExhaustedError where it takes too long to say."""

    def nesting(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """.inside, .around: pairs of conjuncts, and .clash: an example where there is a pair that overlaps in part."""

    def breadth(self, conjuncts: Sequence[Any]) -> int:
        """Of the filter that they are."""

    def of_breadth(self, conjuncts: Sequence[Any], breadth: int) -> Sequence[Any]: ...

    def tied(self, inner: Sequence[Any], outer: Sequence[Any]) -> bool:
        """Is there an inner one that fixes as many bits as an outer one that it overlaps?"""

    def separate(self, inner: Sequence[Any], outer: Sequence[Any]) -> Sequence[Any]:
        """Conjuncts by which the inner one wins from the outer everywhere, beside its own."""

    def taker(self, conjuncts: Sequence[Any], example: Any) -> str:
        """The conjunct that takes the example, with its number, for people."""

    def remedy(self, refused: str, holder: str) -> str:
        """The text of a filter that would do; "" where there is none that is known."""

    def shapes(self, conjuncts: Sequence[Any]) -> Sequence[Shape]:
        """The distinct shapes that they need; equal ones are one object."""

    def box(self, conjunct: Any) -> Any:
        """Its box for the demux, without a binding."""

    def stamp(self, box: Any, binding: int) -> Any:
        """The box with the binding's number, for `MachinePort.insert`; until it is stamped again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """inside: (mine, the other's around it); around: (the other's, mine around it). example: of a frame for which
    neither wins; `same`: they hold the very same frames. settled: the demux asks every inner one first as it is.
    """

    inside: tuple[Pair, ...] = ()
    around: tuple[Pair, ...] = ()
    example: Any = None
    same: bool = False
    settled: bool = False


APART = Standing()


def stand(filters: Filters, mine: Prepared, theirs: Prepared) -> Standing:
    """How `mine` stands to `theirs`. ExhaustedError where that takes too long to say."""
    found = quick(mine, theirs)
    return exact(filters, mine, theirs) if found is None else found


def quick(mine: Prepared, theirs: Prepared) -> Standing | None:
    """What the claims say; None: they are too many, or it needs the exact test."""
    return _claimed(mine, theirs) if len(mine.claims) * len(theirs.claims) <= QUICK_PAIRS else None


def _claimed(mine: Prepared, theirs: Prepared) -> Standing | None:
    if len(mine.claims) * len(theirs.claims) > MOST_PAIRS:
        raise ExhaustedError(
            f"filter {quoted(mine.text)} and filter {quoted(theirs.text)}: {len(mine.claims)} and {len(theirs.claims)} "
            f"conjuncts: at most {MOST_PAIRS} pairs are compared"
        )
    inside: list[tuple[Claim, Claim]] = []
    around: list[tuple[Claim, Claim]] = []
    for a in mine.claims:
        for b in theirs.claims:
            found = lie(a, b)
            if found is Lie.UNCLEAR:
                return None
            if found is not Lie.APART:
                (inside if found is Lie.INSIDE else around).append((a, b))
    if not inside and not around:
        return APART
    if inside and around:
        return None
    # Does the union of the narrower ones perhaps cover all of the other filter?
    outer, inner = (theirs, mine) if inside else (mine, theirs)
    if not any(claim.low > inner.high for claim in outer.claims):
        return None
    settled = all(a.rank < b.rank for a, b in inside) and all(b.rank < a.rank for a, b in around)
    return Standing(
        tuple([((a.conjunct,), (b.conjunct,)) for a, b in inside]),
        tuple([((b.conjunct,), (a.conjunct,)) for a, b in around]),
        settled=settled,
    )


def exact(filters: Filters, mine: Prepared, theirs: Prepared) -> Standing:
    """What the frames themselves say. ExhaustedError where that takes too long."""
    both = len(mine.claims) + len(theirs.claims)
    return filters.studies.find(
        ("standing", mine.text, theirs.text),
        partial(_exact, filters, mine, theirs),
        weigh=lambda _: both,
    )


def _exact(filters: Filters, mine: Prepared, theirs: Prepared) -> Standing:
    try:
        found = _claimed(mine, theirs)
        return _compared(filters, mine, theirs) if found is None else found
    except ExhaustedError as error:
        raise ExhaustedError(f"filter {quoted(mine.text)} and filter {quoted(theirs.text)}: {error}") from None


def _compared(filters: Filters, mine: Prepared, theirs: Prepared) -> Standing:
    first = [claim.conjunct for claim in mine.claims]
    second = [claim.conjunct for claim in theirs.claims]
    found = filters.relation(first, second)
    kind = found.kind.value
    if kind == "disjoint":
        return APART
    if kind == "equal":
        return Standing(example=found.example, same=True)
    if kind == "inside":
        return Standing(inside=((mine.conjuncts, theirs.conjuncts),))
    if kind == "around":
        return Standing(around=((theirs.conjuncts, mine.conjuncts),))
    # `tcp port 80` is not inside `ip`, but its IPv4 half is, and of the other half nobody else says anything.
    pairs = filters.nesting(first, second)
    return Standing(
        tuple(((inner,), (outer,)) for inner, outer in pairs.inside),
        tuple(((inner,), (outer,)) for outer, inner in pairs.around),
        pairs.clash,
    )


def clash(mine: str, theirs: str, takers: tuple[str, str], example: str, *, same: bool, instead: str = "") -> str:
    """The refusal of two filters of which neither wins. mine, theirs: who binds what; takers: the conjunct of each that
    takes the example; instead: what would do, or what keeps them apart.
    """
    if same:
        return f"{mine}: {theirs} holds the very same frames; for example {example}, in {takers[0]}"
    return (
        f"{mine} and {theirs} overlap and neither is inside the other: {takers[0]} and {takers[1]}; "
        f"for example {example} is in both{instead}"
    )
