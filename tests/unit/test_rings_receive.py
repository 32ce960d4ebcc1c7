# SPDX-License-Identifier: MIT
"""Fill and receive rings of a LibOS against a fake kernel, the sink consuming: buffers, chains, accounts."""

import itertools
import random

import pytest

from libos_stacks.abi import ffi, lib
from tests.fakes.kernel import PAGE, FakeKernel
from tests.fakes.rings import RECEIVE_PAGE, Rings

NEAR_WRAP = 0xFFFFFFF0
STARTS = pytest.mark.parametrize("start", [0, NEAR_WRAP])


def digest(*frames: bytes) -> int:
    total: int = sum(lib.exo_digest(frame, len(frame)) for frame in frames) & 0xFFFFFFFFFFFFFFFF
    return total


def taken(kernel: FakeKernel) -> int:
    counters = kernel.libos.counters
    total: int = counters.delivered + sum(counters.drop)
    return total


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_buffers_are_staggered_disjoint_and_inside_their_page(size: int) -> None:
    kernel = FakeKernel(entries=256)
    with Rings(kernel, receive_pages=16, size=size):
        buffers = []
        while (buffer := kernel.take_buffer()) is not None:
            buffers.append(buffer)
    assert len(buffers) == 16 * (PAGE // size)
    spans = sorted((page * PAGE + offset, length) for page, offset, length in buffers)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))
    assert len({offset % size for _, offset, _ in buffers}) == min(8, size // 256)
    assert min(length for _, _, length in buffers) >= size * 3 // 4
    if size == 2048:
        assert min(length for _, _, length in buffers) == 1600


def test_consecutive_buffers_start_on_different_cache_sets() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel, receive_pages=8):
        offsets = [buffer[1] for buffer in iter(kernel.take_buffer, None)]
    assert len(set(offsets)) == 16


@STARTS
def test_every_frame_is_counted_and_digested_across_index_wrap(start: int) -> None:
    kernel = FakeKernel(entries=16, start=start)
    frames = [random.Random(i).randbytes(60 + i) for i in range(100)]
    with Rings(kernel, receive_pages=8) as rings:
        for i, frame in enumerate(frames):
            assert kernel.deliver(frame)
            if i % 7 == 6:
                assert rings.sink() == 7
        assert rings.sink() == 2
        counters = kernel.libos.counters
        assert counters.delivered == 100
        assert counters.bytes == sum(map(len, frames))
        assert counters.digest == digest(*frames)
        assert rings.status()["posted"] + rings.status()["spare"] == 16
        assert kernel.unconsumed == 0


def test_no_more_than_most_are_posted_and_the_same_buffers_return_first() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel, receive_pages=16, most=4) as rings:
        assert kernel.posted == 4
        assert rings.status()["spare"] == 28
        used = set()
        for i in range(40):
            assert kernel.deliver(bytes([i]) * 60)
            used.add((kernel._receive[i & 63].page, kernel._receive[i & 63].offset))
            rings.sink()
            assert kernel.posted == 4
        assert len(used) == 4


def test_a_small_fill_ring_keeps_the_rest_until_the_kernel_has_taken_some() -> None:
    kernel = FakeKernel(entries=8)
    with Rings(kernel, receive_pages=16) as rings:
        assert kernel.posted == 8
        assert rings.status() == rings.status() | {"posted": 8, "spare": 24}
        for _ in range(3):
            assert kernel.deliver(bytes(60))
        rings.sink()
        assert kernel.posted == 8
        assert rings.status()["posted"] == 8


def test_frames_beyond_max_stay_in_the_ring() -> None:
    kernel = FakeKernel(entries=256)
    with Rings(kernel, receive_pages=128) as rings:
        for _ in range(200):
            assert kernel.deliver(bytes(60))
        assert rings.sink(3) == 3
        assert kernel.unconsumed == 197
        assert rings.sink(100) == 100
        assert rings.sink() == 97
        assert rings.sink() == 0
        assert taken(kernel) == 200


@STARTS
@pytest.mark.parametrize("length", [1601, 9018, 50000])
def test_a_chain_is_one_frame_with_all_its_bytes(start: int, length: int) -> None:
    kernel = FakeKernel(entries=64, start=start)
    frame = random.Random(length).randbytes(length)
    with Rings(kernel, receive_pages=32) as rings:
        for _ in range(3):
            assert kernel.deliver(frame)
            assert kernel.deliver(b"x" * 60)
            assert rings.sink() == 2
        counters = kernel.libos.counters
        assert counters.delivered == 6
        assert counters.bytes == 3 * (length + 60)
        assert counters.digest == digest(frame, b"x" * 60) * 3 & 0xFFFFFFFFFFFFFFFF
        assert rings.status()["posted"] + rings.status()["spare"] == 64


def test_a_chain_whose_end_is_not_there_yet_waits() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel) as rings:
        assert kernel.deliver(b"a" * 60)
        before = kernel._receive_put
        assert kernel.place(b"b" * 4000)
        whole = kernel._receive_put
        kernel.kernel.receive_put.value = before + 1
        assert rings.sink() == 1
        assert rings.sink() == 0
        kernel.kernel.receive_put.value = whole
        assert rings.sink() == 1
        assert kernel.libos.counters.digest == digest(b"a" * 60, b"b" * 4000)


def test_a_chain_that_fills_the_ring_and_never_ends_is_given_up() -> None:
    kernel = FakeKernel(entries=8)
    with Rings(kernel) as rings:
        for _ in range(8):
            page, offset, _ = kernel.take_buffer() or (0, 0, 0)
            kernel.write(page, offset, 60, 60, lib.EXO_F_MORE)
        kernel.publish()
        assert rings.sink() == 1
        assert kernel.unconsumed == 0
        assert (kernel.libos.counters.delivered, kernel.libos.counters.drop[0]) == (0, 1)
        assert rings.status()["unreadable"] == 1
        assert kernel.deliver(bytes(60))
        assert rings.sink() == 1


def test_a_chain_longer_than_any_frame_is_unreadable() -> None:
    kernel = FakeKernel(entries=64)
    with Rings(kernel, receive_pages=20, size=4096) as rings:
        for i in range(20):
            page, offset, length = kernel.take_buffer() or (0, 0, 0)
            kernel.write(page, offset, length, 65535, lib.EXO_F_MORE if i < 19 else 0)
        kernel.publish()
        assert rings.sink() == 1
        assert kernel.libos.counters.drop[0] == 1
        assert rings.status() == rings.status() | {"posted": 20, "unreadable": 1}


def test_r07_padding_keeps_original_length() -> None:
    kernel = FakeKernel()
    with Rings(kernel) as rings:
        kernel.deliver(b"arp" * 14 + bytes(18), wire_len=42, flags=lib.EXO_F_PADDED)
        kernel.deliver(b"cut" * 32, wire_len=1500, flags=lib.EXO_F_SNAPPED)
        assert rings.sink() == 2
        assert kernel.libos.counters.bytes == 42 + 96
        assert kernel.libos.counters.digest == digest(b"arp" * 14, b"cut" * 32)


def test_an_empty_frame_is_a_frame() -> None:
    kernel = FakeKernel()
    with Rings(kernel) as rings:
        kernel.deliver(b"")
        assert rings.sink() == 1
        assert kernel.libos.counters.delivered == 1


@pytest.mark.parametrize("page, offset, length", [(3, 0, 60), (RECEIVE_PAGE, 4090, 60), (RECEIVE_PAGE, 5000, 60)])
@pytest.mark.parametrize("more", [0, lib.EXO_F_MORE])
def test_a_descriptor_outside_our_pages_is_counted_and_touches_nothing(
    page: int, offset: int, length: int, more: int
) -> None:
    kernel = FakeKernel()
    with Rings(kernel) as rings:
        kernel.write(page, offset, length, length, more)
        if more:
            kernel.write(page, offset, length, length)
        kernel.publish()
        kernel.deliver(bytes(60))
        assert rings.sink() == 2
        assert (kernel.libos.counters.delivered, kernel.libos.counters.drop[0]) == (1, 1)
        assert rings.status()["unreadable"] == 1
        verdicts = kernel.verdict(0), kernel.verdict(2 if more else 1)
        assert verdicts == (lib.EXO_R_STACK_UNACCOUNTED, lib.EXO_R_DELIVERED)


def test_r20_what_was_taken_is_delivered_or_dropped() -> None:
    kernel = FakeKernel(entries=32, start=NEAR_WRAP)
    chance = random.Random(20)
    offered = 0
    with Rings(kernel, receive_pages=12, most=16) as rings:
        for _ in range(500):
            offered += kernel.deliver(chance.randbytes(chance.choice([0, 42, 60, 1514, 4000])))
            if chance.random() < 0.3:
                rings.sink(chance.randrange(1, 9))
        rings.sink()
        assert taken(kernel) == offered
        assert rings.status()["posted"] + rings.status()["spare"] == 24


def test_sink_loop_ends_when_nothing_comes_when_full_and_when_stopped() -> None:
    kernel = FakeKernel(entries=256)
    with Rings(kernel, receive_pages=64) as rings:
        for _ in range(100):
            kernel.deliver(bytes(60))
        assert lib.stk_rings_sink_loop(rings.native, 10, 5) == 10
        kernel.kernel.stop.value = 1
        assert lib.stk_rings_sink_loop(rings.native, 1000, 5) == 0
        assert lib.stk_rings_stopped(rings.native) == 1
        kernel.kernel.stop.value = 0
        assert lib.stk_rings_sink_loop(rings.native, 1000, 5) == 90
        assert lib.stk_rings_sink_loop(rings.native, 1000, 0) == 0


def test_a_wrong_abi_version_or_layout_gives_no_rings() -> None:
    for spoil in ("version", "entries", "alignment", "area", "verdict", "none"):
        kernel = FakeKernel()
        layout = kernel.kernel.layout
        if spoil == "version":
            kernel.kernel.abi_version = 99
        elif spoil == "entries":
            layout.receive_entries = 48
        elif spoil == "alignment":
            layout.transmit_offset += 1
        elif spoil == "area":
            layout.completion_offset = layout.kernel_area_size - 8
        elif spoil == "verdict":
            layout.verdict_offset = layout.libos_area_size - 8
        else:
            layout.fill_entries = 0
        assert lib.stk_rings_new(kernel.kernel, kernel.libos) == ffi.NULL


def test_extents_and_buffers_refuse_what_cannot_be() -> None:
    kernel = FakeKernel()
    with Rings(kernel, receive_pages=4) as rings:
        base = ffi.new("uint8_t[4096]")
        invalid, busy, missing = lib.EXO_E_INVALID, lib.EXO_E_BUSY, lib.EXO_E_NOT_FOUND
        assert lib.stk_rings_extent(rings.native, 1, 0, base) == invalid
        assert lib.stk_rings_extent(rings.native, 1, 1, ffi.NULL) == invalid
        assert lib.stk_rings_extent(rings.native, 0xFFFFFFFF, 2, base) == invalid
        assert lib.stk_rings_extent(rings.native, RECEIVE_PAGE + 3, 1, base) == busy
        for i in range(31):
            assert lib.stk_rings_extent(rings.native, 100 + i, 1, base) == 0
        assert lib.stk_rings_extent(rings.native, 200, 1, base) == lib.EXO_E_FULL
        for buffers in (lib.stk_rings_receive_buffers, lambda *a: lib.stk_rings_transmit_buffers(*a[:-1])):
            assert buffers(rings.native, RECEIVE_PAGE, 4, 1500, 8) == invalid
            assert buffers(rings.native, RECEIVE_PAGE, 0, 2048, 8) == invalid
            assert buffers(rings.native, RECEIVE_PAGE, 5, 2048, 8) == missing
        assert lib.stk_rings_receive_buffers(rings.native, RECEIVE_PAGE, 4, 4096, 8) == invalid
    lib.stk_rings_free(ffi.NULL)
