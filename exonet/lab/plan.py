# SPDX-License-Identifier: MIT
"""What is to be run, as data: tenants (a LibOS, its bindings, its addresses), a machine's settings, and the sources.

The command line is parsed into these, and `lab/run.py` alone turns them into a machine. A plan is checked when it is
made: UsageError names the thing, the value and what would be right.
"""

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from exonet.clock import SPIN_NS, Clock
from exonet.errors import UsageError

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
NAME_RULE = 'which has 1 to 64 letters, digits, ".", "_", ":" and "-", and begins with a letter or digit'
#: An option, of whatever name.
_WORD = re.compile(r"[A-Za-z][\w-]*(?:\s*=(?!=).*)?", re.DOTALL)
_ZONE = re.compile("%[^/]*")
_FLAGS = ("process", "inline")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_KEYS = ("stack", "local", "port", "side", "mac", "buffers")
_LOCALS = ("any", "none")
SIDES = ("clients", "servers")
#: Of IP packets, bytes: with an Ethernet header the longest is a frame of 65,535.
MTU_MIN, MTU_MAX, DEFAULT_MTU = 68, 65521, 1500


@dataclass(frozen=True, slots=True)
class Tenant:
    """An environment to be: its LibOS and what it is bound to. process None: as the clock has it.

    local: "any" or "none", where its addresses do not say it; None: as the source has it. ports: the UDP ports that
    its LibOS serves, () those that its filters name. side: of a two-sided replay, None: both. said: the options that
    were given, with their values.
    """

    name: str
    bindings: tuple[str, ...]
    stack: str = "sink"
    process: bool | None = None
    addresses: tuple[str, ...] = ()
    local: str | None = None
    ports: tuple[int, ...] = ()
    side: str | None = None
    mac: str | None = None
    buffers: int | None = None
    said: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @classmethod
    def parse_binding(cls, text: str) -> "Tenant":
        """`NAME=FILTER[,stack=LIBOS][,process|inline][,local=ADDRESS/PLEN|any|none][,port=N][,side=clients|servers]…`.

        Options are taken from the right while they are known words, so a filter may hold commas of its own.
        """
        name, equals, rest = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            why = f'"{name}" is no name, {NAME_RULE}; ' if equals else ""
            raise UsageError(
                f'binding "{text}": {why}'
                "it must be NAME=FILTER, as in web='tcp port 80' or dns='udp port 53,stack=echo'"
            )
        parts = rest.split(",")
        options: list[str] = []
        while len(parts) > 1 and _is_option(parts[-1].strip()):
            options.insert(0, parts.pop().strip())
        if len(parts) > 1 and _WORD.fullmatch(parts[-1].strip()):  # no filter in either language ends so
            raise _no_option(f"--bind {name}", parts[-1].strip())
        filter_text = ",".join(parts).strip()
        if not filter_text:
            raise UsageError(
                f"binding \"{text}\": the filter is empty; write e.g. {name}='tcp port 80', or "
                f"{name}='ip or not ip' for everything"
            )
        return cls(name, (filter_text,)).with_options(options, f'binding "{text}"')

    @classmethod
    def parse_libos(cls, text: str, network: "Networks") -> "Tenant":
        """`LIBOS@ADDRESS[+ADDRESS…][,process|inline][,mac=MAC][,buffers=N]`; a prefix length comes from `network`."""
        head, *options = (part.strip() for part in text.split(","))
        stack, at, addresses = head.partition("@")
        if not at or not _NAME.fullmatch(stack) or not addresses:
            raise UsageError(f'LibOS "{text}": it must be LIBOS@ADDRESS, as in echo@10.7.0.2')
        interfaces = [network.interface(address) for address in addresses.split("+")]
        bindings = tuple(f"dst host {i.ip}" for i in interfaces)  # answers to its ARP requests too
        tenant = cls(f"{stack}-{interfaces[0].ip}", bindings, stack, addresses=tuple(str(i) for i in interfaces))
        return tenant.with_options(options, f'LibOS "{text}"')

    def with_own_mac(self, number: int) -> "Tenant":
        """A station address of its own, locally administered, unless it has one."""
        return self if self.mac else replace(self, mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}")

    def with_options(self, options: list[str], what: str) -> "Tenant":
        tenant = self
        for option in options:
            key, equals, value = option.partition("=")
            if option in _FLAGS:
                tenant = replace(tenant._saying("mode", option, what), process=option == "process")
            elif equals and key in _KEYS:
                tenant = tenant._with(key, value.strip(), what)
            else:
                raise _no_option(what, option)
        return tenant

    def _with(self, key: str, value: str, what: str) -> "Tenant":
        if key == "mac":
            value = parse_mac(value, what)
        if key == "side" and value not in SIDES:
            raise UsageError(f'{what}: side "{value}": it must be {" or ".join(SIDES)}')
        if key == "local" and value not in _LOCALS:
            value = str(parse_interface(value, what))
            return replace(self._saying(key, value, what), addresses=_added(self.addresses, (value,)))
        if key == "port":
            port = parse_count(value, f"{what}: port", 1, 65535)
            return replace(self._saying(key, str(port), what), ports=_added(self.ports, (port,)))
        if key == "buffers":
            buffers = parse_count(value, f"{what}: buffers", 1, 32768)
            return replace(self._saying(key, str(buffers), what), buffers=buffers)
        changes: dict[str, Any] = {key: value}
        return replace(self._saying(key, value, what), **changes)

    def _saying(self, key: str, value: str, what: str) -> "Tenant":
        """UsageError where another value was given before, and there is but one."""
        several = key == "port" or (key == "local" and value not in _LOCALS)
        for other, before in self.said:
            if other == key and before != value and not (several and before not in _LOCALS):
                if key == "mode":
                    raise UsageError(f"{what}: it is process or inline, not both")
                raise UsageError(f"{what}: {key}={before} and {key}={value}: it must be one of them")
        return replace(self, said=_added(self.said, ((key, value),)))

    def merged(self, other: "Tenant") -> "Tenant":
        """Another --bind of the same name adds its filter and its options. UsageError where they contradict."""
        tenant = self
        for key, value in other.said:
            tenant = tenant._saying(key, value, f"--bind {self.name}")
        given = {"process" if key == "mode" else key for key, _ in other.said}
        alone = given & {"process", "stack", "local", "side", "mac", "buffers"}
        return replace(
            tenant,
            bindings=self.bindings + other.bindings,
            addresses=_added(self.addresses, other.addresses),
            ports=_added(self.ports, other.ports),
            **{key: getattr(other, key) for key in alone},
        )


def _added(there: tuple[T, ...], more: tuple[T, ...]) -> tuple[T, ...]:
    """Each once, in the order in which they came."""
    return tuple(dict.fromkeys(there + more))


def _no_option(what: str, option: str) -> UsageError:
    known = ", ".join([*_FLAGS, *(f"{key}=…" for key in _KEYS)])
    return UsageError(f'{what}: "{option.partition("=")[0].rstrip()}" is no option; the options are {known}')


def _is_option(part: str) -> bool:
    return part in _FLAGS or (part.partition("=")[0] in _KEYS and "=" in part)


def merge(tenants: list[Tenant]) -> tuple[Tenant, ...]:
    """One tenant per name, in the order in which the names first came."""
    by_name: dict[str, Tenant] = {}
    for tenant in tenants:
        by_name[tenant.name] = by_name[tenant.name].merged(tenant) if tenant.name in by_name else tenant
    return tuple(by_name.values())


@dataclass(frozen=True, slots=True)
class Networks:
    """The host's addresses on a TAP: where a LibOS's address gets its prefix length from."""

    hosts: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]

    @classmethod
    def parse(cls, texts: list[str]) -> "Networks":
        hosts = tuple(parse_interface(text, "--host", need_prefix=True) for text in texts)
        for host in hosts:
            check_station(host, f"--host {host}")
        return cls(hosts)

    def interface(self, text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        interface = parse_interface(text, "LibOS address")
        if "/" not in text:
            for host in self.hosts:
                if host.version == interface.version and interface.ip in host.network:
                    interface = ipaddress.ip_interface(f"{interface.ip}/{host.network.prefixlen}")
        check_station(interface, f"LibOS address {text}")
        for host in self.hosts:
            if interface.ip == host.ip:
                raise UsageError(f"LibOS address {text}: it is the host's own (--host {host})")
        if self.hosts and not any(
            host.version == interface.version and interface.ip in host.network for host in self.hosts
        ):
            nets = ", ".join(str(host.network) for host in self.hosts)
            raise UsageError(f"LibOS address {text}: the host cannot reach it; it must lie in {nets}")
        return interface


def parse_interface(
    text: str, what: str, *, need_prefix: bool = False
) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        interface = ipaddress.ip_interface(text.strip())
    except ValueError:
        raise UsageError(f'{what}: "{text}" is not an address; write e.g. 10.7.0.2/24 or fd07::2/64') from None
    if "%" in text:
        raise UsageError(f'{what}: "{text}": an address has no zone here; write {_ZONE.sub("", text)}')
    if need_prefix and "/" not in text:
        raise UsageError(
            f"{what}: {text} has no prefix length; write e.g. {text}/{24 if interface.version == 4 else 64}"
        )
    return interface


def check_station(interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface, what: str) -> None:
    """UsageError where no station can have the address."""
    address, network = interface.ip, interface.network
    if address.is_multicast or address.is_unspecified or address.is_loopback or address == _BROADCAST:
        raise UsageError(f"{what}: no station can have it; write a unicast address, e.g. 10.7.0.2 or fd07::2")
    ends = {network.network_address: "the network itself", network.broadcast_address: "its broadcast address"}
    if interface.version == 4 and network.prefixlen < 31 and address in ends:
        first, last = network.network_address + 1, network.broadcast_address - 1
        raise UsageError(f"{what}: in {network} it is {ends[address]}; it must be {first}..{last}")


def parse_mac(text: str, what: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise UsageError(f'{what}: "{text}" is not a MAC address; write e.g. 02:00:00:00:00:02')
    if not int(text.replace(":", ""), 16):
        raise UsageError(f"{what}: {text} is no station's address; write e.g. 02:00:00:00:00:02")
    if int(text[:2], 16) & 1:
        raise UsageError(
            f"{what}: {text} is a group address; a station's has an even first byte, e.g. 02:00:00:00:00:02"
        )
    return text.lower()


def parse_count(text: str, what: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UsageError(f'{what}: "{text}" must be a whole number, {low}..{high}')
    return value


def parse_ring(text: str, what: str) -> int:
    """A ring's size: a power of two, 8..32768."""
    value = parse_count(text, what, 8, 32768)
    bits = value.bit_length()
    if value & (value - 1):
        raise UsageError(f"{what}: {value} is not a power of two; near it are {1 << bits - 1} and {1 << bits}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The machine of a run, beside its wires and tenants."""

    clock: Clock = Clock.MONOTONIC
    seed: int = 1
    pages: int = 65536
    rings: int = 1024
    buffers: int | None = None
    descriptors: int = 1024
    fifo_bytes: int = 65536
    queues: int = 1
    nic_mode: str = "drop"
    spin_ns: int = SPIN_NS
    core: int | None = None
    costs: str = "host"
    slices: str = ""
    interrupt: str = "poll"
    budget: int = 64
    duration_ns: int | None = None
    impair: str | None = None
    pcap_out: Path | None = None
    fates: Path | None = None
    trace: Path | None = None

    def buffers_of(self, tenant: Tenant) -> int:
        """Receive buffers a tenant posts: its own word, the run's, or all that its ring takes."""
        return tenant.buffers or self.buffers or self.rings

    def is_process(self, tenant: Tenant) -> bool:
        if self.clock is Clock.VIRTUAL:
            if tenant.process:
                raise UsageError(f"{tenant.name}: a LibOS on the virtual clock runs inline; leave out ,process")
            return False
        return tenant.process is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSource:
    """A capture to replay, and how. mtu: what the NIC takes; None: frames of up to 9,728 bytes, as it comes. resegment:
    longer packets are cut, at 1,500 bytes where no MTU is said.
    """

    path: Path
    speed: str = "x1"
    loop: int = 1
    shift: bool = False
    limit: int | None = None
    max_gap_ns: int | None = None
    include: str | None = None
    exclude: str | None = None
    rewrite: tuple[str, ...] = ()
    fix_checksums: bool = False
    memory: int = 1 << 30
    mtu: int | None = None
    resegment: bool = False
    two_sided: bool = False
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TapSource:
    """A TAP device to make or attach to."""

    name: str
    hosts: tuple[str, ...] = ()
    namespace: str | None = None
    mtu: int = DEFAULT_MTU
    ipv6: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole run. `command`: what a person typed, for the JSON."""

    source: TraceSource | TapSource
    tenants: tuple[Tenant, ...]
    settings: Settings = field(default_factory=Settings)
    command: tuple[str, ...] = ()
