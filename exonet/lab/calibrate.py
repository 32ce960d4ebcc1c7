# SPDX-License-Identifier: MIT
"""The cost model of this host, measured: the machine's own C functions and runs of it, small, timed, the best taken.

    classify        a frame that nobody claims: the NIC, its descriptor, the demux; less the look that is charged apart
    place           what an inline sink's frame costs more, less what the digest takes, halved
    libos           by kind: what is left of a run with such a LibOS inline, at top speed, 64 frames a step
    upcall          what a sink that takes one frame a step costs more than one that takes 64
    transmit        half of what an answer costs, at most what receiving a frame does
    poll, interrupt a look at an empty NIC, and a wake-up by a descriptor
    …_byte_ps       the slopes between small and large frames

The best of several is taken: what disturbs a measurement only ever adds to it. What the model then predicts and what
runs reach are compared: medians of runs that the model was not made of.
"""

import select
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from exonet.abi import ffi, lib
from exonet.clock import NS_PER_S, Stopwatch
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.schedule import Consumption, CostModel
from exonet.lab.hostload import HostLoad, HostWatch
from exonet.lab.load import frames
from exonet.lab.plot import Spread
from exonet.lab.progress import format_rate
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire

SMALL, LARGE = 60, 1460
#: Frames of a run, and how long it should take.
FEWEST, MOST = 5_000, 2_000_000
RUN_NS = 40_000_000
CALLS = 2000
BURST = 64
#: Where the frames of load.py go.
PORT = 9
KINDS = ("sink", "echo")
#: Runs of which a capacity is the median, and how far a model may be off before it is said by how much.
RUNS = 5
AGREES = 0.2


class Timed(NamedTuple):
    """ns a frame, and how many the LibOS sent for each."""

    ns: float
    answers: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Packets a second of a kind of LibOS, inline: what the model says, what runs reached, and the host meanwhile."""

    kind: str
    size: int
    predicted: float
    measured: Spread
    host: HostLoad

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "host": self.host.to_json()}

    def __str__(self) -> str:
        low, high = format_rate(self.measured.low), format_rate(self.measured.high)
        said = f"{self.kind}, {self.size} bytes: the model says {format_rate(self.predicted)}"
        said += f", runs reach {format_rate(self.measured.median)} ({low} to {high})"
        off = self.predicted / self.measured.median - 1 if self.measured.median else 1.0
        if abs(off) > AGREES:
            said += f"; {100 * off:+.0f} %"
        return f"{said}; the host was busy: {self.host}" if self.host.busy else said


@dataclass(slots=True)
class Calibration:
    """kinds: of LibOSes, by name. repeat: how often each thing is measured. frames: of a run, None: enough.
    say: told what is being measured."""

    kinds: Sequence[str] = KINDS
    repeat: int = 5
    frames: int | None = None
    say: Callable[[str], None] = lambda what: None
    capacities: list[Capacity] = field(default_factory=list)
    _traces: dict[int, Trace] = field(default_factory=dict)
    _enough: dict[tuple[str | None, int, int], int] = field(default_factory=dict)

    def measure(self) -> CostModel:
        """Takes some seconds for each repetition. Leaves in `capacities` how well the model agrees with runs."""
        with tempfile.TemporaryDirectory(prefix="exonet-calibrate-") as work:
            for size in (SMALL, LARGE):
                self._traces[size] = Trace.load(_capture(Path(work, f"{size}.pcap"), size))
            try:
                model = self._model()
                self.capacities = [self._capacity(model, kind) for kind in self.kinds]
                return model
            finally:
                for trace in self._traces.values():
                    trace.close()
                self._traces.clear()

    def _model(self) -> CostModel:
        self.say("frames that nobody claims")
        nobody = [self._replay(None, size).ns for size in (SMALL, LARGE)]
        self.say("frames that a sink takes, 64 a step and one a step")
        sink, one = self._replay("sink", SMALL).ns, self._replay("sink", SMALL, burst=1).ns
        self.say("datagrams that are answered")
        echo = self._replay("echo", SMALL).ns
        self.say("C functions")
        source, target = ffi.new("uint8_t[]", LARGE), ffi.new("uint8_t[]", LARGE)
        copy = [self._call(partial(lib.exo_copy_checksum, target, source, size, 0)) for size in (SMALL, LARGE)]
        digest = self._call(partial(lib.exo_digest, source, SMALL))
        byte = _slope(nobody) + _slope(copy)  # the NIC's copy, and the kernel's
        received = min(nobody[0], max(0.0, sink - copy[0] - digest))  # what was disturbed leaves room for the rest
        place = max(0.0, (sink - received - digest + copy[0]) / 2)
        poll = min(self._look(), received)
        model = CostModel(
            interrupt=round(self._wake_up()),
            poll=round(poll),
            classify=round(received - poll),
            place=max(0, round(place - byte * SMALL)),
            place_byte_ps=round(1000 * byte),
            transmit=max(0, round(min((echo - sink) / 2, received + place))),
            transmit_byte_ps=round(1000 * _slope(copy)),
            upcall=max(0, round(one - sink)),
        )
        libos = {kind: self._consumption(model, kind) for kind in self.kinds}
        most = max(libos.values(), key=lambda each: each.consume)  # a kind that nobody measured runs Python, too
        return replace(model, libos=libos, consume=most.consume, consume_byte_ps=most.consume_byte_ps)

    def _consumption(self, model: CostModel, kind: str) -> Consumption:
        """What runs with such a LibOS take beyond what the model has for the kernel's part."""
        self.say(f"frames that {kind} takes, small and large")
        rest = []
        for size in (SMALL, LARGE):
            timed = self._replay(kind, size)
            rest.append(max(0.0, timed.ns - model.frame_ns("", size, timed.answers)))
        byte = _slope(rest)
        return Consumption(max(0, round(rest[0] - byte * SMALL)), round(1000 * byte))

    def _capacity(self, model: CostModel, kind: str) -> Capacity:
        self.say(f"the capacity with {kind}")
        watch = HostWatch({})
        runs = [self._replay_once(kind, SMALL, BURST) for _ in range(RUNS)]
        predicted = model.capacity(kind, SMALL, median(run.answers for run in runs))
        return Capacity(kind, SMALL, predicted, Spread.of(NS_PER_S / run.ns for run in runs), watch.end({}))

    def _best(self, once: Callable[[], float]) -> float:
        return min(once() for _ in range(self.repeat))

    def _call(self, function: Callable[[], object]) -> float:
        """ns of a C function, less what the way into C takes."""

        def loop(called: Callable[[], object]) -> float:
            watch = Stopwatch()
            for _ in range(CALLS):
                called()
            return watch.ns / CALLS

        empty = ffi.new("uint8_t[]", 1)
        idle = self._best(lambda: loop(lambda: lib.exo_digest(empty, 0)))
        return max(0.0, self._best(lambda: loop(function)) - idle)

    def _replay(self, kind: str | None, size: int, burst: int = BURST) -> Timed:
        """A frame through a machine with one inline LibOS, or none."""
        return min((self._replay_once(kind, size, burst) for _ in range(self.repeat)), key=lambda timed: timed.ns)

    def _replay_once(self, kind: str | None, size: int, burst: int) -> Timed:
        """As many frames as take some fiftieths of a second, if it is not said how many."""
        key = (kind, size, burst)
        if key not in self._enough:
            first = self._timed(kind, size, burst, FEWEST)
            self._enough[key] = self.frames or min(MOST, max(FEWEST, round(RUN_NS / first.ns)))
        return self._timed(kind, size, burst, self._enough[key])

    def _timed(self, kind: str | None, size: int, burst: int, wanted: int) -> Timed:
        trace = self._traces[size]
        loops = -(-wanted // len(trace))
        nic = NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE)
        with PcapWire(trace, speed="max", loop=loops) as wire, Machine(MachineConfig()) as machine:
            port = machine.attach(wire, nic)
            if kind is not None:
                options = {"burst": burst} if kind == "sink" else {}
                serves = () if kind == "sink" else (PORT,)
                machine.spawn(
                    LibOSSpec("a", kind, ("udp",), local="any", any_address=True, options=options, serves=serves), port
                )
            _await_code(machine)
            watch = Stopwatch()
            machine.run()
            ns, frames = watch.ns, loops * len(trace)
            return Timed(ns / frames, machine.ledger().of_liboses.offered / frames)

    def _look(self) -> float:
        """ns of a look at a NIC that has nothing."""
        with PcapWire(self._traces[SMALL], speed="pps=1") as wire, Machine(MachineConfig()) as machine:
            machine.attach(wire, NicConfig())
            return self._call(lambda: lib.exo_deliver_burst(machine.native, 0, 0))

    def _wake_up(self) -> float:
        """ns from a descriptor that is readable to the one who waits for it."""
        near, far = socket.socketpair()
        with near, far:
            far.send(b"\0")
            waiting = select.poll()
            waiting.register(near, select.POLLIN)
            return self._call(lambda: waiting.poll(1000))


def _await_code(machine: Machine) -> None:
    """A run of any length has native code for its filters: it is compiled in another thread."""
    while machine.compiler is not None and machine.compiler.pending:
        select.select([machine.compiler], [], [], 1.0)
        machine.compiler.collect()


def _slope(of_sizes: list[float]) -> float:
    """ns per byte."""
    return max(0.0, (of_sizes[1] - of_sizes[0]) / (LARGE - SMALL))


def _capture(path: Path, size: int) -> Path:
    """A pcap of frames of `size` bytes."""
    record = struct.pack("<IIII", 1, 0, size, size)
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(header + b"".join(record + frame for frame in frames(size)))
    return path
