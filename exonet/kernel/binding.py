# SPDX-License-Identifier: MIT
"""Bindings: an authorised claim of a region of header space on a port (R4, R6, R13, R14).

`Bindings.bind` has the two phases of the notes, both before any effect: authorise (capability, right, port, region),
then availability (quota, conflict). A refused bind leaves nothing behind. What it costs does not grow with the number
of live bindings: claims.py names those that it may meet, and quotas are counters. Invariants 2 and 6.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from exonet.abi import lib
from exonet.errors import ConflictError, DeniedError, ExhaustedError, ExonetError, UsageError
from exonet.kernel.capability import Authority, Capability, Quota, Resource, Right, Scope, check
from exonet.kernel.claim import Claim, Shape
from exonet.kernel.claims import Claims
from exonet.kernel.estates import Estates
from exonet.kernel.holding import Holding
from exonet.kernel.native import MachinePort
from exonet.kernel.nesting import Nester
from exonet.kernel.prepared import Prepared
from exonet.kernel.standing import Filters, Standing, clash, exact, quick
from exonet.trace import BindingMade, BindingRemoved, EventLog
from exonet.wording import quoted, shown

__all__ = ["Binding", "Bindings", "Claimant", "Filters"]


#: So many bindings are compared exactly at one bind: those about which masks and values do not decide.
MOST_EXACT = 256
#: Of a port's shapes the last quarter is kept for environments that hold few.
CROWDED = lib.EXO_MAX_SHAPES * 3 // 4
FEW_SHAPES = 8
SNOOP: int = lib.EXO_BIND_SNOOP


class Claimant(Protocol):
    """The environment that binds."""

    number: int
    name: str
    quota: Quota


@dataclass(slots=True, eq=False)
class Binding:
    """`extra`: conjuncts it holds beside its own so that it wins against wider bindings, all within its own, and how
    many wider bindings each is for. `caused`: what others hold because of this one. serial: rises with age. breadth:
    where it is not its filter's (nesting.py).
    """

    number: int
    env: int
    owner: str
    port: int
    filter: Prepared
    capability: Capability
    snoop: bool
    serial: int = 0
    charged: int = 0
    shapes: Sequence[Shape] = ()
    loose: Sequence[Shape] = ()
    breadth: int | None = None
    extra: dict[Any, int] = field(default_factory=dict)
    caused: dict["Binding", Sequence[Any]] = field(default_factory=dict)
    breaker: int = 0

    @property
    def text(self) -> str:
        return self.filter.text

    @property
    def claims(self) -> tuple[Claim, ...]:
        return self.filter.claims

    @property
    def high(self) -> float:
        return self.filter.high

    def __str__(self) -> str:
        return f"binding {self.number} of environment {self.owner} ({quoted(self.text)})"

    def part(self, place: int) -> str:
        """One of its conjuncts, or the whole where the place is -1, for people."""
        if place < 0:
            return f"filter {quoted(self.text)}"
        return f"filter {quoted(self.text)}: conjunct {place + 1} ({shown(str(self.filter.conjuncts[place]))})"

    def describe(self) -> dict[str, Any]:
        return {
            "binding": self.number,
            "port": self.port,
            "filter": self.text,
            "conjuncts": self.filter.count,
            "snoop": self.snoop,
            "capability": self.capability.identifier,
        }


class Bindings:
    """Every live binding of a machine."""

    def __init__(
        self, machine: MachinePort, authority: Authority, filters: Filters, events: EventLog | None = None
    ) -> None:
        self._events = events or EventLog()
        self._machine = machine
        self._authority = authority
        self._filters = filters
        self._estates = Estates(authority, filters)
        self._nester: Nester[Binding] = Nester(filters)
        self._live: dict[int, Binding] = {}
        self._holdings: dict[int, Holding[Binding]] = {}
        self._claims: dict[int, Claims] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Binding]:
        """Those that live now; they may go while this goes on."""
        return iter(list(self._live.values()))

    def of(self, env: int) -> list[Binding]:
        holding = self._holdings.get(env)
        return [] if holding is None else list(holding.bindings.values())

    def verify(self, text: str | None) -> None:
        """FilterError where `text` is no filter."""
        self._filters.prepare(text)

    def prepare(self, source: Any) -> Prepared:
        """A filter, as text or as a Python expression, ready for any number of binds. FilterError."""
        return self._filters.prepare(source)

    def bind(
        self,
        env: Claimant,
        source: Any,
        token: bytes,
        port: int = 0,
        *,
        shown: Sequence[bytes] = (),
        snoop: bool = False,
    ) -> Binding:
        """Claims what `source` (text, expression or Prepared) takes on `port` for `env`. Returns the live binding.

        token: the capability it is bound with; shown: further ones, by which owners of wider bindings consent to a
        narrower one. FilterError, DeniedError, ExhaustedError, ConflictError: nothing has changed then.
        """
        if isinstance(source, Prepared):
            wanted = source
        else:  # no token, no work
            held = self._authorise(env, source, None, token, shown, snoop)
            if any(each.scope.port not in (None, port) for each in held):
                self._authorise(env, source, Scope(port=port), token, shown, snoop)
            wanted = self._filters.prepare(source)
        consents = self._authorise(env, wanted.text, Scope(port=port, region=wanted.text), token, shown, snoop)
        candidate = Binding(-1, env.number, env.name, port, wanted, consents[0], snoop)
        candidate.charged, candidate.shapes = wanted.count, wanted.shapes
        holding = self._holdings.get(env.number) or Holding()
        self._charge(env, candidate, holding)
        extras: dict[Binding, list[Any]] = {} if snoop else self._yielding(candidate, consents)
        if extras:
            self._charge_extras(candidate, extras)
            self._charge(env, candidate, holding)
        self._install(candidate, extras)
        self._holdings[env.number] = holding
        holding.add(candidate.number, candidate, candidate.charged, candidate.shapes, candidate.loose)
        return candidate

    def _charge(self, env: Claimant, candidate: Binding, holding: Holding[Binding]) -> None:
        """Quotas, by counters alone. ExhaustedError."""
        try:
            if not self._filters.whole(candidate.capability.scope.region):
                candidate.loose = candidate.shapes
            else:
                candidate.loose = tuple([shape for shape in candidate.shapes if not shape.destined])
            fresh = holding.charge(env.quota, env.name, candidate.charged, candidate.shapes, candidate.loose)
            if fresh and len(holding.shapes) + fresh > FEW_SHAPES:
                self._leave_some(env, holding, candidate, fresh)
        except ExhaustedError as error:
            text = candidate.text
            raise ExhaustedError(f"filter {quoted(text)}: {error}{self._more(env, candidate, holding)}") from None

    def _authorise(
        self, env: Claimant, text: Any, scope: Scope | None, token: bytes, further: Sequence[bytes], snoop: bool
    ) -> list[Capability]:
        """By all capabilities that are shown. scope None: whatever they reach."""
        right = Right.SNOOP if snoop else Right.BIND
        authority, number, over = self._authority, env.number, Resource.FILTER
        try:
            consents = [check(authority, token, holder=number, resource=over, right=right, scope=scope)]
            for each in further:
                consents.append(check(authority, each, holder=number, resource=over, right=right, scope=scope))
        except (DeniedError, ExhaustedError) as error:
            raise type(error)(f"filter {quoted('everything' if text is None else str(text))}: {error}") from None
        return consents

    def _yielding(self, candidate: Binding, consents: list[Capability]) -> dict[Binding, list[Any]]:
        """R4 against every other binding of the port. Returns the conjuncts that narrower bindings need beside their
        own so that they win, by binding; {} for most.

        ConflictError: the same region, or partly the same. DeniedError: inside another's, without its capability.
        """
        index = self._claims.get(candidate.port)
        if index is None:
            return {}
        near = self._near(index, candidate)
        if not near:
            return {}
        nested: list[tuple[Binding, Standing]] = []
        hard = 0
        for other in sorted(near, key=_age) if len(near) > 1 else near:
            if near[other]:
                self._consent(candidate, other, consents)
                continue
            hurried = self._filters.studies.hurried
            found = None if hurried else quick(candidate.filter, other.filter)
            if found is None:
                hard += not hurried
                if hard > MOST_EXACT:
                    raise ExhaustedError(
                        f"filter {quoted(candidate.text)}: more than {MOST_EXACT} bindings, {other} the last, would "
                        "have to be compared with it box by box"
                    )
                found = exact(self._filters, candidate.filter, other.filter)
            if found.example is not None:
                raise ConflictError(self._conflict(candidate, other, found))
            if found.inside:
                self._consent(candidate, other, consents)
            if not found.settled and (found.inside or found.around):
                nested.append((other, found))
        return self._nester.settle(candidate, nested) if nested else {}

    def _near(self, index: Claims, candidate: Binding) -> dict[Binding, bool]:
        claims, studies = candidate.filter.claims, self._filters.studies
        if studies.patient:
            return index.near(claims)
        key = ("near", candidate.port, index.changes, candidate.text)
        return studies.once(key, lambda: index.near(claims, lambda: studies.hurried))

    def _charge_extras(self, candidate: Binding, extras: dict[Binding, list[Any]]) -> None:
        """Who binds pays for what others hold because of it, too."""
        more = [conjunct for each in extras.values() for conjunct in each]
        candidate.charged += len(more)
        candidate.shapes = tuple(dict.fromkeys((*candidate.shapes, *self._filters.shapes(more))))

    def _more(self, env: Claimant, candidate: Binding, holding: Holding[Binding]) -> str:
        """What of the candidate its quota of conjuncts or shapes is too small for."""
        if len(holding.bindings) >= env.quota.bindings:
            return ""
        caused = candidate.charged - candidate.filter.count
        said = f"; {caused} of them are what nested bindings need because of it" if caused else ""
        if holding.conjuncts + candidate.charged > env.quota.conjuncts:
            return said
        for place, conjunct in enumerate(candidate.filter.conjuncts):
            if any(shape not in holding.shapes for shape in self._filters.shapes((conjunct,))):
                return f"; the first of a new shape is conjunct {place + 1} ({shown(str(conjunct))})"
        return said

    def _leave_some(self, env: Claimant, holding: Holding[Binding], candidate: Binding, fresh: int) -> None:
        """A port has room for EXO_MAX_SHAPES: who holds many leaves the last ones to those who hold few."""
        used = self._machine.shapes(candidate.port, candidate.snoop)
        if used + fresh > CROWDED:
            raise ExhaustedError(
                f"environment {env.name}: {len(holding.shapes)} shapes and {fresh} more: port {candidate.port} uses "
                f"{used}, and above {CROWDED} an environment gets no more than {FEW_SHAPES}"
            )

    def _consent(self, candidate: Binding, other: Binding, consents: list[Capability]) -> None:
        """May the candidate take frames from a wider binding? Its owner may, whoever shows the owner's capability,
        and whom the operator granted the narrower region.
        """
        if candidate.env == other.env:
            return
        if any(
            self._authority.descends(each, other.capability.identifier)
            or self._authority.yields(other.capability, each)
            for each in consents
        ):
            return
        both = self._filters.studies.find(
            ("overlap", candidate.text, other.text), partial(self._both, candidate, other)
        )
        if both is None:
            return
        raise DeniedError(
            f"filter {quoted(candidate.text)} takes frames from {other}, by its "
            f"{self._filters.taker(candidate.filter.conjuncts, both)}, for example {both.scapy}: show a capability "
            f"derived from its {other.capability.identifier}{self._instead(', or bind ', candidate, other)}"
        )

    def _both(self, candidate: Binding, other: Binding) -> Any:
        """An example of a frame that both take; None: there is none."""
        first, second = ([claim.conjunct for claim in each.claims] for each in (candidate, other))
        return self._filters.relation(first, second).example

    def _conflict(self, candidate: Binding, other: Binding, found: Standing) -> str:
        mine, theirs = (self._filters.taker(each.filter.conjuncts, found.example) for each in (candidate, other))
        instead = "" if found.same else self._instead("; this would do: ", candidate, other)
        said, example = f"filter {quoted(candidate.text)}", found.example.scapy
        return clash(said, str(other), (mine, theirs), example, same=found.same, instead=instead)

    def _instead(self, before: str, candidate: Binding, other: Binding) -> str:
        found = self._filters.remedy(candidate.text, other.text)
        return f"{before}{found!r}" if found else ""

    def operator_grants(self, granted: Capability, owner: str = "", *, shared: bool = False) -> None:
        """The operator has granted a region to bind in: `Estates.grant`."""
        self._estates.grant(granted, owner or f"environment {granted.holder}", shared=shared)

    def _install(self, binding: Binding, extras: dict[Binding, list[Any]]) -> None:
        """The effects, between two bursts; where one fails, every one of them is taken back."""
        flags = SNOOP if binding.snoop else 0
        binding.number = self._machine.bind(
            binding.env, binding.port, flags, self._nester.boxes(binding), self._filters.stamp, binding.part
        )
        if extras:
            self._install_extras(binding, extras)
        self._serial += 1
        binding.serial = self._serial
        self._live[binding.number] = binding
        if not binding.snoop:
            index = self._claims.get(binding.port)
            if index is None:
                index = self._claims[binding.port] = Claims()
            index.add(binding)
        binding.breaker = self._authority.attach(binding.capability, partial(self._remove, binding))
        if self._events.listening:
            where = (binding.number, binding.env, binding.owner)
            made = BindingMade(*where, binding.port, binding.text, binding.filter.count, binding.snoop)
            self._events.write(made)

    def _install_extras(self, binding: Binding, extras: dict[Binding, list[Any]]) -> None:
        """What others hold because of a new binding; where that fails, it goes again, too."""
        others = [owner for owner in extras if owner is not binding]
        try:
            for owner, more in extras.items():
                self._put(owner, [self._filters.box(conjunct) for conjunct in more if conjunct not in owner.extra])
        except Exception as error:
            self._machine.unbind(binding.number)
            for other in others:
                self._renew(other)
            if isinstance(error, ExonetError):
                raise type(error)(f"filter {quoted(binding.text)}: because of it, {error}") from None
            raise
        for owner, more in extras.items():
            for conjunct in more:
                owner.extra[conjunct] = owner.extra.get(conjunct, 0) + 1
        binding.caused = {owner: extras[owner] for owner in others}

    def _put(self, binding: Binding, boxes: Iterable[Any]) -> None:
        for box in boxes:
            self._machine.insert(binding.port, binding.snoop, self._filters.stamp(box, binding.number))

    def _renew(self, binding: Binding) -> None:
        """Puts a binding's conjuncts into the demux anew: its own, and what else it holds."""
        self._machine.clear(binding.port, binding.snoop, binding.number)
        self._put(binding, [self._filters.box(conjunct) for conjunct in binding.extra])
        self._put(binding, self._nester.boxes(binding))

    def unbind(self, env: Claimant, number: int) -> None:
        """UsageError where it is not one of env's."""
        binding = self._live.get(number)
        if binding is None or binding.env != env.number:
            raise UsageError(f"binding {number}: environment {env.name} has none such")
        self._remove(binding)

    def _remove(self, binding: Binding) -> None:
        if self._live.pop(binding.number, None) is None:
            return
        self._authority.detach(binding.capability, binding.breaker)
        if not binding.snoop:
            self._claims[binding.port].remove(binding)
        holding = self._holdings[binding.env]
        if not holding.remove(binding.number, binding.charged, binding.shapes, binding.loose):
            del self._holdings[binding.env]
        self._machine.unbind(binding.number)
        for owner, more in binding.caused.items():
            self._release(owner, more)
        if self._events.listening:
            self._events.write(BindingRemoved(binding.number, binding.env, binding.owner))

    def _release(self, owner: Binding, more: Sequence[Any]) -> None:
        """A wider binding is gone: `owner` needs what it held because of it no more."""
        if self._live.get(owner.number) is not owner:
            return
        before = len(owner.extra)
        for conjunct in more:
            owner.extra[conjunct] -= 1
            if not owner.extra[conjunct]:
                del owner.extra[conjunct]
        if len(owner.extra) < before:
            self._renew(owner)

    def end_of(self, env: int) -> None:
        """The environment is dead."""
        for binding in self.of(env):
            self._remove(binding)
        self._holdings.pop(env, None)

    def describe(self, env: int | None = None) -> list[dict[str, Any]]:
        live = self._live.values() if env is None else self.of(env)
        return [binding.describe() for binding in live]


def _age(binding: Binding) -> int:
    return binding.serial
