# SPDX-License-Identifier: MIT
"""Intervals: what they take, how they lie to each other, and who wins, by brute force, libpcap, the demux."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exonet.errors import FilterError
from exonet.filters import simplify
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct, apart
from exonet.filters.form import shape_of
from exonet.filters.libpcap import Libpcap
from exonet.filters.region import Kind, difference, relation, separate
from exonet.filters.span import LENGTH, LENGTH_FIELD, Field, Interval, log2_fixed
from exonet.filters.walk import Walk
from tests.demux_box import Demux, Frame, kind_of, made_frames
from tests.effort import tries
from tests.filter_list import DECOMPOSE

# A small space of headers, to which every conjunct is fixed: byte 0 is 0..3, an IPv4 header begins at byte 1 whose low
# nibble is 0..3, the two bytes after it are 0 or 1 each (where nothing looks at them, 2 stands for all the rest), the
# length on the wire is 20..23. All other bytes are free, and nothing looks at them.
AT = 1
FRAME_MASK, AFTER_MASK, LENGTH_MASK, LENGTH_VALUE = 0xFCFC, 0xFEFE, 0xFFFFFFFC, 20


def small_frames() -> list[Frame]:
    found = []
    for first, nibble, a, b in product(range(4), range(4), range(3), range(3)):
        end = AT + 4 * nibble
        data = bytearray(16)
        data[end], data[end + 1] = a, b
        data[0], data[1] = first, data[1] | nibble
        if data[1] & 15 == nibble:
            found += [(bytes(data[:n]), w) for n in {0, 1, 2, 6, 7, end, end + 1, end + 2, 16} for w in range(20, 24)]
    return list(dict.fromkeys(found))


SMALL = small_frames()
FIELDS = (
    Field(0, 0, 1),
    Field(0, 1, 1),
    Field(0, 0, 2),
    Field(AT, 0, 1),
    Field(AT, 0, 2),
    Field(AT, 1, 1),
    LENGTH_FIELD,
)


def random_interval(chosen: random.Random) -> Interval:
    field = chosen.choice(FIELDS)
    values = (
        list(range(19, 25))
        if field is LENGTH_FIELD
        else [a << 8 | b for a in (range(4) if field.size == 2 else (0,)) for b in range(4)]
    )
    low, high = sorted((chosen.choice(values), chosen.choice(values)))
    return Interval(field, low, high)


def random_conjunct(chosen: random.Random) -> Conjunct | None:
    """Within the small space, so that its frames are all there are."""
    bits = {0: (FRAME_MASK, 0), LENGTH: (LENGTH_MASK, LENGTH_VALUE)}
    after = chosen.random() < 0.6
    if after:
        bits[AT] = (AFTER_MASK, 0)
    for _ in range(chosen.randint(0, 2)):
        space, bit = chosen.choice(
            ((0, 1), (0, 2), (0, 0x100), (0, 0x200), (LENGTH, 1), (LENGTH, 2), *(((AT, 1), (AT, 0x100)) * after))
        )
        mask, value = bits[space]
        bits[space] = (mask | bit, value | bit * chosen.randint(0, 1))
    excluded = [
        chosen.choice(((0, 3, chosen.randrange(4)), (0, 0x301, 0x101), (LENGTH, 0xFF, 21), (LENGTH, 1, 0)))
        for _ in range(chosen.choice((0, 0, 1, 2)))
    ]
    interval = random_interval(chosen) if chosen.random() < 0.8 else None
    if interval and interval.field.space == AT and not after:
        interval = None
    guard = chosen.choice((0, 0, 2, 7))
    return Conjunct.of(bits, excluded, interval=interval, frame_bytes=guard, ip4_at=AT, breadth=chosen.randint(1, 4))


def taken(conjuncts: Sequence[Conjunct]) -> set[Frame]:
    return {frame for frame in SMALL if any(conjunct.matches(*frame) for conjunct in conjuncts)}


@pytest.mark.parametrize("seed", range(4))
def test_a_conjunct_takes_what_it_was_made_of(seed: int) -> None:
    """`of` reduces box, interval and exclusions by each other; pieces are disjoint, and together the same."""
    chosen = random.Random(seed)
    for _ in range(tries(80)):
        interval = random_interval(chosen)
        field = interval.field
        mask = chosen.choice((0, 0xFF, 0xF0, 0xC0, 0xFE, 1, 2, 0x82, 0xFCFC, 0xFC00)) & field.most
        known = field.term(mask, chosen.getrandbits(4) & mask)
        terms = [chosen.choice((mask | 1, 0xFF, 0xFE, 3, 0xC0)) & field.most for _ in range(chosen.randint(0, 3))]
        excluded = [field.term(m, chosen.getrandbits(6) & m) for m in terms]
        made = Conjunct.of({known[0]: known[1:]} if mask else {}, excluded, interval=interval, ip4_at=AT)
        box = Conjunct.of({known[0]: known[1:]} if mask else {}, excluded, ip4_at=AT)
        pieces = made.plain() if made else ()
        assert all(piece.interval is None for piece in pieces)
        assert not made or made.plain()
        again = made and Conjunct.of(
            made.known, made.excluded, interval=made.interval, frame_bytes=made.frame_bytes,
            ip4_bytes=made.ip4_bytes, ip4_at=made.ip4_at,
        )  # fmt: skip
        assert again == made
        for data, wire_len in SMALL:
            end = AT + 4 * (data[1] & 15) if len(data) > 1 else 99
            start = field.offset + (end if field.space == AT else 0)
            there = field is LENGTH_FIELD or start + field.size <= len(data)
            number = wire_len if field is LENGTH_FIELD else int.from_bytes(data[start : start + field.size], "big")
            wanted = (
                there and interval.low <= number <= interval.high and box is not None and box.matches(data, wire_len)
            )
            assert (made is not None and made.matches(data, wire_len)) == wanted
            assert sum(piece.matches(data, wire_len) for piece in pieces) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_r04_relation_of_intervals_equals_brute_force(seed: int) -> None:
    chosen = random.Random(seed)
    seen = set()
    for _ in range(tries(25)):
        a, b = ([c for _ in range(chosen.randint(1, 3)) if (c := random_conjunct(chosen))] for _ in range(2))
        in_a, in_b = taken(a), taken(b)
        if not in_a or not in_b:
            continue
        wanted = kind_of(in_a, in_b)
        found = relation(a, b)
        assert found.kind is wanted, (a, b)
        seen.add(wanted)
        if found.example:
            frame = found.example.frame, found.example.wire_len
            assert all(any(c.matches(*frame) for c in side) for side in (a, b))
        for one, other in product(a, b):
            both = taken([one]) & taken([other])
            assert not (apart(one, other) and both)
            assert not one.contains(other) or taken([other]) <= taken([one])
    assert len(seen) > 2


@pytest.mark.parametrize("seed", range(4))
def test_r04_the_inner_binding_wins_everywhere(seed: int) -> None:
    """Random nested filters of intervals and masks, with breadths at random: the demux answers as the sets do."""
    chosen = random.Random(seed)
    tried = 0
    while tried < tries(6):
        outer = [c for _ in range(chosen.randint(1, 4)) if (c := random_conjunct(chosen))]
        inner = [c for _ in range(chosen.randint(1, 3)) if (c := random_conjunct(chosen))]
        whole, part = taken(outer), taken(inner)
        if not part or not part < whole or relation(inner, outer).kind is not Kind.INSIDE:
            continue
        tried += 1
        bound = separate(inner, outer)
        for order in ((1, 2), (2, 1)):
            demux = Demux(seed)
            for binding in order:
                demux.bind(binding, outer if binding == 1 else bound)
            wanted = [2 if frame in part else 1 if frame in whole else None for frame in SMALL]
            assert demux.classify(SMALL) == wanted, (inner, outer)


def close_sizes(chosen: random.Random) -> tuple[int, int]:
    size = chosen.choice((1, 2, 3, 255, 65535, 65536, 1 << 31, (1 << 32) - 1, chosen.randrange(1, 1 << 32)))
    return size, min(max(size + chosen.choice((-40000, -9, -1, 0, 1, 2, 9, 40000)), 1), 1 << 32)


def test_r04_the_demux_orders_by_rank() -> None:
    """Intervals of one field (one shape) and of two (two shapes), of nearly the same size, in either order."""
    chosen = random.Random(4)
    fields = Field(0, 0, 4), Field(0, 4, 4)
    decided = {True: 0, False: 0}
    for _ in range(3000):
        sizes = close_sizes(chosen)
        same = chosen.random() < 0.5
        pair = []
        for i, size in enumerate(sizes):
            interval = Interval(fields[0 if same else i], 0, size - 1)
            made = Conjunct.of({0: (1 << 64, 0)}, interval=interval, frame_bytes=9, breadth=chosen.randint(1, 2))
            assert made is not None
            pair.append(made)
        if pair[0].rank == pair[1].rank or (not same and pair[0].rank[:2] == pair[1].rank[:2]):
            continue
        decided[same] += 1
        demux = Demux()
        for binding in chosen.choice(((0, 1), (1, 0))):
            demux.bind(binding, [pair[binding]])
        winner = 0 if pair[0].rank < pair[1].rank else 1
        assert demux.classify([(bytes(9), 9)]) == [winner], (sizes, pair)
        assert demux.shapes > 1 or demux.match_all((bytes(9), 9))[0] == winner
    assert min(decided.values()) > 300


def test_sizes_of_a_port_interval_all_differ_in_specificity() -> None:
    found = [log2_fixed(size) for size in range(1, 65537)]
    assert all(a < b for a, b in pairwise(found))
    assert [log2_fixed(1 << n) for n in range(33)] == [n << 16 for n in range(33)]


@st.composite
def ranges(draw: st.DrawFn) -> str:
    """A range, or a network, or two of them with a condition between."""

    def one() -> str:
        low = draw(st.sampled_from((0, 1, 5, 64, 1000, 1023, 1024, 32768, 65535)))
        high = min(low + draw(st.sampled_from((0, 1, 6, 63, 64, 1000, 40000))), 65535)
        return draw(st.sampled_from((
            f"udp dst portrange {low}-{high}", f"tcp portrange {low}-{high}", f"src portrange {low}-{high}",
            f"net 10.0.0.0/{draw(st.integers(7, 31))}", f"ip dst net 10.0.0.2/{draw(st.sampled_from((31, 32)))}",
            f"ip6 src net 2001:db8::/{draw(st.integers(32, 63))}", f"len >= {low} and len <= {high}",
            f"greater {low}", f"less {high}", f"udp[2:2] > {low}", f"tcp[0:2] <= {high}", f"ip[8] < {low & 255}",
            f"arp[24:4] >= {0x0A000000 + low}", f"ip[12:4] > {0x0A000000 + (low & 3)}", f"udp[2:2] - {low & 15} > 30",
        )))  # fmt: skip

    text = one()
    for _ in range(draw(st.integers(0, 2))):
        text = f"({text}) {draw(st.sampled_from(('and', 'or', 'and not', 'or not')))} ({one()})"
    return text


def edges() -> list[Frame]:
    """Frames whose ports and lengths lie at the ends of the ranges above."""
    ports = sorted({p + d & 0xFFFF for p in (0, 1, 5, 64, 1000, 1023, 1024, 32768, 65535) for d in (-1, 0, 1, 7, 64)})
    found = []
    for data, _ in made_frames()[:40]:
        start = 54 if data[12:14] == b"\x86\xdd" else 14 + 4 * (data[14] & 15)
        if len(data) >= start + 4:
            for port in ports[:: len(ports) // 6]:
                changed = data[:start] + port.to_bytes(2, "big") + ports[-port % len(ports)].to_bytes(2, "big")
                found.append((changed + data[start + 4 :], chosen_length(port, len(data))))
    return found + made_frames()


def chosen_length(port: int, least: int) -> int:
    return max(port, least)


EDGES = edges()


@given(text=ranges())
@settings(max_examples=tries(25))
def test_r05_ranges_equal_libpcap(text: str) -> None:
    try:
        program, compiled = Libpcap().compile(text), compile_filter(text)
    except FilterError:
        return
    demux = Demux()
    demux.bind(0, compiled.conjuncts)
    wanted = [program.matches(*frame) for frame in EDGES]
    assert [compiled.matches(*frame) for frame in EDGES] == wanted
    assert [owner == 0 for owner in demux.classify(EDGES)] == wanted
    assert [any(p.matches(*f) for c in compiled.conjuncts for p in c.plain()) for f in EDGES] == wanted


@pytest.mark.parametrize("text", DECOMPOSE)
def test_the_pass_to_intervals_changes_no_frame(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly: neither side takes a frame that the other does not."""
    program = Libpcap().compile(text)
    after = simplify.simplify(Walk(program.instructions))
    monkeypatch.setattr(simplify, "with_intervals", lambda conjuncts, steps, notes: list(conjuncts))
    before = simplify.simplify(Walk(program.instructions))
    assert len(after) <= len(before)
    assert difference(before, after) is None
    assert difference(after, before) is None


SEVERAL_RANGES = (
    "not udp portrange 100-200", "tcp and not portrange 64-1000", "not tcp portrange 6000-6008", "not portrange 1-5",
    "udp src portrange 1-1000 and dst portrange 64-1023", "(src portrange 5-70 or len > 64) and dst portrange 6-1024",
    "tcp src portrange 5-70 and dst portrange 6-1024 and not src port 64", "ip[2:2] > 70 and src portrange 5-70",
    "udp portrange 1000-2000 and not udp portrange 1500-1600", "udp and not portrange 64-70 and not portrange 5-6",
    "tcp and not (port 64 or port 1000 or portrange 1023-1024)", "udp portrange 1-1023 and not udp portrange 64-90",
    "ip and tcp and not portrange 64-70 and not src port 5", "not (tcp portrange 5-6 or udp portrange 64-70)",
)  # fmt: skip


@pytest.mark.parametrize("text", SEVERAL_RANGES)
def test_of_several_ranges_few_become_prefixes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the frames, and no more conjuncts, than of prefixes of all; in fewer steps."""
    program = Libpcap().compile(text)
    walk = Walk(program.instructions)
    after = simplify.simplify(walk)
    monkeypatch.setattr(simplify, "whole_range", lambda path: (path, None))
    monkeypatch.setattr(simplify, "with_holes", list)
    slow = Walk(program.instructions)
    slow.steps.most = 1 << 20
    before = simplify.simplify(slow)
    assert len(after) <= len(before) and walk.steps.taken < slow.steps.taken
    assert difference(before, after) is None and difference(after, before) is None
    demux = Demux()
    demux.bind(0, after)
    wanted = [program.matches(*frame) for frame in EDGES]
    assert [owner == 0 for owner in demux.classify(EDGES)] == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("not portrange 1000-2000", "tcp and not (port 22 or port 80 or port 443 or portrange 8000-9000)"),
        *("udp portrange 1000-2000 and not udp portrange 1500-1600", "not (portrange 60-70 or host 10.0.0.1)"),
        *("tcp and not portrange 8000-9000 and not portrange 100-200", "not udp portrange 100-200 and not arp"),
    ],
)
def test_a_range_that_is_excluded_fits_the_quotas(text: str) -> None:
    compiled, program = compile_filter(text), Libpcap().compile(text)
    assert len({shape_of(conjunct) for conjunct in compiled.conjuncts}) <= 16
    assert [compiled.matches(*frame) for frame in EDGES] == [program.matches(*frame) for frame in EDGES]


def test_r04_narrower_intervals_win_at_the_ports_edges() -> None:
    """`separate` where the inner is the larger interval of another field, and where both cut one."""
    outer = compile_filter("tcp dst portrange 1000-1003 or udp dst portrange 100-5000").conjuncts
    inner = compile_filter("(tcp dst portrange 1000-1003 and src portrange 1-40000) or udp dst portrange 100-3000")
    bound = separate(inner.conjuncts, outer)
    for order in ((1, 2), (2, 1)):
        demux = Demux()
        for binding in order:
            demux.bind(binding, outer if binding == 1 else bound)
        programs = [
            Libpcap().compile(text)
            for text in (inner.text, "tcp dst portrange 1000-1003 or udp dst portrange 100-5000")
        ]
        for frame, owner in zip(EDGES, demux.classify(EDGES), strict=True):
            wanted = 2 if programs[0].matches(*frame) else 1 if programs[1].matches(*frame) else None
            assert owner == wanted


def test_equal_sets_by_interval_and_box_are_one_object() -> None:
    field = Field(0, 2, 2)
    prefix = field.term(0xFF00, 0x0100)
    one = Conjunct.of({0: prefix[1:]}, interval=Interval(field, 0x80, 0x17F))
    other = Conjunct.of({}, interval=Interval(field, 0x100, 0x17F))
    assert one == other and hash(one) == hash(other)
    assert other is not None and other != replace(other, interval=None)
    assert Conjunct.of({}, interval=Interval(field, 7, 7)) == Conjunct.of({0: field.term(0xFFFF, 7)[1:]})
    assert Conjunct.of({}, interval=Interval(field, 0, 0xFFFF)) == Conjunct.of({}, frame_bytes=4)
    assert Conjunct.of({}, [field.term(0xFFFF, 0)], interval=Interval(field, 0, 9)) == Conjunct.of(
        {}, interval=Interval(field, 1, 9)
    )
    assert Conjunct.of({0: prefix[1:]}, interval=Interval(field, 0x200, 0x300)) is None
