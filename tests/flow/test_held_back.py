# SPDX-License-Identifier: MIT
"""Frames that wait in the NIC for a slow LibOS keep the owner they were found, unless a binding comes or goes."""

from collections.abc import Iterator

import pytest

from exonet.abi import check, lib
from tests.fakes.frames import icmp_error, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

FRAMES = 40
POSTED = 30  # by a FakeLibOS of 16 pages


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    made.attach(ScriptWire([(0, udp(sport=1000 + k, dport=53)) for k in range(FRAMES)]), mode=lib.EXO_NIC_BACKPRESSURE)
    yield made
    made.close()


def run(bench: Bench) -> None:
    """A few passes of the live loop: far less time than the kernel's patience with a slow LibOS."""
    for _ in range(8):
        lib.exo_machine_run(bench.native, lib.exo_now(bench.native) + 100_000)


def sports(libos: FakeLibOS) -> list[int]:
    return [int.from_bytes(frame.data[34:36], "big") - 1000 for frame in libos.receive()]


@pytest.mark.parametrize("queues", [1, 4])
def test_no_frame_goes_through_the_fifo_once_a_stall_is_over(queues: int) -> None:
    """It would be copied three times; the wire can wait instead, and the backlog of a stall does not stay."""
    frames = [udp(sport=1000 + k, dport=53) for k in range(2000)]
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    wire = ScriptWire([(0, frame) for frame in frames])
    port = bench.attach(wire, mode=lib.EXO_NIC_BACKPRESSURE, descriptors=256, queues=queues)
    slow = FakeLibOS(bench)
    slow.bind("udp dst port 53")
    run(bench)
    got = []
    while len(got) < len(frames):
        more = slow.receive()
        assert more, "it stalled for good"
        got += [frame.data for frame in more]
        run(bench)
    counters = lib.exo_nic_counters(lib.exo_machine_nic(bench.native, port))
    assert (counters.rx_packets, counters.rx_waited) == (len(frames), 0)
    assert sorted(got) == sorted(frame.ljust(60, b"\0") for frame in frames)
    bench.close()


def test_what_waits_goes_to_whom_it_was_found_for(bench: Bench) -> None:
    slow = FakeLibOS(bench)
    binding = slow.bind("udp dst port 53")
    run(bench)
    first = slow.receive()
    assert [frame.binding for frame in first] == [binding] * POSTED
    run(bench)
    assert sports(slow) == list(range(POSTED, FRAMES))


def test_r14_what_waits_follows_bindings_that_come_and_go(bench: Bench) -> None:
    slow, other = FakeLibOS(bench), FakeLibOS(bench)
    binding = slow.bind("udp dst port 53")
    run(bench)
    check(lib.exo_machine_unbind(bench.native, binding), "unbind")
    other.bind("udp dst port 53")
    run(bench)
    assert sports(other) == list(range(POSTED, FRAMES))
    assert sports(slow) == list(range(POSTED))


def test_a_narrower_binding_takes_what_waits(bench: Bench) -> None:
    slow, narrow = FakeLibOS(bench), FakeLibOS(bench)
    slow.bind("udp dst port 53")
    run(bench)
    narrow.bind(f"udp dst port 53 and src port {1000 + FRAMES - 1}")
    assert len(slow.receive()) == POSTED
    run(bench)
    assert sports(slow) == list(range(POSTED, FRAMES - 1))
    assert sports(narrow) == [FRAMES - 1]


def test_r03_errors_wait_for_the_owner_of_what_they_quote() -> None:
    """Not for whom the errors themselves would go to, who has room: in the end it has not had one of them."""
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    errors = [icmp_error(4 + 2 * (k % 2), quoted_sport=1000 + k) for k in range(FRAMES)]
    bench.attach(ScriptWire([(0, frame) for frame in errors]), mode=lib.EXO_NIC_BACKPRESSURE)
    slow, ready = FakeLibOS(bench), FakeLibOS(bench)
    slow.bind("udp dst portrange 1000-1999")
    ready.bind("icmp or icmp6")
    run(bench)
    assert [frame.data for frame in slow.receive()] == errors[:POSTED]
    run(bench)
    assert [frame.data for frame in slow.receive()] == errors[POSTED:]
    assert not ready.receive() and not sum(count for name, count in bench.drops().items() if name != "delivered")
    bench.close()


def test_r14_errors_that_wait_follow_bindings_that_come_and_go() -> None:
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    errors = [icmp_error(4, quoted_sport=1000 + k) for k in range(FRAMES)]
    bench.attach(ScriptWire([(0, frame) for frame in errors]), mode=lib.EXO_NIC_BACKPRESSURE)
    slow, other = FakeLibOS(bench), FakeLibOS(bench)
    binding = slow.bind("udp dst portrange 1000-1999")
    run(bench)
    check(lib.exo_machine_unbind(bench.native, binding), "unbind")
    other.bind("udp dst portrange 1000-1999")
    run(bench)
    assert [frame.data for frame in other.receive()] == errors[POSTED:]
    assert [frame.data for frame in slow.receive()] == errors[:POSTED]
    bench.close()


def test_r03_errors_behind_what_waits_go_to_the_owner_of_what_they_quote() -> None:
    """They were not looked at yet when the frames before them were held back."""
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    plain = [udp(dport=1000 + k) for k in range(FRAMES)]
    errors = [icmp_error(4, quoted_sport=1000 + k) for k in range(8)]
    bench.attach(ScriptWire([(0, frame) for frame in plain + errors]), mode=lib.EXO_NIC_BACKPRESSURE)
    slow, ready = FakeLibOS(bench), FakeLibOS(bench)
    slow.bind("udp dst portrange 1000-1999")
    ready.bind("icmp or icmp6")
    run(bench)
    assert [frame.data for frame in slow.receive()] == plain[:POSTED]
    run(bench)
    assert [frame.data for frame in slow.receive()] == plain[POSTED:] + errors
    assert not ready.receive()
    bench.close()
