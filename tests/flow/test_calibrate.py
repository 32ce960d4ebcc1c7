# SPDX-License-Identifier: MIT
"""`exonet calibrate` measures a cost model that `--costs` reads. That it can is tested, not how fast this host is."""

import json
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.kernel.schedule import CostModel
from exonet.lab.calibrate import Calibration


def test_every_cost_is_measured() -> None:
    said: list[str] = []
    model = Calibration(repeat=1, frames=2000, say=said.append).measure()
    assert min(model.describe().values()) >= 0
    assert model.classify > 0
    assert said[-1] == "C functions"


def test_the_file_is_what_costs_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "costs.json"
    assert main(["calibrate", "--repeat", "1", "--out", str(path)]) == 0
    model = CostModel.named(str(path))
    assert json.loads(path.read_text())["costs"] == model.describe()
    said = capsys.readouterr()
    assert f"classify       {model.classify:>6,} ns" in said.out
    assert "written: " in said.err and "measuring" not in said.err
