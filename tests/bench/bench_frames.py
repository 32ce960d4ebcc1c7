# SPDX-License-Identifier: MIT
"""Traces for the benchmarks: distinct 64-byte UDP frames in a pcap file, the same for the same seed."""

import random
import struct
from collections.abc import Sequence
from pathlib import Path

SIZE = 64
#: Where a frame goes, unless told otherwise: the last byte of 10.7.0.x, and the port.
TARGET = (2, 53)
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
_ETHERNET = bytes.fromhex("0200000000020200000000010800")


def checksum(header: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(number: int, payload: bytes, host: int = TARGET[0], port: int = TARGET[1]) -> bytes:
    """64 bytes: flow and payload differ with `number`; the IPv4 checksum is right, UDP's is left out (0)."""
    source, target = struct.pack(">I", 0x0A000000 | number & 0xFFFFFF), bytes((10, 7, 0, host))
    bare = struct.pack(">BBHHHBBH", 0x45, 0, SIZE - 14, number & 0xFFFF, 0, 64, 17, 0) + source + target
    header = bare[:10] + struct.pack(">H", checksum(bare)) + bare[12:]
    return _ETHERNET + header + struct.pack(">HHHH", 1024 + number % 60000, port, SIZE - 34, 0) + payload


def write_trace(
    path: Path,
    count: int,
    seed: int = 1,
    distinct: int | None = None,
    targets: Sequence[tuple[int, int]] = (TARGET,),
) -> Path:
    """`count` frames, 1 microsecond apart; the first `distinct` of them (all, unless told otherwise) repeat.

    targets: host and port, one after the other in an order of their own, so that each gets as many.
    """
    draw = random.Random(seed)
    unique = min(count, distinct or count)
    goes = [targets[number % len(targets)] for number in range(unique)]
    random.Random(seed).shuffle(goes)
    frames = [udp_frame(number, draw.randbytes(SIZE - 42), *goes[number]) for number in range(unique)]
    with path.open("wb") as file:
        file.write(_FILE_HEADER)
        for start in range(0, count, unique):
            numbers = range(start, min(count, start + unique))
            file.write(b"".join(_record(number) + frames[number - start] for number in numbers))
    return path


def _record(number: int) -> bytes:
    return struct.pack("<IIII", 1_700_000_000 + number // 1_000_000, number % 1_000_000, SIZE, SIZE)
