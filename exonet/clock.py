# SPDX-License-Identifier: MIT
"""Time, as Python reads it: the two clocks of a machine, stopwatches, and durations as a person writes them.

`exo_now()` is the only other reader of time. Everything is in integer nanoseconds. What runs on the virtual clock never
calls the functions here that read the host's time; they stamp reports, drive progress lines and measure wall time.
"""

import enum
import re
import time
from datetime import UTC, datetime

from exonet.abi import lib
from exonet.errors import UsageError

NS_PER_S = 1_000_000_000
#: How long a live machine polls without work before it sleeps: a request that follows an answer finds it awake.
SPIN_NS = 2_000_000

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": NS_PER_S, "m": 60 * NS_PER_S, "h": 3600 * NS_PER_S}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]*)")


class Clock(enum.Enum):
    """Which clock a machine runs on."""

    MONOTONIC = "monotonic"
    VIRTUAL = "virtual"

    @property
    def native(self) -> int:
        """The enum exo_clock of C."""
        return int(lib.EXO_CLOCK_VIRTUAL if self is Clock.VIRTUAL else lib.EXO_CLOCK_MONOTONIC)

    @classmethod
    def parse(cls, text: str) -> "Clock":
        try:
            return cls(text)
        except ValueError:
            raise UsageError(f'clock "{text}": it must be monotonic or virtual') from None


class Stopwatch:
    """Wall time since it was made, on the monotonic clock."""

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = monotonic_ns()

    @property
    def ns(self) -> int:
        return monotonic_ns() - self._start

    @property
    def seconds(self) -> float:
        return self.ns / NS_PER_S


def own_cpu_ns() -> int:
    """The CPU time of this process, all its threads."""
    return time.process_time_ns()


def process_cpu_ns(pid: int) -> int:
    """The CPU time of a process, all its threads, dead but not yet waited for included. OSError where it is gone.

    Its clock's number is made as clock_getcpuclockid(3) makes it.
    """
    return time.clock_gettime_ns(~pid << 3 | 2)


def monotonic_ns() -> int:
    """The host's monotonic clock: the same that `exo_now` reads for a machine on Clock.MONOTONIC."""
    return time.monotonic_ns()


def wall_offset_ns() -> int:
    """What to add to the monotonic clock now to have ns since 1970: for what is written with dates, as captures."""
    return time.time_ns() - time.monotonic_ns()


def utc_now() -> str:
    """The date and time, ISO 8601 in UTC to the second: for reports only."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse_duration(text: str) -> int:
    """Nanoseconds of "10", "10s", "250ms", "1.5m"; a bare number is in seconds.

    Raises UsageError where it is none, or not above zero.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = _UNITS.get(match[2] or "s") if match else None
    ns = round(float(match[1]) * unit) if match and unit else 0
    if ns <= 0:
        raise UsageError(
            f'duration "{text}": it must be a number above 0 with one of {", ".join(_UNITS)}, as in 10s or 250ms'
        )
    return ns


def format_duration(ns: float) -> str:
    """Three significant digits with the unit that suits: "1.21 s", "740 ms", "12.0 µs"."""
    for unit, size in (("s", NS_PER_S), ("ms", 1_000_000), ("µs", 1_000)):
        if abs(ns) >= size:
            value = ns / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{ns:.0f} ns"
