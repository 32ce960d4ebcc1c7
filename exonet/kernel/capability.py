# SPDX-License-Identifier: MIT
"""Capabilities: self-authenticating rights over a resource, and `check`, the one function every authorisation goes
through.

A token is a keyed MAC (BLAKE2b, 32 bytes) over the canonical serialisation of a Capability, followed by it. A token
alone proves what the kernel once granted, to whom; the Authority adds what may have changed since: the epoch of its
identifier. Identifiers form a tree (narrowing and delegation make children); revoking one breaks its whole subtree at
once (R14). Invariants: a child never has more than its parent; nothing is decided on the use path.
Reference: ARCHITECTURE.md, Trust.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any

from exonet.errors import DeniedError, ExhaustedError
from exonet.kernel.localside import LocalSide
from exonet.wording import quoted, shown

__all__ = ["Authority", "Capability", "Quota", "Resource", "Right", "Scope", "check"]

MAC_BYTES = 32
REMEMBERED = 4096
PERSON = b"exonet-cap-1"


class Resource(Enum):
    """What a capability is over. FILTER: to bind inside a region of header space. WIRE: to send, join groups, own
    addresses.
    """

    PAGES = "pages"
    FILTER = "filter"
    WIRE = "wire"
    ENV = "env"
    CPU = "cpu"


class Right(Flag):
    READ = auto()
    WRITE = auto()
    BIND = auto()
    TRANSMIT = auto()
    SNOOP = auto()
    GRANT = auto()

    @classmethod
    def parse(cls, names: Iterable[str]) -> "Right":
        """Rights by name, as in ["bind", "snoop"]."""
        rights = cls(0)
        for name in names:
            if name.upper() not in cls.__members__:
                raise DeniedError(f"right {quoted(name, 16)}: must be one of {', '.join(cls.names(~cls(0)))}")
            rights |= cls[name.upper()]
        return rights

    @staticmethod
    def names(rights: "Right") -> list[str]:
        return [right.name.lower() for right in rights if right.name]


@dataclass(frozen=True, slots=True)
class Scope:
    """How far a capability reaches. None: no limit in that direction.

    pages: (first, count). region: filter text; a frame must match it. locals: the local sides that may be sent from
    (() : none). address: only in what is asked for: an address that must be one of the local sides.
    """

    port: int | None = None
    pages: tuple[int, int] | None = None
    region: str | None = None
    locals: tuple[LocalSide, ...] = ()
    env: int | None = None
    address: str | None = None

    def to_list(self) -> list[Any]:
        return [self.port, self.pages, self.region, [side.to_list() for side in self.locals], self.env]

    @classmethod
    def from_list(cls, row: list[Any]) -> "Scope":
        port, pages, region, sides, env = row
        return cls(port, tuple(pages) if pages else None, region, tuple(map(LocalSide.from_list, sides)), env)

    def owns(self, address: str, port: int | None) -> bool:
        """Is `address` on `port` one of the local sides?"""
        return any(side.port == port and side.owns(address) for side in self.locals)

    def describe(self) -> dict[str, Any]:
        rows: dict[str, Any] = {
            "port": self.port,
            "pages": list(self.pages) if self.pages else None,
            "region": self.region,
            "env": self.env,
            "locals": [str(side) for side in self.locals],
        }
        return {name: value for name, value in rows.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True)
class Capability:
    """What was granted: never changed, only derived from."""

    identifier: int
    parent: int
    epoch: int
    holder: int
    resource: Resource
    rights: Right
    scope: Scope = field(default_factory=Scope)

    def serialise(self) -> bytes:
        row = [
            self.identifier,
            self.parent,
            self.epoch,
            self.holder,
            self.resource.value,
            self.rights.value,
            self.scope.to_list(),
        ]
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, body: bytes) -> "Capability":
        """Only ever called on bytes whose MAC has been found right."""
        identifier, parent, epoch, holder, resource, rights, scope = json.loads(body)
        return cls(identifier, parent, epoch, holder, Resource(resource), Right(rights), Scope.from_list(scope))

    def describe(self) -> dict[str, Any]:
        return {
            "identifier": self.identifier,
            "parent": self.parent,
            "resource": self.resource.value,
            "rights": Right.names(self.rights),
            **self.scope.describe(),
        }

    def __str__(self) -> str:
        limits = ", ".join(f"{name} {shown(str(value), 100)}" for name, value in self.scope.describe().items())
        rights = "|".join(Right.names(self.rights)) or "no right"
        return f"capability {self.identifier} ({self.resource.value}: {rights}{', ' + limits if limits else ''})"


@dataclass(slots=True)
class _Record:
    """What the Authority remembers of an identifier that is alive."""

    capability: Capability
    children: dict[int, None] = field(default_factory=dict)
    breakers: dict[int, Callable[[], None]] = field(default_factory=dict)
    yields_to: set[int] = field(default_factory=set)


#: (outer region text, inner region text or None) -> what of inner is outside, for people; "" where that is not known.
Outside = Callable[[str, str | None], str]
#: (outer region text, inner region text) -> does every frame of inner match outer? `binding.region_covers` is the
#: real one.
Covers = Callable[[str, str], bool]


class Authority:
    """Holds the secret key and the tree of live identifiers. One per machine; only the kernel's process ever has it.

    key: 32 random bytes where None; a virtual run derives it from its seed (`Authority.of_seed`) so that tokens repeat.
    """

    def __init__(self, covers: Covers, key: bytes | None = None, outside: Outside = lambda outer, inner: "") -> None:
        self._key = os.urandom(32) if key is None else key
        self._covers = covers
        self._outside = outside
        self._records: dict[int, _Record] = {}
        self._held: dict[int, dict[int, Capability]] = {}
        self._parsed: dict[bytes, Capability] = {}
        self._next = 1
        self._next_breaker = 1
        self._epoch = 1

    @classmethod
    def of_seed(cls, covers: Covers, seed: int, outside: Outside = lambda outer, inner: "") -> "Authority":
        key = hashlib.blake2b(str(seed).encode(), person=b"exonet-seed", digest_size=32).digest()
        return cls(covers, key, outside)

    # Tokens

    def token(self, capability: Capability) -> bytes:
        body = capability.serialise()
        return self._mac(body) + body

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, person=PERSON, digest_size=MAC_BYTES).digest()

    def authentic(self, token: bytes) -> Capability:
        """The capability of a token that this kernel made and that is not revoked, whoever shows it; else
        DeniedError.
        """
        capability = self._parsed.get(token) or self._parse(token)
        record = self._records.get(capability.identifier)
        if record is None or record.capability.epoch != capability.epoch:
            raise DeniedError(f"{capability}: revoked")
        return capability

    def _parse(self, token: bytes) -> Capability:
        """What a token says that is this kernel's own, MAC and all, does not change: only whether it still holds."""
        mac, body = token[:MAC_BYTES], token[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise DeniedError(f"capability of {len(token)} bytes: not one that this kernel granted")
        if len(self._parsed) >= REMEMBERED:
            self._parsed.clear()
        capability = self._parsed[token] = Capability.parse(body)
        return capability

    # Making

    def grant(self, holder: int, resource: Resource, rights: Right, scope: Scope | None = None) -> bytes:
        """A root capability: the machine's owner gives it, at boot or attach; no LibOS can reach this."""
        return self._make(0, holder, resource, rights, scope or Scope())

    def _make(self, parent: int, holder: int, resource: Resource, rights: Right, scope: Scope) -> bytes:
        capability = Capability(self._next, parent, self._epoch, holder, resource, rights, scope)
        self._next += 1
        self._records[capability.identifier] = _Record(capability)
        self._held.setdefault(holder, {})[capability.identifier] = capability
        if parent:
            self._records[parent].children[capability.identifier] = None
        return self.token(capability)

    def derive(self, parent: Capability, holder: int, rights: Right | None, scope: Scope) -> bytes:
        """A child for `holder`; DeniedError where it would reach further than its parent."""
        wanted = parent.rights if rights is None else rights
        if wanted & ~parent.rights:
            extra = ", ".join(Right.names(wanted & ~parent.rights))
            raise DeniedError(f"{parent}: cannot give the right {extra}, which it does not have")
        lacking = self.missing(parent.scope, scope)
        if lacking:
            raise DeniedError(f"{parent}: cannot be widened: {lacking}")
        return self._make(parent.identifier, holder, parent.resource, wanted, scope)

    def missing(self, held: Scope, wanted: Scope) -> str:
        """What `held` lacks to cover `wanted`; "" if nothing."""
        if held.port is not None and held.port != wanted.port:
            return f"it is for port {held.port}, not {'every port' if wanted.port is None else wanted.port}"
        if held.env is not None and held.env != wanted.env:
            return f"it is for environment {held.env}, not {'all' if wanted.env is None else wanted.env}"
        if held.pages is not None and not _inside(held.pages, wanted.pages):
            return f"it is for pages {_span(held.pages)}, not {_span(wanted.pages)}"
        if held.region is not None and (wanted.region is None or not self._region_covers(held.region, wanted.region)):
            return self._beyond(held.region, wanted.region)
        for side in wanted.locals:
            if not any(mine.covers(side) for mine in held.locals):
                return f"local side {side} is in none of its own ({_sides(held)})"
        if wanted.address is not None and not held.owns(wanted.address, wanted.port):
            return f"address {wanted.address} is in none of its local sides ({_sides(held)})"
        return ""

    def _region_covers(self, outer: str, inner: str) -> bool:
        try:
            return outer == inner or self._covers(outer, inner)
        except ExhaustedError as error:
            raise ExhaustedError(
                f"whether region {quoted(outer)} covers {quoted(inner)} is not known: {error}"
            ) from None

    def _beyond(self, outer: str, inner: str | None) -> str:
        what = self._outside(outer, inner)
        said = f"its region {quoted(outer)} does not cover {quoted('every frame' if inner is None else inner)}"
        return f"{said}: {what}" if what else said

    # Breaking

    def held_by(self, holder: int) -> list[Capability]:
        """Live capabilities of an environment, oldest first."""
        return list(self._held.get(holder, {}).values())

    def attach(self, capability: Capability, breaker: Callable[[], None]) -> int:
        """`breaker` is called once when the capability goes; returns the handle for `detach`."""
        handle, self._next_breaker = self._next_breaker, self._next_breaker + 1
        self._records[capability.identifier].breakers[handle] = breaker
        return handle

    def detach(self, capability: Capability, handle: int) -> None:
        """The dependent is gone by itself; harmless where the capability went first."""
        record = self._records.get(capability.identifier)
        if record is not None:
            record.breakers.pop(handle, None)

    def revoke(self, identifier: int) -> list[Capability]:
        """Breaks a capability and everything derived from it, at once. Returns what was broken, parents first."""
        record = self._records.get(identifier)
        if record is None:
            return []
        if record.capability.parent in self._records:
            del self._records[record.capability.parent].children[identifier]
        self._epoch += 1
        broken, todo = [], [identifier]
        while todo:
            broken.append(self._records.pop(todo.pop()))
            todo += broken[-1].children
            self._unhold(broken[-1].capability)
        for gone in broken:
            for breaker in list(gone.breakers.values()):
                breaker()
        return [gone.capability for gone in broken]

    def _unhold(self, capability: Capability) -> None:
        held = self._held[capability.holder]
        del held[capability.identifier]
        if not held:
            del self._held[capability.holder]

    def descends(self, capability: Capability, ancestor: int) -> bool:
        """Is `ancestor` the capability itself or one that it was derived from?"""
        identifier = capability.identifier
        while identifier and identifier != ancestor:
            record = self._records.get(identifier)
            identifier = record.capability.parent if record else 0
        return identifier == ancestor

    def consent(self, *, wide: Capability, narrow: Capability) -> None:
        """The machine's owner lets `narrow`, and what is derived from it, take frames from bindings of `wide`."""
        self._records[wide.identifier].yields_to.add(narrow.identifier)

    def yields(self, wide: Capability, narrow: Capability) -> bool:
        """Has the machine's owner consented that `narrow` takes from `wide`, or did for what they derive from?"""
        above = self._records.get(wide.identifier)
        while above is not None:
            if any(self.descends(narrow, identifier) for identifier in above.yields_to):
                return True
            above = self._records.get(above.capability.parent)
        return False

    def holds_above(self, capability: Capability, holder: int) -> bool:
        """Does `holder` hold a capability that this one was derived from?"""
        record = self._records.get(capability.parent)
        while record is not None and record.capability.holder != holder:
            record = self._records.get(record.capability.parent)
        return record is not None

    def outright(self, identifier: int) -> bool:
        """Is the capability alive, and derived from nobody's but its holder's own?"""
        record = self._records.get(identifier)
        while record is not None and record.capability.parent:
            above = self._records[record.capability.parent]
            if above.capability.holder != record.capability.holder:
                return False
            record = above
        return record is not None

    def gifts(self, holder: int) -> int:
        """Live capabilities of one holder that another derived for it."""
        return sum(self.is_gift(capability) for capability in self._held.get(holder, {}).values())

    def is_gift(self, capability: Capability) -> bool:
        """Did another environment derive it for its holder?"""
        return capability.parent != 0 and capability.parent not in self._held.get(capability.holder, {})

    def count(self, holder: int | None = None) -> int:
        """Live capabilities, of one holder or in all."""
        return len(self._records) if holder is None else len(self._held.get(holder, ()))


def _inside(held: tuple[int, int], wanted: tuple[int, int] | None) -> bool:
    return wanted is not None and held[0] <= wanted[0] and wanted[0] + wanted[1] <= held[0] + held[1]


def _sides(scope: Scope) -> str:
    return shown(", ".join(map(str, scope.locals))) or "none"


def _span(pages: tuple[int, int] | None) -> str:
    return "every page" if pages is None else f"{pages[0]}..{pages[0] + pages[1] - 1}"


def check(
    authority: Authority,
    token: bytes,
    *,
    holder: int,
    resource: Resource,
    right: Right,
    scope: Scope | None = None,
    above: bool = False,
) -> Capability:
    """THE authorisation: may `holder`, showing `token`, use `right` on `resource` within `scope`? Before any effect.

    scope None: the capability's own reach is all that matters (to narrow, delegate or revoke it).
    above: whoever holds a capability that this one was derived from may use it too (to revoke it).
    Returns the capability, or raises DeniedError naming what was missing. Nothing else in exonet decides this.
    """
    capability = authority.authentic(token)
    if capability.holder != holder and not (above and authority.holds_above(capability, holder)):
        raise DeniedError(f"{capability}: belongs to environment {capability.holder}, not {holder}")
    if capability.resource is not resource:
        raise DeniedError(f"{capability}: is over {capability.resource.value}, not {resource.value}")
    if right not in capability.rights:
        lacking = right & ~capability.rights
        raise DeniedError(f"{capability}: lacks the right {', '.join(Right.names(lacking))}")
    if scope is not None and (missing := authority.missing(capability.scope, scope)):
        raise DeniedError(f"{capability}: {missing}")
    return capability


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that one environment may hold of everything it could exhaust.

    loose_shapes: of the shapes of one ethertype and protocol, those that others' frames are asked of, too (holding.py).
    """

    pages: int = 8192
    guaranteed: int = 16
    extents: int = 32
    bindings: int = 256
    conjuncts: int = 4096
    shapes: int = 64
    loose_shapes: int = 16
    subscriptions: int = 256
    neighbours: int = 64
    capabilities: int = 256
    ring_entries: int = 32768
    events: int = 64

    def charge(self, what: str, used: int, more: int, environment: str) -> None:
        """ExhaustedError where used + more is over the quota `what`."""
        limit: int = getattr(self, what)
        if used + more > limit:
            kind = what.replace("_", " ")
            raise ExhaustedError(f"environment {environment}: {used} {kind} and {more} more: its quota is {limit}")
