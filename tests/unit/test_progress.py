# SPDX-License-Identifier: MIT
"""The progress line: patience, rate, silence."""

import io

import pytest

from exonet.lab.progress import PATIENCE_NS, REDRAW_NS, Progress, format_rate
from exonet.wording import counted


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_silent_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress("replay", stream=stream)
    progress.update(10, 0, now=progress._start + 10 * PATIENCE_NS)
    progress.finish()
    assert stream.getvalue() == ""


def test_silent_for_the_first_two_seconds() -> None:
    stream = Terminal()
    progress = Progress("replay", stream=stream)
    progress.update(10, 0, now=progress._start + PATIENCE_NS - 1)
    assert stream.getvalue() == ""


def test_one_line_is_updated_in_place_and_wiped() -> None:
    stream = Terminal()
    with Progress("replay", total=4_000_000, stream=stream) as progress:
        begin = progress._start
        progress.update(1_000_000, 31, now=begin + PATIENCE_NS)
        progress.update(1_000_001, 31, now=begin + PATIENCE_NS + 1)
        progress.update(1_200_000, 32, now=begin + PATIENCE_NS + REDRAW_NS)
    parts = stream.getvalue().split("\r")
    assert parts[1] == "replay: 1,000,000 packets (25 %), 500 k/s, 31 dropped"
    assert parts[2].rstrip() == "replay: 1,200,000 packets (30 %), 1.00 M/s, 32 dropped"
    assert parts[3].strip() == "" and parts[4] == ""
    assert "\n" not in stream.getvalue()


@pytest.mark.parametrize(
    ("pps", "text"), [(0, "0 /s"), (12.4, "12 /s"), (480_000, "480 k/s"), (6_214_000, "6.21 M/s"), (1500, "1.50 k/s")]
)
def test_rates(pps: float, text: str) -> None:
    assert format_rate(pps) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (1849, "1,849 frames")])
def test_a_count_reads_as_people_write_it(count: int, text: str) -> None:
    assert counted(count, "frame") == text
