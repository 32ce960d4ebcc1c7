# SPDX-License-Identifier: MIT
"""Clocks, stopwatches, durations."""

import pytest

from exonet.abi import lib
from exonet.clock import Clock, Stopwatch, format_duration, monotonic_ns, parse_duration, utc_now
from exonet.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10", 10**10), ("10s", 10**10), ("250ms", 250 * 10**6), ("1.5m", 90 * 10**9), ("50us", 50_000), ("7ns", 7)],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "0ms", "ten", "1 fortnight", "1e3", "0.1ns"])
def test_a_bad_duration_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=f'duration "{text}": it must be a number above 0'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0 ns"), (999, "999 ns"), (12_000, "12.0 µs"), (740e6, "740 ms"), (1.2134e9, "1.21 s")]
)
def test_durations_for_a_person(ns: float, text: str) -> None:
    assert format_duration(ns) == text


def test_clocks_have_their_native_numbers() -> None:
    assert Clock.parse("virtual").native == lib.EXO_CLOCK_VIRTUAL
    assert Clock.parse("monotonic").native == lib.EXO_CLOCK_MONOTONIC
    with pytest.raises(UsageError, match='clock "sundial"'):
        Clock.parse("sundial")


def test_a_stopwatch_does_not_run_backwards() -> None:
    watch = Stopwatch()
    first = watch.ns
    assert 0 <= first <= watch.ns <= monotonic_ns()
    assert watch.seconds >= 0
    assert utc_now().endswith("+00:00")
