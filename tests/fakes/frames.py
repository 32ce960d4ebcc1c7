# SPDX-License-Identifier: MIT
"""Frames for the flow tests, built by scapy."""

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

BROADCAST = "ff:ff:ff:ff:ff:ff"
HERE, THERE = "02:00:00:00:00:01", "02:00:00:00:00:99"
HOST, PEER = "10.0.0.1", "10.0.0.99"
HOST6, PEER6 = "fd00::1", "fd00::99"


def ether(dst: str = HERE, src: str = THERE, kind: int = 0x0800) -> bytes:
    """An Ethernet header alone."""
    return bytes(Ether(dst=dst, src=src, type=kind))


def udp(
    sport: int = 4000, dport: int = 53, payload: bytes = b"x" * 30, src: str = PEER, dst: str = HOST, **ether: str
) -> bytes:
    l2 = Ether(**({"dst": HERE, "src": THERE} | ether))
    return bytes(l2 / IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(payload))


def udp6(sport: int = 4000, dport: int = 53, src: str = PEER6, dst: str = HOST6, **ether: str) -> bytes:
    l2 = Ether(**({"dst": HERE, "src": THERE} | ether))
    return bytes(l2 / IPv6(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(b"y" * 20))


def tcp(sport: int = 4000, dport: int = 80) -> bytes:
    return bytes(Ether(dst=HERE, src=THERE) / IP(src=PEER, dst=HOST) / TCP(sport=sport, dport=dport) / Raw(b"z" * 10))


def dns() -> bytes:
    question = DNS(rd=1, qd=DNSQR(qname="example.org"))
    return bytes(Ether(dst=HERE, src=THERE) / IP(src=PEER, dst=HOST) / UDP(sport=5353, dport=53) / question)


def arp_request(target: str, source: str = PEER, mac: str = THERE) -> bytes:
    return bytes(Ether(dst=BROADCAST, src=mac) / ARP(op=1, hwsrc=mac, psrc=source, pdst=target))


def solicitation(target: str) -> bytes:
    l3 = IPv6(src=PEER6, dst="ff02::1:ff00:2", hlim=255)
    return bytes(
        Ether(dst="33:33:ff:00:00:02", src=THERE) / l3 / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=THERE)
    )


def icmp_error(version: int, quoted_sport: int) -> bytes:
    """A router says that a datagram of HOST:quoted_sport was not delivered."""
    l2 = Ether(dst=HERE, src=THERE)
    if version == 4:
        quoted = IP(src=HOST, dst=PEER) / UDP(sport=quoted_sport, dport=9) / Raw(b"q" * 8)
        return bytes(l2 / IP(src="10.0.0.254", dst=HOST) / ICMP(type=3, code=3) / quoted)
    quoted = IPv6(src=HOST6, dst=PEER6) / UDP(sport=quoted_sport, dport=9) / Raw(b"q" * 8)
    return bytes(l2 / IPv6(src="fd00::fe", dst=HOST6) / ICMPv6DestUnreach(code=4) / quoted)


def frag(index: int, dport: int = 53) -> bytes:
    """One of the three fragments of a 3,000-byte datagram."""
    whole = bytes(UDP(sport=4000, dport=dport, len=3008, chksum=0) / Raw(bytes(3000)))
    part = whole[index * 1200 : index * 1200 + 1200]
    header = IP(src=PEER, dst=HOST, id=77, proto=17, flags="MF" if index < 2 else 0, frag=index * 150)
    return bytes(Ether(dst=HERE, src=THERE) / header / Raw(part))


def fragment6(index: int) -> bytes:
    """One of the three fragments of a 3,000-byte datagram over IPv6."""
    part = bytes(3008)[index * 1200 : index * 1200 + 1200]
    header = IPv6ExtHdrFragment(nh=17, offset=index * 150, m=int(index < 2), id=77)
    return bytes(Ether(dst=HERE, src=THERE) / IPv6(src=PEER6, dst=HOST6) / header / Raw(part))
