# SPDX-License-Identifier: MIT
"""Every benchmark at toy size, and the harness itself. No figure is judged here."""

import importlib.util
import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from exonet.errors import RunError, UsageError
from exonet.lab.bench import Context, Figure, Skip, Target, main, number, ratio, run_rows, table
from exonet.wire.capture import Trace
from tests.bench.bench_demux import CONNECTED
from tests.bench.bench_demux_cases import Table, flow_text, flows, works
from tests.bench.bench_demux_peers import Libpcaps, Ours, rte_acl
from tests.bench.bench_frames import SIZE, checksum, udp_frame, write_trace
from tests.bench.bench_path import deliver
from tests.bench.bench_spread import spread_trace


def rows():
    spec = importlib.util.spec_from_file_location("bench_main", Path(__file__).with_name("__main__.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROWS


NAMES = [
    "path",
    "load",
    "stream",
    "echo",
    "ping",
    "idle",
    "pace",
    "capacity",
    "bind",
    "churn",
    "demux",
    "compile",
    "spread",
    "stages",
]


def test_every_row_is_tried():
    assert sorted(NAMES) == sorted(rows())


@pytest.mark.parametrize("name", NAMES)
def test_row_at_toy_size(name, tmp_path):
    (outcome,) = run_rows(rows(), [name], Context(tmp_path, toy=True))
    assert outcome.failed is None
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.figures
    assert all(figure.skipped or figure.median is not None for figure in outcome.figures)
    if name != "stages":
        assert any(figure.target for figure in outcome.figures), "every row but the profile is there for a promise"


def test_generated_frames_are_distinct_and_repeatable(tmp_path):
    first, again, other = (write_trace(tmp_path / f"{i}.pcap", 2000, seed) for i, seed in enumerate((1, 1, 2)))
    with Trace.load(first) as trace:
        frames = [bytes(frame) for frame in trace]
    assert len(set(frames)) == 2000
    assert {len(frame) for frame in frames} == {SIZE}
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert checksum(udp_frame(77, bytes(22))[14:34]) == 0


def test_generated_trace_can_repeat_its_frames(tmp_path):
    with Trace.load(write_trace(tmp_path / "x.pcap", 250, distinct=100)) as trace:
        frames = [bytes(frame) for frame in trace]
    assert (len(frames), len(set(frames))) == (250, 100)


def test_frames_that_two_sinks_had_of_each_other_give_no_figure(tmp_path):
    made = spread_trace(Context(tmp_path, toy=True), 2, process=False)
    first, second = made.specs
    swapped = [replace(first, bindings=second.bindings), replace(second, bindings=first.bindings)]
    with Trace.load(made.file) as trace:
        assert deliver(trace, 2, 1, made.specs, shares=made.shares).frames == 2 * len(trace)
        with pytest.raises(RunError, match="sink0 consumed"):
            deliver(trace, 2, 1, swapped, shares=made.shares)


@pytest.mark.parametrize("peer", ["ours", "libpcap", "rte_acl"])
def test_a_run_with_a_wrong_owner_gives_no_figure(peer, tmp_path):
    context = Context(tmp_path, toy=True)
    frames = flows(8, 1)
    with Table(1) as table, ExitStack() as stack:
        (work,) = works(frames, table.bind(CONNECTED, frames), 1, toy=True, only=("resident",))
        wrong = replace(work, right=(work.right + 1) % 8)
        try:
            run = {
                "ours": lambda: partial(Ours(context).nanoseconds, table),
                "libpcap": lambda: partial(
                    Libpcaps(context, [flow_text(frame) for frame in frames]).nanoseconds, frames=64
                ),
                "rte_acl": lambda: partial(stack.enter_context(rte_acl(context, frames)).nanoseconds, method="scalar"),
            }[peer]()
            assert run(work) > 0
        except Skip as reason:
            pytest.skip(str(reason))
        with pytest.raises(RunError, match="wrong owner"):
            run(replace(wrong, name="wrong"))


# ---- the harness ----


def good(context):
    """A row that measures."""
    yield Figure("speed", "frames/s", tuple(1e6 * (i + 1) for i in context.repeat()), Target(2e6))
    yield Figure("error", "us", (3.0, 1.0, 2.0), Target(1, at_most=True))
    yield Figure("peer", "frames/s", skipped="it is not installed")


def absent(context):
    """A row that cannot."""
    raise Skip("no such device")


def broken(context):
    """A row that fails."""
    raise RunError("3 of 5 frames delivered")


FAKES = {"good": good, "absent": absent, "broken": broken}


def test_figures_are_medians_judged_by_their_target(tmp_path):
    (outcome,) = run_rows(FAKES, ["good"], Context(tmp_path, repetitions=3))
    speed, error, peer = outcome.figures
    assert (speed.median, speed.met) == (2e6, True)
    assert (error.median, error.met) == (2.0, False)
    assert (peer.median, peer.met) == (None, None)


def test_ratio_is_taken_repetition_by_repetition():
    ours, peer = Figure("a", "x", (10.0, 30.0, 20.0)), Figure("b", "x", (5.0, 30.0, 40.0))
    assert ratio("r", ours, peer, Target(0.8)).samples == (2.0, 1.0, 0.5)
    assert ratio("r", ours, Figure("b", "x", skipped="absent")).skipped == "absent"


def test_table_names_skips_failures_and_misses(tmp_path):
    outcomes = list(run_rows(FAKES, [], Context(tmp_path, repetitions=3)))
    lines = table(outcomes, judged=True).splitlines()
    assert lines[1].split() == ["good", "speed", "2M", "frames/s", "1M..3M", ">=", "2M", "ok"]
    assert lines[2].endswith("<= 1 MISSED")
    assert lines[3].endswith("skipped: it is not installed")
    assert lines[4].endswith("skipped: no such device")
    assert lines[5].endswith("FAILED: RunError: 3 of 5 frames delivered")
    assert not table(outcomes, judged=False).splitlines()[1].endswith("ok")


def test_json_has_host_kernel_and_seed(tmp_path, capsys):
    target = tmp_path / "figures.json"
    assert main(FAKES, ["good", "absent", "--toy", "--seed", "9", "--json", str(target)]) == 0
    data = json.loads(target.read_text())
    assert data["schema"] == 1
    assert (data["run"]["seed"], data["run"]["toy"], data["run"]["command"][0]) == (9, True, "good")
    assert data["run"]["host"] and data["run"]["kernel"]
    figure = data["rows"][0]["figures"][0]
    assert (figure["samples"], figure["target"], figure["met"]) == ([1e6], ">= 2M", False)
    assert data["rows"][1]["skipped"] == "no such device"
    assert "good" in capsys.readouterr().out


def test_json_on_stdout_leaves_the_table_to_stderr(capsys):
    assert main(FAKES, ["good", "--toy", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"][0]["row"] == "good"
    assert "speed" in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fast"], 'benchmark "fast"'),
        (["good", "--repeat", "0"], "--repeat 0"),
        (["good", "--json", "/no/such/x"], "/no/such/x"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, says, capsys):
    assert main(FAKES, arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_failed_row_is_status_1():
    assert main(FAKES, ["broken"]) == 1


def test_rows_are_checked_before_any_runs(tmp_path):
    with pytest.raises(UsageError, match="there are good, absent, broken"):
        next(run_rows(FAKES, ["good", "nothing"], Context(tmp_path)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8421, "0.842"),
        (17, "17"),
        (999.9, "1000"),
        (31234, "31.2k"),
        (6.834e6, "6.83M"),
        (999.9e6, "1000M"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text
