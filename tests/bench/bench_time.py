# SPDX-License-Identifier: MIT
"""Pacing: how far from their due times frames leave a trace on the monotonic clock."""

from collections.abc import Iterator

from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.lab.bench import Context, Figure, Target
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.bench.bench_frames import write_trace

RATE = 100_000
SPIN_FOREVER = (1 << 64) - 1


def pace(context: Context) -> Iterator[Figure]:
    """Error of the send times at 100,000 frames/s for 10 s, against the trace's own time line"""
    duration = context.size(10_000_000_000, 100_000_000)
    medians, tails, worst, drifts = [], [], [], []
    with Trace.load(write_trace(context.work / "pace.pcap", 10_000, context.seed)) as trace:
        for _ in context.repeat():
            error, drift = _paced(trace, duration, context.seed)
            medians.append(error.p50 / 1000)
            tails.append(error.p99 / 1000)
            worst.append(error.max / 1000)
            drifts.append(drift / 1000)
    details = {"rate": RATE, "seconds": duration / 1e9}
    yield Figure("pacing error, median", "us", tuple(medians), Target(0.5, at_most=True), details)
    yield Figure("pacing error, p99", "us", tuple(tails), Target(15, at_most=True), details)
    yield Figure("pacing error, most", "us", tuple(worst), details=details)
    yield Figure("drift", "us", tuple(drifts), Target(100, at_most=True), details)


def _paced(trace, duration, seed):
    """The wire's own error quantiles, and how far the count of frames is off the clock at the end, ns."""
    spec = LibOSSpec("sink", libos="sink", bindings=("udp",), local="none", any_address=True, groups="all")
    with (
        PcapWire(trace, speed=f"pps={RATE}", loop=0) as wire,
        Machine(MachineConfig(seed=seed, spin_ns=SPIN_FOREVER)) as machine,
    ):
        port = machine.attach(wire, NicConfig(promiscuous=True, max_frame=1522))
        machine.spawn(spec, port)
        start = machine.now()
        wire.start(start)
        machine.run(start + duration)
        # Frame k is due k / RATE after the start, so n frames are right between (n - 1) and n intervals after it. The
        # run ends with the first burst at or after its deadline: what is out by then is held against the schedule.
        interval = 1_000_000_000 // RATE
        behind = duration - wire.native.rx_frames * interval
        return wire.pacing_error(), max(0, behind, -behind - interval)
