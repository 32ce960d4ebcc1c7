# SPDX-License-Identifier: MIT
"""Both real halves: a machine in C on the virtual clock, and a LibOS with its stack on the rings."""

from typing import Any

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from exonet.abi import lib
from libos_stacks.environment import Environment
from libos_stacks.launch import build
from tests.fakes.gate import CONFIG
from tests.fakes.libos import Bench
from tests.fakes.machinegate import MachineGate
from tests.fakes.wire import ScriptWire

PEER, SELF = "02:00:00:00:00:99", "02:00:00:00:00:02"
ASK = ARP(op=1, hwsrc=PEER, psrc="10.7.0.1", pdst="10.7.0.2")


def udp(data: bytes) -> bytes:
    return bytes(Ether(src=PEER, dst=SELF) / IP(src="10.7.0.1", dst="10.7.0.2") / UDP(sport=5, dport=7) / Raw(data))


def run(frames: list[bytes], **config: Any) -> tuple[Bench, ScriptWire, Any]:
    """Gives the frames 1 ms apart to one LibOS; the bench must be closed."""
    wire = ScriptWire([(i * 1_000_000, frame) for i, frame in enumerate(frames)])
    bench = Bench()
    bench.attach(wire)
    gate = MachineGate(bench, CONFIG | {"bindings": ["dst host 10.7.0.2"]} | config)
    libos, close = build(gate)
    bench.run(step=lambda number: libos.step())
    counters = gate.env.libos.counters
    result = (counters.delivered, sum(counters.drop), counters.sent, counters.digest)
    close()
    return bench, wire, result


def test_echo_answers_arp_ping_and_datagrams_of_any_size() -> None:
    ping = bytes(Ether(src=PEER, dst=SELF) / IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(id=1, seq=2) / Raw(b"ping"))
    frames = [bytes(Ether(src=PEER, dst="ff:ff:ff:ff:ff:ff") / ASK), udp(b"small"), ping, udp(bytes(1400))]
    bench, wire, (delivered, dropped, sent, _) = run(frames)
    answers = [Ether(frame) for frame in wire.sent]
    assert answers[0][ARP].hwsrc == SELF
    assert answers[1][UDP].sport == 7 and bytes(answers[1][UDP].payload)[:5] == b"small"
    assert answers[2][ICMP].type == 0
    assert bytes(answers[3][UDP].payload) == bytes(1400)
    assert (delivered, dropped, sent) == (4, 0, 4)
    assert bench.drops() == {"delivered": 4, "sent": 4}
    bench.close()


def test_r20_the_machine_and_the_libos_agree_on_what_was_delivered() -> None:
    other = bytes(Ether(src=PEER, dst=SELF) / IP(src="10.7.0.1", dst="10.7.0.2", proto=200) / Raw(bytes(40)))
    frames = [udp(bytes([i])) for i in range(100)] + [other] * 5
    bench, _, (delivered, dropped, _, _) = run([bytes(Ether(src=PEER, dst=SELF) / ASK), *frames])
    fates = bench.drops()
    assert delivered == 101 == fates["delivered"]
    assert dropped == 5 == fates["stack.unhandled_proto"]
    assert sum(bench.in_flight()) == 0
    bench.close()


def test_the_sink_digests_what_was_on_the_wire() -> None:
    frames = [udp(bytes([i]) * i) for i in range(1, 200)]
    bench, _, (delivered, _, _, digest) = run(frames, libos="sink", receive_buffers=16)
    assert delivered == 199
    assert digest == sum(lib.exo_digest(frame, len(frame)) for frame in frames) & 0xFFFFFFFFFFFFFFFF
    bench.close()


def test_invariant_8_close_gives_every_page_back() -> None:
    bench = Bench()
    bench.attach(ScriptWire())
    gate = MachineGate(bench, dict(CONFIG))
    before = lib.exo_pages_free_count(gate.table)
    with Environment(gate):
        assert lib.exo_pages_free_count(gate.table) < before
    assert lib.exo_pages_free_count(gate.table) == before
    bench.close()
