# SPDX-License-Identifier: MIT
"""Two engines joined by a simulated link on virtual time: one scenario under every impairment (STYLE, Tests).

The link is a priority queue of (time, sequence), so that ties are ordered (R18). It draws from a seeded
generator only.
"""

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.stack_frames import SECOND, Engine, Reason, StackConfig, conserve

MS = 10**6


@dataclass(frozen=True)
class Link:
    delay: int = 10_000
    jitter: int = 0
    reorder: float = 0
    duplicate: float = 0
    loss: float = 0
    corrupt: float = 0


LINKS = {
    "clean": Link(),
    "delay": Link(delay=50 * MS),
    "reorder": Link(delay=MS, jitter=MS // 2, reorder=0.3),
    "duplicate": Link(duplicate=0.3),
    "loss": Link(loss=0.1),
    "corrupt": Link(corrupt=0.1),
}


@dataclass
class World:
    link: Link
    seed: int
    mtu: int = 1500
    now: int = 0
    sequence: int = 0
    queue: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    log: list[tuple[int, int, bytes]] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for i in (1, 2):
            config = StackConfig.make(
                f"02:00:00:00:00:0{i}", f"10.7.0.{i}/24", f"fd07::{i}/64", seed=self.seed + i, mtu=self.mtu
            )
            self.engines.append(Engine(config))

    def carry(self) -> None:
        """What the engines sent goes onto the link."""
        for side, engine in enumerate(self.engines):
            for frame in engine.output():
                copies = 1 + (self.random.random() < self.link.duplicate)
                for _ in range(copies):
                    self.put(1 - side, frame)

    def put(self, to: int, frame: bytes) -> None:
        link = self.link
        if self.random.random() < link.loss:
            return
        if self.random.random() < link.corrupt:
            at = self.random.randrange(len(frame))
            frame = frame[:at] + bytes([frame[at] ^ 1 << self.random.randrange(8)]) + frame[at + 1 :]
        at = self.now + link.delay + (self.random.randrange(link.jitter) if link.jitter else 0)
        if self.random.random() < link.reorder:
            at += 2 * link.delay
        self.sequence += 1
        heapq.heappush(self.queue, (at, self.sequence, to, frame))

    def run(self, until: int) -> None:
        """Frames and timers in the order of time, up to `until`."""
        while True:
            self.carry()
            timers = [d for engine in self.engines if (d := engine.poll(self.now)) is not None]
            self.carry()
            due = min([*timers, *(entry[0] for entry in self.queue[:1])], default=until + 1)
            if due > until:
                break
            self.now = max(self.now, due)
            while self.queue and self.queue[0][0] <= self.now:
                _, _, to, frame = heapq.heappop(self.queue)
                self.log.append((self.now, to, frame))
                self.engines[to].input(frame, self.now)
                conserve(self.engines[to])
        self.now = until


def exchange(world: World, family: int, sizes: list[int], count: int) -> dict[str, Any]:
    """One engine sends numbered datagrams, the other echoes them; the echoes that come back are collected."""
    client, server = (engine.udp(port, family=family) for engine, port in zip(world.engines, (4000, 7), strict=True))
    peer = "10.7.0.2" if family == 4 else "fd07::2"
    sent = {}
    got: list[bytes] = []
    for i in range(count):
        size = sizes[i % len(sizes)]
        data = (i.to_bytes(4, "big") + random.Random(i).randbytes(size))[: max(size, 4)]
        sent[data] = i
        client.send(data, peer, 7, world.now)
        world.run(world.now + 5 * MS)
        while (d := server.receive()) is not None:
            server.send(d.data, d.peer, d.port, world.now, d.local)
        world.run(world.now + 5 * MS)
        while (d := client.receive()) is not None:
            got.append(d.data)
    for _ in range(4):
        world.run(world.now + SECOND)
        while (d := server.receive()) is not None:
            server.send(d.data, d.peer, d.port, world.now, d.local)
        world.run(world.now + SECOND)
        while (d := client.receive()) is not None:
            got.append(d.data)
    return {"sent": sent, "got": got}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", LINKS)
def test_datagrams_small_and_fragmented(name, family):
    world = World(LINKS[name], seed=11)
    result = exchange(world, family, [4, 500, 1472, 5000, 30000], 60)
    sent, got = result["sent"], result["got"]
    # Whatever the link does: nothing that was not sent, nothing changed.
    assert set(got) <= set(sent)
    if name in ("clean", "delay"):
        assert got == list(sent)
    elif name in ("reorder", "duplicate"):
        assert set(got) == set(sent)
    else:
        assert 10 < len(set(got)) < 60
    world.run(world.now + 100 * SECOND)  # everything held expires
    for engine in world.engines:
        assert engine.held == 0
        conserve(engine)
    dropped = {reason for engine in world.engines for reason in engine.drops}
    allowed = {
        "clean": set(),
        "delay": set(),
        "reorder": set(),
        "duplicate": {"stack.frag_overlap", "stack.frag_reasm_timeout", "stack.otherhost"},
        "loss": {"stack.frag_reasm_timeout", "stack.frag_reasm_full"},
    }
    if name in allowed:
        assert dropped <= allowed[name], dropped


@pytest.mark.parametrize("family", [4, 6])
def test_invariant_7_two_runs_are_equal_to_the_byte(family):
    def run(seed: int) -> Any:
        world = World(Link(delay=MS, jitter=MS, reorder=0.2, duplicate=0.1, loss=0.1, corrupt=0.05), seed)
        exchange(world, family, [4, 3000], 20)
        return world.log, [engine.describe() for engine in world.engines]

    assert run(5) == run(5)
    assert run(5) != run(6)


@pytest.mark.parametrize("mtu", [576, 1280, 9000, 65521])
def test_every_mtu(mtu):
    world = World(Link(), 3, mtu=1500 if mtu < 1280 else mtu)
    if mtu < 1280:
        world.engines = [Engine(StackConfig.make(f"02:00:00:00:00:0{i}", f"10.7.0.{i}/24", mtu=mtu)) for i in (1, 2)]
    result = exchange(world, 4, [0, mtu - 28, mtu - 27, 65507], 8)
    assert result["got"] == list(result["sent"])


def test_two_engines_that_speak_at_once_resolve_each_other():
    world = World(Link(), 1)
    sockets = [engine.udp(9) for engine in world.engines]
    sockets[0].send(b"to two", "10.7.0.2", 9, 0)
    sockets[1].send(b"to one", "10.7.0.1", 9, 0)
    world.run(SECOND)
    assert sockets[0].receive().data == b"to one" and sockets[1].receive().data == b"to two"
    assert Reason.DELIVERED == 0
    for engine in world.engines:
        assert engine.drops == {} and engine.counters["out_neigh_failed"] == 0


def test_a_peer_behind_another_vlan_is_never_reached():
    world = World(Link(), 1)
    world.engines[1] = Engine(StackConfig.make("02:00:00:00:00:02", "10.7.0.2/24", vlan=7))
    socket = world.engines[0].udp()
    socket.send(b"x", "10.7.0.2", 9, 0)
    world.run(10 * SECOND)
    assert socket.error() == (4, 3, 1) and world.engines[1].drops == {"stack.vlan": 3}
