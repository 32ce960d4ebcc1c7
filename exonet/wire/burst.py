# SPDX-License-Identifier: MIT
"""Frames of a wire as Python bytes, a burst at a time: for scapy, for tests and for small scripts. A machine moves
them in C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exonet.abi import check, ffi, lib
from exonet.wire.link import Wire

BURST: int = lib.EXO_BURST


@dataclass(frozen=True, slots=True)
class Received:
    """One frame that a wire gave. Times are ns: `ts` of the machine's clock, `stamp` of the capture (0: none)."""

    data: bytes
    wire_len: int
    ts: int
    stamp: int
    id: int
    flags: int


def receive(wire: Wire, now: int, limit: int = BURST) -> list[Received] | None:
    """At most `limit` frames due at or before `now`; empty: none now; None: there will be no more. Raises RunError."""
    frames = ffi.new("struct exo_frame[]", limit)
    count = wire.native.receive(wire.native, frames, limit, now)
    if count == lib.EXO_E_END:
        return None
    check(count, f"wire {wire.name}: receive")
    return [
        Received(bytes(ffi.buffer(f.data, f.len)) if f.len else b"", f.wire_len, f.ts, f.stamp, f.id, f.flags)
        for f in frames[0:count]
    ]


def send(wire: Wire, frames: Sequence[bytes], now: int, sender: int = 0) -> int:
    """Hands frames to the wire and returns how many it took. `sender` is the environment's number, 0: none. Raises
    RunError.
    """
    native = ffi.new("struct exo_frame[]", max(len(frames), 1))
    alive = [ffi.from_buffer("uint8_t[]", data) for data in frames]
    for frame, data in zip(native, alive, strict=False):
        frame.data, frame.len, frame.wire_len = data, len(data), len(data)
        frame.ts, frame.sender = now, sender
    return check(wire.native.send(wire.native, native, len(frames), now), f"wire {wire.name}: send")


def next_due(wire: Wire, now: int) -> int | None:
    """The earliest ns at which `receive` may give a frame without the wire's descriptor becoming readable; None:
    never.
    """
    due: int = wire.native.next_due(wire.native, now)
    return None if due == 2**64 - 1 else due


def held(wire: Wire) -> int:
    """Frames inside the wire, on their way in."""
    count: int = wire.native.held(wire.native)
    return count
