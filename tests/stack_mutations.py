# SPDX-License-Identifier: MIT
"""Valid frames of every kind the stack knows, and what makes checksums right again after a mutation."""

from scapy.layers.inet import IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import Dot1Q

from tests.stack_frames import (
    ARP,
    BROADCAST,
    ICMP,
    IP,
    IP4,
    IP6,
    PEER4,
    PEER6,
    PEER_MAC,
    UDP,
    IPv6,
    ether,
    ip4,
    ip6,
    ping4,
    ping6,
)

VALID = {
    "arp": ether(BROADCAST) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER4, pdst=IP4),
    "vlan": ether() / Dot1Q(vlan=0) / IP(src=PEER4, dst=IP4) / UDP(dport=7) / b"data",
    "ping4": ping4(b"twelve bytes"),
    "options": ip4(options=[IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"] * 2)]) / UDP(sport=9, dport=7) / b"data",
    "udp4": ip4() / UDP(sport=9, dport=7) / b"data",
    "closed4": ip4() / UDP(sport=9, dport=8) / b"data",
    "first4": ip4(id=3, flags="MF") / UDP(sport=9, dport=7, len=40) / bytes(16),
    "last4": ip4(id=3, frag=3, proto=17) / bytes(16),
    "unreachable4": ip4() / ICMP(type=3, code=3) / IP(src=IP4, dst=PEER4) / UDP(sport=7, dport=9),
    "too_big4": ip4()
    / ICMP(type=3, code=4, nexthopmtu=1000)
    / IP(src=IP4, dst=PEER4, options=[IPOption_NOP()] * 4)
    / UDP(sport=7),
    "ping6": ping6(b"twelve bytes"),
    "udp6": ip6() / UDP(sport=9, dport=7) / b"data",
    "chain6": ip6()
    / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(9))])
    / IPv6ExtHdrRouting(segleft=0, addresses=[IP6])
    / UDP(sport=9, dport=7)
    / b"data",
    "first6": ip6() / IPv6ExtHdrFragment(id=3, m=1, nh=17) / bytes(UDP(sport=9, dport=7, len=40)) / bytes(16),
    "last6": ip6() / IPv6ExtHdrFragment(id=3, offset=3, nh=17) / bytes(16),
    "ns": ether() / IPv6(src=PEER6, dst=IP6, hlim=255) / ICMPv6ND_NS(tgt=IP6) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC),
    "na": ether() / IPv6(src=PEER6, dst=IP6, hlim=255) / ICMPv6ND_NA(tgt=PEER6) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC),
    "ra": ether() / IPv6(src="fe80::1", dst=IP6, hlim=255) / ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::"),
    "unreachable6": ip6() / ICMPv6DestUnreach(code=4) / IPv6(src=IP6, dst=PEER6) / UDP(sport=7),
    "too_big6": ip6()
    / ICMPv6PacketTooBig(mtu=1300)
    / IPv6(src=IP6, dst=PEER6)
    / IPv6ExtHdrFragment(nh=17, m=1)
    / bytes(UDP(sport=7)),
}
FRAMES = {name: bytes(packet) for name, packet in VALID.items()}


def fix_ip4(frame):
    """The header checksum made right, so that mutations get past it."""
    at = 18 if frame[12:14] == b"\x81\x00" else 14
    if frame[at - 2 : at] != b"\x08\x00" or len(frame) < at + 20:
        return bytes(frame)
    size = min((frame[at] & 15) * 4, len(frame) - at) & ~1
    out = bytearray(frame)
    out[at + 10 : at + 12] = b"\0\0"
    total = sum(int.from_bytes(out[at + i : at + i + 2], "big") for i in range(0, size, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    out[at + 10 : at + 12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(out)


def resum(frame):
    """The ICMP or ICMPv6 checksum made right, so that mutations of the message get past it."""
    out = bytearray(frame)
    if out[12:14] == b"\x08\x00" and out[23] == 1:
        at, pseudo = 34, b""
    elif out[12:14] == b"\x86\xdd" and out[20] == 58:
        at, pseudo = 54, bytes(out[22:54]) + (len(out) - 54).to_bytes(4, "big") + b"\0\0\0\x3a"
    else:
        return bytes(out)
    out[at + 2 : at + 4] = b"\0\0"
    data = pseudo + bytes(out[at:]) + b"\0" * (len(out) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    out[at + 2 : at + 4] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(out)
