# SPDX-License-Identifier: MIT
"""Reading captures: into memory, and streamed through a window."""

from collections.abc import Iterator
from pathlib import Path

from exonet.abi import check, ffi, lib
from exonet.clock import Stopwatch
from exonet.errors import RunError
from exonet.lab.bench import Context, Figure, Target
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.bench.bench_frames import write_trace

RECORDS = 2_000_000
WINDOW = 4 << 20
BURST = 256


def _file(context: Context) -> tuple[Path, int]:
    count = context.size(RECORDS, 60_000)
    path = context.work / "records.pcap"
    return (path if path.exists() else write_trace(path, count, context.seed, distinct=100_000)), count


def load(context: Context) -> Iterator[Figure]:
    """Loading a pcap file of 64-byte frames into memory, from the page cache"""
    path, count = _file(context)
    path.read_bytes()
    rates = []
    for _ in context.repeat():
        watch = Stopwatch()
        with Trace.load(path, memory_limit=1 << 34) as trace:
            if trace.streamed or len(trace) != count:
                raise RunError(f"{path.name}: {len(trace)} of {count} records loaded")
            rates.append(count / watch.seconds)
            memory = trace.memory
    yield Figure("load", "frames/s", tuple(rates), Target(5e6), {"records": count, "bytes": memory})


def stream(context: Context) -> Iterator[Figure]:
    """Streaming the same file through a window of bounded memory, up to the NIC's door"""
    path, count = _file(context)
    path.read_bytes()
    rates, growth = [], []
    for _ in context.repeat():
        before = _resident()
        with Trace.load(path, memory_limit=WINDOW) as trace, PcapWire(trace, speed="max") as wire:
            if not trace.streamed:
                raise RunError(f"{path.name}: not streamed with a limit of {WINDOW} bytes")
            watch = Stopwatch()
            frames, seen, peak = _drain(wire, before)
            rates.append(frames / watch.seconds)
            growth.append(peak)
        if frames != count:
            raise RunError(f"{path.name}: {frames} of {count} frames streamed ({seen} bytes)")
    yield Figure("stream", "frames/s", tuple(rates), Target(3e6), {"records": count, "window": WINDOW})
    yield Figure("memory grown", "MiB", tuple(growth), Target(4 * WINDOW / 2**20, at_most=True))


def _drain(wire: PcapWire, before: int) -> tuple[int, int, float]:
    """Frames, bytes, and the most that memory grew (MiB), looking every 64 Ki frames."""
    native, burst = wire.native, ffi.new("struct exo_frame[]", BURST)
    receive = native.receive
    frames, peak, look = 0, 0, 0
    while (n := receive(native, burst, BURST, 0)) > 0:
        frames += n
        if frames >= look:
            peak = max(peak, _resident() - before)
            look += 1 << 16
    if n != lib.EXO_E_END:
        check(n, f"wire {wire.name}")
    return frames, int(native.rx_bytes), peak / 2**20


def _resident() -> int:
    """Resident set of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
