# SPDX-License-Identifier: MIT
"""What a LibOS that binds as many shapes as it may does to another's frames: ns each, before and after, and the ratio.

A machine without traffic is bound at through its system calls' own code, so quotas hold. The attacker's bindings are
more specific than the victim's one, so they would be asked first; none takes a frame of the victim's.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from exonet.abi import ffi, lib
from exonet.errors import ExhaustedError, RunError
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, available, compile_form
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Mode
from exonet.lab.bench import Context, Figure, ratio
from exonet.wire.cable import cable
from tests.bench.bench_demux_cases import HOT, Demuxed, Work, ip4_frames, numbers, works
from tests.bench.bench_demux_peers import Ours

VICTIM = "udp and dst host 10.7.0.2"
PASSES = 3
#: A quota's worth, by default; and at an address that both of them share.
OWN, SHARED = Quota().shapes, Quota().loose_shapes


def attack(context: Context, ours: Ours) -> Iterator[Figure]:
    """Another's 64 shapes at its own address, and 16 at the victim's."""
    yield from _attacked(context, ours, f"{OWN} shapes of another", "10.7.0.9", OWN)
    yield from _attacked(context, ours, f"{SHARED} shapes of another at the same address", "10.7.0.2", SHARED)


def _attacked(context: Context, ours: Ours, name: str, address: str, most: int) -> Iterator[Figure]:
    shared = address in VICTIM
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=64, seed=context.seed)) as machine:
        port = machine.attach(here, NicConfig(promiscuous=True))
        victim = _open(machine, port, "victim", VICTIM, shared)
        other = _open(machine, port, "attacker", f"udp and dst host {address}", shared)
        number = machine.environments.bindings.bind(victim[0], f"{VICTIM} and dst port 53", victim[1]).number
        owners = np.full(HOT, number, np.uint32)
        (work,) = works(ip4_frames(numbers(HOT)), owners, context.seed, toy=context.toy, only=("resident",))
        table = Demuxed(lib.exo_machine_demux(machine.native, port, 0))
        before = _figure(context, ours, table, work, f"before {name}")
        bound = _fill(machine, *other, address, context.size(most, 4))
        after = _figure(context, ours, table, work, f"after {name}", {"bound": bound})
        yield from (before, after, ratio(f"{name}: after / before", after, before))


def _open(machine: Machine, port: int, name: str, region: str, shared: bool) -> tuple[Environment, bytes]:
    env = machine.environments.open(name, Mode.INLINE, quota=Quota())
    scope = Scope(port=port, region=region)
    return env, machine.environments.grant(env, Resource.FILTER, Right.BIND, scope, shared=shared)


def _fill(machine: Machine, env: Environment, token: bytes, address: str, most: int) -> int:
    """Binds shapes until there are `most` or it may not have more. Returns how many it has."""
    for number in range(most):
        bits = f"udp[{9 + number // 8}] & {1 << number % 8} != 0"  # of the payload: a mask that no other has
        text = f"ip and udp and dst host {address} and src host 10.0.1.{number} and dst port {100 + number} and {bits}"
        try:
            machine.environments.bindings.bind(env, text, token)
        except ExhaustedError:
            return number
    return most


def _figure(
    context: Context, ours: Ours, table: Demuxed, work: Work, name: str, details: dict[str, int] | None = None
) -> Figure:
    kept = _natively(table) if available() else []
    if available() and not kept:
        raise RunError(f"{name}: no shape got native code")
    best = [min(ours.nanoseconds(table, work) for _ in range(1 if context.toy else PASSES)) for _ in context.repeat()]
    return Figure(name, "ns", tuple(best), details=details or {})


def _natively(table: Demuxed) -> Sequence[NativeCode]:
    """Code for every shape, which must live while it is asked."""
    made, form = [], ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        if lib.exo_demux_form(table.native, place, form) >= 0:
            made.append(compile_form(Form.of(form)))
            made[-1].install(table.native)
    return made
