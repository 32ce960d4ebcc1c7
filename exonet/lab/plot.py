# SPDX-License-Identifier: MIT
"""The picture of a sweep: loss (log scale) and delivered rate against offered load, a curve per ring size."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some repetitions, and their range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = sorted(values)
        return cls(median(found), found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Curve:
    """One ring size: by achieved load (packets/s, ascending), the loss as a share, and the delivered rate."""

    label: str
    loads: Sequence[float]
    losses: Sequence[Spread]
    delivered: Sequence[Spread]


def plot(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Writes the PNG. matplotlib takes a while to load, and that a home cannot be written is no news here."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True)
    _draw_loss(loss, curves)
    for curve, style in zip(curves, _styles(), strict=False):
        _draw(rate, curve, [_scaled(spread, 1e-6) for spread in curve.delivered], style)
    top = max((load for curve in curves for load in curve.loads), default=1.0) / 1e6
    rate.plot([0, top], [0, top], color="grey", linestyle=":", label="no loss")
    rate.set_ylabel("delivered, million packets/s")
    rate.set_xlabel("offered load (achieved), million packets/s")
    rate.legend()
    rate.grid(visible=True, alpha=0.3)
    figure.suptitle(f"Loss and delivered rate against offered load\n{title}")
    figure.savefig(path, dpi=120)


def _draw_loss(axes: Any, curves: Sequence[Curve]) -> None:
    """A log axis has no zero: points without loss sit on a line of their own below the smallest loss."""
    from matplotlib.ticker import FuncFormatter

    seen = [loss.median for curve in curves for loss in curve.losses if loss.median > 0]
    floor = min([0.001, *seen]) / 5
    for curve, style in zip(curves, _styles(), strict=False):
        _draw(axes, curve, [_at_least(spread, floor) for spread in curve.losses], style)
    axes.axhline(floor, color="grey", linestyle=":")
    axes.annotate("no loss", (0.01, floor), xycoords=("axes fraction", "data"), color="grey", va="bottom")
    axes.set_yscale("log")
    axes.set_ylim(floor / 2, 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_ylabel("loss, of the packets that a binding claims")
    axes.legend()
    axes.grid(visible=True, which="both", alpha=0.3)


def _draw(axes: Any, curve: Curve, spreads: Sequence[Spread], style: dict[str, Any]) -> None:
    """The medians, with a bar for the range of the repetitions."""
    below = [spread.median - spread.low for spread in spreads]
    above = [spread.high - spread.median for spread in spreads]
    medians = [spread.median for spread in spreads]
    axes.errorbar(_mega(curve.loads), medians, yerr=[below, above], capsize=3, label=curve.label, **style)


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(spread.median * factor, spread.low * factor, spread.high * factor)


def _at_least(spread: Spread, floor: float) -> Spread:
    return Spread(max(spread.median, floor), max(spread.low, floor), max(spread.high, floor))


def _styles() -> Iterator[dict[str, Any]]:
    """Open markers of different shape and size: curves that lie on each other can still be told apart."""
    for marker, dash, size in cycle(zip("os^Dv", ("-", "--", "-.", ":", "-"), (10, 8, 6, 5, 4), strict=True)):
        yield {"marker": marker, "linestyle": dash, "markerfacecolor": "none", "markersize": size}


def _mega(values: Sequence[float]) -> list[float]:
    return [value / 1e6 for value in values]
