# SPDX-License-Identifier: MIT
"""The table-driven demux: bind, unbind, refusals, quotas, bursts."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from exonet.abi import NO_OWNER, ffi, lib
from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from exonet.filters.libpcap import Libpcap
from exonet.filters.reference import Reference
from tests.demux_box import Demux, Frame, burst, made_frames


def udp(dport: int, source: str = "10.0.0.1", sport: int = 1024) -> tuple[bytes, int]:
    address = bytes(int(part) for part in source.split("."))
    header = bytes.fromhex("4500001c000100004011 0000".replace(" ", "")) + address + bytes((10, 0, 0, 2))
    ether = bytes.fromhex("0200000000020200000000010800")
    frame = ether + header + sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + b"\0\x08\0\0"
    return frame, len(frame)


def box(mask: int, value: int, **guards: int) -> Conjunct:
    made = Conjunct.of({0: (mask, value)}, **guards)
    assert made is not None
    return made


def native(**fields: object) -> object:
    made = ffi.new("struct exo_conjunct *")
    atoms = fields.pop("atom", ())
    for name, value in fields.items():
        setattr(made, name, value)
    for i, atom in enumerate(atoms):
        made.atom[i] = atom
    return made


def test_r01_an_empty_demux_claims_nothing():
    demux = Demux()
    assert demux.classify(made_frames()) == [None] * len(made_frames())
    assert demux.classify([]) == []
    assert demux.remove(5) == 0
    assert (demux.shapes, demux.conjuncts) == (0, 0)
    assert lib.EXO_NO_OWNER == NO_OWNER == 2**32 - 1


def test_r01_a_frame_has_one_owner_and_an_unbound_one_none():
    demux = Demux()
    for port in range(1000, 2000):
        demux.bind(port, compile_filter(f"udp dst port {port}").conjuncts)
    assert demux.shapes == 2
    assert demux.conjuncts == 2000
    frames = [udp(port) for port in range(990, 2010)]
    assert demux.classify(frames) == [p if 1000 <= p < 2000 else None for p in range(990, 2010)]
    assert [demux.remove(port) for port in range(1000, 2000, 2)] == [2] * 500
    assert demux.classify(frames) == [p if 1000 <= p < 2000 and p % 2 else None for p in range(990, 2010)]
    for port in range(1001, 2000, 2):
        demux.remove(port)
    assert (demux.shapes, demux.conjuncts) == (0, 0)


def test_r04_a_connected_socket_beats_its_listener_in_either_order():
    listener = compile_filter("udp dst port 53").conjuncts
    connected = compile_filter("udp dst port 53 and src host 10.0.0.9 and src port 7").conjuncts
    everything = compile_filter("").conjuncts
    for order in ((1, 2, 3), (3, 2, 1), (2, 3, 1)):
        demux = Demux()
        for binding in order:
            demux.bind(binding, (everything, listener, connected)[binding - 1])
        frames = [udp(53), udp(53, "10.0.0.9", 7), udp(54), (b"", 0)]
        assert demux.classify(frames) == [2, 3, 1, 1]
        assert demux.match_all(frames[1]) == [3, 2, 1]


def test_r04_a_narrower_interval_wins_with_the_same_prefix():
    wide, narrow = (compile_filter(f"udp dst portrange {text}").conjuncts for text in ("1000-2000", "1008-1023"))
    for order in ((1, 2), (2, 1)):
        demux = Demux()
        for binding in order:
            demux.bind(binding, (wide, narrow)[binding - 1])
        ports = (999, 1000, 1007, 1008, 1023, 1024, 2000, 2001)
        assert demux.classify([udp(port) for port in ports]) == [None, 1, 1, 2, 2, 1, 1, None]
        assert demux.remove(2) == len(narrow)
        assert demux.classify([udp(1010)]) == [1]


def test_an_exclusion_narrows_a_box():
    demux = Demux()
    demux.bind(1, compile_filter("udp dst port 53").conjuncts)
    demux.bind(2, compile_filter("udp dst port 53 and not src host 10.0.0.9").conjuncts)
    demux.bind(3, compile_filter("udp dst port 53 and not src host 10.0.0.9 and not src host 10.0.0.8").conjuncts)
    frames = [udp(53), udp(53, "10.0.0.9"), udp(53, "10.0.0.8")]
    assert demux.classify(frames) == [3, 1, 2]
    assert demux.match_all(frames[0]) == [3, 2, 1]
    assert demux.remove(3) == 2
    assert demux.classify(frames) == [2, 1, 2]


def test_exclusions_of_one_key_are_chained():
    demux = Demux()
    for last in range(1, 9):
        demux.bind(last, compile_filter(f"udp dst port 53 and not src net 10.0.0.{last * 8}/29").conjuncts[:1])
    assert demux.shapes == 1
    assert len(demux.match_all(udp(53, "10.0.0.1"))) == 8
    assert sorted(demux.match_all(udp(53, "10.0.0.17"))) == [1, 3, 4, 5, 6, 7, 8]
    for last in (4, 1, 8):
        assert demux.remove(last) == 1
    assert sorted(demux.match_all(udp(53, "10.0.0.17"))) == [3, 5, 6, 7]


def test_the_same_box_of_another_binding_is_a_conflict_and_changes_nothing():
    demux = Demux()
    one = box(0xFFFF, 0x1234)
    assert demux.insert(1, one) == 0
    assert demux.insert(1, one) == 0
    assert demux.conjuncts == 1
    assert demux.insert(2, one) == lib.EXO_E_CONFLICT
    assert (demux.conjuncts, demux.remove(2), demux.remove(1)) == (1, 0, 1)


def test_a_conflict_of_exclusions_needs_the_same_ones():
    demux = Demux()
    first = Conjunct.of({0: (0xFF, 1)}, [(0, 0xFF00, 0)])
    second = Conjunct.of({0: (0xFF, 1)}, [(0, 0xFF00, 0x100)])
    assert first and second
    assert [demux.insert(1, first), demux.insert(2, second), demux.insert(3, first)] == [0, 0, lib.EXO_E_CONFLICT]
    assert demux.classify([(b"\1\0", 2), (b"\1\1", 2), (b"\1\2", 2)])[:2] == [2, 1]


def test_a_length_of_many_values_is_given_back_to_who_has_some_of_them() -> None:
    """Lengths are fields of 32 bits: intervals of 65,536 values and more fix some of them, and the narrower wins."""
    demux = Demux()
    spans = {1: (0, 2**32 - 1), 2: (70_000, 140_000), 3: (1, 5), 4: (100, 2**32 - 1), 5: (60_000, 2**31)}
    box = native(atoms=1, atom=[(lib.EXO_BASE_FRAME, 12, 0xFFFF0000, 0x08000000)])
    for binding, (low, high) in spans.items():
        box.binding = box.breadth = binding  # type: ignore[attr-defined]
        box.interval = (lib.EXO_BASE_LENGTH, 0, 4, low, high)  # type: ignore[attr-defined]
        assert lib.exo_demux_insert(demux.native, box) == 0
    data = bytes(12) + b"\x08\0" + bytes(46)
    ends = sorted({min(max(end + d, 60), 2**32 - 1) for span in spans.values() for end in span for d in (-1, 0, 1)})
    for gone in (1, 5, 4, 3, 2):
        assert demux.remove(gone) == 1
        del spans[gone]
        narrow = sorted(spans, key=lambda binding: spans[binding][1] - spans[binding][0])
        wanted = [next((b for b in narrow if spans[b][0] <= n <= spans[b][1]), None) for n in ends]
        assert demux.classify([(data, n) for n in ends]) == wanted


AT_THE_START = (
    "ip and not (ether[0:4] & 0xffffff00 = 0x02000000)",
    "not (ether[0:4] & 0xffffff00 = 0x02000000)",
    "ether[0:4] & 0xff00ff00 != 0x02000000",
    "udp and not (ether[0:4] & 0x01000100 = 0x01000000) and not (ether[0:4] & 0x00ffff00 = 0)",
    "len > 20 and not (ether[0:4] & 0xffffff00 = 0x02000000) and ether[0] & 2 = 2",
)


@pytest.mark.parametrize("text", AT_THE_START)
def test_r05_three_bytes_at_the_very_beginning_may_be_excluded(text: str) -> None:
    """Of frames of any length, as libpcap."""
    program, demux = Libpcap().compile(text), Demux()
    demux.bind(1, compile_filter(text).conjuncts)
    starts = [bytes.fromhex(start) for start in ("020000", "020001", "030000", "02ff00", "010000", "000000", "fe0001")]
    whole = [start + udp(53)[0][3:] + bytes(80) for start in starts]
    frames = [(data[:n], n + more) for data in whole for n in range(81) for more in (0, 30)]
    wanted = [program.matches(*frame) for frame in frames]
    assert any(wanted) and not all(wanted)
    assert [owner == 1 for owner in demux.classify(frames)] == wanted
    assert [demux.match_all(frame) == [1] for frame in frames] == wanted


@pytest.mark.parametrize("mask", [0xFFFFFF, 0xFF00FF, 0x010001])
def test_three_excluded_bytes_need_no_fourth(mask: int) -> None:
    made = Conjunct.of({}, [(0, mask, 0)])
    assert made is not None and made.frame_bytes == 3
    demux = Demux()
    demux.bind(1, [made])
    starts = [bytes(80), b"\0\1\0" + bytes(77), b"\0\0\1" + bytes(77), b"\1" * 80]
    frames = [(data[:n], n) for data in starts for n in range(81)]
    assert [owner == 1 for owner in demux.classify(frames)] == [made.matches(*frame) for frame in frames]


@pytest.mark.parametrize("fields", (
    {"atoms": 25},
    {"atoms": 1, "atom": [(3, 0, 0xFF, 0)]},
    {"atoms": 1, "atom": [(0, 0, 0, 0)]},
    {"atoms": 1, "atom": [(0, 0, 0xF0, 0x0F)]},
    {"atoms": 1, "atom": [(0, 65535, 0xFF, 0)]},
    {"atoms": 1, "atom": [(2, 4, 0xFF, 0)]},
    {"atoms": 0, "frame_bytes": 2**31},
    {"atoms": 0, "ip4_bytes": 2**31},
    {"atoms": 0, "binding": 2**31},
    {"atoms": 0, "binding": NO_OWNER},
))  # fmt: skip
def test_a_bad_box_is_refused(fields):
    demux = Demux()
    assert lib.exo_demux_insert(demux.native, native(**fields)) == lib.EXO_E_INVALID
    assert (demux.shapes, demux.conjuncts) == (0, 0)


def test_guards_are_raised_over_every_masked_byte():
    demux = Demux()
    atoms = [(lib.EXO_BASE_FRAME, 10, 0xFF00, 0), (lib.EXO_BASE_IP4, 0, 0xFF000000, 0)]
    assert lib.exo_demux_insert(demux.native, native(binding=4, atoms=2, atom=atoms)) == 0
    assert demux.classify([(bytes(n), n) for n in range(20)]) == [None] * 15 + [4] * 5
    unaligned = [(lib.EXO_BASE_FRAME, 1, 0xFFFFFFFF, 0x02030405)]
    assert lib.exo_demux_insert(demux.native, native(binding=5, atoms=1, atom=unaligned)) == 0
    data = bytes((1, 2, 3, 4, 5))
    assert demux.classify([(data[:n], n) for n in range(6)]) == [None] * 5 + [5]


def test_the_header_may_lie_behind_tags():
    demux = Demux()
    demux.bind(1, compile_filter("vlan and udp dst port 53").conjuncts)
    demux.bind(2, compile_filter("udp dst port 53").conjuncts)
    plain, _ = udp(53)
    tagged = plain[:12] + b"\x81\0\0\5" + plain[12:]
    assert demux.classify([(plain, 99), (tagged, 99), (tagged[:-6], 99)]) == [2, 1, None]


def test_quota_of_shapes():
    demux = Demux()
    for i in range(lib.EXO_MAX_SHAPES):
        assert demux.insert(i, box(i + 1, i + 1)) == 0
    assert demux.insert(999, box(0x10000, 0)) == lib.EXO_E_FULL
    assert demux.insert(999, box(1, 0)) == 0
    assert demux.shapes == lib.EXO_MAX_SHAPES
    assert demux.remove(7) == 1
    assert demux.insert(1000, box(0x10000, 0)) == 0


def test_all_ethertypes_of_many_shapes_are_dispatched():
    demux, reference = Demux(), Reference()
    for i in range(120):
        ethertype = int.from_bytes((0x800 + i).to_bytes(2, "big"), "little")
        for binding, conjunct in (
            (i, box(0xFFFF << 96 | 1 << i % 90, ethertype << 96)),
            (200 + i, box(1 << 112 + i, 0)),
        ):
            demux.bind(binding, [conjunct])
            reference.insert(binding, conjunct)
    chosen = random.Random(1)
    for _ in range(300):
        data = bytes(12) + (0x800 + chosen.randrange(130)).to_bytes(2, "big") + chosen.randbytes(20)
        found, wanted = demux.match_all((data, 34), 256), reference.match_all(data)
        assert set(found) == set(wanted)


def test_a_shape_that_loses_its_one_ethertype_is_asked_for_all():
    demux = Demux()
    kinds = [int.from_bytes(kind.to_bytes(2, "big"), "little") << 96 for kind in (0x800, 0x806)]
    demux.bind(1, [box(0xFFFF << 96, kinds[0])])
    demux.bind(2, [box(0xFFFF << 96, kinds[1])])
    frames = [(bytes(12) + kind.to_bytes(2, "big"), 14) for kind in (0x800, 0x806, 0x807)]
    assert demux.classify(frames) == [1, 2, None]
    demux.remove(2)
    assert demux.classify(frames) == [1, None, None]


def test_match_all_says_how_many_there_are():
    demux = Demux()
    for i in range(10):
        demux.bind(i, [box(1 << i, 0)])
    native_frames, _keep = burst([(bytes(4), 4)])
    out = ffi.new("uint32_t[]", 4)
    assert lib.exo_demux_match_all(demux.native, native_frames, out, 4) >= 10
    assert len(set(out)) == 4
    assert lib.exo_demux_match_all(demux.native, native_frames, ffi.NULL, 0) >= 10


def test_more_words_than_the_demux_compares_are_refused():
    wide = Conjunct.of({0: (int.from_bytes(b"\1\0\0\0" * 25, "little"), 0)})
    assert wide is not None
    with pytest.raises(FilterError, match="compares 25 words"):
        wide.to_native(1)


def test_memory_of_a_binding_is_bounded():
    demux = Demux()
    empty = demux.bytes
    template = compile_filter(
        "ip and tcp src port 1 and dst port 2 and src host 10.0.0.1 and dst host 10.0.0.2"
    ).conjuncts
    assert len(template) == 1
    made = template[0].to_native(0)
    count = 20_000
    for i in range(count):
        made.binding = i
        made.atom[made.atoms - 1].value = (i * 7919 + 1) & made.atom[made.atoms - 1].mask
        assert lib.exo_demux_insert(demux.native, made) == 0
    assert demux.conjuncts == count
    assert (demux.bytes - empty) / count <= 200


def test_a_table_of_colliding_values_still_answers():
    """Keys in arithmetic progression, the worst of many hashes, in a table that grows and shrinks."""
    demux = Demux(seed=0)
    made = box(0xFFFFFFFF, 0).to_native(0)
    for i in range(5000):
        made.binding = i
        made.atom[0].value = (i << 20) & 0xFFFFFFFF | i >> 12
        assert lib.exo_demux_insert(demux.native, made) == 0
    frames = [(((i << 20) & 0xFFFFFFFF | i >> 12).to_bytes(4, "big"), 4) for i in range(5000)]
    assert demux.classify(frames) == list(range(5000))
    for i in range(0, 5000, 3):
        assert demux.remove(i) == 1
    assert demux.classify(frames) == [i if i % 3 else None for i in range(5000)]


def test_a_hundred_thousand_values_live_in_one_shape():
    demux = Demux(seed=3)
    made = box(0xFFFFFFFF, 0).to_native(0)
    for i in range(100_000):
        made.binding = i
        made.atom[0].value = i * 2654435761 & 0xFFFFFFFF
        assert lib.exo_demux_insert(demux.native, made) == 0
    assert (demux.shapes, demux.conjuncts) == (1, 100_000)
    frames = [((i * 2654435761 & 0xFFFFFFFF).to_bytes(4, "big"), 4) for i in range(0, 100_000, 97)]
    assert demux.classify(frames) == list(range(0, 100_000, 97))
    for i in range(0, 100_000, 2):
        assert demux.remove(i) == 1
    assert demux.classify(frames) == [i if i % 2 else None for i in range(0, 100_000, 97)]


def test_freeing_nothing_is_allowed():
    lib.exo_demux_free(ffi.NULL)


def multipliers(seed: int, count: int) -> list[int]:
    """The first odd numbers that a demux draws (splitmix64): what an attacker who knew the seed would know."""
    drawn, whole = [], (1 << 64) - 1
    for _ in range(count):
        seed = seed + 0x9E3779B97F4A7C15 & whole
        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        drawn.append((z ^ z >> 31) | 1)
    return drawn


def chosen_against(seed: int, bits: int, count: int) -> list[bytes]:
    """IPv4 addresses whose keys, in a demux of that seed, share the first of 1 << bits home buckets."""
    first = multipliers(seed, 5)[4]  # four are for the destinations
    keys = np.arange(1 << 22, dtype=np.uint64) * np.uint64(613)
    chosen = keys[(keys * np.uint64(first)) >> np.uint64(64 - bits) == 0][:count]
    assert len(chosen) == count
    return [int(key).to_bytes(4, "little") for key in chosen]


def from_address(word: bytes) -> Frame:
    return bytes(12) + b"\x08\x00\x45" + bytes(11) + word + bytes(30), 60


def filled(seed: int, words: Sequence[bytes]) -> Demux:
    """A demux of that seed with a binding for each source address, all of one shape."""
    demux = Demux(seed)
    box = compile_filter("ip src host 0.0.0.1").conjuncts[0].to_native(0)
    form = ffi.new("struct exo_form *")
    assert lib.exo_form_of(box, form) == 0 and form.lanes == 1 and form.lane[0].bytes == 4
    (high, low) = [atom for atom in box.atom[0 : box.atoms] if atom.offset in (24, 28)]
    for binding, word in enumerate(words):
        box.binding, high.value = binding, int.from_bytes(word[:2], "big")
        low.value = int.from_bytes(word[2:], "big") << 16
        assert lib.exo_demux_insert(demux.native, box) == 0
    return demux


def distances(demux: Demux, frame: Frame) -> list[int]:
    """Of each key in the table of the one shape: how many buckets after its home one must look for it."""
    found: list[int] = []

    @ffi.callback("exo_probe")
    def probe(table, _asked, _n, answers, _owners):
        buckets = 1 << 64 - table.shift
        tags = [(place, tag) for place in range(buckets) for tag in table.index[place].tag[0:7] if tag]
        found.extend((place - (tag >> table.shift - 32)) % buckets for place, tag in tags)
        answers[0] = lib.EXO_NO_ENTRY

    form = ffi.new("struct exo_form *")
    assert demux.shapes == 1 and lib.exo_demux_form(demux.native, 0, form) == 0
    lib.exo_demux_install(demux.native, form, probe, ffi.NULL)
    assert demux.classify([frame]) == [None] and len(found) == demux.conjuncts
    lib.exo_demux_install(demux.native, form, ffi.NULL, ffi.NULL)
    return found


FARTHEST = 7  # buckets after its home: DEMUX_PROBE_CAP - 1


def test_keys_chosen_against_a_known_seed_do_not_make_a_long_probe() -> None:
    """1,500 keys that share one home bucket of 1,024: others are drawn, and every key is found near its home."""
    words = chosen_against(9, 10, 1500)
    demux = filled(9, words)
    assert demux.classify([from_address(word) for word in words]) == list(range(1500))
    assert demux.bytes - Demux(9).bytes < 200 * 1500  # an index that grew until these keys parted would be 1.7 MB
    assert max(distances(demux, from_address(words[0]))) <= FARTHEST


def test_keys_chosen_against_one_seed_lie_apart_under_another() -> None:
    """50 of them fit behind their one home bucket, so nothing is drawn anew."""
    words = chosen_against(9, 4, 50)
    found = {seed: max(distances(filled(seed, words), from_address(words[0]))) for seed in (9, 10, 11)}
    assert found[9] == FARTHEST and found[10] <= 2 and found[11] <= 2
