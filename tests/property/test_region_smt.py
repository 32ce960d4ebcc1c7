# SPDX-License-Identifier: MIT
"""Regions against an SMT solver that knows nothing of boxes: a frame is bytes and two lengths, the length of an IPv4
header is a nibble in it, and a conjunct is a formula. EXONET_LONG=seconds looks at as many more cases as fit.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from functools import reduce

import pytest

from exonet.errors import ExhaustedError, FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct, Term
from exonet.filters.region import Kind, Region, difference, overlap, relation
from exonet.filters.span import FRAME, LENGTH, LENGTH_FIELD, Field, Interval
from tests.effort import LONG

z3 = pytest.importorskip("z3", reason="z3-solver is not installed")

#: How many bytes of a frame the formulas have: more than a filter here looks at, behind the longest IPv4 header.
BYTES = 112
MAX_FRAME = 65535


class Formulas:
    """Conjuncts as formulas over one frame, all bytes and both lengths of which are unknown."""

    def __init__(self) -> None:
        self._context = z3.Context()
        self._frame = [z3.BitVec(f"byte{i}", 8, self._context) for i in range(BYTES)]
        self._captured, self._wire = (z3.BitVec(name, 32, self._context) for name in ("captured", "wire"))
        self._after: dict[tuple[int, int], object] = {}

    def _number(self, value: int, bits: int) -> object:
        return z3.BitVecVal(value, bits, self._context)

    def _byte(self, space: int, offset: int) -> object:
        """A byte of the frame, or after the IPv4 header at `space`, whatever length that says it has."""
        if space == FRAME:
            return self._frame[offset]
        if (space, offset) not in self._after:
            words = self._frame[space] & 15
            places = [self._frame[space + 4 * n + offset] for n in range(16)]
            self._after[space, offset] = reduce(
                lambda rest, n: z3.If(words == n, places[n], rest), range(1, 16), places[0]
            )
        return self._after[space, offset]

    def _term(self, term: Term) -> object:
        space, mask, value = term
        if space == LENGTH:
            return self._wire & mask == self._number(value, 32)
        size = (mask.bit_length() + 7) // 8
        wanted = zip(mask.to_bytes(size, "little"), value.to_bytes(size, "little"), strict=True)
        return self._all([self._byte(space, i) & m == v for i, (m, v) in enumerate(wanted) if m])

    def _all(self, parts: Sequence[object]) -> object:
        return z3.And(*parts, z3.BoolVal(True, self._context))

    def _interval(self, interval: Interval) -> object:
        field, low, high = interval
        if field.space == LENGTH:
            number, bits = self._wire, 32
        else:
            parts = [self._byte(field.space, field.offset + i) for i in range(field.size)]
            number, bits = z3.Concat(*parts) if len(parts) > 1 else parts[0], 8 * field.size
        return z3.And(z3.UGE(number, self._number(low, bits)), z3.ULE(number, self._number(high, bits)))

    def conjunct(self, conjunct: Conjunct) -> object:
        parts = [self._term(term) for term in conjunct.box] + [z3.Not(self._term(term)) for term in conjunct.excluded]
        parts.append(z3.UGE(self._captured, self._number(conjunct.frame_bytes, 32)))
        if conjunct.ip4_bytes:
            words = z3.ZeroExt(24, self._frame[conjunct.ip4_at] & 15)
            needed = words * 4 + (conjunct.ip4_at + conjunct.ip4_bytes)
            parts.append(z3.UGE(self._captured, needed))
        if conjunct.interval:
            parts.append(self._interval(conjunct.interval))
        return self._all(parts)

    def union(self, conjuncts: Sequence[Conjunct]) -> object:
        return z3.Or(*(self.conjunct(c) for c in conjuncts), z3.BoolVal(False, self._context))

    def possible(self, *parts: object) -> bool:
        """Is there a frame? What is captured of it is no longer than it was on the wire."""
        solver = z3.Solver(ctx=self._context)
        solver.add(z3.ULE(self._captured, self._wire), z3.ULE(self._captured, self._number(MAX_FRAME, 32)), *parts)
        answer = solver.check()
        assert answer != z3.unknown
        return bool(answer == z3.sat)

    def kind(self, a: Sequence[Conjunct], b: Sequence[Conjunct]) -> Kind:
        one, other = self.union(a), self.union(b)
        if not self.possible(one, other):
            return Kind.DISJOINT
        inside, around = not self.possible(one, z3.Not(other)), not self.possible(other, z3.Not(one))
        if inside:
            return Kind.EQUAL if around else Kind.INSIDE
        return Kind.AROUND if around else Kind.PARTIAL


# Where random conjuncts look: bytes that are the same ones counted from the frame and from the end of a header.
PLACES = (
    Field(FRAME, 0, 1), Field(FRAME, 12, 2), Field(FRAME, 14, 1), Field(FRAME, 23, 1), Field(FRAME, 26, 4),
    Field(FRAME, 34, 2), Field(FRAME, 36, 2), Field(FRAME, 38, 4), Field(14, 0, 2), Field(14, 2, 2), Field(14, 4, 1),
    LENGTH_FIELD,
)  # fmt: skip
VALUES = (0, 1, 5, 6, 17, 0x45, 0x46, 0x50, 64, 80, 0x800, 0x0A000001, 0x0A0000FF, 0x45004500)


def random_mask(chosen: random.Random, field: Field) -> int:
    full = field.most
    prefix = full << chosen.randint(0, field.width) & full
    return chosen.choice((full, full, prefix, full >> 1, 0x0F, chosen.getrandbits(field.width))) & full


def random_term(chosen: random.Random, fields: Sequence[Field]) -> Term:
    field = chosen.choice(fields)
    mask = random_mask(chosen, field) or field.most
    return field.term(mask, chosen.choice(VALUES) & mask)


def random_conjunct(chosen: random.Random) -> Conjunct | None:
    at = chosen.choice((14, 14, 14, 18))
    fields = [field._replace(space=at) if field.space == 14 else field for field in PLACES]
    bits: dict[int, tuple[int, int]] = {}
    for _ in range(chosen.randint(0, 4)):
        space, mask, value = random_term(chosen, fields)
        known = bits.get(space, (0, 0))
        bits[space] = (known[0] | mask, known[1] | value & ~known[0])
    excluded = [random_term(chosen, fields) for _ in range(chosen.choice((0, 0, 1, 1, 2)))]
    interval = None
    if chosen.random() < 0.5:
        field = chosen.choice(fields)
        low, high = sorted((chosen.choice(VALUES) + chosen.choice((-1, 0, 0, 1))) & field.most for _ in range(2))
        interval = Interval(field, low, high)
    relative = {FRAME, LENGTH} < {FRAME, LENGTH, *bits, *(s for s, _, _ in excluded)}
    return Conjunct.of(
        bits, excluded, interval=interval, frame_bytes=chosen.choice((0, 0, 0, 15, 35, 39, 60)),
        ip4_bytes=chosen.choice((1, 4, 9)) if relative else 0, ip4_at=at,
    )  # fmt: skip


def neighbour(chosen: random.Random, conjunct: Conjunct) -> Conjunct | None:
    """A conjunct with a bit, an exclusion, a guard or the ends of the interval changed: near enough to be nested."""
    bits, excluded, interval = conjunct.bits, list(conjunct.excluded), conjunct.interval
    frame_bytes, ip4_bytes, at = conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at
    what = chosen.randrange(6)
    if what == 0 and bits:
        space = chosen.choice(list(bits))
        mask, value = bits[space]
        set_bits = [1 << i for i in range(mask.bit_length()) if mask >> i & 1]
        bit = chosen.choice(set_bits)
        bits[space] = chosen.choice(((mask & ~bit, value & ~bit), (mask, value ^ bit)))
    elif what == 1:
        space, mask, value = random_term(chosen, PLACES[:8])
        known = bits.get(space, (0, 0))
        bits[space] = (known[0] | mask, known[1] | value & ~known[0])
    elif what == 2:
        excluded = excluded[1:] if excluded and chosen.random() < 0.5 else [*excluded, random_term(chosen, PLACES[:8])]
    elif what == 3:
        frame_bytes += chosen.choice((-20, -1, 1, 20))
    elif what == 4 and ip4_bytes:
        ip4_bytes = chosen.choice((1, 4, 9))
    elif interval:
        low = max(interval.low + chosen.choice((-1, 0, 1)), 0)
        interval = interval._replace(low=low, high=min(max(interval.high + chosen.choice((-1, 0, 1)), low),
                                                       interval.field.most))  # fmt: skip
    return Conjunct.of(
        bits, excluded, interval=interval, frame_bytes=max(frame_bytes, 0), ip4_bytes=ip4_bytes, ip4_at=at
    )


def random_pair(chosen: random.Random) -> tuple[list[Conjunct], list[Conjunct]]:
    a = [c for _ in range(chosen.randint(1, 3)) if (c := random_conjunct(chosen))]
    if chosen.random() < 0.25:
        b = [c for _ in range(chosen.randint(1, 3)) if (c := random_conjunct(chosen))]
    else:
        b = [c for each in a if (c := neighbour(chosen, each))]
        b += [c for _ in range(chosen.choice((0, 0, 1))) if (c := random_conjunct(chosen))]
    return a, b


def compare(formulas: Formulas, a: Sequence[Conjunct], b: Sequence[Conjunct], seen: Counter[object]) -> None:
    """relation, covers, overlap and their examples, as the solver has it; unless the quota ends first."""
    wanted = formulas.kind(a, b)
    try:
        found = relation(a, b)
        covered, uncovered = Region(tuple(b)).covers(a), difference(a, b)
        both = overlap(a, b)
    except ExhaustedError:
        seen["over the quota"] += 1
        return
    if not formulas.possible(formulas.union(a)):
        assert found.kind is Kind.DISJOINT and covered and uncovered is None
        seen["empty"] += 1
        return
    seen[wanted] += 1
    assert found.kind is wanted, (a, b)
    assert covered == (wanted in (Kind.INSIDE, Kind.EQUAL)) == (uncovered is None), (a, b)
    assert (both is None) == (wanted is Kind.DISJOINT), (a, b)
    for example, others, inside in ((both, b, True), (uncovered, b, False)):
        if example:
            frame = example.frame, example.wire_len
            assert any(c.matches(*frame) for c in a), (a, b)
            assert any(c.matches(*frame) for c in others) == inside, (a, b)


@pytest.mark.parametrize("seed", range(2))
def test_r13_relation_of_random_conjuncts_equals_the_solvers(seed: int) -> None:
    chosen, formulas, seen = random.Random(seed), Formulas(), Counter[object]()
    ends, tried = time.monotonic() + LONG / 4, 0
    while tried < 40 or time.monotonic() < ends:
        a, b = random_pair(chosen)
        if a and b:
            compare(formulas, a, b, seen)
            tried += 1
            if tried % 500 == 0:
                formulas = Formulas()
    if LONG:
        print(f"seed {seed}: {tried} pairs of unions: {dict(seen)}")
    assert seen["over the quota"] <= tried / 50
    assert min(seen[kind] for kind in (Kind.INSIDE, Kind.AROUND, Kind.PARTIAL)) > 0


PARTS = (
    "ip", "tcp", "udp dst port 80", "ip src host 10.0.0.1", "net 10.0.0.0/30", "tcp dst portrange 78-82", "port 81",
    "ip[0] = 0x45", "ip[0] & 15 = 6", "ether[36:2] = 80", "tcp[2:2] & 1 = 0", "ip[8] > 1", "less 60", "len = 60",
    "ether[38] = 0", "ip[6:2] & 0x1fff = 0", "vlan and tcp dst port 80", "ip6 and udp port 53", "tcp[13] & 3 = 1",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_r13_relation_of_compiled_filters_equals_the_solvers(seed: int) -> None:
    chosen, formulas, seen = random.Random(seed), Formulas(), Counter[object]()
    ends, tried = time.monotonic() + LONG / 4, 0
    while tried < 20 or time.monotonic() < ends:
        first = " and ".join(f"({part})" for part in chosen.sample(PARTS, chosen.randint(1, 2)))
        second = chosen.choice(("({0}) and ({1})", "({0}) or ({1})", "({0}) and not ({1})", "{1}"))
        try:
            sides = [compile_filter(text).conjuncts for text in (first, second.format(first, chosen.choice(PARTS)))]
        except FilterError:
            continue  # the parts contradict each other
        if max(map(len, sides)) <= 14:
            compare(formulas, *sides, seen)
            tried += 1
            if tried % 200 == 0:
                formulas = Formulas()
    if LONG:
        print(f"seed {seed}: {tried} pairs of filters: {dict(seen)}")
    assert seen["over the quota"] <= tried / 50
