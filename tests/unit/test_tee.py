# SPDX-License-Identifier: MIT
"""The tee's pcapng file, read back by scapy and by tshark."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from exonet.abi import ffi, lib
from exonet.errors import RunError, UsageError
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable
from exonet.wire.tee import Tee

NAMES = {1: "web", 2: "dns"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.pcapng"


def teed(path: Path, **more: Any) -> tuple[CableEnd, Tee]:
    far, near = cable()
    return far, Tee(near, path, names=NAMES, **more)


def frame_of(number: int, **fields: Any) -> Any:
    frame = ffi.new("struct exo_frame *")
    frame.id = number
    for name, value in fields.items():
        setattr(frame, name, value)
    return frame


def fate(wire: Tee, number: int, reason: int, env: int = 0, **fields: Any) -> None:
    wire.native.fate(wire.native, frame_of(number, **fields), reason, env)


def read_back(path: Path) -> Iterator[tuple[bytes, str, int, int]]:
    """(bytes, comment, ns, original length) of every packet."""
    reader = RawPcapNgReader(str(path))
    try:
        for data, meta in reader:
            comment = meta.comments[0] if hasattr(meta, "comments") else meta.comment
            assert meta.tsresol == 1_000_000_000 and meta.linktype == 1
            yield data, comment.decode(), (meta.tshigh << 32) + meta.tslow, meta.wirelen
    finally:
        reader.close()


def comments(path: Path) -> list[str]:
    return [comment for _, comment, _, _ in read_back(path)]


def ethernet(number: int, length: int = 60) -> bytes:
    return bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5, number]) + bytes(length - 15)


def test_fates_name_themselves_in_order_of_fate(path: Path) -> None:
    far, wire = teed(path, epoch=10**18)
    with far, wire:
        for number in range(4):
            burst.send(far, [ethernet(number, 60 + number)], 100 + number)
        assert len(burst.receive(wire, 200) or []) == 4
        fate(wire, 2, lib.EXO_R_DELIVERED, 1)
        fate(wire, 0, lib.EXO_R_RING_NO_BUFFER, 2)
        fate(wire, 1, lib.EXO_R_DEMUX_NO_MATCH)
    assert list(read_back(path)) == [
        (ethernet(2, 62), "delivered to web", 10**18 + 102, 62),
        (ethernet(0, 60), "ring.no_buffer (dns)", 10**18 + 100, 60),
        (ethernet(1, 61), "demux.no_match", 10**18 + 101, 61),
        (ethernet(3, 63), "in flight", 10**18 + 103, 63),
    ]


def test_sent_frames_are_written_when_the_wire_takes_them(path: Path) -> None:
    far, near = cable(2)
    with far, Tee(near, path, names={1: "echo"}) as wire:
        assert burst.send(wire, [ethernet(1), ethernet(2), ethernet(3)], 5, sender=1) == 2
        fate(wire, 0, lib.EXO_R_SENT, 1)
        data = ffi.from_buffer(refused := ethernet(3))
        fate(wire, 2, lib.EXO_R_TRANSMIT_WIRE_FULL, 1, data=data, len=60, wire_len=60, ts=6)
        fate(wire, 2, lib.EXO_R_TRANSMIT_SPOOFED, 1)
        assert wire.counters().unknown == 1, "a frame without bytes cannot be written"
    assert [(d, c, t) for d, c, t, _ in read_back(path)] == [
        (ethernet(1), "sent by echo", 5),
        (ethernet(2), "sent by echo", 5),
        (refused, "transmit.wire_full (echo)", 6),
    ]


def test_a_group_frame_is_written_once_for_each_fate(path: Path) -> None:
    far, wire = teed(path)
    with far, wire:
        burst.send(far, [b"\xff" * 60], 0)
        burst.receive(wire, 0)
        fate(wire, 0, lib.EXO_R_DELIVERED, 1)
        fate(wire, 0, lib.EXO_R_RING_FULL, 2)
        fate(wire, 0, lib.EXO_R_DELIVERED, 77)
        fate(wire, 0, lib.EXO_R_DELIVERED, 4_000_000_000)
    assert comments(path) == [
        "delivered to web",
        "ring.full (dns)",
        "delivered to environment 77",
        "delivered to environment 4000000000",
    ]


def test_fates_that_are_not_of_this_wire_s_frames_are_counted_only(path: Path) -> None:
    far, wire = teed(path)
    with far, wire:
        burst.send(far, [ethernet(0)], 0)
        burst.receive(wire, 0)
        fate(wire, 99, lib.EXO_R_DELIVERED, 1)
        fate(wire, 0, lib.EXO_R_DELIVERED, 1, flags=lib.EXO_F_LOCAL)
        assert (wire.counters().unknown, wire.counters().written) == (1, 0)
        fate(wire, 0, -1, 1)
    assert comments(path) == ["unknown reason (web)"]


def test_memory_is_bounded_and_what_it_loses_says_so(path: Path) -> None:
    far, wire = teed(path, memory=1 << 16)
    with far, wire:
        for number in range(100):
            burst.send(far, [ethernet(number, 1500)], number)
            burst.receive(wire, number)
        forgotten = wire.counters().forgotten
        assert 50 < forgotten < 70
        fate(wire, 0, lib.EXO_R_DELIVERED, 1)
        fate(wire, 99, lib.EXO_R_DELIVERED, 1)
        assert wire.counters().unknown == 1
    said = comments(path)
    assert said[:forgotten] == ["fate unknown: the tee's memory was full"] * forgotten
    assert said[forgotten] == "delivered to web" and said[forgotten + 1 :] == ["in flight"] * (99 - forgotten)
    assert sorted(data[14] for data, *_ in read_back(path)) == list(range(100))


def test_snapped_and_long_frames_keep_their_lengths(path: Path) -> None:
    far, wire = teed(path)
    with far, wire:
        data = ffi.from_buffer(long := bytes(range(256)) * 256)
        burst.send(far, [long[:65535]], 0)
        far.native.send(far.native, frame_of(1, data=data, len=96, wire_len=1514), 1, 1)
        burst.send(far, [b""], 2)
        assert len(burst.receive(wire, 9) or []) == 3
    assert [(len(data), wirelen) for data, _, _, wirelen in read_back(path)] == [(65535, 65535), (96, 1514), (0, 0)]


def test_a_long_name_is_cut_and_others_may_be_any_text(path: Path) -> None:
    far, wire = teed(path)
    with far, wire:
        wire.name_environment(3, "x" * 1000)
        wire.name_environment(1, "wéb")
        with pytest.raises(UsageError, match="environment 256"):
            wire.name_environment(256, "nobody: no environment has such a number")
        wire.name_environment(257, "a later life where 1 was")
        wire.name_environment(1, "wéb")
        burst.send(far, [ethernet(0)], 0)
        burst.receive(wire, 0)
        fate(wire, 0, lib.EXO_R_DELIVERED, 3)
        fate(wire, 0, lib.EXO_R_DELIVERED, 1)
    first, second = comments(path)
    assert len(first) == 159 and first.startswith("delivered to xxx") and second == "delivered to wéb"


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_comment_direction_number_and_time(path: Path) -> None:
    far, wire = teed(path, epoch=1_700_000_000 * 10**9)
    with far, wire:
        burst.send(far, [ethernet(0), ethernet(1, 61)], 123_456_789)
        burst.receive(wire, 123_456_789)
        fate(wire, 1, lib.EXO_R_DELIVERED, 1)
        burst.send(wire, [ethernet(2, 62)], 2)
    fields = ["frame.comment", "frame.packet_flags_direction", "frame.packet_id", "frame.time_epoch", "frame.len"]
    command = ["tshark", "-r", str(path), "-T", "fields", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["delivered to web", "sent", "in flight"]
    assert [row[1] for row in rows] == ["0x00000001", "0x00000002", "0x00000001"]
    assert [row[2] for row in rows] == ["1", "0", "0"]
    assert rows[0][3] == "1700000000.123456789" and [row[4] for row in rows] == ["61", "62", "60"]


def test_many_packets_go_through_the_buffer(path: Path) -> None:
    far, wire = teed(path)
    with far, wire:
        for number in range(0, 3000, 50):
            burst.send(far, [ethernet(0, 1000)] * 50, number)
            burst.receive(wire, number)
            for place in range(number, number + 50):
                fate(wire, place, lib.EXO_R_DELIVERED, 1)
        assert wire.counters().bytes > 0
        wire.flush()
        assert wire.counters().bytes == path.stat().st_size
        assert wire.describe()["written"] == 3000 and wire.describe()["inner"]["kind"] == "cable"
    assert comments(path) == ["delivered to web"] * 3000


def test_invariant_7_same_run_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        test_memory_is_bounded_and_what_it_loses_says_so(path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_full_disk_is_said_at_close() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    far, wire = teed(Path("/dev/full"))
    burst.send(far, [ethernet(0)], 0)
    burst.receive(wire, 0)
    with pytest.raises(RunError, match=r"tee /dev/full: .*No space left on device"):
        wire.flush()
    with pytest.raises(RunError, match=r"^tee /dev/full: No space left on device: the file ends after 0 bytes$"):
        wire.close()
    wire.close()
    assert wire.inner.native == ffi.NULL
    far.close()


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    a, b = cable()
    with a, b:
        with pytest.raises(UsageError, match=r"^tee .*missing/x: cannot be written: No such file or directory$"):
            Tee(b, tmp_path / "missing" / "x")
        with pytest.raises(UsageError, match=r"memory 1: must be"):
            Tee(b, tmp_path / "x", memory=1)
