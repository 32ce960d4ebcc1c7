# SPDX-License-Identifier: MIT
"""An example frame from a solver's witness, and a one-line scapy expression for it.

The bits that the witness leaves open are filled so that the frame looks like traffic (version, lengths, TTL,
addresses), as far as the conjuncts still take it. Where scapy's own defaults would give a frame the conjuncts take,
the expression spells out the layers; otherwise it is the bytes. Where the length on the wire matters, the frame is that
long if it may be; a comment says so where it must be cut.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from exonet.filters.conjunct import FRAME, Conjunct
from exonet.filters.solve import Witness

FILL_ETHERNET = bytes.fromhex("020000000002020000000001")
FILL_IP4 = bytes.fromhex("45000028000100004000 0000 0a000001 0a000002".replace(" ", ""))
FILL_IP6 = bytes.fromhex("6000000000143b40") + IPv6Address("fd00::1").packed + IPv6Address("fd00::2").packed
FILL_PORTS = (1024).to_bytes(2, "big") * 2
MIN_FRAME = 60
ETHERNET_BYTES = 14
#: A longer frame is shown with its runs of zeroes as `bytes(n)`.
LONGEST_HEX = 128
_ZEROES = re.compile(rb"\0{8,}")


def _filled(known: tuple[int, int], filling: bytes, length: int) -> bytes:
    """The known bits over a filling, as far as `length` bytes reach."""
    mask, value = (bits & (1 << 8 * length) - 1 for bits in known)
    rest = int.from_bytes(filling[:length].ljust(length, b"\0"), "little") & ~mask
    return (rest | value).to_bytes(length, "little")


def _filling(frame: bytes) -> bytes:
    """What belongs into the open bits of a frame of this ethertype."""
    ethertype = int.from_bytes(frame[12:14], "big")
    ethernet = FILL_ETHERNET + frame[12:14]
    if ethertype == 0x0800:
        return ethernet + FILL_IP4 + FILL_PORTS + bytes(8) + b"\x50"
    if ethertype == 0x86DD:
        return ethernet + FILL_IP6 + FILL_PORTS + bytes(8) + b"\x50"
    return ethernet


def _candidates(witness: Witness) -> Iterator[bytes]:
    """The witness as frames, the most natural first."""
    known = witness.bits.get(FRAME, (0, 0))
    low, high = witness.low, witness.high
    length = min(max(low, MIN_FRAME), high)
    if witness.wire_len is not None and low <= witness.wire_len <= high:
        length = witness.wire_len
    plain = _filled(known, b"", max(length, 1))[:length]
    yield _filled(known, _filling(plain), max(length, 1))[:length]
    yield plain
    yield _filled(known, b"", max(low, 1))[:low]


def build(witness: Witness, takers: Sequence[Conjunct], outside: Sequence[Conjunct] = ()) -> bytes:
    """The frame's captured bytes. Its length on the wire is `wire_length(witness, frame)`."""
    found = b""
    for frame in _candidates(witness):
        wire_len = wire_length(witness, frame)
        found = frame
        if all(c.matches(frame, wire_len) for c in takers) and not any(c.matches(frame, wire_len) for c in outside):
            break
    return found


def wire_length(witness: Witness, frame: bytes) -> int:
    return len(frame) if witness.wire_len is None else witness.wire_len


def _touched(conjuncts: Sequence[Conjunct]) -> dict[int, int]:
    """Which bits of each space the conjuncts look at."""
    touched: dict[int, int] = {}
    for conjunct in conjuncts:
        for space, mask, _ in (*conjunct.box, *conjunct.excluded):
            touched[space] = touched.get(space, 0) | mask
        if conjunct.interval:
            space, mask, _ = conjunct.interval.field.term(conjunct.interval.field.most, 0)
            touched[space] = touched.get(space, 0) | mask
    return touched


def _octets(*ranges: tuple[int, int]) -> int:
    return sum(((1 << 8 * (end - start)) - 1) << 8 * start for start, end in ranges)


_IP4_SHOWN = _octets((0, 14), (20, 22), (23, 24), (26, 34))
_IP6_SHOWN = _octets((0, 14), (20, 21), (22, 54))
_IHL = 0xFF << 8 * 14


def scapy_expression(frame: bytes, wire_len: int, takers: Sequence[Conjunct]) -> str:
    """One line of Python that builds the frame with scapy. takers: all conjuncts that it was made for."""
    found = _layers(frame, takers)
    return found if wire_len == len(frame) else f"{found}  # {wire_len} bytes on the wire"


def _octets_of(frame: bytes) -> str:
    """Python for these bytes, short where most are zero."""
    if len(frame) <= LONGEST_HEX:
        return f'bytes.fromhex("{frame.hex()}")'
    parts, at = [], 0
    for run in _ZEROES.finditer(frame):
        if run.start() > at:
            parts.append(f'bytes.fromhex("{frame[at : run.start()].hex()}")')
        parts.append(f"bytes({run.end() - run.start()})")
        at = run.end()
    if at < len(frame):
        parts.append(f'bytes.fromhex("{frame[at:].hex()}")')
    return " + ".join(parts)


def _layers(frame: bytes, takers: Sequence[Conjunct]) -> str:
    """The layers, where scapy's own defaults do; else the bytes."""
    touched = _touched(takers)
    raw = f"{'Ether' if len(frame) >= ETHERNET_BYTES else 'Raw'}({_octets_of(frame)})"
    too_long = any(c.frame_bytes > MIN_FRAME or c.ip4_bytes > MIN_FRAME - 34 for c in takers)
    if too_long or len(frame) < ETHERNET_BYTES or any(space not in (FRAME, 14) for space in touched):
        return raw
    ether = f'Ether(dst="{frame[:6].hex(":")}", src="{frame[6:12].hex(":")}"'
    at_frame, at_upper = touched.get(FRAME, 0), touched.get(14, 0)
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == 0x0800 and len(frame) >= 38 and frame[14] == 0x45 and frame[20:22] == b"\0\0":
        upper = _upper(frame[23], frame[34:], at_upper | (at_frame & ~_octets((0, 34))) >> 8 * 34)
        if upper and not at_frame & _octets((0, 34)) & ~(_IP4_SHOWN | _IHL):
            addresses = f'src="{IPv4Address(frame[26:30])}", dst="{IPv4Address(frame[30:34])}"'
            return f"{ether})/IP({addresses}, proto={frame[23]}){upper}"
    if ethertype == 0x86DD and len(frame) >= 58 and frame[14] >> 4 == 6 and not at_upper:
        upper = _upper(frame[20], frame[54:], at_frame >> 8 * 54)
        if upper and not at_frame & _octets((0, 54)) & ~_IP6_SHOWN:
            addresses = f'src="{IPv6Address(frame[22:38])}", dst="{IPv6Address(frame[38:54])}"'
            return f"{ether})/IPv6({addresses}, nh={frame[20]}){upper}"
    return raw


def _upper(protocol: int, payload: bytes, touched: int) -> str:
    """The transport layer, where the conjuncts look at nothing but what is spelled out; else empty."""
    sport, dport = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    if protocol == 17 and not touched & ~_octets((0, 4)):
        return f'/UDP(sport={sport}, dport={dport})/Raw(b"{"x" * 18}")'
    if protocol == 6 and len(payload) >= 14 and not touched & ~_octets((0, 4), (13, 14)):
        return f'/TCP(sport={sport}, dport={dport}, flags={payload[13]})/Raw(b"xxxxxx")'
    if protocol == 1 and not touched & ~_octets((0, 2)):
        return f'/ICMP(type={payload[0]}, code={payload[1]})/Raw(b"{"x" * 18}")'
    return ""
