# SPDX-License-Identifier: MIT
"""Random filters on random frames, and random binding and unbinding: table = reference = libpcap."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exonet.abi import lib
from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from exonet.filters.libpcap import Libpcap
from exonet.filters.reference import Reference
from tests.demux_box import Demux, Frame, made_frames, mutate, sample_frames
from tests.effort import tries
from tests.filter_list import DECOMPOSE

PRIMITIVES = (
    "ip", "ip6", "arp", "tcp", "udp", "icmp", "port 53", "tcp port 80", "udp dst port 53", "src port 1024",
    "tcp dst portrange 70-90", "host 10.0.0.1", "dst host 10.0.0.2", "net 10.0.0.0/8", "src net 10.0.0.0/30",
    "host 2001:db8::1", "ether dst 02:00:00:00:00:02", "multicast", "broadcast", "ip[8] > 10", "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff != 0", "tcp[13] & 2 != 0", "udp[4:2] > 8", "ether[20] & 3 = 1", "len > 60", "less 50",
    "ip proto 17", "ip6[6] = 17", "ether proto 0x88cc", "icmp[0] = 8", "ip[2:2] - 20 > 30",
)  # fmt: skip


@st.composite
def filters(draw: st.DrawFn) -> str:
    """A composition of up to five primitives, sometimes behind a tag."""
    text = draw(st.sampled_from(PRIMITIVES))
    for _ in range(draw(st.integers(0, 4))):
        text = f"({text}) {draw(st.sampled_from(('and', 'or')))} {draw(st.sampled_from(('', 'not ')))}" + draw(
            st.sampled_from(PRIMITIVES)
        )
    prefix = draw(st.sampled_from(("", "", "", "vlan and ", "not ", "vlan 10 and ", "vlan and vlan and ")))
    return f"{prefix}({text})"


SETTINGS = settings(max_examples=tries(50))


@pytest.fixture(scope="module")
def pool() -> list[Frame]:
    chosen = random.Random(5)
    found = made_frames() + sample_frames(20)
    return found + [mutate(chosen.choice(found), chosen) for _ in range(500)]


@given(text=filters())
@SETTINGS
def test_r05_random_filters_equal_libpcap(pool: list[Frame], text: str) -> None:
    try:
        program = Libpcap().compile(text)
    except FilterError as refusal:
        assert "expression rejects all packets" in str(refusal)
        return
    try:
        compiled = compile_filter(text)
    except FilterError as refusal:
        nothing = "takes nothing" in str(refusal) and not any(program.matches(*frame) for frame in pool)
        assert nothing or "cannot be decomposed" in str(refusal)
        return
    wanted = [program.matches(*frame) for frame in pool]
    assert [compiled.matches(*frame) for frame in pool] == wanted
    demux = Demux()
    try:
        demux.bind(0, compiled.conjuncts)
    except Exception as refusal:
        assert demux.shapes == lib.EXO_MAX_SHAPES, refusal
        return
    assert [owner == 0 for owner in demux.classify(pool)] == wanted


@given(data=st.binary(max_size=200), extra=st.integers(0, 200), text=st.sampled_from(DECOMPOSE))
@SETTINGS
def test_r05_random_bytes_equal_libpcap(data: bytes, extra: int, text: str) -> None:
    frame = (data, len(data) + extra)
    demux = Demux()
    demux.bind(0, compile_filter(text).conjuncts)
    assert (demux.classify([frame]) == [0]) == Libpcap().compile(text).matches(*frame)


def _ranks(entries: list[tuple[int, Conjunct]], frame: Frame, binding: int) -> tuple[int, int]:
    return min(c.rank[:2] for b, c in entries if b == binding and c.matches(*frame))


@pytest.mark.parametrize("seed", range(6))
def test_r04_churn_equals_the_reference(seed: int, pool: list[Frame]) -> None:
    """Binds and unbinds in random order; where two bindings tie in rank, either answer is right."""
    chosen = random.Random(seed)
    demux, reference = Demux(seed), Reference()
    live: dict[int, list[Conjunct]] = {}
    sources = [t for t in DECOMPOSE if "geneve" not in t and "portrange 1000" not in t]
    for step in range(120):
        if live and chosen.random() < 0.4:
            binding = chosen.choice(sorted(live))
            assert demux.remove(binding) == len(live.pop(binding)) == reference.remove(binding)
        else:
            inserted = []
            for conjunct in compile_filter(chosen.choice(sources)).conjuncts:
                code = demux.insert(step, conjunct)
                assert code in (0, lib.EXO_E_CONFLICT, lib.EXO_E_FULL)
                if code == 0:
                    inserted.append(conjunct)
                    reference.insert(step, conjunct)
            if inserted:
                live[step] = inserted
        assert demux.conjuncts == sum(len(conjuncts) for conjuncts in live.values())
        entries = [(binding, conjunct) for binding, conjuncts in live.items() for conjunct in conjuncts]
        frames = chosen.sample(pool, 12)
        for frame, owner in zip(frames, demux.classify(frames), strict=True):
            wanted = reference.match_all(*frame)
            assert set(demux.match_all(frame, 256)) == set(wanted)
            assert (owner is None) == (not wanted)
            if owner is not None:
                assert _ranks(entries, frame, owner) == _ranks(entries, frame, wanted[0])
    for binding in live:
        demux.remove(binding)
    assert (demux.shapes, demux.conjuncts) == (0, 0)
