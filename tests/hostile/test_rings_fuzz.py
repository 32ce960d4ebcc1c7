# SPDX-License-Identifier: MIT
"""Every word that a LibOS can write, fuzzed (invariants 1, 2, 3, 5): one LibOS lies, two honest ones lose nothing.

The liar writes indices, fill and transmit entries, verdicts, wake flags and counters: first at random between bursts on
the virtual clock, checked after each; then from a thread of its own, over its area and pages, while the kernel runs.
"""

import random
import threading
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.clock import monotonic_ns
from tests.fakes.frames import HERE, arp_request, frag, icmp_error, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire
from tests.flow.test_receive_path import conserved

MAC = bytes.fromhex(HERE.replace(":", ""))
LOCAL = {"mac": MAC, "family": 4, "address": bytes([10, 0, 0, 1]) + bytes(12), "prefix": 32, "protocol": 17}
WORDS = [0, 1, 2, 7, 8, 63, 64, 65, 127, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
HALVES = [0, 1, 13, 14, 59, 60, 2047, 2048, 2049, 4095, 4096, 4097, 0x7FFF, 0xFFFF]
INDICES = ["fill_put", "receive_taken", "transmit_put", "completion_taken", "need_wakeup"]
HONEST = [53, 54]
LIES_PORT = 7


class Liar(FakeLibOS):
    """Random words where the kernel reads."""

    random: random.Random

    def word(self, near: int) -> int:
        pick = self.random
        return pick.choice([*WORDS, (near + pick.choice([-65, -64, -1, 0, 1, 3, 63, 64, 65])) & 0xFFFFFFFF])

    def page(self) -> int:
        pick = self.random
        mine = pick.randrange(self.first, self.first + self.pages)
        return pick.choice([mine, mine, mine, 0, 1, pick.randrange(256), *WORDS])

    def index(self) -> None:
        index = getattr(self.env.libos, self.random.choice(INDICES))
        index.value = self.word(index.value)

    def posts(self) -> None:
        """The same buffer many times, other people's, such as overlap what is sent, any bounds."""
        same = (self.page(), self.random.choice(HALVES), self.random.choice(HALVES))
        for _ in range(self.random.choice([1, 4, 64])):
            fresh = (self.page(), self.random.choice(HALVES), self.random.choice(HALVES))
            self.fill(*(same if self.random.random() < 0.5 else fresh))

    def sends(self) -> None:
        pick = self.random
        page, data = self.first + pick.randrange(self.pages), udp(dport=pick.choice([*HONEST, 7]))
        self.memory(page, 0, len(data))[:] = data
        for _ in range(pick.choice([1, 3, 20, 64])):
            wild = pick.random() < 0.5
            self.describe(
                page=self.page() if wild else page,
                offset=pick.choice(HALVES) if wild else 0,
                length=pick.choice(HALVES) if wild else len(data),
                flags=pick.choice([0, 0, 1, 128, 0xFFFF]),
                port=pick.choice([0, 0, 0, 1, 7, 0xFFFF]),
                csum_start=pick.choice(HALVES),
                csum_offset=pick.choice(HALVES),
                gso_size=pick.choice([0, 0, 0, 1, 0xFFFF]),
            )

    def verdicts(self) -> None:
        verdicts = self._array("uint16_t", self.env.libos, self.env.layout.verdict_offset)
        for i in range(self.entries):
            verdicts[i] = self.random.choice([0, 1, 2, 40, 60, 95, 96, 0xFFFF])

    def noise(self) -> None:
        size = self.env.layout.libos_area_size
        at = self.random.randrange(size - 64)
        ffi.buffer(self.env.libos, size)[at : at + 64] = self.random.randbytes(64)

    def unpins(self) -> None:
        page = self.first + self.random.randrange(self.pages)
        call = self.random.choice([lib.exo_pages_pin, lib.exo_pages_unpin, lib.exo_pages_release])
        call(self.table, self.number, page, 1)

    def lie(self) -> None:
        self.random.choice(
            [self.index, self.posts, self.posts, self.sends, self.sends, self.verdicts, self.noise, self.unpins]
        )()


def traffic(pick: random.Random) -> list[bytes]:
    odd = [frag(0), frag(1), frag(2), icmp_error(4, 53), arp_request("10.0.0.1"), udp(dport=9), bytes(20)]
    ports = [*HONEST, *HONEST, LIES_PORT, LIES_PORT]
    return [udp(dport=pick.choice(ports), payload=pick.randbytes(pick.randrange(900))) for _ in range(12)] + [
        pick.choice(odd)
    ]


def build(clock: int, wire: ScriptWire, seed: int) -> tuple[Bench, list[FakeLibOS], Liar]:
    bench = Bench(clock=clock)
    bench.attach(wire, fifo_bytes=1 << 20)
    honest = [FakeLibOS(bench, pages=32) for _ in HONEST]
    for libos, port in zip(honest, HONEST, strict=True):
        libos.bind(f"udp dst port {port}")
        libos.locals({**LOCAL, "port_low": port, "port_high": port})
    liar = new_liar(bench, seed)
    lib.exo_nic_filter_add(lib.exo_machine_nic(bench.native, 0), MAC)
    return bench, honest, liar


def new_liar(bench: Bench, seed: int) -> Liar:
    liar = Liar(bench, pages=8)
    liar.random = random.Random(seed)
    liar.bind(f"udp dst port {LIES_PORT}")
    liar.locals({**LOCAL, "port_low": 4000, "port_high": 4000})
    liar.subscribe()
    return liar


def kept(honest: list[FakeLibOS]) -> list[Any]:
    """What of honest environments a liar may never change: their areas and the pages they send from."""
    areas = [(libos.env.libos, libos.env.layout.libos_area_size) for libos in honest]
    last = [bytes(libos.memory(libos.first + libos.pages - 1, 0, 4096)) for libos in honest]
    return [bytes(ffi.buffer(*area)) for area in areas] + last


@pytest.mark.parametrize("seed", range(12))
def test_invariant_5_whatever_a_libos_writes_costs_only_itself(seed: int) -> None:
    pick, wire = random.Random(seed), ScriptWire(ends=False)
    bench, honest, liar = build(lib.EXO_CLOCK_VIRTUAL, wire, seed)
    try:
        now, sent = 0, dict.fromkeys(HONEST, 0)
        for turn in range(60):
            for frame in traffic(pick):
                now += 1000
                wire.add(now, frame)
            for _ in range(pick.randrange(4)):
                liar.lie()
            before = kept(honest)
            now += 200_000
            bench.run(until=now)
            assert kept(honest) == before
            for libos, port in zip(honest, HONEST, strict=True):
                for taken in libos.receive():
                    later = taken.data[20] & 0x1F or taken.data[21]  # a fragment follows its first one
                    assert later or taken.data[23] == 1 or taken.data[36:38] == port.to_bytes(2, "big"), "invariant 2"
                    sent[port] += 1
                lib.exo_machine_stepped(bench.native, libos.number, 0)
            conserved(bench)
            if liar.env.state != lib.EXO_ENV_LIVE or turn % 20 == 19:
                lib.exo_machine_env_kill(bench.native, liar.number)
                conserved(bench)
                liar = new_liar(bench, pick.randrange(1 << 30))
        for libos, port in zip(honest, HONEST, strict=True):
            assert libos.env.drop[lib.EXO_R_DELIVERED] == libos.env.placed_frames == sent[port]
            assert not any(libos.env.drop[reason] for reason in range(lib.EXO_R_RING_FIRST, lib.EXO_R_STACK_FIRST))
            assert libos.env.lies == 0
        assert wire.sent == [] or all(frame[34:36] == (4000).to_bytes(2, "big") for frame in wire.sent), "R11"
    finally:
        bench.close()


def test_invariant_5_a_thread_scribbles_while_the_kernel_runs() -> None:
    """Bounded time, real races: the kernel reads each word once, or it would be caught between check and use."""
    wire = ScriptWire(ends=False)
    bench, honest, liar = build(lib.EXO_CLOCK_MONOTONIC, wire, 99)
    pick, over = random.Random(5), threading.Event()
    liars = [liar]

    def scribble() -> None:
        wild = random.Random(6)
        while not over.is_set():
            with lock:
                target = liars[-1]
                wild.choice([target.index, target.posts, target.sends, target.verdicts, target.noise])()
                page = target.first + wild.randrange(target.pages)
                target.memory(page, wild.randrange(4000), 96)[:] = wild.randbytes(96)

    # taken while an environment is killed or made, never while the kernel runs: its areas would go under the writer
    lock = threading.Lock()
    thread = threading.Thread(target=scribble)
    thread.start()
    got = expected = 0
    try:
        end = monotonic_ns() + 3_000_000_000
        while monotonic_ns() < end:
            for frame in traffic(pick):
                expected += (
                    frame[36:38] in (b"\0\x35", b"\0\x36")
                    and frame[23] == 17
                    and frame[12:14] == b"\x08\0"
                    and frame[20] == 0
                )
                wire.add(0, frame)
            reasons = lib.exo_machine_run(bench.native, monotonic_ns() + 2_000_000)
            assert reasons >= 0
            lib.exo_machine_ready(bench.native)
            for libos, port in zip(honest, HONEST, strict=True):
                got += sum(
                    frame.data[36:38] == port.to_bytes(2, "big") and frame.data[20] == 0 for frame in libos.receive()
                )
                assert libos.env.lies == 0
            if liar.env.state != lib.EXO_ENV_LIVE and len(liars) < 200:
                with lock:
                    lib.exo_machine_env_kill(bench.native, liar.number)
                    liar = new_liar(bench, pick.randrange(1 << 30))
                    liars.append(liar)
        assert wire.at == len(wire.frames)
    finally:
        over.set()
        thread.join()
        bench.close()
    assert got >= expected > 100 and len(liars) > 1
