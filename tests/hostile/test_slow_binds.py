# SPDX-License-Identifier: MIT
"""A LibOS that binds what takes long to compile, again and again: nobody's frames wait for it, and nobody's calls."""

import gc
import itertools
import json
import os
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exonet.clock import monotonic_ns
from exonet.errors import ConflictError, ExhaustedError, FilterError, KernelBug
from exonet.gate.protocol import Op, Reply, Request, Status, decode_reply, encode_request
from exonet.hardware.nic import NicConfig
from exonet.kernel import server as server_module
from exonet.kernel import studies as studies_module
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Resource
from exonet.kernel.environment import Environment, Mode
from exonet.kernel.regions import Regions
from exonet.kernel.server import TOKEN_NS, Server
from exonet.kernel.standing import exact
from exonet.kernel.studies import ALLOWANCE_NS, MOST_NEEDED, ROOM, Needed, Studies, Unready
from exonet.kernel.syscalls import MAX_JOINS
from exonet.trace import EventLog
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import pcap
from tests.fakes.dispatcher import FakeKernel, running_kernel
from tests.fakes.frames import udp

#: With as many conditions as a LibOS's text may have. libpcap's optimiser is about cubic.
SLOW = " or ".join(f"port {7 * number + 1}" for number in range(MAX_JOINS + 1))
MS = 1_000_000
PATIENCE_S = 20.0


# A real machine


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no environment can be isolated")
def test_frames_do_not_wait_for_a_filter_that_takes_long(preload: None, tmp_path: Path) -> None:
    begin = monotonic_ns()
    Regions().prepare(SLOW)
    slow = monotonic_ns() - begin
    assert slow > 80 * MS
    trace, log = tmp_path / "trace.pcap", tmp_path / "events"
    trace.write_bytes(pcap([(i, udp(dport=53)) for i in range(1000)]))
    with (
        EventLog(log) as events,
        PcapWire(trace, speed="pps=2k", loop=3) as wire,
        Machine(MachineConfig(), events) as machine,
    ):
        machine.attach(wire, NicConfig(promiscuous=True))
        binder = "tests.hostile.race_liboses:Binder"
        options = {"text": SLOW}
        spec = LibOSSpec("good", libos="sink", process=True, bindings=("udp dst port 53",), local="none")
        machine.spawn(spec)
        region = ("udp dst port 7",)
        machine.spawn(LibOSSpec("slow", libos=binder, process=True, bindings=region, local="none", options=options))
        machine.run()
        ledger = machine.settle()
        latest = wire.pacing_error().max
    assert ledger.delivered == 3000, ledger.table()
    refused = [row for row in map(json.loads, log.read_text().splitlines()) if row["event"] == "refused"]
    assert len(refused) > 1 and all("port 1 or port 8" in row["message"] for row in refused), len(refused)
    assert latest is not None and latest < slow // 2, (latest, slow)


# The server alone


class Desk:
    """A server whose environments are ends of sockets that the test holds; a "slow=" filter is ready when it is let."""

    def __init__(self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = kernel
        self.now = 10**12
        self.go = threading.Semaphore(0)
        self.studied: list[str] = []
        filters = kernel.bindings._filters
        self.server = Server(kernel.dispatcher, lambda: self.now, None, filters.studies)
        self.prepared = filters.prepare
        monkeypatch.setattr(filters, "prepare", self.prepare)
        self.studies = filters.studies
        self.sequence = itertools.count(1)

    def prepare(self, text: str) -> Any:
        def work() -> Any:
            assert self.go.acquire(timeout=PATIENCE_S)
            self.studied.append(text)
            return self.prepared(text)

        return self.studies.find(("filter", text), work) if "slow=" in text else self.prepared(text)

    def open(self, name: str) -> Environment:
        env = self.kernel.open(name, Mode.PROCESS)
        self.server.add(env)
        return env

    def ask(self, env: Environment, op: Op, **fields: Any) -> int:
        sequence = next(self.sequence)
        control = env.libos_ends[0]
        control.setblocking(False)
        control.send(encode_request(op, sequence, fields))
        return sequence

    def bind(self, env: Environment, text: str) -> int:
        """The owner is a field, so that nobody's filters overlap another's."""
        token = self.kernel.token(env, Resource.FILTER)
        return self.ask(
            env, Op.BIND, filter=f"net=lab and owner={env.name} and {text}", capability=token, shown=[], port=0, snoop=0
        )

    def answers(self, env: Environment) -> list[Reply]:
        found = []
        try:
            while message := env.libos_ends[0].recv(65536):
                found.append(decode_reply(message))
        except BlockingIOError:
            pass
        return found

    def serve(self) -> None:
        for _ in range(5):
            self.server.serve()

    def until(self, env: Environment) -> list[Reply]:
        end = monotonic_ns() + int(PATIENCE_S * 1e9)
        found: list[Reply] = []
        while not found:
            assert monotonic_ns() < end
            self.server.serve(0.05)
            found = self.answers(env)
        return found


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Any:
    with running_kernel() as kernel:
        desk = Desk(kernel, monkeypatch)
        yield desk
        desk.go.release(100)
        desk.server.close()


def test_others_are_answered_meanwhile_and_its_own_calls_keep_their_order(desk: Desk) -> None:
    slow, other = desk.open("slow"), desk.open("other")
    first = desk.bind(slow, "slow=1")
    second = desk.ask(slow, Op.DESCRIBE)
    theirs = desk.bind(other, "port=53")
    desk.serve()
    assert [reply.sequence for reply in desk.answers(other)] == [theirs]
    assert desk.answers(slow) == []
    desk.go.release()
    replies = desk.until(slow)
    while len(replies) < 2:
        replies += desk.until(slow)
    assert [(reply.sequence, reply.status) for reply in replies] == [(first, Status.OK), (second, Status.OK)]
    assert len(desk.kernel.bindings.of(slow.number)) == 1


def test_one_waits_for_one_at_a_time_and_they_take_turns(desk: Desk) -> None:
    several, one = desk.open("several"), desk.open("one")
    for number in range(3):
        desk.bind(several, f"slow={number}")
    desk.serve()
    desk.bind(one, "slow=9")
    desk.serve()
    desk.go.release(2)
    desk.until(one)
    assert desk.studied[:2] == ["net=lab and owner=several and slow=0", "net=lab and owner=one and slow=9"]


def test_its_end_while_it_waits(desk: Desk) -> None:
    slow, other = desk.open("slow"), desk.open("other")
    desk.bind(slow, "slow=1")
    desk.serve()
    desk.kernel.environments.end(slow, "the test ends it")
    desk.server._stop_listening(
        desk.server._clients[slow.control.fileno()] if slow.control else None
    ) if False else None
    desk.go.release()
    desk.bind(other, "port=53")
    desk.until(other)
    desk.serve()
    assert desk.kernel.bindings.of(slow.number) == []


def test_it_rests_and_closes_its_socket_with_a_slow_call_in_it(desk: Desk) -> None:
    """A closed socket is ready whatever is asked of it."""
    bad, other = desk.open("bad"), desk.open("other")
    assert bad.control is not None
    desk.server._clients[bad.control.fileno()].tokens = 2
    for _ in range(4):
        desk.ask(bad, Op.DESCRIBE)
    desk.bind(bad, "slow=1")
    desk.bind(bad, "slow=2")
    bad.libos_ends[0].shutdown(socket.SHUT_RDWR)
    for number in range(20):
        desk.serve()
        desk.now += 2 * MS
        desk.server._wake_resting()  # its timer is of the real clock
        if number == 10:
            desk.go.release(2)
    end = monotonic_ns() + int(PATIENCE_S * 1e9)
    while bad.alive and monotonic_ns() < end:
        desk.now += MS
        desk.server._wake_resting()
        desk.server.serve(0.01)
    assert bad.end_reason == "it closed its control socket"
    desk.bind(other, "port=53")
    assert desk.until(other)[0].status is Status.OK


def test_a_text_that_joins_too_much_is_refused_without_work(desk: Desk) -> None:
    env = desk.open("one")
    for joint in (" or ", "||", " and not ", "&&!", "and(", ")or("):
        desk.bind(env, "slow=" + joint.join(["1"] * (MAX_JOINS + 1)))
        (reply,) = desk.until(env)
        assert reply.status is Status.ERROR and f"at most {MAX_JOINS}" in reply.fields["message"]
        desk.now += 1000 * MS
    desk.bind(env, " or ".join(["port=1"] * (MAX_JOINS - 2)))
    assert "at most" not in desk.until(env)[0].fields["message"] and desk.studied == []


def test_no_token_no_work(desk: Desk) -> None:
    slow = desk.open("slow")
    token = bytes(64)
    desk.ask(slow, Op.BIND, filter="slow=1 and net=lab", capability=token, shown=[], port=0, snoop=0)
    desk.serve()
    (reply,) = desk.answers(slow)
    assert reply.status is not Status.OK and desk.studied == []


def test_the_time_that_calls_take_is_paid_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 10 ms: a LibOS gets a fifth of the time, whatever it asks for."""
    busy = desk.open("busy")
    real = desk.kernel.dispatcher.handle

    def handle(env: Environment, request: Request) -> Any:
        desk.now += 10 * MS
        return real(env, request)

    monkeypatch.setattr(desk.kernel.dispatcher, "handle", handle)
    begin = desk.now
    answered = 0
    desk.ask(busy, Op.DESCRIBE)
    while desk.now - begin < 10_000 * MS:
        before = desk.now
        desk.serve()
        if desk.answers(busy):
            answered += 1
            desk.ask(busy, Op.DESCRIBE)
        if desk.now == before:
            desk.now += MS
            desk.server._wake_resting()  # its timer is of the real clock
    budget = 10 * server_module.PER_SECOND + server_module.BURST
    most = budget / (1 + 10 * MS / TOKEN_NS)
    assert 0.5 * most < answered < 1.1 * most


# What is found out


def test_found_once_and_what_is_wrong_is_remembered_too() -> None:
    studies, asked = Studies(), itertools.count()

    def wrong() -> int:
        raise ConflictError(f"the {next(asked)}th time")

    for _ in range(3):
        assert studies.find("a", lambda: next(asked)) == 0
        with pytest.raises(ConflictError, match="the 1th time") as error:
            studies.find("b", wrong)
        assert len(error.traceback) < 5


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [(FilterError("no"), FilterError, "^no$"), (ZeroDivisionError("by 0"), KernelBug, "^ZeroDivisionError: by 0$")],
)
def test_what_fails_is_that_text_s_failure_and_drags_nothing_along(
    error: Exception, kind: type[Exception], says: str
) -> None:
    studies = Studies()
    alive: list[weakref.ref[Regions]] = []

    def work() -> int:
        big = Regions()
        alive.append(weakref.ref(big))
        try:
            raise ValueError(big)
        except ValueError as reason:
            raise type(error)(*error.args) from reason

    for _ in range(3):
        with pytest.raises(kind, match=says):
            studies.find("a", work)
    gc.collect()
    assert len(alive) == 1 and alive[0]() is None


def test_impatience_gets_the_work_and_not_the_wait() -> None:
    studies = Studies()
    done: list[int] = []
    needed: Needed = {}
    with studies.impatient(needed), pytest.raises(Unready) as unready:
        studies.find("a", lambda: done.append(1))
    assert done == []
    unready.value.work()
    with studies.impatient(needed):
        studies.find("a", lambda: done.append(2))
    assert done == [1]


def test_a_call_comes_further_each_time_however_little_is_remembered() -> None:
    studies = Studies()
    needed: Needed = {}
    for tries in range(10):  # noqa: B007  # it is asked for below
        try:
            with studies.impatient(needed):
                found = [studies.find(n, lambda n=n: n, weigh=lambda _: ROOM) for n in range(5)]
            break
        except Unready as unready:
            unready.work()
    assert (found, tries) == ([0, 1, 2, 3, 4], 5)
    with studies.impatient(dict.fromkeys(range(MOST_NEEDED))), pytest.raises(ExhaustedError, match="more than 1024"):
        studies.find("one more", lambda: 1)


def test_an_impatient_call_has_an_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10**12
    monkeypatch.setattr(studies_module, "monotonic_ns", lambda: now)
    studies = Studies()
    assert not studies.hurried
    with studies.impatient({}):
        assert not studies.hurried
        now += ALLOWANCE_NS
        assert studies.hurried
    assert not studies.hurried


def test_the_oldest_make_room_by_weight() -> None:
    studies = Studies()
    for number in range(10):
        studies.find(number, lambda number=number: number, weigh=lambda _: ROOM // 4)
    assert [studies.find(number, lambda: -1) for number in range(6, 10)] == [6, 7, 8, 9]
    studies.find("giant", lambda: "it", weigh=lambda _: 2 * ROOM)
    assert studies.find("giant", lambda: "another") == "it", "one at least is kept"
    assert studies.find(9, lambda: -1) == -1


def ready(regions: Regions, text: str) -> int:
    """How many studies it takes until the text is ready."""
    needed: Needed = {}
    for count in itertools.count():
        try:
            with regions.studies.impatient(needed):
                regions.prepare(text)
            return count
        except Unready as unready:
            unready.work()
    raise AssertionError


def test_what_is_known_but_for_its_values_is_ready_at_once() -> None:
    regions = Regions()
    assert ready(regions, "udp dst port 53") == 1
    assert ready(regions, "udp dst port 53") == ready(regions, "udp dst port 54") == 0
    assert regions.prepare("udp dst port 54").conjuncts == Regions().prepare("udp dst port 54").conjuncts
    for long in (" or ".join(["udp dst port 55"] * 12), "port 1" + "||2" * 9, "port 1" + " or 2" * 9, "!" * 10 + "udp"):
        assert ready(regions, long) == 1 and ready(Regions(), long) == 1
    four = "ip and tcp and src host 10.0.0.1 and dst host 10.0.0.2 and src port 5{} and dst port 80"
    assert [ready(regions, four.format(n)) for n in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("text", ["tcp dst prot 80", "port 70000", "host example.org", "less 10 and greater 20"])
def test_what_is_wrong_is_said_as_it_is_without_impatience(text: str) -> None:
    regions = Regions()
    with pytest.raises(FilterError) as plain:
        Regions().prepare(text)
    for _ in range(3):
        with pytest.raises(FilterError) as studied:
            ready(regions, text)
        assert str(studied.value) == str(plain.value)


def test_whatever_else_a_bind_has_to_find_out_is_a_study() -> None:
    regions = Regions()
    wide = regions.prepare(" or ".join(f"tcp dst port {7 * n * n + 1}" for n in range(12)))
    narrow = regions.prepare(" or ".join(f"ip src host 10.{n * n}.0.{3 * n} and tcp dst port 1" for n in range(12)))
    asks: tuple[Callable[[], Any], ...] = (
        lambda: exact(regions, narrow, wide).inside,
        lambda: regions.outside(narrow.text, wide.text),
        lambda: regions.remedy(wide.text, "ip host 10.0.0.1"),
    )
    for ask in asks:
        needed: Needed = {}
        with regions.studies.impatient(needed), pytest.raises(Unready) as unready:
            ask()
        unready.value.work()
        with regions.studies.impatient(needed):
            assert ask()
