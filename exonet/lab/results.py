# SPDX-License-Identifier: MIT
"""What a run hands back: its ledger, its environments and its timing; as JSON of schema 1, and as text for a person.

{"schema": 1, "run": {…}, "ledger": {…}, "environments": [{"name", "delivered", "bytes", "pps", "mbps", "cpu_ns",
                   "latency_ns": {"count", "p50", "p99", "p999", "max"}, "bindings": [{"filter", "latency_ns"}], …}],
 "timing": {"wall_s", "pps", "pacing_error_ns": {"p50", "p99", "max"}}}
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from exonet.clock import format_duration, utc_now
from exonet.errors import not_written
from exonet.lab.figures import figures
from exonet.lab.hostload import HostLoad
from exonet.lab.progress import format_rate
from exonet.ledger import Ledger
from exonet.wire.resegment import ResegmentCounters
from exonet.wording import counted

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """wall_s: seconds of the host. pps: frames delivered, as the ledger counts them, per second of the machine's own
    clock (R22). pacing_error_ns: how far from its intended time a frame left its source: p50, p99, max; null where
    nothing was paced. virtual_s: seconds of the virtual clock, null on the monotonic one. host: what else ran.
    backward: frames whose timestamps step back, which costs no wait (R7).
    """

    wall_s: float
    pps: float
    pacing_error_ns: Mapping[str, int | None] = field(default_factory=lambda: {"p50": None, "p99": None, "max": None})
    virtual_s: float | None = None
    host: HostLoad | None = None
    backward: int = 0

    @property
    def seconds(self) -> float:
        """Of the machine's own clock."""
        return self.wall_s if self.virtual_s is None else self.virtual_s

    def to_json(self) -> dict[str, Any]:
        return {
            "wall_s": self.wall_s,
            "pps": self.pps,
            "pacing_error_ns": dict(self.pacing_error_ns),
            "virtual_s": self.virtual_s,
            "host": None if self.host is None else self.host.to_json(),
            "backward_stamps": self.backward,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `notes`: sentences a person must read before the numbers. `hints`: lines below the ledger. `cut`: of
    --resegment. `failed`: a LibOS died, or the replay came to where its capture breaks.
    """

    run: Mapping[str, Any]
    ledger: Ledger
    environments: tuple[Mapping[str, Any], ...]
    timing: Timing
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    cut: ResegmentCounters | None = None
    failed: bool = False
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run": {**self.run, "notes": list(self.notes), "failed": self.failed, "interrupted": self.interrupted},
            "ledger": {**self.ledger.to_json(), **self._cut()},
            "environments": [dict(environment) for environment in self.environments],
            "timing": self.timing.to_json(),
        }

    def _cut(self) -> dict[str, int]:
        return {} if self.cut is None else {"resegmented": self.cut.packets, "segments": self.cut.segments}

    def write_json(self, path: str) -> None:
        """Writes to `path`, or to stdout where it is "-". UsageError or RunError where that cannot be."""
        text = json.dumps(self.to_json(), indent=2) + "\n"
        if path == "-":
            print(text, end="")
            return
        try:
            Path(path).write_text(text)
        except OSError as error:
            raise not_written(f"JSON file {path}", error) from None

    def text(self, width: int = 80, *, ascii_only: bool = False) -> str:
        """The table, what each LibOS had, and a line about time."""
        timing = self.timing
        line = f"{format_duration(timing.wall_s * 1e9)}, {format_rate(timing.pps)} delivered"
        if timing.virtual_s is not None:
            line = f"{format_duration(timing.virtual_s * 1e9)} of virtual time in {line}"
        if (median := timing.pacing_error_ns.get("p50")) is not None:
            tail = timing.pacing_error_ns["p99"] or 0
            line += f", pacing error {format_duration(median)} median, {format_duration(tail)} p99"
        if timing.backward:
            line += f", {counted(timing.backward, 'timestamp')} stepped back: no wait"
        if timing.host is not None and timing.host.busy:
            line += f"\nthe host was busy meanwhile: {timing.host}; rates, latencies and losses may be noise"
        each = "\n".join(["", *figures(self.environments, timing.seconds), ""])
        table = self.ledger.table(width, self.environments, ascii_only=ascii_only)
        return "\n".join([table, *self.hints, f"{each}{line}"])


def version() -> str:
    """exonet's own; a source tree that nobody installed has none."""
    try:
        return metadata.version("exonet")
    except metadata.PackageNotFoundError:
        return "not installed"


def host() -> dict[str, Any]:
    """What a figure depends on beside exonet: for the `run` object of every JSON and every benchmark."""
    return {
        "exonet": version(),
        "started": utc_now(),
        "host": platform.node(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "uid": os.geteuid(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
