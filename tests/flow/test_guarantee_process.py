# SPDX-License-Identifier: MIT
"""R15 with a LibOS in a process of its own, on a real machine: asked, then taken from, then dead."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.clock import monotonic_ns
from exonet.errors import DeniedError
from exonet.hardware.nic import NicConfig
from exonet.kernel.abort import take
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.environment import Environment
from exonet.kernel.revocation import ask
from tests.fakes.printed import printed
from tests.fakes.wire import ScriptWire

PATIENCE_NS = 20_000_000_000
# Four pages: the first guaranteed, the second pinned, two to give. A datagram is posted before the kernel runs.
CODE = """
import json


class Keeper:
    def __init__(self, environment, options):
        self.environment, gate = environment, environment.gate
        self.extent = gate.allocate(4)
        self.extent.memory[:4] = b"kept"
        self.extent.memory[4096:4100] = b"gone"
        gate.guarantee(self.extent.first, 1)
        gate.pin(self.extent.first, 2)
        self.spare = [self.extent.first + 3, self.extent.first + 2]
        environment.udp(9).sendto(b"posted from a page that will be taken", ("10.0.0.255", 9))
        environment.flush()

    def step(self):
        wanted = self.environment.gate.wanted()
        for _ in range(wanted):
            self.environment.gate.free(self.spare.pop(), 1)
        found = [bytes(self.extent.memory[at : at + 4]).hex() for at in (0, 4096)]
        print(json.dumps({"first": self.extent.first, "wanted": wanted, "found": found}), flush=True)
        return False

    def deadline(self):
        return None
"""


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preload: None) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    (tmp_path / "keeper.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("keeper", None)


def until(machine: Machine, env: Environment, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Serves until the LibOS says what is waited for."""
    end = monotonic_ns() + PATIENCE_NS
    while monotonic_ns() < end:
        for said in printed(env):
            if condition(said):
                return said
        env.wake_up()
        machine.server.serve(0.05)
    raise AssertionError(f"waited in vain: {env.output!r} {env.end_reason}")


@pytest.mark.usefixtures("keeper")
def test_r15_asked_then_taken_from_then_dead() -> None:
    with ScriptWire(ends=False) as wire, Machine(MachineConfig(pages=512)) as machine:
        port = machine.attach(wire, NicConfig())
        spec = LibOSSpec(
            "keeper", "keeper:Keeper", addresses=("10.0.0.1/24",), process=True, receive_buffers=16, transmit_buffers=16
        )
        env = machine.spawn(spec, port)
        pages, number = machine.environments.pages, env.number
        first = until(machine, env, lambda said: said["wanted"] == 0)["first"]
        # Politely: there are two pages without a pin, so two are asked for, and the LibOS gives those.
        assert ask(machine.environments, env, 5) == 2
        until(machine, env, lambda said: said["wanted"] == 2)
        assert pages.takeable(number, pinned=False) == []
        # By force: everything but what is guaranteed, and what was posted leaves first.
        with pytest.raises(DeniedError, match=rf"pages \[{first}\] are guaranteed"):
            take(machine.environments, env, first, 2)
        assert wire.sent == []
        for page in pages.takeable(number, pinned=True):
            take(machine.environments, env, page, 1)
        assert [data[42:48] for data in wire.sent] == [b"posted"]
        assert pages.held(number) == pages.guaranteed(number) == [first]
        said = until(machine, env, lambda said: bytes.fromhex(said["found"][1]) == bytes(4))
        assert bytes.fromhex(said["found"][0]) == b"kept" and env.alive
        # Its death ends the guarantee.
        machine.environments.end(env, "killed by the test")
        assert pages.free_count == pages.total
