# SPDX-License-Identifier: MIT
"""The benchmark harness: rows of figures, each the median of repetitions, as a table and as JSON.

    {"schema": 1, "run": {host, kernel, seed, toy, ...}, "rows": [{"row", "skipped", "wall_s", "figures": [
        {"name", "unit", "median", "low", "high", "samples", "target", "met", "details"}]}]}

The rows are in tests/bench. A row is a function of a Context that gives figures, or raises Skip with the reason. A peer
that is not installed is skipped inside its row. At toy size everything runs, nothing is judged.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exonet.clock import Stopwatch
from exonet.errors import ExonetError, UsageError
from exonet.lab.results import host

__all__ = ["Context", "Figure", "Outcome", "Row", "Skip", "Target", "main", "ratio", "run_rows", "table"]

SCHEMA = 1
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Skip(Exception):
    """This cannot be measured here; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Target:
    """What issue and README promise: at least `bound`, or (`at_most`) no more than it."""

    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {number(self.bound)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing. `samples`: a number per repetition. `skipped`: why there is none."""

    name: str
    unit: str
    samples: tuple[float, ...] = ()
    target: Target | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def met(self) -> bool | None:
        """None: there is no target, or nothing was measured."""
        return None if self.target is None or self.median is None else self.target.met(self.median)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.samples, default=None),
            "high": max(self.samples, default=None),
            "samples": list(self.samples),
            "target": str(self.target) if self.target else None,
            "met": self.met,
            "details": dict(self.details),
            "skipped": self.skipped,
        }


def ratio(name: str, ours: Figure, peer: Figure, target: Target | None = None) -> Figure:
    """`ours` over `peer`, repetition by repetition, so that what disturbs one disturbs the other."""
    if peer.skipped or ours.skipped:
        return Figure(name, "x", target=target, skipped=peer.skipped or ours.skipped)
    pairs = zip(ours.samples, peer.samples, strict=True)
    return Figure(name, "x", tuple(a / b for a, b in pairs if b), target)


@dataclass(frozen=True, slots=True)
class Context:
    """How to measure. `work`: a directory for traces and programs, gone afterwards."""

    work: Path
    toy: bool = False
    seed: int = 1
    repetitions: int = 5

    def size(self, real: int, toy: int) -> int:
        """A count of frames, round trips or ns: `real`, or `toy` where only the function is tested."""
        return toy if self.toy else real

    def repeat(self) -> Iterator[int]:
        return iter(range(1 if self.toy else self.repetitions))


Row = Callable[[Context], Iterable[Figure]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row after it ran. `failed`: what broke, in one line."""

    row: str
    figures: tuple[Figure, ...] = ()
    skipped: str | None = None
    failed: str | None = None
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "skipped": self.skipped,
            "failed": self.failed,
            "wall_s": self.wall_s,
            "figures": [figure.to_json() for figure in self.figures],
        }


def run_rows(rows: Mapping[str, Row], names: Sequence[str], context: Context) -> Iterator[Outcome]:
    """Runs the named rows (all, where none is named), one after the other. UsageError for a name that is none."""
    for name in names:
        if name not in rows:
            raise UsageError(f'benchmark "{name}": there is none such; there are {", ".join(rows)}')
    for name in names or rows:
        watch = Stopwatch()
        try:
            figures = tuple(rows[name](context))
            yield Outcome(name, figures, wall_s=watch.seconds)
        except Skip as reason:
            yield Outcome(name, skipped=str(reason), wall_s=watch.seconds)
        except ExonetError as error:
            yield Outcome(name, failed=f"{type(error).__name__}: {error}", wall_s=watch.seconds)


def number(value: float) -> str:
    """Three significant digits with a prefix: 6.83M, 31.2k, 0.842."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}" if abs(value) < 999.5 * factor else f"{value / factor:.0f}{prefix}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _cells(figure: Figure, judged: bool) -> tuple[str, str, str, str]:
    if figure.median is None:
        return (figure.name, "-", "", f"skipped: {figure.skipped}")
    spread = f"{number(min(figure.samples))}..{number(max(figure.samples))}" if len(figure.samples) > 1 else ""
    verdict = ""
    if figure.target is not None:
        verdict = f"{figure.target} {'' if not judged else 'ok' if figure.met else 'MISSED'}".rstrip()
    return (figure.name, f"{number(figure.median)} {figure.unit}", spread, verdict)


def table(outcomes: Sequence[Outcome], *, judged: bool) -> str:
    """Row, figure, median, range, target. `judged` False: targets are shown but not compared."""
    lines = [("row", "figure", "median", "range", "target")]
    for outcome in outcomes:
        if outcome.skipped or outcome.failed:
            said = f"skipped: {outcome.skipped}" if outcome.skipped else f"FAILED: {outcome.failed}"
            lines.append((outcome.row, "-", "-", "", said))
        lines += [(outcome.row, *_cells(figure, judged)) for figure in outcome.figures]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip()
        for line in lines
    )


def to_json(outcomes: Sequence[Outcome], context: Context, command: Sequence[str]) -> dict[str, Any]:
    """The whole run, as the head of this module says."""
    run = {
        **host(),
        "command": list(command),
        "seed": context.seed,
        "toy": context.toy,
        "repetitions": context.repetitions,
    }
    return {"schema": SCHEMA, "run": run, "rows": [outcome.to_json() for outcome in outcomes]}


def _parser(rows: Mapping[str, Row]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures exonet's speed. Every rate is of frames delivered and verified.",
        epilog="rows: "
        + "; ".join(f"{name}: {(row.__doc__ or '').strip().splitlines()[0]}" for name, row in rows.items()),
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="what to measure; all, where none is named")
    parser.add_argument("--toy", action="store_true", help="a size that only tests the benchmarks themselves")
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON; - is stdout, and the table goes to stderr"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="repetitions; the table shows the median (5)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the generated frames and of the machine (1)"
    )
    return parser


def main(rows: Mapping[str, Row], arguments: Sequence[str] | None = None) -> int:
    """The command. 0: measured (a missed target is said, no failure); 1: a row failed; 2: the caller's mistake."""
    command = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(rows).parse_args(command)
    try:
        if options.repeat < 1:
            raise UsageError(f"--repeat {options.repeat}: must be at least 1")
        with tempfile.TemporaryDirectory(prefix="exonet-bench-") as work:
            context = Context(Path(work), options.toy, options.seed, options.repeat)
            outcomes = list(_announced(run_rows(rows, options.rows, context), len(options.rows or rows)))
        _report(outcomes, context, command, options.json)
    except ExonetError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("scripts/bench: interrupted; nothing is written", file=sys.stderr)
        return 130
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _announced(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """Says which row is done, where a person looks on."""
    for done, outcome in enumerate(outcomes, 1):
        if sys.stderr.isatty():
            print(f"{done}/{total} {outcome.row}: {outcome.wall_s:.1f} s", file=sys.stderr)
        yield outcome


def _report(outcomes: Sequence[Outcome], context: Context, command: Sequence[str], target: str | None) -> None:
    print(table(outcomes, judged=not context.toy), file=sys.stderr if target == "-" else sys.stdout)
    if target is None:
        return
    text = json.dumps(to_json(outcomes, context, command), indent=2) + "\n"
    if target == "-":
        print(text, end="")
        return
    try:
        Path(target).write_text(text)
    except OSError as error:
        raise UsageError(f"JSON file {target}: cannot be written: {error.strerror}") from None
