# SPDX-License-Identifier: MIT
"""Traces for the benchmarks: distinct 64-byte UDP frames in a pcap file, the same for the same seed."""

import random
import struct
from pathlib import Path

SIZE = 64
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
_ETHERNET = bytes.fromhex("0200000000020200000000010800")


def checksum(header: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(number: int, payload: bytes) -> bytes:
    """64 bytes: flow and payload differ with `number`; the IPv4 checksum is right, UDP's is left out (0)."""
    source, target = struct.pack(">I", 0x0A000000 | number & 0xFFFFFF), b"\x0a\x07\x00\x02"
    bare = struct.pack(">BBHHHBBH", 0x45, 0, SIZE - 14, number & 0xFFFF, 0, 64, 17, 0) + source + target
    header = bare[:10] + struct.pack(">H", checksum(bare)) + bare[12:]
    return _ETHERNET + header + struct.pack(">HHHH", 1024 + number % 60000, 53, SIZE - 34, 0) + payload


def write_trace(path: Path, count: int, seed: int = 1, distinct: int | None = None) -> Path:
    """`count` frames, 1 microsecond apart; the first `distinct` of them (all, unless told otherwise) repeat."""
    draw = random.Random(seed)
    unique = min(count, distinct or count)
    frames = [udp_frame(number, draw.randbytes(SIZE - 42)) for number in range(unique)]
    with path.open("wb") as file:
        file.write(_FILE_HEADER)
        for start in range(0, count, unique):
            numbers = range(start, min(count, start + unique))
            file.write(b"".join(_record(number) + frames[number - start] for number in numbers))
    return path


def _record(number: int) -> bytes:
    return struct.pack("<IIII", 1_700_000_000 + number // 1_000_000, number % 1_000_000, SIZE, SIZE)
