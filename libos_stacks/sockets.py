# SPDX-License-Identifier: MIT
"""UDP sockets over the stack engine, shaped like `socket` and never blocking.

`recvfrom()` gives (bytes, Address) or None. An Address reads like the tuple that `socket` gives, (host, port) for
IPv4 and (host, port, flow, scope) for IPv6, but stays the engine's 40 opaque bytes until somebody looks: an answer
passes them back undecoded, and leaves from the address that was asked, by the port of the machine it was asked at.
Errors are the OSErrors that `socket` raises; where it would block, `sendto` raises BlockingIOError.
"""

import errno
import os
import socket as names
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final, Self, overload

from libos_stacks.abi import ffi, lib

__all__ = ["Address", "UdpSocket"]

_PEER: Final = Struct("=BBHI16s16s")  # struct stk_peer
_PEER_SIZE: Final = _PEER.size
_DATA: Final = ffi.offsetof("struct stk_inbox", "data")
_LENGTH: Final = lib.STK_TAKE_MORE - 1
_MAX_DATAGRAM: Final = 65507
_ERRNO: Final = {
    lib.EXO_E_INVALID: errno.EINVAL,
    lib.EXO_E_NOT_FOUND: errno.ENETUNREACH,
    lib.EXO_E_FULL: errno.EAGAIN,
    lib.EXO_E_MEMORY: errno.ENOMEM,
}


class Address(Sequence[Any]):
    """A peer: compares, unpacks and prints as the address tuple of `socket`."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def of(cls, address: Sequence[Any]) -> "Address":
        """From (host, port) or (host, port, flow, scope); host is a numeric address. Raises OSError or ValueError."""
        host, port = address[0], address[1]
        if not 0 < port <= 65535:
            raise ValueError(f"address {address!r}: port must be 1..65535")
        scope = address[3] if len(address) > 3 else 0
        family = 6 if ":" in host else 4
        packed = names.inet_pton(names.AF_INET6 if family == 6 else names.AF_INET, host)
        return cls(_PEER.pack(family, 0, port, scope, packed.ljust(16, b"\0"), bytes(16)))

    @property
    def value(self) -> tuple[Any, ...]:
        """The tuple that `socket` would give."""
        family, _, port, scope, packed, _ = _PEER.unpack(self.raw)
        if family == 4:
            return names.inet_ntop(names.AF_INET, packed[:4]), port
        return names.inet_ntop(names.AF_INET6, packed), port, 0, scope

    @property
    def host(self) -> str:
        return str(self.value[0])

    @property
    def port(self) -> int:
        return int(self.value[1])

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.value[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __eq__(self, other: object) -> bool:
        return self.value == (other.value if isinstance(other, Address) else other)

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


class UdpSocket:
    """A UDP port of a stack, in each IP version the stack speaks. Made by `Environment.udp()`.

    `rings`, `stack`, `inbox` are the environment's cdata; `sockets` are engine numbers, one per IP version, owned by
    this object.
    """

    __slots__ = ("_inbox", "_memory", "_numbers", "_peer", "_rings", "_sockets", "_stack")

    def __init__(self, rings: Any, stack: Any, inbox: Any, sockets: dict[int, int]) -> None:
        self._rings = rings
        self._stack = stack
        self._inbox = inbox
        self._memory = ffi.buffer(inbox)
        self._sockets = sockets  # by IP version
        self._numbers = ffi.new("int32_t[]", list(sockets.values()))
        self._peer = Address(bytes(_PEER_SIZE))

    def recvfrom(self, size: int = 65535) -> tuple[bytes, Address] | None:
        """The oldest datagram, cut to `size` bytes as `socket` cuts it, and who sent it; None where there is none."""
        length = lib.stk_udp_take(self._stack, self._numbers, len(self._sockets), self._inbox)
        return None if length < 0 else self._taken(min(length & _LENGTH, size))

    def datagrams(self) -> Iterator[tuple[bytes, Address]]:
        """Every datagram that waits, oldest first: a `recvfrom` loop that does not have to ask once too often."""
        length = lib.STK_TAKE_MORE
        while length & lib.STK_TAKE_MORE:
            length = lib.stk_udp_take(self._stack, self._numbers, len(self._sockets), self._inbox)
            if length < 0:
                return
            yield self._taken(length & _LENGTH)

    def _taken(self, length: int) -> tuple[bytes, Address]:
        """What is in the inbox. A peer that goes on talking keeps its Address."""
        memory = self._memory
        raw = memory[0:_PEER_SIZE]
        if raw != self._peer.raw:
            self._peer = Address(raw)
        return memory[_DATA : _DATA + length], self._peer

    def sendto(self, data: bytes | bytearray | memoryview, address: Sequence[Any]) -> int:
        """Sends one datagram, in fragments where it is longer than the MTU; it leaves with the next flush.

        Returns its length. Raises OSError: EMSGSIZE, ENETUNREACH (no route), EINVAL, or BlockingIOError where no
        transmit buffer is free.
        """
        if type(address) is not Address:
            address = Address.of(address)
        if type(data) is not bytes:
            data = bytes(data)
        raw = address.raw
        length = len(data)
        number = self._sockets.get(raw[0], -1)
        code = lib.stk_rings_send(self._rings, self._stack, number, raw, data, length)
        if code < 0:
            raise _failure(code, length, address)
        return length

    def error(self) -> int:
        """The last ICMP error that came back for this socket's packets, cleared by reading:

        0, or (type << 8 | code), + 65536 for ICMPv6.
        """
        for number in self._sockets.values():
            code: int = lib.stk_udp_error(self._stack, number)
            if code != 0:
                return code
        return 0

    def getsockname(self) -> int:
        """The local port (the address is the stack's)."""
        port: int = lib.stk_udp_port(self._stack, self._numbers[0])
        return port

    def close(self) -> None:
        """Gives the port back; idempotent."""
        for number in self._sockets.values():
            lib.stk_udp_close(self._stack, number)
        self._sockets = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _failure(code: int, length: int, address: Address) -> OSError:
    number = _ERRNO.get(code, errno.EIO)
    if code == lib.EXO_E_INVALID and length > _MAX_DATAGRAM:
        number = errno.EMSGSIZE
    return OSError(number, f"{os.strerror(number)}: {length} bytes to {address}")
