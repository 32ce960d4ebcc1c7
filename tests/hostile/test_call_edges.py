# SPDX-License-Identifier: MIT
"""Every call with every edge of each of its fields, over a real control socket: answered within milliseconds of the
kernel's own time, and where it is refused nothing has changed.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from exonet.clock import monotonic_ns
from exonet.gate.client import InlineGate
from exonet.gate.protocol import FIELDS, HEADER, MAX_MESSAGE, Op, Status
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Environment, Mode
from exonet.kernel.server import Server
from tests.fakes.dispatcher import FakeKernel, running_kernel

PAGES = 1 << 16
#: Kernel time of a call, ns: a hundred times what the slowest needs, a thousandth of what a walk over a range takes.
MOST_NS = 50_000_000
NUMBERS = (-1, 0, 1, 7, 8, 63, 64, 255, 256, PAGES - 1, PAGES, PAGES + 1)
NUMBERS += tuple(power + more for power in (1 << 31, 1 << 32, 1 << 64) for more in (-2, -1, 0, 1))
ODD: tuple[Any, ...] = (None, True, False, 0.0, 1.0, -0.5, 1e300, "", " ", "  " * 6, "0", "00" * 6, "01" * 6, "zz" * 6)
ODD += ("x" * 1024, "x" * 1025, "00" * 16384, "00" * 16385, "é", "\0", "::", "::1%0", [], {}, [[]], [0], ["00"] * 4)
ODD += ([[[[[[]]]]]], {"a": {"b": 1}}, 10**4000, ["bind"] * 17, ["x" * 17])


@dataclass
class Rig:
    """An attacker at its end of the control socket, and somebody else who holds things."""

    kernel: FakeKernel
    server: Server
    env: Environment
    control: socket.socket
    other: InlineGate

    def ask(self, message: bytes) -> tuple[Status, dict[str, Any], int]:
        """The answer, and the kernel's own time for it, ns."""
        self.env.faults = 0  # an attacker of many lives
        self.control.send(message)
        begin = time.thread_time_ns()
        self.server.serve()
        spent = time.thread_time_ns() - begin
        reply, fds, _, _ = socket.recv_fds(self.control, MAX_MESSAGE, 4)
        for fd in fds:
            os.close(fd)
        return Status(HEADER.unpack_from(reply)[1]), json.loads(reply[HEADER.size :]), spent

    def state(self) -> Any:
        kernel = self.kernel
        held = [kernel.environments.describe_one(env) | {"faults": 0} for env in kernel.environments]
        return kernel.machine.state(), kernel.authority.count(), held, kernel.pages.free_count


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running_kernel(page_count=PAGES) as kernel:
        other = kernel.gate(kernel.open("other"))
        extent = other.allocate(8, first=100)
        env = kernel.open("attacker", Mode.PROCESS)
        clock = iter(range(monotonic_ns(), 1 << 62, 1_000_000_000))  # a second a look: it has always a budget
        server = Server(kernel.dispatcher, lambda: next(clock))
        server.add(env)
        control = env.libos_ends[0]
        control.settimeout(5)
        yield Rig(kernel, server, env, control, other)
        extent.memory.close()
        server.close()
        other.close()


def good(rig: Rig) -> dict[Op, dict[str, Any]]:
    """Of each call fields that are right but for those that an edge replaces."""
    pages, filters = (rig.kernel.token(rig.env, each).hex() for each in (Resource.PAGES, Resource.FILTER))
    run = {"first": 0, "count": 1}
    port = {"port": 0}
    return {
        Op.HELLO: {"version": 1},
        **dict.fromkeys((Op.ALLOCATE, Op.FREE, Op.PIN, Op.UNPIN, Op.GUARANTEE, Op.UNGUARANTEE), run),
        Op.BIND: {"filter": "net=lab", "capability": filters, "shown": [], "snoop": 0, **port},
        Op.UNBIND: {"binding": 0},
        **{op: {"mac": "01" * 6, **port} for op in (Op.SUBSCRIBE, Op.UNSUBSCRIBE)},
        Op.NEIGHBOUR: {"address": "10.9.9.9", **port},
        Op.NARROW: {"capability": filters, "rights": None, "region": None},
        Op.DELEGATE: {"capability": pages, "env": 1},
        Op.REVOKE: {"capability": "00"},
        Op.EXIT: {"status": 0},
    }


@pytest.mark.parametrize("op", [op for op in FIELDS if FIELDS[op]], ids=lambda op: op.name)
def test_every_edge_of_every_field_is_answered_at_once_and_a_refusal_changes_nothing(rig: Rig, op: Op) -> None:
    fields = good(rig)[op]
    for name in fields:
        for value in (*NUMBERS, *ODD):
            if op is Op.EXIT and type(value) is int and 0 <= value <= 255:
                continue
            body = json.dumps(fields | {name: value}).encode()
            before = rig.state()
            status, said, spent = rig.ask(HEADER.pack(op, Status.REQUEST, 1, len(body)) + body)
            what = f"{op.name} {name} {str(value)[:40]}: {said}"
            assert rig.env.alive, what
            assert spent < MOST_NS, f"{what}: {spent / 1e6:.1f} ms"
            if status is Status.ERROR:
                assert rig.state() == before, what


def ask_pages(rig: Rig, op: Op, first: int, count: int) -> tuple[Status, dict[str, Any], int]:
    body = json.dumps({"first": first, "count": count}).encode()
    return rig.ask(HEADER.pack(op, Status.REQUEST, 1, len(body)) + body)


RUN_OPS = [Op.ALLOCATE, Op.FREE, Op.PIN, Op.UNPIN, Op.GUARANTEE, Op.UNGUARANTEE]


@pytest.mark.parametrize("first", [0, 100, 60000, PAGES - 1, 0xFFFFFFFE])
@pytest.mark.parametrize("op", RUN_OPS, ids=lambda op: op.name)
def test_no_run_of_pages_is_walked_that_is_not_its_own(rig: Rig, op: Op, first: int) -> None:
    """GUARANTEE of 4 billion pages from page 60,000 on held the kernel up for 100 s."""
    assert ask_pages(rig, Op.ALLOCATE, 50000, 4)[0] is Status.OK
    before = rig.state()
    for count in (9000, PAGES - 100, PAGES, 0xFFFFFFFE):
        status, said, spent = ask_pages(rig, op, first, count)
        assert status is Status.ERROR and rig.state() == before, said
        assert spent < MOST_NS, f"{spent / 1e6:.1f} ms"
