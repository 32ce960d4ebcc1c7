# SPDX-License-Identifier: MIT
"""What a running machine says of itself, topic by topic, row by row: each noun's `describe()` and a few counts.

Every function is a generator that does little between two rows, or yields None in between: rows are made in steps
between bursts (statesocket.py). A row is of the moment at which it is made. No token of a capability is ever told.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from exonet.abi import ffi, lib
from exonet.filters.explain import ShapeWords
from exonet.filters.form import Form, shape_bytes
from exonet.hardware.nic import Nic
from exonet.kernel import latency
from exonet.kernel.environment import Environments
from exonet.kernel.running import report
from exonet.kernel.statesocket import Row, Topics
from exonet.ledger import Ledger
from exonet.wire.link import Wire

__all__ = ["Shown", "topics"]


class Shown(Protocol):
    """What is asked of `boot.Machine`."""

    native: Any
    config: Any
    wires: list[Wire]
    environments: Environments

    def now(self) -> int: ...
    def ledger(self) -> Ledger: ...
    def nic(self, port: int) -> Nic: ...


def topics(machine: Shown, command: tuple[str, ...] = ()) -> Topics:
    """command: what was run, for people. Time is counted from this call on."""
    begin = machine.now()
    made: dict[str, Callable[[], Iterator[Row]]] = {
        "machine": lambda: _machine(machine, command, begin),
        "environments": lambda: _environments(machine),
        "bindings": lambda: _bindings(machine),
        "shapes": lambda: _shapes(machine),
        "capabilities": lambda: _capabilities(machine),
    }
    return made


def _machine(machine: Shown, command: tuple[str, ...], begin: int) -> Iterator[Row]:
    environments = machine.environments
    ledger = machine.ledger()
    ports = [
        {"port": port, "wire": wire.describe(), "nic": machine.nic(port).describe()}
        for port, wire in enumerate(machine.wires)
    ]
    yield {
        "command": list(command),
        "clock": machine.config.clock.value,
        "running_ns": machine.now() - begin,
        "sleeps": int(lib.exo_machine_sleeps(machine.native)),
        "environments": sum(env.alive for env in environments),
        "bindings": len(environments.bindings),
        "pages": {"total": environments.pages.total, "free": environments.pages.free_count},
        "offered": ledger.offered,
        "copies": ledger.copies,
        "delivered": ledger.delivered,
        "dropped": ledger.dropped,
        "in_flight": ledger.in_flight,
        "ports": ports,
    }


def _environments(machine: Shown) -> Iterator[Row]:
    for env in machine.environments:
        told = {**env.describe(), **report(env), "pages": machine.environments.pages.used(env.number)}
        yield {**told, "latency_ns": latency.of_environment(machine.native, env.number)}


def _demuxes(machine: Shown) -> Iterator[tuple[int, bool, Any]]:
    for port in range(len(machine.wires)):
        for snoop in (False, True):
            yield port, snoop, lib.exo_machine_demux(machine.native, port, snoop)


def _forms(demux: Any) -> Iterator[tuple[Any, bool] | None]:
    """Every shape's `struct exo_form`, and whether it is answered natively; None between two."""
    form = ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        answered = lib.exo_demux_form(demux, place, form)
        if answered >= 0:
            yield form, bool(answered)
        elif place % 32 == 0:
            yield None


def _bindings(machine: Shown) -> Iterator[Row]:
    """delivered: frames that its LibOS has had, from all of its bindings: they are not counted one by one."""
    answered: dict[tuple[int, bool, bytes], bool] = {}
    for port, snoop, demux in _demuxes(machine):
        for found in _forms(demux):
            if found is not None:
                answered[port, snoop, shape_bytes(found[0])] = found[1]
            yield None
    for binding in machine.environments.bindings:
        env = lib.exo_machine_env_at(machine.native, binding.env)
        yield {
            **binding.describe(),
            "env": binding.env,
            "owner": binding.owner,
            "shapes": len(binding.shapes),
            "native": sum(answered.get((binding.port, binding.snoop, bytes(shape)), False) for shape in binding.shapes),
            "delivered": int(env.drop[lib.EXO_R_DELIVERED]) if env != ffi.NULL else None,
            "latency_ns": latency.of_binding(machine.native, binding.number),
        }


def _shapes(machine: Shown) -> Iterator[Row]:
    for port, snoop, demux in _demuxes(machine):
        for found in _forms(demux):
            if found is None:
                yield None
                continue
            form = Form.of(found[0])
            words = ShapeWords.of(form).to_json()
            yield {"port": port, "snoop": snoop, **words, "native": found[1]}


def _capabilities(machine: Shown) -> Iterator[Row]:
    for env in machine.environments:
        for capability in machine.environments.authority.held_by(env.number):
            yield {"env": env.number, "owner": env.name, **capability.describe()}
