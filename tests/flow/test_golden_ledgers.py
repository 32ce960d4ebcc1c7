# SPDX-License-Identifier: MIT
"""Whole ledgers of every shipped capture on the virtual clock, and that JSON, fates and tee say the same of a run."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from exonet.ledger import STAGES
from tests.flow.golden_ledgers import CAPTURES, GOLDEN, ROOT, TENANTS, TIGHT, WAYS, captures, golden, told
from tests.unit.test_tee import read_back

EXPECTED = json.loads(GOLDEN.read_text())
NUMBER = (int, float)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("capture", captures(), ids=lambda path: path.name)
def test_the_whole_ledger_is_the_golden_one(capture: Path, way: str, tmp_path: Path) -> None:
    assert golden(told(capture, way, tmp_path)) == EXPECTED[f"{capture.name} {way}"]


def test_the_golden_ledgers_hold_many_ends_of_a_frame() -> None:
    """What they are worth: reasons of most stages."""
    reasons = {reason for row in EXPECTED.values() for reason in row["ledger"]["dropped"]}
    assert {reason.partition(".")[0] for reason in reasons} >= {"source", "nic", "demux", "ring"}, reasons


@pytest.mark.parametrize("name", EXPECTED)
def test_invariant_1_every_stage_of_a_golden_ledger_balances(name: str) -> None:
    ledger = EXPECTED[name]["ledger"]
    for row in ledger["stages"]:
        assert row["in"] + row["copies"] == row["out"] + sum(row["dropped"].values()) + row["in_flight"], row["stage"]
    assert (
        ledger["delivered"]
        == sum(row["delivered"] for row in EXPECTED[name]["environments"].values()) + (ledger["delivered_to"]["wires"])
    )


def test_json_has_the_keys_and_types_that_programs_rely_on(tmp_path: Path) -> None:
    result = told(CAPTURES / "web-dns.pcapng", "tight", tmp_path)
    assert result["schema"] == 1
    assert {"host", "kernel", "seed", "command", "wires"} <= result["run"].keys()
    assert isinstance(result["run"]["host"], str) and isinstance(result["run"]["kernel"], str)
    ledger = result["ledger"]
    assert {name: type(ledger[name]) for name in ("offered", "copies", "delivered", "in_flight")} == dict.fromkeys(
        ("offered", "copies", "delivered", "in_flight"), int
    )
    assert all(name.partition(".")[0] in STAGES and type(count) is int for name, count in ledger["dropped"].items())
    assert [row["stage"] for row in ledger["stages"]] == list(STAGES)
    for row in result["environments"]:
        assert (type(row["name"]), type(row["delivered"]), type(row["bytes"])) == (str, int, int)
    timing = result["timing"]
    assert isinstance(timing["wall_s"], NUMBER) and isinstance(timing["pps"], NUMBER)
    assert set(timing["pacing_error_ns"]) == {"p50", "p99", "max"}
    assert all(value is None or isinstance(value, NUMBER) for value in timing["pacing_error_ns"].values())


@pytest.mark.parametrize("way", WAYS)
def test_r20_the_fates_say_what_the_ledger_says(way: str, tmp_path: Path) -> None:
    """A row for every end, by reason and by environment."""
    fates = tmp_path / "fates.parquet"
    result = told(CAPTURES / "web-dns.pcapng", way, tmp_path, "--fates", str(fates))
    ledger, rows = result["ledger"], parquet.read_table(fates).to_pylist()
    ends = Counter("delivered" if row["reason"] == "delivered" else f"{row['stage']}.{row['reason']}" for row in rows)
    assert ends == Counter(ledger["dropped"]) + Counter({"delivered": ledger["delivered"]})
    for environment in result["environments"]:
        own = Counter(row["reason"] for row in rows if row["environment"] == environment["name"])
        dropped = {name.partition(".")[2]: count for name, count in environment["dropped"].items()}
        assert own == Counter({"delivered": environment["delivered"], **dropped}), environment["name"]


@pytest.mark.parametrize("way", ["captured", "tight", "sliced"])
def test_the_tees_comments_are_the_fates(way: str, tmp_path: Path) -> None:
    """Of frames that make no copies each is in the file once, with its end in words."""
    out = tmp_path / "out.pcapng"
    words = ("--exclude", "ether multicast", "--pcap-out", str(out))
    ledger = told(CAPTURES / "web-dns.pcapng", way, tmp_path, *words)["ledger"]
    assert ledger["copies"] == 0 and ledger["delivered_to"]["wires"] == 0
    said = Counter(comment.split(" (")[0].split(" to ")[0] for _, comment, _, _ in read_back(out))
    assert said == Counter({"delivered": ledger["delivered"], **ledger["dropped"]})


def produced(directory: Path, seed: str) -> dict[str, Any]:
    """One run in a process of its own with its own hash seed: its files, and its JSON without what is the host's."""
    directory.mkdir()
    words = ["replay", str(CAPTURES / "web-dns.pcapng"), *TENANTS, *TIGHT, "--clock", "virtual", "--loop", "2"]
    words += ["--impair", "loss=5%,delay=1ms,duplicate=5%", "--json", "out.json", "--fates", "fates.parquet"]
    command = [sys.executable, "-m", "exonet.cli.main", *words, "--pcap-out", "out.pcapng"]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((directory / "out.json").read_text())
    return {
        "fates": (directory / "fates.parquet").read_bytes(),
        "tee": (directory / "out.pcapng").read_bytes(),
        "json": json.dumps([result["ledger"], result["environments"], result["timing"]["virtual_s"]]),
    }


def test_invariant_7_processes_with_other_hash_seeds_write_the_same_bytes(tmp_path: Path) -> None:
    runs = [produced(tmp_path / seed, seed) for seed in ("1", "2", "77")]
    assert runs[0] == runs[1] == runs[2]
