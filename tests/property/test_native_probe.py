# SPDX-License-Identifier: MIT
"""Native probes answer as the table does, as libpcap does, and read nothing past a frame's end.

Every frame lies against the end of its mapping, before a page that nobody may touch: a read too far ends the test run.
"""

import platform
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from exonet.abi import NO_OWNER, ffi, lib
from exonet.filters.compile import compile_filter
from exonet.filters.form import Form
from exonet.filters.libpcap import Libpcap
from exonet.filters.native import compile_form
from tests.demux_box import Demux, Frame, made_frames, mutate, sample_frames
from tests.effort import tries
from tests.filter_list import DECOMPOSE
from tests.guarded import Codes, Guarded

pytest.importorskip("llvmlite", reason="llvmlite is not installed: there is no native code to test")


@pytest.fixture(scope="module")
def codes() -> Codes:
    return Codes()


@pytest.fixture(scope="module")
def guarded() -> list[Guarded]:
    return [Guarded() for _ in range(8)]


@pytest.fixture(scope="module")
def pool() -> list[Frame]:
    chosen = random.Random(11)
    found = made_frames() + sample_frames(8)
    cut = [(data[: chosen.randint(0, 80)], wire) for data, wire in found]
    return found + cut + [mutate(chosen.choice(found), chosen) for _ in range(tries(100))]


def classify(demux: Demux, guarded: Sequence[Guarded], pool: Sequence[Frame]) -> list[int | None]:
    """In bursts of as many frames as there is guarded room for."""
    found: list[int | None] = []
    owners = ffi.new("uint32_t[]", len(guarded))
    for start in range(0, len(pool), len(guarded)):
        burst = pool[start : start + len(guarded)]
        native = ffi.new("struct exo_frame[]", len(burst))
        for i, (data, wire_len) in enumerate(burst):
            native[i].data, native[i].len, native[i].wire_len = guarded[i].place(data), len(data), wire_len
        lib.exo_demux_classify(demux.native, native, len(burst), owners)
        found += [None if owners[i] == NO_OWNER else int(owners[i]) for i in range(len(burst))]
    return found


@pytest.mark.parametrize("text", DECOMPOSE)
def test_r05_native_equals_table_and_libpcap(
    text: str, codes: Codes, guarded: list[Guarded], pool: list[Frame]
) -> None:
    demux = Demux()
    demux.bind(0, compile_filter(text).conjuncts)
    table = classify(demux, guarded, pool)
    assert codes.install(demux) == demux.shapes
    program = Libpcap().compile(text)
    assert [owner == 0 for owner in table] == [program.matches(*frame) for frame in pool]
    assert classify(demux, guarded, pool) == table


@pytest.mark.parametrize("seed", range(4))
def test_r04_native_equals_table_with_many_bindings(
    seed: int, codes: Codes, guarded: list[Guarded], pool: list[Frame]
) -> None:
    """Bindings of all kinds at once, some of them gone again: the same owner, frame by frame."""
    chosen = random.Random(seed)
    demux = Demux(seed)
    for binding, text in enumerate(chosen.sample(DECOMPOSE, 25)):
        for conjunct in compile_filter(text).conjuncts:
            assert demux.insert(binding, conjunct) in (0, lib.EXO_E_CONFLICT, lib.EXO_E_FULL)
    for binding in chosen.sample(range(25), 8):
        demux.remove(binding)
    table = classify(demux, guarded, pool)
    codes.install(demux)
    assert classify(demux, guarded, pool) == table
    assert len(set(table)) > 3


def test_native_finds_each_of_many_values(codes: Codes, guarded: list[Guarded]) -> None:
    """5,000 keys in one shape, under a hash with collisions of tags and long runs: each finds its own, others none."""
    demux = Demux(3)
    for port in range(5000):
        demux.bind(port, compile_filter(f"ip and tcp dst port {port + 1}").conjuncts)
    codes.install(demux)
    head = made_frames()[0][0][:36]
    frames = [(head + port.to_bytes(2, "big"), 64) for port in (*range(1, 5001), *range(5001, 7000))]
    found = classify(demux, guarded, frames)
    assert found[:5000] == list(range(5000))
    assert set(found[5000:]) == {None}


@pytest.mark.parametrize("length", [0, 1, 13, 14, 15, 23, 24, 33, 34, 37, 38, 61, 1500, 9000, 65535])
@pytest.mark.parametrize("fill", [0x00, 0x45, 0xFF])
def test_native_reads_nothing_past_the_end(length: int, fill: int, codes: Codes, guarded: list[Guarded]) -> None:
    """Lying header lengths, protocols that are not there, frames of every length."""
    demux = Demux()
    for binding, text in enumerate(("tcp port 80", "udp and host 10.0.0.1", "ip6 and udp port 53", "vlan and tcp")):
        demux.bind(binding, compile_filter(text).conjuncts)
    heads = (b"\x08\x00\x4f", b"\x08\x00\x40", b"\x86\xdd\x60", b"\x81\x00\x00\x01\x08\x00\x4f")
    frames = [((bytes([fill]) * 12 + head + bytes([fill]) * length)[:length], length) for head in heads]
    table = classify(demux, guarded, frames)
    codes.install(demux)
    assert classify(demux, guarded, frames) == table


LISTENERS = (
    "ip and udp and dst host 10.7.0.2 and dst port 53",
    "ip and udp and dst port 53",
    "ip6 and udp and dst port 53",
    "ip proto 17",
)


BURST = lib.EXO_PROBE_BURST


def forms(demux: Demux) -> Iterator[Any]:
    for place in range(demux.shapes):
        form = ffi.new("struct exo_form *")
        assert lib.exo_demux_form(demux.native, place, form) == 0
        yield form


@pytest.mark.parametrize("texts", [LISTENERS[:1], LISTENERS[:2], LISTENERS])
def test_r05_a_burst_that_looks_alike_is_answered_as_frame_by_frame(texts: Sequence[str], codes: Codes) -> None:
    """A glance at a burst's first, middle and last frame says UDP; between them is everything else."""
    chosen, demux = random.Random(len(texts)), Demux(4)
    for binding, text in enumerate(texts):
        for conjunct in compile_filter(text).conjuncts:
            assert demux.insert(binding, conjunct) == 0
    alike = bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.2") / UDP(dport=53) / bytes(18))
    others = [
        bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.2", options=b"\x01\x01\x01\x01") / UDP(dport=53) / bytes(18)),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.2", frag=1) / UDP(dport=53) / bytes(18)),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.2") / TCP(dport=53) / bytes(18)),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.3") / UDP(dport=53) / bytes(18)),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.7.0.2") / UDP(dport=54) / bytes(18)),
        bytes(Ether() / IPv6() / UDP(dport=53) / bytes(18)),
        bytes(Ether() / Dot1Q(vlan=5) / IP(dst="10.7.0.2") / UDP(dport=53) / bytes(18)),
        bytes(Ether() / ARP()),
        b"",
        *(alike[:length] for length in (13, 14, 23, 24, 33, 34, 37, 38)),
    ]
    frames = [(alike, 60) if chosen.random() < 0.5 else (each := chosen.choice(others), len(each)) for _ in range(2560)]
    for burst in range(0, len(frames), BURST):
        for place in (0, BURST // 2, BURST - 1):
            frames[burst + place] = alike, 60
    room = [Guarded() for _ in range(BURST)]
    table = classify(demux, room, frames)
    glances, keep = 0, []
    for code in (compile_form(Form.of(form)) for form in forms(demux)):

        @ffi.callback("exo_glance")  # type: ignore[untyped-decorator]
        def glance(*burst: Any, glance: Any = code.glance) -> None:
            nonlocal glances
            glances += 1
            glance(*burst)

        keep.append((code, glance))
        assert lib.exo_demux_install(demux.native, code.form.to_native(), code.probe, glance) == 1
    assert classify(demux, room, frames) == table
    assert glances == len(frames) // BURST


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it reads x86-64's instructions")
@pytest.mark.parametrize(
    "text",
    [
        "ip and udp and dst host 10.7.0.2 and dst port 53",
        "ip and tcp and dst host 10.7.0.2 and dst port 53 and src host 10.0.0.1 and src port 7",
        "ip6 and udp dst port 53",
        "ether[6:4] = 7",
    ],
)
def test_whether_an_entry_matches_decides_no_branch_of_a_glance(text: str) -> None:
    """LLVM likes to make one of a choice: a conditional jump for each branch of the text, one more at the loop's end,
    and no other.
    """
    demux = Demux(1)
    for conjunct in compile_filter(text).conjuncts:
        assert demux.insert(0, conjunct) == 0
    for form in forms(demux):
        code = compile_form(Form.of(form))
        written = code.text[code.text.index("@glance(") :]
        machine = code.assembly()
        jumps = re.findall(r"^\s+j(?!mp)[a-z]+\s", machine[machine.index("\nglance:") :], re.MULTILINE)
        assert "cmov" in machine[machine.index("\nglance:") :]
        assert len(jumps) <= written.count("br i1") + 1


STATIONS = {"dst": "02:00:00:00:00:01", "src": "02:00:00:00:00:02"}
ETHER = Ether(**STATIONS)
V4, V6 = ETHER / IP(src="10.0.0.1", dst="10.7.0.2"), ETHER / IPv6(src="fd00::1", dst="fd00::2")
#: A frame of each of the dispatch's branches, or of one that it does not tell from others.
KINDS = (
    *(V4 / TCP(dport=80), V4 / UDP(dport=53), ETHER / IP(proto=47), V6 / TCP(dport=80), V6 / UDP(dport=53)),
    *(ETHER / IPv6(nh=59), ETHER / ARP(), Ether(**STATIONS, type=0x88CC), ETHER / Dot1Q(vlan=5) / IP() / UDP(dport=53)),
)
#: Bindings of which a branch's first is wide, so that other branches' frames lie in it too.
BESIDE = (
    ("ip", "ip and tcp dst port 80"),
    ("ip6", "ip6 and udp dst port 53"),
    ("ip", "ip6", "tcp dst port 80", "udp dst port 53"),
    ("ether[6:2] = 0x0200", "tcp dst port 80", "ip6 and udp dst port 53", "vlan 5 and udp dst port 53"),
    ("ether proto 0x88cc", "arp", "vlan", "ip and udp dst port 53"),
)


@pytest.mark.parametrize("texts", BESIDE)
def test_r05_a_burst_that_looks_of_any_branch_is_answered_as_frame_by_frame(texts: Sequence[str], codes: Codes) -> None:
    """First, middle and last are of one kind, all else of another; each kind among each other."""
    demux = Demux(5)
    for binding, text in enumerate(texts):
        demux.bind(binding, compile_filter(text).conjuncts)
    whole = [bytes(kind / bytes(18)) for kind in KINDS]
    room, looks = [Guarded() for _ in range(BURST)], (0, BURST // 2, BURST - 1)
    owners = dict(zip(whole, classify(demux, room, [(data, 60) for data in whole]), strict=True))
    assert set(owners.values()) >= set(range(len(texts)))
    codes.install(demux)
    for alike, other in permutations(whole, 2):
        burst = [alike if place in looks else other for place in range(BURST)]
        assert classify(demux, room, [(data, 60) for data in burst]) == [owners[data] for data in burst]


def test_r05_a_look_at_three_frames_does_not_speak_for_the_narrower_among_them(codes: Codes) -> None:
    demux, room = Demux(5), [Guarded() for _ in range(BURST)]
    for binding, text in enumerate(("ip", "ip and tcp dst port 80")):
        demux.bind(binding, compile_filter(text).conjuncts)
    codes.install(demux)
    gre, tcp = bytes(ETHER / IP(proto=47) / bytes(18)), bytes(V4 / TCP(dport=80))
    burst = [(gre if place in (0, 32, 63) else tcp, 60) for place in range(BURST)]
    assert Counter(classify(demux, room, burst)) == {0: 3, 1: 61}


def test_native_code_goes_back_to_the_table(codes: Codes, guarded: list[Guarded], pool: list[Frame]) -> None:
    demux = Demux()
    demux.bind(0, compile_filter("tcp").conjuncts)
    codes.install(demux)
    native, form = classify(demux, guarded, pool), ffi.new("struct exo_form *")
    assert [lib.exo_demux_form(demux.native, place, form) for place in range(2)] == [1, 1]
    assert lib.exo_demux_install(demux.native, form, ffi.NULL, ffi.NULL) == 1
    assert lib.exo_demux_form(demux.native, 1, form) == 0
    assert classify(demux, guarded, pool) == native
