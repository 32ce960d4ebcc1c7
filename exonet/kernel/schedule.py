# SPDX-License-Identifier: MIT
"""What virtual time costs and who has the CPU: cost models and the linear vector of slices (R16 to R19).

A cost model is data. `dec5000` holds the figures that Engler, Kaashoek and O'Toole printed for the DECstation
5000/125 (SOSP'95); where the paper is silent the entry is 0. `host` is what a shared virtual machine measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from exonet.abi import check, ffi, lib
from exonet.clock import NS_PER_S, parse_duration
from exonet.errors import UsageError


class InterruptMode(IntEnum):
    """How the virtual kernel learns of frames: budgeted polling behind one interrupt, or an interrupt for each."""

    BUDGET = lib.EXO_POLL_BUDGET
    EACH = lib.EXO_INTERRUPT_EACH


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a LibOS of one kind takes for a frame that it consumes: ns, and picoseconds for each byte."""

    consume: int = 0
    consume_byte_ps: int = 0

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs in ns, per-byte costs in picoseconds; the fields of `struct exo_costs`."""

    interrupt: int = 0
    poll: int = 0
    classify: int = 0
    place: int = 0
    place_byte_ps: int = 0
    transmit: int = 0
    transmit_byte_ps: int = 0
    upcall: int = 0
    consume: int = 0
    consume_byte_ps: int = 0

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class CostModel(Costs):
    """Costs, and of some kinds of LibOS what theirs is: by name as `stack=` has it, "sink", "mylib:Echo"."""

    libos: Mapping[str, Consumption] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> Self:
        """A built-in model, or the path of a JSON file {"costs": {...}, "libos": {KIND: {...}}}. Raises UsageError."""
        if name in MODELS:
            return cls._of(MODELS[name], KINDS.get(name, {}))
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"cost model {name!r}: expected one of {', '.join(sorted(MODELS))}, or a JSON file")
        try:
            entries: dict[str, Any] = json.loads(path.read_text())
            return cls._of(entries["costs"], entries.get("libos", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"cost model {name!r}: not a cost model: {error}") from error

    @classmethod
    def _of(cls, costs: Mapping[str, int], kinds: Mapping[str, Mapping[str, int]]) -> Self:
        return cls(**costs, libos={kind: Consumption(**each) for kind, each in kinds.items()})

    def to_json(self, about: Mapping[str, Any]) -> str:
        """The file that `named` reads. about: where the figures come from."""
        kinds = {kind: asdict(each) for kind, each in self.libos.items()}
        return json.dumps({"costs": self.describe(), "libos": kinds, "about": dict(about)}, indent=2) + "\n"

    def describe(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(Costs)}

    def lacks(self, kind: str) -> bool:
        """Is a LibOS of that kind charged what the model has for any? A model with no such cost says nothing of it."""
        return bool(self.consume) and kind not in self.libos

    def frame_ns(self, kind: str, size: int, answers: float = 0.0) -> float:
        """What a received frame of `size` bytes costs in all where the CPU is always busy, so that nothing is charged
        for waking. answers: frames of the same size that the LibOS sends for each.
        """
        own = self.libos.get(kind, Consumption(self.consume, self.consume_byte_ps))
        kernel = self.poll + self.classify + self.place + self.place_byte_ps * size / 1000
        sent = answers * (self.transmit + self.transmit_byte_ps * size / 1000)
        return kernel + own.consume + own.consume_byte_ps * size / 1000 + sent

    def capacity(self, kind: str, size: int, answers: float = 0.0) -> float:
        """Packets a second that the machine can take of that size; inf where all is free."""
        ns = self.frame_ns(kind, size, answers)
        return NS_PER_S / ns if ns else float("inf")

    def install(self, machine: Any, mode: InterruptMode, budget: int) -> None:
        """Gives the model to a native machine. `budget`: frames polled before the LibOSes get a turn, at least 1."""
        costs = ffi.new("struct exo_costs *", self.describe())
        check(lib.exo_cpu_costs(machine, costs, mode, budget), f"poll budget {budget}: must be at least 1")

    def charge(self, env: Any, kind: str) -> None:
        """A `struct exo_env *` is of that kind of LibOS."""
        if kind in self.libos:
            env.own_costs = 1
            env.consume, env.consume_byte_ps = self.libos[kind].consume, self.libos[kind].consume_byte_ps


def _check(costs: Costs | Consumption) -> None:
    for each in fields(costs):
        value = getattr(costs, each.name)
        if each.name != "libos" and (not isinstance(value, int) or value < 0):
            raise UsageError(f"cost {each.name}: {value!r} must be a whole number of at least 0")


MODELS: dict[str, dict[str, int]] = {
    "free": {},
    # As `exonet calibrate` measures it on a shared two-core virtual machine (AMD EPYC, Linux 6.18).
    "host": {
        "interrupt": 748,
        "poll": 2,
        "classify": 70,
        "place": 38,
        "place_byte_ps": 97,
        "transmit": 116,
        "transmit_byte_ps": 52,
        "upcall": 2370,
        "consume": 1459,
        "consume_byte_ps": 622,
    },
    # SOSP'95, DEC5000/125: exception dispatch 1.5 us (T5), DPF classification 1.5 us (T7, 5000/200), protected control
    # transfer 1.4 us (T6), null system call 1.6 us (T4) for a transmit. It prints no copy rate and no stack time.
    "dec5000": {"interrupt": 1500, "classify": 1500, "transmit": 1600, "upcall": 1400},
}
#: What kinds of LibOS cost in them; others cost what the model has for any.
KINDS: dict[str, dict[str, dict[str, int]]] = {
    "host": {"sink": {"consume": 0, "consume_byte_ps": 215}, "echo": {"consume": 1459, "consume_byte_ps": 622}},
}


@dataclass(frozen=True, slots=True)
class Slice:
    """One position of the vector: an environment's name (None: nobody, the CPU idles) and its length in ns."""

    environment: str | None
    ns: int

    @classmethod
    def parse_vector(cls, text: str) -> tuple[Self, ...]:
        """`web:100us,dns:50us,-:1ms`. Raises UsageError naming the part that is wrong."""
        return tuple(cls._parse(part) for part in text.split(",") if part)

    @classmethod
    def _parse(cls, part: str) -> Self:
        name, _, length = part.rpartition(":")
        try:
            ns = parse_duration(length)
        except UsageError:
            ns = 0
        if not name or not 0 < ns < 1 << 32:
            raise UsageError(f"slice {part!r}: expected NAME:LENGTH such as web:100us (ns, us, ms, s; at most 4 s)")
        return cls(None if name == "-" else name, ns)


def install_slices(machine: Any, slices: Sequence[Slice], numbers: dict[str, int]) -> None:
    """Gives the vector to a native machine. `numbers` maps environment names. Raises UsageError for an unknown name."""
    vector = ffi.new("struct exo_slice[]", max(len(slices), 1))
    for entry, item in zip(vector, slices, strict=False):
        if item.environment is not None and item.environment not in numbers:
            known = ", ".join(sorted(numbers)) or "none"
            raise UsageError(f"slice {item.environment!r}: no such environment; there are {known}")
        entry.env = 0 if item.environment is None else numbers[item.environment]
        entry.ns = item.ns
    check(lib.exo_cpu_slices(machine, vector, len(slices)), f"slice vector of {len(slices)}: at most 1024")
