# SPDX-License-Identifier: MIT
"""The highest rate with at most so much loss, for each ring size: RFC 2544's throughput, as MLRsearch looks for it.

MLRsearch (RFC 9971) needs few trials, since a trial that loses tells by what was delivered where to look next. In real
time a load counts as good where it is so in two of three trials, so that one disturbed trial does not decide. A trial
lasts half a second, and long enough to fill every queue that would hide a load 1 % too high.
"""

from dataclasses import dataclass, field
from typing import Any

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

from exonet.clock import Stopwatch
from exonet.lab.points import Point, Points
from exonet.lab.progress import Progress, format_rate
from exonet.lab.rates import Rate
from exonet.lab.sweep import SECONDS, Sweep
from exonet.ledger import percent
from exonet.wire.capture import Trace

#: The two bounds of what is found differ by so much at most.
WIDTH = 0.01
LOWEST_PPS, HIGHEST_PPS, HIGHEST_TAP_PPS = 1e3, 5e7, 4e5
#: Of one ring size: trials, and seconds of the host.
MOST_TRIALS, LONGEST_S = 60, 300.0
#: A load that is 1 % too high must overflow what lies between wire and LibOS; but a trial takes at most so long.
FILLS, LONGEST_TRIAL_S = 100, 3.0


class EndedError(Exception):
    """No more trials: Ctrl-C, or there were enough."""


@dataclass(slots=True)
class Trials(AbstractMeasurer):  # type: ignore[misc]  # MLRsearch has no type marker
    """A sweep's runs as MLRsearch wants them; `points` has each."""

    sweep: Sweep
    ring: int
    trace: Trace | None
    points: Points
    progress: Progress
    done: list[Point] = field(default_factory=list)

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """One trial. intended_load: packets/s. EndedError."""
        if len(self.done) == MOST_TRIALS:
            raise EndedError
        rate = Rate(round(intended_load))
        self.progress.what = f"drops --search, ring {self.ring}, trial {len(self.done) + 1}: {rate}"
        count = self._packets(rate.value)
        point = self.sweep.measure(self.points, rate, self.ring, len(self.done), self.trace, self.progress, count)
        if point is None:
            raise EndedError
        self.done.append(point)
        # A packet that the sender did not get out in time is lost (RFC 2544 26.1).
        share = point.achieved_pps / rate.value if point.short else 1.0
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=point.claimed,
            loss_count=point.lost,
            intended_count=max(point.claimed, round(point.claimed / share)) if share else point.claimed,
        )

    def _packets(self, pps: float) -> int:
        settings = self.sweep.plan.settings
        held = self.ring + (self.sweep.descriptors or self.ring) + settings.fifo_bytes // 60
        enough = FILLS * held
        if self.sweep.virtual:
            return enough
        return max(round(SECONDS * pps), min(enough, round(LONGEST_TRIAL_S * pps)))


def search(sweep: Sweep, loss: float, points: Points, trace: Trace | None) -> None:
    """Adds a row for each ring size to `points.found`: the highest rate whose loss is at most `loss`, a share.

    The trials' own runs are not rows of `points`.
    """
    trials = sweep.points()
    with Progress("drops --search") as progress:
        for ring in sweep.rings:
            points.found.append(highest(Trials(sweep, ring, trace, trials, progress), loss, sweep))
            if trials.interrupted:
                break
    points.interrupted |= trials.interrupted
    points.failed |= trials.failed
    points.warnings += trials.warnings


def highest(trials: Trials, loss: float, sweep: Sweep) -> dict[str, Any]:
    """pps: the highest load that is good, None where none is. upper_pps: the lowest that is not, None: none tried."""
    watch = Stopwatch()
    goal = SearchGoal(
        loss_ratio=loss,
        exceed_ratio=0.5,
        relative_width=WIDTH,
        initial_trial_duration=SECONDS,
        final_trial_duration=SECONDS,
        duration_sum=SECONDS if sweep.virtual else 3 * SECONDS,
        fail_fast=False,
    )
    lower = upper = None
    why = ""
    try:
        found = MultipleLossRatioSearch(_config(goal, live=trials.trace is None)).search(trials)[goal]
        lower, upper = _pps(found.relevant_lower_bound), _pps(found.relevant_upper_bound)
    except EndedError:
        why = f"not found in {len(trials.done)} trials"
    except RuntimeError:
        why = f"not found in {watch.seconds:.0f} s"
    over = [point for point in trials.done if upper is not None and point.requested_pps == round(upper)]
    return {
        "ring": trials.ring,
        "loss": loss,
        "pps": lower,
        "upper_pps": upper,
        "trials": len(trials.done),
        "seconds": None if sweep.virtual else watch.seconds,
        "busy": sum(point.busy for point in trials.done),
        "sender_limited": any(point.short and point.loss <= loss for point in over),
        "why": why,
    }


def _config(goal: Any, *, live: bool) -> Any:
    config = Config()
    config.goals = [goal]
    config.min_load, config.max_load = LOWEST_PPS, HIGHEST_TAP_PPS if live else HIGHEST_PPS
    config.search_duration_max = LONGEST_S
    config.warmup_duration = None
    return config


def _pps(bound: Any) -> float | None:
    return None if bound is None else float(bound)


def words(found: dict[str, Any]) -> str:
    """A line for a person."""
    wanted = f"at most {percent(found['loss'])}" if found["loss"] else "no"
    what = f"ring {found['ring']}: highest rate with {wanted} loss"
    lower, upper = found["pps"], found["upper_pps"]
    if found["why"]:
        return f"{what}: {found['why']}"
    told = f"none from {format_rate(LOWEST_PPS)} on" if lower is None else format_rate(lower)
    if upper is None:
        bound = "nothing higher is tried"
    elif found["sender_limited"]:
        bound = f"at {format_rate(upper)} the sender falls behind, without more loss"
    else:
        bound = f"more at {format_rate(upper)}"
    busy = f", the host was busy in {found['busy']} of them !" if found["busy"] else ""
    return f"{what}: {told} ({bound}; {found['trials']} trials{busy})"
