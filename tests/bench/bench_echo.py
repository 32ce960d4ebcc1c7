# SPDX-License-Identifier: MIT
"""Live on a TAP device: UDP echo against a bare C loop, ping, and what it costs to do nothing."""

import re
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from exonet.errors import RunError
from exonet.lab.bench import Context, Figure, Skip, Target, ratio
from tests.bench.bench_tap import ADDRESS, SPIN_FOREVER, Place, echo_machine, place, round_trips, run_alone, run_beside

SPIN = {"poll": SPIN_FOREVER, "sleep": 0}
DEFAULT_SPIN_NS = 2_000_000


def _inline(here: Place, context: Context, mode: str, seconds: float) -> float:
    with echo_machine(here, context.seed, process=False, spin_ns=SPIN[mode]) as (machine, _):
        result = round_trips(run_beside(machine, here.client(seconds)))
    return result["round_trips"] / result["seconds"]


def _bare(here: Place, mode: str, seconds: float) -> float:
    result = round_trips(run_alone(here.peer(mode), here.client(seconds)))
    return result["round_trips"] / result["seconds"]


def echo(context: Context) -> Iterator[Figure]:
    """1-byte UDP echo for a blocking Linux client: the echo LibOS against a bare C loop on the same TAP, interleaved"""
    seconds = context.size(2_000, 150) / 1000
    samples: dict[str, list[float]] = {
        key: [] for key in ("inline poll", "bare poll", "inline sleep", "bare sleep", "process")
    }
    with place(context) as here:
        for _ in context.repeat():
            for mode in SPIN:
                samples[f"bare {mode}"].append(_bare(here, mode, seconds))
                samples[f"inline {mode}"].append(_inline(here, context, mode, seconds))
            with echo_machine(here, context.seed, process=True, spin_ns=DEFAULT_SPIN_NS) as (machine, _):
                result = round_trips(run_beside(machine, here.client(seconds)))
            samples["process"].append(result["round_trips"] / result["seconds"])
    unit = "round trips/s"
    for mode, word in (("poll", "polling"), ("sleep", "sleeping")):
        ours = Figure(f"echo inline, {word}", unit, tuple(samples[f"inline {mode}"]))
        bare = Figure(f"bare C loop, {word}", unit, tuple(samples[f"bare {mode}"]))
        yield from (ours, bare, ratio(f"ratio to C, {word}", ours, bare, Target(0.8)))
    yield Figure("echo in a process", unit, tuple(samples["process"]), Target(30_000))


def ping(context: Context) -> Iterator[Figure]:
    """ping of a LibOS in a process: the median round trip, and 100,000 packets of ping -f with none lost"""
    if shutil.which("ping") is None:
        raise Skip("ping is not installed: apt-get install iputils-ping")
    medians, lost, rates = [], [], []
    single, flood = context.size(2_000, 20), context.size(100_000, 300)
    with place(context) as here:
        for _ in context.repeat():
            with echo_machine(here, context.seed, process=True, spin_ns=DEFAULT_SPIN_NS) as (machine, _):
                text = run_beside(machine, here.inside("ping", "-n", "-c", str(single), "-i", "0.001", ADDRESS))
                medians.append(statistics.median(_times(text, single)))
        with echo_machine(here, context.seed, process=True, spin_ns=DEFAULT_SPIN_NS) as (machine, _):
            sent, received, milliseconds = _summary(
                run_beside(machine, here.inside("ping", "-n", "-q", "-f", "-c", str(flood), ADDRESS))
            )
            lost.append(sent - received)
            rates.append(received / max(milliseconds, 1) * 1000)
    yield Figure("round trip, median", "us", tuple(medians), Target(60, at_most=True), {"packets": single})
    yield Figure("ping -f lost", "packets", tuple(lost), Target(0, at_most=True), {"packets": flood})
    yield Figure("ping -f", "round trips/s", tuple(rates))


def _times(text: str, wanted: int) -> list[float]:
    """Round trips in microseconds. RunError where one is missing."""
    times = [float(match) * 1000 for match in re.findall(r"time=([\d.]+) ms", text)]
    if len(times) != wanted:
        raise RunError(f"ping: {len(times)} of {wanted} answered")
    return times


def _summary(text: str) -> tuple[int, int, int]:
    match = re.search(r"(\d+) packets transmitted, (\d+) received.* time (\d+)ms", text)
    if match is None:
        raise RunError(f"ping: no summary in {text.strip()[-200:]!r}")
    return int(match[1]), int(match[2]), int(match[3])


def idle(context: Context) -> Iterator[Figure]:
    """CPU that a machine on a quiet TAP takes, LibOS in a process, both processes together"""
    nanoseconds = context.size(3_000_000_000, 200_000_000)
    shares = []
    with place(context) as here:
        for _ in context.repeat():
            with echo_machine(here, context.seed, process=True, spin_ns=DEFAULT_SPIN_NS) as (machine, env):
                machine.run(machine.now() + nanoseconds // 4)
                before = time.process_time() + _cpu_seconds(env.process.pid)
                machine.run(machine.now() + nanoseconds)
                used = time.process_time() + _cpu_seconds(env.process.pid) - before
                shares.append(100 * used / (nanoseconds / 1e9))
    yield Figure("idle CPU", "%", tuple(shares), Target(1, at_most=True))


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process: its schedstat counts nanoseconds, where stat counts ticks of 10 ms."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError as error:
        raise RunError(f"process {pid}: {error.strerror}") from None
