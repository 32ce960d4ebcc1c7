# SPDX-License-Identifier: MIT
"""The cost model of this host, measured: the machine's own C functions and runs of it, small, timed, the best taken.

    classify        a frame that nobody claims: the NIC, its descriptor, the demux
    place, consume  what a frame costs more where an inline LibOS takes it, split by what the digest in C alone takes
    upcall          what a LibOS that takes one frame a step costs more than one that takes 64
    transmit        what an answer costs; poll, interrupt: a look at an empty NIC, and a wake-up by a descriptor
    …_byte_ps       the slope between small and large frames of the C functions that touch every byte

The best of several is taken: what disturbs a measurement only ever adds to it.
"""

import select
import socket
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from exonet.abi import ffi, lib
from exonet.clock import Stopwatch
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.schedule import CostModel
from exonet.lab.load import frames
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire

SMALL, LARGE = 60, 1460
FRAMES = 40_000
CALLS = 2000


@dataclass(slots=True)
class Calibration:
    """repeat: how often each thing is measured. say: told what is being measured."""

    repeat: int = 5
    frames: int = FRAMES
    say: Callable[[str], None] = lambda what: None
    _traces: dict[int, Trace] = field(default_factory=dict)

    def measure(self) -> CostModel:
        """Takes about a second for each repetition."""
        with tempfile.TemporaryDirectory(prefix="exonet-calibrate-") as work:
            for size in (SMALL, LARGE):
                self._traces[size] = Trace.load(_capture(Path(work, f"{size}.pcap"), size))
            try:
                return self._model()
            finally:
                for trace in self._traces.values():
                    trace.close()
                self._traces.clear()

    def _model(self) -> CostModel:
        self.say("frames that nobody claims")
        classify = self._replay(None)
        self.say("frames that a sink takes, 64 a step and one a step")
        sink, one = self._replay("sink"), self._replay("sink", burst=1)
        self.say("datagrams that are answered")
        echo = self._replay("echo")
        self.say("C functions")
        source, target = ffi.new("uint8_t[]", LARGE), ffi.new("uint8_t[]", LARGE)
        copy = [self._call(partial(lib.exo_copy_checksum, target, source, size, 0)) for size in (SMALL, LARGE)]
        digest = [self._call(partial(lib.exo_digest, source, size)) for size in (SMALL, LARGE)]
        consume = digest[0] + max(0.0, (sink - classify - digest[0]) / 2)
        place = max(0.0, sink - classify - consume)
        copied = _slope(copy)
        return CostModel(
            interrupt=round(self._wake_up()),
            poll=round(self._look()),
            classify=round(classify),
            place=max(0, round(place - copied * SMALL)),
            place_byte_ps=round(1000 * copied),
            transmit=max(0, round((echo - sink) / 2)),
            transmit_byte_ps=round(1000 * copied),
            upcall=max(0, round(one - sink)),
            consume=max(0, round(consume + (echo - sink) / 2)),
            consume_byte_ps=round(1000 * _slope(digest)),
        )

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

    def _replay(self, libos: str | None, burst: int = 64) -> float:
        """ns a small frame takes through a machine with one inline LibOS, or none."""
        return self._best(lambda: self._replay_once(libos, burst))

    def _replay_once(self, libos: str | None, burst: int) -> float:
        trace = self._traces[SMALL]
        loops = -(-self.frames // len(trace))
        nic = NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE)
        options = {"burst": burst} if libos == "sink" else {"port": 9}
        with PcapWire(trace, speed="max", loop=loops) as wire, Machine(MachineConfig()) as machine:
            port = machine.attach(wire, nic)
            if libos is not None:
                machine.spawn(LibOSSpec("a", libos, ("udp",), local="any", any_address=True, options=options), port)
            watch = Stopwatch()
            machine.run()
            return watch.ns / (loops * len(trace))

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


def _slope(of_sizes: list[float]) -> float:
    """ns per byte."""
    return max(0.0, (of_sizes[1] - of_sizes[0]) / (LARGE - SMALL))


def _capture(path: Path, size: int) -> Path:
    """A pcap of frames of `size` bytes."""
    record = struct.pack("<IIII", 1, 0, size, size)
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(header + b"".join(record + frame for frame in frames(size)))
    return path
