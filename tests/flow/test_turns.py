# SPDX-License-Identifier: MIT
"""Inline LibOSes step in turn: one that always has frames does not keep another from its timer."""

from pathlib import Path
from typing import Any, ClassVar

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire.pcap import PcapWire
from libos_stacks.environment import Environment

MS = 1_000_000


class Ticker:
    """Wants a step every millisecond."""

    steps: ClassVar[int] = 0

    def __init__(self, environment: Environment, options: dict[str, Any]) -> None:
        self._environment = environment

    def step(self) -> bool:
        Ticker.steps += 1
        return False

    def deadline(self) -> int | None:
        return self._environment.gate.now() + MS


def test_a_timer_comes_beside_a_libos_that_always_has_frames(tmp_path: Path) -> None:
    Ticker.steps = 0
    trace = tmp_path / "udp.pcap"
    wrpcap(str(trace), [Ether(dst="02:00:00:00:00:01") / IP(dst="10.7.0.2") / UDP(dport=53) / bytes(18)] * 500)
    with PcapWire(trace, speed="max", loop=0) as wire, Machine(MachineConfig(pages=2048)) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE))
        machine.spawn(LibOSSpec("busy", libos="sink", bindings=("udp",), local="none", receive_buffers=2048), port)
        ticker = LibOSSpec("ticker", libos="tests.flow.test_turns:Ticker", bindings=("arp",))
        machine.spawn(ticker, port)
        before = Ticker.steps
        for _ in range(50):
            machine.run(until_ns=machine.now() + 4 * MS)
            if Ticker.steps > before + 10:
                break
        assert Ticker.steps > before + 10
