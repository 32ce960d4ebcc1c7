# SPDX-License-Identifier: MIT
"""Environments: the record of each protection domain, how it begins, what it is given, and its teardown at death.

`Environments` is the machine's table of them: the living, and of the dead those whose places nobody has taken. A
number is one life's, never used again. An environment owns: its two memory areas and rings (C), its wake and control
sockets, its process if it has one, its capabilities, extents, bindings, subscriptions and neighbours. `end` gives back
every one (invariants 4 and 8).
"""

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from exonet.abi import ffi, lib
from exonet.errors import ConflictError, UsageError
from exonet.gate.protocol import MAX_TOKEN
from exonet.kernel.binding import Bindings
from exonet.kernel.capability import Authority, Capability, Quota, Resource, Right, Scope
from exonet.kernel.localside import LocalSide
from exonet.kernel.native import MachinePort
from exonet.kernel.pages import PageTable
from exonet.trace import EnvironmentEnded, EnvironmentMade, EventLog

__all__ = ["Environment", "Environments", "Event", "Handle", "Mode", "Protection", "Rings"]


class Mode(Enum):
    INLINE = "inline"
    PROCESS = "process"


class Protection(Enum):
    """What an environment's walls are worth. NONE: API separation only, nothing is claimed."""

    FULL = "full"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rings:
    """Entries of the four rings: powers of two, 8..32768."""

    fill: int = 1024
    receive: int = 1024
    transmit: int = 512
    completion: int = 512

    def layout(self) -> Any:
        return ffi.new(
            "struct exo_layout *",
            {
                "fill_entries": self.fill,
                "receive_entries": self.receive,
                "transmit_entries": self.transmit,
                "completion_entries": self.completion,
            },
        )


class Handle(Protocol):
    """The process of an environment, as the launcher made it."""

    pid: int

    @property
    def cpu_ns(self) -> int:
        """The CPU time it has had since it started."""

    def started(self) -> None:
        """It is ready: its CPU time counts from here on."""

    def kill(self) -> None:
        """Ends it for certain and reaps it. Idempotent."""

    def poll(self) -> int | None:
        """Its exit status (negative: the signal), None while it runs."""


@dataclass(slots=True)
class Event:
    """Something the kernel tells an environment. `fds` belong to the event until it is sent."""

    fields: dict[str, Any]
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


@dataclass(slots=True, eq=False)
class Environment:
    """One protection domain. `number` is its name in shared memory, `name` its name for people."""

    number: int
    name: str
    mode: Mode
    quota: Quota
    config: dict[str, Any]
    native: Any
    tokens: list[bytes] = field(default_factory=list)
    subscriptions: dict[tuple[int, bytes], tuple[Capability, int]] = field(default_factory=dict)
    neighbours: dict[tuple[int, str], tuple[Capability, int]] = field(default_factory=dict)
    inbox: deque[Event] = field(default_factory=deque)
    control: socket.socket | None = None
    wake: socket.socket | None = None
    libos_ends: list[socket.socket] = field(default_factory=list)
    process: Handle | None = None
    protection: Protection = Protection.NONE
    protection_note: str = ""
    output: bytes = b""
    faults: int = 0
    alive: bool = True
    ready: bool = False
    exit_status: int | None = None
    end_reason: str = ""

    @property
    def vlan(self) -> int:
        """The 802.1Q VLAN that the operator put it on: the addresses that it answers for are that VLAN's. 0: none."""
        return int(self.config.get("vlan", 0))

    def wake_up(self) -> None:
        """A byte on its wake socket. Never blocks; where the socket is full or shut it has been told, or has
        itself to blame.
        """
        if self.wake is not None:
            with contextlib.suppress(OSError):
                self.wake.send(b"\1", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def describe(self) -> dict[str, Any]:
        """For `exonet show` and the JSON of a run."""
        return {
            "number": self.number,
            "name": self.name,
            "mode": self.mode.value,
            "protection": self.protection.value,
            "pid": self.process.pid if self.process else None,
            "alive": self.alive,
            "ready": self.ready,
            "faults": self.faults,
            "subscriptions": [f"{mac.hex(':')} on port {port}" for port, mac in sorted(self.subscriptions)],
            "neighbours": [f"{address} on port {port}" for port, address in sorted(self.neighbours)],
            "exit_status": self.exit_status,
            "end_reason": self.end_reason,
        }


class Environments:
    """Every environment of a machine, and what they share: authority, pages, bindings."""

    def __init__(
        self,
        machine: MachinePort,
        authority: Authority,
        pages: PageTable,
        bindings: Bindings,
        events: EventLog | None = None,
    ) -> None:
        self.events = events or EventLog()
        self.machine = machine
        self.authority = authority
        self.pages = pages
        self.bindings = bindings
        self._table: dict[int, Environment] = {}
        self.on_forget: Callable[[Environment], None] = lambda env: None  # its name is told for the last time

    def __iter__(self) -> Any:
        return iter(list(self._table.values()))

    def at(self, number: int) -> Environment:
        """The live environment of that number; UsageError."""
        found = self._table.get(number)
        if found is None or not found.alive:
            raise UsageError(f"environment {number}: there is none such alive")
        return found

    def name_of(self, number: int) -> str:
        """For people, whether it lives or not."""
        found = self._table.get(number)
        return f"environment {number}" if found is None else found.name

    def open(
        self,
        name: str,
        mode: Mode,
        *,
        rings: Rings | None = None,
        quota: Quota | None = None,
        config: dict[str, Any] | None = None,
    ) -> Environment:
        """A new environment: rings and sockets, no right to anything yet. ExhaustedError, UsageError (bad rings).

        Where it takes the place of a dead one, that one is no longer told of.
        """
        rings, quota = rings or Rings(), quota or Quota()
        quota.charge("ring_entries", 0, max(rings.fill, rings.receive, rings.transmit, rings.completion), name)
        if any(env.alive and env.name == name for env in self):
            raise ConflictError(f"environment {name}: there is one of that name already")
        sockets = _sockets() if mode is Mode.PROCESS else []
        try:
            number = self.machine.open_env(rings.layout(), sockets[0].fileno() if sockets else -1)
        except Exception:
            for end in sockets:
                end.close()
            raise
        env = Environment(number, name, mode, quota, dict(config or {}), self.machine.env(number))
        env.native.vlan = env.vlan
        if sockets:
            env.wake, env.control, env.libos_ends = sockets[0], sockets[1], sockets[2:]
        replaced = self._table.get(number - lib.EXO_MAX_ENVS)
        if replaced is not None:
            self.on_forget(replaced)
            del self._table[replaced.number]
        self._table[number] = env
        self.events.write(EnvironmentMade(number, name, mode.value, str(env.config.get("libos", ""))))
        return env

    def grant(
        self,
        env: Environment,
        resource: Resource,
        rights: Right,
        scope: Scope | None = None,
        *,
        shared: bool = False,
    ) -> bytes:
        """A root capability for an environment, from the machine's owner (boot). Returns its token.

        A region to bind in is disjoint from those of others or nested with them, unless it is `shared`: ConflictError.
        UsageError where its text is so long that the LibOS could not show the token.
        """
        token = self.authority.grant(env.number, resource, rights, scope)
        if len(token) > MAX_TOKEN:
            raise UsageError(
                f"environment {env.name}: a capability of {len(token):,} bytes: at most {MAX_TOKEN:,}; "
                "bind fewer filters, or write their union shorter"
            )
        if resource is Resource.FILTER:
            capability = self.authority.authentic(token)
            try:
                self.bindings.operator_grants(capability, f"environment {env.name}", shared=shared)
            except Exception:
                self.authority.revoke(capability.identifier)
                raise
        self.given(env, token)
        return token

    def given(self, env: Environment, token: bytes) -> None:
        """`env` now holds `token`: its effects that need no bind (the local sides) begin, and end with the
        capability.
        """
        capability = self.authority.authentic(token)
        env.tokens.append(token)
        self.authority.attach(capability, lambda: self._lost(env, token))
        if capability.resource is Resource.WIRE:
            try:
                self.refresh_locals(env)
            except Exception:
                self.authority.revoke(capability.identifier)
                raise

    def _lost(self, env: Environment, token: bytes) -> None:
        env.tokens.remove(token)
        if not env.alive:
            return
        try:
            self.refresh_locals(env)
        except Exception:
            self.machine.locals(env.number, [])  # what was taken away must not stay in force: rather none at all
            raise

    def refresh_locals(self, env: Environment) -> None:
        """What it may send is the union of the local sides of its live WIRE capabilities with TRANSMIT (R11)."""
        sides: dict[LocalSide, None] = {}
        for capability in self.authority.held_by(env.number):
            if capability.resource is Resource.WIRE and Right.TRANSMIT in capability.rights:
                sides.update(dict.fromkeys(capability.scope.locals))
        if len(sides) > lib.EXO_MAX_LOCALS:
            raise UsageError(f"environment {env.name}: {len(sides)} local sides: at most {lib.EXO_MAX_LOCALS}")
        self.machine.locals(env.number, list(sides))

    def neighbour_owner(self, port: int, vlan: int, address: str) -> Environment | None:
        """Who answers for an address on a port, in that VLAN."""
        asked = (port, address)
        return next((env for env in self if env.alive and env.vlan == vlan and asked in env.neighbours), None)

    def tell(self, env: Environment, event: Event) -> None:
        """Queues an event; ExhaustedError where its queue is full (the event is closed then)."""
        try:
            env.quota.charge("events", len(env.inbox), 1, env.name)
        except Exception:
            event.close()
            raise
        env.inbox.append(event)

    def end(self, env: Environment, reason: str) -> None:
        """Death: gives back everything it had, whatever state it was in. Idempotent; nobody else's traffic stops."""
        if not env.alive:
            return
        env.alive = False
        env.end_reason = reason
        if env.process is not None:
            env.process.kill()
            env.exit_status = env.process.poll() if env.exit_status is None else env.exit_status
        self.bindings.end_of(env.number)
        env.native = self.machine.kill_env(env.number)
        self.pages.forget(env.number)
        for capability in self.authority.held_by(env.number):
            self.authority.revoke(capability.identifier)
        for end in (env.control, env.wake, *env.libos_ends):
            if end is not None:
                end.close()
        while env.inbox:
            env.inbox.popleft().close()
        self.events.write(EnvironmentEnded(env.number, env.name, reason))

    def close(self) -> None:
        """Ends every environment: the machine goes down."""
        for env in self:
            self.end(env, "the machine ends")

    def describe(self) -> list[dict[str, Any]]:
        return [self.describe_one(env) for env in self]

    def describe_one(self, env: Environment) -> dict[str, Any]:
        return {
            **env.describe(),
            "capabilities": [capability.describe() for capability in self.authority.held_by(env.number)],
            "bindings": self.bindings.describe(env.number),
            "pages": self.pages.used(env.number),
            "guaranteed": len(self.pages.guaranteed(env.number)),
            "extents": [extent.describe() for extent in self.pages.extents(env.number)],
        }


def _sockets() -> list[socket.socket]:
    """[our wake end, our control end, its control end, its wake end].

    The wake pair is of datagrams: whatever the other side does to its end, closing included, ours never becomes
    readable by it alone.
    """
    wake, its_wake = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (wake, its_wake, control):
        end.setblocking(False)
    return [wake, control, its_control, its_wake]
