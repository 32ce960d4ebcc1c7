# SPDX-License-Identifier: MIT
"""Traces for the benchmarks: distinct 64-byte UDP frames in a pcap file, the same for the same seed."""

import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SIZE = 64
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
_ETHERNET = bytes.fromhex("0200000000020200000000010800")


class Goal(NamedTuple):
    """Where a frame goes: the last byte of 10.7.0.x, the port, and from which peer; None: from any, its own."""

    host: int = 2
    port: int = 53
    peer: int | None = None


_ANY = Goal()


def source(peer: int) -> tuple[int, int]:
    """Address and port of a peer by its number."""
    return 0x0A000000 | peer & 0xFFFFFF, 1024 + peer % 60000


def checksum(header: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(number: int, payload: bytes, goal: Goal = _ANY) -> bytes:
    """64 bytes: payload and, unless told otherwise, flow differ with `number`; the IPv4 checksum is right, UDP's 0."""
    address, port = source(number if goal.peer is None else goal.peer)
    addresses = struct.pack(">I", address) + bytes((10, 7, 0, goal.host))
    bare = struct.pack(">BBHHHBBH", 0x45, 0, SIZE - 14, number & 0xFFFF, 0, 64, 17, 0) + addresses
    header = bare[:10] + struct.pack(">H", checksum(bare)) + bare[12:]
    return _ETHERNET + header + struct.pack(">HHHH", port, goal.port, SIZE - 34, 0) + payload


def write_trace(
    path: Path,
    count: int,
    seed: int = 1,
    distinct: int | None = None,
    goals: Sequence[Goal] = (_ANY,),
) -> Path:
    """`count` frames, 1 microsecond apart; the first `distinct` of them (all, unless told otherwise) repeat.

    goals: one after the other in an order of their own, so that each gets as many.
    """
    draw = random.Random(seed)
    unique = min(count, distinct or count)
    goes = [goals[number % len(goals)] for number in range(unique)]
    random.Random(seed).shuffle(goes)
    frames = [udp_frame(number, draw.randbytes(SIZE - 42), goes[number]) for number in range(unique)]
    with path.open("wb") as file:
        file.write(_FILE_HEADER)
        for start in range(0, count, unique):
            numbers = range(start, min(count, start + unique))
            file.write(b"".join(_record(number) + frames[number - start] for number in numbers))
    return path


def _record(number: int) -> bytes:
    return struct.pack("<IIII", 1_700_000_000 + number // 1_000_000, number % 1_000_000, SIZE, SIZE)
