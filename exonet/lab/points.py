# SPDX-License-Identifier: MIT
"""What came out of a sweep: a row for each run, and all of them as table, CSV, Parquet, JSON and PNG.

All of it is of what the wire offered: what LibOSes sent stands apart (`sent`). Claimed are the offered packets, with
copies, less those that go nowhere at any load: nobody asked for them, the NIC takes none so long, a LibOS's own stack
turns them away. Loss is the share of the claimed that met a reason of LOSSES; the load is the achieved one (R22).
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow
from pyarrow import parquet

from exonet.clock import format_duration
from exonet.errors import not_written
from exonet.lab.files import of_report, of_search
from exonet.lab.hostload import HostLoad
from exonet.lab.plot import Curve, Spread, plot
from exonet.lab.progress import format_rate
from exonet.ledger import Account, percent

#: What becomes of a packet for want of time or room; the beginning of a reason, or all of it.
LOSSES = (
    "tap.",
    "nic.rx_missed",
    "nic.rx_no_buffer",
    "nic.rx_fifo",
    "ring.",
    "stack.unaccounted",
    "stack.socket_rcvbuff",
    "stack.frag_reasm_full",
    "stack.frag_reasm_timeout",
)
SHORTFALL = 0.98


@dataclass(frozen=True, slots=True)
class Point:
    """One run: what was asked, what was achieved, what arrived.

    latency_ns: percentiles by LibOS. host: what else ran meanwhile; None on the virtual clock.
    """

    rate: str
    ring: int
    repetition: int
    requested_pps: float | None
    seconds: float
    offered: int
    achieved_pps: float
    claimed: int
    delivered: int
    delivered_pps: float
    mbps: float
    lost: int
    loss: float
    latency_ns: dict[str, dict[str, int] | None]
    dropped: dict[str, int]
    sent: Account
    host: HostLoad | None = None

    @property
    def short(self) -> bool:
        """Was less offered than asked for?"""
        return self.requested_pps is not None and self.achieved_pps < SHORTFALL * self.requested_pps

    @property
    def busy(self) -> bool:
        """Was the host so busy with other things that this may be noise?"""
        return self.host is not None and self.host.busy

    def slowest(self, quantile: str) -> int | None:
        """That percentile of the LibOS where it is largest."""
        return max((told[quantile] for told in self.latency_ns.values() if told), default=None)

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        return {**row, "short": self.short, "host": self.host and self.host.to_json(), "sent": self.sent.to_json()}


@dataclass(slots=True)
class Points:
    """All runs of a sweep. `found`: what a search for the highest rate came to, as rows for people and files."""

    rates: tuple[str, ...]
    rings: tuple[int, ...]
    run: dict[str, Any]
    rows: list[Point] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    failed: bool = False
    warnings: list[str] = field(default_factory=list)

    def at(self, rate: str, ring: int) -> list[Point]:
        return [point for point in self.rows if point.rate == rate and point.ring == ring]

    def groups(self, ring: int) -> Iterator[list[Point]]:
        """The repetitions of each rate."""
        for rate in self.rates:
            if points := self.at(rate, ring):
                yield points

    def table(self) -> str:
        """Loss by ring size and load, with its range over the repetitions; the rate delivered and the latency at it."""
        lines = [
            f"{'offered load':>14}{'loss':>9}{'from':>9}{'to':>9}{'delivered':>12}{'Mbit/s':>10}{'p50':>9}{'p99':>9}"
        ]
        for ring in self.rings:
            groups = list(self.groups(ring))
            if groups:
                lines += [f"ring {ring}", *(_row(group) for group in groups)]
        return "\n".join(lines)

    def notes(self) -> Iterator[str]:
        """What went wrong, where less was offered than asked for, and what the losses were."""
        yield from self.warnings
        lowest: dict[str, float] = {}
        for point in self.rows:
            if point.short:
                lowest[point.rate] = min(point.achieved_pps, lowest.get(point.rate, point.achieved_pps))
        if lowest:
            worst = ", ".join(f"{rate} (down to {format_rate(lowest[rate])})" for rate in self.rates if rate in lowest)
            yield f"* the achieved load is below the requested one at {worst}; loss is relative to what was achieved"
        disturbed = [point for point in self.rows if point.busy]
        if disturbed:
            loads = [point.host for point in disturbed if point.host is not None]
            most = max(loads, key=lambda each: each.others + each.steal)
            yield (
                f"! the host was busy in {len(disturbed)} of {len(self.rows)} runs ({most}, at worst): what was lost "
                "there may be noise; measure again on an idle host, or with --repeat"
            )
        if dropped := _added(point.dropped for point in self.rows):
            yield f"dropped in all: {dropped}"
        if any(point.sent.offered for point in self.rows):
            yield _of_liboses([point.sent for point in self.rows])

    def write(self, directory: Path) -> list[Path]:
        """drops.csv, drops.parquet, drops.json, drops.png. RunError where there is no room for them."""
        try:
            return self._write(directory)
        except OSError as error:
            raise not_written(f"report {directory}", error) from None

    def _write(self, directory: Path) -> list[Path]:
        reasons = sorted({reason for point in self.rows for reason in point.dropped})
        rows = [_flat(point, self.at(point.rate, point.ring), reasons) for point in self.rows]
        files = of_report(directory)
        _write_csv(files[0], rows)
        parquet.write_table(pyarrow.Table.from_pylist(rows), files[1])
        told = {"schema": 1, "run": self.run, "points": [p.to_json() for p in self.rows], "search": self.found}
        files[2].write_text(json.dumps(told, indent=2))
        if self.found:
            files.append(of_search(directory))
            _write_csv(files[-1], self.found)
        curves = [self._curve(ring) for ring in self.rings]
        plot(curves, str(self.run.get("title", "offered load")), files[3])
        return files

    def _curve(self, ring: int) -> Curve:
        """Medians of the repetitions, with their ranges, by achieved load."""
        groups = sorted(self.groups(ring), key=lambda group: median(p.achieved_pps for p in group))
        return Curve(
            f"ring {ring}",
            [median(p.achieved_pps for p in group) for group in groups],
            [Spread.of(p.loss for p in group) for group in groups],
            [Spread.of(p.delivered_pps for p in group) for group in groups],
        )


def _row(group: Sequence[Point]) -> str:
    """* where less was offered than asked for, ! where the host was busy."""
    loss = Spread.of(point.loss for point in group)
    ends = [percent(loss.low), percent(loss.high)] if len(group) > 1 else ["", ""]
    rate = format_rate(median(point.delivered_pps for point in group))
    waits = [[ns for point in group if (ns := point.slowest(key)) is not None] for key in ("p50", "p99")]
    latency = "".join(f"{format_duration(median(each)) if each else '-':>9}" for each in waits)
    marks = ("*" if any(point.short for point in group) else "") + ("!" if any(point.busy for point in group) else "")
    bits = f"{median(point.mbps for point in group):,.1f}"
    words = f"{group[0].rate:>14}{percent(loss.median):>9}{ends[0]:>9}{ends[1]:>9}{rate:>12}{bits:>10}{latency} {marks}"
    return words.rstrip()


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["rate", "ring"])
        writer.writeheader()
        writer.writerows(rows)


def _flat(point: Point, group: Sequence[Point], reasons: Sequence[str]) -> dict[str, Any]:
    """A row of the files. group: its repetitions, of which each row has the loss's median and range."""
    row = asdict(point)
    for name in ("dropped", "sent", "host", "latency_ns"):
        row.pop(name)
    loss = Spread.of(each.loss for each in group)
    row |= {"loss_median": loss.median, "loss_low": loss.low, "loss_high": loss.high}
    row |= {f"latency_{key}_ns": point.slowest(key) for key in ("p50", "p99", "p999", "max")}
    row |= {"short": point.short, "busy": point.busy}
    row |= {f"host_{key}": getattr(point.host, key, None) for key in ("others", "steal", "waited", "switches")}
    sent = {**asdict(point.sent), "dropped": sum(point.sent.dropped.values())}
    row |= {f"sent_{key}": value for key, value in sent.items()}
    return row | {reason: point.dropped.get(reason, 0) for reason in reasons}


def is_loss(reason: str) -> bool:
    """Would a packet with this fate have arrived at a lower load?"""
    return reason.startswith(LOSSES)


def _added(counts: Iterable[Mapping[str, int]]) -> str:
    """Their sums by reason, the largest first."""
    totals: Counter[str] = Counter()
    for each in counts:
        totals.update(each)
    return ", ".join(f"{reason} {n:,}" for reason, n in totals.most_common())


def _of_liboses(sent: Sequence[Account]) -> str:
    """What LibOSes sent, and what became of it."""
    ends = {
        "left on a wire": sum(each.sent for each in sent),
        "reached a LibOS": sum(each.consumed for each in sent),
        "in flight": sum(each.in_flight for each in sent),
    }
    told = [f"{n:,} {what}" for what, n in ends.items() if n]
    if dropped := _added(each.dropped for each in sent):
        told.append(f"dropped {dropped}")
    return f"LibOSes sent {sum(each.offered for each in sent):,}, counted apart: {', '.join(told)}"
