# SPDX-License-Identifier: MIT
"""How long frames took from the wire to their LibOS, by binding and by environment; csrc/latency.c records it."""

from collections.abc import Iterable
from typing import Any

from exonet.abi import ffi, lib
from exonet.delays import Delays
from exonet.kernel.binding import Binding


def of_environment(native: Any, number: int) -> dict[str, int] | None:
    """None where nothing was recorded: nothing was consumed, or the wire's frames have no time of arrival."""
    found = ffi.new("struct exo_delays *")
    lib.exo_machine_env_delays(native, number, found)
    return Delays.read(found).to_json() if found.count else None


def of_binding(native: Any, number: int) -> dict[str, int] | None:
    """None where nothing is known of it alone: see of_environment, and there may be too many bindings."""
    found = lib.exo_machine_binding_delays(native, number)
    return Delays.read(found).to_json() if found != ffi.NULL and found.count else None


def by_binding(native: Any, bindings: Iterable[Binding]) -> list[dict[str, Any]]:
    """A row for each that something is known of."""
    rows = ((binding, of_binding(native, binding.number)) for binding in bindings)
    return [{"filter": b.text, "port": b.port, "snoop": b.snoop, "latency_ns": told} for b, told in rows if told]
