# SPDX-License-Identifier: MIT
"""What virtual time costs and who has the CPU: cost models and the linear vector of slices (R16 to R19).

A cost model is data. `dec5000` holds the figures that Engler, Kaashoek and O'Toole printed for the DECstation
5000/125 (SOSP'95); where the paper is silent the entry is 0. `host` is of the order of a 3 GHz x86.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from exonet.abi import check, ffi, lib
from exonet.clock import parse_duration
from exonet.errors import UsageError


class InterruptMode(IntEnum):
    """How the virtual kernel learns of frames: budgeted polling behind one interrupt, or an interrupt for each."""

    BUDGET = lib.EXO_POLL_BUDGET
    EACH = lib.EXO_INTERRUPT_EACH


@dataclass(frozen=True, slots=True)
class CostModel:
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
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"cost {field.name}: {value!r} must be a whole number of at least 0")

    @classmethod
    def named(cls, name: str) -> Self:
        """A built-in model, or the path of a JSON file {"costs": {...}}. Raises UsageError."""
        if name in MODELS:
            return cls(**MODELS[name])
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"cost model {name!r}: expected one of {', '.join(sorted(MODELS))}, or a JSON file")
        try:
            entries: dict[str, Any] = json.loads(path.read_text())
            return cls(**entries["costs"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"cost model {name!r}: not a cost model: {error}") from error

    def to_json(self, about: Mapping[str, Any]) -> str:
        """The file that `named` reads. about: where the figures come from."""
        return json.dumps({"costs": asdict(self), "about": dict(about)}, indent=2) + "\n"

    def describe(self) -> dict[str, int]:
        return asdict(self)

    def install(self, machine: Any, mode: InterruptMode, budget: int) -> None:
        """Gives the model to a native machine. `budget`: frames polled before the LibOSes get a turn, at least 1."""
        costs = ffi.new("struct exo_costs *", asdict(self))
        check(lib.exo_cpu_costs(machine, costs, mode, budget), f"poll budget {budget}: must be at least 1")


MODELS: dict[str, dict[str, int]] = {
    "free": {},
    # Of the order of what a 3 GHz x86 takes: enough to make loss depend on load.
    "host": {
        "interrupt": 1500,
        "poll": 30,
        "classify": 40,
        "place": 30,
        "place_byte_ps": 60,
        "transmit": 80,
        "transmit_byte_ps": 60,
        "upcall": 200,
        "consume": 250,
        "consume_byte_ps": 60,
    },
    # SOSP'95, DEC5000/125: exception dispatch 1.5 us (T5), DPF classification 1.5 us (T7, 5000/200), protected control
    # transfer 1.4 us (T6), null system call 1.6 us (T4) for a transmit. It prints no copy rate and no stack time.
    "dec5000": {"interrupt": 1500, "classify": 1500, "transmit": 1600, "upcall": 1400},
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
