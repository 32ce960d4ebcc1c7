# SPDX-License-Identifier: MIT
"""Regions: containment, overlap, R4's relation of two bindings, example frames, and what makes a nested filter win."""

import random
from dataclasses import replace
from itertools import product

import pytest

from exonet.abi import lib
from exonet.errors import ExhaustedError
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from exonet.filters.libpcap import Libpcap
from exonet.filters.region import Kind, Region, difference, overlap, relation, separate
from exonet.filters.remedy import remedy
from exonet.filters.solve import solve
from exonet.kernel.regions import taker
from tests.demux_box import Demux, kind_of

RELATIONS = (
    ("tcp port 80", "udp port 53", Kind.DISJOINT),
    ("tcp dst port 80", "tcp dst port 81", Kind.DISJOINT),
    ("tcp dst port 80", "tcp src port 80", Kind.PARTIAL),
    ("udp port 53", "udp dst port 53", Kind.AROUND),
    ("tcp port 80 and host 10.0.0.1", "tcp port 80", Kind.INSIDE),
    ("tcp port 80", "host 10.0.0.1", Kind.PARTIAL),
    ("tcp port 80", "", Kind.INSIDE),
    ("ip or arp", "ip", Kind.AROUND),
    ("ip", "ip6", Kind.DISJOINT),
    ("ip src net 10.0.0.0/8", "ip src net 10.1.0.0/16", Kind.AROUND),
    ("ip src net 10.0.0.0/8", "ip src net 11.0.0.0/8", Kind.DISJOINT),
    ("udp dst portrange 1000-2000", "udp dst portrange 1500-1600", Kind.AROUND),
    ("udp dst portrange 1000-2000", "udp dst portrange 1500-2500", Kind.PARTIAL),
    ("udp dst portrange 1000-2000", "udp dst portrange 2001-2500", Kind.DISJOINT),
    ("udp dst portrange 1000-2000", "udp dst portrange 1000-1500 or udp dst portrange 1501-2000", Kind.EQUAL),
    ("vlan and udp port 53", "udp port 53", Kind.DISJOINT),
    ("vlan 5 and udp port 53", "vlan and udp port 53", Kind.INSIDE),
    ("less 40", "ip6 and tcp dst port 80", Kind.DISJOINT),
    ("less 100", "tcp dst port 80", Kind.PARTIAL),
    ("len = 100", "less 100", Kind.INSIDE),
    ("tcp[2:2] != 80", "tcp[2:2] & 1 = 1", Kind.AROUND),
    ("tcp dst port 80 and not src net 10.0.0.0/8", "tcp dst port 80 and src net 10.0.0.0/8", Kind.DISJOINT),
    # absolute and relative offsets that are the same bytes when the header has no options
    ("tcp dst port 80", "ether[36:2] = 81", Kind.PARTIAL),
    ("tcp[2:2] = 80", "ip[0] = 0x45 and ip[9] = 6 and ip[6:2] & 0x1fff = 0 and ether[36:2] = 80", Kind.AROUND),
    ("tcp[2:2] = 80", "ip[0] = 0x45 and ip[9] = 6 and ip[6:2] & 0x1fff = 0 and ether[36:2] = 81", Kind.DISJOINT),
    ("tcp[2:2] = 80", "ip[0] & 15 = 6 and ether[36:2] = 81 and tcp[2:2] = 80", Kind.AROUND),
)


@pytest.mark.parametrize(("one", "other", "kind"), RELATIONS)
def test_r04_relation_of_two_filters(one, other, kind):
    a, b = compile_filter(one), compile_filter(other)
    found = relation(a.conjuncts, b.conjuncts)
    assert found.kind is kind
    mirrored = {Kind.INSIDE: Kind.AROUND, Kind.AROUND: Kind.INSIDE}
    assert relation(b.conjuncts, a.conjuncts).kind is mirrored.get(kind, kind)
    assert (found.example is None) == (kind is Kind.DISJOINT)
    if found.example:
        for filter_ in (one, other):
            assert Libpcap().compile(filter_).matches(found.example.frame, found.example.wire_len)


@pytest.mark.parametrize(("one", "other", "kind"), [r for r in RELATIONS if r[2] is Kind.PARTIAL])
def test_r04_the_remedy_is_disjoint_from_the_holder(one, other, kind):
    a, b = compile_filter(one), compile_filter(remedy(other, one))
    assert relation(a.conjuncts, b.conjuncts).kind is Kind.DISJOINT


@pytest.mark.parametrize(("one", "other", "kind"), [r for r in RELATIONS if r[2] is not Kind.DISJOINT])
def test_r04_the_scapy_expression_builds_a_frame_that_both_take(one, other, kind):
    scapy = pytest.importorskip("scapy.all")
    found = overlap(compile_filter(one).conjuncts, compile_filter(other).conjuncts)
    assert found is not None
    frame = bytes(eval(found.scapy, vars(scapy)))
    for filter_ in (one, other):
        assert Libpcap().compile(filter_).matches(frame), found.scapy


@pytest.mark.parametrize(
    ("one", "other", "sure"),
    [
        ("ip[12:4] = ip[16:4]", "(tcp port 80) and not (ip[12:4] = ip[16:4])", False),
        ("ip[12:4] = ip[16:4] and tcp", "tcp", True),
        ("ip[8] % 3 = 1 and ip[2:2] % 7 = 2", "udp", False),
    ],
)
def test_r04_an_example_says_where_a_program_decides(one: str, other: str, sure: bool) -> None:
    first, second = compile_filter(one), compile_filter(other)
    found = overlap(first.conjuncts, second.conjuncts)
    assert found is not None
    takes = [Libpcap().compile(text).matches(found.frame, found.wire_len) for text in (one, other)]
    assert (all(takes), found.scapy.endswith("(as far as is known without its program)")) == (sure, not sure)
    for filter_ in (first, second):
        assert taker(filter_.conjuncts, found).startswith("conjunct ")


@pytest.mark.parametrize(("text", "layers"), (
    ("tcp dst port 80 and ip", "/IP(src=\"10.0.0.1\", dst=\"10.0.0.2\", proto=6)/TCP(sport=1024, dport=80"),
    ("udp dst port 53 and ip6", "/IPv6(src=\"fd00::1\", dst=\"fd00::2\", nh=17)/UDP(sport=1024, dport=53)"),
    ("icmp[0] = 8", "/ICMP(type=8, code=0)"),
    ("ip[8] = 3", "Ether(bytes.fromhex("),
    ("arp", "Ether(bytes.fromhex("),
))  # fmt: skip
def test_examples_are_spelled_in_layers_where_scapy_would_agree(text, layers):
    conjuncts = compile_filter(text).conjuncts
    found = overlap(conjuncts, conjuncts)
    assert found is not None and layers in found.scapy


def test_r13_regions_cover_what_lies_inside():
    region = Region.of(compile_filter("host 10.0.0.1"))
    assert region.covers(compile_filter("tcp port 80 and ip host 10.0.0.1").conjuncts)
    outside = region.uncovered(compile_filter("tcp port 80").conjuncts)
    assert outside is not None and "tcp" in str(outside)
    assert Region.everything().covers(compile_filter("not tcp").conjuncts)
    assert not Region.nothing().covers(compile_filter("tcp").conjuncts)
    assert Region.nothing().covers(())
    assert str(Region.nothing()) == "nothing" and str(Region.everything()) == "(everything)"


def test_r13_a_union_of_regions_covers_what_no_part_does():
    low, high = (Region.of(compile_filter(f"udp dst portrange {r}")) for r in ("1000-1499", "1500-2000"))
    wanted = compile_filter("udp dst portrange 1400-1600").conjuncts
    assert not low.covers(wanted) and not high.covers(wanted)
    assert low.union(high).covers(wanted)
    assert low.overlap(high) is None
    assert low.union(high).overlap(high) is not None


def test_r13_a_shorter_frame_lies_outside_a_longer_guard():
    short, long = compile_filter("ether[0] = 1").conjuncts, compile_filter("ether[0] = 1 and ether[40] >= 0").conjuncts
    assert relation(long, short).kind is Kind.INSIDE
    found = difference(short, long)
    assert found is not None and len(found.frame) <= 40
    assert difference(long, short) is None


def test_r13_a_frame_too_short_for_an_ip_header_lies_outside_what_looks_behind_one():
    """`wanted` looks at no header, and some of its frames end before the byte that says how long one is."""
    wanted = Conjunct.of({0: (1, 1)})
    long = Conjunct.of({}, frame_bytes=15)
    behind = Conjunct.of({0: (0xFF << 8 * 23, 6 << 8 * 23), 14: (0xFF, 80)}, frame_bytes=60)
    tagged = Conjunct.of({18: (0xFF, 80)}, frame_bytes=60, ip4_at=18)
    assert wanted and long and behind and tagged
    for outside in ((long, behind), (long, behind, tagged), (long, tagged)):
        assert not Region(outside).covers([wanted])
        found = difference([wanted], outside)
        assert found is not None and 0 < len(found.frame) < 15
    between = Conjunct.of({}, frame_bytes=18)
    longer = Conjunct.of({0: (0xFF << 8 * 14, 0x45 << 8 * 14)}, frame_bytes=16)
    assert between and longer
    found = difference([longer], (between, behind, tagged))
    assert found is not None and len(found.frame) in (16, 17)
    assert Region((long, behind)).covers([longer])


def test_the_example_of_a_difference_may_end_before_the_bits_that_matter():
    wanted, outside = Conjunct.of({}), Conjunct.of({0: (1 << 8 * 40, 0)}, frame_bytes=60)
    assert wanted and outside
    found = difference([wanted], [outside])
    assert found is not None and wanted.matches(found.frame) and not outside.matches(found.frame)


def test_the_quota_refuses_instead_of_guessing():
    chosen = random.Random(3)
    cubes = []
    for _ in range(400):
        mask = sum(1 << chosen.randrange(200) for _ in range(12))
        cube = Conjunct.of({0: (mask, chosen.getrandbits(200) & mask)}, frame_bytes=25)
        assert cube is not None
        cubes.append(cube)
    with pytest.raises(ExhaustedError, match="region check"):
        solve((Conjunct.of({}, frame_bytes=25) or cubes[0],), cubes, quota=20)
    whole, easy = Conjunct.of({}, frame_bytes=25), cubes[-1]
    assert whole is not None
    for refused in ([whole], [easy, whole], [whole, easy]):
        with pytest.raises(ExhaustedError, match=r"conjunct \(at least 25 bytes\): region check"):
            Region(tuple(cubes)).covers(refused, quota=20)
    many = tuple(cubes[0] for _ in range(1001))
    with pytest.raises(ExhaustedError, match="pairs"):
        overlap(many, many)


def test_r04_separate_lets_the_narrower_win_where_mask_bits_would_not():
    outer = compile_filter(" or ".join(f"tcp[2:2] = {port}" for port in (1, 3, 5, 7, 9))).conjuncts
    inner = compile_filter("tcp[2:2] & 0xfff9 = 1").conjuncts
    assert relation(inner, outer).kind is Kind.INSIDE
    assert inner[0].specificity < outer[0].specificity
    bound = separate(inner, outer)
    assert len(bound) == 5
    for order in ((1, 2), (2, 1)):
        demux = Demux()
        for binding in order:
            demux.bind(binding, outer if binding == 1 else bound)
        for port in range(12):
            frame = bytes(12) + b"\x08\0\x45" + bytes(8) + b"\6" + bytes(12) + port.to_bytes(2, "big")
            wanted = 2 if port in (1, 3, 5, 7) else 1 if port == 9 else None
            assert demux.classify([(frame, len(frame))]) == [wanted], port


def test_r04_separate_adds_nothing_to_what_wins_anyhow():
    outer = compile_filter("tcp port 80").conjuncts
    inner = compile_filter("tcp port 80 and ip host 10.0.0.1").conjuncts
    assert separate(inner, outer) == inner


def test_r04_separate_settles_equal_boxes_of_equal_breadth():
    outer = compile_filter("udp dst port 53").conjuncts
    inner = tuple(replace(conjunct, breadth=outer[0].breadth) for conjunct in outer[:1])
    demux = Demux()
    demux.bind(1, outer)
    assert demux.insert(2, inner[0]) == lib.EXO_E_CONFLICT
    demux.bind(2, separate(inner, outer))
    found = overlap(inner, inner)
    assert found is not None
    assert demux.classify([(found.frame, found.wire_len)]) == [2]


def _random_conjunct(chosen: random.Random) -> Conjunct | None:
    """A box over a few bits around a short header at byte 1, so that absolute and relative offsets meet."""
    frame = [1 << 0, 1 << 1, 1 << 8, 1 << 9, 1 << 40, 1 << 48]
    after = [1 << 0, 1 << 8]
    mask = sum(chosen.sample(frame, chosen.randint(0, 3)))
    bits = {0: (mask, chosen.getrandbits(64) & mask)}
    if chosen.random() < 0.6:
        mask = sum(chosen.sample(after, chosen.randint(1, 2)))
        bits[1] = (mask, chosen.getrandbits(16) & mask)
    excluded = []
    for _ in range(chosen.randint(0, 2)):
        space = chosen.choice((0, 1)) if 1 in bits else 0
        mask = sum(chosen.sample(after if space else frame, chosen.randint(1, 2)))
        excluded.append((space, mask, chosen.getrandbits(64) & mask))
    return Conjunct.of(bits, excluded, frame_bytes=chosen.choice((0, 0, 3, 7, 9)), ip4_at=1)


def _small_frames() -> list[bytes]:
    frames = []
    for nibble in range(8):
        end = 1 + 4 * nibble
        for low, *rest in product(range(4), *([(0, 1)] * 4)):
            data = bytearray(34)
            data[0], data[1] = low, nibble
            for position, bit in zip((5, 6, end, end + 1), rest, strict=True):
                if position > 1:
                    data[position] |= bit
            frames += [bytes(data[:length]) for length in {0, 1, 2, 3, 6, 7, 8, 9, end, end + 1, end + 2, 34}]
    return list(dict.fromkeys(frames))


def test_relation_equals_brute_force_on_a_small_header_space():
    chosen = random.Random(11)
    frames = _small_frames()
    seen = set()
    for _ in range(120):
        a, b = ([c for _ in range(chosen.randint(1, 3)) if (c := _random_conjunct(chosen))] for _ in range(2))
        if not a or not b:
            continue
        in_a, in_b = ({f for f in frames if any(c.matches(f) for c in side)} for side in (a, b))
        if not in_a or not in_b:
            continue
        wanted = kind_of(in_a, in_b)
        found = relation(a, b)
        assert found.kind is wanted, (a, b)
        seen.add(wanted)
        if found.example:
            assert all(any(c.matches(found.example.frame) for c in side) for side in (a, b))
    assert seen >= {Kind.DISJOINT, Kind.INSIDE, Kind.AROUND, Kind.PARTIAL}
