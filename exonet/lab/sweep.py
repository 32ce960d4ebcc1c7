# SPDX-License-Identifier: MIT
"""A sweep of offered load × ring size: a run per point, and what came out of all of them as table, CSV, Parquet and
PNG.

All of it is of what the wire offered: what LibOSes sent stands apart (`sent`). Claimed are the offered packets, with
copies, less those that go nowhere at any load: nobody asked for them, the NIC takes none so long, a LibOS's own stack
turns them away. Loss is the share of the claimed that met a reason of LOSSES; the load is the achieved one (R22). On
the monotonic clock the points run in an order shuffled by the seed, so that a drift of the host does not look like an
effect of the load.
"""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow
from pyarrow import parquet

from exonet.clock import NS_PER_S, Clock
from exonet.errors import not_written
from exonet.lab.files import of_point, of_report
from exonet.lab.load import TapLoad
from exonet.lab.plan import Plan, TapSource, TraceSource
from exonet.lab.plot import Curve, plot
from exonet.lab.progress import Progress, format_rate
from exonet.lab.rates import Rate
from exonet.lab.results import Result, host
from exonet.lab.run import run
from exonet.lab.source import trace_notes
from exonet.ledger import Account, percent
from exonet.wire.capture import Trace

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
    """One run: what was asked, what was achieved, what arrived."""

    rate: str
    ring: int
    repetition: int
    requested_pps: float | None
    offered: int
    achieved_pps: float
    claimed: int
    delivered: int
    delivered_pps: float
    lost: int
    loss: float
    dropped: dict[str, int]
    sent: Account

    @property
    def short(self) -> bool:
        """Was less offered than asked for?"""
        return self.requested_pps is not None and self.achieved_pps < SHORTFALL * self.requested_pps


@dataclass(slots=True)
class Points:
    """All runs of a sweep."""

    rates: tuple[str, ...]
    rings: tuple[int, ...]
    run: dict[str, Any]
    rows: list[Point] = field(default_factory=list)
    interrupted: bool = False
    failed: bool = False
    warnings: list[str] = field(default_factory=list)

    def at(self, rate: str, ring: int) -> list[Point]:
        return [point for point in self.rows if point.rate == rate and point.ring == ring]

    def table(self) -> str:
        """Loss by load and ring size, and the rate that was delivered at it."""
        head = f"{'offered load':>14}" + "".join(f"{f'ring {ring}':>24}" for ring in self.rings)
        under = f"{'':>14}" + f"{'loss   delivered':>24}" * len(self.rings)
        return "\n".join([head, under, *(self._row(rate) for rate in self.rates)])

    def _row(self, rate: str) -> str:
        cells = []
        for ring in self.rings:
            points = self.at(rate, ring)
            loss = percent(median(point.loss for point in points)) if points else "-"
            pps = format_rate(median(point.delivered_pps for point in points)) if points else "-"
            mark = "*" if any(point.short for point in points) else " "
            cells.append(f"{loss:>11} {pps:>11}{mark}")
        return f"{rate:>14}" + "".join(cells)

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
        rows = [_flat(point, reasons) for point in self.rows]
        files = of_report(directory)
        with files[0].open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["rate", "ring"])
            writer.writeheader()
            writer.writerows(rows)
        parquet.write_table(pyarrow.Table.from_pylist(rows), files[1])
        files[2].write_text(
            json.dumps({"schema": 1, "run": self.run, "points": [asdict(point) for point in self.rows]}, indent=2)
        )
        curves = [self._curve(ring) for ring in self.rings]
        plot(curves, str(self.run.get("title", "offered load")), files[3])
        return files

    def _curve(self, ring: int) -> Curve:
        """Medians of the repetitions, by achieved load."""
        groups = [points for rate in self.rates if (points := self.at(rate, ring))]
        rows = sorted(
            (
                median(p.achieved_pps for p in group),
                median(p.loss for p in group),
                median(p.delivered_pps for p in group),
            )
            for group in groups
        )
        return Curve(f"ring {ring}", [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _flat(point: Point, reasons: Sequence[str]) -> dict[str, Any]:
    row = asdict(point)
    dropped = row.pop("dropped")
    sent = row.pop("sent")
    sent["dropped"] = sum(sent["dropped"].values())
    apart = {f"sent_{key}": value for key, value in sent.items()}
    return {**row, "short": point.short, **apart, **{reason: dropped.get(reason, 0) for reason in reasons}}


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


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to sweep. descriptors: of the NIC, None: as many as the ring has entries."""

    plan: Plan
    rates: Sequence[Rate]
    rings: Sequence[int]
    packets: int
    repeat: int = 1
    descriptors: int | None = None

    @property
    def _virtual(self) -> bool:
        return self.plan.settings.clock is Clock.VIRTUAL

    def run(self, say: Callable[[str], None]) -> Points:
        """Runs every point; Ctrl-C ends the sweep with the points measured until then."""
        settings = self.plan.settings
        load = (
            self.plan.source.path.name if isinstance(self.plan.source, TraceSource) else "TAP " + self.plan.source.name
        )
        title = f"{load}, {settings.clock.value} clock" + (f", costs {settings.costs}" if self._virtual else "")
        what = {
            "command": list(self.plan.command),
            "seed": settings.seed,
            "clock": settings.clock.value,
            "packets": self.packets,
            "title": title,
        }
        points = Points(tuple(str(rate) for rate in self.rates), tuple(self.rings), {**host(), **what})
        order = [(rate, ring, n) for n in range(self.repeat) for ring in self.rings for rate in self.rates]
        if not self._virtual:
            random.Random(self.plan.settings.seed).shuffle(order)
        trace = self._load(say)
        with Progress("drops") as progress:
            for number, (rate, ring, repetition) in enumerate(order, start=1):
                progress.what = f"drops {number}/{len(order)}: {rate}, ring {ring}"
                result, seconds = self._measure(rate, ring, repetition, trace, progress)
                if result.interrupted:
                    points.interrupted = True
                    break
                points.rows.append(self._point(rate, ring, repetition, result, seconds, trace))
                if result.failed:
                    points.failed = True
                    points.warnings += [f"{rate}, ring {ring}: {note}" for note in result.notes]
        points.rows.sort(key=lambda point: (point.ring, points.rates.index(point.rate), point.repetition))
        return points

    def _load(self, say: Callable[[str], None]) -> Trace | None:
        """The capture, once for all points; its notes are said once too."""
        if not isinstance(self.plan.source, TraceSource):
            return None
        trace = Trace.load(self.plan.source.path, memory_limit=self.plan.source.memory)
        for note in trace_notes(trace):
            say(note)
        return trace

    def _measure(
        self, rate: Rate, ring: int, repetition: int, trace: Trace | None, progress: Progress
    ) -> tuple[Result, float]:
        """A run at one point, and the seconds in which its load was offered.

        On the virtual clock frames arrive when they are due, whatever happens (R16), so the load is the one asked for.
        """
        source = self.plan.source
        pcap_out, events = self.plan.settings.pcap_out, self.plan.settings.trace
        settings = replace(
            self.plan.settings,
            rings=ring,
            buffers=ring,
            descriptors=self.descriptors or ring,
            pcap_out=None if pcap_out is None else of_point(pcap_out, rate, ring, repetition),
            trace=None if events is None else of_point(events, rate, ring, repetition),
        )
        if isinstance(source, TapSource):
            with TapLoad(source.name, rate.value, self.packets) as load:
                settings = replace(settings, duration_ns=load.duration_ns)
                plan = replace(self.plan, source=replace(source, namespace=load.namespace), settings=settings)
                return run(plan, progress=progress, starting=load.start), load.seconds()
        loops = -(-self.packets // max(1, trace.count)) if trace is not None else 1
        source = replace(source, speed=rate.speed, loop=loops, limit=self.packets)
        result = run(replace(self.plan, source=source, settings=settings), trace=trace, progress=progress)
        requested = self._requested(rate, trace)
        if self._virtual and requested:
            return result, result.ledger.stage("source").entered / requested
        return result, result.timing.seconds

    def _point(
        self, rate: Rate, ring: int, repetition: int, result: Result, seconds: float, trace: Trace | None
    ) -> Point:
        ledger = result.ledger
        live = isinstance(self.plan.source, TapSource)  # such a run goes on after the load has ended
        busy = seconds if live else result.timing.seconds
        ours = ledger.of_wires
        claimed = ours.offered + ours.copies - sum(n for reason, n in ours.dropped.items() if not is_loss(reason))
        lost = ours.in_flight + sum(n for reason, n in ours.dropped.items() if is_loss(reason))
        return Point(
            rate=str(rate),
            ring=ring,
            repetition=repetition,
            requested_pps=self._requested(rate, trace),
            offered=ours.offered,
            achieved_pps=ours.offered / seconds if seconds else 0.0,
            claimed=claimed,
            delivered=ours.consumed,
            delivered_pps=ours.consumed / busy if busy else 0.0,
            lost=lost,
            loss=lost / claimed if claimed else 0.0,
            dropped=dict(ours.dropped),
            sent=ledger.of_liboses,
        )

    def _requested(self, rate: Rate, trace: Trace | None) -> float | None:
        if not rate.relative:
            return rate.value
        if trace is None:
            return None
        seconds = (trace.last_timestamp - trace.first_timestamp) / NS_PER_S
        return rate.value * trace.count / seconds if seconds > 0 else None
