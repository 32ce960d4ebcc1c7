# SPDX-License-Identifier: MIT
"""A machine with real pages and real environment memory, whose NIC, demux and loop are Python tables; and filters
over toy fields.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.errors import ExhaustedError, FilterError
from exonet.kernel.claim import Claim, Kind
from exonet.kernel.localside import LocalSide
from exonet.kernel.prepared import Prepared
from exonet.kernel.studies import Studies

Box = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Compiled:
    text: str
    conjuncts: tuple[Box, ...]


@dataclass(frozen=True)
class FakeShape:
    """Of the fields that are fixed."""

    fields: frozenset[str]
    branch: int = 0
    destined: bool = True


@dataclass(frozen=True)
class FakeKind:
    value: str


@dataclass(frozen=True)
class FakeExample:
    scapy: str


@dataclass(frozen=True)
class FakeRelation:
    kind: FakeKind
    example: FakeExample | None


@dataclass(frozen=True)
class FakeNesting:
    inside: tuple[tuple[Box, Box], ...] = ()
    around: tuple[tuple[Box, Box], ...] = ()
    clash: FakeExample | None = None


class FakeFilters:
    """A filter is "a=1 and b=2 or c=3": each conjunct a set of equations. A frame is one value for each field."""

    def __init__(self) -> None:
        self.kinds: dict[Any, Kind] = {}
        self.studies = Studies()

    def compile(self, text: str) -> Compiled:
        conjuncts = []
        for part in text.split(" or "):
            pairs = [each.strip().partition("=") for each in part.split(" and ")]
            if not all(name and equals and value for name, equals, value in pairs):
                raise FilterError(f"filter {text!r}: must be field=value joined by and, or")
            conjuncts.append(frozenset((name, value) for name, _, value in pairs))
        return Compiled(text, tuple(conjuncts))

    def covers(self, outer: Sequence[Box], inner: Sequence[Box]) -> bool:
        return all(any(wide <= narrow for wide in outer) for narrow in inner)

    def text_covers(self, outer: str, inner: str) -> bool:
        return self.covers(self.compile(outer).conjuncts, self.compile(inner).conjuncts)

    def relation(self, a: Sequence[Box], b: Sequence[Box]) -> "FakeRelation":
        both = next(
            (one | two for one in a for two in b if len({name for name, _ in one | two}) == len(one | two)), None
        )
        if both is None:
            return FakeRelation(FakeKind("disjoint"), None)
        inside, around = self.covers(b, a), self.covers(a, b)
        kind = "equal" if inside and around else "inside" if inside else "around" if around else "partial"
        return FakeRelation(FakeKind(kind), FakeExample(" / ".join("=".join(pair) for pair in sorted(both))))

    def nesting(self, a: Sequence[Box], b: Sequence[Box]) -> FakeNesting:
        pairs = [(one, two) for one in a for two in b if self.relation((one,), (two,)).example]
        inside = tuple((one, two) for one, two in pairs if one > two)
        around = tuple((one, two) for one, two in pairs if one < two)
        if len(inside) + len(around) == len(pairs):
            return FakeNesting(inside, around)
        return FakeNesting(clash=self.relation(a, b).example)

    def separate(self, inner: Sequence[Box], outer: Sequence[Box]) -> list[Box]:
        """The toy demux asks the longer box first: one of the outer that is as long as an inner must be met."""
        return [one | two for one in inner for two in outer if len(two) >= len(one) and one != two]

    def prepare(self, source: str | None) -> Prepared:
        conjuncts = self.compile(source).conjuncts if source else (frozenset(),)
        claims = [self._claim(conjunct) for conjunct in conjuncts]
        shapes = tuple(dict.fromkeys(claim.shape for claim in claims))
        return Prepared(source or "everything", conjuncts, claims, shapes, lambda conjunct: conjunct)

    def _claim(self, box: Box) -> Claim:
        """Each field is a space of 64 bits."""
        rows = sorted(box)
        masks = tuple((name, 2**64 - 1) for name, _ in rows)
        kind = self.kinds.setdefault(masks, Kind(masks, (0, 0, 0), plain=True))
        values = tuple(int.from_bytes(value.encode()) for _, value in rows)
        volume = 2.0 ** (-64 * len(rows))
        shape = FakeShape(frozenset(name for name, _ in box))
        return Claim(box, kind, values, shape, low=volume, high=volume, rank=-len(rows))

    def taker(self, conjuncts: Sequence[Box], example: FakeExample) -> str:
        return "it"

    def remedy(self, refused: str, holder: str) -> str:
        return f"({refused}) and not ({holder})"

    def box(self, conjunct: Box) -> Box:
        return conjunct

    def stamp(self, box: Box, binding: int) -> Any:
        return (binding, box)

    def shapes(self, conjuncts: Sequence[Box]) -> Sequence[Any]:
        return [FakeShape(frozenset(name for name, _ in conjunct)) for conjunct in conjuncts]

    def whole(self, region: str | None) -> bool:
        return True

    def breadth(self, conjuncts: Sequence[Box]) -> int:
        return 0

    def of_breadth(self, conjuncts: Sequence[Box], breadth: int) -> Sequence[Box]:
        return conjuncts

    def tied(self, inner: Sequence[Box], outer: Sequence[Box]) -> bool:
        return False


@dataclass
class FakeMachine:
    """`exonet.kernel.native.MachinePort` over tables that a test can read. `table_size`: boxes the demux takes."""

    page_count: int = 64
    table_size: int = 100
    clock: int = 0
    demux: dict[int, list[Any]] = field(default_factory=dict)
    boxes: list[Any] = field(default_factory=list)
    groups: set[tuple[int, int, bytes]] = field(default_factory=set)
    neighbours: dict[tuple[int, int, bytes], int] = field(default_factory=dict)
    local_sides: dict[int, list[LocalSide]] = field(default_factory=dict)
    wakes: list[tuple[int, int]] = field(default_factory=list)
    drained: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = lib.exo_pages_new(self.page_count)
        assert self.pages != ffi.NULL
        self.envs: dict[int, Any] = {}
        self.next_env = 1
        self.next_binding = 0

    def now(self) -> int:
        return self.clock

    def open_env(self, layout: Any, wake_fd: int) -> int:
        env = ffi.new("struct exo_env *")
        check(lib.exo_env_open(env, self.next_env, layout, 42), f"environment {self.next_env}")
        env.wake_fd = wake_fd
        self.envs[self.next_env] = env
        self.next_env += 1
        return self.next_env - 1

    def env(self, number: int) -> Any:
        return self.envs[number]

    def kill_env(self, number: int) -> Any:
        lib.exo_pages_reclaim(self.pages, number)
        env = self.envs.pop(number)
        lib.exo_env_close(env)
        self.groups = {row for row in self.groups if row[0] != number}
        self.neighbours = {key: env for key, env in self.neighbours.items() if env != number}
        self.local_sides.pop(number, None)
        return env

    def drain(self, number: int, first: int, count: int) -> None:
        self.drained.append((number, first, count))

    def wake_at(self, number: int, ns: int) -> None:
        self.wakes.append((number, ns))

    def new_binding(self, env: int, port: int, flags: int) -> int:
        number, self.next_binding = self.next_binding, self.next_binding + 1
        self.demux[number] = [env, port, flags]
        return number

    def bind(
        self,
        env: int,
        port: int,
        flags: int,
        boxes: Sequence[Any],
        stamp: Callable[[Any, int], Any],
        said: Callable[[int], str],
    ) -> int:
        number = self.new_binding(env, port, flags)
        try:
            for box in boxes:
                self.insert(port, flags & lib.EXO_BIND_SNOOP != 0, stamp(box, number))
        except ExhaustedError as error:
            self.unbind(number)
            raise ExhaustedError(f"{said(0)}: {error}") from None
        return number

    def insert(self, port: int, snoop: bool, conjunct: Any) -> None:
        if len(self.boxes) >= self.table_size:
            raise ExhaustedError("the demux is full")
        self.boxes.append(conjunct)

    def clear(self, port: int, snoop: bool, binding: int) -> None:
        self.boxes = [box for box in self.boxes if box[0] != binding]

    def shapes(self, port: int, snoop: bool) -> int:
        return 0

    def unbind(self, binding: int) -> None:
        del self.demux[binding]
        self.boxes = [box for box in self.boxes if box[0] != binding]

    def subscribe(self, env: int, port: int, mac: bytes) -> None:
        self.groups.add((env, port, mac))

    def unsubscribe(self, env: int, port: int, mac: bytes) -> None:
        self.groups.remove((env, port, mac))

    def neighbour(self, env: int, port: int, family: int, address: bytes) -> None:
        self.neighbours[port, self.envs[env].vlan, address] = env

    def forget_neighbour(self, env: int, port: int, family: int, address: bytes) -> None:
        assert self.neighbours.pop((port, self.envs[env].vlan, address)) == env

    def locals(self, env: int, sides: list[LocalSide]) -> None:
        self.local_sides[env] = sides

    def ports(self) -> list[dict[str, Any]]:
        return [
            {"port": 0, "mac": "02:00:00:00:00:01", "mtu": 1500},
            {"port": 1, "mac": "02:00:00:00:00:02", "mtu": 1500},
        ]

    def state(self) -> Any:
        """All that a refused call must leave as it was."""
        owners = bytes(ffi.buffer(self.pages.page, ffi.sizeof("struct exo_page") * self.page_count))
        guaranteed = bytes(ffi.buffer(self.pages.guaranteed, self.page_count))
        return (
            dict(self.demux),
            sorted(self.boxes, key=repr),
            set(self.groups),
            dict(self.neighbours),
            dict(self.local_sides),
            owners,
            guaranteed,
        )

    def close(self) -> None:
        for number in list(self.envs):
            self.kill_env(number)
        lib.exo_pages_free(self.pages)
        self.pages = ffi.NULL
