# SPDX-License-Identifier: MIT
"""The names of header fields, for people: `ip.proto == 6` instead of a mask over byte 23.

`describe_term` renders one term of a box. A field is named only where the box itself fixes the ethertype (and
protocol) that gives the bytes that meaning; what has no name is shown as `frame[offset:size] & mask == value`.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from exonet.filters import span

TAGS = (0x8100, 0x88A8, 0x9100)


class Field(NamedTuple):
    """A named field: first byte within its header, bytes, and the mask over its big-endian value."""

    name: str
    offset: int
    size: int
    mask: int
    form: str = "d"


def _field(name: str, offset: int, size: int, form: str = "d", mask: int | None = None) -> Field:
    return Field(name, offset, size, (1 << 8 * size) - 1 if mask is None else mask, form)


ETHERNET = (_field("eth.dst", 0, 6, "mac"), _field("eth.src", 6, 6, "mac"), _field("eth.type", 12, 2, "x"))
VLAN = (_field("vlan.id", 14, 2, "d", 0x0FFF), _field("vlan.type", 16, 2, "x"))
ARP = (_field("arp.op", 20, 2), _field("arp.spa", 28, 4, "ip"), _field("arp.tpa", 38, 4, "ip"))
IP4 = (
    _field("ip.version", 0, 1, "d", 0xF0),
    _field("ip.ihl", 0, 1, "d", 0x0F),
    _field("ip.tos", 1, 1, "x"),
    _field("ip.len", 2, 2),
    _field("ip.id", 4, 2),
    _field("ip.frag", 6, 2, "d", 0x1FFF),
    _field("ip.ttl", 8, 1),
    _field("ip.proto", 9, 1),
    _field("ip.src", 12, 4, "ip"),
    _field("ip.dst", 16, 4, "ip"),
)
IP6 = (_field("ip6.nh", 6, 1), _field("ip6.src", 8, 16, "ip6"), _field("ip6.dst", 24, 16, "ip6"))
PORTS = (_field("sport", 0, 2), _field("dport", 2, 2))
TRANSPORT = {
    1: (_field("icmp.type", 0, 1), _field("icmp.code", 1, 1)),
    6: (*(f._replace(name=f"tcp.{f.name}") for f in PORTS), _field("tcp.flags", 13, 1, "x")),
    17: tuple(f._replace(name=f"udp.{f.name}") for f in PORTS),
    58: (_field("icmp6.type", 0, 1), _field("icmp6.code", 1, 1)),
    132: tuple(f._replace(name=f"sctp.{f.name}") for f in PORTS),
}


def _big(bits: int, offset: int, size: int) -> int:
    """Bytes of a space as a big-endian number."""
    return int.from_bytes((bits >> 8 * offset & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")


def _known(bits: Mapping[int, tuple[int, int]], offset: int, size: int) -> int | None:
    """The big-endian value of bytes of the frame, where the box fixes it."""
    mask, value = bits.get(0, (0, 0))
    return _big(value, offset, size) if _big(mask, offset, size) == (1 << 8 * size) - 1 else None


def _layers(bits: Mapping[int, tuple[int, int]], space: int) -> Iterator[tuple[int, tuple[Field, ...]]]:
    """The headers of a space (the frame, or what follows the IPv4 header) in this box: start and fields of each."""
    if space:
        yield 0, TRANSPORT.get(_known(bits, space + 9, 1) or 0, ())
        return
    yield 0, ETHERNET
    start, ethertype = 14, _known(bits, 12, 2)
    while ethertype in TAGS:
        yield start - 14, VLAN
        start, ethertype = start + 4, _known(bits, start + 2, 2)
    if ethertype == 0x800:
        yield start, IP4
    elif ethertype == 0x86DD:
        yield start, IP6
        yield start + 40, TRANSPORT.get(_known(bits, start + 6, 1) or 0, ())
    elif ethertype in (0x806, 0x8035):
        yield start - 14, ARP


def naming_bytes(bits: Mapping[int, tuple[int, int]], headers: Iterable[int]) -> set[int]:
    """On which bytes of the frame it depends what fields this box has; headers: where its IPv4 headers begin."""
    read, at = {12, 13}, 12
    while _known(bits, at, 2) in TAGS:
        at += 4
        read |= {at, at + 1}
    if _known(bits, at, 2) == 0x86DD:
        read.add(at + 8)
    return read | {header + 9 for header in headers}


def _fields_of(bits: Mapping[int, tuple[int, int]], space: int) -> list[Field]:
    """The fields of a space, at their offsets there."""
    return [each._replace(offset=each.offset + start) for start, fields in _layers(bits, space) for each in fields]


def _show(field: Field, value: int) -> str:
    if field.form == "mac":
        return value.to_bytes(6, "big").hex(":")
    if field.form == "ip":
        return str(IPv4Address(value))
    if field.form == "ip6":
        return str(IPv6Address(value))
    value >>= (field.mask & -field.mask).bit_length() - 1
    return f"{value:#x}" if field.form == "x" else str(value)


def _compare(field: Field, mask: int, value: int) -> str:
    """A masked comparison of a whole or a part of a field."""
    if mask == field.mask:
        return f"{field.name} == {_show(field, value)}"
    prefix = mask.bit_count()
    if field.form in ("ip", "ip6") and mask == field.mask ^ (1 << 8 * field.size - prefix) - 1:
        return f"{field.name} in {_show(field, value)}/{prefix}"
    return f"{field.name} & {mask:#x} == {value:#x}"


def _rest(name: str, mask: int, value: int) -> Iterator[str]:
    """What has no name: runs of masked bytes, up to four at a time."""
    offset = 0
    while mask >> 8 * offset:
        if not mask >> 8 * offset & 0xFF:
            offset += 1
            continue
        size = next(n for n in range(4, 0, -1) if mask >> 8 * (offset + n - 1) & 0xFF)
        m, v = (
            int.from_bytes((x >> 8 * offset & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")
            for x in (mask, value)
        )
        suffix = "" if m == (1 << 8 * size) - 1 else f" & {m:#x}"
        yield f"{name}[{offset}:{size}]{suffix} == {v:#x}"
        offset += size


def fixed_value(bits: Mapping[int, tuple[int, int]], name: str) -> int | None:
    """The one value of the field `name`, as "udp.dport", in a box; None where it leaves a choice."""
    for space, (mask, value) in bits.items():
        for field in _fields_of(bits, space) if space >= 0 else ():
            if field.name == name and _big(mask, field.offset, field.size) & field.mask == field.mask:
                return _big(value, field.offset, field.size) & field.mask
    return None


def _named(bits: Mapping[int, tuple[int, int]], field: span.Field) -> tuple[Field, int] | None:
    """The named field that these bytes are (a word of), and the first of its bytes that they are."""
    for named in _fields_of(bits, field.space) if field.space != span.LENGTH else ():
        first = field.offset - named.offset
        whole = first == 0 and named.size == field.size and named.mask == field.most
        if whole or (named.form == "ip6" and field.size == 4 and first in (0, 4, 8, 12)):
            return named, first
    return None


def named_fields(bits: Mapping[int, tuple[int, int]], space: int, touched: int) -> Iterator[tuple[span.Field, bool]]:
    """The fields with touched bits that can lie in an interval, and whether people give ranges or prefixes of them."""
    for start, fields in _layers(bits, space):
        for named in fields:
            at = start + named.offset
            if not touched >> 8 * at & (1 << 8 * named.size) - 1:
                continue
            if named.form == "ip6":
                yield from ((span.Field(space, at + word, 4), True) for word in (0, 4, 8, 12))
            elif named.size in (1, 2, 4) and named.mask == (1 << 8 * named.size) - 1:
                yield span.Field(space, at, named.size), named.form == "ip" or named.name.endswith("port")


def describe_interval(bits: Mapping[int, tuple[int, int]], interval: span.Interval) -> str | None:
    """`tcp.dport 1000..2000`, with the names that the box gives its bytes. None: a prefix of an address, which
    describe_term shows better.
    """
    field, low, high = interval
    if field.space == span.LENGTH:
        return f"length {low}..{high}"
    found = _named(bits, field)
    if found is None:
        return f"{_space_name(field.space)}[{field.offset}:{field.size}] {low:#x}..{high:#x}"
    named, first = found
    if named.form in ("ip", "ip6") and len(list(interval.prefixes())) == 1:
        return None
    if named.form == "ip6":
        return f"{named.name}[{first}:4] {low:#x}..{high:#x}"
    return f"{named.name} {_show(named, low)}..{_show(named, high)}"


def _space_name(space: int) -> str:
    return "frame" if space == 0 else f"l4@{space}" if space != 14 else "l4"


def describe_term(bits: Mapping[int, tuple[int, int]], space: int, mask: int, value: int) -> Iterator[str]:
    """The comparisons that a term makes, with the names that the box `bits` gives its bytes."""
    if space < span.LENGTH:
        yield "its program takes it" if value else "its program refuses it"
        return
    if space == span.LENGTH:
        yield f"length == {value}" if mask == span.LENGTH_FIELD.most else f"length & {mask:#x} == {value}"
        return
    for field in _fields_of(bits, space):
        m, v = (_big(b, field.offset, field.size) & field.mask for b in (mask, value))
        if m:
            yield _compare(field, m, v)
            covered = int.from_bytes(field.mask.to_bytes(field.size, "big"), "little") << 8 * field.offset
            mask, value = mask & ~covered, value & ~covered
    yield from _rest(_space_name(space), mask, value)
