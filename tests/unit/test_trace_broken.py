# SPDX-License-Identifier: MIT
"""Captures that are missing, not captures, or break somewhere: one clear line, or all that stands before the break."""

import gzip
import os
import struct
from pathlib import Path

import pytest

from exonet.errors import CaptureError
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from exonet.wording import counted
from tests.fakes.captures import Ng, frame_bytes, pcap, receive_all, timed


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "capture"
    path.write_bytes(data)
    return path


def refusal(path: Path, **kw: int) -> str:
    with pytest.raises(CaptureError) as caught:
        Trace.load(path, **kw)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and caught.value.exit_code == 2
    return message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"\xd4", "begins with d4; expected pcap, pcapng, or gzip of one"),
        (b"hello, world", "not a capture (byte 0); it begins with 68 65 6c 6c 6f"),
        (pcap([])[:23], "truncated: 24 bytes are wanted, 23 are left"),
        (pcap([], version=(3, 1)), "pcap version 3.1, expected 2.x"),
        (b"\x28\xb5\x2f\xfd rest", "a zstd file"),
        (b"BZh91AY", "a bzip2 file"),
        (b"PK\x03\x04", "a zip file"),
        (gzip.compress(b"", mtime=0), "truncated: 4 bytes are wanted, 0 are left"),
        (gzip.compress(b"not a capture", mtime=0), "begins with 1f 8b 08"),
        (b"\x1f\x8b\x08\x00", "the compressed data is cut off"),
        (b"\x1f\x8b\x08" + b"\xff" * 40, "gzip"),
        (b"\x0a\x0d\x0d\x0a", "truncated"),
        (Ng().section().out[:8] + b"AAAA" + bytes(16), "byte-order mark 0x41414141, expected 0x1a2b3c4d"),
        (Ng().section(version=(2, 0)).out, "pcapng version 2.0, expected 1.x"),
        (Ng().section().simple(b"a").out, "names interface 0, the section describes 0"),
        (struct.pack("<IIIHHq", 0x0A0D0D0A, 30, 0x1A2B3C4D, 1, 0, -1), "section header of 30 bytes"),
    ],
)
@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_what_is_no_capture_is_refused_in_one_line(tmp_path: Path, data: bytes, expected: str, limit: int) -> None:
    assert expected in refusal(write(tmp_path, data), memory_limit=limit)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "none.pcap")
    assert "Is a directory" in refusal(tmp_path)
    assert "not a capture" in refusal(Path("/dev/zero"))


def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, pcap(timed(1)))
    path.chmod(0)
    euid = os.geteuid()
    os.seteuid(65534 if euid == 0 else euid)  # root may read every file
    try:
        assert "Permission denied" in refusal(path)
    finally:
        os.seteuid(euid)


def _ng() -> Ng:
    ng = Ng().section().interface(options=[(9, b"\x09")]).packet(1, frame_bytes(0, 30)).block(0x0BAD, b"unknown")
    return (
        ng.simple(frame_bytes(1, 9))
        .obsolete(3, frame_bytes(2, 14))
        .section(">")
        .interface()
        .packet(4, b"")
        .packet(5, b"abc")
    )


def _modified() -> bytes:
    return pcap([(0, frame_bytes(0, 17)), (1000, b""), (2000, frame_bytes(2, 60))], order=">", modified=True)


@pytest.mark.parametrize("name", ["pcap", "modified", "pcapng"])
@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_cut_at_every_byte_keeps_the_prefix(tmp_path: Path, name: str, limit: int) -> None:
    whole = {"pcap": pcap(timed(3, size=21)), "modified": _modified(), "pcapng": _ng().out}[name]
    every = list(Trace.load(write(tmp_path, whole)))
    counts = []
    for cut in range(len(whole) + 1):
        path = write(tmp_path, whole[:cut])
        try:
            trace = Trace.load(path, memory_limit=limit)
        except CaptureError:
            assert not counts or counts[-1] == 0
            continue
        frames = list(trace)
        assert frames == every[: len(frames)] and len(frames) == trace.count
        counts.append(len(frames))
        if cut == len(whole):
            assert trace.broken is None
        elif trace.broken:
            assert "truncated" in trace.broken and f"after {counted(len(frames), 'record')}:" in trace.broken
    assert counts == sorted(counts) and counts[-1] == len(every) and set(counts) == set(range(len(every) + 1))


def test_a_cut_gzip_file_keeps_what_it_inflates_to(tmp_path: Path) -> None:
    whole = pcap(timed(200), compress=True)
    every = list(Trace.load(write(tmp_path, whole)))
    for cut in range(60, len(whole) - 1, 37):
        path = write(tmp_path, whole[:cut])
        try:
            loaded, streamed = Trace.load(path), Trace.load(path, memory_limit=1)
        except CaptureError:
            continue
        assert list(loaded) == list(streamed) == every[: loaded.count]
        assert loaded.broken == streamed.broken and "cut off" in (loaded.broken or "")


def test_a_wrong_gzip_checksum_is_told_with_its_place(tmp_path: Path) -> None:
    whole = bytearray(pcap(timed(2000), compress=True))
    whole[-8] ^= 1
    trace = Trace.load(write(tmp_path, bytes(whole)))
    assert trace.count == 2000
    assert f"gzip at byte {len(whole) - 4} of the file: incorrect data check" in (trace.broken or "")


@pytest.mark.parametrize(
    ("data", "kept", "expected"),
    [
        (
            pcap(timed(2)) + struct.pack("<IIII", 1, 2, 2**31, 60) + bytes(99),
            2,
            "record 2 claims 2147483648 captured bytes",
        ),
        (
            Ng().section().interface().packet(1, b"a").packet(2, b"b", interface=1).out,
            1,
            "names interface 1, the section describes 1",
        ),
        (
            Ng().section().interface().packet(1, b"a").packet(2, b"b", trailer=44).out,
            1,
            "36 at its start and 44 at its end",
        ),
        (
            Ng().section().interface().packet(1, b"a").block(9, b"", length=14).out,
            1,
            "block of 14 bytes, expected a multiple of 4",
        ),
        (Ng().section().interface().packet(1, b"a").block(9, b"", length=8).out, 1, "block of 8 bytes"),
        (Ng().section().interface().block(6, bytes(8)).out, 0, "packet block of 20 bytes, 32 are the least"),
        (Ng().section().interface().block(3, b"").out, 0, "packet block of 12 bytes, 16 are the least"),
        (Ng().section().interface().block(1, bytes(4)).out, 0, "interface block of 16 bytes, 20 are the least"),
        (Ng().section().interface().block(1, bytes(8) + b"\x09\x00\xff\x00").out, 0, "claims 255 bytes, 0 are left"),
        (Ng().section().interface().block(1, bytes(200_000)).out, 0, "131072 are the most"),
        (
            Ng().section().interface().block(6, struct.pack("<IIIII", 0, 0, 1, 100, 100) + bytes(20)).out,
            0,
            "record 0 claims 100 captured bytes, its block has room for 20",
        ),
        (
            Ng().section().interface().packet(1, b"a").block(7, bytes(90), trailer=1).out,
            1,
            "at its start and 1 at its end",
        ),
    ],
)
@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_what_breaks_later_keeps_what_is_before(
    tmp_path: Path, data: bytes, kept: int, expected: str, limit: int
) -> None:
    trace = Trace.load(write(tmp_path, data), memory_limit=limit)
    assert expected in (trace.broken or "")
    assert len(list(trace)) == trace.count == kept
    assert len(receive_all(PcapWire(trace, speed="max").native)) == kept


def test_too_many_interfaces_are_not_a_way_to_take_the_memory(tmp_path: Path) -> None:
    one = Ng().section().interface()
    head, block = one.out[: one.starts[1]], one.out[one.starts[1] :]
    trace = Trace.load(write(tmp_path, head + block * 65537))
    assert "more than 65535 interfaces" in (trace.broken or "")
    assert len(trace.interfaces) == 65535


def test_r07_a_truncated_trace_replays_what_is_there(tmp_path: Path) -> None:
    whole = pcap(timed(5))
    wire = PcapWire(write(tmp_path, whole[:-1]), speed="max")
    assert [f.data for f in receive_all(wire.native)] == [frame_bytes(i) for i in range(4)]
    assert wire.describe()["trace"]["broken"].endswith(
        "breaks at byte 328, after 4 records: truncated: 76 bytes are wanted, 75 are left"
    )
    wire.close()
    wire.close()


def test_a_file_that_shrinks_under_a_stream_ends_early(tmp_path: Path) -> None:
    path = write(tmp_path, pcap(timed(20_000)))
    trace = Trace.load(path, memory_limit=1)
    os.truncate(path, 24 + 76 * 10_000 + 5)
    assert len(list(trace)) == trace.count == 10_000
    assert "truncated" in (trace.broken or "")


@pytest.mark.parametrize(
    ("left", "told"), [(5, "after 10,000 records: truncated"), (0, "10,000 records: the file has become shorter")]
)
def test_a_file_that_shrinks_after_it_was_read_through_is_broken(tmp_path: Path, left: int, told: str) -> None:
    path = write(tmp_path, pcap(timed(20_000)))
    trace = Trace.load(path, memory_limit=1)
    assert (trace.count, trace.broken) == (20_000, None)
    os.truncate(path, 24 + 76 * 10_000 + left)
    assert len(receive_all(PcapWire(trace, speed="max").native)) == 10_000
    assert told in (trace.broken or "")


def test_a_file_that_shrinks_under_a_loaded_trace_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, pcap(timed(1000)))
    trace = Trace.load(path)
    os.truncate(path, 0)
    assert [f.data for f in trace] == [frame_bytes(i) for i in range(1000)]
