# SPDX-License-Identifier: MIT
"""The capture reader on every variant of the formats, generated; and its interfaces, timestamps and flags."""

import gzip
import struct
from pathlib import Path

import pytest

from exonet.abi import lib
from exonet.errors import CaptureError
from exonet.wire.capture import Trace
from tests.fakes.captures import BASE, Ng, frame_bytes, pcap, record, timed

NS = 10**9


def load(tmp_path: Path, data: bytes, **kw: int) -> Trace:
    path = tmp_path / "capture"
    path.write_bytes(data)
    return Trace.load(path, **kw)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(("nano", "modified"), [(False, False), (True, False), (False, True)])
def test_classic_variants(tmp_path: Path, order: str, nano: bool, modified: bool, compress: bool) -> None:
    frames = [
        (0, frame_bytes(0)),
        (1_000_001_000, frame_bytes(1, 1514)),
        (1_000_002_000, b""),
        (2 * NS, frame_bytes(3, 9)),
    ]
    trace = load(tmp_path, pcap(frames, order=order, nano=nano, modified=modified, compress=compress))
    assert [(f.stamp, f.data) for f in trace] == [(BASE * NS + ns, data) for ns, data in frames]
    assert [trace[i] for i in range(len(trace))] == list(trace)
    assert (trace.count, trace.bytes, trace.broken, trace.snapped) == (4, 60 + 1514 + 9, None, 0)
    assert (trace.first_timestamp, trace.last_timestamp) == (BASE * NS, (BASE + 2) * NS)
    assert trace.format == ("pcap (gzip)" if compress else "pcap")


def test_nanoseconds_survive(tmp_path: Path) -> None:
    trace = load(tmp_path, pcap([(123_456_789, frame_bytes(0))], nano=True))
    assert trace[0].stamp == BASE * NS + 123_456_789
    assert trace.interfaces[0].resolution == NS


def test_snaplen_cut_is_flagged(tmp_path: Path) -> None:
    trace = load(tmp_path, pcap([]) + record("<", 0, frame_bytes(0, 20), wire_len=1500))
    assert (trace[0].snapped, trace[0].wire_len, len(trace[0].data), trace.snapped) == (True, 1500, 20, 1)


@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_r07_a_packet_is_no_longer_than_on_the_wire_nor_than_the_snaplen(tmp_path: Path, limit: int) -> None:
    """As tcpdump counts them: `less 60` takes a packet of 98 captured bytes that was 42 bytes long."""
    ng = Ng().section().interface(snaplen=50).packet(0, frame_bytes(0, 98), wire_len=42).packet(0, frame_bytes(1, 98))
    classic = pcap([], snaplen=50) + record("<", 0, frame_bytes(0, 98), wire_len=42)
    for data in (ng.out, classic + record("<", 0, frame_bytes(1, 98))):
        first, second = load(tmp_path, data, memory_limit=limit)
        assert (first.data, first.wire_len, first.snapped) == (frame_bytes(0, 42), 42, False)
        assert (second.data, second.wire_len, second.snapped) == (frame_bytes(1, 50), 98, True)


def test_old_minor_versions_have_their_lengths_swapped(tmp_path: Path) -> None:
    data = pcap([], version=(2, 2)) + struct.pack("<IIII", BASE, 0, 60, 30) + frame_bytes(0, 30)
    trace = load(tmp_path, data)
    assert (trace[0].data, trace[0].wire_len, trace.broken) == (frame_bytes(0, 30), 60, None)


@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_oversize_records_are_fates_and_the_next_ones_survive(tmp_path: Path, limit: int) -> None:
    frames = [(0, frame_bytes(0)), (1000, bytes(70_000)), (2000, frame_bytes(2))]
    trace = load(tmp_path, pcap(frames, snaplen=262144) + record("<", 3000, b"x", wire_len=70_000), memory_limit=limit)
    assert [f.reason for f in trace] == [0, lib.EXO_R_SOURCE_OVERSIZE, 0, lib.EXO_R_SOURCE_OVERSIZE]
    assert (trace.oversize, trace.count, trace.broken) == (2, 4, None)
    assert [f.data for f in trace if not f.reason] == [frame_bytes(0), frame_bytes(2)]


@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_r07_an_fcs_is_no_part_of_the_frame(tmp_path: Path, limit: int) -> None:
    """Of a packet that was cut only what is there of it; by the file's header, the interface or the packet's flags."""
    frame, snapped = frame_bytes(0, 64), frame_bytes(1, 62)
    classic = pcap([(0, frame)], link_type=0x24000001) + record("<", 0, snapped, wire_len=64)
    by_packet = Ng().section().interface().packet(0, frame, options=struct.pack("<HHII", 2, 4, 4 << 5, 0))
    by_packet.packet(0, snapped, wire_len=64, options=struct.pack("<HHIHHI", 2, 4, 4 << 5, 1, 4, 0))
    interfaces = [
        Ng().section().interface(options=[(13, bytes([told]))]).packet(0, frame).packet(0, snapped, wire_len=64).out
        for told in (4, 32)
    ]
    for data in (classic, by_packet.out, *interfaces):
        trace = load(tmp_path, data, memory_limit=limit)
        assert [(f.data, f.wire_len, f.snapped) for f in trace] == [
            (frame[:60], 60, False),
            (snapped[:60], 60, False),
        ]
        assert (trace.fcs, trace.converted, trace.bytes) == (2, 0, 126)
    for told, bytes_ in ((0, 0), (16, 2), (2, 2), (99, 0)):
        trace = load(tmp_path, Ng().section().interface(options=[(13, bytes([told]))]).packet(0, frame).out)
        assert trace.interfaces[0].fcs_bytes == bytes_


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_every_packet_block(tmp_path: Path, order: str) -> None:
    ng = Ng(order).section().block(0x0BAD, b"passed over").interface(snaplen=40)
    ng.packet(BASE * 10**6, frame_bytes(0, 33), wire_len=100, options=struct.pack(order + "HHI", 2, 4, 0))
    ng.simple(frame_bytes(1, 40), wire_len=90).simple(frame_bytes(2, 21)).obsolete(BASE * 10**6 + 5, frame_bytes(3))
    ng.block(5, b"statistics").packet(BASE * 10**6 + 7, b"")
    trace = load(tmp_path, ng.out)
    assert trace.broken is None
    assert [f.data for f in trace] == [
        frame_bytes(0, 33),
        frame_bytes(1, 40),
        frame_bytes(2, 21),
        frame_bytes(3, 40),
        b"",
    ]
    assert [f.stamp for f in trace] == [BASE * NS, 0, 0, BASE * NS + 5000, BASE * NS + 7000]
    assert [f.snapped for f in trace] == [True, True, False, True, False]


def test_sections_of_either_order_have_interfaces_of_their_own(tmp_path: Path) -> None:
    ng = Ng("<").section().interface().interface(113).packet(0, b"sll", interface=1)
    ng.section(">").interface(options=[(9, b"\x09")]).packet(77, frame_bytes(1))
    ng.section("<").interface(0).interface().packet(5, frame_bytes(2), interface=1)
    trace = load(tmp_path, ng.out)
    assert [(f.stamp, f.reason) for f in trace] == [(0, lib.EXO_R_SOURCE_LINK_TYPE), (77, 0), (5000, 0)]
    assert [(i.link_type, i.section) for i in trace.interfaces] == [(1, 0), (113, 0), (1, 1), (0, 2), (1, 2)]
    assert (trace.link_types, trace.not_ethernet) == ((1, 113, 0), 1)


@pytest.mark.parametrize(
    ("options", "ticks", "ns"),
    [
        ([], 1_000_001, 1_000_001_000),
        ([(9, b"\x06")], 9_000_000_000_000_001, 9_000_000_000_000_001_000),
        ([(9, b"\x09")], 7, 7),
        ([(9, b"\x00")], 3, 3 * NS),
        ([(9, b"\x03")], 1234, 1_234_000_000),
        ([(9, b"\x0c")], 123_456, 123),
        ([(9, b"\x7f")], 2**63, 0),
        ([(9, b"\x80")], 2, 2 * NS),
        ([(9, b"\x8a")], 1536, 1_500_000_000),
        ([(9, b"\xa0")], 2**31, 500_000_000),
        ([(9, b"\xff")], 2**63, 0),
        ([(14, struct.pack("<q", 100))], 1, 100 * NS + 1000),
        ([(9, b"\x09"), (14, struct.pack("<q", -1))], NS + 5, 5),
        ([(14, struct.pack("<q", -5))], 1, 0),
        ([(14, struct.pack("<q", 2**63 - 1))], 1, 2**63 - 1),
        ([(9, b"\x00")], 2**64 - 1, 2**63 - 1),
        ([(9, b""), (14, b"123")], 1, 1000),
    ],
)
def test_timestamp_resolutions_and_offsets(
    tmp_path: Path, options: list[tuple[int, bytes]], ticks: int, ns: int
) -> None:
    trace = load(tmp_path, Ng().section().interface(options=options).packet(ticks, frame_bytes(0)).out)
    assert trace[0].stamp == ns


def test_interface_options_are_told(tmp_path: Path) -> None:
    options = [(2, b"eth0"), (13, b"\x04"), (9, b"\x89"), (14, struct.pack("<q", -7))]
    interface = load(tmp_path, Ng().section().interface(snaplen=96, options=options).out).interfaces[0]
    assert (interface.snap_length, interface.fcs_bytes, interface.resolution, interface.offset_s) == (96, 4, 2**9, -7)


@pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
def test_blocks_larger_than_any_window(tmp_path: Path, limit: int) -> None:
    ng = Ng().section().block(0x0BAD, bytes(900_000)).interface()
    ng.packet(1, frame_bytes(0), options=bytes(400_000)).packet(2, bytes(300_000)).packet(3, frame_bytes(2))
    trace = load(tmp_path, ng.out, memory_limit=limit)
    assert [(f.stamp, f.reason) for f in trace] == [(1000, 0), (2000, lib.EXO_R_SOURCE_OVERSIZE), (3000, 0)]
    assert (trace[0] if limit > 1 else next(iter(trace))).data == frame_bytes(0)
    assert (trace.broken, trace.streamed) == (None, limit == 1)


def test_gzip_members_in_a_row_and_padding(tmp_path: Path) -> None:
    whole = pcap(timed(10))
    data = gzip.compress(whole[:100]) + gzip.compress(b"") + gzip.compress(whole[100:]) + bytes(512)
    trace = load(tmp_path, data)
    assert (trace.count, trace.broken, trace.format) == (10, None, "pcap (gzip)")


def test_garbage_after_gzip_is_told(tmp_path: Path) -> None:
    trace = load(tmp_path, pcap(timed(10), compress=True) + b"garbage")
    assert trace.count == 10
    assert "garbage after the compressed data" in (trace.broken or "")


def test_a_fifo_is_loaded_but_cannot_be_streamed(tmp_path: Path) -> None:
    import os
    import threading

    def feed(data: bytes) -> threading.Thread:
        thread = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(data))
        thread.start()
        return thread

    os.mkfifo(tmp_path / "fifo")
    for data in (pcap(timed(100)), pcap(timed(100), compress=True)):
        thread = feed(data)
        assert Trace.load(tmp_path / "fifo").count == 100
        thread.join()
    thread = feed(pcap(timed(100)))
    with pytest.raises(CaptureError, match="cannot be streamed"):
        Trace.load(tmp_path / "fifo", memory_limit=1000)
    thread.join()


def test_indexing(tmp_path: Path) -> None:
    trace = load(tmp_path, pcap(timed(3)))
    assert (trace[-1].number, bytes(trace[0])) == (2, frame_bytes(0))
    for number in (3, -4, 10**18):
        with pytest.raises(IndexError, match="it has 3"):
            trace[number]
    streamed = load(tmp_path, pcap(timed(3)), memory_limit=1)
    with pytest.raises(TypeError, match="is streamed"):
        streamed[0]


def test_closing_is_idempotent_and_told(tmp_path: Path) -> None:
    with load(tmp_path, pcap(timed(3))) as trace:
        assert trace.describe()["records"] == 3
    trace.close()
    with pytest.raises(ValueError, match="closed"):
        _ = trace.count
