# SPDX-License-Identifier: MIT
"""Super-frames (R12): checked once, cut as virtio-net says, and what is none refused. scapy is the oracle."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet, Raw

from exonet.abi import lib
from tests.fakes.frames import HERE, HOST, HOST6, PEER, THERE
from tests.fakes.libos import LOCAL4, LOCAL6, MAC, Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

OUT = {"src": HERE, "dst": THERE}
TCP4, TCP6, UDP_L4, ECN = 1, 4, 5, 128
V4, V6 = IP(src=HOST, dst=PEER, id=0xFFFE, ttl=9), IPv6(src=HOST6, dst="fd00::9", hlim=9)
SEGMENT = TCP(sport=7, dport=80, seq=0xFFFFFF00, ack=5, flags="FPAC", options=[("Timestamp", (1, 2))])


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.attach(ScriptWire(), promiscuous=0)
    yield bench
    bench.close()


def post(libos: FakeLibOS, data: bytes, **fields: int) -> None:
    """A frame in as many pieces as it takes pages."""
    for at in range(0, len(data), 4096):
        part, page = data[at : at + 4096], libos.first + at // 4096
        libos.memory(page, 0, len(part))[:] = part
        more = lib.EXO_F_MORE if at + 4096 < len(data) else 0
        libos.describe(page=page, length=len(part), cookie=at, **({"flags": more} | (fields if not at else {})))


def send(bench: Bench, frame: Packet | bytes, *rows: dict[str, Any], **fields: int) -> tuple[list[bytes], FakeLibOS]:
    libos = FakeLibOS(bench, pages=20)
    libos.locals(*rows or (LOCAL4, LOCAL6))
    post(libos, bytes(frame), **fields)
    bench.run()
    wire = bench.wires[0]
    assert isinstance(wire, ScriptWire)
    return wire.sent, libos


def balanced(bench: Bench) -> int:
    """How many frames came to the transmit stage; with their copies, as many have ends."""
    ledger, stage = bench.ledger, lib.EXO_S_TRANSMIT
    came = int(getattr(ledger, "in")[stage])
    lost = sum(count for name, count in bench.drops().items() if name.startswith("transmit."))
    assert came + ledger.copies[stage] == ledger.out[stage] + lost
    return came


def cut(frame: Packet, size: int) -> list[bytes]:
    """What it should be cut into, by scapy."""
    whole = frame.copy()
    payload = bytes(whole[Raw])
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    found = []
    for number, part in enumerate(parts):
        one = whole.copy()
        one[Raw].load = part
        if IP in one:
            one[IP].id = (whole[IP].id + number) & 0xFFFF
        if TCP in one:
            one[TCP].seq = (whole[TCP].seq + number * size) & 0xFFFFFFFF
            flags = str(whole[TCP].flags)
            if number:
                flags = flags.replace("C", "")
            if number + 1 < len(parts):
                flags = flags.replace("F", "").replace("P", "")
            one[TCP].flags = flags
        found.append(bytes(one))
    return found


@pytest.mark.parametrize("size", [500, 536, 1000, 1399, 1400, 1401])
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (Ether(**OUT) / V4 / SEGMENT, TCP4),
        (Ether(**OUT) / V4 / SEGMENT, TCP4 | ECN),
        (Ether(**OUT) / V6 / SEGMENT, TCP6),
        (Ether(**OUT) / V4 / UDP(sport=7, dport=9), UDP_L4),
        (Ether(**OUT) / V6 / UDP(sport=7, dport=9), UDP_L4),
        (Ether(**OUT) / Dot1Q(vlan=0, prio=3) / V4 / UDP(sport=7, dport=9), UDP_L4),
        (Ether(**OUT) / Dot1Q(vlan=0) / V6 / SEGMENT, TCP6),
    ],
)
def test_r12_segments_are_as_scapy_would_make_them(bench: Bench, headers: Packet, kind: int, size: int) -> None:
    frame = headers / Raw(random.Random(size).randbytes(1400))
    sent, libos = send(bench, frame, gso_size=size, gso_type=kind)
    assert sent == cut(frame, size)
    assert bench.drops() == {"sent": len(sent)} and libos.completions() == [(0, 0)]
    assert balanced(bench) == 1


def test_r12_of_64_kib(bench: Bench) -> None:
    frame = Ether(**OUT) / V4 / SEGMENT / Raw(random.Random(1).randbytes(65_535 - 20 - 32))
    sent, libos = send(bench, frame, gso_size=1448, gso_type=TCP4)
    assert sent == cut(frame, 1448) and len(sent) == 46
    assert [status for _, status in libos.completions()] == [0] * 17


def test_r12_segments_inherit_the_verdict(bench: Bench) -> None:
    """Of the sender's own addresses or not: one fate for all of it, and none of it leaves."""
    frame = Ether(**OUT) / IP(src=PEER, dst=HOST) / UDP(sport=7, dport=9) / Raw(bytes(1400))
    sent, libos = send(bench, frame, gso_size=500, gso_type=UDP_L4)
    assert (sent, bench.drops()) == ([], {"transmit.spoofed": 1})
    assert libos.completions() == [(0, -lib.EXO_R_TRANSMIT_SPOOFED)]


def test_r12_is_checked_once(bench: Bench) -> None:
    """A range of ports that allows the super-frame allows its segments, and between others all keep their order."""
    libos = FakeLibOS(bench, pages=20)
    libos.locals(LOCAL4 | {"protocol": 17, "port_low": 7, "port_high": 7})
    single = Ether(**OUT) / IP(src=HOST, dst=PEER) / UDP(sport=7, dport=9) / Raw(b"single")
    frame = Ether(**OUT) / V4 / UDP(sport=7, dport=9) / Raw(bytes(range(200)) * 6)
    libos.transmit(bytes(single))
    post(libos, bytes(frame), gso_size=500, gso_type=UDP_L4)
    libos.transmit(bytes(single))
    bench.run()
    wire = bench.wires[0]
    assert isinstance(wire, ScriptWire)
    assert wire.sent == [bytes(single), *cut(frame, 500), bytes(single)]


def test_segments_are_switched_to_the_port_s_own(bench: Bench) -> None:
    lib.exo_nic_filter_add(lib.exo_machine_nic(bench.native, 0), MAC)
    receiver = FakeLibOS(bench)
    receiver.bind("udp dst port 9")
    frame = Ether(src=HERE, dst=HERE) / V4 / UDP(sport=7, dport=9) / Raw(bytes(1200))
    sent, _ = send(bench, frame, gso_size=500, gso_type=UDP_L4)
    assert sent == [] and [received.data for received in receiver.receive()] == cut(frame, 500)
    lib.exo_deliver_settle(bench.native, receiver.env)
    assert bench.drops() == {"delivered": 3}


def test_a_wire_that_takes_some() -> None:
    bench = Bench()
    bench.attach(ScriptWire(room=1))
    send(bench, Ether(**OUT) / V4 / UDP() / Raw(bytes(1400)), LOCAL4, gso_size=500, gso_type=UDP_L4)
    assert bench.drops() == {"sent": 1, "transmit.wire_full": 2}
    bench.close()


WHOLE = Ether(**OUT) / V4 / UDP(sport=7, dport=9) / Raw(bytes(1400))
BAD = [
    ("no transport", Ether(**OUT) / V4 / ICMP() / Raw(bytes(1400)), UDP_L4),
    ("another kind", WHOLE, TCP4),
    ("no kind", WHOLE, 0),
    ("an unknown kind", WHOLE, 3),
    ("the other family", Ether(**OUT) / V6 / SEGMENT / Raw(bytes(900)), TCP4),
    ("a fragment", Ether(**OUT) / IP(src=HOST, dst=PEER, flags="MF") / UDP() / Raw(bytes(1400)), UDP_L4),
    ("a later fragment", Ether(**OUT) / IP(src=HOST, dst=PEER, frag=5) / UDP() / Raw(bytes(1400)), UDP_L4),
    ("too long a length", Ether(**OUT) / IP(src=HOST, dst=PEER, len=2000) / UDP() / Raw(bytes(1400)), UDP_L4),
    ("too short a length", Ether(**OUT) / IP(src=HOST, dst=PEER, len=900) / UDP() / Raw(bytes(1400)), UDP_L4),
    ("a lying IHL", Ether(**OUT) / IP(src=HOST, dst=PEER, ihl=4) / UDP() / Raw(bytes(1400)), UDP_L4),
    ("IPv6's length", Ether(**OUT) / IPv6(src=HOST6, plen=9) / UDP() / Raw(bytes(1400)), UDP_L4),
    ("a lying offset", Ether(**OUT) / V4 / TCP(dataofs=4) / Raw(bytes(1400)), TCP4),
    ("an extension header", Ether(**OUT) / V6 / IPv6ExtHdrHopByHop() / UDP() / Raw(bytes(1400)), UDP_L4),
    ("a session", Ether(**OUT) / PPPoE(sessionid=1) / PPP(proto=0x21) / V4 / UDP() / Raw(bytes(1400)), UDP_L4),
    ("no payload", Ether(**OUT) / V4 / UDP(), UDP_L4),
]


@pytest.mark.parametrize(("frame", "kind"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_super_frame_is_a_bad_descriptor(bench: Bench, frame: Packet, kind: int) -> None:
    sent, libos = send(bench, frame, gso_size=500, gso_type=kind)
    assert (sent, bench.drops()) == ([], {"transmit.bad_descriptor": 1})
    assert {status for _, status in libos.completions()} == {-lib.EXO_R_TRANSMIT_BAD_DESCRIPTOR}


def test_too_many_and_too_long_segments(bench: Bench) -> None:
    for size, fate in ((1, "bad_descriptor"), (10, "bad_descriptor"), (11, None), (1300, None)):
        sent, _ = send(bench, WHOLE, gso_size=size, gso_type=UDP_L4)
        assert bool(sent) == (fate is None), size
        sent.clear()
    frame = Ether(**OUT) / V4 / UDP() / Raw(bytes(20000))
    assert send(bench, frame, gso_size=9900, gso_type=UDP_L4)[0] == []
    assert bench.drops()["transmit.too_long"] == 1


def test_whatever_stands_in_it_is_sent_or_counted(bench: Bench) -> None:
    """Bytes changed, cut and appended: under ASan nothing is read past an end."""
    pick, count = random.Random(3), 400
    frames = [bytes(row[1]) for row in BAD] + [bytes(Ether(**OUT) / V6 / SEGMENT / Raw(bytes(900)))]
    libos = FakeLibOS(bench, pages=20)
    libos.locals({"mac": MAC, "any": 1})
    for _ in range(count):
        data = bytearray(pick.choice(frames))
        for _ in range(pick.randrange(4)):
            data[pick.randrange(min(80, len(data)))] = pick.randrange(256)
        data = data[: pick.choice((len(data), pick.randrange(14, len(data))))]
        libos.transmit(bytes(data), gso_size=pick.choice((1, 9, 100, 500, 65535)), gso_type=pick.choice((1, 4, 5, 129)))
        bench.run()
        libos.completions()
    assert balanced(bench) == count
