# SPDX-License-Identifier: MIT
"""The kernel's process runs out of descriptors: calls that need some are refused before any effect (R13), and nothing
else happens.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from exonet.errors import ExhaustedError
from tests.conftest import ROOT
from tests.fakes.dispatcher import FakeKernel, running_kernel


@pytest.fixture
def few() -> Iterator[Callable[[int], None]]:
    """Leaves this process so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def leave(count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            for _ in range(count):
                os.close(held.pop())

    yield leave
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def state(kernel: FakeKernel) -> tuple[object, ...]:
    rows = [kernel.environments.describe_one(env) for env in kernel.environments]
    return rows, [list(env.tokens) for env in kernel.environments], [len(env.inbox) for env in kernel.environments]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_r13_without_a_descriptor_a_call_is_refused_and_changes_nothing(few: Callable[[int], None], left: int) -> None:
    with running_kernel() as kernel:
        giver, taker = kernel.open("giver"), kernel.open("taker")
        gate = kernel.gate(giver)
        extent = gate.allocate(1)
        before = state(kernel)
        few(left)
        with pytest.raises(ExhaustedError, match="no descriptor left"):
            gate.allocate(1)
        if left == 0:
            with pytest.raises(ExhaustedError, match="no descriptor left"):
                gate.delegate(extent.capability, taker.number)
        assert state(kernel) == before
        gate.pin(extent.first, 1)
        del extent  # and its mapping, which has a descriptor


def test_a_machine_takes_all_descriptors_that_it_may_have() -> None:
    script = (
        "import resource; from exonet.kernel.boot import Machine, MachineConfig;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard));"
        "Machine(MachineConfig()).close();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)
