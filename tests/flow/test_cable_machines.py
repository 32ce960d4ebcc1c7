# SPDX-License-Identifier: MIT
"""Two machines joined by a cable: a LibOS of the one asks the echo of the other, on either clock."""

from dataclasses import dataclass

import pytest

from exonet.clock import Clock
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.ledger import Ledger
from exonet.wire.cable import cable

MS = 1_000_000
COUNT = 40


@dataclass(frozen=True)
class Talk:
    """What both machines say in the end; `frames`: sent and received by the one end, then by the other."""

    ledgers: tuple[Ledger, Ledger]
    frames: tuple[int, int, int, int]
    turns: int


def frames_each(size: int) -> int:
    """Frames each way: the ARP exchange, and three fragments where a question is longer than the MTU."""
    return 1 + COUNT * (1 if size < 1400 else 3)


def talk(clock: Clock, size: int) -> Talk:
    """The machines take turns of a millisecond, which is the cable's latency: nothing comes from the other's future."""
    options = {"to": "10.7.0.2", "count": COUNT, "size": size}
    asks = LibOSSpec("asks", libos="tests.fakes.caller:Caller", addresses=("10.7.0.1/24",), options=options)
    echo = LibOSSpec("echo", libos="echo", addresses=("10.7.0.2/24",))
    a, b = cable(latency=MS)
    config = MachineConfig(clock=clock, pages=2048)
    with a, b, Machine(config) as one, Machine(config) as two:
        for machine, wire, spec, last in ((one, a, asks, 1), (two, b, echo, 2)):
            machine.attach(wire, NicConfig(mac=f"02:00:00:00:00:0{last}"))
            machine.spawn(spec)
        turns, begins = 0, (one.now(), two.now())
        while two.reports()[0]["sent"] < frames_each(size) and turns < 20 * COUNT:
            turns += 1
            for machine, begin in ((one, begins[0]), (two, begins[1])):
                now = machine.now() if clock is Clock.MONOTONIC else begin + (turns - 1) * MS
                machine.run(until_ns=now + MS)
        one.run(until_ns=one.now() + 2 * MS)
        assert all(row["alive"] for machine in (one, two) for row in machine.reports())
        frames = (a.native.tx_frames, a.native.rx_frames, b.native.tx_frames, b.native.rx_frames)
        return Talk((one.settle(), two.settle()), tuple(map(int, frames)), turns)


@pytest.mark.parametrize("clock", list(Clock))
@pytest.mark.parametrize("size", [4, 4000], ids=["whole", "fragments"])
def test_a_libos_of_one_machine_talks_with_a_libos_of_another(clock: Clock, size: int) -> None:
    """What the one sends the other receives, and nothing more."""
    told, each = talk(clock, size), frames_each(size)
    assert told.frames == (each, each, each, each)
    for ledger in told.ledgers:
        assert (ledger.offered, ledger.sent, ledger.consumed) == (2 * each, each, each)
        assert not ledger.dropped and not ledger.in_flight


def test_invariant_7_two_machines_on_virtual_time_repeat() -> None:
    assert talk(Clock.VIRTUAL, 4) == talk(Clock.VIRTUAL, 4)
