# SPDX-License-Identifier: MIT
"""Structured fuzzing of the capture reader: lengths, types and counts that lie. No crash; streamed == loaded."""

import gzip
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from exonet.errors import CaptureError
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.effort import tries
from tests.fakes.captures import BASE, Ng, frame_bytes, pcap, receive_all
from tests.fakes.link_layers import BAD, GOOD, PACKETS

_SMALL = (0, 1, 3, 4, 8, 11, 12, 13, 16, 20, 28, 31, 32, 36, 60, 64)
SAMPLES = [(link, make(*PACKETS[0])) for _, link, make in GOOD] + [(link, data) for _, link, data in BAD]
LIES = (*_SMALL, 65535, 65536, 131072, 131076, 262144, 262145, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)


def some_pcap(rng: random.Random) -> bytes:
    frames = [(rng.randrange(10**9), frame_bytes(i, rng.choice((0, 1, 14, 60, 1514)))) for i in range(rng.randrange(8))]
    kinds = {"nano": rng.random() < 0.3, "modified": rng.random() < 0.2, "order": rng.choice("<>")}
    link, data = rng.choice(SAMPLES)
    if rng.random() < 0.5:
        frames += [(i, data[: rng.randrange(len(data) + 1)]) for i in range(rng.randrange(4))]
    return pcap(frames, link_type=rng.choice((1, link, link | 0x24000000)), **kinds)


def some_pcapng(rng: random.Random) -> bytes:
    ng = Ng(rng.choice("<>")).section().interface(rng.choice((1, 1, 1, 113)), rng.choice((0, 40)))
    link, foreign = rng.choice(SAMPLES)
    ng.interface(link, options=[(13, rng.choice((b"\x04", b"\x20", b"\xff")))] if rng.random() < 0.3 else ())
    for i in range(rng.randrange(10)):
        data = frame_bytes(i, rng.choice((0, 1, 14, 60, 1514)))
        match rng.randrange(9):
            case 0:
                ng.section(rng.choice("<>")).interface(options=[(9, rng.randbytes(1)), (14, rng.randbytes(8))])
            case 1:
                ng.simple(data)
            case 2:
                ng.obsolete(BASE * 10**6 + i, data)
            case 3:
                ng.block(rng.choice((4, 5, 9, 10, 0xBAD, 0x40000BAD)), rng.randbytes(rng.randrange(50)))
            case 4 | 5:
                ng.packet(
                    BASE * 10**6 + i, foreign, options=rng.choice((b"", struct.pack("<HHI", 2, 4, rng.randrange(512))))
                )
            case 6:
                ng.section().interface(link).simple(foreign[: rng.randrange(len(foreign) + 1)]).interface()
            case _:
                ng.packet(BASE * 10**6 + i, data, options=bytes(4 * rng.randrange(3)))
    return ng.out


def lie(data: bytes, rng: random.Random) -> bytes:
    """One to four mutations, most of them of aligned words: that is where lengths stand."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = 4 * rng.randrange(max(1, len(out) // 4))
        match rng.randrange(6):
            case 0 | 1 | 2 if at + 4 <= len(out):
                word = struct.unpack_from("<I", out, at)[0]
                value = rng.choice((*LIES, word + 4, word - 4, word ^ 1, word + 1)) & 0xFFFFFFFF
                struct.pack_into(rng.choice("<>") + "I", out, at, value)
            case 3:
                del out[at : at + rng.randrange(1, 40)]
            case 4:
                out[at:at] = rng.randbytes(rng.randrange(1, 12))
            case _ if out:
                out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def look(path: Path, limit: int) -> object:
    """All that can be seen of a file: its records, what is said about them, or the refusal."""
    try:
        trace = Trace.load(path, limit)
    except CaptureError as error:
        return str(error)
    frames = [(f.stamp, f.wire_len, f.snapped, f.reason, f.data) for f in trace]
    assert len(frames) == trace.count
    wire = PcapWire(trace, speed="max", loop=2)
    given = receive_all(wire.native)
    assert [f.data for f in given] == 2 * [f[4] for f in frames if not f[3]]
    wire.close()
    return frames, trace.broken, trace.digest(), trace.interfaces, trace.snapped, trace.first_timestamp


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [some_pcap, some_pcapng])
def test_invariant_5_a_lying_capture_is_read_alike_loaded_and_streamed(
    tmp_path: Path, make: Callable[[random.Random], bytes], seed: int
) -> None:
    rng = random.Random(seed)
    path = tmp_path / "capture"
    for number in range(tries(60)):
        data = lie(make(rng), rng)
        if number % 5 == 4:
            data = gzip.compress(data, 1)
            data = lie(data, rng) if number % 10 == 9 else data
        path.write_bytes(data)
        assert look(path, 1 << 30) == look(path, 1), (seed, number)


@pytest.mark.parametrize("seed", range(2))
def test_invariant_5_noise_is_no_capture(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "capture"
    heads = [bytes.fromhex(text) for text in ("d4c3b2a1", "a1b23c4d", "34cdb2a1", "0a0d0d0a", "1f8b08", "")]
    for _ in range(tries(150)):
        path.write_bytes(rng.choice(heads) + rng.randbytes(rng.randrange(200)))
        assert look(path, 1 << 30) == look(path, 1)


@pytest.mark.parametrize("seed", range(3))
def test_records_across_every_edge_of_a_window(tmp_path: Path, seed: int) -> None:
    """A file of several windows, records of every size: what a window cuts must come whole."""
    rng = random.Random(seed)
    ng = Ng().section().interface()
    sizes = [rng.choice((0, 1, 60, 1514, 9000, 65_535, 70_000, 140_000)) for _ in range(120)]
    for i, size in enumerate(sizes):
        ng.packet(BASE * 10**6 + i, rng.randbytes(8) + bytes(max(0, size - 8)) if size >= 8 else bytes(size))
        if rng.random() < 0.1:
            ng.block(0xBAD, bytes(rng.randrange(300_000)))
    frames = [(i * 1000, frame_bytes(i, size)) for i, size in enumerate(sizes)]
    for data in (ng.out, pcap(frames, snaplen=262_144), gzip.compress(ng.out, 1)):
        path = tmp_path / "capture"
        path.write_bytes(data)
        assert look(path, 1 << 30) == look(path, 1)
