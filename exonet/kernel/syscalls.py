# SPDX-License-Identifier: MIT
"""The system calls: one function per operation of `gate/protocol.py`, the same for a process (through `server.py`)
and inline.

Each takes the calling environment and the request's checked fields, authorises (`capability.check`), then acts, and
returns an Answer. A LibOS's mistake is an exception of `errors.py`; the caller turns it into an error reply.
"""

import ipaddress
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from exonet.abi import ABI_VERSION, lib
from exonet.errors import ConflictError, DeniedError, ExhaustedError, ExonetError, FilterError, LibOSError, UsageError
from exonet.filters.syntax import joins
from exonet.gate.protocol import MAX_MESSAGE, Limits, Op, Request, check_limits
from exonet.kernel.capability import Capability, Resource, Right, Scope, check
from exonet.kernel.environment import Environment, Environments, Event
from exonet.kernel.pages import Extent
from exonet.trace import EnvironmentReady, Refused
from exonet.wording import quoted

__all__ = ["Answer", "Dispatcher"]

EVERY_GROUP = bytes(6)
#: So often may a filter's text join conditions: libpcap takes half a second for the worst of them.
MAX_JOINS = 64
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


#: How many descriptors a call takes at most, with those of its answer and, inline, of its mappings.
DESCRIPTORS = {Op.HELLO: 6, Op.ALLOCATE: 3, Op.DELEGATE: 1}


@dataclass(frozen=True, slots=True)
class Answer:
    """Fields of the reply, and descriptors to send beside it: borrowed, the receiver duplicates them."""

    fields: dict[str, Any] = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Dispatcher:
    """Serves the environments of one machine."""

    def __init__(self, environments: Environments) -> None:
        self.environments = environments
        self._table: dict[Op, Callable[[Environment, dict[str, Any]], Answer]] = {
            Op.HELLO: self._hello,
            Op.ALLOCATE: self._allocate,
            Op.FREE: self._free,
            Op.PIN: self._pin,
            Op.UNPIN: self._unpin,
            Op.GUARANTEE: self._guarantee,
            Op.UNGUARANTEE: self._unguarantee,
            Op.BIND: self._bind,
            Op.UNBIND: self._unbind,
            Op.SUBSCRIBE: self._subscribe,
            Op.UNSUBSCRIBE: self._unsubscribe,
            Op.NEIGHBOUR: self._neighbour,
            Op.NARROW: self._narrow,
            Op.DELEGATE: self._delegate,
            Op.REVOKE: self._revoke,
            Op.DESCRIBE: self._describe,
            Op.READY: self._ready,
            Op.EXIT: self._exit,
        }

    def handle(self, env: Environment, request: Request) -> Answer:
        """One system call of `env`. ExonetError: refused, nothing has changed; Unready (studies.py): not yet."""
        if not env.alive:
            raise LibOSError(f"environment {env.name}: it has ended")
        try:
            self._check_limits(env, request)
            self._check_descriptors(env, request.op)
            return self._handled(env, request)
        except ExonetError as error:
            said = (request.op.name.lower(), type(error).__name__, str(error))
            self.environments.events.write(Refused(env.number, env.name, *said))
            raise

    def _handled(self, env: Environment, request: Request) -> Answer:
        """No error of the host leaves the kernel by a call."""
        try:
            return self._table[request.op](env, request.fields)
        except OSError as error:
            raise ExhaustedError(f"environment {env.name}: {request.op.name.lower()}: {error.strerror}") from error

    def _check_descriptors(self, env: Environment, op: Op) -> None:
        """Before any effect (R13): are there as many descriptors as the call and its answer will take?"""
        taken: list[int] = []
        try:
            for _ in range(DESCRIPTORS.get(op, 0)):
                taken.append(os.dup(self.environments.pages.owner_fd))
        except OSError as error:
            what = f"environment {env.name}: {op.name.lower()}: the kernel has no descriptor left for it"
            raise ExhaustedError(f"{what}: {error.strerror}") from error
        finally:
            for fd in taken:
                os.close(fd)

    def _check_limits(self, env: Environment, request: Request) -> None:
        try:
            check_limits(request, Limits(self.environments.pages.total, len(self.environments.machine.ports())))
        except UsageError as error:
            raise UsageError(f"environment {env.name}: {error}") from None

    # Authorisation

    def _authorise(self, env: Environment, resource: Resource, right: Right, scope: Scope) -> Capability:
        """By any capability of that resource which the environment holds: for calls that name none."""
        denied = DeniedError(f"environment {env.name}: holds no {resource.value} capability")
        for token in env.tokens:
            try:
                return check(
                    self.environments.authority, token, holder=env.number, resource=resource, right=right, scope=scope
                )
            except DeniedError as error:
                if self.environments.authority.authentic(token).resource is resource:
                    denied = error
        raise denied

    def _shown(self, env: Environment, token: bytes, right: Right, *, above: bool = False) -> Capability:
        """The capability of a token that the environment shows, for what is done to the capability itself."""
        authority = self.environments.authority
        resource = authority.authentic(token).resource
        return check(authority, token, holder=env.number, resource=resource, right=right, above=above)

    # Greeting

    def _hello(self, env: Environment, fields: dict[str, Any]) -> Answer:
        if fields["version"] != ABI_VERSION:
            raise UsageError(f"ABI version {fields['version']}: this kernel speaks {ABI_VERSION}")
        authority, native = self.environments.authority, env.native
        own = (
            (token, capability)
            for token in env.tokens
            if not authority.is_gift(capability := authority.authentic(token))
        )
        held = [{"token": token, **capability.describe()} for token, capability in own]  # gifts come as events
        return Answer(
            {
                "env": env.number,
                "name": env.name,
                "config": env.config,
                "capabilities": held,
                "ports": self._granted_ports(env),
                "pages": self.environments.pages.total,
                "kernel_area_size": native.layout.kernel_area_size,
                "libos_area_size": native.layout.libos_area_size,
            },
            (native.kernel_fd, native.libos_fd, self.environments.pages.owner_fd),
        )

    def _granted_ports(self, env: Environment) -> list[dict[str, Any]]:
        """The ports that it holds any right on."""
        held = [
            capability.scope.port
            for capability in self.environments.authority.held_by(env.number)
            if capability.resource in (Resource.FILTER, Resource.WIRE)
        ]
        return [row for row in self.environments.machine.ports() if row["port"] in held or None in held]

    # Pages

    def _allocate(self, env: Environment, fields: dict[str, Any]) -> Answer:
        first, count = fields["first"], fields["count"]
        parent, first = self._place(env, first, count)
        env.quota.charge("capabilities", self.environments.authority.count(env.number), 1, env.name)
        pages = self.environments.pages
        extent = pages.allocate(env.number, env.name, env.quota, first, count)
        authority = self.environments.authority
        scope = replace(parent.scope, pages=(extent.first, extent.count))
        token = authority.derive(parent, env.number, None, scope)
        capability = authority.authentic(token)
        extent.capability = capability.identifier
        authority.attach(capability, lambda: pages.withdraw(env.name, extent))
        return Answer({"first": extent.first, "count": extent.count, "capability": token}, (extent.fd,))

    def _place(self, env: Environment, first: int, count: int) -> tuple[Capability, int]:
        """The capability that allows it and the page number to ask for, where its range leaves a choice."""
        if first != lib.EXO_ANY_PAGE:
            return self._authorise(env, Resource.PAGES, Right.WRITE, Scope(pages=(first, count))), first
        for token in env.tokens:
            capability = self.environments.authority.authentic(token)
            if capability.resource is Resource.PAGES and capability.scope.pages is not None:
                found = self.environments.pages.find(*capability.scope.pages, count)
                if found is not None:
                    return self._authorise(env, Resource.PAGES, Right.WRITE, Scope(pages=(found, count))), found
        return self._authorise(env, Resource.PAGES, Right.WRITE, Scope()), first

    def _free(self, env: Environment, fields: dict[str, Any]) -> Answer:
        for extent in self.environments.pages.release(env.number, env.name, fields["first"], fields["count"]):
            self.environments.authority.revoke(extent.capability)
        return Answer()

    def _pin(self, env: Environment, fields: dict[str, Any]) -> Answer:
        self.environments.pages.pin(env.number, env.name, fields["first"], fields["count"])
        return Answer()

    def _unpin(self, env: Environment, fields: dict[str, Any]) -> Answer:
        self.environments.pages.unpin(env.number, env.name, fields["first"], fields["count"])
        return Answer()

    def _guarantee(self, env: Environment, fields: dict[str, Any]) -> Answer:
        """Of pages that it holds in its own right only: whoever lent it the right to others can revoke it (R14)."""
        first, count = fields["first"], fields["count"]
        authority = self.environments.authority
        for extent in self.environments.pages.extents(env.number):
            if extent.holds(first, count) and not authority.outright(extent.capability):
                raise DeniedError(
                    f"environment {env.name}: guarantee pages {first}..{first + count - 1}: "
                    "it holds them by a right that another environment can revoke"
                )
        self.environments.pages.guarantee(env.number, env.name, env.quota, first, count)
        return Answer()

    def _unguarantee(self, env: Environment, fields: dict[str, Any]) -> Answer:
        self.environments.pages.unguarantee(env.number, env.name, fields["first"], fields["count"])
        return Answer()

    # Frames

    def _bind(self, env: Environment, fields: dict[str, Any]) -> Answer:
        _check_joins(fields["filter"])
        binding = self.environments.bindings.bind(
            env,
            fields["filter"],
            fields["capability"],
            fields["port"],
            shown=fields["shown"],
            snoop=bool(fields["snoop"]),
        )
        return Answer({"binding": binding.number})

    def _unbind(self, env: Environment, fields: dict[str, Any]) -> Answer:
        self.environments.bindings.unbind(env, fields["binding"])
        return Answer()

    def _subscribe(self, env: Environment, fields: dict[str, Any]) -> Answer:
        mac, port = fields["mac"], fields["port"]
        if mac != EVERY_GROUP and not mac[0] & 1:
            raise UsageError(
                f"group {mac.hex(':')}: must be a group address (odd first byte), or all zeroes for every group"
            )
        capability = self._authorise(env, Resource.WIRE, Right.READ, Scope(port=port))
        if (port, mac) not in env.subscriptions:
            env.quota.charge("subscriptions", len(env.subscriptions), 1, env.name)
            self.environments.machine.subscribe(env.number, port, mac)
            env.subscriptions[port, mac] = self._depend(capability, lambda: self._leave(env, port, mac))
        return Answer()

    def _unsubscribe(self, env: Environment, fields: dict[str, Any]) -> Answer:
        mac, port = fields["mac"], fields["port"]
        if (port, mac) not in env.subscriptions:
            raise UsageError(f"group {mac.hex(':')} on port {port}: environment {env.name} has not subscribed to it")
        self._leave(env, port, mac)
        return Answer()

    def _leave(self, env: Environment, port: int, mac: bytes) -> None:
        self.environments.authority.detach(*env.subscriptions.pop((port, mac)))
        if env.alive:
            self.environments.machine.unsubscribe(env.number, port, mac)

    def _depend(self, capability: Capability, drop: Callable[[], None]) -> tuple[Capability, int]:
        """What was just made goes when the capability goes (R14)."""
        return capability, self.environments.authority.attach(capability, drop)

    def _neighbour(self, env: Environment, fields: dict[str, Any]) -> Answer:
        port = fields["port"]
        try:
            address = ipaddress.ip_address(fields["address"])
        except ValueError:
            raise UsageError(f"address {fields['address']!a}: must be an IPv4 or IPv6 address") from None
        if getattr(address, "scope_id", None):
            raise UsageError(f"address {address}: must have no zone")
        name = str(address)
        capability = self._authorise(env, Resource.WIRE, Right.TRANSMIT, Scope(port=port, address=name))
        owner = self.environments.neighbour_owner(port, env.vlan, name)
        if owner is env:
            return Answer()
        if owner is not None:
            where = f"port {port}" + (f", VLAN {env.vlan}" if env.vlan else "")
            raise ConflictError(f"address {name} on {where}: environment {owner.name} answers for it")
        env.quota.charge("neighbours", len(env.neighbours), 1, env.name)
        self.environments.machine.neighbour(env.number, port, address.version, address.packed)
        env.neighbours[port, name] = self._depend(capability, lambda: self._forget(env, port, address))
        return Answer()

    def _forget(self, env: Environment, port: int, address: Address) -> None:
        self.environments.authority.detach(*env.neighbours.pop((port, str(address))))
        if env.alive:
            self.environments.machine.forget_neighbour(env.number, port, address.version, address.packed)

    # Capabilities

    def _narrow(self, env: Environment, fields: dict[str, Any]) -> Answer:
        capability = self._shown(env, fields["capability"], Right(0))
        rights = None if fields["rights"] is None else Right.parse(fields["rights"])
        region = fields["region"]
        scope = capability.scope if region is None else replace(capability.scope, region=region)
        if region is not None and capability.resource is not Resource.FILTER:
            raise UsageError(f"{capability}: only a filter capability has a region")
        if region is not None:
            _check_joins(region)
        self.environments.bindings.verify(region)
        token = self._derive(env, env, capability, rights, scope)
        return Answer({"capability": token})

    def _derive(
        self, env: Environment, holder: Environment, capability: Capability, rights: Right | None, scope: Scope
    ) -> bytes:
        """A child, charged to the one who asks and to the one who gets it; it begins to act at once."""
        authority = self.environments.authority
        for payer in {env.number: env, holder.number: holder}.values():
            payer.quota.charge("capabilities", authority.count(payer.number), 1, payer.name)
        if holder is not env and 2 * (authority.gifts(holder.number) + 1) > holder.quota.capabilities:
            raise ExhaustedError(
                f"environment {holder.name}: others have given it half of the {holder.quota.capabilities} capabilities "
                "that it may hold, and get no more of its quota"
            )
        token = authority.derive(capability, holder.number, rights, scope)
        self.environments.given(holder, token)
        return token

    def _delegate(self, env: Environment, fields: dict[str, Any]) -> Answer:
        target = self.environments.at(fields["env"])
        capability = self._shown(env, fields["capability"], Right.GRANT)
        extent = self._extent_of(env, capability)
        target.quota.charge("events", len(target.inbox), 1, target.name)
        token = self._derive(env, target, capability, None, capability.scope)
        fds = [os.dup(extent.fd)] if extent else []  # for which there is room: _check_descriptors
        if extent is not None:
            extent.shared = True
        event = {"event": "granted", "token": token.hex(), **self.environments.authority.authentic(token).describe()}
        self.environments.tell(target, Event(event, fds))
        return Answer({"capability": token})

    def _extent_of(self, env: Environment, capability: Capability) -> Extent | None:
        """The allocation that a capability is exactly over, whose memfd goes with it; None: it is a right to
        allocate.
        """
        if capability.resource is not Resource.PAGES or capability.scope.pages is None:
            return None
        return self.environments.pages.whole(env.number, *capability.scope.pages)

    def _revoke(self, env: Environment, fields: dict[str, Any]) -> Answer:
        capability = self._shown(env, fields["capability"], Right(0), above=True)
        broken = self.environments.authority.revoke(capability.identifier)
        return Answer({"broken": len(broken)})

    # The environment itself

    def _describe(self, env: Environment, fields: dict[str, Any]) -> Answer:
        """Of what others have given it as many as half a message holds: they do not make its answer too long."""
        authority, room = self.environments.authority, MAX_MESSAGE // 2
        held = sorted(authority.held_by(env.number), key=authority.is_gift)
        rows: list[dict[str, Any]] = []
        for capability in held:
            row = capability.describe()
            room -= len(json.dumps(row))
            if room < 0 and authority.is_gift(capability):
                break
            rows.append(row)
        described = self.environments.describe_one(env)
        return Answer({**described, "capabilities": rows, "capabilities_left_out": len(held) - len(rows)})

    def _ready(self, env: Environment, fields: dict[str, Any]) -> Answer:
        env.ready = True
        self.environments.events.write(EnvironmentReady(env.number, env.name))
        return Answer()

    def _exit(self, env: Environment, fields: dict[str, Any]) -> Answer:
        env.exit_status = fields["status"]
        return Answer()


def _check_joins(text: str) -> None:
    """FilterError where libpcap would take too long: others wait for the same thread."""
    found = joins(text)
    if found > MAX_JOINS:
        raise FilterError(
            f"filter {quoted(text)}: it joins conditions {found} times (and, or, not); at most {MAX_JOINS}: bind "
            "several filters"
        )
