# SPDX-License-Identifier: MIT
"""Binding while traffic runs: a hundred thousand sockets come and go at full rate; shapes are compiled at half of it.

Who binds is an inline LibOS, so a system call is a part of the packet loop: what it takes is what it holds that up.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from exonet.abi import lib
from exonet.clock import Stopwatch, monotonic_ns
from exonet.errors import RunError
from exonet.filters.native import available
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Quota
from exonet.kernel.environment import Environment
from exonet.lab.bench import Context, Figure, Skip, Target
from exonet.ledger import Ledger
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.bench.bench_frames import write_trace
from tests.bench.bench_path import DISTINCT, FRAMES, deliver, sink
from tests.fakes.churner import REGION, done, flow

LIVE = 100_000
FEW_FRAMES = 10_000
COMPILES = 100
WARM_NS = 200_000_000
LOOK_NS = 20_000_000
#: Buffers of the sink at half load.
DEEP = 4096
#: Between a bind with a new shape and the unbind.
PAUSE_NS = 10_000_000
#: The steady sink's binding, the churner's listener, and that it is done.
LEFT = 3
STEADY = "udp and dst host 10.7.0.2"
QUOTA = Quota(bindings=1 << 20, conjuncts=1 << 20, shapes=200)


def churner(**options: Any) -> LibOSSpec:
    """The LibOS that binds and unbinds."""
    libos = "tests.fakes.churner:Churner"
    return LibOSSpec("churner", libos=libos, bindings=(REGION,), local="none", quota=QUOTA, options=options)


@dataclass(slots=True)
class Calls:
    """What each system call took, ns, and when it ended, by operation. Wraps a machine's dispatcher."""

    taken: dict[str, list[int]]
    ended: dict[str, list[int]]

    @classmethod
    def of(cls, machine: Machine) -> "Calls":
        calls, handle = cls({}, {}), machine.dispatcher.handle

        def timed(env: Environment, request: Any) -> Any:
            start = monotonic_ns()
            answer = handle(env, request)  # one that is refused is not counted
            end = monotonic_ns()
            calls.taken.setdefault(request.op.name, []).append(end - start)
            calls.ended.setdefault(request.op.name, []).append(end)
            return answer

        machine.dispatcher.handle = timed  # type: ignore[method-assign]
        return calls

    def rate(self, op: str) -> float:
        """Calls per second of wall time, from the first to the last, traffic included."""
        ended = self.ended[op]
        return (len(ended) - 1) * 1e9 / max(1, ended[-1] - ended[0])


def churn(context: Context) -> Iterator[Figure]:
    """100,000 sockets bound and unbound at full rate, and 100 shapes compiled at half of it: what that costs others"""
    yield from _sockets(context)
    yield from _shapes(context)


# ---- sockets ----


def _sockets(context: Context) -> Iterator[Figure]:
    live = context.size(LIVE, 300)
    file = write_trace(context.work / "churn.pcap", context.size(FEW_FRAMES, 500), context.seed)
    with ExitStack() as stack:
        trace = stack.enter_context(Trace.load(file))
        wire = stack.enter_context(PcapWire(trace, speed="max", loop=0))
        machine = stack.enter_context(Machine(MachineConfig(seed=context.seed, core=_core())))
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE, max_frame=1522))
        steady = machine.spawn(sink("steady", [STEADY], process=os.geteuid() == 0), port)
        machine.run(machine.now() + LOOK_NS)  # its code is there
        still = _rate(machine, context.size(1_000_000_000, LOOK_NS))
        # What costs is to be the bind, not pcap-filter's text, so the kernel has seen them before.
        kept = [machine.environments.bindings.prepare(flow(number)) for number in range(live)]
        demux = lib.exo_machine_demux(machine.native, port, 0)
        empty, calls = _held(machine, demux), Calls.of(machine)
        env = machine.spawn(churner(kinds=["flow"], rounds=1, live=live, turn=1), port)
        bindings, peak, full = machine.environments.bindings, 0, empty
        before, watch = machine.ledger(), Stopwatch()
        while len(bindings) > LEFT or not done(bindings.of(env.number)):
            machine.run(machine.now() + LOOK_NS)
            peak, full = max(peak, len(bindings)), max(full, _held(machine, demux))  # tables do not shrink meanwhile
        seconds, ledger = watch.seconds, machine.settle()
        del kept
        lost = ledger.offered - _right(machine, steady, trace, ledger)
        busy = (ledger.delivered - before.delivered) / seconds
    details = {"live": live, "most at once": peak, "frames": ledger.offered}
    yield Figure("frames lost or misdelivered", "frames", (float(lost),), Target(0, at_most=True), details)
    yield Figure("frames without churn", "frames/s", (still,))
    yield Figure("frames beside churn, one call a burst", "frames/s", (busy,))
    for op, name in (("BIND", "bind"), ("UNBIND", "unbind")):
        yield Figure(f"{name}s beside them", "calls/s", (calls.rate(op),))
        yield Figure(f"{name}: median", "us", (statistics.median(calls.taken[op]) / 1e3,))
        yield Figure(f"{name}: longest hold-up", "us", (max(calls.taken[op]) / 1e3,))
    target = None if context.toy else Target(200, at_most=True)
    yield Figure("C memory per binding", "bytes", ((full - empty) / live,), target)


def _core() -> int | None:
    """A core for the kernel alone, where there are two."""
    allowed = os.sched_getaffinity(0)
    return min(allowed) if len(allowed) > 1 else None


def _held(machine: Machine, demux: Any) -> int:
    return int(lib.exo_demux_bytes(demux)) + int(lib.exo_machine_binding_bytes(machine.native))


def _rate(machine: Machine, ns: int) -> float:
    before, watch = machine.ledger().delivered, Stopwatch()
    machine.run(machine.now() + ns)
    return (machine.ledger().delivered - before) / watch.seconds


def _right(machine: Machine, env: Environment, trace: Trace, ledger: Ledger) -> int:
    """How many frames it has, which must be those that were offered, to the byte. RunError."""
    loops, rest = divmod(ledger.offered, len(trace))
    some = sum(lib.exo_digest(bytes(trace[place]), len(bytes(trace[place]))) for place in range(rest))
    report = next(row for row in machine.reports() if row["number"] == env.number)
    if report["delivered"] == ledger.offered and report["digest"] != (loops * trace.digest() + some) % 2**64:
        raise RunError(f"the digest of {report['name']} is {report['digest']:#x}: not that of what was offered")
    return int(report["delivered"])


# ---- shapes ----


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one paced run: frames lost per million, how late the loop took its frames at most, compilations."""

    ppm: float
    achieved: float
    late_us: float
    compiled: int


def _shapes(context: Context) -> Iterator[Figure]:
    if not available():
        raise Skip("llvmlite is not installed: pip install llvmlite")
    distinct = context.size(DISTINCT, 1000)
    file = write_trace(context.work / "half.pcap", distinct, context.seed)
    count = context.size(COMPILES, 3)
    losses: dict[str, list[Loss]] = {"no bind": [], "known shapes": [], "new shapes": []}
    with Trace.load(file) as trace:
        loops = context.size(FRAMES, 20_000) // distinct
        most = deliver(trace, loops, context.seed, [sink(bindings=[STEADY], process=False)]).rate
        half = int(min(most, context.size(1 << 40, 20_000)) / 2)
        for _ in context.repeat():
            for name, fresh in (("no bind", None), ("known shapes", False), ("new shapes", True)):
                losses[name].append(_paced(context, trace, half, count, fresh))
    # On a host that is busy with something else a shape may be gone before the loop could look for it.
    if not all(loss.compiled * 2 >= count for loss in losses["new shapes"]):
        raise RunError(f"{[loss.compiled for loss in losses['new shapes']]} of {count} new shapes were compiled")
    details = {"load": half, "of": most, "shapes": count, "pause_ns": PAUSE_NS}
    for name, rows in losses.items():
        achieved = {"achieved": [row.achieved for row in rows], "compiled": [row.compiled for row in rows]}
        lost = tuple(row.ppm for row in rows)
        yield Figure(f"half load, {name}: lost", "per million", lost, details=details | achieved)
        yield Figure(f"half load, {name}: latest frame", "us", tuple(row.late_us for row in rows))
    pairs = zip(losses["new shapes"], losses["known shapes"], strict=True)
    added = tuple(max(0.0, new.ppm - known.ppm) for new, known in pairs)
    yield Figure(f"half load: added by {count} compiles", "per million", added, Target(0, at_most=True))


def _paced(context: Context, trace: Trace, rate: int, count: int, fresh: bool | None) -> Loss:
    """A run at `rate` that may lose, beside `count` binds. fresh: each has a new shape; None: no bind.

    The sink is inline, its ring deep enough for some milliseconds, so that what is lost is the kernel's doing and not
    the host's, which on two cores takes the core from the kernel, the compiler or the sink.
    """
    with ExitStack() as stack:
        wire = stack.enter_context(PcapWire(trace, speed=f"pps={rate}", loop=0))
        machine = stack.enter_context(Machine(MachineConfig(seed=context.seed)))
        compiler = machine.compiler
        assert compiler is not None
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.DROP, max_frame=1522))
        machine.spawn(replace(sink(bindings=[STEADY], process=False), entries=8192, receive_buffers=DEEP), port)
        options = {"kinds": ["payload"], "rounds": count, "live": 1, "pause_ns": PAUSE_NS}
        spec = churner(**options, fresh=bool(fresh), wait_ns=0 if fresh is None else WARM_NS)
        env = machine.spawn(spec, port) if fresh is not None else None
        machine.run(machine.now() + WARM_NS // 2)
        before, made, watch = machine.ledger(), compiler.compiled, Stopwatch()
        if env is None:
            machine.run(machine.now() + 2 * count * PAUSE_NS)
        while env is not None and not (done(machine.environments.bindings.of(env.number)) and not compiler.pending):
            machine.run(machine.now() + LOOK_NS)
        seconds, after, late = watch.seconds, machine.ledger(), wire.pacing_error().max
        offered = after.offered - before.offered
        lost = sum(after.dropped.values()) - sum(before.dropped.values())
        machine.settle()
        return Loss(lost * 1e6 / offered, offered / seconds, late / 1e3, compiler.compiled - made)
