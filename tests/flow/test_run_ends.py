# SPDX-License-Identifier: MIT
"""How a replay ends: by Ctrl-C with the ledger of what happened so far; as a failure where that does not balance."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import lib
from exonet.cli.main import main
from exonet.clock import Clock
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.running import Runner
from libos_stacks.environment import Environment
from libos_stacks.sink import Sink
from tests.fakes.frames import udp
from tests.fakes.wire import ScriptWire

DEMO = str(Path(__file__).resolve().parents[2] / "captures" / "web-dns.pcapng")


class Impatient(Sink):
    """Presses Ctrl-C at its twentieth frame."""

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        super().__init__(environment, options)
        self.seen = 0

    def step(self) -> bool:
        found = self.environment.sink(1)
        self.seen += found
        if found and self.seen == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return found > 0


@pytest.mark.parametrize("clock", ["monotonic", "virtual"])
def test_ctrl_c_ends_a_replay_with_its_ledger(clock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bind", f"all=ip,inline,stack={__name__}:Impatient", "--clock", clock, "--loop", "20"]
    assert main(["replay", DEMO, *words, "--json", str(tmp_path / "out.json")]) == 130
    told = json.loads((tmp_path / "out.json").read_text())
    ledger = told["ledger"]
    assert told["run"]["interrupted"] and not told["run"]["failed"]
    assert 20 <= ledger["delivered"] < 20_000
    assert ledger["in_flight"] == 0
    assert ledger["offered"] + ledger["copies"] == ledger["delivered"] + sum(ledger["dropped"].values())
    assert "balanced" in capsys.readouterr().out


@pytest.mark.parametrize("clock", list(Clock))
def test_a_run_in_pieces_forgets_no_step(clock: Clock) -> None:
    """A LibOS that takes a frame a step says each time that there is more; the last word of a piece is not lost."""
    with Machine(MachineConfig(clock=clock, pages=1024)) as machine:
        machine.attach(ScriptWire([(machine.now(), udp())] * 60, ends=False), NicConfig(promiscuous=True))
        machine.spawn(LibOSSpec("one", bindings=("udp",), local="none", options={"burst": 1}))
        for _ in range(200):
            machine.run(until_ns=machine.now() + 1)
        assert machine.ledger().consumed == 60


@pytest.mark.parametrize("side", ["in", "out", "copies"])
def test_invariant_1_a_run_that_does_not_balance_fails(
    side: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drain = Runner.drain

    def lose_one(self: Runner) -> None:
        drain(self)
        getattr(lib.exo_machine_ledger(self._native), side)[lib.EXO_S_RING] += 1

    monkeypatch.setattr(Runner, "drain", lose_one)
    assert main(["replay", DEMO, "--bind", "all=ip,inline", "--clock", "virtual"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("exonet: error: ") and "ring" in said.err
    assert "balanced" not in said.out
