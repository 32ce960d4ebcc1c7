# SPDX-License-Identifier: MIT
"""One LibOS against another by system calls: gifts that nobody asked for; and fifty lives and deaths (invariant 8)."""

from collections.abc import Iterator

import pytest

from exonet.errors import ExhaustedError
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Mode
from tests.fakes.dispatcher import FakeKernel, make_kernel, open_fds


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    made = make_kernel(page_count=256)
    yield made
    made.close()


def test_gifts_do_not_use_up_what_the_receiver_may_hold(kernel: FakeKernel) -> None:
    """A LibOS that delegates for ever fills neither the other's capabilities nor its queue of events for good."""
    giver, victim = kernel.open("giver"), kernel.open("victim")
    token = kernel.token(giver, Resource.PAGES)
    gate = kernel.gate(giver)
    refused = 0
    for _ in range(400):
        try:
            gate.delegate(token, victim.number)
        except ExhaustedError:
            refused += 1
        while victim.inbox:
            victim.inbox.popleft().close()
    assert refused
    assert kernel.gate(victim).allocate(1).count == 1


def test_invariant_8_fifty_environments_live_and_die(kernel: FakeKernel) -> None:
    before, free = open_fds(), kernel.pages.free_count
    for i in range(50):
        env = kernel.open(f"e{i}", Mode.INLINE)
        kernel.gate(env).allocate(2)
        kernel.environments.end(env, "the test ends it")
    assert open_fds() == before and kernel.pages.free_count == free and not kernel.authority.count()
