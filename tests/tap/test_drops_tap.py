# SPDX-License-Identifier: MIT
"""`exonet drops --tap`: a real sender in a network namespace of its own, through a TAP device of ours."""

import os
from pathlib import Path

import pytest
from pyarrow import parquet

from exonet.cli.main import main
from exonet.wire import device
from tests.fakes.attached import unique_name

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not device.TUN.exists(), reason="needs root and /dev/net/tun: it makes TAP devices"
)
PACKETS = 300


def namespaces() -> set[str]:
    where = Path("/run/netns")
    return {path.name for path in where.iterdir()} if where.is_dir() else set()


def test_r21_a_live_sweep_accounts_for_what_was_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["drops", "--tap", unique_name("drop"), "--rates", "5k", "--rings", "8,1024", "--packets", str(PACKETS)]
    words += ["--repeat", "1"]
    own = f"exonet-load-{os.getpid()}"
    assert main([*words, "--bind", "load=udp,inline", "--out", str(tmp_path)]) == 0
    rows = parquet.read_table(tmp_path / "drops.parquet").to_pylist()
    reasons = [name for name in rows[0] if "." in name]
    assert [(row["ring"], row["rate"]) for row in rows] == [(8, "5.00 k/s"), (1024, "5.00 k/s")]
    for row in rows:
        assert PACKETS <= row["offered"] <= PACKETS + 20, "the load, and what the host says of itself"
        assert row["claimed"] <= row["offered"] and row["delivered"] <= PACKETS
        assert row["delivered"] + sum(row[reason] for reason in reasons) == row["offered"]
        assert row["loss"] == pytest.approx(1 - row["delivered"] / row["claimed"])
        assert row["achieved_pps"] > 0
    assert rows[1]["delivered"] > 0
    assert own not in namespaces()
    assert "ring 1024" in capsys.readouterr().out
