# SPDX-License-Identifier: MIT
"""Is there a frame in this conjunct and outside of those? Exact, by box subtraction with a quota.

The question is a box and the conjuncts ("holes") to stay out of: of each hole at least one bit must differ, or an
excluded term must hold, or the frame must be too short for it. `_search` picks the hole with the fewest ways out and
tries each, disjointly. Offsets after an IPv4 header are first taken as bytes of their own: if that has no answer,
nothing has. If it has, the search is repeated for each header length (and for frames too short to say one) with all
offsets in the frame, so absolute and relative offsets that are the same bytes agree. ExhaustedError where the quota of
steps ends first: the caller must refuse. An interval is taken apart into prefixes first, as late and as few as may be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from exonet.errors import ExhaustedError
from exonet.filters.conjunct import (
    FRAME,
    LENGTH,
    Conjunct,
    Term,
    apart,
    byte_length,
    clash,
    meet,
    shift_space,
    within,
)
from exonet.filters.span import LENGTH_BITS

QUOTA = 50_000
#: So many holes are looked at in a step.
LOOKED_AT = 8
MAX_FRAME = 65535
HEADER_LENGTHS = (20, *range(24, 64, 4), *range(0, 20, 4))

Box = dict[int, tuple[int, int]]
#: Of the IPv4 header at each of these bytes; None: the frame ends before the byte that says it.
Lengths = Mapping[int, int | None]


@dataclass(frozen=True, slots=True)
class Witness:
    """An answer: bits of the frame, its least and greatest captured length, its length on the wire if that matters."""

    bits: Box
    low: int
    high: int
    wire_len: int | None


@dataclass(frozen=True, slots=True)
class _Hole:
    """A conjunct to stay out of: its box, what it excludes, and the lengths that it needs in each space."""

    box: Box
    excluded: tuple[Term, ...]
    needs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is left: a box, terms that must not hold, and low <= captured bytes < high in each space."""

    box: Box
    excluded: tuple[Term, ...]
    low: Mapping[int, int]
    high: Mapping[int, int]

    def fixed(self, term: Term) -> "_Piece | None":
        space, mask, value = term
        extra = {space: (mask, value)}
        if clash(self.box, extra):
            return None
        return replace(self, box=meet(self.box, extra))

    def shorter(self, space: int, high: int) -> "_Piece | None":
        """Too short to reach `high` bytes of the space."""
        if self.low.get(space, 0) >= high:
            return None
        return replace(self, high={**self.high, space: min(high, self.high.get(space, high))})


class _Budget:
    """The steps left."""

    def __init__(self, steps: int) -> None:
        self._quota = self._left = steps

    def spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise ExhaustedError(
                f"region check: more than {self._quota} steps; the filters cut each other up too finely"
            )


def _needs(conjunct: Conjunct) -> dict[int, int]:
    needs = {FRAME: conjunct.frame_bytes}
    if conjunct.ip4_bytes:
        needs[conjunct.ip4_at] = conjunct.ip4_bytes
    return needs


def _bits_out(box: Box, hole: Box) -> Iterator[Box]:
    """Disjoint boxes that leave the hole by one bit each: bits before agree with the hole, one differs."""
    agreed = box
    for space, (mask, value) in hole.items():
        open_bits = mask & ~box.get(space, (0, 0))[0]
        while open_bits:
            bit = open_bits & -open_bits
            open_bits ^= bit
            yield meet(agreed, {space: (bit, value & bit ^ bit)})
            agreed = meet(agreed, {space: (bit, value & bit)})


def _ways(piece: _Piece, hole: _Hole) -> int | None:
    """How many ways lead out of a hole; None where the piece is outside already."""
    if clash(piece.box, hole.box):
        return None
    if any(piece.high.get(space, MAX_FRAME + 1) <= need for space, need in hole.needs.items()):
        return None
    if any(within(piece.box, {space: (mask, value)}) for space, mask, value in hole.excluded):
        return None
    known = piece.box
    ways = sum((mask & ~known.get(space, (0, 0))[0]).bit_count() for space, (mask, _) in hole.box.items())
    ways += sum(not clash(known, {space: (mask, value)}) for space, mask, value in hole.excluded)
    return ways + sum(piece.low.get(space, 0) < need for space, need in hole.needs.items())


def _exits(piece: _Piece, hole: _Hole) -> list[_Piece]:
    """The ways out of a hole that the piece is not outside of."""
    exits = [replace(piece, box=box) for box in _bits_out(piece.box, hole.box)]
    exits += [found for term in hole.excluded if (found := piece.fixed(term))]
    exits += [found for space, need in hole.needs.items() if (found := piece.shorter(space, need))]
    return exits


def _as_hole(term: Term) -> _Hole:
    space, mask, value = term
    return _Hole({space: (mask, value)}, (), {})


def _search(piece: _Piece, holes: Sequence[_Hole], budget: _Budget) -> _Piece | None:
    """A piece of the piece outside of all holes."""
    budget.spend(1 + len(holes) // LOOKED_AT)
    left: list[_Hole] = []
    best: _Hole | None = None
    fewest = 0
    for hole in holes:
        ways = _ways(piece, hole)
        if ways is None:
            continue
        left.append(hole)
        if best is None or ways < fewest:
            best, fewest = hole, ways
            if not ways:
                return None
    for found in _exits(piece, best) if best else ():
        answer = _search(found, left, budget)
        if answer is not None:
            return answer
    return None if left else piece


def _spaces(conjuncts: Sequence[Conjunct]) -> set[int]:
    """Where the IPv4 headers begin that the conjuncts count from."""
    return {conjunct.ip4_at for conjunct in conjuncts if conjunct.ip4_bytes}


def _resolved(conjunct: Conjunct, lengths: Lengths) -> _Hole | None:
    """The conjunct with all offsets in the frame, given the lengths of IPv4 headers; None: it takes no such frame."""
    box = conjunct.bits
    at = conjunct.ip4_at
    if not conjunct.ip4_bytes:
        return _Hole(box, conjunct.excluded, _needs(conjunct))
    length = lengths[at]
    if length is None:
        return None
    end = at + length
    nibble = {FRAME: (15 << 8 * at, length // 4 << 8 * at)}
    if clash(box, nibble):
        return None
    box = meet(box, nibble)
    if not shift_space(box, at, end):
        return None
    excluded = tuple((FRAME, m << 8 * end, v << 8 * end) if s == at else (s, m, v) for s, m, v in conjunct.excluded)
    return _Hole(box, excluded, {FRAME: max(conjunct.frame_bytes, end + conjunct.ip4_bytes)})


def _wire_boxes(low: int) -> Iterator[Term]:
    """low..2**32-1 as prefixes of the length on the wire: the greatest of a captured frame's first, then the longer."""
    word = (1 << LENGTH_BITS) - 1
    for i in (*range(15, -1, -1), *range(LENGTH_BITS - 1, 15, -1)):
        bit, mask = 1 << i, word ^ ((1 << i) - 1)
        if not low & bit:
            yield (LENGTH, mask, low & mask | bit)
        if not i:
            yield (LENGTH, mask, low)


def _meet_all(holes: Sequence[_Hole]) -> _Piece | None:
    box: Box = {}
    low: dict[int, int] = {}
    excluded: list[Term] = []
    for hole in holes:
        if clash(box, hole.box):
            return None
        box = meet(box, hole.box)
        excluded += hole.excluded
        for space, need in hole.needs.items():
            low[space] = max(low.get(space, 0), need)
    return _Piece(box, tuple(excluded), low, {})


def _concrete(wanted: Sequence[_Hole], holes: Sequence[_Hole], high: int, budget: _Budget) -> Witness | None:
    """A frame shorter than `high` in all of `wanted` and none of `holes`, all offsets being in the frame."""
    met = _meet_all(wanted)
    piece = met and met.shorter(FRAME, high)
    if piece is None:
        return None
    obstacles = [*holes, *(_as_hole(term) for term in piece.excluded)]
    low = piece.low.get(FRAME, 0)
    if not any(LENGTH in h.box or any(s == LENGTH for s, _, _ in h.excluded) for h in (*wanted, *obstacles)):
        return _witness(_search(piece, obstacles, budget), None)
    for term in _wire_boxes(low):
        narrowed = piece.fixed(term)
        found = _search(narrowed, obstacles, budget) if narrowed else None
        if found is not None:
            mask, value = found.box[LENGTH]
            return _witness(found, value | ~mask & 0xFFFF)
    return None


def _witness(piece: _Piece | None, wire_len: int | None) -> Witness | None:
    if piece is None:
        return None
    high = min(piece.high.get(FRAME, MAX_FRAME + 1) - 1, MAX_FRAME if wire_len is None else wire_len)
    return Witness(
        {space: known for space, known in piece.box.items() if space == FRAME}, piece.low[FRAME], high, wire_len
    )


def solve(wanted: Sequence[Conjunct], outside: Sequence[Conjunct] = (), quota: int = QUOTA) -> Witness | None:
    """A frame that every conjunct of `wanted` takes and none of `outside`; None where there is none.

    ExhaustedError where that is not known within `quota` steps.
    """
    budget = _Budget(quota)
    taken = _joined(wanted)
    if taken is None:
        return None
    near = [conjunct for conjunct in outside if not any(apart(conjunct, one) for one in taken)]
    try:
        for pieces in _pieces(taken):
            holes = [piece for hole in near for piece in _facing(hole, pieces)]
            found = _solve(pieces, holes, budget)
            if found is not None:
                return found
    except RecursionError:
        raise ExhaustedError(f"region check: {len(outside)} conjuncts are cut too deeply") from None
    return None


def _pieces(wanted: Sequence[Conjunct]) -> Iterator[Sequence[Conjunct]]:
    """What to look into, in turn: the ends of the intervals, which mostly tell; then all of them."""
    if any(conjunct.interval for conjunct in wanted):
        yield from product(*(conjunct.ends() for conjunct in wanted))
    yield from product(*(conjunct.plain() for conjunct in wanted))


def _facing(hole: Conjunct, pieces: Sequence[Conjunct]) -> Sequence[Conjunct]:
    """A hole as far as the pieces can meet it, without its interval."""
    if hole.interval is None:
        return (hole,)
    for piece in pieces:
        low, high = piece.bounds(hole.interval.field)
        met = hole.interval.within(low, high)
        if met is None:
            return ()
        if (met.low, met.high) == (low, high):
            return (replace(hole, interval=None),)
    return hole.plain()


def _joined(wanted: Sequence[Conjunct]) -> list[Conjunct] | None:
    """The same intersection, with one interval for each field. None: two of them are disjoint."""
    held = {conjunct.interval.field: conjunct.interval for conjunct in wanted if conjunct.interval}
    for conjunct in wanted:
        for field, interval in held.items():
            narrowed = interval.within(*conjunct.bounds(field))
            if narrowed is None:
                return None
            held[field] = narrowed
    return [
        replace(conjunct, interval=held.pop(conjunct.interval.field, None)) if conjunct.interval else conjunct
        for conjunct in wanted
    ]


def _solve(wanted: Sequence[Conjunct], outside: Sequence[Conjunct], budget: _Budget) -> Witness | None:
    start = _meet_all([_Hole(c.bits, c.excluded, _needs(c)) for c in wanted])
    if start is None:
        return None
    near = [c for c in outside if not clash(start.box, c.bits)]
    loose = [*(_Hole(c.bits, c.excluded, _needs(c)) for c in near), *(_as_hole(term) for term in start.excluded)]
    if _search(start, loose, budget) is None:
        return None
    spaces = sorted(_spaces((*wanted, *near)))
    for chosen in product((*HEADER_LENGTHS, None), repeat=len(spaces)):
        lengths = dict(zip(spaces, chosen, strict=True))
        held = [_resolved(conjunct, lengths) for conjunct in wanted]
        if any(hole is None for hole in held):
            continue
        fixed = [_fix_lengths(lengths), *(hole for hole in held if hole)]
        holes = [hole for conjunct in near if (hole := _resolved(conjunct, lengths))]
        high = min((at + 1 for at, length in lengths.items() if length is None), default=MAX_FRAME + 1)
        found = _concrete(fixed, holes, high, budget)
        if found is not None:
            return found
    return None


def _fix_lengths(lengths: Lengths) -> _Hole:
    box: Box = {}
    for at, length in lengths.items():
        if length is not None:
            box = meet(box, {FRAME: (15 << 8 * at, length // 4 << 8 * at)})
    return _Hole(box, (), {FRAME: byte_length(box.get(FRAME, (0, 0))[0])})
