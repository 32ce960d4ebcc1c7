# SPDX-License-Identifier: MIT
"""The echo LibOS end to end over a fake kernel: frames in, frames out, and every frame accounted for."""

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from libos_stacks.abi import lib
from libos_stacks.echo import Echo
from libos_stacks.environment import Environment
from tests.fakes.gate import FakeGate
from tests.fakes.kernel import FakeKernel

PEER, SELF = "02:00:00:00:00:01", "02:00:00:00:00:02"
LINK = Ether(src=PEER, dst=SELF)


class Bench:
    """An echo LibOS, its fake kernel, and a peer that knows its addresses."""

    def __init__(self, entries: int = 128, start: int = 0, port: int = 7, **config: Any) -> None:
        self.kernel = FakeKernel(entries=entries, start=start)
        settings: dict[str, Any] = {"addresses": ["10.7.0.2/24", "fd00::2/64"], "options": {"port": port}} | config
        self.gate = FakeGate(self.kernel, **{"receive_buffers": 64, "transmit_buffers": 64} | settings)
        self.environment = Environment(self.gate)
        self.echo = Echo(self.environment, self.gate.config["options"])
        self.frames = 0
        self.deliver(Ether(src=PEER, dst=SELF) / ARP(op=1, hwsrc=PEER, psrc="10.7.0.1", pdst="10.7.0.2"))
        target = ICMPv6ND_NS(tgt="fd00::2") / ICMPv6NDOptSrcLLAddr(lladdr=PEER)
        self.deliver(LINK / IPv6(src="fd00::1", dst="fd00::2", hlim=255) / target)
        self.answers()

    def deliver(self, packet: Packet | bytes) -> bool:
        """Padded and flagged as the NIC does."""
        frame = bytes(packet)
        flags = lib.EXO_F_PADDED if len(frame) < 60 else 0
        placed = self.kernel.deliver(frame.ljust(60, b"\0"), len(frame), flags)
        self.frames += placed
        return placed

    def answers(self) -> list[Packet]:
        """What comes back once the LibOS has nothing left to do."""
        frames = []
        while self.echo.step():
            frames += self.kernel.take_sent()
        self.echo.deadline()
        return [Ether(frame.data) for frame in frames + self.kernel.take_sent()]

    def ask(self, packet: Packet | bytes) -> list[Packet]:
        assert self.deliver(packet)
        return self.answers()

    def accounted(self) -> int:
        counters = self.kernel.libos.counters
        total: int = counters.delivered + sum(counters.drop)
        return total


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.environment.close()


def udp4(data: bytes, port: int = 7, source: int = 5555) -> Packet:
    return LINK / IP(src="10.7.0.1", dst="10.7.0.2") / UDP(sport=source, dport=port) / Raw(data)


def test_a_datagram_comes_back_from_where_it_went(bench: Bench) -> None:
    (answer,) = bench.ask(udp4(b"hello"))
    assert (answer.src, answer.dst) == (SELF, PEER)
    assert (answer[IP].src, answer[IP].dst) == ("10.7.0.2", "10.7.0.1")
    assert (answer[UDP].sport, answer[UDP].dport) == (7, 5555)
    assert bytes(answer[UDP].payload)[:5] == b"hello"
    fresh = answer.copy()
    del fresh[IP].chksum, fresh[UDP].chksum
    assert bytes(Ether(bytes(fresh))[IP])[: answer[IP].len] == bytes(answer[IP])[: answer[IP].len]


def test_ipv6_comes_back_too(bench: Bench) -> None:
    (answer,) = bench.ask(LINK / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=9, dport=7) / Raw(b"six"))
    assert (answer[IPv6].src, answer[IPv6].dst) == ("fd00::2", "fd00::1")
    assert bytes(answer[UDP].payload)[:3] == b"six"


def test_ping_is_answered_by_the_engine(bench: Bench) -> None:
    (four,) = bench.ask(LINK / IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(id=3, seq=4) / Raw(b"abc"))
    assert (four[ICMP].type, four[ICMP].id, four[ICMP].seq) == (0, 3, 4)
    (six,) = bench.ask(LINK / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(id=5))
    assert six.sprintf("%IPv6.src%") == "fd00::2"


def test_another_port_may_be_configured() -> None:
    bench = Bench(port=4242)
    with bench.environment:
        (answer,) = bench.ask(udp4(b"x", port=4242))
        assert answer[UDP].sport == 4242
        (refused,) = bench.ask(udp4(b"x", port=7))
        assert (refused[ICMP].type, refused[ICMP].code) == (3, 3)


def test_several_ports_may_be_configured() -> None:
    bench = Bench(options={"port": [7, 53]})
    with bench.environment:
        assert [bench.ask(udp4(b"x", port=port))[0][UDP].sport for port in (7, 53)] == [7, 53]


@pytest.mark.parametrize("start", [0, 0xFFFFFFF0])
def test_r20_many_bursts_balance_across_index_wrap(start: int) -> None:
    bench = Bench(entries=32, start=start)
    with bench.environment:
        for burst in range(30):
            for i in range(burst % 20):
                assert bench.deliver(udp4(bytes([burst, i])))
            bench.deliver(LINK / Dot1Q(vlan=9) / IP() / UDP())
            answers = bench.answers()
            assert [bytes(answer[UDP].payload)[:2] for answer in answers] == [
                bytes([burst, i]) for i in range(burst % 20)
            ]
        assert bench.accounted() == bench.frames
        assert bench.kernel.libos.counters.drop[lib.EXO_R_STACK_VLAN - lib.EXO_R_STACK_FIRST] == 30
        assert bench.kernel.libos.counters.sent == bench.environment.describe()["rings"]["sent"]


def test_a_datagram_of_many_fragments_comes_back_whole(bench: Bench) -> None:
    data = bytes(range(256)) * 15
    whole = bytes(IP(src="10.7.0.1", dst="10.7.0.2", id=77) / UDP(sport=1, dport=7) / Raw(data))
    header, body = whole[:20], whole[20:]
    before = bench.frames
    for at in range(0, len(body), 1480):
        part = body[at : at + 1480]
        flags = "MF" if at + 1480 < len(body) else 0
        fragment = IP(src="10.7.0.1", dst="10.7.0.2", id=77, proto=header[9], frag=at // 8, flags=flags) / Raw(part)
        bench.deliver(LINK / fragment)
    answers = bench.answers()
    assert len(answers) == 3 == bench.frames - before
    back = b"".join(bytes(a[IP].payload)[: a[IP].len - 20] for a in sorted(answers, key=lambda a: a[IP].frag))
    assert back[8:] == data
    assert bench.accounted() == bench.frames


def test_a_jumbo_frame_arrives_as_a_chain_and_leaves_as_one() -> None:
    bench = Bench(mtu=9000)
    with bench.environment:
        data = bytes(range(250)) * 32
        assert bench.deliver(udp4(data))
        bench.echo.step()
        (sent,) = bench.kernel.take_sent()
        assert len(sent.flags) == 3
        assert bytes(Ether(sent.data)[UDP].payload) == data


def test_a_flood_beyond_the_transmit_buffers_is_counted_not_crashed() -> None:
    bench = Bench(transmit_buffers=4)
    with bench.environment:
        for i in range(40):
            assert bench.deliver(udp4(bytes([i])))
        answers = bench.answers()
        lost = bench.environment.describe()["stack"].get("out_no_buffer", 0)
        assert len(answers) + lost == 40
        assert lost > 0
        assert bench.accounted() == bench.frames
        assert len(bench.ask(udp4(b"again"))) == 1


def test_a_peer_that_cannot_be_answered_is_counted_and_the_echo_lives_on(bench: Bench) -> None:
    assert bench.ask(udp4(b"nowhere", source=0)) == []
    far = LINK / IP(src="192.0.2.1", dst="10.7.0.2") / UDP(sport=5, dport=7) / Raw(b"no route")
    assert bench.ask(far) == []
    assert bench.echo.unanswered >= 1
    assert len(bench.ask(udp4(b"still here"))) == 1
    assert bench.accounted() == bench.frames


def test_r07_padding_is_not_echoed(bench: Bench) -> None:
    (answer,) = bench.ask(udp4(b"1"))
    assert answer[IP].len == 29 and answer[UDP].len == 9


def test_a_snapped_frame_is_dropped_as_snapped(bench: Bench) -> None:
    frame = bytes(udp4(bytes(500)))
    bench.kernel.deliver(frame[:96], wire_len=len(frame), flags=lib.EXO_F_SNAPPED)
    assert bench.answers() == []
    assert bench.kernel.libos.counters.drop[lib.EXO_R_STACK_SNAPPED - lib.EXO_R_STACK_FIRST] == 1
    assert bench.kernel.verdict(bench.kernel.kernel.receive_put.value - 1) == lib.EXO_R_STACK_SNAPPED


def test_r20_every_frame_gets_its_verdict_in_its_first_entry(bench: Bench) -> None:
    at = bench.kernel.kernel.receive_put.value
    long = LINK / IP(src="10.7.0.1", dst="10.7.0.2") / UDP(sport=1, dport=7) / Raw(bytes(4000))
    bench.deliver(udp4(b"x"))
    bench.deliver(long)
    bench.deliver(LINK / Dot1Q(vlan=9) / IP() / UDP())
    bench.kernel.write(99999, 0, 60, 60)
    bench.kernel.publish()
    bench.answers()
    verdicts = [bench.kernel.verdict(at + i) for i in (0, 1, 4, 5)]
    assert verdicts == [lib.EXO_R_DELIVERED, lib.EXO_R_DELIVERED, lib.EXO_R_STACK_VLAN, lib.EXO_R_STACK_UNACCOUNTED]


def test_no_buffer_posted_loses_frames_but_posts_again(bench: Bench) -> None:
    placed = sum(bench.deliver(udp4(b"x")) for _ in range(100))
    assert placed == 64
    assert len(bench.answers()) == 64
    assert bench.kernel.posted == 64


def test_a_frame_in_a_page_that_is_not_ours_is_unaccounted(bench: Bench) -> None:
    bench.kernel.write(99999, 0, 60, 60)
    bench.kernel.publish()
    bench.frames += 1
    assert bench.answers() == []
    assert bench.accounted() == bench.frames
    assert bench.kernel.libos.counters.drop[0] == 1


def test_sleep_until_the_stacks_deadline(bench: Bench) -> None:
    bench.environment.udp(99).sendto(b"x", ("10.7.0.77", 9))
    deadline = bench.echo.deadline()
    assert deadline is not None
    bench.gate.clock = deadline + 1
    assert bench.echo.step() is False
    assert bench.kernel.take_sent()
