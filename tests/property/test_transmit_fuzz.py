# SPDX-License-Identifier: MIT
"""The transmit template against a reference of its own in scapy: no frame that passes may carry a foreign source."""

import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from exonet.abi import check, ffi, lib
from tests.effort import tries
from tests.localside_reference import lets

OWN, ALIEN = "02:00:00:00:00:01", "02:00:00:00:00:66"
NET4, NET6 = IPv4Network("10.0.0.4/30"), IPv6Network("fd00::4/126")
SOURCES4 = ["10.0.0.4", "10.0.0.7", "10.0.0.8", "10.0.0.3", "0.0.0.0", "127.0.0.1", "255.255.255.255"]
SOURCES6 = ["fd00::4", "fd00::7", "fd00::8", "fd00::3", "::", "::1", "ff02::1", "fd10::4"]
LOW, HIGH = 1000, 1999
PORTS = [0, 999, 1000, 1500, 1999, 2000, 65535]
ROUNDS = tries(400)


def side(family: int, **more: Any) -> dict[str, Any]:
    address = NET4.network_address.packed + bytes(12) if family == 4 else NET6.network_address.packed
    prefix = NET4.prefixlen if family == 4 else NET6.prefixlen
    mac = bytes.fromhex(OWN.replace(":", ""))
    return {"mac": mac, "family": family, "address": address, "prefix": prefix, "port_high": 65535} | more


NARROW = {"protocol": 17, "port_low": LOW, "port_high": HIGH}
SETS = {
    "whole": [side(4), side(6)],
    "ports": [side(4, **NARROW), side(6, **NARROW)],
    "echo only": [
        side(4, protocol=1, port_low=LOW, port_high=HIGH),
        side(6, protocol=58, port_low=LOW, port_high=HIGH),
    ],
    "four": [side(4)],
    "six": [side(6)],
}


@pytest.fixture
def verdict() -> Iterator[Any]:
    """verdict(locals, frame bytes, port) -> 0 or the reason."""
    env = ffi.new("struct exo_env *")
    installed: list[Any] = [None]

    def ask(rows: list[dict[str, Any]], data: bytes, port: int = 0) -> int:
        if installed[0] is not rows:
            check(lib.exo_env_locals(env, rows, len(rows), 7), "local sides")
            installed[0] = rows
        held = ffi.new("uint8_t[]", len(data))
        ffi.memmove(held, data, len(data))
        frame = ffi.new("struct exo_frame *", {"data": held, "len": len(data), "wire_len": len(data), "port": port})
        reason = ffi.new("int32_t *")
        lib.exo_transmit_check(env, frame, 1, reason)
        return reason[0]

    yield ask
    check(lib.exo_env_locals(env, ffi.NULL, 0, 0), "no local sides")


def own4(text: str) -> bool:
    return IPv4Address(text) in NET4


def own6(text: str) -> bool:
    return IPv6Address(text) in NET6


def foreign(packet: Packet, families: set[int]) -> str:
    """What in this frame belongs to somebody else, by scapy's reading of it; "": nothing that scapy can see."""
    if packet[Ether].src != OWN:
        return "source MAC"
    if ARP in packet:
        arp = packet[ARP]
        probe = arp.psrc == "0.0.0.0" and arp.op == 1 and own4(arp.pdst)
        if arp.hwsrc != OWN or not (own4(arp.psrc) or probe) or 4 not in families:
            return "ARP sender"
    elif IP in packet:
        if not own4(packet[IP].src) or 4 not in families:
            return "IPv4 source"
    elif IPv6 in packet:
        return foreign6(packet, families)
    else:
        return "neither ARP nor IP"
    return ""


def foreign6(packet: Packet, families: set[int]) -> str:
    none = packet[IPv6].src == "::"
    discovery = (ICMPv6ND_NS, ICMPv6ND_NA, ICMPv6ND_RS, ICMPv6ND_RA, ICMPv6ND_Redirect)
    if IPv6ExtHdrFragment in packet and any(kind in packet for kind in discovery):
        return "neighbour discovery in fragments"
    layer = packet.getlayer(IPv6ExtHdrFragment)
    while layer:
        if layer.offset and layer.nh in (0, 43, 44, 51, 60):
            return "a later fragment of who knows what"
        layer = layer.payload.getlayer(IPv6ExtHdrFragment)
    silent = any(kind in packet for kind in (ICMPv6ND_NS, ICMPv6ND_RS, ICMPv6MLReport2))
    if 6 not in families or not (own6(packet[IPv6].src) or (none and silent)):
        return "IPv6 source"
    if ICMPv6ND_RA in packet or ICMPv6ND_Redirect in packet:
        return "router's message"
    for kind in (ICMPv6ND_NA, ICMPv6ND_NS):
        if kind in packet and (kind is ICMPv6ND_NA or none) and not own6(packet[kind].tgt):
            return "ND target"
    for option in (ICMPv6NDOptSrcLLAddr, ICMPv6NDOptDstLLAddr):
        if option in packet and packet[option].lladdr != OWN:
            return "ND link-layer address"
    return ""


def random_arp(pick: random.Random) -> Packet:
    return ARP(
        op=pick.choice([1, 2]),
        hwsrc=pick.choice([OWN, OWN, ALIEN]),
        psrc=pick.choice(SOURCES4),
        pdst=pick.choice(SOURCES4),
    )


def random_upper(pick: random.Random) -> Packet:
    kind = pick.choice([UDP, TCP, SCTP, None])
    if kind is None:
        return ICMP(type=pick.choice([0, 3, 8]), id=pick.choice(PORTS)) / Raw(bytes(4))
    return kind(sport=pick.choice(PORTS), dport=7) / Raw(bytes(pick.randrange(20)))


def random4(pick: random.Random) -> Packet:
    options = [] if pick.random() < 0.7 else [b"\x01" * 4]
    header = IP(src=pick.choice(SOURCES4), dst="10.0.0.99", options=options, frag=pick.choice([0, 0, 0, 5]))
    return header / random_upper(pick)


def random6(pick: random.Random) -> Packet:
    packet: Packet = IPv6(src=pick.choice(SOURCES6), dst="fd00::99", hlim=255)
    for _ in range(pick.choice([0, 0, 0, 1, 2])):
        fragment = IPv6ExtHdrFragment(offset=pick.choice([0, 0, 1]), m=pick.choice([0, 1, 1]))
        packet = packet / pick.choice([IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), fragment])
    target, lladdr = pick.choice(SOURCES6), pick.choice([OWN, OWN, ALIEN])
    uppers = [
        ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=lladdr),
        ICMPv6ND_NS(tgt=target),
        ICMPv6ND_NA(tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=lladdr),
        ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=lladdr),
        ICMPv6ND_RA(),
        ICMPv6ND_Redirect(),
        ICMPv6MLReport2(),
        ICMPv6EchoRequest(id=pick.choice(PORTS)),
        random_upper(pick),
        random_upper(pick),
    ]
    return packet / pick.choice(uppers)


def random_frame(pick: random.Random) -> bytes:
    packet: Packet = Ether(src=pick.choice([OWN] * 5 + [ALIEN]), dst="02:00:00:00:00:99")
    for _ in range(pick.choice([0, 0, 0, 0, 1, 2])):
        packet = packet / pick.choice([Dot1Q(vlan=7), Dot1AD(vlan=8)])
    return bytes(packet / pick.choice([random_arp, random4, random6])(pick))


def mutated(data: bytes, pick: random.Random) -> bytes:
    """A frame with a few octets changed, or cut short."""
    out = bytearray(data)
    for _ in range(pick.choice([0, 0, 0, 1, 2, 4])):
        out[pick.randrange(12, len(out))] = pick.choice([0, 1, 0xFF, pick.randrange(256)])
    return bytes(out[: pick.randrange(14, len(out) + 1)] if pick.random() < 0.1 else out)


@pytest.mark.parametrize("name", SETS)
def test_invariant_2_no_frame_with_a_foreign_source_passes(name: str, verdict: Any) -> None:
    """Structured frames, and mutations of them; what passes is read again by scapy, which has no template."""
    pick = random.Random(f"template {name}")
    families = {row["family"] for row in SETS[name]}
    passed = 0
    for _ in range(ROUNDS):
        data = mutated(random_frame(pick), pick)
        if verdict(SETS[name], data) != 0:
            continue
        passed += 1
        packet = Ether(data)
        assert not (reason := foreign(packet, families)), f"{reason}: {packet!r}"
        if name in ("ports", "echo only") and IP in packet and ICMP not in packet:
            assert packet[IP].proto == 17 and LOW <= packet[UDP].sport <= HIGH, repr(packet)
    assert passed > ROUNDS // 200, "the corpus must hold frames that pass"


def test_r11_own_frames_pass_whatever_they_carry(verdict: Any) -> None:
    """The other direction: what scapy finds nothing foreign in, unmutated and without an odd header, is let through."""
    pick, passed = random.Random(11), 0
    for _ in range(ROUNDS):
        data = random_frame(pick)
        packet = Ether(data)
        if not foreign(packet, {4, 6}):
            assert verdict(SETS["whole"], data) == 0, repr(packet)
            passed += 1
    assert passed > ROUNDS // 20


def test_invariant_5_no_frame_makes_the_template_read_past_it(verdict: Any) -> None:
    """Every truncation of every kind of frame; under AddressSanitizer this is a proof, else a smoke test."""
    pick = random.Random(5)
    for _ in range(60):
        data = random_frame(pick)
        for length in range(len(data)):
            assert verdict(SETS["ports"], data[:length]) >= 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"port": 1}, "EXO_R_TRANSMIT_NOT_GRANTED"),
        ({"family": 0, "ethertype": 0x88CC}, None),
        ({"family": 0, "ethertype": 0x88CD}, "EXO_R_TRANSMIT_SPOOFED"),
        ({"family": 0}, None),
        ({"any": 1, "mac": bytes(6)}, None),
    ],
)
def test_r11_a_side_may_be_an_ethertype_or_anything(row: dict[str, Any], reason: str | None, verdict: Any) -> None:
    data = bytes(Ether(src=OWN, dst=ALIEN, type=0x88CC) / Raw(bytes(46)))
    assert verdict([side(4) | row], data) == (getattr(lib, reason) if reason else 0)


LONG = IPv6ExtHdrDestOpt()


@pytest.mark.parametrize(
    ("packet", "passes"),
    [
        (IPv6ExtHdrHopByHop() / LONG / UDP(sport=1500), True),
        (IPv6ExtHdrHopByHop() / LONG / UDP(sport=2500), False),
        (IPv6ExtHdrFragment(offset=0, m=1) / UDP(sport=1500), True),
        (IPv6ExtHdrFragment(offset=0, m=1, nh=17) / Raw(b"\x05\xdc\0\7"), False),
        (IPv6ExtHdrFragment(offset=9, m=0, nh=17) / Raw(bytes(30)), False),
        (LONG / LONG / LONG / LONG / LONG / LONG / LONG / LONG / UDP(sport=1500), False),
        (LONG / LONG / LONG / LONG / LONG / LONG / LONG / UDP(sport=1500), True),
        (IPv6ExtHdrRouting() / UDP(sport=1500), True),
    ],
)
def test_r11_extension_headers_are_walked_to_the_port(packet: Packet, passes: bool, verdict: Any) -> None:
    data = bytes(Ether(src=OWN, dst=ALIEN) / IPv6(src="fd00::4", dst="fd00::99") / packet)
    assert (verdict(SETS["ports"], data) == 0) is passes


NA = bytes(ICMPv6ND_NA(tgt="fd00::4") / ICMPv6NDOptDstLLAddr(lladdr=ALIEN))
RA = bytes(ICMPv6ND_RA(routerlifetime=1800))
ECHO = bytes(ICMPv6EchoRequest(id=1500))
OPTIONS = bytes([58, 0, 1, 4, 0, 0, 0, 0])  # destination options, then ICMPv6
TO_UDP = bytes([17, 0, 1, 4, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("following", "offset", "more", "payload", "passes"),
    [
        (58, 0, 1, ECHO, True),
        (58, 0, 0, ECHO, True),
        (60, 0, 1, OPTIONS + ECHO, True),
        (58, 1, 0, bytes(30), True),  # the first one says what it is: an echo, or it did not leave
        (17, 1, 0, bytes(30), True),
        (17, 0, 1, bytes(8), True),
        (60, 0, 1, TO_UDP + bytes(8), True),
        # RFC 7112: the first fragment has the whole chain of headers
        (60, 0, 1, OPTIONS, False),
        (60, 0, 1, TO_UDP, False),
        (60, 0, 1, b"\x3a\x01\x01\x04" + bytes(4), False),
        (58, 0, 1, b"", False),
        (58, 0, 0, RA[:4], False),
        (58, 0, 1, RA[:4], False),
        (17, 0, 1, bytes(4), False),
        # a later one of which nobody can tell what it carries
        (60, 1, 0, RA, False),
        (60, 1, 0, NA, False),
        (44, 1, 0, RA, False),
        (0, 1, 0, RA, False),
        # RFC 6980: neighbour discovery has no fragment header
        (58, 0, 1, NA[:24], False),
        (58, 0, 1, NA[:8], False),
        (58, 0, 0, bytes(ICMPv6ND_NA(tgt="fd00::4")), False),
        (58, 0, 1, bytes(ICMPv6ND_NS(tgt="fd00::99")), False),
        (58, 0, 1, bytes(ICMPv6ND_RS()), False),
        (58, 0, 1, RA, False),
        (60, 0, 1, OPTIONS + NA[:24], False),
        (60, 0, 0, OPTIONS + bytes(ICMPv6ND_RS()), False),
    ],
)
def test_r11_no_neighbour_discovery_in_fragments(
    following: int, offset: int, more: int, payload: bytes, passes: bool, verdict: Any
) -> None:
    fragment = IPv6ExtHdrFragment(nh=following, offset=offset, m=more, id=7)
    data = bytes(Ether(src=OWN, dst=ALIEN) / IPv6(src="fd00::4", dst="fd00::99", nh=44) / fragment / Raw(payload))
    assert (verdict(SETS["whole"], data) == 0) is passes
    assert lets(SETS["whole"], data) is passes
