# SPDX-License-Identifier: MIT
"""Bindings: an authorised claim of a region of header space on a port (SEMANTICS R4, R6, R13, R14).

`Bindings.bind` has the two phases of the notes, both before any effect: authorise (capability, right, port, region),
then availability (quota, conflict). A refused bind leaves nothing behind. Invariants 2 and 6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from exonet.abi import lib
from exonet.errors import ConflictError, DeniedError, UsageError
from exonet.kernel.capability import Authority, Capability, Quota, Resource, Right, Scope, check
from exonet.kernel.native import MachinePort
from exonet.trace import BindingMade, BindingRemoved, EventLog

__all__ = ["Binding", "Bindings", "Claimant", "Filters"]


class Relation(Protocol):
    """How two claims lie to each other, and an example of a frame in both."""

    @property
    def kind(self) -> Any: ...
    @property
    def example(self) -> Any: ...


class Filters(Protocol):
    """What binding asks of the filter compiler: `kernel/regions.py`."""

    def compile(self, text: str) -> Any:
        """.text and .conjuncts; FilterError."""

    def relation(self, a: Sequence[Any], b: Sequence[Any]) -> Relation:
        """ExhaustedError where it takes too long to say."""

    def nesting(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """.inside, .around: pairs of conjuncts, and .clash: an example where there is a pair that overlaps in part."""

    def separate(self, inner: Sequence[Any], outer: Sequence[Any]) -> Sequence[Any]:
        """Further conjuncts by which the inner one wins from the outer everywhere."""

    def unicast(self, conjuncts: Sequence[Any]) -> Sequence[Any]:
        """Those that can take a unicast frame: only these can be in conflict (R2)."""

    def native(self, conjunct: Any, binding: int) -> Any:
        """Its `struct exo_conjunct *`."""

    def shapes(self, conjuncts: Sequence[Any]) -> set[Any]:
        """The distinct shapes that they need."""


class Claimant(Protocol):
    """The environment that binds."""

    number: int
    name: str
    quota: Quota


@dataclass(slots=True, eq=False)
class Binding:
    """`extra`: conjuncts it holds beside its own so that it wins against wider bindings; all within its own."""

    number: int
    env: int
    owner: str
    port: int
    text: str
    conjuncts: Sequence[Any]
    capability: Capability
    snoop: bool
    shapes: set[Any] = field(default_factory=set)
    extra: dict[Any, None] = field(default_factory=dict)
    breaker: int = 0

    def __str__(self) -> str:
        return f"binding {self.number} of environment {self.owner} ({self.text!r})"

    def describe(self) -> dict[str, Any]:
        return {
            "binding": self.number,
            "port": self.port,
            "filter": self.text,
            "conjuncts": len(self.conjuncts),
            "snoop": self.snoop,
            "capability": self.capability.identifier,
        }


@dataclass(frozen=True, slots=True)
class Nested:
    """Conjuncts of a candidate and of `other`, the inner ones within the outer. wins: the candidate's are the inner."""

    other: Binding
    inner: Sequence[Any]
    outer: Sequence[Any]
    wins: bool


class Bindings:
    """Every live binding of a machine."""

    def __init__(
        self, machine: MachinePort, authority: Authority, filters: Filters, events: EventLog | None = None
    ) -> None:
        self._events = events or EventLog()
        self._machine = machine
        self._authority = authority
        self._filters = filters
        self._live: dict[int, Binding] = {}

    def __len__(self) -> int:
        return len(self._live)

    def of(self, env: int) -> list[Binding]:
        return [binding for binding in self._live.values() if binding.env == env]

    def verify(self, text: str | None) -> None:
        """FilterError where `text` is no filter."""
        if text is not None:
            self._filters.compile(text)

    def bind(
        self, env: Claimant, text: str, token: bytes, port: int = 0, *, shown: Sequence[bytes] = (), snoop: bool = False
    ) -> Binding:
        """Claims `text` on `port` for `env`. Returns the live binding.

        token: the capability it is bound with; shown: further ones, by which owners of wider bindings consent to a
        narrower one. FilterError, DeniedError, ExhaustedError, ConflictError: nothing has changed then.
        """
        compiled = self._filters.compile(text)
        capability, consents = self._authorise(env, Scope(port=port, region=text), token, shown, snoop)
        candidate = Binding(-1, env.number, env.name, port, text, tuple(compiled.conjuncts), capability, snoop)
        extras = self._extras(candidate, self._conflicts(candidate, consents))
        self._charge(env, candidate, extras[candidate])
        return self._install(candidate, extras)

    def _authorise(
        self, env: Claimant, wanted: Scope, token: bytes, shown: Sequence[bytes], snoop: bool
    ) -> tuple[Capability, list[Capability]]:
        right = Right.SNOOP if snoop else Right.BIND
        found = [
            check(self._authority, each, holder=env.number, resource=Resource.FILTER, right=right, scope=wanted)
            for each in (token, *shown)
        ]
        return found[0], found

    def _conflicts(self, candidate: Binding, consents: list[Capability]) -> list[Nested]:
        """R4 against every other binding of the port. Returns where the candidate is nested with another one.

        ConflictError: the same region, or partly the same. DeniedError: inside another's, without its capability.
        """
        nested: list[Nested] = []
        for other in self._live.values():
            if candidate.snoop or other.snoop or other.port != candidate.port:
                continue
            mine, theirs = self._filters.unicast(candidate.conjuncts), self._filters.unicast(other.conjuncts)
            found = self._filters.relation(mine, theirs)
            kind = found.kind.value
            if kind == "inside":
                here = [Nested(other, candidate.conjuncts, other.conjuncts, wins=True)]
            elif kind == "around":
                here = [Nested(other, other.conjuncts, candidate.conjuncts, wins=False)]
            elif kind == "partial":
                here = self._by_conjunct(candidate, other, mine, theirs)
            elif kind == "equal":
                raise ConflictError(_conflict(candidate, other, found.example, same=True))
            else:
                continue
            if any(pair.wins for pair in here):
                self._consent(candidate, other, consents)
            nested += here
        return nested

    def _by_conjunct(
        self, candidate: Binding, other: Binding, mine: Sequence[Any], theirs: Sequence[Any]
    ) -> list[Nested]:
        """`tcp port 80` is not inside `ip`, but its IPv4 half is, and of the other half nobody else says anything."""
        pairs = self._filters.nesting(mine, theirs)
        if pairs.clash is not None:
            raise ConflictError(_conflict(candidate, other, pairs.clash, same=False))
        return [
            *(Nested(other, [inner], [outer], wins=True) for inner, outer in pairs.inside),
            *(Nested(other, [inner], [outer], wins=False) for outer, inner in pairs.around),
        ]

    def _consent(self, candidate: Binding, other: Binding, consents: list[Capability]) -> None:
        """May the candidate take frames from a wider binding? Its owner may, whoever shows the owner's capability,
        and whom the operator granted the narrower region.
        """
        shown = any(
            self._authority.descends(each, other.capability.identifier)
            or self._authority.yields(other.capability, each)
            for each in consents
        )
        if candidate.env != other.env and not shown:
            raise DeniedError(
                f"filter {candidate.text!r} takes frames from {other}: show a capability derived from its "
                f"{other.capability.identifier}, or bind {_without(candidate, other)!r}"
            )

    def _extras(self, candidate: Binding, nested: list[Nested]) -> dict[Binding, list[Any]]:
        """The conjuncts that narrower bindings need beside their own so that they win, by binding; [] for most."""
        extras: dict[Binding, dict[Any, None]] = {candidate: {}}
        for pair in nested:
            more = self._filters.separate(pair.inner, pair.outer)
            winner = candidate if pair.wins else pair.other
            fresh = [conjunct for conjunct in more if pair.wins or conjunct not in winner.extra]
            extras.setdefault(winner, {}).update(dict.fromkeys(fresh))
        return {binding: list(more) for binding, more in extras.items()}

    def operator_grants(self, granted: Capability) -> None:
        """The operator has granted a region to bind. Where it lies within one granted before, or around it, the
        operator means the narrower one to win, and no LibOS has to consent (R4).
        """
        for other in self._authority.roots(granted.resource):
            if other is granted or other.scope.port != granted.scope.port:
                continue
            if self._reaches_into(granted, other):
                self._authority.consent(wide=other, narrow=granted)
            if self._reaches_into(other, granted):
                self._authority.consent(wide=granted, narrow=other)

    def _reaches_into(self, narrow: Capability, wide: Capability) -> bool:
        """Is a conjunct of the one region within one of the other?"""
        if narrow.scope.region is None or wide.scope.region is None:
            return wide.scope.region is None and narrow.scope.region is not None
        inner, outer = (
            self._filters.unicast(self._filters.compile(region).conjuncts)
            for region in (narrow.scope.region, wide.scope.region)
        )
        return self._filters.relation(inner, outer).kind.value == "inside" or bool(
            self._filters.nesting(inner, outer).inside
        )

    def _charge(self, env: Claimant, candidate: Binding, extra: list[Any]) -> None:
        mine = self.of(env.number)
        used = sum(len(binding.conjuncts) for binding in mine)
        candidate.shapes = self._filters.shapes([*candidate.conjuncts, *extra])
        held: set[Any] = set().union(*(binding.shapes for binding in mine))
        env.quota.charge("bindings", len(mine), 1, env.name)
        env.quota.charge("conjuncts", used, len(candidate.conjuncts) + len(extra), env.name)
        env.quota.charge("shapes", len(held), len(candidate.shapes - held), env.name)

    def _install(self, binding: Binding, extras: dict[Binding, list[Any]]) -> Binding:
        """The effects, between two bursts; where one fails, every one of them is taken back."""
        flags = lib.EXO_BIND_SNOOP if binding.snoop else 0
        binding.number = self._machine.new_binding(binding.env, binding.port, flags)
        others = {owner: more for owner, more in extras.items() if more and owner is not binding}
        try:
            self._insert(binding, [*extras[binding], *binding.conjuncts])
            for owner, more in others.items():
                self._insert(owner, more)
        except Exception:
            self._machine.unbind(binding.number)
            for owner in others:
                self._machine.clear(owner.port, owner.snoop, owner.number)
                self._insert(owner, [*owner.extra, *owner.conjuncts])
            raise
        for owner, more in extras.items():
            owner.extra.update(dict.fromkeys(more))
        self._live[binding.number] = binding
        binding.breaker = self._authority.attach(binding.capability, lambda: self._remove(binding))
        where = (binding.number, binding.env, binding.owner)
        made = BindingMade(*where, binding.port, binding.text, len(binding.conjuncts), binding.snoop)
        self._events.write(made)
        return binding

    def _insert(self, binding: Binding, conjuncts: Iterable[Any]) -> None:
        for conjunct in conjuncts:
            native = self._filters.native(conjunct, binding.number)
            self._machine.insert(binding.port, binding.snoop, native)

    def unbind(self, env: Claimant, number: int) -> None:
        """UsageError where it is not one of env's."""
        binding = self._live.get(number)
        if binding is None or binding.env != env.number:
            raise UsageError(f"binding {number}: environment {env.name} has none such")
        self._remove(binding)

    def _remove(self, binding: Binding) -> None:
        if self._live.pop(binding.number, None) is not None:
            self._authority.detach(binding.capability, binding.breaker)
            self._machine.unbind(binding.number)
            self._events.write(BindingRemoved(binding.number, binding.env, binding.owner))

    def end_of(self, env: int) -> None:
        """The environment is dead."""
        for binding in self.of(env):
            self._remove(binding)

    def describe(self, env: int | None = None) -> list[dict[str, Any]]:
        live = self._live.values() if env is None else self.of(env)
        return [binding.describe() for binding in live]


def _without(candidate: Binding, other: Binding) -> str:
    return f"({candidate.text}) and not ({other.text})"


def _conflict(candidate: Binding, other: Binding, example: Any, *, same: bool) -> str:
    if same:
        return f"filter {candidate.text!r}: {other} holds the very same frames; for example {example.scapy}"
    return (
        f"filter {candidate.text!r} and {other} overlap and neither is inside the other; for example {example.scapy} "
        f"is in both; this would do: {_without(candidate, other)!r}"
    )
