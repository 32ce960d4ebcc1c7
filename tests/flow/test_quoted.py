# SPDX-License-Identifier: MIT
"""ICMP errors of a burst (R3): each goes to the owner of what it quotes, whoever is beside it."""

import random
import struct
from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from exonet.abi import lib
from tests.fakes.frames import HERE, HOST, HOST6, PEER, PEER6, THERE, arp_request, frag, tcp, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire
from tests.tags import PROVIDER, session, tagged

HEAD = Ether(dst=HERE, src=THERE)
WHOLE = b"q" * 12
TURNED = {  # what was sent from here, and the filter of who has its answers
    "udp": (IP(src=HOST, dst=PEER) / UDP(sport=1000, dport=9), "udp and dst port 1000"),
    "tcp": (IP(src=HOST, dst=PEER) / TCP(sport=1001, dport=80), "tcp and dst port 1001 and src port 80"),
    "udp with options": (
        IP(src=HOST, dst=PEER, options=b"\x01" * 40) / UDP(sport=1002, dport=9),
        "udp and dst port 1002",
    ),
    "echo": (IP(src=HOST, dst=PEER) / ICMP(type=8, id=77), "icmp[icmptype] = icmp-echoreply and icmp[4:2] = 77"),
    "udp6": (IPv6(src=HOST6, dst=PEER6) / UDP(sport=1003, dport=9), "ip6 and udp and dst port 1003"),
    "tcp6": (IPv6(src=HOST6, dst=PEER6) / TCP(sport=1004, dport=9), "ip6 and tcp and dst port 1004"),
    "echo6": (
        IPv6(src=HOST6, dst=PEER6) / ICMPv6EchoRequest(id=78),
        "ip6[6] = 58 and ip6[40] = 129 and ip6[44:2] = 78",
    ),
}


def error(quoted: Packet, cut: int | None = None) -> bytes:
    """That a router's hop limit was exceeded; of the quote only the first `cut` bytes."""
    text = (bytes(quoted) + WHOLE)[:cut]
    if IPv6 in quoted:
        return bytes(HEAD / IPv6(src="fd00::fe", dst=HOST6) / ICMPv6TimeExceeded() / text)
    return bytes(HEAD / IP(src="10.0.0.254", dst=HOST) / ICMP(type=11) / text)


def in_vlan(text: str, vlan: int) -> str:
    """A filter whose offsets are those behind a tag."""
    return f"vlan {vlan} and {text}"


def mixed() -> list[tuple[bytes, str | None]]:
    """Frames, and the filter whose owner gets each. None: nobody."""
    frames: list[tuple[bytes, str | None]] = [
        (udp(dport=53), "udp dst port 53"),
        (tcp(dport=81), None),
        (frag(0), "udp dst port 53"),
        (frag(1), "udp dst port 53"),
    ]
    for quoted, text in TURNED.values():
        whole = len(quoted[0]) - len(quoted[0].payload) + 8
        frames.append((error(quoted), text))
        frames.append((error(quoted, whole), text))
        frames.append((error(quoted, whole - 1), None))
        frames.append((tagged(error(quoted), 5), in_vlan(text, 5)))
        frames.append((tagged(error(quoted), 6), None))
        frames.append((tagged(error(quoted), 5, kind=PROVIDER)[: 80 + len(quoted)], in_vlan(text, 5)))
    frames.append((error(IP(src=HOST, dst="10.0.0.98") / UDP(sport=999, dport=9)), None))
    frames.append((error(IP(src=HOST, dst=PEER) / ICMP(type=13, id=77)), None))
    frames.append((session(error(TURNED["udp"][0]), 3), "pppoes 3 and udp and dst port 1000"))
    frames.append((session(error(TURNED["udp6"][0]), 3), "pppoes 3 and ip6 and udp and dst port 1003"))
    frames.append((session(error(TURNED["udp"][0]), 4), None))
    return frames


def delivered(sent: Sequence[tuple[int, bytes]], texts: Sequence[str]) -> dict[str, list[bytes]]:
    """On the monotonic clock: all that is due comes in bursts of 64."""
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC, pages=2048)
    wire = ScriptWire(sent)
    bench.attach(wire, descriptors=256)
    liboses = {text: FakeLibOS(bench, entries=256, pages=64) for text in texts}
    for text, libos in liboses.items():
        libos.bind(text)
    while wire.at < len(sent) or any(bench.in_flight()[: lib.EXO_S_RING]):
        lib.exo_machine_run(bench.native, lib.exo_now(bench.native) + 100_000)
    got = {text: [frame.data[: frame.wire_len] for frame in libos.receive()] for text, libos in liboses.items()}
    lost = len(sent) - sum(map(len, got.values()))
    assert bench.drops() == ({"demux.no_match": lost} if lost else {})
    bench.close()
    return got


def test_r03_errors_of_a_mixed_burst_go_each_to_the_owner_of_its_quote() -> None:
    """The same outcome whatever the order, and as if each were alone."""
    frames = mixed()
    texts = sorted({text for _, text in frames if text})
    for seed in range(2):
        pick = random.Random(seed)
        order = [*frames, *frames[4:]]
        pick.shuffle(order)
        order.sort(key=lambda each: each[0] == frag(1))
        together = delivered([(0, frame) for frame, _ in order], texts)
        assert together == {text: [frame for frame, owner in order if owner == text] for text in texts}
    for frame, owner in frames[:2] + frames[4:]:  # of the fragments, the second follows the first
        alone = delivered([(0, frame)], texts)
        assert alone == {text: [frame] if text == owner else [] for text in texts}


def test_r03_a_full_burst_of_errors() -> None:
    errors = [error(IP(src=HOST, dst=PEER) / UDP(sport=2000 + k % 2, dport=9)) for k in range(2 * lib.EXO_BURST)]
    got = delivered([(0, frame) for frame in errors], ["udp dst port 2000", "udp dst port 2001"])
    assert [*got.values()] == [errors[::2], errors[1::2]]


def test_r03_an_error_keeps_its_own_owner_where_its_quote_has_none() -> None:
    stray = error(IP(src=HOST, dst=PEER) / UDP(sport=3000, dport=9))
    ours = error(IP(src=HOST, dst=PEER) / UDP(sport=2000, dport=9))
    got = delivered([(0, stray), (0, ours), (0, stray)], ["icmp", "udp dst port 2000"])
    assert [*got.values()] == [[stray, stray], [ours]]


def sent_from(family: int, protocol: int, sport: int, dport: int) -> Packet:
    """A packet of a transport that begins with its ports."""
    head = IPv6(src=HOST6, dst=PEER6, nh=protocol) if family == 6 else IP(src=HOST, dst=PEER, proto=protocol)
    return head / Raw(struct.pack(">HHI", sport, dport, 0))


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
@pytest.mark.parametrize("family", [4, 6])
def test_r03_whatever_transport_an_error_quotes_its_sender_gets_it(family: int, protocol: int) -> None:
    """TCP, UDP, DCCP, SCTP, UDP-Lite: not who owns the port that it was sent to."""
    at = "ip6[42:2]" if family == 6 else "ip[22:2]"
    head = f"ip6[6] = {protocol}" if family == 6 else f"ip[9] = {protocol} and ip[0] = 0x45"
    sender, other = (f"{head} and {at} = {port}" for port in (5000, 6000))
    ours = error(sent_from(family, protocol, 5000, 6000))
    assert delivered([(0, ours)], [sender, other]) == {sender: [ours], other: []}


@pytest.mark.parametrize("text", ["udp and dst port 1000", "tcp and dst port 1000", "icmp[0] = 0"])
def test_r03_an_error_that_quotes_a_later_fragment_quotes_no_port(text: str) -> None:
    """What it has of the packet is payload: the error goes to its own owner."""
    protocol = {"udp": 17, "tcp": 6, "icmp": 1}[text[:4].rstrip("[ ")]
    start = b"\x08\0" if protocol == 1 else struct.pack(">H", 1000)
    quote = error(IP(src=HOST, dst=PEER, frag=100, proto=protocol) / Raw(start + bytes(10)))
    assert delivered([(0, quote)], [text, "icmp[0] = 11"]) == {text: [], "icmp[0] = 11": [quote]}


def test_r03_an_error_that_quotes_a_later_fragment_of_ip6_is_its_own_owners() -> None:
    texts = ["ip6[6] = 44 and ip6[40] = 17", "ip6[6] = 58"]
    later = IPv6(src=HOST6, dst=PEER6) / IPv6ExtHdrFragment(nh=17, offset=100) / Raw(struct.pack(">HHI", 1000, 9, 0))
    first = IPv6(src=HOST6, dst=PEER6) / IPv6ExtHdrFragment(nh=17, m=1) / Raw(struct.pack(">HHI", 1000, 9, 0))
    sent = [error(first), error(later)]
    assert delivered([(0, frame) for frame in sent], texts) == {texts[0]: sent[:1], texts[1]: sent[1:]}


def test_r02_r03_an_error_to_a_group_is_a_group_frame() -> None:
    ours = error(IP(src=HOST, dst=PEER) / UDP(sport=2000, dport=9))
    bench = Bench()
    bench.attach(ScriptWire([(0, b"\xff" * 6 + ours[6:]), (0, arp_request("10.0.0.77"))]))
    libos = FakeLibOS(bench)
    libos.bind("udp dst port 2000")
    libos.subscribe()
    bench.run()
    assert not libos.receive()
    assert bench.drops() == {"demux.no_subscriber": 1, "demux.no_neighbour": 1}
    bench.close()
