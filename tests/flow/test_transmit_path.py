# SPDX-License-Identifier: MIT
"""What may be sent (docs/rules.md, Sending): the transmit check on a copy, local switching, bad descriptors."""

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from exonet.abi import ffi, lib
from tests.fakes.frames import BROADCAST, HERE, HOST, HOST6, PEER, THERE, udp, udp6
from tests.fakes.libos import LOCAL4, LOCAL6, MAC, Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

OUT = {"src": HERE, "dst": THERE}


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.attach(ScriptWire(), promiscuous=0)
    yield bench
    bench.close()


def send(bench: Bench, data: bytes, *locals: dict[str, Any], **fields: int) -> tuple[list[bytes], dict[str, int]]:
    """One LibOS with these local sides sends one frame; what left, and the fates."""
    libos = FakeLibOS(bench)
    libos.locals(*locals)
    libos.transmit(data, **fields)
    bench.run()
    wire = bench.wires[0]
    assert isinstance(wire, ScriptWire)
    return wire.sent, bench.drops()


def test_r10_what_leaves_is_the_checked_copy(bench: Bench) -> None:
    """The wire is given kernel memory: changing the page afterwards changes nothing."""
    libos = FakeLibOS(bench)
    libos.locals(LOCAL4)
    frame = bytes(Ether(**OUT) / IP(src=HOST, dst=PEER) / Raw(b"payload" * 8))
    libos.transmit(frame, cookie=99)
    bench.run()
    libos.memory(libos.first + libos.pages - 1, 0, len(frame))[:] = bytes(len(frame))
    assert bench.wires[0].sent == [frame]  # type: ignore[attr-defined]
    assert libos.completions() == [(99, 0)]
    assert bench.drops() == {"sent": 1}


AS_ASKED = {"src": THERE, "dst": "02:00:00:00:00:77"}
EVERY_STATION = LOCAL4 | {"mac": bytes(6)}


@pytest.mark.parametrize(
    ("frame", "fate"),
    [
        (Ether(**AS_ASKED) / IP(src=HOST, dst=PEER) / ICMP(), "sent"),
        (Ether(**AS_ASKED) / ARP(op=2, hwsrc=THERE, psrc=HOST, hwdst=HERE, pdst=PEER), "sent"),
        (Ether(**AS_ASKED) / ARP(op=2, hwsrc=HERE, psrc=HOST, hwdst=HERE, pdst=PEER), "transmit.spoofed"),
        (Ether(**AS_ASKED) / IP(src=PEER, dst=HOST) / ICMP(), "transmit.spoofed"),
    ],
)
def test_r11_from_every_station_the_frame_must_agree_with_itself(bench: Bench, frame: Ether, fate: str) -> None:
    assert send(bench, bytes(frame).ljust(60, b"\0"), EVERY_STATION)[1] == {fate: 1}


ALLOWED = [
    ("ipv4", Ether(**OUT) / IP(src=HOST, dst=PEER) / ICMP()),
    ("ipv6", Ether(**OUT) / IPv6(src=HOST6, dst="fd00::9") / Raw(b"x")),
    ("vlan", Ether(**OUT) / Dot1Q(vlan=5) / IP(src=HOST, dst=PEER) / ICMP()),
    ("arp", Ether(**OUT) / ARP(op=2, hwsrc=HERE, psrc=HOST, hwdst=THERE, pdst=PEER)),
    ("arp probe", Ether(src=HERE, dst=BROADCAST) / ARP(op=1, hwsrc=HERE, psrc="0.0.0.0", pdst=HOST)),
    (
        "na",
        Ether(**OUT)
        / IPv6(src=HOST6, dst="fd00::9", hlim=255)
        / ICMPv6ND_NA(tgt=HOST6)
        / ICMPv6NDOptDstLLAddr(lladdr=HERE),
    ),
    (
        "ns",
        Ether(**OUT)
        / IPv6(src=HOST6, dst="fd00::9", hlim=255)
        / ICMPv6ND_NS(tgt="fd00::9")
        / ICMPv6NDOptSrcLLAddr(lladdr=HERE),
    ),
    ("dad", Ether(**OUT) / IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt=HOST6)),
]
SPOOFED = [
    ("mac", Ether(src=THERE, dst=HERE) / IP(src=HOST, dst=PEER) / ICMP()),
    ("ipv4", Ether(**OUT) / IP(src="10.0.0.2", dst=PEER) / ICMP()),
    ("ipv6", Ether(**OUT) / IPv6(src="fd00::2", dst="fd00::9")),
    ("vlan", Ether(**OUT) / Dot1Q(vlan=5) / IP(src="10.0.0.2", dst=PEER) / ICMP()),
    ("arp ip", Ether(**OUT) / ARP(op=2, hwsrc=HERE, psrc="10.0.0.2", pdst=PEER)),
    ("arp mac", Ether(**OUT) / ARP(op=2, hwsrc=THERE, psrc=HOST, pdst=PEER)),
    ("arp probe", Ether(**OUT) / ARP(op=1, hwsrc=HERE, psrc="0.0.0.0", pdst="10.0.0.2")),
    ("na target", Ether(**OUT) / IPv6(src=HOST6, dst="fd00::9") / ICMPv6ND_NA(tgt="fd00::2")),
    (
        "na option",
        Ether(**OUT) / IPv6(src=HOST6, dst="fd00::9") / ICMPv6ND_NA(tgt=HOST6) / ICMPv6NDOptDstLLAddr(lladdr=THERE),
    ),
    (
        "ns option",
        Ether(**OUT) / IPv6(src=HOST6, dst="fd00::9") / ICMPv6ND_NS(tgt="fd00::9") / ICMPv6NDOptSrcLLAddr(lladdr=THERE),
    ),
    ("dad of another", Ether(**OUT) / IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(tgt="fd00::2")),
    ("unspecified", Ether(**OUT) / IPv6(src="::", dst="fd00::9") / Raw(b"x")),
    ("router", Ether(**OUT) / IPv6(src=HOST6, dst="ff02::1", hlim=255) / ICMPv6ND_RA()),
    ("ethertype", Ether(**OUT, type=0x88CC) / Raw(b"lldp" * 12)),
    ("short ip", Ether(**OUT, type=0x0800) / Raw(b"\x45")),
    ("lying ihl", Ether(**OUT, type=0x0800) / Raw(b"\x4f" + bytes(19))),
]


@pytest.mark.parametrize("packet", [packet for _, packet in ALLOWED], ids=[name for name, _ in ALLOWED])
def test_r11_the_own_local_side_may_be_sent(bench: Bench, packet: Ether) -> None:
    sent, fates = send(bench, bytes(packet), LOCAL4, LOCAL6)
    assert sent == [bytes(packet)]
    assert fates == {"sent": 1}


@pytest.mark.parametrize("packet", [packet for _, packet in SPOOFED], ids=[name for name, _ in SPOOFED])
def test_r11_anything_else_is_spoofed(bench: Bench, packet: Ether) -> None:
    sent, fates = send(bench, bytes(packet), LOCAL4, LOCAL6)
    assert sent == []
    assert fates == {"transmit.spoofed": 1}


def test_r11_without_a_local_side_nothing_leaves(bench: Bench) -> None:
    sent, fates = send(bench, udp())
    assert (sent, fates) == ([], {"transmit.not_granted": 1})


@pytest.mark.parametrize(("sport", "fate"), [(1000, "sent"), (1999, "sent"), (999, "spoofed"), (2000, "spoofed")])
@pytest.mark.parametrize("version", [4, 6])
def test_r11_source_ports_stay_in_their_range(bench: Bench, version: int, sport: int, fate: str) -> None:
    side = (LOCAL4 if version == 4 else LOCAL6) | {"protocol": 17, "port_low": 1000, "port_high": 1999}
    l3 = {"src": HOST, "dst": PEER} if version == 4 else {"src": HOST6, "dst": "fd00::9"}
    packet = (udp if version == 4 else udp6)(sport=sport, **l3)
    _, fates = send(bench, bytes(Ether(**OUT, type=0x0800 if version == 4 else 0x86DD)) + packet[14:], side)
    assert list(fates) == ["sent" if fate == "sent" else "transmit.spoofed"]


def test_r08_environments_of_a_port_reach_each_other(bench: Bench) -> None:
    """Unicast to a local MAC turns round in the NIC; a group frame does both."""
    a, b = FakeLibOS(bench), FakeLibOS(bench)
    for libos, last in ((a, 1), (b, 2)):
        libos.bind(f"dst host 10.0.0.{last}")
        libos.locals(LOCAL4 | {"address": bytes([10, 0, 0, last]) + bytes(12)})
    frame = bytes(Ether(src=HERE, dst=HERE) / IP(src=HOST, dst="10.0.0.2") / Raw(b"hello" * 9))
    a.transmit(frame)
    bench.run()
    assert [received.data for received in b.receive()] == [frame]
    assert bench.wires[0].sent == []  # type: ignore[attr-defined]
    assert lib.exo_nic_counters(lib.exo_machine_nic(bench.native, 0)).switched == 1


def test_r08_a_switched_frame_s_fate_is_marked_so_that_no_wire_takes_it_for_its_own(bench: Bench) -> None:
    """It has its sender's number, which a frame of the wire may have too."""
    fates: list[tuple[int, bool]] = []
    told = ffi.callback(
        "void(struct exo_wire *, const struct exo_frame *, int32_t, uint32_t)",
        lambda wire, frame, reason, env: fates.append((reason, bool(frame.flags & lib.EXO_F_LOCAL))),
    )
    wire = ScriptWire([(5, bytes(Ether(src=THERE, dst=HERE) / IP(src=PEER, dst="10.0.0.2") / Raw(b"wire" * 12)))])
    wire.native.fate = told
    port = bench.attach(wire, promiscuous=0)
    a, b = FakeLibOS(bench), FakeLibOS(bench)
    b.bind("dst host 10.0.0.2", port)
    a.locals(LOCAL4 | {"port": port})
    frame = bytes(Ether(src=HERE, dst=HERE) / IP(src=HOST, dst="10.0.0.2") / Raw(b"hello" * 9))
    for _ in range(2):
        a.transmit(frame, port=port)
        bench.run()
    assert len(b.receive(2)) == 2
    bench.run()
    lib.exo_deliver_settle(bench.native, b.env)
    lib.exo_machine_env_kill(bench.native, b.number)
    assert sorted(fates) == [
        (lib.EXO_R_DELIVERED, False),
        (lib.EXO_R_DELIVERED, True),
        (lib.EXO_R_RING_ENV_DEAD, True),
    ]


def test_r08_a_group_frame_goes_out_and_to_the_others(bench: Bench) -> None:
    a, b = FakeLibOS(bench), FakeLibOS(bench)
    for libos, last in ((a, 1), (b, 2)):
        libos.bind(f"ip src host 10.0.0.{3 - last}")
        libos.subscribe(b"\xff" * 6)
        libos.locals(LOCAL4 | {"address": bytes([10, 0, 0, last]) + bytes(12)})
    frame = bytes(Ether(src=HERE, dst=BROADCAST) / IP(src=HOST, dst="10.0.0.255") / Raw(b"hello" * 9))
    a.transmit(frame)
    bench.run()
    assert [received.data for received in b.receive()] == [frame]
    assert a.receive() == []
    assert bench.wires[0].sent == [frame]  # type: ignore[attr-defined]
    lib.exo_machine_stepped(bench.native, b.number, 0)
    assert bench.drops() == {"delivered": 1, "sent": 1}


@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize(
    "packet",
    [IP(src=HOST, dst="10.0.0.255") / Raw(b"hello" * 9), ARP(op=2, hwsrc=HERE, psrc=HOST, pdst=HOST) / Raw(bytes(18))],
    ids=["group", "announcement"],
)
def test_r08_a_sender_gets_no_copy_of_what_its_own_filter_takes(bench: Bench, packet: Any, sender: int) -> None:
    """Be its filter the wider or the narrower one."""
    both = [FakeLibOS(bench), FakeLibOS(bench)]
    for libos, text in zip(both, ("ip or arp", f"ip src host {HOST} or arp src host {HOST}"), strict=True):
        libos.bind(text)
        libos.subscribe(b"\xff" * 6)
        libos.locals(LOCAL4)
    frame = bytes(Ether(src=HERE, dst=BROADCAST) / packet)
    both[sender].transmit(frame)
    bench.run()
    assert [[received.data for received in libos.receive()] for libos in both] == [
        [frame] * sender,
        [frame] * (1 - sender),
    ]
    assert bench.wires[0].sent == [frame] and bench.ledger.copies[lib.EXO_S_DEMUX] == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "fields",
    [
        {"page": 1 << 31, "length": 60},
        {"page": 0, "offset": 4090, "length": 60},
        {"page": 0, "length": 0},
        {"page": 0, "length": 60, "port": 9},
        {"page": 0, "length": 60, "gso_size": 1460},
        {"page": 200, "length": 60},
        {"page": 0, "length": 13},
    ],
)
def test_bad_descriptors_are_the_senders_loss(bench: Bench, fields: dict[str, int]) -> None:
    libos = FakeLibOS(bench)
    libos.locals(LOCAL4 | {"any": 1})
    libos.describe(**(fields | ({"page": libos.first} if fields["page"] == 0 else {})), cookie=5)
    bench.run()
    assert bench.drops() == {"transmit.bad_descriptor": 1}
    assert libos.completions() == [(5, -lib.EXO_R_TRANSMIT_BAD_DESCRIPTOR)]


def test_a_chain_is_one_frame(bench: Bench) -> None:
    libos = FakeLibOS(bench)
    libos.locals(LOCAL4)
    frame = bytes(Ether(**OUT) / IP(src=HOST, dst=PEER) / Raw(bytes(range(200))))
    libos.memory(libos.first, 0, 100)[:] = frame[:100]
    libos.memory(libos.first + 1, 50, len(frame) - 100)[:] = frame[100:]
    libos.describe(page=libos.first, length=100, flags=lib.EXO_F_MORE, cookie=1)
    bench.run()
    assert bench.drops() == {}
    libos.describe(page=libos.first + 1, offset=50, length=len(frame) - 100, cookie=2)
    bench.run()
    assert bench.wires[0].sent == [frame]  # type: ignore[attr-defined]
    assert libos.completions() == [(1, 0), (2, 0)]


def test_an_endless_chain_is_a_bad_descriptor(bench: Bench) -> None:
    libos = FakeLibOS(bench)
    libos.locals(LOCAL4 | {"any": 1})
    for _ in range(40):
        libos.describe(page=libos.first, length=100, flags=lib.EXO_F_MORE)
    bench.run()
    assert bench.drops() == {"transmit.bad_descriptor": 2}


def test_a_partial_checksum_is_finished_on_the_copy(bench: Bench) -> None:
    whole = Ether(**OUT) / IP(src=HOST, dst=PEER, proto=17) / Raw(bytes(8) + b"data")
    frame = bytearray(bytes(whole))
    sent, _ = send(bench, bytes(frame), LOCAL4, flags=lib.EXO_F_NEEDS_CSUM, csum_start=34, csum_offset=6)
    assert lib.exo_checksum(sent[0][34:], len(sent[0]) - 34, 0) == 0xFFFF


@pytest.mark.parametrize("at", range(6, 34, 2))
def test_r10_a_partial_checksum_is_checked_with_the_rest(bench: Bench, at: int) -> None:
    """The sum is written into the copy before the check: it can make no source of another's."""
    frame = bytes(Ether(**OUT) / IP(src=HOST, dst=PEER) / Raw(b"payload" * 4))
    sent, fates = send(bench, frame, LOCAL4, flags=lib.EXO_F_NEEDS_CSUM, csum_start=at, csum_offset=0)
    for data in sent:
        assert data[6:12] == MAC and data[12:14] == b"\x08\x00" and data[26:30] == bytes([10, 0, 0, 1])
    assert fates == ({"sent": 1} if sent else {"transmit.spoofed": 1})


def test_a_full_wire_is_counted() -> None:
    bench = Bench()
    bench.attach(ScriptWire(room=1))
    libos = FakeLibOS(bench)
    libos.locals(LOCAL4)
    frame = bytes(Ether(**OUT) / IP(src=HOST, dst=PEER) / ICMP())
    libos.transmit(frame)
    libos.transmit(frame)
    bench.run()
    assert bench.drops() == {"sent": 1, "transmit.wire_full": 1}
    bench.close()


def test_r11_each_frame_of_a_burst_has_its_own_fate(bench: Bench) -> None:
    """One look at the ring takes good frames, foreign ones, bad descriptors and chains for two ports, in any order."""
    port = bench.attach(ScriptWire(), promiscuous=0)
    libos = FakeLibOS(bench)
    second = LOCAL4 | {"address": bytes([10, 0, 9, 9]) + bytes(12), "port": port}
    libos.locals(LOCAL4, second)
    good = [bytes(Ether(**OUT) / IP(src=HOST, dst=PEER) / Raw(bytes([i]) * 40)) for i in range(4)]
    there = bytes(Ether(**OUT) / IP(src="10.0.9.9", dst=PEER) / Raw(b"there" * 8))
    spoofed, bad = -lib.EXO_R_TRANSMIT_SPOOFED, -lib.EXO_R_TRANSMIT_BAD_DESCRIPTOR
    plan = [(good[0], 0, 0), (there, 0, spoofed), (good[1], 0, 0), (good[2], port, spoofed), (there, port, 0)]
    plan += [(b"", 0, bad), (good[2], 0, 0), (there, port, 0), (good[3], 9, bad), (good[3], 0, 0), (there, 0, spoofed)]
    for cookie, (data, where, _) in enumerate(plan):
        page, offset = libos.first + cookie // 8, 512 * (cookie % 8)
        libos.memory(page, offset, len(data))[:] = data
        half = len(data) // 2
        if cookie % 2:
            libos.describe(page=page, offset=offset, length=half, port=where, flags=lib.EXO_F_MORE, cookie=cookie)
            libos.describe(page=page, offset=offset + half, length=len(data) - half, port=where, cookie=cookie)
        else:
            libos.describe(page=page, offset=offset, length=len(data), port=where, cookie=cookie)
    assert lib.exo_transmit_burst(bench.native, libos.env) == len(plan)
    told = [(cookie, status) for cookie, (_, _, status) in enumerate(plan) for _ in range(1 + cookie % 2)]
    assert libos.completions() == told
    assert [wire.sent for wire in bench.wires] == [good, [there, there]]  # type: ignore[attr-defined]
    assert bench.drops() == {"sent": 6, "transmit.spoofed": 3, "transmit.bad_descriptor": 2}
