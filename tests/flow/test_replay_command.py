# SPDX-License-Identifier: MIT
"""The commands on real machines: captures in, the whole ledger out. LibOSes inline, so no privilege is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

from exonet.cli.main import main

CAPTURES = Path(__file__).resolve().parents[2] / "captures"
DEMO = str(CAPTURES / "web-dns.pcapng")
TENANTS = ("--bind", "web=tcp port 80,inline", "--bind", "dns=udp port 53,inline")


def replayed(tmp_path: Path, *words: str, code: int = 0) -> dict[str, Any]:
    path = tmp_path / "out.json"
    assert main(["replay", *words, "--json", str(path)]) == code
    told: dict[str, Any] = json.loads(path.read_text())
    ledger = told["ledger"]
    ends = ledger["delivered"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    assert ledger["offered"] + ledger["copies"] == ends
    return told


def test_the_demo_reaches_both_liboses_and_balances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = replayed(tmp_path, DEMO, *TENANTS, "--speed", "max")
    assert told["ledger"]["offered"] == 1849
    assert set(told["ledger"]["dropped"]) <= {"demux.no_match", "demux.no_subscriber", "demux.no_neighbour"}
    web, dns = told["environments"]
    assert (web["name"], dns["name"]) == ("web", "dns")
    assert web["delivered"] + dns["delivered"] == told["ledger"]["delivered"]
    assert web["bytes"] > dns["bytes"] > 0
    text = capsys.readouterr().out
    assert "delivered to web" in text and "balanced" in text and "1,849 offered" in text


def test_invariant_7_virtual_runs_repeat_to_the_byte(tmp_path: Path) -> None:
    words = (DEMO, *TENANTS, "--clock", "virtual", "--speed", "pps=4M", "--rings", "64", "--loop", "3")
    fates = [tmp_path / "first.parquet", tmp_path / "second.parquet"]
    runs = [replayed(tmp_path, *words, "--fates", str(path)) for path in fates]
    assert runs[0]["ledger"] == runs[1]["ledger"]
    assert runs[0]["environments"] == runs[1]["environments"]
    assert runs[0]["timing"]["virtual_s"] == runs[1]["timing"]["virtual_s"]
    assert fates[0].read_bytes() == fates[1].read_bytes()
    assert sum(runs[0]["ledger"]["dropped"].values()) > 0


def test_r20_every_frame_has_one_fate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fates.parquet"
    told = replayed(tmp_path, DEMO, *TENANTS, "--clock", "virtual", "--fates", str(path))
    rows = parquet.read_table(path).to_pylist()
    assert len(rows) == told["ledger"]["offered"] + told["ledger"]["copies"]
    assert {row["index"] for row in rows} == set(range(1849))
    drops: dict[str, int] = {}
    for row in rows:
        if row["reason"] != "delivered":
            name = f"{row['stage']}.{row['reason']}"
            drops[name] = drops.get(name, 0) + 1
    assert drops == told["ledger"]["dropped"]
    delivered = [row for row in rows if row["environment"] == "dns" and row["reason"] == "delivered"]
    assert len(delivered) == told["environments"][1]["delivered"]
    assert all(row["timestamp_ns"] > 1_500_000_000 * 10**9 and row["latency_ns"] is not None for row in delivered)


def test_a_truncated_capture_replays_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = str(CAPTURES / "bad" / "truncated.pcap")
    told = replayed(tmp_path, capture, "--bind", "six=ip6,inline", "--speed", "max", code=1)
    assert told["ledger"]["offered"] == 20
    said = capsys.readouterr().err
    assert "truncated.pcap: breaks at byte" in said and said.count("\n") == 1
    assert "truncated.pcap" in told["run"]["notes"][0]


@pytest.mark.parametrize("name", ["empty", "half-header", "header-only", "text"])
def test_an_impossible_capture_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(CAPTURES / "bad" / f"{name}.pcap"), "--bind", "a=ip,inline"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("exonet: error: ") and said.err.count("\n") == 1
    assert f"{name}.pcap" in said.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--bind", "a=ip and and"], 2, "syntax error"),
        (["--bind", "a=ip6 protochain 6,inline"], 2, "cannot be decomposed"),
        (["--bind", "a=ip,stack=nosuch,inline"], 2, "nosuch"),
        (["--bind", "a=ip,inline", "--speed", "warp"], 2, 'speed "warp"'),
        (["--bind", "a=ip,inline", "--impair", "loss=200%"], 2, "loss=200%"),
        (["--bind", "a=ip,inline", "--rewrite", "colour=red"], 2, "colour"),
        (["--bind", "a=ip,inline", "--include", "foo bar"], 2, "foo bar"),
        (["--bind", "a=ip,inline", "--clock", "virtual", "--slices", "b:1ms"], 2, 'slice "b": no LibOS has this name'),
        (["--bind", "a=ip,inline", "--clock", "virtual", "--costs", "gold"], 2, "gold"),
        (["--bind", "a=ip,inline", "--pages", "64"], 2, "pages"),
        (["--bind", "a=host 10.9.0.1", "--bind", "b=tcp port 80"], 2, "this would do: b='(tcp port 80) and not (host"),
        (
            ["--bind", "a=port 80 and tcp", "--bind", "b=tcp port 80"],
            2,
            "holds the very same frames; for example",
        ),
        (["--bind", "a=ip,inline,side=clients"], 2, "add --two-sided"),
        (["--bind", "a=ip,inline,side=left"], 2, "it must be clients or servers"),
    ],
)
def test_what_cannot_run_is_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", DEMO, *words]) == code
    said = capsys.readouterr()
    assert said.err.startswith("exonet: error: ") and said.err.count("\n") == 1, said.err
    assert message in said.err


def test_include_and_exclude_are_counted(tmp_path: Path) -> None:
    told = replayed(tmp_path, DEMO, *TENANTS, "--speed", "max", "--include", "udp", "--exclude", "ip6")
    assert told["ledger"]["offered"] == 1849
    assert told["ledger"]["dropped"]["source.excluded"] > 500
    assert told["environments"][0]["delivered"] <= 24


def test_impairments_and_the_tee_balance_too(tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    harm = ("--impair", "loss=10%,duplicate=5%", "--pcap-out", str(out))
    told = replayed(tmp_path, DEMO, *TENANTS, "--clock", "virtual", *harm)
    assert told["ledger"]["dropped"]["source.impair_loss"] > 100
    assert told["ledger"]["copies"] > 50
    assert out.stat().st_size > 300_000


def test_a_two_sided_replay_has_two_ports(tmp_path: Path) -> None:
    told = replayed(tmp_path, DEMO, *TENANTS, "--two-sided", "--speed", "max")
    assert told["ledger"]["offered"] == 1849
    assert len(told["run"]["wires"]) == 2


def test_a_two_sided_replay_binds_on_both_sides_or_on_one(tmp_path: Path) -> None:
    whole = replayed(tmp_path, DEMO, *TENANTS, "--clock", "virtual")
    both = replayed(tmp_path, DEMO, *TENANTS, "--two-sided", "--clock", "virtual")
    assert [env["delivered"] for env in both["environments"]] == [env["delivered"] for env in whole["environments"]]
    halves = [
        "--bind=asked=udp port 53,inline,side=clients",
        "--bind=told=udp port 53,inline,side=servers",
    ]
    asked, told = replayed(tmp_path, DEMO, *halves, "--two-sided", "--clock", "virtual")["environments"]
    assert asked["delivered"] > 500 < told["delivered"]
    assert asked["delivered"] + told["delivered"] == whole["environments"][1]["delivered"]


def test_the_largest_ring_can_be_had(tmp_path: Path) -> None:
    told = replayed(tmp_path, DEMO, "--bind=a=ip,inline", "--rings", "32768", "--speed", "max")
    assert told["environments"][0]["placed"] > 1000


def test_backpressure_waits_with_group_frames_too(tmp_path: Path) -> None:
    """As fast as possible, and nothing is lost for want of a buffer: not the copies of a group frame either."""
    words = ("--bind=a=tcp port 80,inline", "--bind=b=not tcp port 80,inline", "--rings", "64")
    told = replayed(tmp_path, DEMO, *words, "--two-sided", "--speed", "max", "--loop", "20")
    assert told["ledger"]["dropped"] == {}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_r04_the_operators_narrower_binding_wins_in_either_order(tmp_path: Path, order: tuple[int, int]) -> None:
    words = ["--bind=all=ip,inline", "--bind=web=tcp port 80,inline"]
    told = replayed(tmp_path, DEMO, *(words[i] for i in order), "--speed", "max")
    delivered = {env["name"]: env["delivered"] for env in told["environments"]}
    assert delivered["web"] == 570
    assert delivered["all"] > 1000


def test_r04_filters_of_one_libos_may_overlap(tmp_path: Path) -> None:
    words = ("--bind=a=Tcp.dport == 80,inline", "--bind=a=host 10.9.0.1")
    told = replayed(tmp_path, DEMO, *words, "--clock", "virtual")
    alone = replayed(tmp_path, DEMO, "--bind=a=(tcp dst port 80) or (host 10.9.0.1),inline", "--clock", "virtual")
    assert told["ledger"] == alone["ledger"]


def test_echo_answers_in_a_replay_as_the_one_who_was_asked(tmp_path: Path) -> None:
    """It serves the ports that its filters name; the answers leave, into the tee."""
    out = tmp_path / "out.pcapng"
    words = ("--bind", "dns=udp port 53,stack=echo,inline", "--clock", "virtual")
    told = replayed(tmp_path, DEMO, *words, "--pcap-out", str(out))
    (dns,) = told["environments"]
    assert dns["delivered"] == 540
    assert dns["dropped"]["stack.no_socket"] == 540
    sent = [UDP(bytes(p[UDP])) for p in rdpcap(str(out)) if UDP in p and p[UDP].sport == 53 and p[UDP].len < 60]
    assert told["ledger"]["delivered_to"]["wires"] >= 540 and sent


def test_a_libos_may_be_forbidden_to_send(tmp_path: Path) -> None:
    told = replayed(tmp_path, DEMO, "--bind", "dns=udp port 53,stack=echo,inline,local=none", "--clock", "virtual")
    assert told["ledger"]["delivered_to"]["wires"] == 0
    assert told["ledger"]["dropped"]["transmit.not_granted"] >= 540


def test_r11_an_address_narrows_what_may_be_sent(tmp_path: Path) -> None:
    words = ("--bind", "dns=udp port 53,stack=echo,inline,local=10.9.0.2/24", "--clock", "virtual")
    told = replayed(tmp_path, DEMO, *words)
    (dns,) = told["environments"]
    assert dns["delivered"] == 540 + 12 + 36  # and what asked for its address, and the pings of it (R3)
    assert 480 <= dns["sent"] < dns["submitted"]
    assert dns["sent"] + told["ledger"]["dropped"]["transmit.spoofed"] == dns["submitted"]


def test_r22_the_rate_counts_what_the_ledger_counts_as_delivered(tmp_path: Path) -> None:
    """An echo that consumes nothing itself but sends: both are delivered, in the rate as in the ledger."""
    told = replayed(tmp_path, DEMO, "--bind", "ping=icmp or icmp6,stack=echo,inline", "--clock", "virtual")
    timing, ledger = told["timing"], told["ledger"]
    assert ledger["delivered_to"]["wires"] > 0
    assert round(timing["pps"] * timing["virtual_s"]) == ledger["delivered"]


def test_the_served_port_may_be_named(tmp_path: Path) -> None:
    told = replayed(tmp_path, DEMO, "--bind", "dns=udp port 53,stack=echo,inline,port=7", "--clock", "virtual")
    assert told["environments"][0]["delivered"] == 0


def test_invariant_7_the_trace_of_events_repeats(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    runs = []
    for _ in range(2):
        replayed(tmp_path, DEMO, *TENANTS, "--clock", "virtual", "--trace", str(path))
        runs.append(path.read_text())
    assert runs[0] == runs[1]
    lines = [json.loads(line) for line in runs[0].splitlines()]
    made = ["environment_made", "binding_made", "environment_ready"] * 2
    ended = ["counters", "wire_ended", "run_ended", *["binding_removed", "environment_ended"] * 2]
    assert [line["event"] for line in lines] == ["run_begins", *made, *ended]
    assert lines[7]["offered"] == 1849 == lines[8]["received"]


def test_a_refusal_is_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    assert main(["replay", DEMO, "--bind", "a=ip,inline", "--pages", "64", "--trace", str(path)]) == 2
    (refused,) = (line for line in map(json.loads, path.read_text().splitlines()) if line["event"] == "refused")
    assert (refused["environment"], refused["call"], refused["error"]) == ("a", "allocate", "UsageError")


def test_a_sweep_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["drops", DEMO, "--clock", "virtual", "--rates", "1M,8M", "--rings", "64,256", "--packets", "4000"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "ring 64" in text and "ring 256" in text and "8.00 M/s" in text
    rows = parquet.read_table(tmp_path / "drops.parquet").to_pylist()
    assert [(row["ring"], row["rate"]) for row in rows] == [
        (64, "1.00 M/s"), (64, "8.00 M/s"), (256, "1.00 M/s"), (256, "8.00 M/s"),
    ]  # fmt: skip
    assert all(row["offered"] == 4000 for row in rows)
    assert rows[0]["loss"] == 0 < rows[1]["loss"] < 1
    assert len((tmp_path / "drops.csv").read_text().splitlines()) == 5
    assert (tmp_path / "drops.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "drops.json").read_text())["schema"] == 1


def test_r22_loss_is_of_what_was_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["drops", DEMO, "--clock", "virtual", "--rates", "100k", "--rings", "256", "--packets", "2000"]
    assert main([*words, "--bind", "web=tcp port 80", "--out", str(tmp_path)]) == 0
    (row,) = parquet.read_table(tmp_path / "drops.parquet").to_pylist()
    assert row["loss"] == 0
    assert row["delivered"] == row["claimed"] < row["offered"]
    assert row["achieved_pps"] == pytest.approx(100_000, rel=0.01)
    assert row["short"] is False


def test_an_interrupt_for_frames_already_taken_does_not_stop_time(tmp_path: Path) -> None:
    """A frame that came while another was taken raises an interrupt that finds nothing: that is no event."""
    words = ("--clock", "virtual", "--speed", "pps=2M", "--interrupt", "each", "--slices", "web:50us,dns:20us,-:30us")
    told = replayed(tmp_path, str(CAPTURES / "backwards.pcap"), *TENANTS, *words)
    assert told["ledger"]["in_flight"] == 0
