# SPDX-License-Identifier: MIT
"""What a local side lets through (R11), told plainly: the oracle for boxes and what is checked beside them.

One frame, one side at a time, in the order of the headers; it shares nothing with csrc/localside.c and csrc/template.c.
"""

from dataclasses import dataclass
from typing import Any

TAGS, EXTENSIONS, WITH_PORTS = (0x8100, 0x88A8), (0, 43, 44, 51, 60), (6, 17, 33, 132, 136)
EVERY_STATION, PROBE, UNSPECIFIED = bytes(6), bytes(4), bytes(16)


def be16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


@dataclass(frozen=True, slots=True)
class Side:
    """A `struct exo_local`."""

    mac: bytes = bytes(6)
    any: int = 0
    family: int = 0
    address: bytes = bytes(16)
    prefix: int = 0
    protocol: int = 0
    port_low: int = 0
    port_high: int = 0
    ethertype: int = 0
    port: int = 0

    @property
    def every_port(self) -> bool:
        return (self.port_low, self.port_high) == (0, 65535)

    def owns(self, address: bytes) -> bool:
        bits = 8 * len(address)
        mine = int.from_bytes(self.address[: len(address)], "big")
        return (mine ^ int.from_bytes(address, "big")) >> (bits - self.prefix) == 0

    def has_port(self, protocol: int, upper: bytes) -> bool:
        if self.every_port:
            return True
        if protocol in WITH_PORTS and len(upper) >= 2:
            return self.port_low <= be16(upper, 0) <= self.port_high
        echo = {1: (0, 8), 58: (128, 129)}.get(protocol, ())
        return len(upper) >= 6 and upper[0] in echo and self.port_low <= be16(upper, 4) <= self.port_high

    def lets(self, frame: bytes) -> bool:
        source = frame[6:12]
        if self.any:
            return True
        if self.mac not in (source, EVERY_STATION):
            return False
        at, ethertype = 14, be16(frame, 12)
        while at < 22 and ethertype in TAGS and len(frame) >= at + 4:
            at, ethertype = at + 4, be16(frame, at + 2)
        if self.family == 0:
            return self.ethertype in (0, ethertype)
        readers = {0x0806: (4, self.lets_arp), 0x0800: (4, self.lets_ip4), 0x86DD: (6, self.lets_ip6)}
        family, reader = readers.get(ethertype, (-1, self.lets_arp))
        return family == self.family and reader(frame[at:], source)

    def lets_arp(self, arp: bytes, source: bytes) -> bool:
        if len(arp) < 28 or arp[:6] != bytes([0, 1, 8, 0, 6, 4]) or arp[8:14] != source:
            return False
        probe = arp[14:18] == PROBE and be16(arp, 6) == 1
        return self.owns(arp[14:18]) or (probe and self.owns(arp[24:28]))

    def lets_ip4(self, ip: bytes, _source: bytes) -> bool:
        if len(ip) < 20 or ip[0] >> 4 != 4:
            return False
        header, total = 4 * (ip[0] & 15), be16(ip, 2)
        if header < 20 or not header <= total <= len(ip):
            return False
        if not self.owns(ip[12:16]) or self.protocol not in (0, ip[9]):
            return False
        return self.every_port if be16(ip, 6) & 0x1FFF else self.has_port(ip[9], ip[header:total])

    def lets_ip6(self, ip: bytes, source: bytes) -> bool:
        if len(ip) < 40 or ip[0] >> 4 != 6 or len(ip) < 40 + be16(ip, 4):
            return False
        found = upper_layer(ip[: 40 + be16(ip, 4)])
        if found is None or self.protocol not in (0, found[0]):
            return False
        protocol, upper = found
        kind = upper[0] if protocol == 58 and upper is not None and len(upper) >= 8 else -1
        nowhere = ip[8:24] == UNSPECIFIED
        if not (nowhere and kind in (131, 133, 134, 135, 136, 137, 143)) and (nowhere or not self.owns(ip[8:24])):
            return False
        if upper is None:
            return self.every_port
        if kind in (134, 137):
            return False
        if kind == 133:
            return own_options(upper[8:], source)
        if kind in (135, 136):
            wanted = nowhere if kind == 135 else True
            target = len(upper) >= 24 and (not wanted or self.owns(upper[8:24])) and not (nowhere and kind == 136)
            return target and own_options(upper[24:], source)
        return kind in (131, 143) or self.has_port(protocol, upper)


def upper_layer(packet: bytes) -> tuple[int, bytes | None] | None:
    """Protocol and bytes behind at most seven extension headers; None for the bytes of a later fragment. Nothing where
    a first fragment has not all headers (RFC 7112) or has neighbour discovery (RFC 6980), or a later one hides what
    it has.
    """
    following, at, fragment = packet[6], 40, False
    for _ in range(8):
        if following not in EXTENSIONS:
            upper = packet[at:]
            if fragment and (len(upper) < 8 or (following == 58 and upper[0] in range(133, 138))):
                return None
            return following, upper
        fragment = fragment or following == 44
        if at + 8 > len(packet):
            return None
        size = {44: 8, 51: 4 * (packet[at + 1] + 2)}.get(following, 8 * (packet[at + 1] + 1))
        if following == 44 and be16(packet, at + 2) & 0xFFF8:
            return None if packet[at] in EXTENSIONS else (packet[at], None)
        following, at = packet[at], at + size
        if at > len(packet):
            return None
    return None


def own_options(options: bytes, source: bytes) -> bool:
    while options:
        if len(options) < 8 or not options[1] or 8 * options[1] > len(options):
            return False
        if options[0] in (1, 2) and options[2:8] != source:
            return False
        options = options[8 * options[1] :]
    return True


def lets(rows: list[dict[str, Any]], frame: bytes, port: int = 0) -> bool:
    """Does one of the sides on that port let the frame through?"""
    return any(side.lets(frame) for side in (Side(**row) for row in rows) if side.port == port)
