# SPDX-License-Identifier: MIT
"""A sweep of offered load × ring size: a run, or several, per point.

On the monotonic clock a point is measured for half a second at least, three times, and the points run in an order
shuffled by the seed, so that a drift of the host does not look like an effect of the load. A run on the virtual clock
is the same every time, so one is enough.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from exonet.clock import NS_PER_S, Clock
from exonet.errors import RunError
from exonet.lab.files import of_point
from exonet.lab.load import TapLoad
from exonet.lab.notes import check_trace, trace_notes
from exonet.lab.plan import Plan, TapSource, TraceSource
from exonet.lab.points import Point, Points, is_loss
from exonet.lab.progress import Progress
from exonet.lab.rates import Rate
from exonet.lab.results import Result, host
from exonet.lab.run import run
from exonet.wire.capture import Trace

#: At each point of a run in real time, and of one on the virtual clock.
SECONDS = 0.5
PACKETS = 50_000
FEWEST = 1000


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to sweep. packets: at each point, None: as many as it takes. repeat None: 3 in real time, else 1.
    descriptors: of the NIC, None: as many as the ring has entries.
    """

    plan: Plan
    rates: Sequence[Rate]
    rings: Sequence[int]
    packets: int | None = None
    repeat: int | None = None
    descriptors: int | None = None

    @property
    def virtual(self) -> bool:
        return self.plan.settings.clock is Clock.VIRTUAL

    @property
    def repetitions(self) -> int:
        return self.repeat or (1 if self.virtual else 3)

    def points(self) -> Points:
        """None of them measured yet."""
        settings = self.plan.settings
        load = (
            self.plan.source.path.name if isinstance(self.plan.source, TraceSource) else "TAP " + self.plan.source.name
        )
        title = f"{load}, {settings.clock.value} clock" + (f", costs {settings.costs}" if self.virtual else "")
        what = {
            "command": list(self.plan.command),
            "seed": settings.seed,
            "clock": settings.clock.value,
            "packets": self.packets,
            "title": title,
        }
        return Points(tuple(str(rate) for rate in self.rates), tuple(self.rings), {**host(), **what})

    def run(self, trace: Trace | None) -> Points:
        """Runs every point. trace: what `load` gave. Ctrl-C ends the sweep with the points measured until then."""
        points = self.points()
        order = [(rate, ring, n) for n in range(self.repetitions) for ring in self.rings for rate in self.rates]
        if not self.virtual:
            random.Random(self.plan.settings.seed).shuffle(order)
        with Progress("drops") as progress:
            for number, (rate, ring, repetition) in enumerate(order, start=1):
                progress.what = f"drops {number}/{len(order)}: {rate}, ring {ring}"
                if self.measure(points, rate, ring, repetition, trace, progress) is None:
                    break
        points.rows.sort(key=lambda point: (point.ring, points.rates.index(point.rate), point.repetition))
        return points

    def load(self, say: Callable[[str], None]) -> Trace | None:
        """The capture, once for all points; its notes are said once too."""
        if not isinstance(self.plan.source, TraceSource):
            return None
        trace = Trace.load(self.plan.source.path, memory_limit=self.plan.source.memory)
        check_trace(trace)
        if trace.count == 0:
            raise RunError(str(trace.broken))
        for note in trace_notes(trace):
            say(note)
        return trace

    def measure(
        self,
        points: Points,
        rate: Rate,
        ring: int,
        repetition: int,
        trace: Trace | None,
        progress: Progress,
        packets: int | None = None,
    ) -> Point | None:
        """Adds a run at one point, and returns it; None where Ctrl-C ended it."""
        packets = packets or self._packets(rate, trace)
        result, seconds = self._measure(rate, ring, repetition, trace, progress, packets)
        if result.interrupted:
            points.interrupted = True
            return None
        point = self._point(rate, ring, repetition, result, seconds, trace)
        points.rows.append(point)
        if result.failed:
            points.failed = True
            told = trace_notes(trace)  # by `load`
            points.warnings += [f"{rate}, ring {ring}: {note}" for note in result.notes if note not in told]
        return point

    def _packets(self, rate: Rate, trace: Trace | None) -> int:
        """What was asked for; else half a second of the load, a small capture whole, and some at a low rate too."""
        if self.packets is not None:
            return self.packets
        if self.virtual:
            return PACKETS
        pps = self._requested(rate, trace) or 0.0
        return max(FEWEST, round(SECONDS * pps), min(PACKETS, trace.count) if trace is not None else 0)

    def _measure(
        self, rate: Rate, ring: int, repetition: int, trace: Trace | None, progress: Progress, packets: int
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
            with TapLoad(source.name, rate.value, packets) as load:
                plan = replace(self.plan, source=replace(source, namespace=load.namespace), settings=settings)
                return run(plan, progress=progress, load=load), load.seconds()
        loops = -(-packets // max(1, trace.count)) if trace is not None else 1
        source = replace(source, speed=rate.speed, loop=loops, limit=packets)
        result = run(replace(self.plan, source=source, settings=settings), trace=trace, progress=progress)
        requested = self._requested(rate, trace)
        if self.virtual and requested:
            return result, result.ledger.stage("source").entered / requested
        return result, result.timing.seconds

    def _point(
        self, rate: Rate, ring: int, repetition: int, result: Result, seconds: float, trace: Trace | None
    ) -> Point:
        live = isinstance(self.plan.source, TapSource)  # such a run goes on after the load has ended
        busy = seconds if live else result.timing.seconds
        ours = result.ledger.of_wires
        claimed = ours.offered + ours.copies - sum(n for reason, n in ours.dropped.items() if not is_loss(reason))
        lost = ours.in_flight + sum(n for reason, n in ours.dropped.items() if is_loss(reason))
        bits = 8 * sum(int(row["bytes"]) for row in result.environments)
        return Point(
            rate=str(rate),
            ring=ring,
            repetition=repetition,
            requested_pps=self._requested(rate, trace),
            seconds=seconds,
            offered=ours.offered,
            achieved_pps=ours.offered / seconds if seconds else 0.0,
            claimed=claimed,
            delivered=ours.consumed,
            delivered_pps=ours.consumed / busy if busy else 0.0,
            mbps=bits / busy / 1e6 if busy else 0.0,
            lost=lost,
            loss=lost / claimed if claimed else 0.0,
            latency_ns={row["name"]: row["latency_ns"] for row in result.environments},
            dropped=dict(ours.dropped),
            sent=result.ledger.of_liboses,
            host=result.timing.host,
        )

    def _requested(self, rate: Rate, trace: Trace | None) -> float | None:
        if not rate.relative:
            return rate.value
        if trace is None or not isinstance(self.plan.source, TraceSource):
            return None
        seconds = trace.replay_length(self.plan.source.max_gap_ns) / NS_PER_S
        return rate.value * trace.count / seconds if seconds > 0 else None
