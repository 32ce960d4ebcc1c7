# SPDX-License-Identifier: MIT
"""A live machine at full rate: a trace in memory, looped, whose frames go in turn to a good LibOS and to a victim."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Environment
from exonet.ledger import Ledger
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import pcap
from tests.fakes.frames import HERE, udp

FRAMES = 2000
GOOD_PORT, VICTIM_PORT = 53, 7
MS = 1_000_000


class Live:
    """A good LibOS and victims on one port, with backpressure. Half of the frames are the good one's; the victims share
    the others evenly.
    """

    def __init__(self, machine: Machine, frames: int, victims: Sequence[dict[str, Any]]) -> None:
        self.machine = machine
        self.frames = frames
        self.share = frames // 2 // len(victims)
        self.good = self.spawn("good", GOOD_PORT)
        self.victims = [
            self.spawn(f"victim {number}", VICTIM_PORT + number, **more) for number, more in enumerate(victims)
        ]

    def spawn(self, name: str, port: int, **more: Any) -> Environment:
        options = {"libos": "sink", "process": True, "local": "none", **more}
        return self.machine.spawn(LibOSSpec(name, bindings=(f"udp dst port {port}",), **options))

    def run(self, ns: int | None = None) -> None:
        """For so long, or to the end."""
        assert self.machine.run(None if ns is None else self.machine.now() + ns)

    def end(self) -> Ledger:
        """To the end: it balances, and the good one has every frame of its own."""
        self.run()
        ledger = self.machine.settle()
        assert self.good.alive and self.delivered(self.good) == self.frames // 2, ledger.table()
        assert ledger.offered >= self.frames
        return ledger

    def report(self, env: Environment) -> dict[str, Any]:
        return next(row for row in self.machine.reports() if row["name"] == env.name)

    def delivered(self, env: Environment) -> int:
        return int(self.report(env)["delivered"])

    def dropped(self, env: Environment) -> dict[str, int]:
        """Its own drops by reason."""
        return dict(self.report(env)["dropped"])

    def revoke(self, env: Environment, resource: Resource) -> None:
        """The machine's owner takes back what boot granted."""
        authority = self.machine.environments.authority
        for capability in [authority.authentic(token) for token in env.tokens]:
            if capability.resource is resource:
                authority.revoke(capability.identifier)


def pid_of(env: Environment) -> int:
    assert env.process is not None
    return env.process.pid


@contextmanager
def live(directory: Path, *victims: dict[str, Any], loop: int = 50) -> Iterator[Live]:
    """victims: of each, what differs from a sink in a process of its own."""
    path = directory / "full-rate.pcap"
    ports = [VICTIM_PORT + i // 2 % len(victims) if i % 2 else GOOD_PORT for i in range(FRAMES)]
    path.write_bytes(pcap([(i * 1000, udp(dport=port)) for i, port in enumerate(ports)]))
    with PcapWire(path, speed="max", loop=loop) as wire, Machine(MachineConfig()) as machine:
        machine.attach(wire, NicConfig(mac=HERE, promiscuous=True, mode=NicMode.BACKPRESSURE))
        yield Live(machine, FRAMES * loop, victims)
