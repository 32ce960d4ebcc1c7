# SPDX-License-Identifier: MIT
"""Packets of every link type that becomes Ethernet, header by header, and of each type some that cannot."""

import struct
from collections.abc import Callable

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

__all__ = ["ARP_REQUEST", "BAD", "GOOD", "PACKETS", "RECEIVER", "SENDER", "sll", "sll2", "tagged", "wlan"]

SENDER = bytes.fromhex("021122334455")
RECEIVER = bytes.fromhex("0299aabbccdd")
ROUTER = bytes.fromhex("0277777777ee")
V4, V6 = 0x0800, 0x86DD
PACKETS: list[tuple[int, bytes]] = [
    (V4, bytes(IP(src="10.1.2.3", dst="10.4.5.6") / UDP(sport=1025, dport=9053) / b"query")),
    (V4, bytes(IP(src="10.1.2.3", dst="224.129.2.3") / UDP(sport=1025, dport=9353) / b"to a group")),
    (V4, bytes(IP(src="10.1.2.3", dst="10.4.5.6") / TCP(sport=1025, dport=80))),
    (V6, bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1025, dport=443))),
    (V6, bytes(IPv6(src="2001:db8::1", dst="ff02::1:2") / UDP(sport=9546, dport=9547) / b"solicit")),
]
ARP_REQUEST = bytes(ARP(op=1, hwsrc="02:11:22:33:44:55", psrc="10.1.2.3", pdst="10.4.5.6"))


def tagged(kind: int, packet: bytes, vlan: int = 7) -> bytes:
    """What stands behind the type 0x8100."""
    return struct.pack(">HH", vlan, kind) + packet


def sll(kind: int, packet: bytes, to: int = 0, hardware: int = 1) -> bytes:
    return struct.pack(">HHH6s2xH", to, hardware, 6, SENDER, kind) + packet


def sll2(kind: int, packet: bytes, to: int = 0) -> bytes:
    return struct.pack(">HHIHBB6s2x", kind, 0, 3, 1, to, 6, SENDER) + packet


def snap(kind: int, packet: bytes) -> bytes:
    return bytes.fromhex("aaaa03000000") + struct.pack(">H", kind) + packet


def ppp(kind: int, packet: bytes) -> bytes:
    return struct.pack(">H", {V4: 0x21, V6: 0x57}[kind]) + packet


def wlan(kind: int, packet: bytes, ds: int = 1, qos: bool = False, flags: int = 0, hole: bytes = b"") -> bytes:
    """ds: 0 neither, 1 to, 2 from the distribution system, 3 both."""
    third = {0: (RECEIVER, SENDER, ROUTER), 1: (ROUTER, SENDER, RECEIVER), 2: (RECEIVER, ROUTER, SENDER)}
    addresses = b"".join(third.get(ds, (ROUTER, ROUTER, RECEIVER)))
    out = bytes([0x88 if qos else 0x08, ds | flags, 0, 0]) + addresses + b"\x10\x00"
    return out + (SENDER if ds == 3 else b"") + (bytes(2) if qos else b"") + hole + snap(kind, packet)


def radiotap(frame: bytes, flags: int) -> bytes:
    return struct.pack("<BBHIQB3x", 0, 0, 20, 3, 99, flags) + frame


def ethernet(kind: int, packet: bytes) -> bytes:
    return RECEIVER + SENDER + struct.pack(">H", kind) + packet


def erf(kind: int, packet: bytes, extensions: int = 0, cut: int = 0) -> bytes:
    frame = ethernet(kind, packet)
    more = b"".join(bytes([0x80 if i + 1 < extensions else 0]) + bytes(7) for i in range(extensions))
    body = more + bytes(2) + frame + b"FCS!"[: 4 - cut]
    body += bytes(-(16 + len(body)) % 8)
    first = 2 | (0x80 if extensions else 0)
    return struct.pack("<Q", 5) + struct.pack(">BBHHH", first, 4, 16 + len(body), 0, len(frame) + 4) + body


def address_family(order: str, six: int) -> Callable[[int, bytes], bytes]:
    return lambda kind, packet: struct.pack(order + "I", 2 if kind == V4 else six) + packet


def ppi(kind: int, packet: bytes) -> bytes:
    common = struct.pack("<HHQH10x", 2, 20, 0, 1)
    return struct.pack("<BBHI", 0, 0, 8 + len(common), 105) + common + wlan(kind, packet) + b"FCS!"


Make = Callable[[int, bytes], bytes]
GOOD: list[tuple[str, int, Make]] = [
    ("null, little", 0, address_family("<", 30)),
    ("null, big", 0, address_family(">", 24)),
    ("null, FreeBSD", 0, address_family("<", 28)),
    ("loop", 108, address_family(">", 24)),
    ("ppp", 9, ppp),
    ("ppp in hdlc", 9, lambda kind, packet: b"\xff\x03" + ppp(kind, packet)),
    ("ppp hdlc", 50, lambda kind, packet: b"\xff\x03" + ppp(kind, packet)),
    ("ppp, one byte", 50, lambda kind, packet: b"\xff\x03" + ppp(kind, packet)[1:]),
    ("ppp, Cisco", 50, lambda kind, packet: b"\x0f\x00" + struct.pack(">H", kind) + packet),
    ("pppoe", 51, lambda kind, packet: struct.pack(">BBHH", 0x11, 0, 9, 2 + len(packet)) + ppp(kind, packet)),
    ("cisco hdlc", 104, lambda kind, packet: b"\x0f\x00" + struct.pack(">H", kind) + packet),
    ("frame relay", 107, lambda kind, packet: b"\x18\x41\x03" + {V4: b"\xcc", V6: b"\x8e"}[kind] + packet),
    ("frame relay, SNAP", 107, lambda kind, packet: b"\x18\x41\x03\x00\x80" + snap(kind, packet)[3:]),
    ("frame relay, bridged", 107, lambda k, p: b"\x18\x41\x03\x00\x80\x00\x80\xc2\x00\x07" + ethernet(k, p)),
    ("raw", 101, lambda _, packet: packet),
    ("ipv4", 228, lambda _, packet: packet),
    ("ipv6", 229, lambda _, packet: packet),
    ("sll", 113, sll),
    ("sll, broadcast", 113, lambda kind, packet: sll(kind, packet, 1)),
    ("sll, multicast", 113, lambda kind, packet: sll(kind, packet, 2)),
    ("sll2", 276, sll2),
    ("802.11 to", 105, wlan),
    ("802.11 from", 105, lambda kind, packet: wlan(kind, packet, 2)),
    ("802.11 neither", 105, lambda kind, packet: wlan(kind, packet, 0)),
    ("802.11 wds", 105, lambda kind, packet: wlan(kind, packet, 3)),
    ("802.11 qos", 105, lambda kind, packet: wlan(kind, packet, 2, True)),
    ("radiotap", 127, lambda kind, packet: radiotap(wlan(kind, packet), 0)),
    ("radiotap, FCS", 127, lambda kind, packet: radiotap(wlan(kind, packet) + b"FCS!", 0x10)),
    ("radiotap, pad", 127, lambda k, p: radiotap(wlan(k, p, 2, True, hole=bytes(2)), 0x20)),
    ("ppi", 192, ppi),
    ("erf", 197, erf),
    ("erf, extended", 197, lambda kind, packet: erf(kind, packet, 2)),
]
"""What it is, its link type, and how a packet of an Ethernet type looks there."""

BAD: list[tuple[str, int, bytes]] = [
    ("null of another family", 0, struct.pack("<I", 7) + bytes(40)),
    ("raw of no version", 101, b"\x00" * 40),
    ("LCP", 9, bytes.fromhex("c0210101000a0506aabbccdd")),
    ("SLARP", 104, bytes.fromhex("8f008035") + bytes(20)),
    ("a beacon", 105, b"\x80" + bytes(60)),
    ("an encrypted frame", 105, wlan(V4, PACKETS[0][1], flags=0x40)),
    ("a null frame", 105, b"\x48\x01" + bytes(22)),
    ("an A-MSDU", 105, b"\x88\x01" + bytes(22) + b"\x80\x00" + bytes(60)),
    ("a fragment", 105, wlan(V4, PACKETS[0][1], flags=0x04)),
    ("netlink", 113, sll(0x0010, bytes(40), hardware=824)),
    ("ERF of ATM", 197, bytes(8) + struct.pack(">BBHHH", 3, 4, 72, 0, 53) + bytes(56)),
    ("USB", 189, bytes(64)),
]
