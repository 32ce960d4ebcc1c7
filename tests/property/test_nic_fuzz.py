# SPDX-License-Identifier: MIT
"""The NIC against a reference in plain Python: order, FIFO, every drop, head and tail, after every step."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exonet.abi import lib
from tests.effort import tries
from tests.nic_rig import BROADCAST, GROUP, OTHER, OWN, Rig, ip4

JOINABLE = (OTHER, GROUP, bytes.fromhex("020000000777"), bytes(6))
RXEN = 2


@dataclass
class Waiting:
    id: int
    queue: int
    occupancy: int
    data: bytes
    local: bool = False


@dataclass
class ReferenceQueue:
    entries: int
    drop_enable: bool
    enabled: bool = True
    free: int = 0
    done: deque = field(default_factory=deque)
    held: list = field(default_factory=list)
    head: int = 0

    def __post_init__(self):
        self.free = self.entries - 1


class ReferenceNic:
    """What the datasheet's words say, with lists."""

    def __init__(self, rig):
        config = rig.config
        self.rig, self.config = rig, config
        self.queues = [ReferenceQueue(config.descriptors, config.drop_enable) for _ in range(config.queues)]
        self.fifo: deque[Waiting] = deque()
        self.members: dict[bytes, int] = {}
        self.receiving = True
        self.longest = config.max_frame
        self.drops: dict[str, int] = {}

    def lose(self, reason):
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def filtered(self, to):
        if to in (BROADCAST, OWN) or self.config.promiscuous or self.members.get(to):
            return False
        return not (to[0] & 1 and self.members.get(bytes(6)))

    def advance(self, frame):
        queue = self.queues[frame.queue]
        if queue.enabled and queue.free:
            queue.free -= 1
            queue.head = (queue.head + 1) % queue.entries
            queue.done.append(frame)
        elif not queue.enabled:
            self.lose("nic_rx_fifo")
        elif queue.drop_enable:
            self.lose("nic_rx_no_buffer")
        else:
            return False
        return True

    def place(self, frame):
        if not self.fifo and self.advance(frame):
            return True
        if frame.occupancy + sum(other.occupancy for other in self.fifo) <= self.config.fifo_bytes:
            self.fifo.append(frame)
        elif self.config.mode == lib.EXO_NIC_BACKPRESSURE and not frame.local:
            return False
        else:
            self.lose("nic_rx_missed")
        return True

    def receive(self, frames, wire_len, flags):
        """`frames`: (number, bytes). How many were taken."""
        for taken, (number, data) in enumerate(frames):
            length = max(len(data), wire_len or 0)
            if len(data) >= 6 and self.filtered(data[:6]):
                self.lose("mac_filtered")
            elif not self.receiving:
                self.lose("nic_rx_fifo")
            elif len(data) < 14:
                self.lose("nic_rx_short")
            elif length > self.longest:
                self.lose("nic_rx_long")
            elif flags & lib.EXO_F_BAD_CRC:
                self.lose("nic_rx_crc")
            elif not self.place(
                Waiting(number, self.queue_of(data), max(length, 60), data, bool(flags & lib.EXO_F_LOCAL))
            ):
                return taken
        return len(frames)

    def queue_of(self, data):
        if len(self.queues) == 1:
            return 0
        return lib.exo_nic_rss(self.rig.nic.native, data, len(data)) % 128 % len(self.queues)

    def take(self, number, maximum):
        queue = self.queues[number]
        taken = [queue.done.popleft() for _ in range(min(maximum, len(queue.done)))]
        queue.held += taken
        return [(frame.id, frame.data) for frame in taken]

    def untake(self, number, n):
        queue = self.queues[number]
        for _ in range(min(n, len(queue.held))):
            queue.done.appendleft(queue.held.pop())

    def refill(self, number):
        queue = self.queues[number]
        queue.free, queue.held = queue.free + len(queue.held), []
        self.drain()

    def drain(self):
        while self.fifo and self.advance(self.fifo[0]):
            self.fifo.popleft()

    def switch_receiver(self, on):
        self.receiving = on
        while not on and self.fifo:
            self.fifo.popleft()
            self.lose("nic_rx_fifo")

    def in_flight(self):
        return len(self.fifo) + sum(len(queue.done) for queue in self.queues)


def frame_bytes(draw_size, to, flow, fill):
    whole = ip4("10.0.0.1", f"10.0.{flow}.2", sport=flow + 1)
    body = whole[6:] + bytes((fill + i) & 0xFF for i in range(max(0, draw_size - len(whole))))
    return (to + body)[:draw_size]


FRAMES = st.builds(
    frame_bytes,
    st.one_of(st.sampled_from([0, 5, 6, 13, 14, 59, 60, 61, 64, 200, 300, 301]), st.integers(0, 320)),
    st.sampled_from([OWN, OWN, OWN, OTHER, GROUP, BROADCAST, JOINABLE[2]]),
    st.integers(0, 7),
    st.integers(0, 255),
)
QUEUE = st.integers(0, 2)
OPERATIONS = st.one_of(
    st.tuples(
        st.just("receive"),
        st.lists(FRAMES, min_size=1, max_size=16),
        st.sampled_from([None, None, None, 250, 400]),
        st.sampled_from([0, 0, 0, 0, lib.EXO_F_BAD_CRC, lib.EXO_F_LOCAL]),
    ),
    st.tuples(st.just("take"), QUEUE, st.integers(0, 20)),
    st.tuples(st.just("refill"), QUEUE),
    st.tuples(st.just("untake"), QUEUE, st.integers(0, 9)),
    st.tuples(st.just("round"), QUEUE),
    st.tuples(st.just("join"), st.sampled_from(JOINABLE)),
    st.tuples(st.just("leave"), st.sampled_from(JOINABLE)),
    st.tuples(st.just("drop_enable"), QUEUE, st.booleans()),
    st.tuples(st.just("enable"), QUEUE, st.booleans()),
    st.tuples(st.just("receiver"), st.booleans()),
    st.tuples(st.just("longest"), st.sampled_from([60, 200, 300])),
)
CONFIGS = st.fixed_dictionaries(
    {
        "queues": st.sampled_from([1, 1, 2, 3]),
        "descriptors": st.sampled_from([8, 16]),
        "fifo_bytes": st.sampled_from([0, 60, 250, 1000]),
        "max_frame": st.just(300),
        "mode": st.sampled_from([0, 0, 1]),
        "promiscuous": st.booleans(),
    }
)


class Pair:
    """The NIC and its reference, driven alike."""

    def __init__(self, rig):
        self.rig, self.reference = rig, ReferenceNic(rig)

    def step(self, name, *arguments):
        getattr(self, name)(*arguments)
        self.compare()

    def receive(self, datas, wire_len, flags):
        numbered = list(enumerate(datas, self.rig.next_id))
        expected = self.reference.receive(numbered, wire_len, flags)
        assert self.rig.receive(*datas, wire_len=wire_len or 0, flags=flags) == expected

    def take(self, queue, maximum):
        queue %= self.rig.config.queues
        got = self.rig.take(maximum, queue)
        assert [(frame.id, frame.data) for frame in got] == self.reference.take(queue, maximum)
        for frame in got:
            assert frame.padded == frame.data + bytes(max(0, 60 - len(frame.data)))

    def refill(self, queue):
        queue %= self.rig.config.queues
        self.rig.refill(queue)
        self.reference.refill(queue)

    def untake(self, queue, n):
        queue %= self.rig.config.queues
        self.rig.untake(n, queue)
        self.reference.untake(queue, n)

    def round(self, queue):
        self.take(queue, 64)
        self.refill(queue)

    def join(self, mac):
        assert self.rig.join(mac) == 0
        self.reference.members[mac] = self.reference.members.get(mac, 0) + 1

    def leave(self, mac):
        there = self.reference.members.get(mac, 0)
        assert self.rig.leave(mac) == (0 if there else lib.EXO_E_NOT_FOUND)
        self.reference.members[mac] = max(0, there - 1)

    def drop_enable(self, queue, on):
        queue %= self.rig.config.queues
        self.rig.nic.write(f"SRRCTL{queue}", on << 31)
        self.reference.queues[queue].drop_enable = on
        self.reference.drain()

    def enable(self, queue, on):
        queue %= self.rig.config.queues
        self.rig.nic.write(f"RXDCTL{queue}", on << 25)
        self.reference.queues[queue].enabled = on
        self.reference.drain()

    def receiver(self, on):
        rctl = self.rig.nic.register("RCTL")
        self.rig.nic.write("RCTL", rctl | RXEN if on else rctl & ~RXEN)
        self.reference.switch_receiver(on)

    def longest(self, limit):
        self.rig.nic.write("RLPML", limit)
        self.reference.longest = limit

    def compare(self):
        self.rig.conserved()
        reference = self.reference
        assert self.rig.drops() == reference.drops
        assert self.rig.in_flight() == reference.in_flight()
        assert bool(lib.exo_nic_pending(self.rig.nic.native)) == any(queue.done for queue in reference.queues)
        for number, queue in enumerate(reference.queues):
            head, tail = (self.rig.nic.register(f"{name}{number}") for name in ("RDH", "RDT"))
            assert (head, (tail - head) % queue.entries) == (queue.head, queue.free)


@settings(max_examples=tries(60))
@given(CONFIGS, st.lists(OPERATIONS, max_size=30))
def test_invariant_1_nic_equals_its_reference_and_conserves(config, operations):
    with Rig(**config) as rig:
        pair = Pair(rig)
        for operation in operations:
            pair.step(*operation)


@pytest.mark.parametrize("seed", range(3))
def test_long_runs_wrap_every_ring(seed):
    """Overload and drain over many times the rings' and the FIFO's size."""
    draw = random.Random(seed)
    with Rig(queues=1 + seed, descriptors=8, fifo_bytes=777, max_frame=300, promiscuous=seed == 0) as rig:
        pair = Pair(rig)
        for _ in range(600):
            sizes = [draw.choice([14, 42, 60, 61, 64, 150, 299, 300]) for _ in range(draw.randrange(1, 12))]
            datas = [frame_bytes(size, OWN, draw.randrange(8), draw.randrange(256)) for size in sizes]
            pair.step("receive", datas, None, 0)
            pair.step("take", draw.randrange(3), draw.randrange(1, 9))
            pair.step("refill", draw.randrange(3))
        for queue in range(1 + seed):
            pair.step("round", queue)


@settings(max_examples=tries(60))
@given(st.binary(max_size=120), st.integers(0, 3))
def test_invariant_5_no_frame_crashes_the_hash_or_the_filter(data, kind):
    """Random bytes behind headers that look real; under ASan this proves that nothing is read past the end."""
    prefix = [b"", bytes(12) + b"\x08\x00\x45", bytes(12) + b"\x86\xdd\x60", bytes(12) + b"\x81\x00\x00\x01\x08\x00"][
        kind
    ]
    with Rig(queues=4) as rig:
        frame = prefix + data
        lib.exo_nic_rss(rig.nic.native, frame, len(frame))
        rig.receive(frame)
        rig.conserved()


@settings(max_examples=tries(60))
@given(st.lists(st.tuples(st.integers(0, 0x10000), st.integers(0, 0xFFFFFFFF)), max_size=40))
def test_invariant_5_no_register_write_crashes(writes):
    with Rig(queues=3) as rig:
        for offset, value in writes:
            lib.exo_nic_write(rig.nic.native, offset, value)
            lib.exo_nic_read(rig.nic.native, offset)
            rig.receive(ip4("10.0.0.1", "10.0.0.2", sport=value & 0xFFFF), b"x" * 61)
            for queue in range(3):
                rig.take(2, queue)
                rig.refill(queue)
            rig.conserved()
