# SPDX-License-Identifier: MIT
"""The whole receive path, trace to a sink in another process, beside DPDK's testpmd."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from exonet.abi import lib
from exonet.clock import Stopwatch
from exonet.errors import RunError
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.lab.bench import Context, Figure, Skip, Target, ratio
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.bench.bench_frames import write_trace

DISTINCT = 100_000
FRAMES = 10_000_000
BUFFERS = 512

Profile = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Share:
    """What one sink is to consume: so many frames, whose digests add up to this."""

    frames: int
    digest: int

    @classmethod
    def of(cls, frames: Iterable[bytes]) -> "Share":
        digests = [lib.exo_digest(frame, len(frame)) for frame in frames]
        return cls(len(digests), sum(digests) % 2**64)

    def times(self, loops: int) -> "Share":
        return Share(self.frames * loops, self.digest * loops % 2**64)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One run: frames that the sinks consumed, each sink its own share and nothing else.

    kernel_seconds: of the kernel's thread on the processor, without those when another had its core.
    """

    frames: int
    seconds: float
    kernel_seconds: float
    descriptors: int
    protection: str

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


def sink(name: str = "sink", bindings: Sequence[str] = ("udp",), *, process: bool = True) -> LibOSSpec:
    """A LibOS that counts and digests what its bindings take."""
    return LibOSSpec(
        name,
        libos="sink",
        bindings=tuple(bindings),
        local="none",
        any_address=True,
        groups="all",
        process=process,
        receive_buffers=BUFFERS,
    )


def own_core() -> int | None:
    """The first core, for the kernel alone, where there is another."""
    allowed = os.sched_getaffinity(0)
    return min(allowed) if len(allowed) > 1 else None


def deliver(
    trace: Trace,
    loops: int,
    seed: int,
    specs: Sequence[LibOSSpec],
    *,
    shares: Mapping[str, Share] | None = None,
    apart: bool = False,
    profile: Profile = nullcontext,
) -> Delivery:
    """Replays `trace` at top speed into sinks. RunError unless every byte of every frame arrived where it should.

    shares: of one loop, by the sink's name; None: there is one, which has all. apart: the kernel has the first core,
    the sinks share the others. profile: a context manager around the run alone.
    """
    if shares is None:
        (spec,) = specs
        shares = {spec.name: Share(len(trace), trace.digest())}
    with (
        PcapWire(trace, speed="max", loop=loops) as wire,
        Machine(MachineConfig(seed=seed, core=own_core() if apart else None)) as machine,
    ):
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE, max_frame=1522))
        for spec in specs:
            machine.spawn(spec, port)
        with profile():
            watch, start = Stopwatch(), time.thread_time()
            machine.run()
            seconds, kernel_seconds = watch.seconds, time.thread_time() - start
        ledger = machine.settle()
        reports = machine.reports()
        counters = machine.nic(port).counters
        expected = len(trace) * loops
        if ledger.dropped or ledger.consumed != expected:
            raise RunError(f"{ledger.consumed} of {expected} frames delivered; dropped: {dict(ledger.dropped)}")
        for report in reports:
            had, due = Share(report["consumed"], report["digest"]), shares[report["name"]].times(loops)
            if had != due:
                raise RunError(f"{report['name']} consumed {had}, not {due}")
        if counters.rx_descriptors != expected:
            raise RunError(f"{counters.rx_descriptors} NIC descriptors for {expected} frames")
        return Delivery(expected, seconds, kernel_seconds, counters.rx_descriptors, reports[0]["protection"])


def path(context: Context) -> Iterator[Figure]:
    """64-byte frames from a trace in memory to a sink in another process, all digested; beside it DPDK testpmd"""
    if os.geteuid() != 0:
        raise Skip("a LibOS in a process of its own needs root; run as root")
    distinct = context.size(DISTINCT, 1000)
    loops = context.size(FRAMES, 20_000) // distinct
    file = write_trace(context.work / "udp64.pcap", distinct, context.seed)
    runs: list[Delivery] = []
    peers: list[float] = []
    missing = None
    with Trace.load(file) as trace:
        for _ in context.repeat():
            runs.append(deliver(trace, loops, context.seed, [sink()]))
            try:
                peers.append(testpmd(file, context.size(2_000, 200) / 1000))
            except Skip as reason:
                missing = str(reason)
        inline = [deliver(trace, loops, context.seed, [sink(process=False)]).rate for _ in context.repeat()]
    details = {"distinct": distinct, "frames": loops * distinct, "nic_descriptors": runs[0].descriptors}
    details |= {"protection": runs[0].protection, "receive_buffers": BUFFERS}
    ours = Figure("sink in a process", "frames/s", tuple(run.rate for run in runs), Target(6e6), details)
    peer = Figure("dpdk testpmd rxonly", "frames/s", tuple(peers), skipped=missing)
    yield from (ours, peer, ratio("ratio to testpmd", ours, peer), Figure("sink inline", "frames/s", tuple(inline)))


# ---- DPDK's testpmd, pcap driver, receive only, preloaded ----


def testpmd(file: Path, seconds: float) -> float:
    """Frames/s that testpmd receives of `file`, over `seconds`, by its own port counters. Skip where it cannot run."""
    program = shutil.which("dpdk-testpmd")
    if program is None:
        raise Skip("dpdk-testpmd is not installed: apt-get install dpdk-dev")
    if (os.cpu_count() or 1) < 2:
        raise Skip("dpdk-testpmd needs two cores")
    # Its output is a pipe here, so without stdbuf it would keep its answers until it ends.
    command = [
        "stdbuf",
        "-oL",
        program,
        "--no-huge",
        "-m",
        "2048",
        "--no-pci",
        "-l",
        "0,1",
        f"--file-prefix=exonet{os.getpid()}",
    ]
    command += ["--vdev", f"net_pcap0,rx_pcap={file},infinite_rx=1", "--", "-i", "--forward-mode=rxonly"]
    command += ["--auto-start", "--total-num-mbufs=160000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            console = Console(process)
            console.ask("show port stats 0")
            console.received()
            time.sleep(seconds / 4)
            console.ask("show port stats 0")
            before, start = console.received(), time.monotonic()
            time.sleep(seconds)
            console.ask("show port stats 0")
            after, end = console.received(), time.monotonic()
            console.ask("quit")
            process.wait(timeout=30)
        finally:
            process.kill()
    return (after - before) / (end - start)


class Console:
    """testpmd's console through pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.said: list[str] = []

    def ask(self, command: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Skip(self._why()) from None

    def received(self) -> int:
        """RX-packets of the next statistics block. Skip where testpmd ends instead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.decode(errors="replace").strip())
            if match := re.search(r"RX-packets:\s*(\d+)", self.said[-1]):
                return int(match[1])
        raise Skip(self._why())

    def _why(self) -> str:
        lines = [line for line in self.said if "rror" in line or "annot" in line] or self.said or ["it said nothing"]
        return f"dpdk-testpmd ended early: {lines[-1]}"
