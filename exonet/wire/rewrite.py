# SPDX-License-Identifier: MIT
"""What a replay rewrites in its frames, as text and as `struct exo_rewrite`."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from exonet.abi import ffi, lib
from exonet.errors import UsageError

__all__ = ["PortMap", "PrefixMap", "Rewrite", "parse_mac", "parse_prefix"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAC = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}", re.IGNORECASE)


def parse_mac(text: str) -> bytes:
    """Six bytes of `02:00:00:00:00:01`. Raises UsageError."""
    if not _MAC.fullmatch(text):
        raise UsageError(f'MAC address "{text}": must be six hexadecimal bytes, as 02:00:00:00:00:01')
    return bytes.fromhex(re.sub("[:-]", "", text))


def parse_prefix(text: str) -> Network:
    """`10.0.0.0/8`, `2001:db8::/32`, or one address. Raises UsageError."""
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError as error:
        raise UsageError(f'network "{text}": {error}; must be as 10.0.0.0/8 or 2001:db8::/32') from None
    if "%" in text:
        raise UsageError(f'network "{text}": must have no zone')
    return network


def _number(text: str, least: int, most: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise UsageError(f'{what} "{text}": must be {least}..{most}')
    return int(text)


@dataclass(frozen=True, slots=True)
class PrefixMap:
    """Addresses in `source` get the prefix of `target`; as tcprewrite's --pnat, the lengths may differ."""

    source: Network
    target: Network

    @classmethod
    def parse(cls, text: str) -> Self:
        """`10.0.0.0/8:192.168.0.0/16`; IPv6 in brackets: `[2001:db8::/32]:[fd00::/32]`."""
        parts = re.findall(r"\[[^]]*\]", text) if "[" in text else text.split(":")
        if len(parts) != 2:
            example = "10.0.0.0/8:192.168.0.0/16 or [2001:db8::/32]:[fd00::/32]"
            raise UsageError(f'address map "{text}": must be FROM:TO, as {example}')
        source, target = parse_prefix(parts[0]), parse_prefix(parts[1])
        if source.version != target.version:
            raise UsageError(f'address map "{text}": both sides must be IPv4, or both IPv6')
        return cls(source, target)


@dataclass(frozen=True, slots=True)
class PortMap:
    """Ports `first`..`last` become `to`."""

    first: int
    last: int
    to: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`80:8080` or `8000-8099:80`."""
        source, colon, target = text.partition(":")
        first, dash, last = source.partition("-")
        if not colon:
            raise UsageError(f'port map "{text}": must be FROM:TO, as 80:8080 or 8000-8099:80')
        low = _number(first, 0, 65535, "port")
        return cls(low, _number(last, low, 65535, "port") if dash else low, _number(target, 0, 65535, "port"))


@dataclass(frozen=True, slots=True)
class Rewrite:
    """MACs, VLAN tag, addresses, ports, time to live. Nothing set: nothing is changed.

    vlan: 0..4095 sets the outer tag's number, or tags the frame; "strip" takes the outer tag away. The first map that
    fits counts.
    """

    source_mac: bytes | None = None
    destination_mac: bytes | None = None
    vlan: int | str | None = None
    ttl: int | None = None
    addresses: tuple[PrefixMap, ...] = ()
    ports: tuple[PortMap, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("source", self.source_mac), ("destination", self.destination_mac)):
            if value is not None and len(value) != 6:
                raise UsageError(f"{name} MAC {value!r}: must be six bytes")
        if not (self.vlan in (None, "strip") or (isinstance(self.vlan, int) and 0 <= self.vlan <= 4095)):
            raise UsageError(f'VLAN "{self.vlan}": must be 0..4095 or strip')
        if self.ttl is not None and not 0 <= self.ttl <= 255:
            raise UsageError(f"time to live {self.ttl}: must be 0..255")
        for kind, maps in (("address", self.addresses), ("port", self.ports)):
            if len(maps) > lib.EXO_MAX_MAPS:
                raise UsageError(f"{len(maps)} {kind} maps: {lib.EXO_MAX_MAPS} are the most")

    @classmethod
    def parse(cls, texts: str | Iterable[str]) -> Self:
        """`smac=…`, `dmac=…`, `vlan=N|strip`, `ttl=N`, `ip=FROM:TO`, `port=FROM:TO`; commas or a list for several."""
        result = cls()
        for text in [texts] if isinstance(texts, str) else texts:
            for item in text.split(","):
                result = result._with(item.strip())
        return result

    def _with(self, item: str) -> Self:
        name, equals, value = item.partition("=")
        match name if equals else None:
            case "smac":
                return replace(self, source_mac=parse_mac(value))
            case "dmac":
                return replace(self, destination_mac=parse_mac(value))
            case "vlan":
                return replace(self, vlan=value if value == "strip" else _number(value, 0, 4095, "VLAN"))
            case "ttl":
                return replace(self, ttl=_number(value, 0, 255, "time to live"))
            case "ip":
                return replace(self, addresses=(*self.addresses, PrefixMap.parse(value)))
            case "port":
                return replace(self, ports=(*self.ports, PortMap.parse(value)))
        known = "smac=MAC, dmac=MAC, vlan=N, vlan=strip, ttl=N, ip=FROM:TO or port=FROM:TO"
        raise UsageError(f'rewrite "{item}": must be {known}')

    def fill(self, native: Any, *, fix_checksums: bool = False) -> None:
        """Writes this into a zeroed `struct exo_rewrite`."""
        flags = lib.EXO_REWRITE_CHECKSUMS if fix_checksums else 0
        if self.source_mac is not None:
            flags |= lib.EXO_REWRITE_SOURCE_MAC
            native.source_mac = list(self.source_mac)
        if self.destination_mac is not None:
            flags |= lib.EXO_REWRITE_DESTINATION_MAC
            native.destination_mac = list(self.destination_mac)
        if isinstance(self.vlan, int):
            flags |= lib.EXO_REWRITE_VLAN_SET
            native.vlan = self.vlan
        elif self.vlan == "strip":
            flags |= lib.EXO_REWRITE_VLAN_STRIP
        if self.ttl is not None:
            flags |= lib.EXO_REWRITE_TTL
            native.ttl = self.ttl
        native.flags = flags
        native.prefix_maps = len(self.addresses)
        for row, addresses in zip(native.prefix_map, self.addresses, strict=False):
            source, target = addresses.source, addresses.target
            row.family = source.version
            row.from_bits = source.prefixlen
            row.to_bits = target.prefixlen
            ffi.memmove(ffi.addressof(row, "from"), source.network_address.packed, source.max_prefixlen // 8)
            ffi.memmove(ffi.addressof(row, "to"), target.network_address.packed, source.max_prefixlen // 8)
        native.port_maps = len(self.ports)
        for row, ports in zip(native.port_map, self.ports, strict=False):
            row.first, row.last, row.to = ports.first, ports.last, ports.to
