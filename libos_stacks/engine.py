# SPDX-License-Identifier: MIT
"""The stack engine's Python face: configuration, frames in and out, UDP sockets. No I/O and no clock.

Interface: `StackConfig` (from code or from a LibOS's welcome), `Engine` (one stack), `UdpSocket`, `Datagram`.
Invariant: `in_frames == delivered + Σ drops + held` after every call. Times are integer ns of the caller's clock.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any, Self

from exonet.abi import check
from exonet.closing import Closing
from exonet.errors import UsageError
from libos_stacks.abi import ffi, lib

__all__ = ["Address", "Datagram", "Engine", "Neighbour", "Reason", "StackConfig", "UdpSocket"]

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

FIRST: int = lib.EXO_R_STACK_FIRST
_SCALARS = (
    "in_frames",
    "in_bytes",
    "out_frames",
    "out_bytes",
    "out_no_buffer",
    "out_neigh_failed",
    "arp_in",
    "arp_out",
    "ndp_in",
    "ndp_out",
    "echo_in",
    "echo_out",
    "unreachable_out",
    "too_big_out",
    "fragments_in",
    "fragments_out",
    "reassembled",
    "udp_in",
    "udp_out",
    "address_conflicts",
    "errors_limited",
    "delivered",
)


Buffer = bytes | bytearray | memoryview


class Neighbour(IntEnum):
    """States of a neighbour (RFC 4861 7.3.2)."""

    FREE = lib.STK_N_FREE
    INCOMPLETE = lib.STK_N_INCOMPLETE
    REACHABLE = lib.STK_N_REACHABLE
    STALE = lib.STK_N_STALE
    DELAY = lib.STK_N_DELAY
    PROBE = lib.STK_N_PROBE
    PERMANENT = lib.STK_N_PERMANENT


class Reason(IntEnum):
    """The exo_reasons of stage STACK: what `Engine.input` returns. DELIVERED for a frame that was used or is held."""

    DELIVERED = lib.EXO_R_DELIVERED
    UNACCOUNTED = lib.EXO_R_STACK_UNACCOUNTED
    TOO_SHORT = lib.EXO_R_STACK_TOO_SHORT
    OTHERHOST = lib.EXO_R_STACK_OTHERHOST
    UNHANDLED_PROTO = lib.EXO_R_STACK_UNHANDLED_PROTO
    IP_HEADER = lib.EXO_R_STACK_IP_HEADER
    IP_CSUM = lib.EXO_R_STACK_IP_CSUM
    ICMP_CSUM = lib.EXO_R_STACK_ICMP_CSUM
    UDP_CSUM = lib.EXO_R_STACK_UDP_CSUM
    NO_SOCKET = lib.EXO_R_STACK_NO_SOCKET
    SOCKET_RCVBUFF = lib.EXO_R_STACK_SOCKET_RCVBUFF
    FRAG_REASM_TIMEOUT = lib.EXO_R_STACK_FRAG_REASM_TIMEOUT
    FRAG_REASM_FULL = lib.EXO_R_STACK_FRAG_REASM_FULL
    FRAG_OVERLAP = lib.EXO_R_STACK_FRAG_OVERLAP
    ARP_HEADER = lib.EXO_R_STACK_ARP_HEADER
    NDP_HEADER = lib.EXO_R_STACK_NDP_HEADER
    ICMP_HEADER = lib.EXO_R_STACK_ICMP_HEADER
    UDP_HEADER = lib.EXO_R_STACK_UDP_HEADER
    SNAPPED = lib.EXO_R_STACK_SNAPPED
    VLAN = lib.EXO_R_STACK_VLAN
    REFUSED = lib.EXO_R_STACK_REFUSED
    IP_INVALID_SOURCE = lib.EXO_R_STACK_IP_INVALID_SOURCE


def _packed(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _unpacked(family: int, raw: Any) -> Address:
    data = bytes(raw)
    return IPv4Address(data[:4]) if family == 4 else IPv6Address(data)


def _mac(text: str) -> bytes:
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise UsageError(f"mac {text!r}: must be six hexadecimal octets, as in 02:00:00:00:00:01")
    return mac


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What a stack is told at its start (struct stk_config). Zero means the engine's default for the sizes."""

    mac: str
    addresses: tuple[Interface, ...] = ()
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    mtu: int = 1500
    vlan: int = 0
    any_address: bool = False
    socket_bytes: int = 0
    reassembly_bytes: int = 0
    neighbours: int = 0
    seed: int = 0

    @classmethod
    def make(cls, mac: str, *addresses: str, gateway: str | None = None, **rest: Any) -> Self:
        """From text: `StackConfig.make("02:00:00:00:00:01", "10.7.0.2/24", "fd07::2/64")`.

        UsageError where one cannot be parsed.
        """
        try:
            interfaces = tuple(ip_interface(text) for text in addresses)
            router = None if gateway is None else ip_address(gateway)
        except ValueError as error:
            raise UsageError(f"address: {error}") from None
        if isinstance(router, IPv4Address):
            rest["gateway4"] = router
        elif router is not None:
            rest["gateway6"] = router
        return cls(mac, interfaces, **rest)

    def native(self) -> Any:
        """The `struct stk_config *`. Raises UsageError naming the field that is out of its range."""
        if len(self.addresses) > lib.STK_ADDRESSES:
            raise UsageError(f"{len(self.addresses)} addresses: at most {lib.STK_ADDRESSES}")
        native = ffi.new("struct stk_config *")
        native.mac[0:6] = list(_mac(self.mac))
        native.any_address = self.any_address
        for name in ("mtu", "vlan", "socket_bytes", "reassembly_bytes", "neighbours"):
            try:
                setattr(native, name, getattr(self, name))
            except OverflowError:
                raise UsageError(f"{name} {getattr(self, name)}: out of range") from None
        native.seed = self.seed % 2**64
        native.address_count = len(self.addresses)
        for place, interface in zip(native.address, self.addresses, strict=False):
            _set_address(place, interface.ip, interface.network.prefixlen)
        if self.gateway4 is not None:
            _set_address(native.gateway4, self.gateway4, 0)
        if self.gateway6 is not None:
            _set_address(native.gateway6, self.gateway6, 0)
        wrong = lib.stk_config_check(native)
        if wrong != ffi.NULL:
            raise UsageError(f"stack {self.mac}: {ffi.string(wrong).decode()}")
        return native


def _set_address(place: Any, address: Address, prefix: int) -> None:
    place.family = address.version
    place.prefix = prefix
    place.bytes[0:16] = list(_packed(address))


@dataclass(frozen=True, slots=True)
class Datagram:
    """A received UDP datagram. `local` is the address it was sent to: give it to `send` as the source of an answer."""

    data: bytes
    peer: Address
    port: int
    local: Address
    peer_mac: bytes
    timestamp: int


class UdpSocket:
    """A bound UDP socket of an engine."""

    __slots__ = ("_datagram", "_engine", "family", "number")

    def __init__(self, engine: "Engine", family: int, number: int) -> None:
        self._engine = engine
        self._datagram = ffi.new("struct stk_datagram *")
        self.family = family
        self.number = number

    @property
    def port(self) -> int:
        return check(lib.stk_udp_port(self._engine.native, self.number), f"udp socket {self.number}")

    def send(self, data: bytes, peer: str | Address, port: int, now: int, local: Address | None = None) -> None:
        """Sends one datagram. UsageError: too long, no route, not an own address; ExhaustedError: no buffer."""
        to = ip_address(peer) if isinstance(peer, str) else peer
        source = ffi.NULL if local is None else _packed(local)
        code = lib.stk_udp_send(
            self._engine.native, self.number, to.version, _packed(to), port, source, data, len(data), now
        )
        check(code, f"udp datagram of {len(data)} bytes to {to} port {port}")

    def receive(self) -> Datagram | None:
        """The oldest datagram, or None."""
        d = self._datagram
        if not lib.stk_udp_receive(self._engine.native, self.number, d):
            return None
        datagram = Datagram(
            bytes(ffi.buffer(d.data, d.length)),
            _unpacked(d.family, d.peer),
            d.port,
            _unpacked(d.family, d.local),
            bytes(d.peer_mac),
            d.timestamp,
        )
        lib.stk_udp_done(self._engine.native, self.number)
        return datagram

    def error(self) -> tuple[int, int, int] | None:
        """The last ICMP error about this socket's traffic as (family, type, code); reading clears it."""
        code = lib.stk_udp_error(self._engine.native, self.number)
        return None if code == 0 else (6 if code >= 65536 else 4, code >> 8 & 255, code & 255)

    def close(self) -> None:
        check(lib.stk_udp_close(self._engine.native, self.number), f"udp socket {self.number}")


class Engine(Closing):
    """One stack. Frames it sends are kept in memory until `output()` takes them, unless an `stk_output` is given.

    A given output must outlive the engine.
    """

    def __init__(self, config: StackConfig, output: Any = None, memory: int = 1 << 20) -> None:
        self.config = config
        self._memory = lib.stk_memory_new(memory)
        if output is None:
            output = ffi.new("struct stk_output *")
            lib.stk_memory_output(self._memory, output)
        self.native = lib.stk_new(config.native(), output)
        if self.native == ffi.NULL:
            raise MemoryError(f"stack {config.mac}: out of memory")
        self._frame = ffi.new("uint8_t **")

    def input(
        self, frame: Buffer, now: int, flags: int = 0, wire_len: int | None = None, csum: int | None = None
    ) -> Reason:
        """One frame in, from any buffer; DELIVERED where it is used or held for reassembly, else why it was dropped.

        `flags` are EXO_F_*; `csum` is the ones-complement sum of the bytes from 14 on, as the kernel gives it.
        """
        if csum is not None:
            flags |= lib.EXO_F_CSUM
        data = ffi.from_buffer("uint8_t[]", frame)
        length = len(data) if wire_len is None else wire_len
        return Reason(lib.stk_input(self.native, data, len(data), length, flags, csum or 0, now))

    def output(self) -> list[bytes]:
        """The frames sent since the last call, oldest first."""
        frames = []
        while n := lib.stk_memory_take(self._memory, self._frame):
            frames.append(bytes(ffi.buffer(self._frame[0], n)))
        return frames

    def poll(self, now: int) -> int | None:
        """Runs the timers that are due; the next deadline, or None."""
        deadline: int = lib.stk_poll(self.native, now)
        return None if deadline == 2**64 - 1 else deadline

    def udp(self, port: int = 0, address: str | None = None, family: int = 4) -> UdpSocket:
        """Binds a UDP socket; without an address to every one of `family`. Port 0: an ephemeral one."""
        local = ffi.NULL
        if address is not None:
            own = ip_address(address)
            family = own.version
            local = _packed(own)
        number = lib.stk_udp_open(self.native, family, local, port)
        return UdpSocket(self, family, check(number, f"udp port {port} of {address or 'any address'}"))

    def ready(self) -> int | None:
        """The number of a socket with something to read, round robin, or None."""
        number: int = lib.stk_udp_ready(self.native)
        return None if number < 0 else number

    @property
    def held(self) -> int:
        """Frames held for reassembly."""
        held: int = lib.stk_held(self.native)
        return held

    @property
    def counters(self) -> dict[str, int]:
        counters = lib.stk_counters(self.native)
        return {name: getattr(counters, name) for name in _SCALARS}

    @property
    def drops(self) -> dict[str, int]:
        """Frames dropped by `stage.reason`, only those that are not zero."""
        drop = lib.stk_counters(self.native).drop
        return {f"stack.{reason.name.lower()}": n for reason in Reason if reason and (n := drop[reason - FIRST])}

    def groups(self) -> list[bytes]:
        """The group MAC addresses this stack must receive."""
        macs = ffi.new("uint8_t[32][6]")
        return [bytes(macs[i]) for i in range(lib.stk_groups(self.native, macs, 32))]

    def neighbour(self, address: str) -> tuple[Neighbour, bytes]:
        """State and MAC address of a neighbour."""
        mac = ffi.new("uint8_t[6]")
        peer = ip_address(address)
        state = lib.stk_neighbour_get(self.native, peer.version, _packed(peer), mac)
        return Neighbour(state), bytes(mac)

    def path_mtu(self, address: str, now: int) -> int:
        """IP bytes that pass whole on the way to an address, as far as known."""
        peer = ip_address(address)
        mtu: int = lib.stk_path_mtu(self.native, peer.version, _packed(peer), now)
        return mtu

    def describe(self) -> dict[str, Any]:
        """Configuration and counters, for `exonet show` and the JSON of a run."""
        return {
            "mac": self.config.mac,
            "addresses": [str(interface) for interface in self.config.addresses],
            "counters": self.counters,
            "dropped": self.drops,
            "held": self.held,
        }

    def close(self) -> None:
        """Gives the stack's memory back; idempotent."""
        lib.stk_free(self.native)
        lib.stk_memory_free(self._memory)
        self.native = self._memory = ffi.NULL
