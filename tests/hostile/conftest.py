# SPDX-License-Identifier: MIT
"""A kernel that really starts hostile processes: launcher and server over the fake machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.clock import monotonic_ns
from exonet.kernel.environment import Environment, Mode
from exonet.kernel.launcher import Launcher, LibOSProcess
from exonet.kernel.server import Server
from tests.fakes.dispatcher import FakeKernel, make_kernel, open_fds
from tests.fakes.printed import printed

HERE = str(Path(__file__).parent)
PATIENCE_NS = 20_000_000_000


class Lab:
    """Runs entries of `hostile_libos`, or of another module beside it, as processes."""

    def __init__(self, kernel: FakeKernel, launcher: Launcher) -> None:
        self.kernel = kernel
        self.launcher = launcher
        self.dead: list[Environment] = []
        self.server = Server(kernel.dispatcher, monotonic_ns, self.dead.append)

    def start(self, entry: str, name: str = "", module: str = "hostile_libos", **options: Any) -> Environment:
        env = self.kernel.open(name or entry, Mode.PROCESS, **options)
        modules = ("hostile_libos",)
        process: LibOSProcess = self.launcher.start(env, f"{module}:{entry}", modules=modules, path=[HERE])
        self.server.add(env, process)
        return env

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Serves until something is so."""
        end = monotonic_ns() + PATIENCE_NS
        while monotonic_ns() < end:
            found = condition()
            if found:
                return found
            self.server.serve(0.05)
        raise AssertionError(
            f"waited in vain for {what}; {[(env.name, env.output) for env in self.kernel.environments]}"
        )

    def run(self, entry: str, **options: Any) -> Environment:
        """Starts an entry and serves until it is dead."""
        env = self.start(entry, **options)
        self.until(lambda: not env.alive, f"the end of {entry}")
        return env

    def said(self, env: Environment) -> dict[str, Any]:
        """Serves until it has printed a line, and returns the last one."""
        return self.until(lambda: last_line(env), f"a word of {env.name}")

    def close(self) -> None:
        self.kernel.close()
        self.server.close()
        self.launcher.close()


def last_line(env: Environment) -> dict[str, Any]:
    """The last line of JSON that a LibOS printed, {} where there is none."""
    return next(reversed(printed(env)), {})


@pytest.fixture
def lab(preload: None) -> Iterator[Lab]:
    """Needs root; checks that nothing is left afterwards (invariant 8)."""
    if os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    before = open_fds()
    made = Lab(make_kernel(), Launcher())
    try:
        yield made
    finally:
        processes = [env.process for env in made.kernel.environments]
        made.close()
    assert all(process is None or process.poll() is not None for process in processes)
    leaked = open_fds() - before
    assert not leaked
