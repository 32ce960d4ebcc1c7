# SPDX-License-Identifier: MIT
"""One line on a terminal, updated in place: packets, rate, drops so far.

It appears two seconds after it was made, is redrawn at most five times a second, and is silent where the stream is not
a terminal. `finish()` wipes it, so that what is printed next starts on a clean line.
"""

import sys
from types import TracebackType
from typing import Self, TextIO

from exonet.clock import NS_PER_S, monotonic_ns
from exonet.wording import counted, printable

PATIENCE_NS = 2 * NS_PER_S
REDRAW_NS = NS_PER_S // 5


class Progress:
    """A progress line for `what`; `total` frames where that is known. update() may be called as often as one likes."""

    def __init__(self, what: str, total: int | None = None, stream: TextIO | None = None) -> None:
        self.what = what
        self.total = total
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._start = self._last_draw = monotonic_ns()
        self._last_packets = 0
        self._width = 0

    def update(self, packets: int, drops: int, now: int | None = None) -> None:
        """Redraws if it is time to. now: ns of the monotonic clock, for tests."""
        if not self._live:
            return
        now = monotonic_ns() if now is None else now
        if now - self._start < PATIENCE_NS or now - self._last_draw < REDRAW_NS:
            return
        if packets < self._last_packets:  # the next run of several
            self._last_packets = 0
        rate = (packets - self._last_packets) * NS_PER_S / (now - self._last_draw)
        self._last_draw, self._last_packets = now, packets
        self._draw(self.line(packets, rate, drops))

    def line(self, packets: int, rate: float, drops: int) -> str:
        """What update() shows: "replay: 1,200,000 packets (48 %), 600 k/s, 31 dropped"."""
        share = f" ({100 * packets // self.total} %)" if self.total else ""
        return f"{self.what}: {counted(packets, 'packet')}{share}, {format_rate(rate)}, {drops:,} dropped"

    def say(self, text: str) -> None:
        """A line of its own for the person, terminal or not."""
        self.finish()
        self._stream.write(f"exonet: {printable(text)}\n")
        self._stream.flush()

    def finish(self) -> None:
        """Wipes the line. Idempotent."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _draw(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def format_rate(pps: float) -> str:
    """Three digits with a unit: "6.21 M/s", "480 k/s", "12 /s"."""
    for unit, size in ((" M", 1e6), (" k", 1e3)):
        if pps >= size:
            value = pps / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{unit}/s"
    return f"{pps:.0f} /s"
