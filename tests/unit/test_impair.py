# SPDX-License-Identifier: MIT
"""The impair wire: what each impairment does, its statistics, its exact repetition by seed, and the ledger."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.errors import RunError, UsageError
from exonet.wire import burst
from exonet.wire.burst import Received
from exonet.wire.cable import CableEnd, cable
from exonet.wire.impair import Impair, Impairments

MS = 1_000_000
COPY = 1 << 56


def impaired(text: str, seed: int = 1, **more: Any) -> tuple[CableEnd, Impair]:
    far, near = cable(1 << 16)
    return far, Impair(near, Impairments.parse(text), seed, **more)


def run(text: str, count: int, seed: int = 1, gap: int = 1000, polls: int = 1, **more: Any) -> list[Received]:
    """Sends `count` frames `gap` ns apart, and asks the wire whenever something is due and `polls` times between."""
    far, near = impaired(text, seed, **more)
    out: list[Received] = []
    with far, near:
        for number in range(count):
            burst.send(far, [number.to_bytes(4, "big") + bytes(56)], number * gap)
            for poll in range(polls):
                out += burst.receive(near, number * gap + poll * gap // polls) or []
        now = (count - 1) * gap
        while (due := burst.next_due(near, now)) is not None:
            now = max(now, due)
            out += burst.receive(near, now) or []
    return out


def numbers(frames: list[Received]) -> list[int]:
    return [int.from_bytes(frame.data[:4], "big") for frame in frames]


def test_nothing_is_changed_without_impairments() -> None:
    far, near = cable()
    with far, Impair(near, Impairments()) as wire:
        burst.send(far, [b"one", b"two"], 10)
        frames = burst.receive(wire, 10) or []
        assert [(frame.data, frame.ts, frame.id) for frame in frames] == [(b"one", 10, 0), (b"two", 10, 1)]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3])
@pytest.mark.parametrize("kind", ["loss", "duplicate", "corrupt", "reorder"])
def test_shares_come_out_as_asked(kind: str, share: float) -> None:
    count = 20_000
    far, wire = impaired(f"{kind}={share}")
    with far, wire:
        for start in range(0, count, 50):
            burst.send(far, [b"\0" * 60] * 50, start)
            while burst.receive(wire, start):
                pass
        counters = wire.counters()
    got = {"loss": "lost", "duplicate": "duplicated", "corrupt": "corrupted", "reorder": "reordered"}[kind]
    deviation = (count * share * (1 - share)) ** 0.5
    assert counters.seen == count and abs(getattr(counters, got) - count * share) < 5 * deviation


def test_a_share_of_one_and_of_none_are_exact() -> None:
    assert run("loss=100%", 1000) == []
    assert len(run("loss=0%", 1000)) == 1000
    assert len(run("duplicate=1", 1000)) == 2000


def test_invariant_7_same_seed_same_result_whenever_asked() -> None:
    text = "loss=5%,delay=2ms,jitter=500us,reorder=5%,duplicate=3%,corrupt=1%"
    first = run(text, 3000, seed=7)
    assert run(text, 3000, seed=7) == first
    assert run(text, 3000, seed=7, polls=3) == first
    assert run(text, 3000, seed=8) != first


def test_the_same_frames_are_lost_whatever_else_is_on() -> None:
    alone = set(numbers(run("loss=5%", 3000, seed=7)))
    assert set(numbers(run("loss=5%,duplicate=10%,delay=1ms,jitter=1ms,reorder=3%", 3000, seed=7))) == alone


def test_delay_is_exact_and_keeps_order() -> None:
    frames = run("delay=2ms", 100)
    assert [frame.ts for frame in frames] == [2 * MS + number * 1000 for number in range(100)]


def test_jitter_stays_in_bounds_and_keeps_order() -> None:
    frames = run("delay=2ms,jitter=500us", 2000, gap=2 * MS)
    late = [frame.ts - number * 2 * MS for number, frame in enumerate(frames)]
    assert numbers(frames) == list(range(2000))
    assert min(late) >= 1.5 * MS and max(late) <= 2.5 * MS and abs(sum(late) / 2000 - 2 * MS) < 0.05 * MS
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(frames))
    assert numbers(run("jitter=1ms", 500)) == list(range(500)), "dense frames too, and never before they came"


def test_reorder_swaps_with_the_next_frame_at_any_rate() -> None:
    for gap in (10, 1000, 5 * MS):
        order = numbers(run("reorder=10%", 2000, gap=gap))
        assert sorted(order) == list(range(2000))
        moved = [number for place, number in enumerate(order) if number < place]
        assert 100 < len(moved) < 300, gap
        assert max(order.index(number) - number for number in moved[:50]) < 10


def test_a_frame_that_nobody_overtakes_comes_after_ten_milliseconds() -> None:
    frames = run("reorder=100%,delay=1ms", 3, gap=MS)
    assert [(number, frame.ts) for number, frame in zip(numbers(frames), frames, strict=True)] == [
        (0, 11 * MS), (1, 12 * MS), (2, 13 * MS),
    ]  # fmt: skip


def test_duplicates_have_their_own_number_and_come_behind() -> None:
    frames = run("duplicate=20%", 1000)
    copies = [place for place, frame in enumerate(frames) if frame.id >= COPY]
    assert 130 < len(copies) < 270
    for place in copies:
        assert frames[place].id - COPY == frames[place - 1].id and frames[place].data == frames[place - 1].data
    assert max(Counter(frame.id for frame in frames).values()) == 1


def test_corruption_flips_one_bit() -> None:
    frames = run("corrupt=100%", 2000)
    places = Counter()
    for number, frame in enumerate(frames):
        good = number.to_bytes(4, "big") + bytes(56)
        difference = int.from_bytes(frame.data, "big") ^ int.from_bytes(good, "big")
        assert difference.bit_count() == 1
        places[difference.bit_length()] += 1
    assert len(places) > 450, "anywhere in the frame"
    far, wire = impaired("corrupt=100%")
    with far, wire:
        burst.send(far, [b""], 0)
        assert [frame.data for frame in burst.receive(wire, 0) or []] == [b""]


def balance(ledger: Any) -> tuple[int, int]:
    source = lib.EXO_S_SOURCE
    drops = sum(ledger.drop[lib.EXO_R_SOURCE_FIRST : lib.EXO_R_TAP_FIRST])
    return getattr(ledger, "in")[source] + ledger.copies[source], drops


def test_invariant_1_every_frame_is_counted_while_it_is_held_and_after() -> None:
    ledger = ffi.new("struct exo_ledger *")
    far, wire = impaired("loss=10%,duplicate=10%,delay=1ms,reorder=10%", limit=500)
    wire.native.ledger = ledger
    given = 0
    with far, wire:
        for now in range(0, 4 * MS, 2000):
            burst.send(far, [b"x" * 60] * 2, now)
            given += len(burst.receive(wire, now) or [])
            offered, dropped = balance(ledger)
            assert offered == given + dropped + burst.held(wire)
        assert ledger.drop[lib.EXO_R_SOURCE_QUEUE_FULL] == wire.counters().overflowed > 0
        assert ledger.drop[lib.EXO_R_SOURCE_IMPAIR_LOSS] == wire.counters().lost > 0
        assert ledger.copies[lib.EXO_S_SOURCE] == wire.counters().duplicated > 0
        assert ledger.out[lib.EXO_S_SOURCE] == 0 and sum(ledger.drop) == dropped


def test_sent_frames_suffer_only_on_request() -> None:
    far, wire = impaired("loss=100%")
    with far, wire:
        assert burst.send(wire, [b"x"], 0) == 1 and len(burst.receive(far, 0) or []) == 1
    far, wire = impaired("delay=1ms,duplicate=100%", both=True)
    ledger = ffi.new("struct exo_ledger *")
    wire.native.ledger = ledger
    with far, wire:
        assert burst.send(wire, [b"x"], 0) == 1
        assert burst.receive(far, 0) == [] and burst.next_due(wire, 0) == MS and burst.held(wire) == 0
        assert burst.receive(wire, MS) == []
        assert [frame.ts for frame in burst.receive(far, MS) or []] == [MS, MS]
        assert wire.counters(sent=True).duplicated == 1 and wire.counters().seen == 0
        assert balance(ledger) == (0, 0), "what was sent has left the machine"
        assert wire.describe()["sent"]["duplicated"] == 1


def test_a_delayed_frame_that_the_inner_wire_refuses_is_counted_and_told() -> None:
    far, wire = impaired("delay=1ms", both=True)
    with wire:
        burst.send(wire, [b"x"], 0)
        far.close()
        burst.receive(wire, MS)
        assert wire.counters(sent=True).refused == 1
        with pytest.raises(RunError, match="no more frames"):
            burst.send(wire, [b"x"], MS)


def test_the_end_comes_after_the_last_held_frame() -> None:
    far, wire = impaired("delay=1ms,reorder=50%")
    with wire:
        burst.send(far, [b"x"] * 10, 0)
        burst.receive(wire, 0)
        far.close()
        now, got = 0, 0
        while (frames := burst.receive(wire, now)) is not None:
            got += len(frames)
            due = burst.next_due(wire, now)
            assert due is not None
            now = max(now, due)
        assert got == 10 and burst.next_due(wire, now) is None and burst.held(wire) == 0


def test_the_end_waits_for_sent_frames_too() -> None:
    far, wire = impaired("delay=1ms", both=True)
    with wire:
        burst.send(wire, [b"x"], 0)
        far.close()
        assert burst.receive(wire, 0) == [] and burst.next_due(wire, 0) == MS
        assert burst.receive(wire, MS) is None and wire.counters(sent=True).refused == 1


def test_all_lost_does_not_hang_on_an_endless_source() -> None:
    far, wire = impaired("loss=100%")
    with far, wire:
        burst.send(far, [b"x"] * 10_000, 0)
        assert burst.receive(wire, 0) == []
        assert burst.next_due(wire, 0) == 0, "there is more to ask for"


def test_fates_go_to_the_wire_inside(tmp_path: Any) -> None:
    from exonet.wire.tee import Tee

    far, near = cable()
    with far, Impair(Tee(near, tmp_path / "x.pcapng"), Impairments(duplicate=1.0)) as wire:
        burst.send(far, [b"x" * 60], 0)
        assert len(burst.receive(wire, 0) or []) == 2
        frame = ffi.new("struct exo_frame *")
        for number in (0, COPY):
            frame.id = number
            wire.native.fate(wire.native, frame, lib.EXO_R_DELIVERED, 1)
        assert wire.inner.counters().written == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("loss=1%", Impairments(loss=0.01)),
        ("loss=0.25", Impairments(loss=0.25)),
        (" delay = 2ms , jitter=.5us ", Impairments(delay=2 * MS, jitter=500)),
        ("delay=1s,reorder=5%", Impairments(delay=1000 * MS, reorder=0.05)),
        ("duplicate=100%,corrupt=0.1%", Impairments(duplicate=1, corrupt=0.001)),
        ("delay=7ns", Impairments(delay=7)),
    ],
)
def test_parse(text: str, want: Impairments) -> None:
    assert Impairments.parse(text) == want
    assert Impairments.parse(str(want)) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'impairment "": want NAME=VALUE with a name of loss, delay'),
        ("loss", 'impairment "loss": want NAME=VALUE'),
        ("lost=1%", 'impairment "lost=1%": want NAME=VALUE'),
        ("loss=1%,", 'impairment "": want'),
        ("loss=", "impairment loss=: want a share"),
        ("loss=101%", "impairment loss=101%: want a share, 0%..100%"),
        ("loss=1.5", "impairment loss=1.5: want a share"),
        ("loss=-1%", "impairment loss=-1%: want a share"),
        ("loss=nan", "impairment loss=nan: want a share"),
        ("loss=1e-3", "impairment loss=1e-3: want a share"),
        ("loss=1%,loss=2%", "impairment loss: given twice"),
        ("delay=2", "impairment delay=2: want a time up to 3600s with its unit, as in delay=2ms"),
        ("delay=2h", "impairment delay=2h: want a time"),
        ("delay=3601s", "impairment delay=3601s: want a time up to 3600s"),
        ("jitter=-1ms", "impairment jitter=-1ms: want a time"),
    ],
)
def test_parse_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Impairments.parse(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("values", [{"loss": 1.1}, {"loss": float("nan")}, {"delay": -1}, {"jitter": 10**13}])
def test_values_are_checked_too(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^impairment "):
        Impairments(**values)


def test_limit_is_checked() -> None:
    a, b = cable()
    with a, b, pytest.raises(UsageError, match=r"impair cable\.b: limit 0: must be 1"):
        Impair(b, Impairments(), limit=0)


def test_wrappers_close_what_they_wrap() -> None:
    far, wire = impaired("loss=1%")
    inner = wire.inner
    wire.close()
    wire.close()
    assert inner.native == ffi.NULL
    assert burst.receive(far, 0) is None
    far.close()
