# SPDX-License-Identifier: MIT
"""The wires under random orders of calls, and the parser of impairments under random text."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from exonet.abi import ffi, lib
from exonet.errors import RunError, UsageError
from exonet.wire import burst
from exonet.wire.cable import cable
from exonet.wire.impair import Impair, Impairments
from exonet.wire.link import Wire
from exonet.wire.pace import Pace
from exonet.wire.tee import Tee
from tests.effort import tries

SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])
TIMES = st.sampled_from([0, 1, 700, 10**6])
IMPAIRMENTS = st.builds(
    Impairments, loss=SHARES, delay=TIMES, jitter=TIMES, reorder=SHARES, duplicate=SHARES, corrupt=SHARES
)
FRAMES = st.lists(st.binary(max_size=100), max_size=70)
ACTIONS = st.one_of(
    st.tuples(st.just("feed"), FRAMES),
    st.tuples(st.just("send"), FRAMES),
    st.tuples(st.just("receive"), st.integers(1, 70)),
    st.tuples(st.just("fate"), st.integers(-3, lib.EXO_REASONS + 2)),
    st.tuples(st.just("pass"), st.sampled_from([1, 500, 10**6, 10**9])),
    st.tuples(st.just("close"), st.just(0)),
)


class Speed:
    """What Pace needs of exonet.wire.speed.Speed."""

    def __init__(self, kind: int, unit: Any) -> None:
        self.kind = kind
        self.ns_per_unit = unit


SPEEDS = st.builds(Speed, st.integers(0, 3), st.fractions(0, 10**6, max_denominator=10**9))


@settings(max_examples=tries(60))
@given(st.text(max_size=60))
def test_any_text_is_impairments_or_one_clear_error(text: str) -> None:
    try:
        Impairments.parse(text)
    except UsageError as error:
        assert str(error).startswith("impairment ")


@settings(max_examples=tries(60))
@given(st.lists(st.tuples(st.sampled_from(["loss", "delay", "x", ""]), st.text("0123456789.%nmus-e +", max_size=8))))
def test_almost_right_text_too(parts: list[tuple[str, str]]) -> None:
    test_any_text_is_impairments_or_one_clear_error.hypothesis.inner_test(",".join("=".join(part) for part in parts))


@settings(max_examples=tries(60))
@given(IMPAIRMENTS)
def test_impairments_survive_their_own_text(impairments: Impairments) -> None:
    text = str(impairments)
    assert (Impairments.parse(text) if text else Impairments()) == impairments


def stack(inner: Wire, order: list[str], impairments: Impairments, speed: Speed, path: Path, seed: int) -> Wire:
    """The wrappers named, each around the one before; one of a kind (two impair wires would number copies alike)."""
    for name in order:
        if name == "impair":
            inner = Impair(inner, impairments, seed, both=bool(seed & 1), limit=50 if seed & 2 else 100_000)
        elif name == "pace":
            inner = Pace(inner, speed)
        else:
            inner = Tee(inner, path, memory=1 << 16)
    return inner


def originated(ledger: Any) -> int:
    return int(getattr(ledger, "in")[lib.EXO_S_SOURCE] + ledger.copies[lib.EXO_S_SOURCE])


@settings(max_examples=tries(40))
@given(
    st.lists(ACTIONS, max_size=25),
    st.permutations(["impair", "pace", "tee"]).flatmap(lambda order: st.integers(0, 3).map(lambda n: order[:n])),
    IMPAIRMENTS,
    SPEEDS,
    st.integers(0, 7),
    st.integers(1, 200),
)
def test_invariants_1_and_5_random_calls_keep_the_count(
    actions: list[tuple[str, Any]], order: list[str], impairments: Impairments, speed: Speed, seed: int, room: int
) -> None:
    far, near = cable(room, latency=seed * 100)
    ledger = ffi.new("struct exo_ledger *")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tee.pcapng"
        with far, stack(near, order, impairments, speed, path, seed) as wire:
            wire.native.ledger = ledger
            now, given_frames, numbers = 0, 0, set[int]()
            for action, value in actions:
                if action == "pass":
                    now += value
                elif action == "close":
                    far.close()
                elif action == "feed" and far.native != ffi.NULL:
                    burst.send(far, value, now)
                elif action == "send":
                    try:
                        burst.send(wire, value, now)
                    except RunError:
                        assert far.native == ffi.NULL
                elif action == "receive":
                    frames = burst.receive(wire, now, value)
                    for frame in frames or []:
                        assert frame.ts <= now and len(frame.data) == frame.wire_len <= 100
                        assert frame.id not in numbers
                        numbers.add(frame.id)
                    given_frames += len(frames or [])
                    assert frames is not None or far.native == ffi.NULL
                elif action == "fate" and wire.native.fate != ffi.NULL:
                    frame = ffi.new("struct exo_frame *", {"id": value & 7})
                    wire.native.fate(wire.native, frame, value, value & 3)
                held = burst.held(wire)
                assert originated(ledger) == given_frames + held + sum(ledger.drop[0 : lib.EXO_REASONS])
                due = burst.next_due(wire, now)
                assert due is None or due >= 0
        if path.exists():
            assert_readable(path)


def assert_readable(path: Path) -> None:
    reader = RawPcapNgReader(str(path))
    for data, meta in reader:
        assert len(data) <= meta.wirelen
    reader.close()
