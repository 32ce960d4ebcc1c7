# SPDX-License-Identifier: MIT
"""The command line: help, one-line errors with the right exit code, plans as they were meant. No machine runs."""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exonet.cli import attach, drops, replay
from exonet.cli.common import QUOTE, SPINS, demo_trace, show, size, spin
from exonet.cli.main import COMMANDS, main, parser
from exonet.clock import Clock
from exonet.errors import RunError, UsageError
from exonet.lab.plan import Plan, TapSource, Tenant, TraceSource
from exonet.lab.results import Result, Timing
from exonet.ledger import STAGES, Account, Ledger, Stage

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("replay", "attach", "drops", "calibrate", "info", "libos", "filter", "show")


def parsed(*words: str) -> argparse.Namespace:
    return parser().parse_args(words)


def replay_plan(*words: str) -> Plan:
    return replay.plan_of(parsed("replay", "trace.pcap", *words), words)


def attach_plan(*words: str) -> Plan:
    return attach.plan_of(parsed("attach", *words), words)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an expected failure; nothing else was said."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("exonet: error: ") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help_to_learn_from(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert text.startswith(f"usage: exonet {name}")
    assert len(COMMANDS) == len(NAMES)
    if name != "libos":
        assert "examples:" in text


def test_the_top_level_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {name}" in text for name in NAMES)
    assert "exit codes" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["replay"], "the following arguments are required: TRACE, --bind"),
        (["replay", "t.pcap"], "--bind"),
        (["replay", "t.pcap", "--bind", "tcp"], "it must be NAME=FILTER"),
        (["replay", "t.pcap", "--bind", "a=ip", "--rings", "100"], "100 is not a power of two; near it are 64 and 128"),
        (["replay", "t.pcap", "--bind", "a=ip", "--limit", "0"], "whole number"),
        (["replay", "t.pcap", "--bind", "a=ip", "--memory", "lots"], '"lots" is not a size'),
        (["replay", "t.pcap", "--bind", "a=ip", "--duration", "soon"], 'duration "soon"'),
        (["replay", "t.pcap", "--bind", "a=ip", "--clock", "sundial"], "invalid choice"),
        (["replay", "t.pcap", "--bind", "a=ip", "--clients", "10.0.0.0/8"], "add --two-sided"),
        (["replay", "t.pcap", "--bind", "a=ip", "--clock", "virtual", "--loop", "0"], "never ends"),
        (["replay", "t.pcap", "--bind", "a=ip,process", "--clock", "virtual"], "runs inline"),
        (["replay", "t.pcap", "--bind", "a=ip", "--json", "/no/such/out.json"], "no directory /no/such"),
        (["attach", "exo0"], "--host, --libos"),
        (["attach", "exo0", "--host", "10.7.0.1", "--libos", "echo@10.7.0.2"], "has no prefix length"),
        (["attach", "exo0", "--host", "10.7.0.1/24", "--libos", "echo@10.9.0.2"], "it must lie in 10.7.0.0/24"),
        (["attach", "exo0", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2", "--libos", "echo@10.7.0.2"], "two"),
        (["attach", "e", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.255"], "must be 10.7.0.1..10.7.0.254"),
        (["attach", "e", "--host", "10.7.0.0/24", "--libos", "echo@10.7.0.2"], "in 10.7.0.0/24 it is the network"),
        (["attach", "e", "--host", "224.0.0.1/24", "--libos", "echo@10.7.0.2"], "--host 224.0.0.1/24: no station"),
        (["attach", "e", "--host", "127.0.0.1/8", "--libos", "echo@127.0.0.2"], "--host 127.0.0.1/8: no station"),
        (["attach", "e", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2,inline,process"], "not both"),
        (["replay", "t.pcap", "--bind", "a=ip,process,inline"], "it is process or inline, not both"),
        (["replay", "t.pcap", "--bind", "a=ip", "--slices", "a:1us"], "--slices a:1us: it is for the virtual clock"),
        (["replay", "t.pcap", "--bind", "a=ip", "--costs", "dec5000"], "add --clock virtual"),
        (["drops", "t.pcap", "--budget", "5"], "--budget 5: it is for the virtual clock"),
        (
            ["attach", "a b", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2"],
            "interface name 'a b' has a character",
        ),
        (["drops"], "name a capture, or --tap NAME"),
        (["drops", "t.pcap", "--tap", "exo0"], "not both"),
        (["drops", "--tap", "exo0", "--clock", "virtual"], "is live"),
        (["drops", "t.pcap", "--rates", "fast"], 'rate "fast"'),
        (["drops", "t.pcap", "--rings", "64,99"], "99 is not a power of two"),
        (["info", "/no/such.pcap"], "/no/such.pcap"),
    ],
)
def test_a_callers_mistake_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--fly"], "(see exonet --help)"),
        (["replay", "t.pcap", "--bind", "a=ip", "--fly"], "arguments: --fly (see exonet replay --help)"),
        (["show", "bindings", "more"], "arguments: more (see exonet show --help)"),
        (["filter", "--fly"], "exonet filter --help"),
        (["filter", "explain", "arp", "--fly"], "arguments: --fly (see exonet filter explain --help)"),
        (["filter", "match", "arp", "t.pcap", "--fly"], "exonet filter match --help"),
        (["filter", "explain", "tcp", "port", "80"], f"port 80; {QUOTE} (see exonet filter explain --help)"),
        (["replay", "t.pcap", "--bind", "web=tcp", "port", "80"], f"port 80; {QUOTE} (see exonet replay --help)"),
    ],
)
def test_a_hint_is_of_the_command(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert hint in error_line(capsys)


def test_a_replay_as_the_issue_writes_it() -> None:
    plan = replay_plan("--bind", "web=tcp port 80", "--bind", "dns=udp port 53,stack=echo", "--speed", "x10")
    assert plan.tenants == (Tenant("web", ("tcp port 80",)), Tenant("dns", ("udp port 53",), "echo"))
    assert isinstance(plan.source, TraceSource)
    assert (plan.source.speed, plan.source.loop, plan.settings.clock) == ("x10", 1, Clock.MONOTONIC)
    assert plan.command[0] == "exonet"


def test_replay_options_reach_the_plan() -> None:
    words = "--bind a=ip --speed max --loop 3 --shift --limit 9 --duration 2s --include tcp --exclude udp --two-sided"
    more = "--clients 10.0.0.0/8 --rewrite vlan=5 --fix-checksums --memory 64K --clock virtual --costs dec5000 --seed 7"
    last = "--slices a:1ms --interrupt each --budget 5 --rings 64 --descriptors 8 --fifo 4K --queues 2 --nic-mode drop"
    plan = replay_plan(*words.split(), *more.split(), *last.split(), "--impair", "loss=1%", "--fates", "f.parquet")
    assert plan.source == TraceSource(
        path=Path("trace.pcap"), speed="max", loop=3, shift=True, limit=9, include="tcp", exclude="udp",
        rewrite=("vlan=5",), fix_checksums=True, memory=65536, two_sided=True, clients=("10.0.0.0/8",),
    )  # fmt: skip
    settings = plan.settings
    assert (settings.clock, settings.costs, settings.seed, settings.slices) == (Clock.VIRTUAL, "dec5000", 7, "a:1ms")
    assert (settings.interrupt, settings.budget, settings.rings, settings.descriptors) == ("each", 5, 64, 8)
    assert (settings.fifo_bytes, settings.queues, settings.nic_mode) == (4096, 2, "drop")
    assert (settings.duration_ns, settings.impair, settings.fates) == (2 * 10**9, "loss=1%", Path("f.parquet"))


def test_an_attach_as_the_issue_writes_it() -> None:
    plan = attach_plan("exo0", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2", "--libos", "echo@10.7.0.3")
    assert plan.source == TapSource(name="exo0", hosts=("10.7.0.1/24",))
    assert [tenant.addresses for tenant in plan.tenants] == [("10.7.0.2/24",), ("10.7.0.3/24",)]
    assert [tenant.mac for tenant in plan.tenants] == [None, None]


def test_attach_options_reach_the_plan() -> None:
    words = (
        "exo0 --host 10.7.0.1/24 --libos echo@10.7.0.2 --libos sink@10.7.0.3 --mac own --inline --no-ipv6 --mtu 9000"
    )
    plan = attach_plan(*words.split(), "--namespace", "lab", "--spin", "polling", "--duration", "5s")
    assert plan.source == TapSource(name="exo0", hosts=("10.7.0.1/24",), namespace="lab", mtu=9000, ipv6=False)
    assert [tenant.mac for tenant in plan.tenants] == ["02:00:00:00:00:02", "02:00:00:00:00:03"]
    assert [tenant.process for tenant in plan.tenants] == [False, False]
    assert (plan.settings.spin_ns, plan.settings.duration_ns) == (SPINS["polling"], 5 * 10**9)
    assert spin("sleeping") == 0
    assert spin("20us") == 20_000


def test_a_sweep_without_bindings_takes_everything() -> None:
    words = ["drops", "trace.pcap", "--rates", "500000,1M", "--rings", "64,256"]
    arguments = parsed(*words)
    plan = drops.plan_of(arguments, words)
    assert [tenant.name for tenant in plan.tenants] == ["load"]
    assert arguments.rings == (64, 256)
    assert [rate.value for rate in arguments.rates] == [500_000, 1_000_000]


def test_no_argument_is_the_demo() -> None:
    assert demo_trace().name == "web-dns.pcapng"
    words = replay.demo()
    plan = replay.plan_of(parsed(*words), words)
    assert [tenant.name for tenant in plan.tenants] == ["web", "dns"]


@pytest.mark.parametrize(("text", "value"), [("65536", 65536), ("64K", 65536), ("1GiB", 1 << 30), ("1.5M", 1572864)])
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


def balanced(delivered: int) -> Ledger:
    passing = ("source", "mac", "nic", "demux", "handler", "ring", "stack")
    rows = (Stage(name, n := delivered if name in passing else 0, 0, n, {}, 0) for name in STAGES)
    none = Account(0, copies=0, consumed=0, sent=0, dropped={}, in_flight=0)
    of_wires = replace(none, offered=delivered, consumed=delivered)
    return Ledger(tuple(rows), delivered, sent=0, of_wires=of_wires, of_liboses=none).check()


def result(**changes: Any) -> Result:
    figures = {"pps": 10.0, "mbps": 0.1, "cpu_ns": 10_000_000, "latency_ns": None, "bindings": []}
    environments = ({"name": "web", "delivered": 5, "bytes": 300, **figures},)
    return Result({"seed": 1}, balanced(5), environments, Timing(0.5, 10.0), **changes)


@pytest.mark.parametrize(
    ("changes", "code"), [({}, 0), ({"interrupted": True}, 130), ({"failed": True}, 1), ({"notes": ("careful",)}, 0)]
)
def test_a_result_is_shown_and_makes_the_exit_code(
    changes: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(result(**changes), None) == code
    said = capsys.readouterr()
    assert "5 offered + 0 copies = 5 delivered + 0 dropped + 0 in flight: balanced" in said.out
    assert said.err == ("exonet: careful\n" if "notes" in changes else "")


def test_json_is_schema_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = result().to_json()
    assert list(told) == ["schema", "run", "ledger", "environments", "timing"]
    assert told["schema"] == 1
    assert told["timing"] == {
        "wall_s": 0.5, "pps": 10.0, "pacing_error_ns": {"p50": None, "p99": None, "max": None}, "virtual_s": None,
        "host": None,
        "backward_stamps": 0,
    }  # fmt: skip
    show(result(), "-")
    assert capsys.readouterr().out.startswith('{\n  "schema": 1')
    result().write_json(str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text().startswith('{\n  "schema": 1')
    with pytest.raises(UsageError, match=r"JSON file .* cannot be written"):
        result().write_json(str(tmp_path / "no" / "out.json"))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("port 70000:\n  too high"), 2, "exonet: error: port 70000: too high\n"),
        (RunError("LibOS web died"), 1, "exonet: error: LibOS web died\n"),
        (KeyboardInterrupt(), 130, "exonet: interrupted\n"),
        (MemoryError(), 1, "exonet: error: out of memory; a smaller --memory, --pages or --rings needs less\n"),
    ],
)
def test_an_expected_failure_leaves_no_traceback(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> int:
        raise error

    monkeypatch.setattr("exonet.cli.libos.run", fail)
    assert main(["libos"]) == code
    assert capsys.readouterr().err == line


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "exonet.cli.main", "info", str(demo_trace())]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def test_help_does_not_load_the_heavy_libraries() -> None:
    code = (
        "import sys; from exonet.cli.main import parser; parser();"
        "print([m for m in ('pyarrow', 'numpy', 'matplotlib', 'scapy', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
