# SPDX-License-Identifier: MIT
"""Transmit and completion rings of a LibOS against a fake kernel, and the way in and out of sleep."""

import random

import pytest

from libos_stacks.abi import ffi, lib
from tests.fakes.kernel import FakeKernel
from tests.fakes.rings import Rings

NEAR_WRAP = 0xFFFFFFF0
SPOOFED = -lib.EXO_R_TRANSMIT_SPOOFED


@pytest.mark.parametrize("start", [0, NEAR_WRAP])
def test_frames_leave_in_order_with_their_bytes_and_port(start: int) -> None:
    kernel = FakeKernel(entries=16, start=start)
    chance = random.Random(1)
    with Rings(kernel, transmit_pages=4) as rings:
        for _ in range(60):
            frames = [chance.randbytes(chance.randrange(14, 1515)) for _ in range(chance.randrange(1, 9))]
            assert all(rings.send(frame, port=3) for frame in frames)
            assert kernel.take_sent() == []
            assert lib.stk_rings_flush(rings.native) == 0
            sent = kernel.take_sent()
            assert [s.data for s in sent] == frames
            assert {s.port for s in sent} == {3}
            lib.stk_rings_sink(rings.native, 1)
            assert rings.status() == rings.status() | {"in_flight": 0}
        assert kernel.libos.counters.sent == rings.status()["sent"] > 60


@pytest.mark.parametrize("size, length", [(2048, 1601), (2048, 28800), (4096, 65535), (512, 5000)])
def test_a_long_frame_is_chained(size: int, length: int) -> None:
    kernel = FakeKernel(entries=64)
    frame = random.Random(length).randbytes(length)
    with Rings(kernel, transmit_pages=20, transmit_size=size) as rings:
        assert rings.send(frame)
        assert rings.send(b"short" * 12)
        lib.stk_rings_flush(rings.native)
        long, short = kernel.take_sent()
        assert long.data == frame
        assert len(long.flags) > 1
        assert [flag & lib.EXO_F_MORE for flag in long.flags] == [lib.EXO_F_MORE] * (len(long.flags) - 1) + [0]
        assert short.data == b"short" * 12 and short.flags == (0,)
        assert rings.status()["sent"] == 2


def test_a_frame_longer_than_a_chain_can_be_finds_no_buffer() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel, transmit_pages=20) as rings:
        assert not rings.send(bytes(28801))
        assert not rings.send(bytes(65536))
        assert not rings.send(b"", reserve=0)
        assert rings.status()["transmit_free"] == 40


def test_a_scratch_frame_that_turns_out_short_needs_one_buffer() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=4) as rings:
        assert rings.send(b"z" * 100, reserve=5000)
        lib.stk_rings_flush(rings.native)
        assert [s.data for s in kernel.take_sent()] == [b"z" * 100]


def test_without_buffers_nothing_is_sent() -> None:
    kernel = FakeKernel()
    with Rings(kernel) as rings:
        assert not rings.send(bytes(60))
        assert lib.stk_rings_flush(rings.native) == 0


def test_out_of_buffers_is_no_room_until_completions_return() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel, transmit_pages=4) as rings:
        assert [rings.send(bytes(60)) for _ in range(10)] == [True] * 8 + [False] * 2
        assert rings.status() == rings.status() | {"transmit_free": 0, "in_flight": 8}
        # What the failed reserve published, the kernel may take; the flush still reports.
        assert len(kernel.take_sent(3)) == 3
        assert [rings.send(bytes(60)) for _ in range(4)] == [True] * 3 + [False]


def test_a_full_transmit_ring_is_no_room() -> None:
    kernel = FakeKernel(entries=8)
    with Rings(kernel, transmit_pages=16) as rings:
        assert [rings.send(bytes(60)) for _ in range(9)] == [True] * 8 + [False]
        kernel.take_sent()
        assert rings.send(bytes(60))


def test_never_more_in_flight_than_the_completion_ring_holds() -> None:
    kernel = FakeKernel(entries=32, completion_entries=8)
    with Rings(kernel, transmit_pages=16) as rings:
        for _ in range(5):
            assert [rings.send(bytes(60)) for _ in range(9)] == [True] * 8 + [False]
            lib.stk_rings_flush(rings.native)
            assert len(kernel.take_sent()) == 8


def test_the_buffer_used_last_is_used_next() -> None:
    kernel = FakeKernel(entries=32)
    with Rings(kernel, transmit_pages=16) as rings:
        places = set()
        for i in range(20):
            assert rings.send(bytes(60))
            places.add((kernel._transmit[i & 31].page, kernel._transmit[i & 31].offset))
            lib.stk_rings_flush(rings.native)
            kernel.take_sent()
            rings.sink()
        assert len(places) == 1


def test_refused_frames_are_counted_and_their_buffers_return() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=2) as rings:
        rings.send(bytes(60))
        lib.stk_rings_flush(rings.native)
        kernel.take_sent(status=SPOOFED)
        rings.sink()
        assert rings.status() == rings.status() | {"refused": 1, "in_flight": 0, "transmit_free": 4}


def test_a_completion_for_nothing_of_ours_is_ignored() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=2) as rings:
        kernel.complete(2)
        kernel.complete(1 << 40)
        rings.sink()
        assert rings.status() == rings.status() | {"in_flight": 0, "transmit_free": 4}


def test_reserve_twice_and_commit_without_reserve_lose_no_buffer() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=2) as rings:
        out = rings.output()
        first = out.reserve(out.context, 60)
        assert out.reserve(out.context, 60) == first
        out.commit(out.context, 61)
        out.commit(out.context, 60)
        out.commit(out.context, 60)
        assert rings.status() == rings.status() | {"sent": 1, "in_flight": 1, "transmit_free": 3}


def test_room_taken_by_another_output_between_reserve_and_commit_costs_the_frame() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=1) as rings:
        slow = rings.output(1)
        place = slow.reserve(slow.context, 3000)
        assert place != ffi.NULL
        assert rings.send(bytes(60), port=2)
        slow.commit(slow.context, 3000)
        assert rings.status() == rings.status() | {"sent": 1, "refused": 1, "in_flight": 1}


def test_a_port_that_no_machine_has_sends_nothing() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=1) as rings:
        assert not rings.send(bytes(60), port=8)
        out = rings.output(8)
        out.commit(out.context, 60)
        assert rings.status()["sent"] == 0


def test_transmit_buffers_can_be_added() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=1) as rings:
        assert rings.send(bytes(60))
        rings.extent(2000, 1)
        assert lib.stk_rings_transmit_buffers(rings.native, 2000, 1, 4096) == lib.EXO_E_INVALID
        assert lib.stk_rings_transmit_buffers(rings.native, 2000, 1, 2048) == 2
        assert [rings.send(bytes(60)) for _ in range(4)] == [True] * 3 + [False]
        lib.stk_rings_flush(rings.native)
        assert len({(e.page, e.offset) for e in kernel._transmit[0:4]}) == 4


def test_flush_asks_for_a_wake_only_when_the_kernel_sleeps_and_something_was_posted() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=1) as rings:
        kernel.kernel.need_wakeup.value = 1
        assert lib.stk_rings_flush(rings.native) == 0
        rings.send(bytes(60))
        assert lib.stk_rings_flush(rings.native) == 1
        assert lib.stk_rings_flush(rings.native) == 0
        kernel.kernel.need_wakeup.value = 0
        rings.send(bytes(60))
        assert lib.stk_rings_flush(rings.native) == 0


def test_flush_after_a_failed_reserve_still_wakes() -> None:
    kernel = FakeKernel()
    with Rings(kernel, transmit_pages=1) as rings:
        kernel.kernel.need_wakeup.value = 1
        assert [rings.send(bytes(60)) for _ in range(3)] == [True, True, False]
        assert lib.stk_rings_flush(rings.native) == 1


def test_sleep_is_announced_and_refused_while_there_is_work() -> None:
    kernel = FakeKernel()
    need = kernel.libos.need_wakeup
    with Rings(kernel, transmit_pages=1) as rings:
        assert lib.stk_rings_prepare_sleep(rings.native) == 0
        assert need.value == 1
        lib.stk_rings_awake(rings.native)
        assert need.value == 0
        assert lib.stk_rings_spin(rings.native, 3) == 0

        def work() -> bool:
            return bool(lib.stk_rings_prepare_sleep(rings.native)) and need.value == 0

        kernel.deliver(bytes(60))
        assert work() and lib.stk_rings_spin(rings.native, 3) == 1
        rings.sink()
        rings.send(bytes(60))
        assert work() and lib.stk_rings_spin(rings.native, 3) == 0
        lib.stk_rings_flush(rings.native)
        assert not work()
        lib.stk_rings_awake(rings.native)
        kernel.take_sent()
        assert work() and lib.stk_rings_spin(rings.native, 0) == 1
        rings.sink()
        assert lib.stk_rings_prepare_sleep(rings.native) == 0
        kernel.kernel.stop.value = 1
        assert work()


@pytest.mark.parametrize("seed", range(8))
def test_no_buffer_is_ever_lost_or_used_twice(seed: int) -> None:
    """Random traffic both ways over small rings that wrap: every frame arrives as it left, in order."""
    chance = random.Random(seed)
    kernel = FakeKernel(entries=16, start=0xFFFFFF00 + seed, completion_entries=chance.choice([8, 16, 32]))
    waiting: list[bytes] = []
    with Rings(kernel, receive_pages=6, most=chance.choice([4, 12]), transmit_pages=8) as rings:
        for _ in range(400):
            action = chance.randrange(5)
            if action == 0:
                frame = chance.randbytes(chance.choice([60, 1514, 5000]))
                if rings.send(frame):
                    waiting.append(frame)
            elif action == 1:
                lib.stk_rings_flush(rings.native)
                room = (kernel.completions - rings.status()["in_flight"]) // 4
                for sent in kernel.take_sent(max(1, room), status=chance.choice([0, SPOOFED])):
                    assert sent.data == waiting.pop(0)
            elif action == 2:
                kernel.deliver(chance.randbytes(chance.choice([60, 3000])))
            else:
                rings.sink(chance.randrange(5))
            status = rings.status()
            held = 16 - status["transmit_free"] - status["in_flight"]
            assert 0 <= held <= 1
            assert status["posted"] + status["spare"] == 12
