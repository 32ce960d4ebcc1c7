# SPDX-License-Identifier: MIT
"""`exonet drops --search` on the virtual clock: the highest rate is what the costs say on paper."""

import csv
import json
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.lab.search import words

UDP64 = Path(__file__).resolve().parents[2] / "captures" / "udp-64.pcap"
#: 1 µs a packet: at a million a second nothing is lost, above it the rings fill.
COSTS = {"consume": 900, "classify": 100}


def found(tmp_path: Path, *words: str) -> list[dict[str, object]]:
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps({"costs": COSTS}))
    common = ["drops", str(UDP64), "--clock", "virtual", "--costs", str(costs), "--fifo", "4K"]
    assert main([*common, "--rings", "8", "--out", str(tmp_path), "--search", *words]) == 0
    told = json.loads((tmp_path / "drops.json").read_text())
    rows: list[dict[str, object]] = told["search"]
    with (tmp_path / "search.csv").open() as file:
        assert [row["ring"] for row in csv.DictReader(file)] == [str(row["ring"]) for row in rows]
    return rows


def test_the_highest_rate_without_loss_is_the_capacity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = found(tmp_path)
    lower, upper = row["pps"], row["upper_pps"]
    assert isinstance(lower, float) and isinstance(upper, float)
    assert 0.98e6 < lower <= 1.005e6 and 0.99e6 < upper < 1.0102 * lower
    assert row["why"] == "" and not row["busy"]
    said = capsys.readouterr().out
    assert "ring 8: highest rate with no loss: " in said and "offered load" not in said


def test_some_loss_allowed_allows_so_much_more_load(tmp_path: Path) -> None:
    """At a load L the kernel takes 0.1 L of the time and the rest is for 0.9 L packets: L = 1 / 0.91."""
    (row,) = found(tmp_path, "10%")
    lower, upper = row["pps"], row["upper_pps"]
    assert isinstance(lower, float) and isinstance(upper, float)
    assert 0.99 / 0.91 < lower / 1e6 < 1.01 / 0.91 and lower < upper < 1.0102 * lower


@pytest.mark.parametrize("loss", ["1", "-1", "x", "100%", "1%%", "nan"])
def test_a_loss_that_is_no_share_is_refused(loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drops", str(UDP64), f"--search={loss}"]) == 2
    assert "it must be a share from 0 to less than 1" in capsys.readouterr().err


ROW = {
    "ring": 64,
    "loss": 0.0,
    "pps": 1e6,
    "upper_pps": 1.01e6,
    "trials": 9,
    "busy": 0,
    "sender_limited": False,
    "why": "",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "ring 64: highest rate with no loss: 1.00 M/s (more at 1.01 M/s; 9 trials)"),
        (
            {"loss": 0.001, "busy": 4},
            "with at most 0.1 % loss: 1.00 M/s (more at 1.01 M/s; 9 trials, the host was busy in 4",
        ),
        ({"pps": None}, "loss: none from 1.00 k/s on (more at 1.01 M/s"),
        ({"upper_pps": None}, "1.00 M/s (nothing higher is tried"),
        ({"sender_limited": True}, "(at 1.01 M/s the sender falls behind, without more loss"),
        ({"why": "not found in 60 trials"}, "no loss: not found in 60 trials"),
    ],
)
def test_words_for_a_person(changes: dict[str, object], said: str) -> None:
    assert said in words(ROW | changes)
