# SPDX-License-Identifier: MIT
"""What a machine and its LibOSes are to be: the operator's word, before anything is built."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exonet.clock import SPIN_NS, Clock
from exonet.errors import UsageError
from exonet.kernel.capability import Quota
from exonet.kernel.environment import Rings
from exonet.kernel.localside import EVERY_STATION, LocalSide, mac_bytes
from exonet.kernel.schedule import CostModel, InterruptMode, Slice

__all__ = ["LibOSSpec", "MachineConfig"]

SPIN_FOREVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """pages: physical pages of 4 KiB. spin_ns: how long the live loop polls without work before it sleeps. core: the
    kernel's thread has it to itself, LibOS processes share the others; None: wherever they are put.

    costs, interrupt_mode, budget (frames polled before LibOSes get a turn) and slices matter on the virtual clock only.
    """

    clock: Clock = Clock.MONOTONIC
    pages: int = 65536
    seed: int = 1
    spin_ns: int = SPIN_NS
    core: int | None = None
    costs: CostModel = field(default_factory=CostModel)
    interrupt_mode: InterruptMode = InterruptMode.BUDGET
    budget: int = 64
    slices: tuple[Slice, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.pages <= 1 << 24:
            raise UsageError(f"pages {self.pages}: must be 1..{1 << 24}")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"seed {self.seed}: must be 0..{(1 << 64) - 1}")


@dataclass(frozen=True, slots=True)
class LibOSSpec:
    """One LibOS and what it is granted.

    bindings: filters it binds; their union is the region of its capability. addresses: its own, with prefix, as in
    "10.7.0.2/24". mac: its own station address; None: it shares the port's. local: "any" grants every local side
    (replay), "own" the addresses above (with any_address: from every station), "none" no right to send.
    shared: its region may overlap another LibOS's; bindings are disjoint or nested all the same.
    entries: of each ring, a power of two, 8..32768. options: the LibOS's own, refused where it declares which it has
    and they are not among them. serves: the UDP ports that its filters name, its option `port` if it has that one and
    nothing else is said.
    """

    name: str
    libos: str = "sink"
    bindings: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    gateway: str | None = None
    mtu: int = 1500
    vlan: int = 0
    local: str = "own"
    any_address: bool = False
    groups: str = "stack"
    shared: bool = False
    process: bool = False
    entries: int = 1024
    receive_buffers: int = 512
    transmit_buffers: int = 256
    options: Mapping[str, Any] = field(default_factory=dict)
    serves: tuple[int, ...] = ()
    quota: Quota = field(default_factory=Quota)

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 64 or not self.name.isprintable():
            raise UsageError(f"LibOS name {self.name!a}: must be 1..64 printable characters")
        if self.local not in ("any", "own", "none"):
            raise UsageError(f"LibOS {self.name}: local {self.local!a}: must be any, own or none")
        if not 0 <= self.vlan <= 4094:
            raise UsageError(f"LibOS {self.name}: vlan {self.vlan}: must be 1..4094, or 0 for none")
        if self.entries < 8 or self.entries > 32768 or self.entries & (self.entries - 1):
            raise UsageError(f"LibOS {self.name}: ring of {self.entries}: must be a power of two, 8..32768")
        for address in self.addresses:
            self._interface(address)

    def _interface(self, address: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        try:
            interface = ipaddress.ip_interface(address)
        except ValueError:
            raise UsageError(f"LibOS {self.name}: address {address!a}: must be one, as in 10.7.0.2/24") from None
        if "%" in address:
            raise UsageError(f"LibOS {self.name}: address {address!a}: must have no zone")
        return interface

    @property
    def interfaces(self) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
        return tuple(self._interface(address) for address in self.addresses)

    @property
    def filters(self) -> tuple[str, ...]:
        """What it binds: what was said, or else everything for its addresses."""
        return self.bindings or tuple(f"dst host {interface.ip}" for interface in self.interfaces)

    @property
    def region(self) -> str:
        """The union of its filters, as one filter."""
        return " or ".join(f"({text})" for text in self.filters) if len(self.filters) > 1 else self.filters[0]

    @property
    def rings(self) -> Rings:
        return Rings(self.entries, self.entries, self.entries, self.entries)

    def local_sides(self, mac: str, port: int) -> tuple[LocalSide, ...]:
        """What it may say it is when it sends (R11)."""
        if self.local == "any":
            return (LocalSide(mac_bytes(mac), port, any=True),)
        if self.local == "none":
            return ()
        station = EVERY_STATION if self.any_address else mac_bytes(mac)
        return tuple(LocalSide(station, port, address=str(interface.ip)) for interface in self.interfaces)

    def config(self, mac: str) -> dict[str, Any]:
        """The Welcome's configuration, for the LibOS itself."""
        return {
            "libos": self.libos,
            "mac": mac,
            "addresses": list(self.addresses),
            "gateway": self.gateway,
            "mtu": self.mtu,
            "vlan": self.vlan,
            "any_address": self.any_address,
            "bindings": list(self.filters),
            "receive_buffers": self.receive_buffers,
            "transmit_buffers": self.transmit_buffers,
            "groups": self.groups,
            "options": dict(self.options),
            "serves": list(self.serves),
        }
