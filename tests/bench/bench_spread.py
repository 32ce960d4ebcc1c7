# SPDX-License-Identifier: MIT
"""The whole receive path with many owners: a trace in memory to sinks in processes, 1,000 bindings, beside testpmd."""

import os
from collections.abc import Iterator
from pathlib import Path

from exonet.kernel.boot import LibOSSpec
from exonet.lab.bench import Context, Figure, Skip, Target, ratio
from exonet.wire.capture import Trace
from tests.bench.bench_frames import write_trace
from tests.bench.bench_path import DISTINCT, FRAMES, Delivery, deliver, sink, testpmd

ENVIRONMENTS = 8
BINDINGS = 1000
HOST, PORT = 2, 1000


def filter_of(host: int, port: int) -> str:
    return f"ip and udp and dst host 10.7.0.{host} and dst port {port}"


def spread_trace(context: Context, environments: int, *, process: bool = True) -> tuple[Path, list[LibOSSpec], int]:
    """A trace over all bindings of `environments` sinks, the sinks, and how often to play it."""
    distinct = context.size(DISTINCT, 1000)
    each = context.size(BINDINGS, 16) // ENVIRONMENTS
    goes = [(HOST + env, PORT + port) for env in range(environments) for port in range(each)]
    file = write_trace(context.work / f"spread{environments}.pcap", distinct, context.seed, targets=goes)
    specs = [
        sink(f"sink{env}", [filter_of(HOST + env, PORT + port) for port in range(each)], process=process)
        for env in range(environments)
    ]
    return file, specs, context.size(FRAMES, 20_000) // distinct


def spread(context: Context) -> Iterator[Figure]:
    """The same with 1,000 bindings of 8 LibOSes in processes, the kernel on a core of its own"""
    if os.geteuid() != 0:
        raise Skip("a LibOS in a process of its own needs root; run as root")
    file, specs, loops = spread_trace(context, ENVIRONMENTS)
    runs: list[Delivery] = []
    anywhere: list[float] = []
    peers: list[float] = []
    missing = None
    with Trace.load(file) as trace:
        for _ in context.repeat():
            runs.append(deliver(trace, loops, context.seed, specs, apart=True))
            try:
                peers.append(_peer(context, file))
            except Skip as reason:
                missing = str(reason)
            if not context.toy:
                anywhere.append(deliver(trace, loops, context.seed, specs).rate)
    details = {"environments": len(specs), "bindings": sum(len(spec.bindings) for spec in specs)}
    details |= {"frames": runs[0].frames, "cores": len(os.sched_getaffinity(0)), "protection": runs[0].protection}
    ours = Figure("8 sinks in processes", "frames/s", tuple(run.rate for run in runs), Target(10e6), details)
    kernel = Figure("kernel's own time", "ns/frame", tuple(run.kernel_seconds * 1e9 / run.frames for run in runs))
    peer = Figure("dpdk testpmd rxonly", "frames/s", tuple(peers), skipped=missing)
    yield from (ours, kernel, peer, ratio("ratio to testpmd", ours, peer))
    why = None if anywhere else "not at toy size"
    yield Figure("no core set apart", "frames/s", tuple(anywhere), skipped=why)


def _peer(context: Context, file: Path) -> float:
    if context.toy:
        raise Skip("the row path tries testpmd at toy size")
    return testpmd(file, 2)
