# SPDX-License-Identifier: MIT
"""The local side: what an environment may say it is when it sends (R11), the `struct exo_local` of a
capability.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any

from exonet.errors import UsageError

__all__ = ["EVERY_STATION", "LocalSide", "mac_bytes"]

EVERY_STATION = bytes(6)


def mac_bytes(text: str | bytes) -> bytes:
    """Six bytes of "02:00:00:00:00:01"; UsageError."""
    if isinstance(text, bytes):
        if len(text) == 6:
            return text
        raise UsageError(f"MAC {text.hex()}: must be 6 bytes")
    parts = text.split(":")
    try:
        raw = bytes.fromhex("".join(part.zfill(2) for part in parts))
    except ValueError:
        raw = b""
    if len(parts) != 6 or len(raw) != 6:
        raise UsageError(f"MAC {text!a}: must be six bytes in hexadecimal, as 02:00:00:00:00:01")
    return raw


@dataclass(frozen=True, slots=True)
class LocalSide:
    """One row of what may be sent on `port`. Ranges are inclusive; 0 and None are "all" where `struct exo_local` says
    so.

    `any`: every local side: the whole space, granted explicitly. family 0: any frame from `mac` of `ethertype`.
    mac EVERY_STATION: from whatever station, as in a replay, where a LibOS answers for those that were recorded.
    """

    mac: bytes
    port: int = 0
    any: bool = False
    address: str | None = None
    prefix: int | None = None
    protocol: int = 0
    port_low: int = 0
    port_high: int = 65535
    ethertype: int = 0

    def __post_init__(self) -> None:
        if len(self.mac) != 6:
            raise UsageError(f"local side: MAC {self.mac.hex()}: must be 6 bytes")
        if not 0 <= self.port_low <= self.port_high <= 65535:
            raise UsageError(f"local side: ports {self.port_low}..{self.port_high}: must rise within 0..65535")
        if not 0 <= self.protocol <= 255 or not 0 <= self.ethertype <= 65535:
            raise UsageError(f"local side: protocol {self.protocol}, ethertype {self.ethertype}: out of range")
        if self.address is None:
            return
        try:
            bits = ipaddress.ip_address(self.address).max_prefixlen
        except ValueError:
            raise UsageError(f"local side: address {self.address!a}: must be an IPv4 or IPv6 address") from None
        if "%" in self.address:
            raise UsageError(f"local side: address {self.address!a}: must have no zone")
        if self.prefix is not None and not 0 <= self.prefix <= bits:
            raise UsageError(f"local side: prefix {self.prefix}: must be 0..{bits}")

    @property
    def family(self) -> int:
        return 0 if self.address is None else ipaddress.ip_address(self.address).version

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
        """The addresses it may send from."""
        if self.address is None:
            return None
        bits = ipaddress.ip_address(self.address).max_prefixlen
        return ipaddress.ip_network((self.address, bits if self.prefix is None else self.prefix), strict=False)

    def covers(self, other: "LocalSide") -> bool:
        """May everything that `other` lets through be sent from this side too?"""
        if self.port != other.port:
            return False
        if self.any:
            return True
        if other.any or self.mac not in (EVERY_STATION, other.mac):
            return False
        mine, theirs = self.network, other.network
        if mine is None:
            return theirs is None and self.ethertype in (0, other.ethertype) if self.ethertype else True
        if theirs is None or mine.version != theirs.version:
            return False
        inside = (
            mine.network_address <= theirs.network_address  # type: ignore[operator]  # versions are equal
            and theirs.broadcast_address <= mine.broadcast_address  # type: ignore[operator]
        )
        ports = self.port_low <= other.port_low and other.port_high <= self.port_high
        return inside and ports and self.protocol in (0, other.protocol)

    def owns(self, address: str) -> bool:
        """Is `address` one of this side's, so that it may own its ARP and neighbour discovery?"""
        if self.any:
            return True
        network = self.network
        return network is not None and ipaddress.ip_address(address) in network

    def fill(self, row: Any) -> None:
        """Writes itself into a `struct exo_local`."""
        network = self.network
        packed = b"" if network is None else network.network_address.packed
        row.mac = self.mac
        row.any = self.any
        row.family = self.family
        row.address = packed.ljust(16, b"\0")
        row.prefix = 0 if network is None else network.prefixlen
        row.protocol = self.protocol
        row.port_low, row.port_high = self.port_low, self.port_high
        row.ethertype = self.ethertype
        row.port = self.port

    def to_list(self) -> list[Any]:
        return [
            self.mac.hex(),
            self.port,
            self.any,
            self.address,
            self.prefix,
            self.protocol,
            self.port_low,
            self.port_high,
            self.ethertype,
        ]

    @classmethod
    def from_list(cls, row: list[Any]) -> "LocalSide":
        return cls(bytes.fromhex(row[0]), *row[1:])

    def __str__(self) -> str:
        if self.any:
            return f"any on port {self.port}"
        text = "every station" if self.mac == EVERY_STATION else self.mac.hex(":")
        if self.address is not None:
            text += f" {self.network}"
        if self.protocol:
            text += f" protocol {self.protocol}"
        if (self.port_low, self.port_high) != (0, 65535):
            text += f" ports {self.port_low}..{self.port_high}"
        return text + (f" ethertype {self.ethertype:#06x}" if self.ethertype else "")
