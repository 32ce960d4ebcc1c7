# SPDX-License-Identifier: MIT
"""What else a host did while a run was measured: other programs, a hypervisor, and how the run's own thread fared.

A run on the monotonic clock shares its processors with whatever else runs, and what that takes shows as loss. So each
measurement says how much it was: CPU time by others is what /proc/stat counts less what the run's own processes had.
"""

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exonet.clock import NS_PER_S, monotonic_ns, own_cpu_ns

#: Of one processor: what others may take before a measurement is called disturbed, and what a hypervisor may.
OTHERS = 0.2
STEAL = 0.05
#: A measurement shorter than this cannot tell: /proc/stat counts hundredths of a second.
SHORTEST_S = 0.05


@dataclass(frozen=True, slots=True)
class HostLoad:
    """others, steal: processors that others, and a hypervisor, had on average. waited: the share of the time that our
    thread could run and did not. switches: how often it lost its processor; a yield to a LibOS counts as one.
    """

    seconds: float
    others: float
    steal: float
    waited: float
    switches: int

    @property
    def busy(self) -> bool:
        """Is what was measured meanwhile not to be trusted?"""
        return self.others > OTHERS or self.steal > STEAL

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "busy": self.busy}

    def __str__(self) -> str:
        steal = f", its hypervisor {self.steal:.1f}" if self.steal > STEAL else ""
        return f"others had {self.others:.1f} of {os.cpu_count()} processors{steal}"


class HostWatch:
    """Watches from when it is made until `end`."""

    def __init__(self, ours: Mapping[int, int]) -> None:
        """ours: the CPU time of processes that are part of the run, ns by pid."""
        self._ours = dict(ours)
        self._begin = _Counts.now()

    def end(self, ours: Mapping[int, int]) -> HostLoad:
        """ours: the same, now; one that has begun since is in it whole."""
        begin, end = self._begin, _Counts.now()
        seconds = max((end.at - begin.at) / NS_PER_S, 1e-9)
        mine = end.cpu - begin.cpu + sum(ns - self._ours.get(pid, 0) for pid, ns in ours.items()) / NS_PER_S
        others = max(0.0, end.all - begin.all - mine) / seconds
        known = seconds >= SHORTEST_S
        return HostLoad(
            seconds=seconds,
            others=others if known else 0.0,
            steal=(end.steal - begin.steal) / seconds if known else 0.0,
            waited=(end.waited - begin.waited) / seconds,
            switches=end.switches - begin.switches,
        )


@dataclass(frozen=True, slots=True)
class _Counts:
    """At one moment, in seconds of CPU time but for `at`, ns."""

    at: int
    all: float
    steal: float
    cpu: float
    waited: float
    switches: int

    @classmethod
    def now(cls) -> "_Counts":
        ticks = [0] * 8
        waited = 0.0
        with suppress(OSError, ValueError, IndexError):
            # proc(5): user nice system idle iowait irq softirq steal
            ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        with suppress(OSError, ValueError, IndexError):
            waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / NS_PER_S
        hertz = os.sysconf("SC_CLK_TCK")
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        return cls(monotonic_ns(), sum(ticks[:3]) / hertz, ticks[7] / hertz, own_cpu_ns() / NS_PER_S, waited, switches)
