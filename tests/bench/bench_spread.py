# SPDX-License-Identifier: MIT
"""The whole receive path with many owners: a trace in memory to sinks in processes, 1,000 bindings of two shapes,
beside testpmd. Each sink must have had its own frames, by their digest, and no other's.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from exonet.kernel.boot import LibOSSpec
from exonet.lab.bench import Context, Figure, Skip, Target, ratio
from exonet.wire.capture import Trace
from exonet.wording import counted
from tests.bench.bench_frames import Goal, source, write_trace
from tests.bench.bench_path import DISTINCT, FRAMES, Delivery, Share, deliver, sink, testpmd

ENVIRONMENTS = 8
COUNTS = (1, 2, 4, 8, 16)
BINDINGS = 1000
HOST, PORT = 2, 1000
#: The first number of a peer: far from those of the frames' own sources.
PEERS = 0xC00000
#: Where a frame has the last byte of its destination.
LAST_BYTE = 33


@dataclass(frozen=True, slots=True)
class Spread:
    """A trace over all bindings of some sinks, the sinks, what each is to have of one loop, and how many there are."""

    file: Path
    specs: list[LibOSSpec]
    shares: dict[str, Share]
    loops: int


def goals(env: int, count: int) -> list[Goal]:
    """What the bindings of one environment take: every other is a listener, the next one connected to its port.

    So a frame is of the one shape or the other, and both look at every frame that is the listener's.
    """
    listeners = [Goal(HOST + env, PORT + number // 2) for number in range(count)]
    return [go._replace(peer=PEERS + env * count + n) if n % 2 else go for n, go in enumerate(listeners)]


def filter_of(goal: Goal) -> str:
    """A listener's filter, or a connected socket's."""
    text = f"ip and udp and dst host 10.7.0.{goal.host} and dst port {goal.port}"
    if goal.peer is None:
        return text
    address, port = source(goal.peer)
    return f"{text} and src host {ip_address(address)} and src port {port}"


def spread_trace(context: Context, environments: int, *, process: bool = True) -> Spread:
    """Frames for every binding alike, and whose each is by where it goes, which no filter is asked about."""
    distinct = context.size(DISTINCT, 1000)
    each = context.size(BINDINGS, 16) // ENVIRONMENTS
    goes = {f"sink{env}": goals(env, each) for env in range(environments)}
    path = context.work / f"spread{environments}.pcap"
    file = write_trace(path, distinct, context.seed, goals=[go for some in goes.values() for go in some])
    specs = [sink(name, [filter_of(go) for go in some], process=process) for name, some in goes.items()]
    with Trace.load(file) as trace:
        frames = [bytes(frame) for frame in trace]
    shares = {
        f"sink{env}": Share.of(frame for frame in frames if frame[LAST_BYTE] == HOST + env)
        for env in range(environments)
    }
    return Spread(file, specs, shares, context.size(FRAMES, 20_000) // distinct)


def spread(context: Context) -> Iterator[Figure]:
    """The same with 1,000 listeners and connected sockets of 8 LibOSes in processes, the kernel on a core of its own"""
    if os.geteuid() != 0:
        raise Skip("a LibOS in a process of its own needs root; run as root")
    made = spread_trace(context, ENVIRONMENTS)
    runs: list[Delivery] = []
    anywhere: list[float] = []
    peers: list[float] = []
    missing = None
    with Trace.load(made.file) as trace:
        run = partial(deliver, trace, made.loops, context.seed, made.specs, shares=made.shares)
        for _ in context.repeat():
            runs.append(run(apart=True))
            try:
                peers.append(_peer(context, made.file))
            except Skip as reason:
                missing = str(reason)
            if not context.toy:
                anywhere.append(run().rate)
    details = {"environments": len(made.specs), "bindings": sum(len(spec.bindings) for spec in made.specs)}
    details |= {"frames": runs[0].frames, "cores": len(os.sched_getaffinity(0)), "protection": runs[0].protection}
    ours = Figure("8 sinks in processes", "frames/s", tuple(run.rate for run in runs), Target(10e6), details)
    kernel = Figure("kernel's own time", "ns/frame", tuple(run.kernel_seconds * 1e9 / run.frames for run in runs))
    peer = Figure("dpdk testpmd rxonly", "frames/s", tuple(peers), skipped=missing)
    yield from (ours, kernel, peer, ratio("ratio to testpmd", ours, peer))
    why = None if anywhere else "not at toy size"
    yield Figure("no core set apart", "frames/s", tuple(anywhere), skipped=why)
    for count in COUNTS if not context.toy else COUNTS[-1:]:
        yield _anywhere(context, count)


def _anywhere(context: Context, environments: int) -> Figure:
    """The rate with no core set apart, in parts of that with one: pairs of runs."""
    made = spread_trace(context, environments)
    with Trace.load(made.file) as trace:
        run = partial(deliver, trace, made.loops, context.seed, made.specs, shares=made.shares)
        found = tuple(run().rate / run(apart=True).rate for _ in context.repeat())
    return Figure(f"no core set apart to --core, {counted(environments, 'sink')}", "ratio", found, Target(0.8))


def _peer(context: Context, file: Path) -> float:
    if context.toy:
        raise Skip("the row path tries testpmd at toy size")
    return testpmd(file, 2)
