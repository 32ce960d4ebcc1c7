# SPDX-License-Identifier: MIT
"""`exonet calibrate` measures a cost model that `--costs` reads. That it can is tested, not how fast this host is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.clock import Clock
from exonet.kernel.schedule import CostModel
from exonet.lab.calibrate import Calibration
from exonet.lab.plan import Plan, Settings, Tenant, TraceSource
from exonet.lab.rates import Rate
from exonet.lab.run import run
from exonet.lab.sweep import Sweep

UDP64 = Path(__file__).resolve().parents[2] / "captures" / "udp-64.pcap"


def test_every_cost_is_measured() -> None:
    said: list[str] = []
    calibration = Calibration(("sink",), repeat=1, frames=2000, say=said.append)
    model = calibration.measure()
    assert min(model.describe().values()) >= 0
    assert list(model.libos) == ["sink"]
    assert said[-1] == "the capacity with sink"
    (capacity,) = calibration.capacities
    assert capacity.predicted == model.capacity("sink", 60) and capacity.measured.median > 0
    assert "the model says" in str(capacity)


def test_the_file_is_what_costs_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "costs.json"
    assert main(["calibrate", "--repeat", "1", "--libos", "sink", "--out", str(path)]) == 0
    model = CostModel.named(str(path))
    assert json.loads(path.read_text())["costs"] == model.describe()
    said = capsys.readouterr()
    assert f"classify       {model.classify:>6,} ns" in said.out
    assert "written: " in said.err and "measuring" not in said.err
    assert f"sink           {model.libos['sink'].consume:>6,} ns" in said.out
    assert "sink, 60 bytes: the model says" in said.out


@pytest.mark.parametrize("kind", ["sink", "echo"])
def test_the_predicted_capacity_is_what_a_run_on_the_virtual_clock_reaches(kind: str) -> None:
    """Somewhat below it nothing is lost (while it is not yet always busy, there are interrupts too); above it as much
    arrives as the model says. udp-64.pcap has 60-byte packets; an echo answers all of them.
    """
    model = CostModel.named("host")
    assert not model.lacks(kind)
    capacity = model.capacity(kind, 60, answers=1.0 if kind == "echo" else 0.0)
    tenant = Tenant.parse_binding(f"a=udp,stack={kind}" + (",port=5201" if kind == "echo" else ""))
    plan = Plan(source=TraceSource(path=UDP64), tenants=(tenant,), settings=Settings(clock=Clock.VIRTUAL))
    sweep = Sweep(plan, (Rate(0.93 * capacity), Rate(1.2 * capacity)), (128,), packets=20_000)
    below, above = sweep.run(sweep.load(lambda note: None)).rows
    assert below.loss == 0 < above.loss
    assert above.delivered_pps == pytest.approx(capacity, rel=0.02)


def test_a_kind_that_the_model_lacks_is_said() -> None:
    plan = Plan(
        source=TraceSource(path=UDP64),
        tenants=(Tenant.parse_binding("a=udp,stack=libos_stacks.sink:Sink"),),
        settings=Settings(clock=Clock.VIRTUAL),
    )
    (note,) = [note for note in run(plan).notes if "cost model" in note]
    assert note.startswith("cost model host has no figures for libos_stacks.sink:Sink")
    assert not run(replace(plan, settings=Settings(clock=Clock.VIRTUAL, costs="dec5000"))).notes
