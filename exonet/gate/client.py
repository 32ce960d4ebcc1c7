# SPDX-License-Identifier: MIT
"""The gate: a LibOS's only way to the kernel. Two implementations of one Protocol: over a control socket, and inline.

What the kernel refuses is raised here as the same exception that the kernel raised. Memory comes as memfds, mapped
the same way in both: the kernel area and the owner table read-only, the LibOS area and extents writable.
"""

import contextlib
import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exonet.abi import ABI_VERSION, PAGE_SIZE
from exonet.clock import monotonic_ns
from exonet.errors import LibOSError
from exonet.gate.protocol import (
    ANY_PAGE,
    MAX_MESSAGE,
    Op,
    ProtocolError,
    Reply,
    Request,
    Status,
    decode_reply,
    decode_request,
    encode_request,
    raise_error,
)

__all__ = ["BaseGate", "Extent", "Gate", "Grant", "Granted", "InlineGate", "ProcessGate", "Welcome"]

MAX_FDS = 4


@dataclass(frozen=True, slots=True)
class Extent:
    """Pages first..first+count-1, writable at `memory`. `capability`: the right to them, to delegate."""

    first: int
    count: int
    memory: mmap.mmap
    capability: bytes = b""


@dataclass(frozen=True, slots=True)
class Grant:
    """A capability that this environment holds: the token, and what it is over (resource, rights, port, region,
    locals, ...).
    """

    token: bytes
    resource: str
    rights: tuple[str, ...]
    description: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Granted:
    """Somebody delegated a capability to this environment; of a whole extent, its memory comes with it."""

    grant: Grant
    extent: Extent | None


@dataclass(frozen=True, slots=True)
class Welcome:
    """What an environment is and has when it starts."""

    env: int
    name: str
    config: dict[str, Any]
    capabilities: tuple[Grant, ...]
    ports: tuple[dict[str, Any], ...]
    pages: int
    kernel_area: mmap.mmap
    libos_area: mmap.mmap
    owners: mmap.mmap

    def capability(self, resource: str, right: str, port: int | None = None) -> bytes:
        """The first token over `resource` with `right` (on `port`); LibOSError where there is none."""
        for grant in self.capabilities:
            fits = port is None or grant.description.get("port") in (None, port)
            if fits and grant.resource == resource and right in grant.rights:
                return grant.token
        raise LibOSError(f"environment {self.name}: was granted no {resource} capability with the right {right}")


class Gate(Protocol):
    """Every call a LibOS can make. Exceptions: those of `errors.py`, as the kernel raised them."""

    @property
    def wake_fd(self) -> int:
        """Readable when the kernel has woken us; -1 inline."""

    def welcome(self) -> Welcome: ...
    def allocate(self, count: int, first: int | None = None) -> Extent: ...
    def free(self, first: int, count: int) -> None: ...
    def pin(self, first: int, count: int) -> None: ...
    def unpin(self, first: int, count: int) -> None: ...
    def guarantee(self, first: int, count: int) -> None: ...
    def unguarantee(self, first: int, count: int) -> None: ...
    def bind(
        self, filter_text: str, capability: bytes, port: int = 0, *, shown: Sequence[bytes] = (), snoop: bool = False
    ) -> int: ...
    def unbind(self, binding: int) -> None: ...
    def subscribe(self, mac: bytes, port: int = 0) -> None: ...
    def unsubscribe(self, mac: bytes, port: int = 0) -> None: ...
    def neighbour(self, address: str, port: int = 0) -> None: ...
    def narrow(self, capability: bytes, rights: Sequence[str] | None = None, region: str | None = None) -> bytes: ...
    def delegate(self, capability: bytes, env: int) -> bytes: ...
    def revoke(self, capability: bytes) -> None: ...
    def describe(self) -> dict[str, Any]: ...
    def granted(self) -> list[Granted]: ...
    def wanted(self) -> int: ...
    def sleep(self, deadline_ns: int | None) -> None: ...
    def wake(self) -> None: ...
    def now(self) -> int: ...
    def ready(self) -> None: ...
    def exit(self, status: int) -> None: ...


class BaseGate:
    """The calls, over `_call`: fields in, fields and owned descriptors out. Keeps what it mapped until `close`."""

    def __init__(self) -> None:
        self._welcome: Welcome | None = None
        self._granted: deque[Granted] = deque()
        self._wanted = 0
        self._ready = False

    def _call(self, op: Op, fields: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        raise NotImplementedError

    def welcome(self) -> Welcome:
        """Asked of the kernel once, then remembered."""
        if self._welcome is None:
            fields, fds = self._call(Op.HELLO, {"version": ABI_VERSION})
            sizes = (fields["kernel_area_size"], fields["libos_area_size"], 8 * fields["pages"])
            areas = _map_all(fds, list(zip(sizes, (False, True, False), strict=True)))
            self._welcome = Welcome(
                fields["env"],
                fields["name"],
                fields["config"],
                tuple(_grant(row) for row in fields["capabilities"]),
                tuple(fields["ports"]),
                fields["pages"],
                *areas,
            )
        return self._welcome

    def allocate(self, count: int, first: int | None = None) -> Extent:
        """`first`: a page number, or None for any run of `count` pages."""
        fields, fds = self._call(Op.ALLOCATE, {"first": ANY_PAGE if first is None else first, "count": count})
        (memory,) = _map_all(fds, [(PAGE_SIZE * fields["count"], True)])
        return Extent(fields["first"], fields["count"], memory, _token(fields["capability"]))

    def free(self, first: int, count: int) -> None:
        self._call(Op.FREE, {"first": first, "count": count})

    def pin(self, first: int, count: int) -> None:
        self._call(Op.PIN, {"first": first, "count": count})

    def unpin(self, first: int, count: int) -> None:
        self._call(Op.UNPIN, {"first": first, "count": count})

    def guarantee(self, first: int, count: int) -> None:
        """The kernel never takes these pages by force while this environment lives. A few: ExhaustedError."""
        self._call(Op.GUARANTEE, {"first": first, "count": count})

    def unguarantee(self, first: int, count: int) -> None:
        self._call(Op.UNGUARANTEE, {"first": first, "count": count})

    def bind(
        self, filter_text: str, capability: bytes, port: int = 0, *, shown: Sequence[bytes] = (), snoop: bool = False
    ) -> int:
        """`shown`: capabilities of other owners whose wider bindings this one narrows. Returns the binding's number."""
        fields = {
            "filter": filter_text,
            "capability": capability,
            "port": port,
            "shown": list(shown),
            "snoop": int(snoop),
        }
        return int(self._call(Op.BIND, fields)[0]["binding"])

    def unbind(self, binding: int) -> None:
        self._call(Op.UNBIND, {"binding": binding})

    def subscribe(self, mac: bytes, port: int = 0) -> None:
        """All zeroes: every group."""
        self._call(Op.SUBSCRIBE, {"mac": mac, "port": port})

    def unsubscribe(self, mac: bytes, port: int = 0) -> None:
        self._call(Op.UNSUBSCRIBE, {"mac": mac, "port": port})

    def neighbour(self, address: str, port: int = 0) -> None:
        """ARP requests and neighbour solicitations for `address` come here."""
        self._call(Op.NEIGHBOUR, {"address": address, "port": port})

    def narrow(self, capability: bytes, rights: Sequence[str] | None = None, region: str | None = None) -> bytes:
        fields = {"capability": capability, "rights": None if rights is None else list(rights), "region": region}
        return _token(self._call(Op.NARROW, fields)[0]["capability"])

    def delegate(self, capability: bytes, env: int) -> bytes:
        """`env` gets a child of it (and the memory, of a whole extent). Returns the child's token, by which to
        revoke it.
        """
        return _token(self._call(Op.DELEGATE, {"capability": capability, "env": env})[0]["capability"])

    def revoke(self, capability: bytes) -> None:
        """Breaks it and all derived from it: its own, or what it has delegated."""
        self._call(Op.REVOKE, {"capability": capability})

    def describe(self) -> dict[str, Any]:
        return self._call(Op.DESCRIBE, {})[0]

    def ready(self) -> None:
        """Bound, with buffers posted: frames may come. Said at the latest by going to sleep."""
        if not self._ready:
            self._ready = True
            self._call(Op.READY, {})

    def exit(self, status: int) -> None:
        self._call(Op.EXIT, {"status": status})

    def granted(self) -> list[Granted]:
        """What was delegated to this environment since the last call."""
        taken = list(self._granted)
        self._granted.clear()
        return taken

    def wanted(self) -> int:
        """How many pages the kernel has asked to be given back since the last call; which is the LibOS's choice."""
        wanted, self._wanted = self._wanted, 0
        return wanted

    def _event(self, fields: dict[str, Any], fds: list[int]) -> None:
        if fields["event"] == "pages_wanted":
            self._wanted += fields["count"]
            return
        extent = None
        grant = _grant(fields)
        if fds:
            first, count = grant.description["pages"]
            (memory,) = _map_all(fds, [(PAGE_SIZE * count, True)])
            extent = Extent(first, count, memory, grant.token)
        self._granted.append(Granted(grant, extent))

    def close(self) -> None:
        """Unmaps the areas, those apart that somebody still uses. Extents are the caller's."""
        if self._welcome is not None:
            for area in (self._welcome.kernel_area, self._welcome.libos_area, self._welcome.owners):
                with contextlib.suppress(BufferError):
                    area.close()
            self._welcome = None

    def now(self) -> int:
        """ns of the monotonic clock that the kernel runs on."""
        return monotonic_ns()


class ProcessGate(BaseGate):
    """Over the control socket (SOCK_SEQPACKET, blocking) and the wake socket (SOCK_DGRAM). Owns both descriptors."""

    def __init__(self, control_fd: int, wake_fd: int) -> None:
        super().__init__()
        self._control = socket.socket(fileno=control_fd)
        self._wake = socket.socket(fileno=wake_fd)
        self._wake.setblocking(False)
        self._sequence = 0

    @property
    def wake_fd(self) -> int:
        return self._wake.fileno()

    def _call(self, op: Op, fields: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            self._control.send(encode_request(op, self._sequence, fields))
        except OSError as error:
            raise LibOSError(f"{op.name.lower()}: the kernel is gone: {error.strerror}") from None
        while True:
            reply, fds = self._receive()
            if reply.status is Status.EVENT:
                self._event(reply.fields, fds)
            elif reply.sequence == self._sequence:
                break
            else:
                raise ProtocolError(f"reply {reply.sequence}: {self._sequence} was asked")
        if reply.status is Status.ERROR:
            raise_error(reply)
        return reply.fields, fds

    def _receive(self) -> tuple[Reply, list[int]]:
        message, fds, flags, _ = socket.recv_fds(self._control, MAX_MESSAGE, MAX_FDS)
        if not message or flags & socket.MSG_TRUNC:
            raise LibOSError("the kernel has closed the control socket")
        return decode_reply(message), list(fds)

    def sleep(self, deadline_ns: int | None) -> None:
        """Until the kernel wakes us, an event comes, or `deadline_ns` of `now()`; None: without end."""
        self.ready()
        timeout = None if deadline_ns is None else max(0, deadline_ns - self.now()) / 1e9
        ready, _, _ = select.select([self._wake, self._control], [], [], timeout)
        if self._wake in ready:
            self._drain()
        if self._control in ready:
            reply, fds = self._receive()
            self._event(reply.fields, fds)

    def _drain(self) -> None:
        try:
            while self._wake.recv(16):
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """The kernel sleeps and transmit has work. A full socket means that it has been told already."""
        with contextlib.suppress(OSError):
            self._wake.send(b"\1", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        super().close()
        self._control.close()
        self._wake.close()


class Kernel(Protocol):
    """What an InlineGate calls: `kernel.inline.InlineKernel`. Requests are checked as a process's are."""

    def call(self, request: Request) -> tuple[dict[str, Any], list[int]]: ...
    def events(self) -> list[tuple[dict[str, Any], list[int]]]: ...
    def now(self) -> int: ...
    def wake_at(self, ns: int) -> None: ...


class InlineGate(BaseGate):
    """The same calls inside the kernel's process: API separation, no memory protection. Time is the machine's clock."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._sequence = 0

    @property
    def wake_fd(self) -> int:
        return -1

    def _call(self, op: Op, fields: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._sequence += 1
        return self._kernel.call(decode_request(encode_request(op, self._sequence, fields)))

    def granted(self) -> list[Granted]:
        self._take_events()
        return super().granted()

    def wanted(self) -> int:
        self._take_events()
        return super().wanted()

    def _take_events(self) -> None:
        for fields, fds in self._kernel.events():
            self._event(fields, fds)

    def sleep(self, deadline_ns: int | None) -> None:
        """Does not wait: it leaves word when to be stepped again, and the caller returns to the kernel's loop."""
        if deadline_ns is not None:
            self._kernel.wake_at(deadline_ns)

    def wake(self) -> None:
        """Nothing to do: the kernel looks at the rings after every step."""

    def now(self) -> int:
        return self._kernel.now()


def _token(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes.fromhex(value)


def _grant(row: dict[str, Any]) -> Grant:
    description = {key: value for key, value in row.items() if key not in ("token", "event")}
    return Grant(_token(row["token"]), row["resource"], tuple(row["rights"]), description)


def _map_all(fds: list[int], areas: list[tuple[int, bool]]) -> list[mmap.mmap]:
    """Maps each descriptor as (bytes, writable) says, and closes all of them."""
    try:
        if len(fds) != len(areas):
            raise ProtocolError(f"{len(fds)} descriptors with the reply: {len(areas)} are due")
        return [_map(fd, size, writable) for fd, (size, writable) in zip(fds, areas, strict=True)]
    finally:
        for fd in fds:
            os.close(fd)


def _map(fd: int, size: int, writable: bool) -> mmap.mmap:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=access)
