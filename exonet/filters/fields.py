# SPDX-License-Identifier: MIT
"""Filters as Python expressions over named header fields: `(Udp.dport == 53) & Ip.src.within("10.0.0.0/8")`.

An expression is pcap-filter text in the making, so it means what libpcap makes of that text: `Udp.dport == 53` is `udp
dst port 53`, over IPv4 (not a later fragment) or IPv6. A comparison implies that the field is there: `Udp.dport != 53`
takes UDP only. `Vlan.id`, like libpcap's `vlan`, makes what stands to the right of it look behind the tag. FilterError
where a value is out of the field's range.

Operators: == != < <= > >= on a field or on `field & mask`; `.between(a, b)`, `.one_of([...])`,
`.within("10.0.0.0/8")`, `.has(bits)`; & | ~ on expressions. Python's `and`, `or`, `not`, `in` work in text
(syntax.py), not on objects.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from exonet.errors import FilterError
from exonet.filters.written import SHOWN, FieldError, said, written
from exonet.wording import shown

Operand = int | str


@dataclass(frozen=True, slots=True)
class Expression:
    """A filter: pcap-filter text. Combine with & | ~."""

    text: str

    def __and__(self, other: "Expression") -> "Expression":
        return Expression(f"({self.text} and {_expression(other).text})")

    def __or__(self, other: "Expression") -> "Expression":
        return Expression(f"({self.text} or {_expression(other).text})")

    def __invert__(self) -> "Expression":
        return Expression(f"not {self.text}")

    def __bool__(self) -> bool:
        raise FilterError(f'filter "{shown(self.text)}": combine with & | ~ in parentheses, not with and, or, not, in')

    def __str__(self) -> str:
        return self.text


def _expression(value: object) -> Expression:
    if isinstance(value, Expression):
        return value
    raise FilterError(
        f"filter: {said(value)} is not a comparison; put parentheses around each comparison beside & and |"
    )


def _any(parts: list[str]) -> Expression:
    return Expression(f"({' or '.join(parts)})")


class Field:
    """A number in a header: `name`, its width in bits, and where pcap-filter finds it (one access per way it can lie).

    An access is (condition, text of the value); the condition may be empty.
    """

    __slots__ = ("_accesses", "_bits", "name")

    def __init__(self, name: str, bits: int, *accesses: tuple[str, str]) -> None:
        self.name = name
        self._bits = bits
        self._accesses = accesses

    def number(self, value: Operand) -> int:
        """The operand as a number in the field's range; FilterError otherwise."""
        limit = (1 << self._bits) - 1
        if isinstance(value, bool) or not isinstance(value, int):
            raise FieldError(f"{self.name} {said(value)}: must be a number 0..{limit}")
        if not 0 <= value <= limit:
            raise FieldError(f"{self.name} {said(value)}: must be 0..{limit}")
        return value

    def _relation(self, relation: str, value: int, mask: int | None = None) -> Expression:
        parts = []
        for condition, access in self._accesses:
            left = access if mask is None else f"{access} & {mask:#x}"
            comparison = f"{left} {relation} {value}"
            parts.append(f"({condition} and {comparison})" if condition else comparison)
        return _any(parts)

    @written("{0.name} == {1}")
    def __eq__(self, value: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self.equal(value)  # type: ignore[arg-type]  # number() refuses what is not an operand

    @written("{0.name} != {1}")
    def __ne__(self, value: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self._relation("!=", self.number(value))  # type: ignore[arg-type]  # as above

    __hash__ = None  # type: ignore[assignment]  # == does not compare

    @written("{0.name} < {1}")
    def __lt__(self, value: Operand) -> Expression:
        return self._relation("<", self.number(value))

    @written("{0.name} <= {1}")
    def __le__(self, value: Operand) -> Expression:
        return self._relation("<=", self.number(value))

    @written("{0.name} > {1}")
    def __gt__(self, value: Operand) -> Expression:
        return self._relation(">", self.number(value))

    @written("{0.name} >= {1}")
    def __ge__(self, value: Operand) -> Expression:
        return self._relation(">=", self.number(value))

    @written("{0.name} & {1}")
    def __and__(self, mask: int) -> "Masked":
        if not isinstance(mask, int):
            raise FieldError(f"{self.name} & {said(mask)}: put parentheses around each comparison beside &")
        return Masked(self, self.number(mask))

    def equal(self, value: Operand) -> Expression:
        return self._relation("=", self.number(value))

    def masked(self, mask: int, relation: str, value: Operand) -> Expression:
        """`field & mask relation value`."""
        return self._relation(relation, self.number(value), mask)

    @written("{0.name}.between({1}, {2})")
    def between(self, low: Operand, high: Operand) -> Expression:
        """low <= field <= high."""
        first, last = self.number(low), self.number(high)
        if first > last:
            raise FieldError(
                f"{self.name}.between({said(low)}, {said(high)}): the first must not be greater than the last"
            )
        parts = []
        for condition, access in self._accesses:
            comparison = f"{access} >= {first} and {access} <= {last}"
            parts.append(f"({condition} and {comparison})" if condition else f"({comparison})")
        return _any(parts)

    @written("{0.name}.one_of({1})")
    def one_of(self, values: Iterable[Operand]) -> Expression:
        """field == one of the values."""
        parts = [self.equal(value).text for value in values]
        if not parts:
            raise FieldError(f"{self.name}.one_of([]): there must be a value")
        return _any(parts)

    @written("{0.name}.has({1})")
    def has(self, bits: int) -> Expression:
        """All of these bits are set."""
        return self.masked(self.number(bits), "=", bits)

    @written("{0.name}.within({1})")
    def within(self, prefix: str) -> Expression:
        raise FieldError(f"{self.name}.within({said(prefix)}): only addresses have prefixes")


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """`field & mask`, to be compared with == or !=."""

    field: Field
    mask: int

    @written("{0.field.name} & {0.mask:#x} == {1}")
    def __eq__(self, value: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self.field.masked(self.mask, "=", value)  # type: ignore[arg-type]  # number() refuses other types

    @written("{0.field.name} & {0.mask:#x} != {1}")
    def __ne__(self, value: object) -> Expression:  # type: ignore[override]  # builds an expression
        return self.field.masked(self.mask, "!=", value)  # type: ignore[arg-type]  # as above

    __hash__ = None  # type: ignore[assignment]  # == does not compare


class Port(Field):
    """A UDP or TCP port, over IPv4 and IPv6."""

    __slots__ = ("_primitive",)

    def __init__(self, name: str, protocol: str, number: int, side: str, offset: int) -> None:
        behind_ip6 = (f"ip6[6] = {number}", f"ip6[{40 + offset}:2]")
        super().__init__(name, 16, ("", f"{protocol}[{offset}:2]"), behind_ip6)
        self._primitive = f"{protocol} {side}"

    def equal(self, value: Operand) -> Expression:
        return Expression(f"{self._primitive} port {self.number(value)}")

    @written("{0.name}.between({1}, {2})")
    def between(self, low: Operand, high: Operand) -> Expression:
        if self.number(low) > self.number(high):
            return super().between(low, high)
        return Expression(f"{self._primitive} portrange {low}-{high}")


class Address4(Field):
    """An IPv4 address: operands are text such as "10.0.0.1"."""

    __slots__ = ()

    def number(self, value: Operand) -> int:
        try:
            return int(IPv4Address(value))
        except ValueError:
            raise FieldError(f"{self.name} {said(value)}: must be an IPv4 address such as 10.0.0.1") from None

    @written("{0.name}.within({1})")
    def within(self, prefix: str) -> Expression:
        """The address lies in a network such as "10.0.0.0/8"."""
        try:
            network = IPv4Network(prefix)
        except ValueError as reason:
            raise FieldError(f"{self.name}.within({said(prefix)}): {shown(str(reason), SHOWN)}") from None
        return self.masked(int(network.netmask), "=", str(network.network_address))


class Address6(Field):
    """An IPv6 address: == != one_of within."""

    __slots__ = ("_side",)

    def __init__(self, name: str, side: str) -> None:
        super().__init__(name, 128)
        self._side = side

    def number(self, value: Operand) -> int:
        try:
            address = IPv6Address(value)
        except ValueError:
            raise FieldError(f"{self.name} {said(value)}: must be an IPv6 address such as 2001:db8::1") from None
        if address.scope_id is not None:
            raise FieldError(f"{self.name} {said(value)}: must have no zone")
        return int(address)

    def _relation(self, relation: str, value: int, mask: int | None = None) -> Expression:
        if mask is not None or relation not in ("=", "!="):
            raise FieldError(f"{self.name}: IPv6 addresses have ==, !=, one_of and within only")
        host = f"ip6 {self._side} host {IPv6Address(value)}"
        return Expression(host if relation == "=" else f"(ip6 and not {host})")

    @written("{0.name}.between({1}, {2})")
    def between(self, low: Operand, high: Operand) -> Expression:
        return self._relation("between", self.number(low))

    @written("{0.name}.within({1})")
    def within(self, prefix: str) -> Expression:
        """The address lies in a network such as "2001:db8::/32"."""
        try:
            network = IPv6Network(prefix)
        except ValueError as reason:
            raise FieldError(f"{self.name}.within({said(prefix)}): {shown(str(reason), SHOWN)}") from None
        if network.network_address.scope_id is not None:
            raise FieldError(f"{self.name}.within({said(prefix)}): must have no zone")
        return Expression(f"ip6 {self._side} net {network}")


class Mac(Field):
    """An Ethernet address: == != one_of."""

    __slots__ = ("_side",)

    def __init__(self, name: str, side: str) -> None:
        super().__init__(name, 48)
        self._side = side

    def number(self, value: Operand) -> int:
        parts = value.replace("-", ":").split(":") if isinstance(value, str) else []
        try:
            octets = bytes(int(part, 16) for part in parts)
        except ValueError:
            octets = b""
        if len(octets) != 6 or any(not 1 <= len(part) <= 2 for part in parts):
            raise FieldError(f"{self.name} {said(value)}: must be an Ethernet address such as 02:00:00:00:00:01")
        return int.from_bytes(octets, "big")

    def _relation(self, relation: str, value: int, mask: int | None = None) -> Expression:
        if mask is not None or relation not in ("=", "!="):
            raise FieldError(f"{self.name}: Ethernet addresses have ==, != and one_of only")
        host = f"ether {self._side} {value.to_bytes(6, 'big').hex(':')}"
        return Expression(host if relation == "=" else f"not {host}")

    @written("{0.name}.between({1}, {2})")
    def between(self, low: Operand, high: Operand) -> Expression:
        return self._relation("between", self.number(low))


class VlanId(Field):
    """The outermost 802.1Q tag's identifier: == and one_of; what follows looks behind the tag."""

    __slots__ = ()

    def _relation(self, relation: str, value: int, mask: int | None = None) -> Expression:
        if mask is None and relation == "=":
            return Expression(f"vlan {value}")
        raise FieldError(f"{self.name}: has == only")

    @written("{0.name}.between({1}, {2})")
    def between(self, low: Operand, high: Operand) -> Expression:
        return self._relation("between", self.number(low))

    @written("{0.name}.one_of({1})")
    def one_of(self, values: Iterable[Operand]) -> Expression:
        chosen = list(values)
        if len(chosen) == 1:
            return self.equal(chosen[0])
        raise FieldError(f"{self.name}.one_of({said(chosen)}): a test moves what follows by a tag; bind once per value")


class Eth:
    """The Ethernet header."""

    dst = Mac("Eth.dst", "dst")
    src = Mac("Eth.src", "src")
    type = Field("Eth.type", 16, ("", "ether[12:2]"))


class Vlan:
    """The 802.1Q tag."""

    id = VlanId("Vlan.id", 12)


class Arp:
    """ARP over Ethernet for IPv4."""

    op = Field("Arp.op", 16, ("", "arp[6:2]"))
    spa = Address4("Arp.spa", 32, ("", "arp[14:4]"))
    tpa = Address4("Arp.tpa", 32, ("", "arp[24:4]"))


class Ip:
    """The IPv4 header."""

    tos = Field("Ip.tos", 8, ("", "ip[1]"))
    len = Field("Ip.len", 16, ("", "ip[2:2]"))
    ttl = Field("Ip.ttl", 8, ("", "ip[8]"))
    proto = Field("Ip.proto", 8, ("", "ip[9]"))
    src = Address4("Ip.src", 32, ("", "ip[12:4]"))
    dst = Address4("Ip.dst", 32, ("", "ip[16:4]"))


class Ip6:
    """The IPv6 header."""

    nh = Field("Ip6.nh", 8, ("", "ip6[6]"))
    src = Address6("Ip6.src", "src")
    dst = Address6("Ip6.dst", "dst")


class Udp:
    """UDP over IPv4 or IPv6."""

    sport = Port("Udp.sport", "udp", 17, "src", 0)
    dport = Port("Udp.dport", "udp", 17, "dst", 2)


class Tcp:
    """TCP over IPv4 or IPv6."""

    sport = Port("Tcp.sport", "tcp", 6, "src", 0)
    dport = Port("Tcp.dport", "tcp", 6, "dst", 2)
    flags = Field("Tcp.flags", 8, ("", "tcp[13]"), ("ip6[6] = 6", "ip6[53]"))


class Icmp:
    """ICMP."""

    type = Field("Icmp.type", 8, ("", "icmp[0]"))
    code = Field("Icmp.code", 8, ("", "icmp[1]"))


class Icmp6:
    """ICMPv6."""

    type = Field("Icmp6.type", 8, ("", "icmp6[0]"))
    code = Field("Icmp6.code", 8, ("", "icmp6[1]"))


HEADERS: tuple[type, ...] = (Eth, Vlan, Arp, Ip, Ip6, Udp, Tcp, Icmp, Icmp6)
