# SPDX-License-Identifier: MIT
"""The names of the files that a run writes beside the ones that were named."""

from pathlib import Path

from exonet.lab.rates import Rate

__all__ = ["of_point", "of_report", "of_search", "of_wire"]


def of_wire(path: Path, number: int) -> Path:
    """A file of its own for each wire after the first: out-1.pcapng."""
    return path if number == 0 else path.with_stem(f"{path.stem}-{number}")


def of_point(path: Path, rate: Rate, ring: int, repetition: int) -> Path:
    """A file of its own for each point of a sweep: trace-2M-64-0.jsonl."""
    return path.with_stem(f"{path.stem}-{rate.text}-{ring}-{repetition}")


def of_report(directory: Path) -> list[Path]:
    """drops.csv, drops.parquet, drops.json, drops.png. What --search found goes to `of_search`."""
    return [directory / f"drops.{kind}" for kind in ("csv", "parquet", "json", "png")]


def of_search(directory: Path) -> Path:
    """search.csv."""
    return directory / "search.csv"
