# SPDX-License-Identifier: MIT
"""How long others wait for a slow LibOS under backpressure (csrc/patience.c), to the nanosecond: on the virtual clock,
with LibOSes that take so many frames every so often.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from exonet.abi import lib
from tests.fakes.frames import udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

MS = 1_000_000
FAST, SLOW = 53, 7
LATE = {"ring.no_buffer", "ring.full"}


@dataclass
class Taker:
    """Takes at most `burst` frames every `pause` ns, and says when it took how many."""

    bench: Bench
    port: int
    burst: int = 1 << 20
    pause: int = 0
    entries: int = 64
    first: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.libos = FakeLibOS(self.bench, entries=self.entries, pages=2 + self.entries // 2)
        self.libos.bind(f"udp dst port {self.port}")
        self.due = self.first
        lib.exo_machine_wake_at(self.bench.native, self.libos.number, self.due)

    def step(self) -> bool:
        now = lib.exo_now(self.bench.native)
        if now >= self.due:
            self.taken.append((now, len(self.libos.receive(self.burst))))
            self.due = now + self.pause
            if self.pause:
                lib.exo_machine_wake_at(self.bench.native, self.libos.number, self.due)
        return False

    @property
    def count(self) -> int:
        return sum(count for _, count in self.taken)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(pages=2048)
    made.costs(poll=10_000)
    yield made
    made.close()


def run(bench: Bench, ports: list[int], takers: list[dict[str, Any]], until: int = 2000 * MS) -> list[Taker]:
    made_once = {port: udp(dport=port) for port in {*ports}}
    wire = ScriptWire([(0, made_once[port]) for port in ports])
    bench.attach(wire, mode=lib.EXO_NIC_BACKPRESSURE)
    made = [Taker(bench, **each) for each in takers]
    by_number = {taker.libos.number: taker for taker in made}
    bench.run(until, step=lambda number: by_number[number].step())
    return made


@pytest.mark.parametrize(("burst", "entries"), [(1, 64), (1, 8), (8, 8), (32, 32), (180, 256)])
def test_who_takes_less_than_200_frames_in_200_ms_holds_nobody_up_for_longer(
    bench: Bench, burst: int, entries: int
) -> None:
    """One frame in 190 ms made everybody's pace five frames a second; a small ring is no excuse."""
    fast, slow = run(
        bench,
        [FAST, SLOW] * 3000,
        [{"port": FAST}, {"port": SLOW, "burst": burst, "pause": 190 * MS, "entries": entries}],
    )
    assert fast.count == 3000
    assert fast.taken[-1][0] < 450 * MS
    drops = bench.drops()
    assert set(drops) <= {"delivered", *LATE}
    lost = sum(drops.get(reason, 0) for reason in LATE)
    assert slow.count + lost + sum(bench.in_flight()) == 3000 and lost > 1000


@pytest.mark.parametrize(("burst", "pause"), [(256, 190 * MS), (1, MS // 2), (64, 50 * MS)])
def test_who_takes_200_frames_in_200_ms_loses_none(bench: Bench, burst: int, pause: int) -> None:
    fast, slow = run(
        bench,
        [FAST, SLOW] * 1000,
        [{"port": FAST}, {"port": SLOW, "burst": burst, "pause": pause, "entries": 256}],
    )
    assert (fast.count, slow.count) == (1000, 1000)
    assert bench.drops() == {"delivered": 2000}


def test_a_libos_alone_on_its_port_is_waited_for_while_it_moves_at_all(bench: Bench) -> None:
    (slow,) = run(bench, [SLOW] * 30, [{"port": SLOW, "pause": 190 * MS, "burst": 1, "entries": 8}], 6500 * MS)
    assert slow.count == 30 and bench.drops() == {"delivered": 30}


def test_who_has_caught_up_is_waited_for_again(bench: Bench) -> None:
    """It sleeps for 300 ms and then is slower than the wire, but no slower than the rule: what it loses, it loses at
    the beginning.
    """
    fast, slow = run(
        bench,
        [FAST, SLOW] * 10000,
        [{"port": FAST}, {"port": SLOW, "burst": 64, "pause": 10 * MS, "entries": 256, "first": 300 * MS}],
    )
    assert fast.count == 10000
    at_once = [count for at, count in slow.taken if 400 * MS < at < 700 * MS]
    assert at_once and set(at_once) == {64}


def test_several_that_take_nothing_hold_others_up_once_each(bench: Bench) -> None:
    """While one is waited for, nothing can be lost to the other: that is no sign that it has caught up."""
    ports = [FAST, SLOW, SLOW + 1, SLOW + 2] * 3000
    never = [{"port": SLOW + k, "pause": 10_000 * MS, "burst": 1, "first": 10_000 * MS} for k in range(3)]
    fast, *_ = run(bench, ports, [{"port": FAST}, *never], 3000 * MS)
    assert fast.count == 3000
    assert fast.taken[-1][0] < (3 * 200 + 150) * MS
