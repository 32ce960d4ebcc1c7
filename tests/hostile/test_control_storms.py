# SPDX-License-Identifier: MIT
"""Through the control socket: tokens that are another's, of the past, cut and bent; and storms of messages."""

from typing import Any

import pytest

from exonet.clock import monotonic_ns
from exonet.kernel import server as server_module
from exonet.kernel.capability import Authority, Capability, Resource
from exonet.kernel.launcher import LIMITS
from tests.fakes.dispatcher import open_fds
from tests.hostile.conftest import Lab, last_line

SECOND_NS = 1_000_000_000
STORM_NS = SECOND_NS // 2


def run(lab: Lab, entry: str, tokens: dict[str, bytes]) -> dict[str, Any]:
    """What an entry that shows tokens found out."""
    config = {"tokens": {name: token.hex() for name, token in tokens.items()}}
    thief = lab.start(entry, module="control_libos", config=config)
    lab.until(lambda: not thief.alive, "the end of the thief")
    assert thief.end_reason == "it left", thief.output.decode()
    found = last_line(thief)
    assert found.pop("good") == 0
    return found


def test_tokens_of_others_are_worth_nothing_and_neither_are_its_own_changed(lab: Lab) -> None:
    kernel = lab.kernel
    victim, friend = kernel.open("victim"), kernel.open("friend")
    theirs = kernel.token(victim, Resource.FILTER)
    gate = kernel.gate(victim)
    lent, kept = gate.delegate(theirs, friend.number), gate.delegate(theirs, friend.number)
    gate.revoke(lent)
    held = kernel.authority.authentic(theirs)
    forged = [held.identifier, 0, held.epoch, 3, held.resource, held.rights, held.scope]
    other = Authority.of_seed(lambda outer, inner: True, 8).token(Capability(*forged))
    before = kernel.authority.count(victim.number), kernel.authority.count(friend.number)
    found = run(lab, "show_tokens", {"foreign": theirs, "lent": lent, "lent still": kept, "another kernel's": other})
    assert found["answers"] == {
        "DeniedError: belongs to environment 1, not 3": 4,
        "DeniedError: revoked": 4,
        "DeniedError: belongs to environment 2, not 3": 4,
        "DeniedError: not one that this kernel granted": 4 * (1 + 5 + 4 + 32),
    }
    assert (kernel.authority.count(victim.number), kernel.authority.count(friend.number)) == before


def test_r14_a_token_of_the_past_is_worth_nothing_to_its_own_holder(lab: Lab) -> None:
    assert run(lab, "past_tokens", {}) == {"answers": {"DeniedError: revoked": 36}, "again": 0}


def test_r14_a_delegation_that_was_taken_back_is_worth_nothing_to_whom_it_was_given(lab: Lab) -> None:
    kernel = lab.kernel
    giver = kernel.open("giver")
    tokens: dict[str, str] = {}
    thief = lab.start("show_tokens", module="control_libos", config={"tokens": tokens})
    gate = kernel.gate(giver)
    for resource in (Resource.FILTER, Resource.WIRE):
        lent = gate.delegate(kernel.token(giver, resource), thief.number)
        tokens[resource.value] = lent.hex()
        gate.revoke(lent)
    lab.until(lambda: not thief.alive, "the end of the thief")
    found = last_line(thief)["answers"]
    assert found["DeniedError: revoked"] == 8 and not any("was taken" in answer for answer in found)


@pytest.mark.parametrize("seed", range(4))
def test_invariant_5_a_storm_of_messages_costs_only_its_sender(lab: Lab, seed: int) -> None:
    """Bounded work a call, no descriptor kept, nothing changed for anybody else, and the sender at fault in the end."""
    other = lab.kernel.open("other")
    gate = lab.kernel.gate(other)
    extent, binding = gate.allocate(3), gate.bind("net=lab and port=53", lab.kernel.token(other, Resource.FILTER))
    held = lab.kernel.environments.describe_one(other)
    env = lab.start("storm", module="control_libos", config={"seed": seed})
    before = open_fds()
    slowest, end = 0, monotonic_ns() + STORM_NS
    while env.alive and monotonic_ns() < end:
        start = monotonic_ns()
        lab.server.serve(0.05)
        slowest = max(slowest, monotonic_ns() - start)
        if not env.faults:
            end = monotonic_ns() + STORM_NS  # it begins when its interpreter has
    assert slowest < SECOND_NS
    assert env.faults == server_module.MAX_FAULTS and not env.alive, (env.faults, env.end_reason, env.output)
    assert lab.kernel.environments.describe_one(other) == held
    assert gate.bind("net=lab and port=54", lab.kernel.token(other, Resource.FILTER)) != binding
    assert len(open_fds()) <= len(before) and extent.count == 3
    assert lab.kernel.authority.count() == lab.kernel.authority.count(other.number)


def test_what_it_freed_and_keeps_is_bounded_by_its_descriptors(lab: Lab) -> None:
    """A freed segment is empty, but a LibOS that keeps it can fill it again. How many it can keep has an end; what it
    maps is bounded by its address space.
    """
    pages = lab.kernel.pages.total
    env = lab.start("hoard", module="control_libos", config={"pages": pages})
    found = lab.said(env)
    assert 0 < found["kept"] < LIMITS["NOFILE"] and 0 < found["flying"] <= LIMITS["NOFILE"] + 1
    assert not lab.kernel.pages.used(env.number) and lab.kernel.pages.free_count == pages
