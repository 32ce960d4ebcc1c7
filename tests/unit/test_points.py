# SPDX-License-Identifier: MIT
"""What is told of a sweep's runs: medians and ranges, marks and notes, columns; and of the host meanwhile."""

import csv
import json
from pathlib import Path

import pytest

from exonet.lab import hostload
from exonet.lab.hostload import HostLoad, HostWatch
from exonet.lab.points import Point, Points, is_loss
from exonet.ledger import Account

QUIET = HostLoad(0.5, others=0.02, steal=0.0, waited=0.01, switches=3)
BUSY = HostLoad(0.5, others=1.3, steal=0.1, waited=0.4, switches=900)
NOTHING = Account(0, copies=0, consumed=0, sent=0, dropped={}, in_flight=0)
LATENCY = {"count": 9, "p50": 1000, "p99": 20_000, "p999": 30_000, "max": 40_000}


def point(rate: str, repetition: int, loss: float, host: HostLoad | None = QUIET, requested: float = 1000.0) -> Point:
    lost = round(1000 * loss)
    return Point(
        rate=rate, ring=64, repetition=repetition, requested_pps=requested, seconds=1.0, offered=1000,
        achieved_pps=1000.0, claimed=1000, delivered=1000 - lost, delivered_pps=1000.0 - lost, mbps=0.5, lost=lost,
        loss=loss, latency_ns={"slow": LATENCY, "idle": None}, dropped={"ring.full": lost}, sent=NOTHING, host=host,
    )  # fmt: skip


@pytest.fixture
def points() -> Points:
    rows = [point("1 k/s", n, loss) for n, loss in enumerate((0.0, 0.02, 0.5))]
    rows += [point("2 k/s", n, 0.1, host=(QUIET, BUSY, QUIET)[n], requested=2000.0) for n in range(3)]
    return Points(("1 k/s", "2 k/s"), (64,), {}, rows)


def test_the_table_has_median_range_and_marks(points: Points) -> None:
    head, ring, first, second = points.table().splitlines()
    assert head.split() == ["offered", "load", "loss", "from", "to", "delivered", "Mbit/s", "p50", "p99"]
    assert ring == "ring 64"
    assert " ".join(first.split()) == "1 k/s 2.0 % 0.0 % 50.0 % 980 /s 0.5 1.00 µs 20.0 µs"
    assert " ".join(second.split()) == "2 k/s 10.0 % 10.0 % 10.0 % 900 /s 0.5 1.00 µs 20.0 µs *!"


def test_a_run_beside_others_is_told(points: Points) -> None:
    (note,) = [line for line in points.notes() if line.startswith("!")]
    assert "busy in 1 of 6 runs (others had 1.3 of" in note and "its hypervisor 0.1" in note
    quiet = Points(points.rates, points.rings, {}, [point("1 k/s", 0, 0.0), point("1 k/s", 1, 0.0, host=None)])
    assert not [line for line in quiet.notes() if line.startswith("!")]


def test_the_files_have_every_run_with_its_groups_range(points: Points, tmp_path: Path) -> None:
    points.write(tmp_path)
    with (tmp_path / "drops.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows[:3]] == ["0.0", "0.02", "0.5"]
    assert {(row["loss_low"], row["loss_median"], row["loss_high"]) for row in rows[:3]} == {("0.0", "0.02", "0.5")}
    assert [row["busy"] for row in rows] == ["False"] * 4 + ["True", "False"]
    assert {row["latency_p99_ns"] for row in rows} == {"20000"}
    told = json.loads((tmp_path / "drops.json").read_text())["points"]
    assert told[4]["host"]["others"] == 1.3 and told[4]["host"]["busy"] and told[4]["short"]
    assert told[0]["latency_ns"] == {"slow": LATENCY, "idle": None}
    assert (tmp_path / "drops.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("reason", "loss"),
    [
        ("ring.no_buffer", True), ("nic.rx_missed", True), ("tap.tx_dropped", True), ("stack.socket_rcvbuff", True),
        ("nic.rx_long", False), ("demux.no_match", False), ("stack.otherhost", False), ("source.excluded", False),
    ],
)  # fmt: skip
def test_only_what_a_lower_load_would_have_kept_is_a_loss(reason: str, loss: bool) -> None:
    assert is_loss(reason) is loss


def test_others_are_what_the_host_did_less_what_the_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 2 s the processors were busy for 3.5 s, of which this process had 1, and two of the run's own 0.5 and 1."""
    counts = iter(
        [
            hostload._Counts(at=0, all=100.0, steal=1.0, cpu=7.0, waited=0.0, switches=5),
            hostload._Counts(at=2_000_000_000, all=103.5, steal=1.2, cpu=8.0, waited=0.5, switches=9),
        ]
    )
    monkeypatch.setattr(hostload._Counts, "now", lambda: next(counts))
    load = HostWatch({11: 2_000_000_000}).end({11: 2_500_000_000, 12: 1_000_000_000})
    assert load == HostLoad(2.0, others=pytest.approx(0.5), steal=pytest.approx(0.1), waited=0.25, switches=4)
    assert load.busy and not QUIET.busy
    assert HostLoad(1.0, others=0.0, steal=0.2, waited=0.0, switches=0).busy


def test_the_hosts_own_counts_only_grow() -> None:
    first, second = hostload._Counts.now(), hostload._Counts.now()
    assert second.at >= first.at and second.all >= first.all > 0 and second.cpu >= first.cpu > 0
