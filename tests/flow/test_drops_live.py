# SPDX-License-Identifier: MIT
"""`exonet drops` in real time, from a capture: every packet of every point is accounted for, whatever the rate was."""

from pathlib import Path

import pytest
from pyarrow import parquet

from exonet.cli.main import main

CAPTURES = Path(__file__).resolve().parents[2] / "captures"
PACKETS = 1000


def test_r20_a_sweep_in_real_time_accounts_for_every_packet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["drops", str(CAPTURES / "udp-64.pcap"), "--rates", "20k,1M", "--rings", "8,1024"]
    tenants = ["--bind", "load=udp,inline"]
    assert main([*words, *tenants, "--packets", str(PACKETS), "--repeat", "1", "--out", str(tmp_path)]) == 0
    rows = parquet.read_table(tmp_path / "drops.parquet").to_pylist()
    reasons = [name for name in rows[0] if "." in name]
    assert [(row["ring"], row["rate"]) for row in rows] == [
        (8, "20.0 k/s"), (8, "1.00 M/s"), (1024, "20.0 k/s"), (1024, "1.00 M/s"),
    ]  # fmt: skip
    for row in rows:
        assert row["offered"] == row["claimed"] == PACKETS
        assert row["delivered"] + sum(row[reason] for reason in reasons) == PACKETS
        assert row["loss"] == pytest.approx(1 - row["delivered"] / PACKETS)
        assert row["achieved_pps"] > 0 and (row["delivered_pps"] > 0) == (row["delivered"] > 0)
    assert set(reasons) <= {"nic.rx_missed", "nic.rx_no_buffer", "ring.no_buffer", "ring.full"}, reasons
    assert "ring 1024" in capsys.readouterr().out
