# SPDX-License-Identifier: MIT
"""A desk at which environments bind: a real machine with one port, on which nothing runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from exonet.abi import lib
from exonet.hardware.nic import NicConfig
from exonet.kernel.binding import Binding
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Mode
from exonet.wire.cable import cable

MANY = Quota(bindings=1 << 20, conjuncts=1 << 20)


class Desk:
    """A machine with one port, and environments with a region each."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.bindings = machine.environments.bindings
        self.tokens: dict[str, bytes] = {}
        self.envs: dict[str, Environment] = {}

    def open(
        self, name: str, region: str | None, quota: Quota = MANY, *, port: int | None = 0, shared: bool = False
    ) -> Environment:
        env = self.machine.environments.open(name, Mode.INLINE, quota=quota)
        self.envs[name] = env
        scope = Scope(port=port, region=region)
        rights = Right.BIND | Right.GRANT
        self.tokens[name] = self.machine.environments.grant(env, Resource.FILTER, rights, scope, shared=shared)
        return env

    def bind(self, name: str, source: Any) -> Binding:
        return self.bindings.bind(self.envs[name], source, self.tokens[name])

    @property
    def demux(self) -> Any:
        return lib.exo_machine_demux(self.machine.native, 0, 0)

    @property
    def conjuncts(self) -> int:
        return int(lib.exo_demux_conjuncts(self.demux))


@contextmanager
def open_desk() -> Iterator[Desk]:
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=1024)) as machine:
        machine.attach(here, NicConfig(promiscuous=True))
        yield Desk(machine)
