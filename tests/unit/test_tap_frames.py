# SPDX-License-Identifier: MIT
"""The TAP wire's C side over a socket pair in place of a device: errors that no device makes on demand."""

import socket
from collections.abc import Iterator

import pytest

from exonet.abi import ffi, lib
from exonet.errors import RunError
from exonet.wire import burst
from exonet.wire.link import Wire


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Wire]]:
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with Wire(lib.exo_tap_new(near.detach(), 1500), "tap") as wire, far:
        yield far, wire


def test_buffers_of_a_burst_are_apart_by_an_odd_number_of_cache_lines(pair: tuple[socket.socket, Wire]) -> None:
    far, wire = pair
    for _ in range(3):
        far.send(b"x" * 100)
    frames = ffi.new("struct exo_frame[8]")
    assert wire.native.receive(wire.native, frames, 8, 5) == 3
    places = [int(ffi.cast("uintptr_t", frames[place].data)) for place in range(3)]
    stride = places[1] - places[0]
    assert places[2] - places[1] == stride and stride % 64 == 0 and stride // 64 % 2 == 1 and stride >= 1522
    assert places[0] % 64 == 0


def test_a_full_device_takes_fewer(pair: tuple[socket.socket, Wire]) -> None:
    far, wire = pair
    taken = burst.send(wire, [b"x" * 60] * 5000, 0)
    assert 0 < taken < 5000 and burst.send(wire, [b"x" * 60], 0) == 0
    assert lib.exo_tap_counters(wire.native).write_full == 2
    far.recv(100)
    assert burst.send(wire, [b"x" * 60], 0) in (0, 1)
    assert wire.native.tx_frames in (taken, taken + 1)


def test_a_read_error_is_a_frame_of_stage_tap_lost() -> None:
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ledger = ffi.new("struct exo_ledger *")
    with Wire(lib.exo_tap_new(near.detach(), 1500), "tap") as wire:
        wire.native.ledger = ledger
        burst.send(wire, [b"unread"], 0)
        far.close()
        assert burst.receive(wire, 0) == [], "connection reset"
        assert lib.exo_tap_counters(wire.native).read_errors == 1
        assert burst.receive(wire, 0) == [], "end of file"
        assert lib.exo_tap_counters(wire.native).read_errors == 1
    assert getattr(ledger, "in")[lib.EXO_S_TAP] == ledger.drop[lib.EXO_R_TAP_READ_ERROR] == 1
    assert getattr(ledger, "in")[lib.EXO_S_SOURCE] == 0


def test_a_refused_frame_counts_as_an_error_and_is_gone(pair: tuple[socket.socket, Wire]) -> None:
    far, wire = pair
    far.close()
    assert burst.send(wire, [b"x", b"y"], 0) == 2
    assert lib.exo_tap_counters(wire.native).write_errors == 2 and wire.native.tx_frames == 0


def test_a_descriptor_that_is_none_is_an_error() -> None:
    with Wire(lib.exo_tap_new(1_000_000, 1500), "tap") as wire:
        with pytest.raises(RunError, match=r"wire tap: receive: a system call failed: Bad file descriptor"):
            burst.receive(wire, 0)
        with pytest.raises(RunError, match=r"wire tap: send: a system call failed: Bad file descriptor"):
            burst.send(wire, [b"x"], 0)
        assert burst.next_due(wire, 0) is None and burst.held(wire) == 0


def test_frames_of_a_burst_stay_until_the_next_one(pair: tuple[socket.socket, Wire]) -> None:
    far, wire = pair
    for number in range(9):
        far.send(bytes([number]) * 70)
    frames = ffi.new("struct exo_frame[64]")
    count = wire.native.receive(wire.native, frames, 64, 5)
    assert [bytes(ffi.buffer(frames[place].data, frames[place].len)) for place in range(count)] == [
        bytes([number]) * 70 for number in range(9)
    ]
