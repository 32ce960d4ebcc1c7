# SPDX-License-Identifier: MIT
"""The cable: order, bounds, latency, the ledger, and both ways of its end."""

import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.errors import RunError, UsageError
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable


@pytest.fixture
def ends() -> Iterator[tuple[CableEnd, CableEnd]]:
    a, b = cable(4)
    yield a, b
    a.close()
    b.close()


def originated(ledger: Any) -> int:
    return int(getattr(ledger, "in")[lib.EXO_S_SOURCE])


def test_frames_arrive_at_the_same_now_in_order_with_numbers(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    assert burst.send(a, [b"one", b"two" * 1000, b""], 100) == 3
    assert burst.held(b) == 3 and burst.held(a) == 0
    frames = burst.receive(b, 100)
    assert frames is not None
    assert [frame.data for frame in frames] == [b"one", b"two" * 1000, b""]
    assert [(frame.id, frame.ts, frame.stamp, frame.flags) for frame in frames] == [(i, 100, 0, 0) for i in range(3)]
    assert burst.receive(b, 100) == [] and burst.receive(a, 100) == []
    assert (a.native.tx_frames, a.native.tx_bytes, b.native.rx_frames, b.native.rx_bytes) == (3, 3003, 3, 3003)


def test_a_full_queue_takes_fewer(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    assert burst.send(a, [b"x"] * 6, 0) == 4
    assert burst.send(a, [b"x"], 0) == 0
    assert len(burst.receive(b, 0, 1) or []) == 1
    assert burst.send(a, [b"x"] * 2, 0) == 1
    assert burst.send(b, [b"x"] * 4, 0) == 4, "the other direction is its own"


def test_latency_and_next_due() -> None:
    a, b = cable(latency=50)
    with a, b:
        burst.send(a, [b"one"], 100)
        burst.send(a, [b"two"], 120)
        assert burst.next_due(b, 100) == 150 and burst.next_due(a, 100) is None
        assert burst.receive(b, 149) == [] and burst.held(b) == 2
        assert [frame.ts for frame in burst.receive(b, 160) or []] == [150]
        assert burst.next_due(b, 160) == 170
        assert [(frame.data, frame.ts) for frame in burst.receive(b, 500) or []] == [(b"two", 170)]


def test_order_stays_where_the_sender_s_clock_steps_back() -> None:
    a, b = cable()
    with a, b:
        burst.send(a, [b"one"], 100)
        burst.send(a, [b"two"], 50)
        assert [(frame.data, frame.ts) for frame in burst.receive(b, 100) or []] == [(b"one", 100), (b"two", 100)]


def test_invariant_1_held_frames_are_in_the_ledger(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    ledger = ffi.new("struct exo_ledger *")
    burst.send(a, [b"early"], 0)
    b.native.ledger = ledger
    burst.send(a, [b"x"] * 5, 0)
    assert burst.held(b) == 4 == originated(ledger)
    given = burst.receive(b, 0, 3) or []
    assert originated(ledger) == len(given) + burst.held(b) == 4
    assert ledger.out[lib.EXO_S_SOURCE] == 0, "the port counts what it takes"


def test_nothing_of_the_sender_goes_over_but_the_frame(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    frame, data = ffi.new("struct exo_frame *"), ffi.from_buffer(b"abc")
    frame.data, frame.len, frame.wire_len = data, 3, 1500
    frame.stamp, frame.id, frame.sender, frame.queue, frame.flags = 7, 8, 9, 3, lib.EXO_F_LOCAL | lib.EXO_F_NEEDS_CSUM
    assert a.native.send(a.native, frame, 1, 5) == 1
    out = ffi.new("struct exo_frame *")
    b.native.port = 6
    assert b.native.receive(b.native, out, 1, 5) == 1
    assert (out.len, out.wire_len, out.stamp, out.id, out.sender, out.queue) == (3, 1500, 0, 0, 0, 0)
    assert out.flags == lib.EXO_F_SNAPPED and out.port == 6


def test_after_one_end_is_closed_the_other_gets_the_rest_and_then_the_end() -> None:
    a, b = cable()
    burst.send(a, [b"last"], 0)
    burst.send(b, [b"never read"], 0)
    a.close()
    assert burst.next_due(b, 0) == 0
    assert [frame.data for frame in burst.receive(b, 0) or []] == [b"last"]
    assert burst.next_due(b, 3) == 3, "the end is news"
    assert burst.receive(b, 3) is None
    assert burst.next_due(b, 3) is None
    with pytest.raises(RunError, match=r"wire cable\.b: send: the source has no more frames"):
        burst.send(b, [b"x"], 0)
    b.close()


def test_wake_makes_an_end_readable_across_threads() -> None:
    a, b = cable(wake=True)
    with a, b:
        assert a.native.fd >= 0 and not select.select([b.native.fd], [], [], 0)[0]
        sender = threading.Thread(target=burst.send, args=(a, [b"x"], 0))
        sender.start()
        assert select.select([b.native.fd], [], [], 5)[0]
        sender.join()
        assert len(burst.receive(b, 0) or []) == 1
        assert not select.select([b.native.fd], [], [], 0)[0]
        a.close()
        assert select.select([b.native.fd], [], [], 0)[0], "so does the other's end"


def test_two_threads_lose_nothing() -> None:
    a, b = cable(64)
    count = 4_000

    def feed() -> None:
        number = 0
        while number < count:
            number += burst.send(a, [i.to_bytes(4, "big") for i in range(number, min(count, number + 32))], 0)

    with a, b:
        sender = threading.Thread(target=feed)
        sender.start()
        seen: list[int] = []
        while len(seen) < count:
            seen += [int.from_bytes(frame.data, "big") for frame in burst.receive(b, 0) or []]
        sender.join()
    assert seen == list(range(count))


@pytest.mark.parametrize("arguments", [{"frames": 0}, {"frames": 1 << 25}, {"latency": -1}, {"latency": 1 << 63}])
def test_bad_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"^cable cable: .*(holds 1|must be 0)"):
        cable(**arguments)  # type: ignore[arg-type]
    assert lib.exo_cable_new(0, 0, 0, ffi.new("struct exo_wire *[2]")) == lib.EXO_E_INVALID


def test_describe(ends: tuple[CableEnd, CableEnd]) -> None:
    burst.send(ends[0], [b"x"], 0)
    described = ends[1].describe()
    assert described["kind"] == "cable" and described["held"] == 1 and described["frames"] == 4
