# SPDX-License-Identifier: MIT
"""Frames that the odd expressions ask for and that no capture of the project holds, made with scapy."""

from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, IPv6, IPv6ExtHdrHopByHop, UDPerror
from scapy.layers.l2 import ARP, LLC, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet, Raw

from tests.demux_box import Frame

TEN, WEB, DNS = IP(src="10.0.0.1", dst="10.0.0.2"), TCP(sport=80, dport=80, flags="S"), UDP(sport=53, dport=53)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # scapy would ask the network for one
DOCUMENTED, GROUP = IPv6(src="2001:db8::1", dst="2001:db8::2"), IPv6(src="fe80::1", dst="ff02::1")


def asked_frames() -> list[Frame]:
    frames = [bytes(packet if packet.firstlayer().name == "Ethernet" else ETHER / packet) for packet in _packets()]
    return [(frame, len(frame)) for frame in frames]


def _packets() -> list[Packet]:
    return [*_transports(), *_internet(), *_tags(), *_tunnels(), *_links()]


def _transports() -> list[Packet]:
    hello = bytes.fromhex("160301002f0100002b0303")
    options = [("MSS", 1460)]
    tcp = [WEB, TCP(dport=443) / Raw(hello), TCP(dport=443) / Raw(bytes(1100)), TCP(dport=22, flags="PU"),
           TCP(sport=80, dport=1024, window=8192, flags="S"), TCP(dport=150, flags=0xFF), TCP(dport=179),
           TCP(dport=80) / Raw(bytes(600)), TCP(sport=1500, dport=8000, options=options) / Raw(bytes(200))]  # fmt: skip
    udp = [UDP(dport=9) / Raw(bytes.fromhex("deadbeef")), UDP(dport=33500),
           UDP(sport=68, dport=67) / Raw(bytes(234) + bytes.fromhex("63825363"))]  # fmt: skip
    sctp = [SCTP(dport=3868) / SCTPChunkData(data=b"x"), SCTP() / Raw(b"\x01\0\0\x04")]
    return [TEN / each for each in (*tcp, *udp, *sctp)]


def _internet() -> list[Packet]:
    icmp = [ICMP(type=11), ICMP(type=3, code=4) / TEN / UDPerror(), ICMP(id=1234) / Raw(bytes(1100))]
    found = [TEN / each for each in icmp]
    found += [IP(ttl=ttl) / WEB for ttl in (1, 2, 4, 5, 251)] + [IP(ttl=1, dst="1.2.3.4"), IP(tos=46), IP(tos=2)]
    found += [IP(id=number, flags="DF") / DNS / Raw(bytes(1600)) for number in (0, 150, 0x1200)]
    found += [IP(src="0.0.0.0", dst="224.0.0.9", proto=103), IP(dst="224.0.0.22", proto=2) / Raw(b"\x16" + bytes(7))]
    found += [IP(src="1.2.3.4", dst="5.6.7.8"), IP(src="1.2.3.4", dst="1.2.3.4"), IP(tos=5, len=0x0114), IP(tos=5)]
    found += [IP(dst="10.0.0.255") / DNS, IP(src="10.1.2.3") / TCP(dport=1100) / Raw(bytes(100))]
    found += [GROUP / IPv6ExtHdrHopByHop() / ICMPv6ND_RS(), GROUP / ICMPv6ND_RA(), GROUP / DNS, DOCUMENTED / WEB]
    return [*found, IPv6(hlim=1, nh=89), IPv6(src="2001:db8::1", dst="2600::1"), IPv6(hlim=255) / DNS]


def _tags() -> list[Packet]:
    one, two = Dot1Q(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=6)
    session, six = PPPoE(sessionid=3) / PPP(proto=0x21), PPPoE(sessionid=5) / PPP(proto=0x57)
    found = [one / session / TEN, two / TEN / WEB, two / Dot1Q(vlan=7) / TEN, Dot1Q(vlan=4095), one / ARP()]
    found += [Dot1Q(vlan=10) / TEN / DNS, Dot1Q(vlan=10, prio=7) / DOCUMENTED / DNS, one / GROUP / ICMPv6ND_RS()]
    found += [Dot1Q(vlan=7) / session / TEN / TCP(dport=443), two / session / TEN / DNS]
    return [*found, PPPoE(sessionid=5) / PPP(proto=0x21) / TEN / DNS, six / DOCUMENTED / WEB, session / TEN]


def _tunnels() -> list[Packet]:
    def labelled(*labels: int, inner: Packet, below: Packet) -> Packet:
        stack = b"".join(bytes(MPLS(label=label, s=label == labels[-1])) for label in labels)
        return below / Raw(stack + bytes(inner))

    bare, five, seven = _ether(0x8847), Dot1Q(vlan=5, type=0x8847), Dot1Q(vlan=7, type=0x8847)
    found = [labelled(100000, 1024, inner=TEN, below=bare), labelled(100000, inner=TEN, below=bare)]
    found += [labelled(16, inner=TEN / TCP(dport=179), below=bare), labelled(5, 6, 7, inner=TEN / DNS, below=bare)]
    found += [labelled(7, inner=TEN, below=five), labelled(16, inner=TEN / WEB, below=seven)]
    virtual = IP(src="9.9.9.9") / UDP(dport=6081)
    found += [virtual / GENEVE(vni=5, proto=0x0800) / TEN / each for each in (DNS, WEB)]
    return [*found, virtual / GENEVE(vni=0x123456, proto=0x6558) / ETHER / Dot1Q(vlan=5) / TEN]


def _ether(kind: int, dst: str = "02:00:00:00:00:02") -> Packet:
    return Ether(src="02:00:00:00:00:01", dst=dst, type=kind)


def _links() -> list[Packet]:
    named = Ether(src="00:11:22:33:44:55", dst="66:77:88:99:aa:bb")
    found = [named / TEN, *(_ether(kind) / Raw(bytes(40)) for kind in (0x88E5, 0x8899, 0x88F7, 0x0600))]
    test = _ether(3, "01:80:c2:00:00:01") / LLC(dsap=6, ssap=6, ctrl=0xE3)
    isis = _ether(30) / LLC(dsap=0xFE, ssap=0xFE, ctrl=3) / Raw(b"\x83" + bytes(3) + b"\x14" + bytes(20))
    arp = [ARP(op=op, psrc="10.0.0.1", pdst="10.0.0.2") for op in (1, 2)]
    return [*found, test, isis, *arp, _ether(1500) / Raw(bytes(1500))]
