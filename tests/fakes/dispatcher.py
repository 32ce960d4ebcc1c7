# SPDX-License-Identifier: MIT
"""A whole kernel side over the fake machine: authority, pages, bindings, environments, dispatcher, and inline gates."""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exonet.gate.client import InlineGate
from exonet.kernel.binding import Bindings
from exonet.kernel.capability import Authority, Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Environments, Mode
from exonet.kernel.inline import InlineKernel
from exonet.kernel.localside import LocalSide, mac_bytes
from exonet.kernel.pages import PageTable
from exonet.kernel.syscalls import Dispatcher
from tests.fakes.machine import FakeFilters, FakeMachine

EVERYTHING = Right.READ | Right.WRITE | Right.BIND | Right.TRANSMIT | Right.SNOOP | Right.GRANT


@dataclass
class FakeKernel:
    machine: FakeMachine
    authority: Authority
    pages: PageTable
    bindings: Bindings
    environments: Environments
    dispatcher: Dispatcher

    def open(self, name: str, mode: Mode = Mode.INLINE, *, config: Any = None, **options: Any) -> Environment:
        """An environment with every right: all pages, filters "net=lab", and a local side of its own."""
        env = self.environments.open(name, mode, config={"libos": name, **(config or {})}, **options)
        side = LocalSide(mac_bytes(f"02:00:00:00:01:{env.number:02x}"), address=f"10.7.0.{env.number}")
        grant = self.environments.grant
        grant(env, Resource.PAGES, Right.READ | Right.WRITE | Right.GRANT)
        grant(
            env, Resource.FILTER, Right.BIND | Right.SNOOP | Right.GRANT, Scope(port=0, region="net=lab"), shared=True
        )
        grant(env, Resource.WIRE, Right.READ | Right.TRANSMIT | Right.GRANT, Scope(port=0, locals=(side,)))
        return env

    def gate(self, env: Environment) -> InlineGate:
        return InlineGate(InlineKernel(self.dispatcher, env))

    def token(self, env: Environment, resource: Resource) -> bytes:
        """Its first token over a resource."""
        return next(token for token in env.tokens if self.authority.authentic(token).resource is resource)

    def close(self) -> None:
        self.environments.close()
        self.pages.close()
        self.machine.close()


def make_kernel(**options: Any) -> FakeKernel:
    machine, filters = FakeMachine(**options), FakeFilters()
    authority = Authority.of_seed(filters.text_covers, 7)
    pages, bindings = PageTable(machine.pages), Bindings(machine, authority, filters)
    environments = Environments(machine, authority, pages, bindings)
    return FakeKernel(machine, authority, pages, bindings, environments, Dispatcher(environments))


def open_fds() -> set[str]:
    """This process's descriptors, as what they are open on."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{entry.name} {entry.readlink()}")
    return {row for row in found if "/proc/" not in row}


@contextlib.contextmanager
def running_kernel(**options: Any) -> Iterator[FakeKernel]:
    """A kernel that is closed, and has leaked nothing (invariant 8)."""
    before = open_fds()
    kernel = make_kernel(**options)
    try:
        yield kernel
    finally:
        kernel.close()
    gc.collect()
    assert not kernel.authority.count()
    leaked = {
        row for row in open_fds() - before if "memfd" in row or "socket" in row or "pidfd" in row or "pipe" in row
    }
    assert not leaked, leaked


__all__ = ["EVERYTHING", "FakeKernel", "Quota", "make_kernel", "open_fds", "running_kernel"]
