# SPDX-License-Identifier: MIT
"""What a LibOS is told in its Welcome: the configuration, checked once and given types.

`Settings.of(config)` takes the dict of the Welcome and raises UsageError naming the key, the value and what would be
right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any

from exonet.errors import UsageError
from libos_stacks.engine import StackConfig

__all__ = ["Settings"]

Interface = IPv4Interface | IPv6Interface
Host = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one environment and its stack.

    `groups`: "all" takes every group frame of the port, "stack" those the engine asks for. `spin`: how often an idle
    LibOS process looks at its rings before it sleeps. `options` belong to the LibOS class; `serves`: the UDP ports that
    its bindings name, for a class with an option `port` that nobody has set.
    """

    libos: str
    mac: bytes
    addresses: tuple[Interface, ...]
    gateways: tuple[Host, ...]
    mtu: int
    vlan: int
    any_address: bool
    bindings: tuple[str, ...]
    receive_buffers: int
    transmit_buffers: int
    groups: str
    spin: int
    options: Mapping[str, Any]
    serves: tuple[int, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Checks `config`; keys that are absent get the defaults of an Ethernet host."""
        options = config.get("options") or {}
        groups = str(config.get("groups", "all"))
        if groups not in ("all", "stack"):
            raise UsageError(f'groups "{groups}": must be "all" or "stack"')
        return cls(
            libos=str(config.get("libos", "echo")),
            mac=_mac(config.get("mac")),
            addresses=tuple(_interface(text) for text in config.get("addresses") or ()),
            gateways=tuple(_host(text) for text in _listed(config.get("gateway"))),
            mtu=_number(config, "mtu", 1500, 576, 65521),
            vlan=_number(config, "vlan", 0, 0, 4094),
            any_address=bool(config.get("any_address", False)),
            bindings=tuple(str(text) for text in config.get("bindings") or ()),
            receive_buffers=_number(config, "receive_buffers", 512, 1, 65536),
            transmit_buffers=_number(config, "transmit_buffers", 256, 0, 65536),
            groups=groups,
            spin=_number(options, "spin", 80000, 0, 1 << 31),
            options=options,
            serves=tuple(int(port) for port in config.get("serves") or ()),
        )

    def stack(self, seed: int) -> StackConfig:
        """What its stack is told."""
        return StackConfig(
            mac=self.mac.hex(":"),
            addresses=self.addresses,
            gateway4=next((host for host in self.gateways if isinstance(host, IPv4Address)), None),
            gateway6=next((host for host in self.gateways if isinstance(host, IPv6Address)), None),
            mtu=self.mtu,
            vlan=self.vlan,
            any_address=self.any_address,
            seed=seed,
        )

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions the stack speaks, 4 and 6: those of its addresses, or both where it answers for any."""
        if self.any_address:
            return (4, 6) if self.mtu >= 1280 else (4,)
        return tuple(sorted({address.version for address in self.addresses}))


def _listed(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _number(config: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = config.get(key, default)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{key} {value!r}: must be a number {low}..{high}")
    return value


def _mac(text: Any) -> bytes:
    try:
        mac = bytes.fromhex(str(text).replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:
        raise UsageError(f"mac {text!r}: must be six bytes of a unicast address, as in 02:00:00:00:00:01")
    return mac


def _interface(text: Any) -> Interface:
    try:
        return ip_interface(text)
    except ValueError:
        raise UsageError(f"address {text!r}: must be an address with a prefix, as in 10.7.0.2/24") from None


def _host(text: Any) -> Host:
    try:
        return ip_address(text)
    except ValueError:
        raise UsageError(f"gateway {text!r}: must be an IP address, as in 10.7.0.1") from None
