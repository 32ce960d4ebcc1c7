# SPDX-License-Identifier: MIT
"""The control and wake sockets under attack: garbage, floods, unread replies, unwanted descriptors, forged
capabilities.
"""

import select
import socket

import pytest

from exonet.clock import monotonic_ns
from exonet.kernel import server as server_module
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Mode
from exonet.kernel.launcher import LibOSProcess
from tests.fakes.dispatcher import open_fds
from tests.hostile.conftest import Lab, last_line


def test_forged_capabilities_are_denied_and_the_good_one_is_not(lab: Lab) -> None:
    victim = lab.kernel.open("victim")
    stolen = lab.kernel.token(victim, Resource.FILTER).hex()
    thief = lab.start("forge", config={"stolen": stolen})
    lab.until(lambda: not thief.alive, "the end of the thief")
    found = last_line(thief)
    assert found.pop("good") == 0
    assert "belongs to environment 1" in found.pop("other")
    assert "does not cover 'net=other'" in found.pop("wider")
    assert {name for name, text in found.items() if "not one that this kernel granted" in text} == set(found)
    assert len(found) == 6


def test_invariant_5_garbage_is_answered_with_errors_and_then_with_the_end(lab: Lab) -> None:
    env = lab.run("garbage")
    assert f"{server_module.MAX_FAULTS} faults" in env.end_reason
    assert env.faults == server_module.MAX_FAULTS
    assert last_line(env)["replies"] >= server_module.MAX_FAULTS - 1


def test_a_message_over_the_limit_is_refused(lab: Lab) -> None:
    env = lab.run("huge")
    assert "longer than 65536 bytes" in last_line(env)["reply"]


def test_descriptors_that_nobody_asked_for_are_closed(lab: Lab) -> None:
    before = len(open_fds())
    env = lab.start("send_fds")
    found = lab.said(env)
    assert "neither is taken" in found["reply"]
    assert len(open_fds()) - before < 20
    assert env.faults == 8


def test_full_sockets_do_not_block_the_kernel(lab: Lab) -> None:
    """It fills the wake socket, then asks without reading: the kernel's own sends fail at once, and then it is
    ended.
    """
    env = lab.start("fill_sockets")
    lab.said(env)
    slowest = 0
    while env.alive:
        start = monotonic_ns()
        lab.server.serve(0.05)
        slowest = max(slowest, monotonic_ns() - start)
    assert "does not read its replies" in env.end_reason
    assert slowest < 1_000_000_000


def test_the_kernel_s_wake_up_of_a_full_socket_returns_at_once(lab: Lab) -> None:
    env = lab.kernel.environments.open("asleep", Mode.PROCESS)
    assert env.wake is not None
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            env.wake.send(b"\1", socket.MSG_DONTWAIT)


def test_a_pass_that_has_had_its_time_serves_one_request_of_each(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """System calls that take long are not served one after the other while frames wait. These two ask without reading,
    so there is always more to serve.
    """
    monkeypatch.setattr(server_module, "PASS_NS", 0)
    handled: list[str] = []
    handle = lab.kernel.dispatcher.handle
    lab.kernel.dispatcher.handle = lambda env, request: handled.append(env.name) or handle(env, request)
    envs = [lab.start("fill_sockets", name) for name in ("one", "two")]
    while any(env.alive for env in envs):
        before = len(handled)
        lab.server.serve(0.05)
        served = handled[before:]
        assert len(served) == len({*served})
    assert all(handled.count(env.name) > 1 for env in envs)


def test_a_flood_of_requests_gets_its_budget_and_no_more(lab: Lab) -> None:
    env = lab.start("flood")
    handled = []
    handle = lab.kernel.dispatcher.handle
    lab.kernel.dispatcher.handle = lambda env, request: handled.append(env.name) or handle(env, request)
    lab.until(lambda: "flood" in handled, "the first request")
    start = monotonic_ns()
    calls = 0
    while len(handled) < 1500:
        before = len(handled)
        lab.server.serve(0.05)
        calls += 1
        assert len(handled) - before <= server_module.REQUESTS
    seconds = (monotonic_ns() - start) / 1e9
    assert len(handled) <= server_module.BURST + server_module.PER_SECOND * (seconds + 0.2) + 10
    other = lab.run("leave")
    assert other.exit_status == 3
    assert env.alive and env.faults == 0


def test_a_shut_wake_socket_does_not_keep_the_kernel_awake(lab: Lab) -> None:
    env = lab.start("shut_wake")
    lab.said(env)
    assert env.wake is not None
    poll = select.poll()
    poll.register(env.wake, select.POLLIN)
    assert poll.poll(0) == []
    with pytest.raises(OSError):
        env.wake.send(b"\1", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def test_closing_the_control_socket_is_leaving(lab: Lab) -> None:
    env = lab.start("close_control")
    lab.until(lambda: not env.alive, "its end")
    assert env.end_reason == "it closed its control socket or was killed"


def test_a_libos_that_prints_without_end_fills_nothing(lab: Lab) -> None:
    env = lab.start("print_endlessly")
    end = monotonic_ns() + 300_000_000
    while monotonic_ns() < end:
        lab.server.serve(0.01)
    assert len(env.output) <= server_module.OUTPUT_KEPT
    assert env.alive


@pytest.mark.parametrize("entry", ["garbage", "close_control", "leave", "crash", "stuffed"])
def test_nobody_waits_for_a_death(lab: Lab, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """A process with much memory takes long to die; frames do not wait for it: it is reaped when it is dead."""
    kill, reaped = LibOSProcess.kill, []

    def reap(self: LibOSProcess) -> None:
        if self.pidfd >= 0:
            assert select.select([self.pidfd], [], [], 0)[0], "it lives"
            reaped.append(self.pid)
        kill(self)

    monkeypatch.setattr(LibOSProcess, "kill", reap)
    env = lab.run(entry)
    assert env.process is not None and reaped == [env.process.pid]
    assert not lab.kernel.bindings.of(env.number)
