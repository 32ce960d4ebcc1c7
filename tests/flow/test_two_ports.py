# SPDX-License-Identifier: MIT
"""A LibOS on two ports: what it answers leaves by the port that its peer came in at, and by no other."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from exonet.clock import Clock
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable
from exonet.wire.capture import Trace
from exonet.wire.pcap import split
from tests.fakes.captures import pcap
from tests.fakes.frames import BROADCAST, HERE, HOST, PEER, THERE, udp

ECHO = LibOSSpec("echo", libos="echo", addresses=(f"{HOST}/24",), receive_buffers=64, transmit_buffers=64)
OTHER = "02:00:00:00:00:aa"
SECOND = 1_000_000_000


class Cables:
    """A machine on the virtual clock with the echo LibOS on two cables. `ask` plugs frames into the far ends."""

    def __init__(self) -> None:
        self.machine = Machine(MachineConfig(Clock.VIRTUAL, pages=512))
        self.wires: list[CableEnd] = []
        self.far: list[CableEnd] = []
        for name in ("first", "second"):
            near, far = cable(name=name)
            self.wires += [near, far]
            self.far.append(far)
            self.machine.attach(near, NicConfig())
        self.machine.spawn(ECHO, (0, 1))

    def ask(self, *asked: Sequence[Packet]) -> list[list[Packet]]:
        """What comes out of each cable within 20 ms, and that the ledger balances."""
        now = self.machine.now()
        for far, packets in zip(self.far, asked, strict=True):
            burst.send(far, [bytes(packet) for packet in packets], now)
        self.machine.run(now + SECOND // 50)
        self.machine.ledger().check()
        return [[Ether(frame.data) for frame in burst.receive(far, self.machine.now()) or []] for far in self.far]

    def close(self) -> None:
        self.machine.close()
        for wire in self.wires:
            wire.close()


@pytest.fixture
def cables() -> Iterator[Cables]:
    made = Cables()
    yield made
    made.close()


def ping(src: str, mac: str, size: int = 8) -> Packet:
    return Ether(src=mac, dst=HERE) / IP(src=src, dst=HOST) / ICMP(id=7) / Raw(bytes(size))


def datagram(src: str, mac: str, data: bytes) -> Packet:
    return Ether(src=mac, dst=HERE) / IP(src=src, dst=HOST) / UDP(sport=4000, dport=7) / Raw(data)


def who_has(src: str, mac: str) -> Packet:
    return Ether(src=mac, dst=BROADCAST) / ARP(op=1, hwsrc=mac, psrc=src, pdst=HOST)


@pytest.mark.parametrize("second", ["10.0.0.98", PEER], ids=["two addresses", "one address on two links"])
@pytest.mark.parametrize("asked", [0, 1])
def test_an_answer_leaves_by_the_port_it_was_asked_at(cables: Cables, asked: int, second: str) -> None:
    """Ping, UDP and ARP. Both links' stations are known before either asks; they may have one address each."""
    address, mac = ((PEER, THERE), (second, OTHER))[asked]
    assert [[p.op for p in found] for found in cables.ask([who_has(PEER, THERE)], [who_has(second, OTHER)])] == [
        [2]
    ] * 2
    questions: list[list[Packet]] = [[], []]
    questions[asked] = [ping(address, mac), datagram(address, mac, b"hello"), who_has(address, mac)]
    answers = cables.ask(*questions)
    assert answers[1 - asked] == []
    assert [found.dst for found in answers[asked]] == [mac] * 3
    assert [found for found in answers[asked] if ICMP in found and found[ICMP].type == 0]
    assert [bytes(found[UDP].payload)[:5] for found in answers[asked] if UDP in found] == [b"hello"]


@pytest.mark.parametrize("asked", [0, 1])
def test_a_stranger_is_asked_for_where_it_spoke(cables: Cables, asked: int) -> None:
    """Its MAC address is not known: the request, its repetition by the timer, and what waited leave by its port."""
    questions: list[list[Packet]] = [[], []]
    questions[asked] = [datagram(PEER, THERE, b"who am I?")]
    answers = cables.ask(*questions)
    assert answers[1 - asked] == [] and [found[ARP].pdst for found in answers[asked]] == [PEER]
    elsewhere: list[list[Packet]] = [[], []]
    elsewhere[1 - asked] = [who_has("10.0.0.77", OTHER)]
    cables.ask(*elsewhere)
    cables.machine.run(cables.machine.now() + 3 * SECOND)
    repeated = cables.ask([], [])
    assert repeated[1 - asked] == [] and {found[ARP].pdst for found in repeated[asked]} == {PEER}
    told = Ether(src=THERE, dst=HERE) / ARP(op=2, hwsrc=THERE, psrc=PEER, hwdst=HERE, pdst=HOST)
    questions[asked] = [told]
    answers = cables.ask(*questions)
    assert answers[1 - asked] == [] and bytes(answers[asked][0][UDP].payload).startswith(b"who am I?")


def test_fragments_of_two_links_are_not_put_together(cables: Cables) -> None:
    """The same addresses and identifier on each link: two datagrams, answered each on its own."""
    whole = bytes(IP(src=PEER, dst=HOST, id=9) / ICMP(id=7) / Raw(b"a" * 1000))[20:]
    halves = [
        Ether(src=THERE, dst=HERE) / IP(src=PEER, dst=HOST, id=9, proto=1, flags="MF") / Raw(whole[:800]),
        Ether(src=THERE, dst=HERE) / IP(src=PEER, dst=HOST, id=9, proto=1, frag=100) / Raw(whole[800:]),
    ]
    cables.ask([who_has(PEER, THERE)], [who_has(PEER, THERE)])
    assert cables.ask([halves[0]], [halves[1]]) == [[], []]
    answers = cables.ask([halves[1]], [])
    assert [len(found) for found in answers] == [1, 0] and answers[0][0][ICMP].type == 0


def test_the_answers_of_a_two_sided_replay_leave_by_the_side_that_was_asked(tmp_path: Path) -> None:
    """Five datagrams of the client and three of the server, to ports that the LibOS serves."""
    asked = [udp(sport=4000, dport=7, src=PEER, dst=HOST)] * 5
    back = [bytes(Ether(src=HERE, dst=THERE) / IP(src=HOST, dst=PEER) / UDP(sport=7, dport=4000) / Raw(b"b"))] * 3
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap([(k * 1000, frame) for k, frame in enumerate(asked + back)]))
    client, server = split(Trace.load(path), speed="max")
    with client, server, Machine(MachineConfig(Clock.VIRTUAL, pages=512)) as machine:
        for wire in (client, server):
            machine.attach(wire, NicConfig(mac=OTHER, promiscuous=True), subscribe_all=True)
        options = {"port": [7, 4000]}
        spec = LibOSSpec("echo", "echo", ("udp port 7",), local="any", any_address=True, options=options)
        machine.spawn(spec, (0, 1))
        machine.run()
        ledger = machine.settle()
        assert (ledger.consumed, ledger.sent, ledger.dropped) == (8, 8, {})
        assert (client.native.tx_frames, server.native.tx_frames) == (5, 3)
