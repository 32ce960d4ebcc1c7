# SPDX-License-Identifier: MIT
"""A frame in one line, for people: addresses, ports and what kind of packet it is, as far as its bytes reach.

Takes any bytes. What is cut short or unknown is named by its numbers. Formats: Ethernet II, IEEE 802.1Q and 802.1ad
tags, PPPoE sessions (RFC 2516), ARP (RFC 826), IPv4 (RFC 791), IPv6 and its extension headers (RFC 8200), the ports of
TCP, UDP and SCTP, the types of ICMP.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

__all__ = ["summary"]

TAGS = (0x8100, 0x88A8, 0x9100)
MOST_TAGS = 4
MOST_EXTENSIONS = 8
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
FRAGMENT = 44
PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
PROTOCOLS = {
    0: "hopopt", 1: "icmp", 2: "igmp", 4: "ipip", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6",
    59: "no next header", 88: "eigrp", 89: "ospf", 103: "pim", 112: "vrrp",
}  # fmt: skip
FLAGS = "FSRPAUEC"
ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded", 12: "bad parameter"}
ICMP6 = {
    1: "unreachable", 2: "too big", 3: "time exceeded", 4: "bad parameter", 128: "echo request", 129: "echo reply",
    133: "router solicitation", 134: "router advertisement", 135: "neighbour solicitation",
    136: "neighbour advertisement",
}  # fmt: skip


def _number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def summary(data: bytes) -> str:
    """The line. Never raises."""
    if len(data) < 14:
        return f"{len(data)} bytes: less than an Ethernet header"
    return " ".join(_ethernet(data))


def _ethernet(data: bytes) -> Iterator[str]:
    ethertype, at = _number(data, 12), 14
    for _ in range(MOST_TAGS):
        if ethertype not in TAGS or len(data) < at + 4:
            break
        yield f"vlan {_number(data, at) & 0xFFF}"
        ethertype, at = _number(data, at + 2), at + 4
    if ethertype == 0x8864 and len(data) >= at + 8:
        yield f"pppoe {_number(data, at + 2)}"
        ethertype, at = {0x21: 0x800, 0x57: 0x86DD}.get(_number(data, at + 6), 0), at + 8
    if ethertype == 0x800 and len(data) >= at + 20:
        yield _ip4(data, at)
    elif ethertype == 0x86DD and len(data) >= at + 40:
        yield _ip6(data, at)
    elif ethertype == 0x806 and len(data) >= at + 28:
        yield _arp(data, at)
    else:
        kind = f"802.3 length {ethertype}" if ethertype < 0x600 else f"ethertype {ethertype:#06x}"
        yield f"{data[6:12].hex(':')} > {data[:6].hex(':')} {kind}"


def _arp(data: bytes, at: int) -> str:
    sender, target = IPv4Address(data[at + 14 : at + 18]), IPv4Address(data[at + 24 : at + 28])
    operation = _number(data, at + 6)
    if operation == 1:
        return f"arp who-has {target} tell {sender}"
    if operation == 2:
        return f"arp {sender} is-at {data[at + 8 : at + 14].hex(':')}"
    return f"arp operation {operation}, {sender} to {target}"


def _ip4(data: bytes, at: int) -> str:
    source, target = str(IPv4Address(data[at + 12 : at + 16])), str(IPv4Address(data[at + 16 : at + 20]))
    offset = (_number(data, at + 6) & 0x1FFF) * 8
    if offset:
        return f"{source} > {target} {_protocol(data[at + 9])} fragment at {offset}"
    end = at + 4 * (data[at] & 15)
    said = _upper(data, end, data[at + 9], source, target)
    return f"{said} first fragment" if data[at + 6] & 0x20 else said


def _ip6(data: bytes, at: int) -> str:
    source, target = str(IPv6Address(data[at + 8 : at + 24])), str(IPv6Address(data[at + 24 : at + 40]))
    protocol, at, first = data[at + 6], at + 40, ""
    for _ in range(MOST_EXTENSIONS):
        if protocol not in (*EXTENSIONS, FRAGMENT) or len(data) < at + 8:
            break
        if protocol == FRAGMENT:
            place = _number(data, at + 2)
            if place >> 3:
                return f"{source} > {target} {_protocol(data[at])} fragment at {place >> 3 << 3}"
            first = " first fragment" if place & 1 else ""
            protocol, at = data[at], at + 8
        else:
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
    return _upper(data, at, protocol, f"[{source}]", f"[{target}]") + first


def _upper(data: bytes, at: int, protocol: int, source: str, target: str) -> str:
    name = PORTS.get(protocol)
    if name and len(data) >= at + 4:
        flags = f" [{_flags(data[at + 13])}]" if protocol == 6 and len(data) >= at + 14 else ""
        return f"{source}:{_number(data, at)} > {target}:{_number(data, at + 2)} {name}{flags}"
    source, target = source.strip("[]"), target.strip("[]")
    types = {1: ICMP, 58: ICMP6}.get(protocol)
    if types and len(data) >= at + 2:
        return (
            f"{source} > {target} {PROTOCOLS[protocol]} {types.get(data[at], f'type {data[at]} code {data[at + 1]}')}"
        )
    return f"{source} > {target} {_protocol(protocol)}"


def _protocol(number: int) -> str:
    return PORTS.get(number) or PROTOCOLS.get(number) or f"protocol {number}"


def _flags(flags: int) -> str:
    return "".join(letter for bit, letter in enumerate(FLAGS) if flags >> bit & 1) or "none"
