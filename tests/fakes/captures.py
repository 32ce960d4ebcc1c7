# SPDX-License-Identifier: MIT
"""Writers of capture files, field by field, so that a test can make every variant and every lie."""

import gzip
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from exonet.abi import ffi, lib

__all__ = ["BASE", "Ng", "Wired", "frame_bytes", "pcap", "receive_all", "record", "timed"]

BASE = 1_700_000_000
"""Seconds since the epoch at which the generated captures begin."""

Timed = tuple[int, bytes]
"""(ns since BASE, bytes)."""


def frame_bytes(number: int, size: int = 60) -> bytes:
    """An Ethernet frame of an experimental type whose bytes tell its number."""
    head = bytes.fromhex("020000000002") + bytes.fromhex("020000000001") + b"\x88\xb5" + number.to_bytes(4, "big")
    return (head + bytes((number + i) & 255 for i in range(size)))[:size]


def timed(count: int, gap: int = 1000, size: int = 60) -> list[Timed]:
    return [(i * gap, frame_bytes(i, size)) for i in range(count)]


def record(
    order: str, ns: int, data: bytes, *, nano: bool = False, wire_len: int | None = None, extra: bytes = b""
) -> bytes:
    seconds, rest = divmod(ns, 10**9)
    length = len(data) if wire_len is None else wire_len
    fields = struct.pack(order + "IIII", BASE + seconds, rest if nano else rest // 1000, len(data), length)
    return fields + extra + data


def pcap(
    frames: Sequence[Timed],
    *,
    order: str = "<",
    nano: bool = False,
    modified: bool = False,
    link_type: int = 1,
    snaplen: int = 65535,
    version: tuple[int, int] = (2, 4),
    compress: bool = False,
) -> bytes:
    """A classic pcap file."""
    magic = 0xA1B2CD34 if modified else 0xA1B23C4D if nano else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, link_type)
    extra = bytes(8) if modified else b""
    out += b"".join(record(order, ns, data, nano=nano, extra=extra) for ns, data in frames)
    return gzip.compress(out, mtime=0) if compress else out


@dataclass
class Ng:
    """A pcapng file, block by block."""

    order: str = "<"
    out: bytes = b""
    starts: list[int] = field(default_factory=list)

    def block(self, kind: int, body: bytes, length: int | None = None, trailer: int | None = None) -> "Ng":
        body += bytes(-len(body) % 4)
        size = len(body) + 12 if length is None else length
        self.starts.append(len(self.out))
        again = struct.pack(self.order + "I", size if trailer is None else trailer)
        self.out += struct.pack(self.order + "II", kind, size) + body + again
        return self

    def section(self, order: str | None = None, version: tuple[int, int] = (1, 0)) -> "Ng":
        self.order = order or self.order
        return self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, *version, -1))

    def interface(self, link_type: int = 1, snaplen: int = 0, options: Sequence[tuple[int, bytes]] = ()) -> "Ng":
        body = struct.pack(self.order + "HHI", link_type, 0, snaplen)
        for code, value in options:
            body += struct.pack(self.order + "HH", code, len(value)) + value + bytes(-len(value) % 4)
        return self.block(1, body + (struct.pack(self.order + "HH", 0, 0) if options else b""))

    def packet(
        self,
        ticks: int,
        data: bytes,
        *,
        interface: int = 0,
        wire_len: int | None = None,
        options: bytes = b"",
        **kw: Any,
    ) -> "Ng":
        length = len(data) if wire_len is None else wire_len
        body = struct.pack(self.order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), length) + data
        return self.block(6, body + bytes(-len(body) % 4) + options, **kw)

    def simple(self, data: bytes, wire_len: int | None = None) -> "Ng":
        return self.block(3, struct.pack(self.order + "I", len(data) if wire_len is None else wire_len) + data)

    def obsolete(self, ticks: int, data: bytes, *, interface: int = 0) -> "Ng":
        head = struct.pack(
            self.order + "HHIIII", interface, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)
        )
        return self.block(2, head + data)


@dataclass(frozen=True, slots=True)
class Wired:
    """A frame that a wire gave, copied out of it."""

    id: int
    ts: int
    stamp: int
    data: bytes
    wire_len: int
    flags: int


def _copies(frames: Any, n: int) -> Iterator[Wired]:
    for i in range(n):
        f = frames[i]
        yield Wired(f.id, f.ts, f.stamp, ffi.buffer(f.data, f.len)[:] if f.len else b"", f.wire_len, f.flags)


def receive_all(native: Any, *, now: int | None = None, burst: int = 7, most: int = 1_000_000) -> list[Wired]:
    """Everything a wire gives: at `now`, or else by jumping from due time to due time until it ends."""
    frames = ffi.new("struct exo_frame[]", burst)
    found: list[Wired] = []
    clock = 0 if now is None else now
    while len(found) < most:
        n = native.receive(native, frames, burst, clock)
        if n == lib.EXO_E_END:
            break
        assert n >= 0, n
        found.extend(_copies(frames, n))
        due = native.next_due(native, clock)
        if n == 0:
            if now is not None and due > now:
                break
            clock = max(clock, due)
    return found
