# SPDX-License-Identifier: MIT
"""What each LibOS of a run had: rate, latency, CPU time; for its JSON and its page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exonet.clock import NS_PER_S, format_duration
from exonet.lab.progress import format_rate

QUANTILES = (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))
LATENCY = "latency: from arrival at the wire (a replayed packet: when it was due) until the LibOS had consumed it"


def with_rates(report: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """pps, and mbps: million bits a second of the frames as captured. seconds: of the machine's own clock."""
    pps, bits = report["delivered"], 8 * report["bytes"] / 1e6
    return {**report, "pps": pps / seconds if seconds else 0.0, "mbps": bits / seconds if seconds else 0.0}


def figures(environments: Sequence[Mapping[str, Any]], seconds: float) -> Iterator[str]:
    """A row for each that consumed something. The share of CPU is of one core, over the whole run."""
    rows = [row for row in environments if row["delivered"]]
    if not rows:
        return
    timed = any(row["latency_ns"] for row in rows)
    head = ["LibOS", "delivered", "Mbit/s", "CPU", *(name for _, name in QUANTILES if timed)]
    cells = [head, *(_row(row, seconds, timed) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    for line in cells:
        name, *rest = (text.rjust(width) for text, width in zip(line, widths, strict=True))
        yield "  ".join([line[0].ljust(len(name)), *rest])
    if timed:
        yield LATENCY


def _row(row: Mapping[str, Any], seconds: float, timed: bool) -> list[str]:
    share = f"{100 * row['cpu_ns'] / NS_PER_S / seconds:.1f} %" if seconds else "-"
    told = row["latency_ns"]
    quantiles = [format_duration(told[key]) if told else "-" for key, _ in QUANTILES if timed]
    return [row["name"], format_rate(row["pps"]), f"{row['mbps']:,.1f}", share, *quantiles]
