# SPDX-License-Identifier: MIT
"""What others give a LibOS makes none of its own calls fail: its greeting names what the operator granted, gifts come
as events, and a description has of them what there is room for.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from exonet.kernel import syscalls
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Environment
from tests.fakes.dispatcher import FakeKernel, running_kernel

GIFTS = 20


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    with running_kernel() as made:
        yield made


@pytest.fixture
def target(kernel: FakeKernel) -> Environment:
    """An environment that was given so much before its first word."""
    giver, target = kernel.open("giver"), kernel.open("target")
    gate, token = kernel.gate(giver), kernel.token(giver, Resource.FILTER)
    for _ in range(GIFTS):
        gate.delegate(token, target.number)
    return target


def test_a_greeting_names_what_the_operator_granted_and_gifts_come_as_events(
    kernel: FakeKernel, target: Environment
) -> None:
    with closing(kernel.gate(target)) as gate:
        own = [grant.token for grant in gate.welcome().capabilities]
        assert own == target.tokens[:3] and len(target.tokens) == 3 + GIFTS
        assert [granted.grant.token for granted in gate.granted()] == target.tokens[3:]


def test_a_description_has_all_that_is_ones_own_and_gifts_as_many_as_fit(
    kernel: FakeKernel, target: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(kernel.gate(target)) as gate:
        whole = gate.describe()
        assert (len(whole["capabilities"]), whole["capabilities_left_out"]) == (3 + GIFTS, 0)
        monkeypatch.setattr(syscalls, "MAX_MESSAGE", 2000)
        part = gate.describe()
        assert part["capabilities"] == whole["capabilities"][: len(part["capabilities"])]
        assert 3 <= len(part["capabilities"]) < 3 + GIFTS
        assert part["capabilities_left_out"] == 3 + GIFTS - len(part["capabilities"])
