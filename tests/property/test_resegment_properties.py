# SPDX-License-Identifier: MIT
"""The resegment wire against scapy: random super-segments and datagrams, whole and hostile."""

import random
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet, Raw

from exonet.abi import ffi
from exonet.errors import UsageError
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable
from exonet.wire.resegment import Resegment, ResegmentCounters

SHIFT = 43
TO = {"src": "02:00:00:00:00:99", "dst": "02:00:00:00:00:01"}
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2", id=0xFFFE, flags="DF"), IPv6(src="fd00::1", dst="fd00::2")


@pytest.fixture
def ends() -> Iterator[tuple[CableEnd, Resegment]]:
    far, near = cable()
    with far, Resegment(near) as wire:
        yield far, wire


def passed(ends: tuple[CableEnd, Resegment], *frames: Packet | bytes) -> list[bytes]:
    """What becomes of these, one after the other."""
    return [bytes(each.data) for each in given(ends, *frames)]


def given(ends: tuple[CableEnd, Resegment], *frames: Packet | bytes) -> list[burst.Received]:
    far, wire = ends
    found: list[burst.Received] = []
    for frame in frames:
        assert burst.send(far, [bytes(frame)], 0) == 1
        while burst.held(wire) or (burst.next_due(wire, 0) or 1) == 0:
            found += burst.receive(wire, 0, 7) or []
            assert len(found) < 100_000
    return found


def syn(mss: int | None, *, flags: str = "S", back: bool = False, v6: bool = False) -> Packet:
    options = [] if mss is None else [("NOP", None), ("MSS", mss)]
    ends = (("fd00::1", "fd00::2") if v6 else ("10.0.0.1", "10.0.0.2"))[:: -1 if back else 1]
    ports = (80, 7) if back else (7, 80)
    layer = IPv6(src=ends[0], dst=ends[1]) if v6 else IP(src=ends[0], dst=ends[1])
    return Ether(**TO) / layer / TCP(sport=ports[0], dport=ports[1], flags=flags, options=options)


def tcp_reference(frame: Packet, size: int) -> list[bytes]:
    """The frame cut at size bytes of payload, by scapy."""
    payload = bytes(frame[TCP].payload)
    count = (len(payload) + size - 1) // size
    found = []
    for number in range(count):
        one = frame.copy()
        one[TCP].remove_payload()
        one = one / Raw(payload[number * size : (number + 1) * size])
        flags = set(str(frame[TCP].flags))
        flags -= {"C"} if number else set()
        flags -= {"F", "P"} if number + 1 < count else set()
        one[TCP].flags = "".join(flags)
        one[TCP].seq = (frame[TCP].seq + number * size) % 2**32
        if IP in one:
            one[IP].id = (frame[IP].id + number) % 2**16
        found.append(bytes(one))
    return found


def random_tcp(pick: random.Random) -> tuple[Packet, int]:
    """A super-segment, and how many bytes of headers it has behind its Ethernet header, tags and session."""
    link = Ether(**TO)
    for vlan in range(pick.choice((0, 0, 1, 2))):
        link = link / Dot1Q(vlan=vlan + 3)
    session = pick.random() < 0.15
    v4 = pick.random() < 0.5
    if session:
        link = link / PPPoE(sessionid=9) / PPP(proto=0x21 if v4 else 0x57)
    ip: Packet = V4.copy()
    if v4:
        ip.options = pick.choice(([], [b"\x94\x04\x00\x00"]))
        ip.tos = pick.randrange(256)
    else:
        ip = V6.copy()
        for header in (
            IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
            IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)]),
        ):
            if pick.random() < 0.3:
                ip = ip / header
    options = pick.choice(([], [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]))
    segment = TCP(sport=7, dport=80, seq=pick.choice((5, 2**32 - 2000)), ack=9, options=options)
    segment.flags = "A" + "".join(flag for flag in "FPCEU" if pick.random() < 0.4)
    packet = bytes(ip / segment)
    return link / ip / segment / Raw(pick.randbytes(pick.randrange(1500, 60_000))), len(packet) + 8 * session


def test_super_segments_are_cut_as_scapy_would(ends: tuple[CableEnd, Resegment]) -> None:
    """At the MTU, byte by byte: every length, number, flag and checksum."""
    for seed in range(12):
        frame, headers = random_tcp(random.Random(seed))
        expected = tcp_reference(frame, 1500 - headers)
        assert passed(ends, frame) == expected, f"seed {seed}"
        assert max(map(len, expected)) <= 1500 + 14 + 8


@pytest.mark.parametrize("v6", [False, True])
def test_the_connection_s_segment_size_less_options(ends: tuple[CableEnd, Resegment], v6: bool) -> None:
    frame = syn(None, flags="PA", v6=v6)
    frame[TCP].options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    frame = frame / Raw(random.Random(1).randbytes(5000))
    begun = [syn(1300, v6=v6), syn(1200, flags="SA", back=True, v6=v6)]
    assert passed(ends, *begun, frame) == [*map(bytes, begun), *tcp_reference(frame, 1200 - 12)]
    back = syn(None, flags="A", back=True, v6=v6) / Raw(bytes(3000))
    assert passed(ends, back) == tcp_reference(back, 1200)
    assert passed(ends, syn(None, v6=v6), back)[1:] == tcp_reference(back, 1220 - 20 if v6 else 536)
    assert passed(ends, syn(1, v6=v6), frame)[1:] == tcp_reference(frame, 48 - 12)
    long = [syn(60_000, v6=v6), syn(60_000, flags="SA", back=True, v6=v6)]
    assert passed(ends, *long, back)[2:] == tcp_reference(back, 1440 if v6 else 1460), "never beyond the MTU"


def test_ids_times_and_counters(ends: tuple[CableEnd, Resegment]) -> None:
    frame = syn(None, flags="A") / Raw(bytes(4000))
    small = syn(None, flags="A") / Raw(bytes(1460))
    found = given(ends, small, frame, small)
    assert [each.id for each in found] == [0, 1, 1 + (1 << SHIFT), 1 + (2 << SHIFT), 2]
    assert {each.ts for each in found} == {0} and {each.wire_len - len(each.data) for each in found} == {0}
    wire = ends[1]
    assert wire.counters() == ResegmentCounters(packets=1, segments=3, snapped=0)
    told = wire.describe()
    assert (told["resegmented"], told["segments"], told["mtu"]) == (1, 3, 1500)
    assert (told["rx_frames"], told["rx_bytes"]) == (5, sum(len(each.data) for each in found))


def reassembled(parts: list[bytes]) -> tuple[bytes, list[Packet]]:
    """The payload of IP fragments in order, which must leave no gap, and the packets."""
    packets = [Ether(part) for part in parts]
    whole = b""
    for number, packet in enumerate(packets):
        last = number + 1 == len(packets)
        if IP in packet:
            assert (
                packet[IP].frag * 8 == len(whole) and bool(packet[IP].flags.MF) is not last and not packet[IP].flags.DF
            )
            checksum = packet[IP].chksum
            del packet[IP].chksum
            assert IP(bytes(packet[IP])).chksum == checksum
            data = bytes(packet[IP].payload)
        else:
            header = packet[IPv6ExtHdrFragment]
            assert header.offset * 8 == len(whole) and bool(header.m) is not last
            assert packet[IPv6].plen == len(bytes(packet[IPv6].payload))
            data = bytes(header.payload)
        assert last or len(data) % 8 == 0
        whole += data
    return whole, packets


@pytest.mark.parametrize("size", [1473, 1480, 9000, 65_000])
@pytest.mark.parametrize("tags", [0, 2])
def test_datagrams_become_fragments_of_ipv4(ends: tuple[CableEnd, Resegment], size: int, tags: int) -> None:
    link = Ether(**TO)
    for _ in range(tags):
        link = link / Dot1Q(vlan=5)
    datagram = UDP(sport=9, dport=53) / Raw(random.Random(size).randbytes(size))
    frame = Ether(bytes(link / V4 / datagram))
    expected = bytes(frame[UDP])
    frame[UDP].chksum = 0x1234
    whole, packets = reassembled(passed(ends, frame))
    assert whole == expected and {packet[IP].id for packet in packets} == {0xFFFE}
    assert {len(bytes(packet)) for packet in packets[:-1]} == {14 + 4 * tags + 1500}


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (IPv6ExtHdrHopByHop(),),
        (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0, addresses=["fd00::7"])),
        (IPv6ExtHdrRouting(segleft=0, addresses=["fd00::7"]), IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])),
    ],
    ids=["none", "hop by hop", "routing", "options behind routing"],
)
def test_datagrams_become_fragments_of_ipv6(ends: tuple[CableEnd, Resegment], headers: tuple[Packet, ...]) -> None:
    ip: Packet = V6.copy()
    for header in headers:
        ip = ip / header.copy()
    payload = random.Random(3).randbytes(9000)
    frame = Ether(bytes(Ether(**TO) / V6 / UDP(sport=9, dport=53) / Raw(payload)))
    datagram = bytes(frame[UDP])  # its checksum knows no extension header
    built = Ether(**TO) / ip / UDP(datagram)
    whole, packets = reassembled(passed(ends, built))
    assert whole.endswith(datagram) and all(len(bytes(packet)) <= 1514 for packet in packets)
    behind = bytes(headers[-1]) if headers and isinstance(headers[-1], IPv6ExtHdrDestOpt) else b""
    assert len(whole) == len(datagram) + len(behind)
    assert len({packet[IPv6ExtHdrFragment].id for packet in packets}) == 1
    assert packets[0][IPv6ExtHdrFragment].nh == (60 if behind else 17)


def test_a_length_of_0_is_the_captured_one(ends: tuple[CableEnd, Resegment]) -> None:
    for layer in (V4, V6):
        for payload in (b"short", bytes(range(256)) * 20):
            frame = Ether(bytes(Ether(**TO) / layer / TCP(sport=7, dport=80, flags="PA", seq=1) / Raw(payload)))
            size = 1500 - (40 if layer is V4 else 60)
            expected = tcp_reference(
                Ether(**TO) / layer / TCP(sport=7, dport=80, flags="PA", seq=1) / Raw(payload), size
            )
            if layer is V4:
                frame[IP].len = 0
            else:
                frame[IPv6].plen = 0
            frame[TCP].chksum = 0
            assert passed(ends, frame) == expected
        datagram = Ether(**TO) / layer / UDP(sport=9, dport=53) / Raw(b"question")
        expected = [bytes(datagram)]
        frame = Ether(expected[0])
        frame[UDP].len = frame[UDP].chksum = 0
        frame[layer.__class__].setfieldval("len" if layer is V4 else "plen", 0)
        assert passed(ends, frame) == expected


PASSES = [
    ("ICMP", Ether(**TO) / V4 / ICMP() / Raw(bytes(4000))),
    ("a fragment", Ether(**TO) / IP(flags="MF") / UDP() / Raw(bytes(4000))),
    ("not IP", Ether(**TO, type=0x88B5) / Raw(bytes(4000))),
    ("a header that lies", Ether(**TO) / IP(ihl=4) / TCP() / Raw(bytes(4000))),
    ("a TCP offset that lies", Ether(**TO) / V4 / TCP(dataofs=4) / Raw(bytes(4000))),
    ("a UDP length that lies", Ether(**TO) / V4 / UDP(len=99) / Raw(bytes(4000))),
    ("a SYN", Ether(**TO) / V4 / TCP(flags="S") / Raw(bytes(4000))),
    ("to be routed", Ether(**TO) / V6 / IPv6ExtHdrRouting(segleft=1, addresses=["fd00::7"]) / UDP() / Raw(bytes(4000))),
    ("a fragment of IPv6", Ether(**TO) / V6 / IPv6ExtHdrFragment(m=1) / UDP() / Raw(bytes(4000))),
    ("as long as the MTU", Ether(**TO) / V4 / TCP(flags="A") / Raw(bytes(1460))),
]


@pytest.mark.parametrize("frame", [row[1] for row in PASSES], ids=[row[0] for row in PASSES])
def test_all_else_passes(ends: tuple[CableEnd, Resegment], frame: Packet) -> None:
    assert passed(ends, frame) == [bytes(frame)] and ends[1].counters().packets == 0


def test_what_the_snaplen_cut_passes_and_is_counted(ends: tuple[CableEnd, Resegment]) -> None:
    far, wire = ends
    for frame in (syn(None, flags="A") / Raw(bytes(4000)), Ether(**TO) / V4 / UDP() / Raw(bytes(4000))):
        data = ffi.from_buffer(kept := bytes(frame)[:96])
        native = ffi.new("struct exo_frame *", {"data": data, "len": 96, "wire_len": len(frame)})
        far.native.send(far.native, native, 1, 0)
        (found,) = burst.receive(wire, 0) or []
        assert (found.data, found.wire_len) == (kept, len(frame))
    assert wire.counters() == ResegmentCounters(packets=0, segments=0, snapped=2)


def test_whatever_stands_in_it_balances(ends: tuple[CableEnd, Resegment]) -> None:
    """Bytes changed, cut and appended: what is not cut is as it was, and under ASan nothing is read past an end."""
    pick = random.Random(5)
    seeds = [bytes(row[1]) for row in PASSES] + [bytes(random_tcp(pick)[0]) for _ in range(4)]
    for _ in range(300):
        data = bytearray(pick.choice(seeds))
        for _ in range(pick.randrange(5)):
            data[pick.randrange(min(110, len(data)))] = pick.choice((0, 1, 44, 60, 255, pick.randrange(256)))
        data = data[: pick.choice((len(data), pick.randrange(1, len(data))))]
        before = ends[1].counters()
        found = passed(ends, bytes(data))
        cut = ends[1].counters().packets - before.packets
        assert len(found) == (ends[1].counters().segments - before.segments if cut else 1)
        assert cut or found == [bytes(data)]


def test_many_connections_take_no_more_room(ends: tuple[CableEnd, Resegment]) -> None:
    """A flood of SYNs makes older connections forgotten, and nothing else: what is not known is cut at the MTU."""
    far, wire = ends
    first = bytearray(bytes(syn(100)))
    frame = syn(None, flags="A") / Raw(bytes(3000))
    assert passed(ends, bytes(first), frame)[1:] == tcp_reference(frame, 100)
    for number in range(3_000):
        first[34:36] = (number & 0xFFFF).to_bytes(2, "big")
        first[26:28] = (number >> 8 & 0xFFFF).to_bytes(2, "big")
        burst.send(far, [bytes(first)], 0)
        burst.receive(wire, 0)
    assert sum(map(len, passed(ends, frame))) > 3000


@pytest.mark.parametrize("mtu", [67, 65522])
def test_an_mtu_out_of_range(mtu: int) -> None:
    far, near = cable()
    with far, near, pytest.raises(UsageError, match=rf"MTU {mtu}: must be 68..65521"):
        Resegment(near, mtu=mtu)


@pytest.mark.parametrize("mtu", [68, 127, 576, 9000, 65_521])
def test_every_mtu(mtu: int) -> None:
    far, near = cable()
    with far, Resegment(near, mtu=mtu) as wire:
        frame = (
            Ether(**TO)
            / V4
            / TCP(sport=7, dport=80, flags="PA")
            / Raw(random.Random(mtu).randbytes(65_481 if mtu > 500 else 3000))
        )
        assert passed((far, wire), frame) == tcp_reference(frame, mtu - 40)
