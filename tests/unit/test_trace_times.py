# SPDX-License-Identifier: MIT
"""A capture's times: what `info` tells of them, compared with capinfos, and that nothing is changed in silence."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.lab.notes import odd_times, trace_notes
from exonet.wire.capture import Trace
from tests.conftest import every_capture
from tests.fakes.captures import BASE, Ng, frame_bytes, pcap

NS = 10**9
EITHER = pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
LAST = 2**63 - 1


def load(tmp_path: Path, data: bytes, limit: int) -> Trace:
    path = tmp_path / "capture"
    path.write_bytes(data)
    return Trace.load(path, limit)


def interface(*options: tuple[int, bytes]) -> Ng:
    return Ng().section().interface(options=options)


def classic(*stamps: tuple[int, int], nano: bool = False) -> bytes:
    """Records with these seconds and fractions, as they are."""
    return pcap([], nano=nano) + b"".join(struct.pack("<IIII", *stamp, 1, 1) + b"x" for stamp in stamps)


@EITHER
def test_steps_back_and_gaps(tmp_path: Path, limit: int) -> None:
    seconds = [100, 102, 50, 50, 111, 8000]
    trace = load(tmp_path, pcap([(s * NS, frame_bytes(i)) for i, s in enumerate(seconds)]), limit)
    times = trace.times
    assert (times.earliest, times.latest, times.duration) == ((BASE + 50) * NS, (BASE + 8000) * NS, 7950 * NS)
    assert list(odd_times(trace)) == [
        "1 step back, by 52.0 s at most",
        "2 gaps longer than a minute, the longest 7889 s before packet 6",
    ]
    assert trace_notes(trace) == ()


@EITHER
def test_a_capture_that_begins_at_0(tmp_path: Path, limit: int) -> None:
    trace = load(tmp_path, classic((0, 0), (2, 0), (1, 5)), limit)
    assert (trace.first_timestamp, trace.times.stamped, trace.times.duration) == (0, 3, 2 * NS)


@EITHER
@pytest.mark.parametrize(("nano", "unit"), [(False, 1000), (True, 1)])
def test_fractions_of_a_second_or_more(tmp_path: Path, limit: int, nano: bool, unit: int) -> None:
    most = NS // unit
    trace = load(tmp_path, classic((5, most - 1), (5, most), (6, 2**32 - 1), nano=nano), limit)
    assert [f.stamp for f in trace] == [6 * NS - unit, 6 * NS, 6 * NS + (2**32 - 1) * unit]
    said = "2 times with a fraction of a second or more, added to the seconds as it is"
    assert list(odd_times(trace))[-1] == said
    assert trace_notes(trace) == (f"{trace.path}: {said}",)


@EITHER
@pytest.mark.parametrize(
    ("options", "ticks", "stamp", "odd"),
    [
        ([(9, b"\x09")], LAST, LAST, []),
        ([(9, b"\x09")], 2**63, LAST, ["1 time before 1970 or after 2262-04-11, taken as that day"]),
        ([(9, b"\x06")], 2**64 - 1, LAST, ["1 time before 1970 or after 2262-04-11, taken as that day"]),
        (
            [(14, struct.pack("<q", -10))],
            9_999_999,
            0,
            [
                "1 time before 1970 or after 2262-04-11, taken as that day",
                "interface 0: -10 s are added (if_tsoffset)",
            ],
        ),
        ([(14, struct.pack("<q", 3600))], 1, 3600 * NS + 1000, ["interface 0: 3,600 s are added (if_tsoffset)"]),
        ([(9, b"\x03")], 7, 7_000_000, ["interface 0: ticks of 10^-3 s"]),
        ([(9, b"\x0c")], 1999, 1, ["interface 0: ticks of 10^-12 s, rounded down to nanoseconds"]),
        ([(9, b"\x94")], 3, 2861, ["interface 0: ticks of 2^-20 s, rounded down to nanoseconds"]),
        ([(9, b"\x14")], 10**11, 1, ["interface 0: ticks of 10^-20 s, of which 64 bits hold no second"]),
        ([(9, b"\x7f")], 2**64 - 1, 0, ["interface 0: ticks of 10^-127 s, of which 64 bits hold no second"]),
        ([(9, b"\xc0")], 2**64 - 1, NS - 1, ["interface 0: ticks of 2^-64 s, of which 64 bits hold no second"]),
        ([(9, b"\xff")], 2**64 - 1, 0, ["interface 0: ticks of 2^-127 s, of which 64 bits hold no second"]),
    ],
)
def test_resolutions_and_offsets(
    tmp_path: Path, limit: int, options: list[tuple[int, bytes]], ticks: int, stamp: int, odd: list[str]
) -> None:
    trace = load(tmp_path, interface(*options).packet(ticks, b"x").out, limit)
    assert [f.stamp for f in trace] == [stamp]
    assert list(odd_times(trace)) == odd
    assert len(trace_notes(trace)) == any("taken as" in text for text in odd)


@EITHER
def test_packets_without_a_timestamp(tmp_path: Path, limit: int) -> None:
    trace = load(tmp_path, interface().simple(b"a").packet(5, b"b").simple(b"c").out, limit)
    assert list(odd_times(trace)) == ["2 packets without a timestamp"]
    assert (trace.first_timestamp, trace.times.stamped) == (5000, 1)


@pytest.mark.parametrize("path", every_capture("*.pcap*"), ids=lambda path: path.name)
def test_the_duration_is_capinfos(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("capinfos") is None:
        pytest.skip("capinfos is not installed: apt-get install wireshark-common")
    command = ["capinfos", "-T", "-r", "-u", "-a", "-e", "-S", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"capinfos does not read {path.name}")
    _, duration, *ends = done.stdout.strip().split("\t")
    assert main(["info", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    times = told["times"]
    if duration == "n/a":  # not every packet has a timestamp, or there is none
        assert times["stamped"] < told["records"] or told["records"] == 0
        return
    if times["clamped"]:  # beyond our clock; capinfos reads such numbers as other times still
        return
    assert times["duration"] == pytest.approx(float(duration) * NS, abs=1000)
    for mine, theirs in zip((times["earliest"], times["latest"]), ends, strict=True):
        assert mine == pytest.approx(float(theirs) * NS, abs=1000)
