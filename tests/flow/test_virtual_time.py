# SPDX-License-Identifier: MIT
"""How time passes (R16 to R19): figures computed on paper, compared exactly."""

from collections.abc import Iterator

import pytest

from exonet.abi import lib
from tests.fakes.frames import udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

T = 1000  # ns between arrivals


def script(count: int, period: int = T) -> ScriptWire:
    return ScriptWire([(k * period, udp(sport=1000 + k)) for k in range(count)])


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def libos(bench: Bench, buffers: int, port: int = 0) -> FakeLibOS:
    made = FakeLibOS(bench, entries=256, pages=40, post=False)
    for i in range(buffers):
        made.fill(made.first + i // 2, 2048 * (i % 2), 2048)
    made.bind("udp", port)
    return made


def test_r16_frames_that_arrive_inside_a_charge_enter_the_nic_first_at_their_own_time(bench: Bench) -> None:
    bench.attach(script(5))
    env = libos(bench, 16)
    bench.costs(consume=10 * T)
    taken: list[tuple[int, int]] = []

    def step(_: int) -> bool:
        frames = env.receive(1)
        taken.extend((lib.exo_now(bench.native), frame.timestamp) for frame in frames)
        return bool(frames)

    bench.run(step=step)
    assert taken == [(10 * k * T, k * T) for k in range(5)]


def test_r17_what_a_step_overruns_is_paid_from_the_next_slices(bench: Bench) -> None:
    """Slices 10T on, 10T off; a step costs 15T: it overruns by 5T, so the slice of 20T begins at 25T, and so on."""
    bench.attach(script(4, period=1))
    env = libos(bench, 16)
    bench.costs(consume=15 * T)
    bench.slices((env.number, 10 * T), (0, 10 * T))
    starts: list[int] = []

    def step(_: int) -> bool:
        frames = env.receive(1)
        starts.extend([lib.exo_now(bench.native)] * len(frames))
        return bool(frames)

    bench.run(step=step)
    # 25T + 15T = 40T overruns the slice's end (30T) by 10T: the whole of [40T, 50T) is forfeited, so the next is 60T,
    # which ends at 75T and overruns by 5T; the last, from 85T, ends at 100T and costs the whole of [100T, 110T) again
    assert [start // T for start in starts] == [0, 25, 60, 85]
    assert env.env.excess == 2


def test_r18_arrivals_at_the_same_time_come_in_order_of_port(bench: Bench) -> None:
    for _ in range(2):
        bench.attach(script(3))
    first, second = libos(bench, 16), libos(bench, 16, port=1)
    order: list[int] = []

    def step(env: int) -> bool:
        frames = (first if env == first.number else second).receive(1)
        order.extend([env] * len(frames))
        return bool(frames)

    bench.run(step=step)
    assert order == [first.number, second.number] * 3


def test_r19_loss_of_a_slow_libos_is_what_paper_says(bench: Bench) -> None:
    """Arrivals every T, a frame costs 3T, two buffers. Frame 0 is taken at once. In the first 3T two of three find a
    buffer, later one of three does: of 3m + 1 frames 2m - 1 are lost.
    """
    m = 10
    bench.attach(script(3 * m + 1))
    env = libos(bench, 2)
    bench.costs(consume=3 * T)
    bench.run(step=lambda _: bool(env.receive(1)))
    assert bench.drops() == {"delivered": m + 2, "ring.no_buffer": 2 * m - 1}


def test_r19_loss_of_a_slice_vector_is_what_paper_says(bench: Bench) -> None:
    """On for 10T, off for 10T, four buffers, a frame costs T/2. Of the arrivals at 10T..20T (eleven: the one at 20T
    comes before the CPU's turn, R18) four find a buffer and seven do not; so again at 30T..40T.
    """
    bench.attach(script(45))
    env = libos(bench, 4)
    bench.costs(consume=T // 2)
    bench.slices((env.number, 10 * T), (0, 10 * T))
    bench.run(step=lambda _: bool(env.receive(1)))
    assert bench.drops() == {"delivered": 45 - 14, "ring.no_buffer": 14}


def test_r19_loss_of_the_nic_ring_is_what_paper_says(bench: Bench) -> None:
    """Eight descriptors (seven usable: RDT stays one behind), drop-enable; the kernel needs 2T a frame, and gives its
    descriptor back at the end of them. Service j meets the arrivals 2j - 1 and 2j and begins with 7 - j free ones, so
    the first five lose none and each of the other 45 up to the last arrival loses one.
    """
    count = 101
    bench.attach(script(count), descriptors=8, drop_enable=1)
    env = libos(bench, 64)
    bench.costs(classify=2 * T)
    bench.run(step=lambda _: bool(env.receive(1)))
    assert bench.drops() == {"delivered": count - 45, "nic.rx_no_buffer": 45}


def test_interrupts_for_each_frame_collapse_and_budgeted_polling_does_not() -> None:
    """Receive livelock (Mogul and Ramakrishnan 1997): past saturation an interrupt a frame leaves the LibOS nothing."""
    delivered = {}
    for mode in (lib.EXO_INTERRUPT_EACH, lib.EXO_POLL_BUDGET):
        bench = Bench()
        bench.attach(script(2000, period=100), descriptors=256, fifo_bytes=2048, drop_enable=1)
        env = libos(bench, 16)
        bench.costs(mode=mode, budget=4, interrupt=60, classify=50, consume=100)
        bench.run(until=2000 * 100, step=lambda _, env=env: bool(env.receive(1)))
        delivered[mode] = bench.drops().get("delivered", 0)
        bench.close()
    assert delivered[lib.EXO_INTERRUPT_EACH] < 20
    assert delivered[lib.EXO_POLL_BUDGET] > 500


def test_invariant_7_two_runs_are_equal() -> None:
    def once() -> tuple[dict[str, int], int]:
        bench = Bench()
        bench.attach(script(500, period=130), descriptors=16, fifo_bytes=1024)
        env = libos(bench, 8)
        bench.costs(interrupt=50, classify=40, place=20, place_byte_ps=60, consume=220)
        bench.slices((env.number, 900), (0, 400))
        bench.run(step=lambda _: bool(env.receive(2)))
        fates, now = bench.drops(), lib.exo_now(bench.native)
        bench.close()
        return fates, now

    assert once() == once()
