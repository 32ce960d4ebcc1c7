# SPDX-License-Identifier: MIT
"""Capabilities on a real machine with traffic: a refused bind, a revocation and a death in the middle of a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from exonet.abi import lib
from exonet.clock import Clock
from exonet.errors import ConflictError
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Environment
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

MAC, PEER = "02:00:00:00:00:01", "02:00:00:00:00:99"
US = 1000


def datagram(number: int, dport: int) -> bytes:
    packet = Ether(src=PEER, dst=MAC) / IP(src="10.7.0.1", dst="10.7.0.2") / UDP(sport=4000, dport=dport, chksum=0)
    return bytes(packet / Raw(number.to_bytes(4, "big") * 5))


def traffic(count: int, ports: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """A frame each 10 us, the ports in turn."""
    return [(10 * US * (k + 1), datagram(k, ports[k % len(ports)])) for k in range(count)]


@pytest.fixture
def wire() -> ScriptWire:
    return ScriptWire(traffic(200, (53, 7)))


@pytest.fixture
def machine(wire: ScriptWire) -> Iterator[Machine]:
    with Machine(MachineConfig(clock=Clock.VIRTUAL, pages=4096)) as made:
        made.attach(wire, NicConfig(mac=MAC, promiscuous=True))
        yield made


def spawn(machine: Machine, name: str, binding: str, **more: Any) -> Environment:
    return machine.spawn(LibOSSpec(name, bindings=(binding,), process=False, **{"libos": "sink", **more}))


def revoke(machine: Machine, env: Environment, resource: Resource) -> None:
    """The machine's owner takes back what boot granted."""
    authority = machine.environments.authority
    found = [authority.authentic(token) for token in env.tokens]
    for capability in found:
        if capability.resource is resource:
            authority.revoke(capability.identifier)


def conjuncts(machine: Machine) -> int:
    return int(lib.exo_demux_conjuncts(lib.exo_machine_demux(machine.native, 0, 0)))


def fates(machine: Machine) -> tuple[dict[str, int], dict[str, int]]:
    ledger = machine.settle()
    assert ledger.in_flight == 0
    return {row["name"]: row["delivered"] for row in machine.reports()}, dict(ledger.dropped)


def test_r13_a_refused_bind_leaves_nothing_behind_on_a_machine(machine: Machine) -> None:
    """The second LibOS overlaps the first in part: refused. Table, pages and descriptors are as before; traffic too."""
    spawn(machine, "dns", "udp dst port 53")
    pages = lib.exo_machine_pages(machine.native)
    before = conjuncts(machine), lib.exo_pages_free_count(pages), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(ConflictError, match="udp dst port 53"):
            spawn(machine, "other", "udp portrange 50-60 and src host 10.7.0.1")
    after = conjuncts(machine), lib.exo_pages_free_count(pages), len(list(Path("/proc/self/fd").iterdir()))
    assert after == before
    machine.run()
    delivered, dropped = fates(machine)
    assert delivered["dns"] == 100 and dropped == {"demux.no_match": 100}


def test_r14_a_revoked_filter_ends_at_once_and_what_was_copied_stays_delivered(machine: Machine) -> None:
    dns, other = spawn(machine, "dns", "udp dst port 53"), spawn(machine, "other", "udp dst port 7")
    both = conjuncts(machine)
    machine.run(until_ns=1000 * US)
    had = int(dns.native.placed_frames)
    assert 40 <= had <= 50
    revoke(machine, dns, Resource.FILTER)
    assert conjuncts(machine) == both // 2
    machine.run()
    delivered, dropped = fates(machine)
    assert delivered == {"dns": had, "other": 100} and other.alive
    assert dropped == {"demux.no_match": 100 - had}


def test_r14_a_revoked_wire_sends_nothing_more(machine: Machine, wire: ScriptWire) -> None:
    echo = spawn(machine, "echo", "dst host 10.7.0.2", libos="echo", addresses=("10.7.0.2/24",))
    machine.run(until_ns=1000 * US)
    sent = int(echo.native.sent)
    revoke(machine, echo, Resource.WIRE)
    machine.run()
    _, dropped = fates(machine)
    assert int(echo.native.sent) == sent == len(wire.sent)
    assert set(dropped) <= {"transmit.not_granted", "stack.no_socket"}, dropped


def test_r14_and_invariant_3_revoked_pages_are_written_no_more(machine: Machine) -> None:
    """Its pages go with the buffers it had posted: each is a bad buffer, counted, and nobody's memory is touched."""
    dns, other = spawn(machine, "dns", "udp dst port 53"), spawn(machine, "other", "udp dst port 7")
    machine.run(until_ns=1000 * US)
    had = int(dns.native.placed_frames)
    revoke(machine, dns, Resource.PAGES)
    pages = lib.exo_machine_pages(machine.native)
    assert not any(pages.page[number].env == dns.number for number in range(pages.count))
    machine.run()
    delivered, dropped = fates(machine)
    assert delivered["other"] == 100 and other.alive
    assert delivered["dns"] + sum(dropped.values()) == 100 and int(dns.native.placed_frames) == had
    assert set(dropped) <= {"ring.bad_buffer", "ring.no_buffer", "ring.env_dead", "demux.no_match"}, dropped


@pytest.mark.parametrize("taken", ["pages", "right"])
def test_r14_a_revocation_breaks_the_descriptors_queued(taken: str) -> None:
    """Posted and not yet looked at when the pages, or the right to send, are gone: nothing of them leaves."""
    bench = Bench()
    wire = ScriptWire()
    bench.attach(wire, promiscuous=0)
    libos = FakeLibOS(bench)
    libos.locals({"mac": bytes.fromhex(MAC.replace(":", "")), "any": 1})
    first, second = (bytes(Ether(src=MAC, dst=PEER, type=0x88B5) / Raw(bytes([i]) * 50)) for i in (1, 2))
    try:
        libos.transmit(first, cookie=1)
        bench.run()
        assert wire.sent == [first]
        for cookie in (2, 3):
            libos.transmit(second, cookie=cookie)
        if taken == "pages":
            assert lib.exo_pages_seize(libos.table, libos.number, libos.first, libos.pages) == 0
        else:
            libos.locals()
        bench.run()
        reason = lib.EXO_R_TRANSMIT_BAD_DESCRIPTOR if taken == "pages" else lib.EXO_R_TRANSMIT_NOT_GRANTED
        assert wire.sent == [first] and bench.ledger.drop[reason] == 2
        assert libos.completions() == [(1, 0), (2, -reason), (3, -reason)]
    finally:
        bench.close()


def test_r14_and_invariant_8_a_death_gives_everything_back(machine: Machine) -> None:
    pages = lib.exo_machine_pages(machine.native)
    free, fds = lib.exo_pages_free_count(pages), len(list(Path("/proc/self/fd").iterdir()))
    dns = spawn(machine, "dns", "udp dst port 53")
    spawn(machine, "other", "udp dst port 7")
    machine.run(until_ns=1000 * US)
    for env in list(machine.environments):
        machine.environments.end(env, "the test ends it")
    assert (lib.exo_pages_free_count(pages), conjuncts(machine)) == (free, 0)
    machine.run()
    delivered, dropped = fates(machine)
    assert sum(dropped.values()) + sum(delivered.values()) == 200 and not dns.alive
    machine.close()
    assert len(list(Path("/proc/self/fd").iterdir())) < fds
