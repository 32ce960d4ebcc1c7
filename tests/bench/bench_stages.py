# SPDX-License-Identifier: MIT
"""Where each nanosecond of the whole receive path goes: the kernel thread sampled by perf, samples put down to stages.

A sample counts for the innermost function, inlined ones too, that a stage is known by (addr2line on the extension's
debug information); what libc does counts for its caller. The shares are of the thread's time on the processor.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from exonet.abi import lib
from exonet.errors import RunError
from exonet.lab.bench import Context, Figure, Skip
from exonet.wire.capture import Trace
from tests.bench.bench_path import deliver
from tests.bench.bench_spread import ENVIRONMENTS, spread_trace

STAGES = ("source", "NIC", "demux", "copy", "ring", "ledger", "clock", "loop", "sink", "system", "other")
#: A function of the kernel's C, or the beginning of a file's name; functions go first.
FUNCTIONS = {
    "exo_copy_checksum": "copy",
    "exo_port_pull": "source",
    "exo_deliver_settle": "ledger",
    "read_verdict": "ledger",
    "count_owned": "ledger",
    "exo_machine_fate": "ledger",
    "exo_now": "clock",
}
FILES = {
    "replay": "source",
    "trace": "source",
    "pace": "source",
    "nic": "NIC",
    "demux": "demux",
    "checksum": "copy",
    "deliver": "ring",
    "ledger": "ledger",
}
FREQUENCY = 4000
STACK = 512

Sample = tuple[tuple[int, str], ...]


class Sampler:
    """perf on the thread that makes it. Skip where perf is not installed or not allowed."""

    def __init__(self, work: Path) -> None:
        for program in ("perf", "addr2line"):
            if shutil.which(program) is None:
                raise Skip(f"{program} is not installed: apt-get install linux-perf binutils")
        self.file = work / "perf.data"
        self.maps = ""

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Samples while inside."""
        (control_in, control), (ack, ack_out) = os.pipe(), os.pipe()
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-D", "-1"]
        command += [f"--control=fd:{control_in},{ack_out}", f"--call-graph=dwarf,{STACK}"]
        command += ["-o", str(self.file), "-t", str(os.getpid())]
        with subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=(control_in, ack_out)) as process:
            os.close(control_in)
            os.close(ack_out)
            try:
                self._tell(process, control, ack, b"enable\n")
                self.maps = Path("/proc/self/maps").read_text()
                yield
                self._tell(process, control, ack, b"stop\n")
            finally:
                os.close(control)
                os.close(ack)
                process.terminate()

    def _tell(self, process: "subprocess.Popen[bytes]", control: int, ack: int, what: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(control, what)
        if not os.read(ack, 16):
            assert process.stderr is not None
            last = (process.stderr.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[0]
            raise Skip(f"perf does not sample here: {last}")

    def samples(self) -> list[Sample]:
        """Address and object of each sample's innermost frames."""
        command = ["perf", "script", "-i", str(self.file), "-F", "ip,dso", "--no-inline", "--max-stack", "3"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RunError(f"perf script: {done.stderr.strip()[-200:]}")
        return [_frames(block) for block in done.stdout.split("\n\n") if block.strip()]


def _frames(block: str) -> Sample:
    found = (re.match(r"\s*([0-9a-f]+) .*\((.*)\)", line) for line in block.splitlines())
    return tuple((int(match[1], 16), match[2]) for match in found if match)


class Symbols:
    """Addresses of a mapped object to the functions and files that they are of, the innermost first."""

    def __init__(self, maps: str, name: str) -> None:
        rows = [line.split() for line in maps.splitlines() if name in line]
        if not rows:
            raise RunError(f"{name}: not mapped")
        self.path = rows[0][-1]
        self._base = int(rows[0][0].split("-")[0], 16)

    def resolve(self, addresses: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
        wanted = sorted(set(addresses))
        # perf gives addresses within the object where it unwinds, of the process where it does not.
        text = "\n".join(hex(address - self._base if address >= self._base else address) for address in wanted)
        command = ["addr2line", "-a", "-f", "-i", "-e", self.path]
        said = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        blocks = re.split(r"^0x[0-9a-f]+\n", said, flags=re.M)[1:]
        return {address: _chain(block) for address, block in zip(wanted, blocks, strict=True)}


def _chain(block: str) -> list[tuple[str, str]]:
    lines = block.splitlines()
    return [(name, Path(line.split(":")[0]).name) for name, line in zip(lines[::2], lines[1::2], strict=False)]


def _stage_of(chain: list[tuple[str, str]]) -> str:
    for function, file in chain:
        if function in FUNCTIONS:
            return FUNCTIONS[function]
        for beginning, stage in FILES.items():
            if file.startswith(beginning):
                return stage
    return "loop"


def shares(sampler: Sampler) -> dict[str, float]:
    """The part of each stage."""
    samples = sampler.samples()
    if not samples:
        raise Skip("perf took no samples")
    known = Symbols(sampler.maps, "exonet/_kernel.")
    places = [_place(sample, known.path) for sample in samples]
    chains = known.resolve(address for address, stage in places if not stage)
    counts = Counter(stage or _stage_of(chains[address]) for address, stage in places)
    return {stage: counts[stage] / len(samples) for stage in STAGES}


def _place(sample: Sample, kernel: str) -> tuple[int, str]:
    """An address in the kernel's extension, or the stage at once."""
    for depth, (address, object_) in enumerate(sample):
        if object_ == kernel:
            return address - (depth > 0), ""
        if "_stack." in object_:
            return address, "sink"
        if object_.startswith(("[kernel", "[guest")):
            return address, "system"
        if object_.startswith(("[unknown", "[anon", "//anon")) or object_.endswith(".map"):
            # Code of no file: native probes.
            return address, "demux" if depth == 0 else "other"
        if "libc." not in object_ and "[vdso" not in object_:
            return address, "other"
    return 0, "other"


def stages(context: Context) -> Iterator[Figure]:
    """Where the time of the whole receive path goes, stage by stage, sinks inline and in processes (perf)"""
    if os.geteuid() != 0:
        raise Skip("a LibOS in a process of its own needs root; run as root")
    sampler = Sampler(context.work)
    for process, word in ((False, "inline"), (True, "in processes")):
        for environments in (1, ENVIRONMENTS):
            if context.toy and (process or environments > 1):
                return
            yield from _measured(context, sampler, environments, process, f"{environments} {word}")


def _measured(context: Context, sampler: Sampler, environments: int, process: bool, name: str) -> Iterator[Figure]:
    made = spread_trace(context, environments, process=process)
    taken: dict[str, list[float]] = {stage: [] for stage in STAGES}
    whole, rates = [], []
    with Trace.load(made.file) as trace:
        go = partial(deliver, trace, made.loops, context.seed, made.specs, shares=made.shares)
        for _ in context.repeat():
            run = go(apart=process, profile=sampler)
            each = run.kernel_seconds * 1e9 / run.frames
            whole.append(each)
            rates.append(run.rate)
            for stage, share in shares(sampler).items():
                taken[stage].append(share * each)
    details = {"bindings": sum(len(spec.bindings) for spec in made.specs), "rates": rates, "burst": lib.EXO_BURST}
    yield Figure(f"{name}: kernel thread", "ns/frame", tuple(whole), details=details)
    for stage, values in taken.items():
        if any(values):
            yield Figure(f"{name}: {stage}", "ns/frame", tuple(values))
