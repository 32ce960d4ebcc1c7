# SPDX-License-Identifier: MIT
"""Frames that wait in the NIC for a slow LibOS keep the owner they were found, unless a binding comes or goes."""

from collections.abc import Iterator

import pytest

from exonet.abi import check, lib
from tests.fakes.frames import udp
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
