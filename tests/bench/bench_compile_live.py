# SPDX-License-Identifier: MIT
"""From a bind with a new shape to native code that answers for it, on a machine that has traffic at full rate.

What it takes is the bind, the compiler's queue and thread, both of which share Python with the packet loop, and
the loop's coming round to install it.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from exonet.abi import ffi, lib
from exonet.clock import monotonic_ns
from exonet.errors import RunError
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Resource, Right, Scope
from exonet.kernel.environment import Environment, Mode
from exonet.lab.bench import Context, Figure, Target
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.bench.bench_churn import FEW_FRAMES, LOOK_NS, QUOTA, STEADY
from tests.bench.bench_frames import write_trace
from tests.bench.bench_path import sink
from tests.fakes.churner import payload

MOST_MS = 25
PRESENT = 150
NEW = 9
#: Between a bind and the unbind, at least.
PAUSE_NS = 50_000_000
#: Of the shapes that are there: the first ones are the new ones'.
FIRST = 20
HELD = "10.7.2.3"


def live(context: Context) -> Iterator[Figure]:
    """With one shape there, and with 150."""
    new = context.size(NEW, 2)
    with Trace.load(write_trace(context.work / "live.pcap", context.size(FEW_FRAMES, 500), context.seed)) as trace:
        for present in (1, context.size(PRESENT, 4)):
            runs = [_taken(context, trace, present, new, process=False) for _ in context.repeat()]
            name = f"running machine, {present} shape{'s' if present > 1 else ''} present"
            medians = tuple(statistics.median(run) for run in runs)
            yield Figure(f"{name}: bind to native", "ms", medians, Target(MOST_MS, at_most=True))
            yield Figure(f"{name}: slowest of {new}", "ms", tuple(map(max, runs)))
        if os.geteuid() == 0:
            runs = [_taken(context, trace, 1, new, process=True) for _ in context.repeat()]
            medians = tuple(statistics.median(run) for run in runs)
            cores = {"cores": len(os.sched_getaffinity(0))}
            yield Figure("running machine, a LibOS process polling: bind to native", "ms", medians, details=cores)


def _taken(context: Context, trace: Trace, present: int, new: int, *, process: bool) -> list[float]:
    """ms from the beginning of each bind to when its shape's code is installed. process: of the sink; it polls."""
    with ExitStack() as stack:
        wire = stack.enter_context(PcapWire(trace, speed="max", loop=0))
        machine = stack.enter_context(Machine(MachineConfig(seed=context.seed)))
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE, max_frame=1522))
        machine.spawn(sink("steady", [STEADY], process=process), port)
        env, token = _hold(machine, port, present - 1)
        compiler, taken = machine.compiler, []
        assert compiler is not None
        installed = _watch(machine, port)
        for number in range(new):
            before, begin = len(installed), monotonic_ns()
            binding = machine.environments.bindings.bind(env, payload(number, HELD), token)
            compiler.poke()
            machine.run(machine.now() + PAUSE_NS)
            while len(installed) == before and compiler.pending:
                machine.run(machine.now() + PAUSE_NS)
            if len(installed) != before + 1:
                raise RunError(f"{binding.text}: no native code for its shape")
            taken.append((installed[-1] - begin) / 1e6)
            machine.environments.bindings.unbind(env, binding.number)
        machine.settle()
    return taken


def _hold(machine: Machine, port: int, count: int) -> tuple[Environment, bytes]:
    """An environment with so many more shapes, all with native code, and its capability."""
    env = machine.environments.open("holder", Mode.INLINE, quota=QUOTA)
    scope = Scope(port=port, region=f"udp and dst host {HELD}")
    token = machine.environments.grant(env, Resource.FILTER, Right.BIND, scope)
    for number in range(FIRST, FIRST + count):
        machine.environments.bindings.bind(env, payload(number, HELD), token)
    compiler = machine.compiler
    assert compiler is not None
    compiler.look()
    machine.run(machine.now() + LOOK_NS)
    while compiler.pending:
        machine.run(machine.now() + LOOK_NS)
    return env, token


def _watch(machine: Machine, port: int) -> list[int]:
    """When the last shape without native code got its own, from here on."""
    compiler, seen = machine.compiler, list[int]()
    assert compiler is not None
    collect, form = compiler.collect, ffi.new("struct exo_form *")
    demux = lib.exo_machine_demux(machine.native, port, 0)

    def watched() -> None:
        made = compiler.compiled
        collect()
        if compiler.compiled > made and all(
            lib.exo_demux_form(demux, place, form) != 0 for place in range(lib.EXO_MAX_SHAPES)
        ):
            seen.append(monotonic_ns())

    compiler.collect = watched  # type: ignore[method-assign]
    return seen
