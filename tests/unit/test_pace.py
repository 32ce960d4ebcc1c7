# SPDX-License-Identifier: MIT
"""The pace wire: exact due times, catching up, idle sources, stamps that step back."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable
from exonet.wire.link import Wire
from exonet.wire.pace import Pace

MOST = 2**64 - 1


@dataclass(frozen=True)
class Speed:
    """What Pace needs of exonet.wire.speed.Speed."""

    kind: int
    ns_per_unit: Fraction


def pps(rate: int) -> Speed:
    return Speed(lib.EXO_PACE_FRAMES, Fraction(10**9, rate))


def gbps(rate: int) -> Speed:
    return Speed(lib.EXO_PACE_BITS, Fraction(1, rate))


def times(factor: Fraction) -> Speed:
    return Speed(lib.EXO_PACE_STAMPS, 1 / factor)


def paced(speed: Speed) -> tuple[CableEnd, Pace]:
    far, near = cable(1 << 16)
    return far, Pace(near, speed)


def dues(wire: Wire, now: int = 0) -> list[int]:
    """Asks whenever something is due, until nothing is."""
    out: list[int] = []
    while True:
        frames = burst.receive(wire, now)
        if frames:
            assert all(frame.ts <= now for frame in frames)
            out += [frame.ts for frame in frames]
            continue
        due = burst.next_due(wire, now) if frames is not None else None
        if due is None:
            return out
        now = max(now, due)


def test_pps_is_exact_and_does_not_drift() -> None:
    far, wire = paced(pps(3_000_000))
    with far, wire:
        burst.send(far, [b"x" * 60] * 10_000, 7)
        assert dues(wire) == [7 + number * 1000 // 3 for number in range(10_000)]


def test_gbps_counts_the_bits_on_the_line() -> None:
    far, wire = paced(gbps(1))
    with far, wire:
        burst.send(far, [b"x" * 40, b"x" * 60, b"x" * 1514, b"x" * 60], 0)
        assert dues(wire) == [0, 672, 2 * 672, 2 * 672 + 8 * 1538]


def test_max_changes_nothing() -> None:
    far, wire = paced(Speed(lib.EXO_PACE_MAX, Fraction(0)))
    with far, wire:
        burst.send(far, [b"x"] * 3, 5)
        assert dues(wire) == [5, 5, 5]


def test_a_late_reader_catches_up() -> None:
    far, wire = paced(pps(1_000_000))
    with far, wire:
        burst.send(far, [b"x"] * 200, 0)
        late = [frame.ts for _ in range(4) for frame in burst.receive(wire, 10**6) or []]
        assert late == [number * 1000 for number in range(200)]


def test_a_source_that_was_idle_has_no_credit() -> None:
    far, wire = paced(pps(1_000_000))
    with far, wire:
        burst.send(far, [b"x"] * 3, 0)
        assert dues(wire) == [0, 1000, 2000]
        burst.send(far, [b"x"] * 3, 10**9)
        assert dues(wire, 10**9) == [10**9, 10**9 + 1000, 10**9 + 2000]
        burst.send(far, [b"x"], 10**9 + 2001)
        assert dues(wire, 10**9 + 2001) == [10**9 + 3000], "but a busy one is not let out early"


def stamped(far: CableEnd, stamps: list[int]) -> Wire:
    """A wire that gives frames with these capture times, all at once: a cable whose frames are stamped as they pass."""
    inner = Wire(far.native, "stamped")
    left = list(stamps)

    @ffi.callback("int32_t(struct exo_wire *, struct exo_frame *, uint32_t, uint64_t)")  # type: ignore[misc]
    def receive(_: Any, out: Any, limit: int, now: int) -> int:
        count = min(limit, len(left))
        for place in range(count):
            out[place].stamp, out[place].ts, out[place].len, out[place].wire_len = left.pop(0), now, 0, 60
        return count if count else int(lib.EXO_E_END)

    calls = [
        receive,
        ffi.callback("uint64_t(struct exo_wire *, uint64_t)", lambda _, now: now),
        ffi.callback("uint64_t(struct exo_wire *)", lambda _: len(left)),
        ffi.callback("void(struct exo_wire *)", lambda _: None),
    ]
    inner.native = ffi.new("struct exo_wire *")
    inner.native.receive, inner.native.next_due, inner.native.held, inner.native.close = calls
    inner._alive = calls, inner.native  # type: ignore[attr-defined]
    return inner


@pytest.mark.parametrize("factor", [Fraction(1), Fraction(10), Fraction(1, 3)])
def test_multiples_of_the_stamps(factor: Fraction) -> None:
    far, near = cable()
    stamps = [10**18 + place * 999 for place in range(150)]
    with far, near, Pace(stamped(far, stamps), times(factor)) as wire:
        assert dues(wire, 50) == [50 + int(place * 999 / factor) for place in range(150)]
        assert burst.next_due(wire, 10**9) is None and burst.receive(wire, 10**9) is None


def test_r07_backward_stamps_are_sent_at_once_and_counted() -> None:
    far, near = cable()
    with far, near, Pace(stamped(far, [100, 200, 150, 50, 300]), times(Fraction(1))) as wire:
        assert dues(wire) == [0, 100, 100, 100, 350]
        assert wire.describe()["backward_stamps"] == 2


def test_stamps_beyond_the_clock_are_capped() -> None:
    far, near = cable()
    with far, near, Pace(stamped(far, [1, MOST, MOST]), times(Fraction(1, 10**6))) as wire:
        assert dues(wire) == [0, MOST // 2, MOST // 2]


def test_invariant_1_frames_waiting_for_their_time_are_held() -> None:
    far, wire = paced(pps(1000))
    ledger = ffi.new("struct exo_ledger *")
    wire.native.ledger = ledger
    with far, wire:
        burst.send(far, [b"x"] * 100, 0)
        assert len(burst.receive(wire, 0) or []) == 1
        assert burst.held(wire) == 99 == getattr(ledger, "in")[lib.EXO_S_SOURCE] - 1


def test_descriptor_hides_while_the_clock_decides() -> None:
    far, near = cable(wake=True)
    with far, Pace(near, pps(1000)) as wire:
        assert wire.native.fd == near.native.fd
        burst.send(far, [b"x"] * 2, 0)
        burst.receive(wire, 0)
        assert wire.native.fd == -1
        burst.receive(wire, 10**6)
        assert wire.native.fd == near.native.fd


def test_sending_is_not_paced() -> None:
    far, wire = paced(pps(1))
    with far, wire:
        assert burst.send(wire, [b"x"] * 50, 0) == 50 and len(burst.receive(far, 0) or []) == 50


@pytest.mark.parametrize("unit", [Fraction(-1), Fraction(1 << 63), Fraction(1, 1 << 63)])
def test_impossible_speeds(unit: Fraction) -> None:
    a, b = cable()
    with a, b, pytest.raises(UsageError, match=r"^pace cable\.b: speed .* must be above 0"):
        Pace(b, Speed(0, unit))
    assert lib.exo_pace_new(ffi.NULL, 9, 1, 1) == ffi.NULL and lib.exo_pace_new(ffi.NULL, 0, 1, 0) == ffi.NULL
