# SPDX-License-Identifier: MIT
"""Speeds: their text, and due times that are exact on paper."""

from fractions import Fraction

import pytest

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire.pcap import PcapWire, split
from exonet.wire.speed import Speed, SpeedKind
from tests.fakes.captures import BASE, Ng, frame_bytes, pcap, receive_all, timed
from tests.fakes.replays import Make, make

__all__ = ["make"]

NS = 10**9
NEVER = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "kind", "rate", "shown"),
    [
        ("x1", SpeedKind.STAMPS, 1, "x1"),
        ("x2.5", SpeedKind.STAMPS, Fraction(5, 2), "x2.5"),
        ("10x", SpeedKind.STAMPS, 10, "x10"),
        ("X0.001", SpeedKind.STAMPS, Fraction(1, 1000), "x0.001"),
        ("pps=100000", SpeedKind.FRAMES, 100_000, "pps=100000"),
        ("pps=1.5M", SpeedKind.FRAMES, 1_500_000, "pps=1500000"),
        ("pps=0.5", SpeedKind.FRAMES, Fraction(1, 2), "pps=0.5"),
        ("gbps=1", SpeedKind.BITS, NS, "gbps=1"),
        ("mbps=100", SpeedKind.BITS, 10**8, "gbps=0.1"),
        ("gbps=2.5", SpeedKind.BITS, 25 * 10**8, "gbps=2.5"),
        ("pps=1e6", SpeedKind.FRAMES, 10**6, "pps=1000000"),
        ("500000", SpeedKind.FRAMES, 500_000, "pps=500000"),
        ("1.5k", SpeedKind.FRAMES, 1500, "pps=1500"),
        (" max ", SpeedKind.MAX, 0, "max"),
    ],
)
def test_speed_text(text: str, kind: SpeedKind, rate: Fraction, shown: str) -> None:
    speed = Speed.parse(text)
    assert (speed.kind, speed.rate, str(speed)) == (kind, rate, shown)
    assert Speed.parse(str(speed)) == speed


@pytest.mark.parametrize(
    "text", ["", "x", "x0", "x-1", "fast", "pps=", "pps=0", "gbps=nan", "x1e99", "0", "2e12", "max=1", "xx2", "x1x"]
)
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f'speed "{text}": must be xN'):
        Speed.parse(text)


def test_a_small_number_without_a_unit_is_refused_with_its_readings() -> None:
    with pytest.raises(UsageError, match=r'speed "10": write x10 for .*, or 10M for 10,000,000 packets'):
        Speed.parse("10")


def due_times(wire: PcapWire, start: int = 0) -> list[int]:
    wire.start(start)
    return [f.ts for f in receive_all(wire.native)]


EITHER = pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
STAMPS = [0, 1000, 1500, 1500, 10_000]


@EITHER
@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ("x1", [0, 1000, 1500, 1500, 10_000]),
        ("x2", [0, 500, 750, 750, 5000]),
        ("x3", [0, 333, 500, 500, 3333]),
        ("x0.5", [0, 2000, 3000, 3000, 20_000]),
        ("pps=1000000", [0, 1000, 2000, 3000, 4000]),
        ("pps=3M", [0, 333, 666, 1000, 1333]),
        ("pps=0.5", [0, 2 * NS, 4 * NS, 6 * NS, 8 * NS]),
        ("gbps=1", [0, 672, 1344, 2016, 2688]),
        ("mbps=100", [0, 6720, 13_440, 20_160, 26_880]),
        ("gbps=10", [0, 67, 134, 201, 268]),
    ],
)
def test_due_times_on_paper(make: Make, speed: str, expected: list[int], limit: int) -> None:
    data = pcap([(ns, frame_bytes(i, 42)) for i, ns in enumerate(STAMPS)], nano=True)
    wire = make(data, speed=speed, memory_limit=limit)
    assert due_times(wire) == expected
    assert due_times(wire, start=5 * NS) == [5 * NS + ns for ns in expected]


def test_gbps_counts_the_length_on_the_wire(make: Make) -> None:
    ng = (
        Ng()
        .section()
        .interface()
        .packet(1, frame_bytes(0, 60), wire_len=1514)
        .packet(1, frame_bytes(1, 100))
        .packet(1, b"")
    )
    assert due_times(make(ng.out, speed="gbps=1")) == [0, (1514 + 24) * 8, (1514 + 24 + 100 + 24) * 8]


def test_rates_do_not_drift(make: Make) -> None:
    wire = make(pcap(timed(1000)), speed="pps=3", loop=3)
    assert due_times(wire) == [k * NS // 3 for k in range(3000)]


def at(*stamps: float) -> bytes:
    """A capture with these stamps, in seconds."""
    return pcap([(round(stamp * NS), frame_bytes(i)) for i, stamp in enumerate(stamps)], nano=True)


@EITHER
def test_r07_backward_timestamps_are_sent_at_once_and_counted(make: Make, limit: int) -> None:
    wire = make(pcap([(ns, frame_bytes(0)) for ns in (5000, 9000, 2000, 8000, 9000, 12_000)]), memory_limit=limit)
    assert due_times(wire, 100) == [100, 4100, 4100, 10_100, 11_100, 14_100]
    assert wire.counters()["backward"] == 1


@EITHER
def test_r07_what_follows_a_step_back_keeps_its_gaps(make: Make, limit: int) -> None:
    wire = make(at(0, 2, 0.00001, 0.5, 1, 1.5), memory_limit=limit, loop=2)
    once = [0, 2 * NS, 2 * NS, 2_499_990_000, 2_999_990_000, 3_499_990_000]
    again = 3_499_990_000 + 3_499_990_000 // 5  # a mean gap after the last
    assert due_times(wire) == once + [again + ns for ns in once]
    assert wire.counters()["backward"] == 2
    assert wire.trace.replay_length() == once[-1]


@EITHER
@pytest.mark.parametrize(
    ("speed", "expected"), [("x1", [0, 1, 1.5, 2.5, 2.5, 3.0]), ("x2", [0, 0.5, 0.75, 1.25, 1.25, 1.5])]
)
def test_max_gap_is_of_capture_time(make: Make, limit: int, speed: str, expected: list[float]) -> None:
    wire = make(at(0, 7200, 7200.5, 9000, 8000, 8000.5), memory_limit=limit, speed=speed, max_gap=NS)
    assert due_times(wire) == [round(s * NS) for s in expected]
    assert wire.trace.replay_length(NS) == 3 * NS
    wire = make(at(0, 3600), memory_limit=limit, speed="pps=1", max_gap=1000)
    assert due_times(wire) == [0, NS]


@EITHER
def test_two_sides_stay_on_one_time_line_across_a_step_back_and_a_long_gap(make: Make, limit: int) -> None:
    """Frames 0, 2, 4 of one station, 1, 3, 5 of its peer; the step back and the gap lie between the two."""
    macs = (bytes.fromhex("020000000001"), bytes.fromhex("020000000002"))
    stamps = [5, 6, 1, 1.5, 100, 100.5]
    frames = [(round(s * NS), macs[1 - i % 2] + macs[i % 2] + frame_bytes(i)[12:]) for i, s in enumerate(stamps)]
    whole = make(pcap(frames), memory_limit=limit, max_gap=NS)
    sides = split(whole.trace, max_gap=NS)
    found = sorted((f.id, f.ts) for side in sides for f in receive_all(side.start(0).native))
    assert [ts for _, ts in found] == due_times(whole) == [round(s * NS) for s in (0, 1, 1, 1.5, 2.5, 3)]
    for side in sides:
        side.close()


def test_a_block_without_a_timestamp_goes_with_the_one_before(make: Make) -> None:
    ng = (
        Ng()
        .section()
        .interface()
        .simple(b"first")
        .packet(BASE * 10**6, b"a")
        .simple(b"b")
        .packet(BASE * 10**6 + 3, b"c")
    )
    wire = make(ng.out)
    assert due_times(wire, 50) == [50, 50, 50, 3050]
    assert wire.counters()["backward"] == 0


def test_impossible_timestamps_saturate(make: Make) -> None:
    ng = Ng().section().interface(options=[(9, b"\x00")]).packet(0, b"a").packet(2**64 - 1, b"b").packet(5, b"c")
    wire = make(ng.out, speed="x0.000001", loop=2).start(10)
    frames = receive_all(wire.native)
    assert [f.ts for f in frames] == [10, 2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1]


@EITHER
def test_loops_begin_one_mean_gap_after_the_last_frame(make: Make, limit: int) -> None:
    wire = make(pcap([(ns, b"") for ns in (0, 1000, 6000)]), loop=3, memory_limit=limit)
    wire.start(0)
    frames = receive_all(wire.native)
    assert [f.ts for f in frames] == [0, 1000, 6000, 9000, 10_000, 15_000, 18_000, 19_000, 24_000]
    assert [f.id for f in frames] == list(range(9))
    assert (wire.counters()["loops"], wire.counters()["backward"]) == (3, 0)


def test_a_loop_takes_time_even_if_its_frames_do_not(make: Make) -> None:
    assert due_times(make(pcap([(0, b"a")]), loop=4)) == [0, 1, 2, 3]


def test_nothing_is_given_before_it_is_due(make: Make) -> None:
    wire = make(pcap(timed(3, gap=1000)))
    native = wire.start(100).native
    frames = ffi.new("struct exo_frame[]", 8)
    assert native.receive(native, frames, 8, 99) == 0
    assert native.next_due(native, 99) == 100
    assert native.receive(native, frames, 8, 1099) == 1
    assert native.next_due(native, 1099) == 1100
    assert native.receive(native, frames, 8, 5000) == 2
    assert frames[0].ts == 1100 and native.next_due(native, 5000) == 5000
    assert native.receive(native, frames, 8, 5000) == lib.EXO_E_END
    assert native.next_due(native, 5000) == NEVER


def test_a_wire_not_started_starts_when_asked(make: Make) -> None:
    wire = make(pcap(timed(3)), speed="x1")
    assert [f.ts for f in receive_all(wire.native, now=777)] == [777]


def test_max_gives_all_frames_now(make: Make) -> None:
    wire = make(pcap(timed(100)), speed="max")
    assert {f.ts for f in receive_all(wire.native, now=42)} == {42}
    assert wire.pacing_error().count == 0


def test_pacing_error_is_within_a_bucket(make: Make) -> None:
    wire = make(pcap(timed(1000, gap=0)), speed="pps=1G").start(0)
    native, frames = wire.native, ffi.new("struct exo_frame *")
    for k in range(1000):
        assert native.receive(native, frames, 1, k + k * 100) == 1
    error = wire.pacing_error()
    assert (error.count, error.max, error.mean) == (1000, 99_900, 49_950)
    assert 50_000 <= error.p50 <= 50_000 * 1.04
    assert 99_000 <= error.p99 <= 99_900


@pytest.mark.parametrize("ns", [0, 1, 31, 32, 33, 63, 64, 65, 1000, 2**32, 2**63, 2**64 - 1])
def test_every_delay_has_a_bucket(ns: int) -> None:
    delays = ffi.new("struct exo_delays *")
    lib.exo_delays_record(delays, ns, 1)
    assert lib.exo_delays_quantile(delays, 500_000) == ns == lib.exo_delays_quantile(delays, 1_000_000)
    if ns < 2**63:
        lib.exo_delays_record(delays, 2**64 - 1, 1)
        assert ns <= lib.exo_delays_quantile(delays, 0) <= ns * 33 / 32


def test_no_delays_no_quantile() -> None:
    assert lib.exo_delays_quantile(ffi.new("struct exo_delays *"), 500_000) == 0
