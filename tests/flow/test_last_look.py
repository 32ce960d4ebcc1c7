# SPDX-License-Identifier: MIT
"""A LibOS process that is only slow when a run ends has not left its packets: the kernel looks once more."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.running import report
from tests.fakes.frames import udp
from tests.fakes.wire import ScriptWire

# It takes its first frame a little later than the two seconds that a run waits for the last one.
CODE = """
import time
from libos_stacks.sink import Sink


class Slow(Sink):
    def step(self):
        if self.environment.spin(1):
            time.sleep(2.3)
        return super().step()
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preload: None) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    (tmp_path / "slow.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("slow", None)


@pytest.mark.usefixtures("slow")
def test_r20_a_slow_libos_is_waited_for_once_nothing_more_comes() -> None:
    with ScriptWire([(0, udp())]) as wire, Machine(MachineConfig(pages=512)) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True))
        env = machine.spawn(
            LibOSSpec("slow", "slow:Slow", ("udp",), process=True, local="none", any_address=True), port
        )
        machine.run()
        ledger = machine.settle()
        told = report(env)
        assert (ledger.consumed, ledger.in_flight, told["consumed"], told["placed"]) == (1, 0, 1, 1)
