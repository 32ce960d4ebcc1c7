# SPDX-License-Identifier: MIT
"""Many intervals under one key of the demux, coming and going, against a list that is searched from end to end."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from exonet.abi import check, lib
from exonet.filters.conjunct import Conjunct
from exonet.filters.span import Field, Interval
from tests.demux_box import Demux, Frame

AT, END = 4, 12
MANY = 400
PLACES = 3
Row = tuple[int, int, int, int]  # binding, low, high, breadth


class Line:
    """A demux of one shape and one key, and what it should say. The interval's field is at AT; the byte at END must
    not be `barred`, where that is given.
    """

    def __init__(self, size: int, barred: int | None = None) -> None:
        self.field = Field(0, AT, size)
        self.barred = barred
        self.demux = Demux(3)
        self.live: list[Row] = []
        excluded = [] if barred is None else [Field(0, END, 1).term(0xFF, barred)]
        made = Conjunct.of({0: (0xFF, 9)}, excluded, interval=Interval(self.field, 1, 2), frame_bytes=END + 1)
        assert made is not None
        self.box = made.to_native(0)

    def insert(self, row: Row) -> int:
        self.box.binding, self.box.interval.low, self.box.interval.high, self.box.breadth = row
        return int(lib.exo_demux_insert(self.demux.native, self.box))

    def add(self, row: Row) -> None:
        check(self.insert(row), f"{row}")
        self.live.append(row)

    def remove(self, binding: int) -> None:
        gone = [row for row in self.live if row[0] == binding]
        assert self.demux.remove(binding) == len(gone)
        self.live = [row for row in self.live if row[0] != binding]

    def rank(self, row: Row) -> tuple[int, int, int]:
        interval = Interval(self.field, row[1], row[2])
        return -interval.specificity, row[3], interval.size

    def takers(self, value: int) -> list[Row]:
        return sorted((row for row in self.live if row[1] <= value <= row[2]), key=self.rank)

    def frame(self, value: int, end: int = 0) -> Frame:
        data = bytearray(END + 1)
        data[0], data[END] = 9, end
        data[AT : AT + self.field.size] = value.to_bytes(self.field.size, "big")
        return bytes(data), len(data)

    def verify(self, values: list[int]) -> None:
        said = self.demux.classify([self.frame(value) for value in values])
        for value, owner in zip(values, said, strict=True):
            takers = self.takers(value)
            best = [row[0] for row in takers if self.rank(row) == self.rank(takers[0])]
            assert owner in best if takers else owner is None, (value, owner, takers)
        for value in values[:3]:
            rows = self.takers(value)
            found = self.demux.match_all(self.frame(value), 4096)
            assert sorted(found) == sorted({row[0] for row in rows})
            ranks = [min(self.rank(row) for row in rows if row[0] == binding) for binding in found]
            assert ranks == sorted(ranks)
            places, asked = self.demux.most_specific(self.frame(value), PLACES)
            assert asked == len(rows)
            for place, binding in enumerate(places):
                own = [self.rank(row) for row in rows if row[0] % PLACES == place]
                assert own[:1] == [self.rank(row) for row in rows if row[0] == binding][:1]
        if self.barred is not None:
            assert self.demux.classify([self.frame(value, self.barred) for value in values]) == [None] * len(values)
        assert self.demux.conjuncts == len(self.live)


def nested(chosen: random.Random, low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
    """Intervals within low..high that are disjoint or nested: some touch, share an end, or are one value."""
    cuts = sorted({chosen.randint(low, high) for _ in range(chosen.choice((2, 5, 30) if depth < 4 else (40,)))})
    if low < 32768 < high and chosen.random() < 0.5:
        yield from ((a, b) for a, b in ((32767, 32769),) if all(not a <= cut <= b for cut in cuts))
    ends = [low, *(cut for cut in cuts if abs(cut - 32768) > 2), high + 1]
    for start, stop in pairwise(ends):
        if chosen.random() < 0.7 and stop > start and not (start <= 32769 and stop > 32767 and low < 32768 < high):
            last = chosen.choice((stop - 1, max(start, stop - 2), start))
            yield start, last
            if depth and last > start + 1:
                yield from nested(chosen, start + chosen.randint(0, 1), last, depth - 1)


def edges(chosen: random.Random, line: Line) -> list[int]:
    most = line.field.most
    near = [
        row[1 + i] + d for row in chosen.sample(line.live, min(20, len(line.live))) for i in (0, 1) for d in (-1, 0, 1)
    ]
    values = [0, most, *near, *(chosen.randint(0, most) for _ in range(10))]
    found = sorted({min(max(value, 0), most) for value in values})
    chosen.shuffle(found)
    return found


@pytest.mark.parametrize("barred", [None, 7])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_r04_nested_intervals_that_come_and_go(size: int, barred: int | None) -> None:
    """Each binding another interval: whole fields, single values, across the middle, up to the last value."""
    chosen = random.Random(size)
    line = Line(size, barred)
    empty = line.demux.bytes
    most = line.field.most
    inner = sorted(set(nested(chosen, 1, most - 1, 3)))
    wanted = sorted({
        (0, most), (0, 0), (most, most), (most // 2, most // 2 + 1), *chosen.sample(inner, min(len(inner), MANY)),
    })  # fmt: skip
    apart = [(a, b) for a, b in wanted if not any(c < a <= d < b or a < c <= b < d for c, d in wanted)]
    laminar = [(n, a, b, chosen.randint(0, 2) + 3 * (a == b)) for n, (a, b) in enumerate(apart)]
    away = list(laminar)
    for step in range(3 * len(away)):
        if line.live and chosen.random() < (0.2 if step < len(laminar) else 0.6):
            gone = chosen.choice(line.live)
            line.remove(gone[0])
            away.append(gone)
        elif away:
            line.add(away.pop(chosen.randrange(len(away))))
        if step % 32 == 0 or step < 8:
            line.verify(edges(chosen, line))
    for row in list(line.live):
        line.remove(row[0])
        if row[0] % 32 == 0:
            line.verify(edges(chosen, line))
    assert line.demux.bytes <= empty + 8 * len(laminar) + 256 and line.demux.shapes == 0


@pytest.mark.parametrize("size", [1, 4])
def test_intervals_of_any_kind_that_come_and_go(size: int) -> None:
    """Overlapping in part, as one binding's may, and snoopers'; each breadth once, so that nobody ties."""
    chosen = random.Random(50 + size)
    line = Line(size)
    most = line.field.most
    for step in range(400):
        if line.live and chosen.random() < 0.4:
            line.remove(chosen.choice(line.live)[0])
        else:
            low, high = sorted(chosen.choice((chosen.randint(0, most), chosen.randint(0, 40), most)) for _ in range(2))
            line.add((step, low, high, step))
        if step % 8 == 0:
            line.verify(edges(chosen, line))


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_ten_thousand_intervals_within_one(order: str) -> None:
    """What the wide one has between them is found again when it goes and comes, and memory stays within its bound."""
    chosen = random.Random(order)
    line = Line(4)
    places = list(range(10_000))
    if order == "falling":
        places.reverse()
    if order == "shuffled":
        chosen.shuffle(places)
    rows = [(place, 1000 * place + 5, 1000 * place + 800, 1) for place in places]
    for row in rows:
        check(line.insert(row), "insert")
    assert line.demux.bytes / len(rows) <= 200
    wide = (20_000, 0, (1 << 32) - 1, 1)
    probes = [1000 * place + more for place in chosen.sample(places, 60) for more in (4, 5, 800, 801)]

    def owners() -> list[int | None]:
        return line.demux.classify([line.frame(value) for value in probes])

    inner = [value // 1000 if 5 <= value % 1000 <= 800 else None for value in probes]
    for _ in range(2):
        assert owners() == inner
        check(line.insert(wide), "the wide one")
        assert owners() == [20_000 if owner is None else owner for owner in inner]
        assert line.demux.remove(20_000) == 1
    check(line.insert(wide), "the wide one")
    for place in places:
        if place % 100:
            assert line.demux.remove(place) == 1
    kept = [owner if owner is not None and owner % 100 == 0 else 20_000 for owner in inner]
    assert owners() == kept
    assert line.demux.conjuncts == 101


def test_the_same_interval_twice() -> None:
    line = Line(2)
    rows = [(n, 10 * n, 10 * n + 9, 1) for n in range(1000)]
    for row in rows:
        line.add(row)
    held, changes = line.demux.bytes, lib.exo_demux_changes(line.demux.native)
    for row in rows[::50]:
        assert line.insert(row) == 0
        assert line.insert(((row[0] + 1) % 1000, *row[1:])) == lib.EXO_E_CONFLICT
    assert (line.demux.conjuncts, lib.exo_demux_changes(line.demux.native)) == (1000, changes)
    assert line.demux.bytes <= held + 512
    line.verify([5, 500, 9999, 10_000])
    for n in range(1000, 1500):  # group frames: their breadth tells them apart
        line.add((n, 100, 9999, n))
    assert len(line.demux.match_all(line.frame(150), 4096)) == 501


def test_one_within_that_lost_to_a_wider_of_its_size_inherits() -> None:
    """Large intervals of nearly one size fix equally many bits, and then breadth decides."""
    line = Line(4)
    top = 3 << 29
    line.add((0, 1, top - 1, 5))
    line.add((1, 0, top, 1))
    line.add((2, 1 << 30, (1 << 30) + 1, 9))
    values = [0, 1, 1 << 30, top]
    line.verify(values)
    assert line.demux.classify([line.frame(value) for value in values]) == [1, 1, 2, 1]
    line.remove(1)
    line.verify(values)


def overlapping(many: int) -> list[Row]:
    """Each begins behind the one before it and is wider: in order of their beginnings the narrowest comes first."""
    return [(n, n, (1 << 24) + 3 * n, 1) for n in range(many)]


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_takers_of_every_order_come_narrowest_first(order: str) -> None:
    for many in (1, 2, 3, 7, 8, 9, 100):
        line = Line(4)
        rows = overlapping(many)
        if order == "falling":
            rows = [(n, many - n, (1 << 24) - 3 * n, 1) for n in range(many)]
        if order == "shuffled":
            random.Random(many).shuffle(rows)
        for row in rows:
            line.add(row)
        wanted = [row[0] for row in line.takers(1 << 20)]
        assert line.demux.match_all(line.frame(1 << 20), 4096) == wanted and len(wanted) == many
        fewer = [row[0] for row in line.takers(many // 2)]  # the chain made for one frame is no part of the next one's
        assert line.demux.match_all(line.frame(many // 2), 4096) == fewer


def test_so_many_takers_that_only_their_number_may_count() -> None:
    """Each is asked once; a chain made by insertion would take 1.8 thousand million steps here."""
    line = Line(4)
    for row in overlapping(60_000):
        check(line.insert((0, *row[1:])), "insert")
    assert line.demux.match_all(line.frame(1 << 20), 1) == [0]
    assert line.demux.most_specific(line.frame(1 << 20), 1) == ([0], 60_000)


def test_the_narrowest_that_excludes_a_frame_leaves_it_to_the_next() -> None:
    chosen = random.Random(9)
    field = Field(0, AT, 2)
    line = Line(2)
    rows = []
    for n in range(300):
        low, high = chosen.randint(0, 30_000), chosen.randint(30_000, 65_535)
        barred = (n // 60, n % 7)[n % 2]
        made = Conjunct.of(
            {0: (0xFF, 9)},
            [Field(0, END, 1).term(0xFF, barred)],
            interval=Interval(field, low, high),
            frame_bytes=END + 1,
        )
        assert made is not None
        box = made.to_native(n)
        box.breadth = n
        check(int(lib.exo_demux_insert(line.demux.native, box)), "insert")
        rows.append((barred, (n, low, high, n)))
    assert line.demux.shapes == 1
    for end in range(9):
        values = [chosen.randint(0, 65_535) for _ in range(200)]
        wanted = []
        for value in values:
            takers = [row for barred, row in rows if barred != end and row[1] <= value <= row[2]]
            wanted.append(min(takers, key=line.rank)[0] if takers else None)
        assert line.demux.classify([line.frame(value, end) for value in values]) == wanted
        for value, winner in zip(values[:20], wanted, strict=False):
            assert line.demux.most_specific(line.frame(value, end), 1)[0] == [winner]
            assert line.demux.match_all(line.frame(value, end), 4096)[:1] == [n for n in [winner] if n is not None]
