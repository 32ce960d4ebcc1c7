# SPDX-License-Identifier: MIT
"""The table of fragments (R5): what it remembers, for how long, how much, and what a flood costs others."""

from collections.abc import Callable, Iterator

import pytest

from exonet.abi import lib
from tests.fakes.frames import frag
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

SECOND = 1_000_000_000
REMEMBERED, WAITS = 30 * SECOND, SECOND
FLOWS = 1024

Build = Callable[[list[tuple[int, bytes]]], tuple[Bench, FakeLibOS]]


@pytest.fixture
def build() -> Iterator[Build]:
    """A machine whose wire has these frames at these times, and one LibOS with a binding of UDP port 53."""
    benches: list[Bench] = []

    def made(frames: list[tuple[int, bytes]]) -> tuple[Bench, FakeLibOS]:
        bench = Bench(pages=2048)
        benches.append(bench)
        bench.attach(ScriptWire(frames), descriptors=4096, fifo_bytes=1 << 23)
        libos = FakeLibOS(bench, entries=4096, pages=1100)
        libos.bind("udp dst port 53")
        return bench, libos

    yield made
    for bench in benches:
        bench.close()


def named(index: int, number: int) -> bytes:
    """A fragment of the datagram with that identification."""
    frame = bytearray(frag(index))
    frame[18:20] = number.to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize(("late", "lost"), ((REMEMBERED - SECOND, 0), (REMEMBERED + SECOND, 1)))
def test_r05_a_first_fragment_is_remembered_for_its_time(build: Build, late: int, lost: int) -> None:
    bench, libos = build([(0, frag(0)), (late, frag(1))])
    bench.run()
    assert len(libos.receive()) == 2 - lost
    assert bench.drops().get("demux.fragment_lost", 0) == lost


@pytest.mark.parametrize(("late", "lost"), ((WAITS // 2, 0), (2 * WAITS, 1)))
def test_r05_an_early_fragment_waits_for_its_time(build: Build, late: int, lost: int) -> None:
    """Then it is lost, and the first one, when it comes, has its owner all the same."""
    bench, libos = build([(0, frag(1)), (late, frag(0))])
    bench.run()
    wanted = [frag(0)] if lost else [frag(1), frag(0)]
    assert [frame.data for frame in libos.receive()] == wanted
    assert bench.drops().get("demux.fragment_lost", 0) == lost
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 0


def test_r05_room_for_waiting_fragments_comes_back(build: Build) -> None:
    """Three times as many as may wait, in waves that each end before the next: none is turned away for want of room."""
    waves = [(wave * 3 * WAITS + i, named(1, 100 * wave + i)) for wave in range(3) for i in range(64)]
    bench, _ = build(waves)
    bench.run(until=WAITS // 2)
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 64 and not bench.drops()
    bench.run(until=3 * WAITS + WAITS // 2)
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 64 and bench.drops() == {"demux.fragment_lost": 64}
    bench.run()
    assert bench.drops() == {"demux.fragment_lost": 192} and bench.in_flight()[lib.EXO_S_DEMUX] == 0


def test_r05_fragments_that_wait_cost_nobody_those_that_follow_their_first(build: Build) -> None:
    """More than may wait, of a datagram that never begins, in every second: what comes in order needs no room there."""
    flood = [(second * WAITS + i, named(1, 9999)) for second in range(3) for i in range(100)]
    pairs = [(second * WAITS + 1000 + i, named(i, second)) for second in range(3) for i in range(3)]
    bench, libos = build([*flood, *pairs])
    bench.run(until=2 * WAITS + 2000)
    assert [frame.data for frame in libos.receive()] == [frame for _, frame in pairs]
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 64
    bench.run()
    assert bench.drops() == {"demux.fragment_lost": 300}


def from_source(index: int, number: int, last: int) -> bytes:
    frame = bytearray(named(index, number))
    frame[29] = last
    return bytes(frame)


def test_r05_who_has_many_waiting_loses_them_first(build: Build) -> None:
    """A source that fills the room leaves as much as they need to those that have less; all that goes is counted."""
    flood = [(i, from_source(1, i, 77)) for i in range(200)]
    early = [(1000 + i, from_source(1, i, 1 + i % 4)) for i in range(20)]
    firsts = [(5000 + i, from_source(0, i, 1 + i % 4)) for i in range(20)]
    bench, libos = build([*flood, *early, *firsts])
    bench.run(until=6000)
    received = [frame.data for frame in libos.receive()]
    assert sorted(received) == sorted(frame for _, frame in (*early, *firsts))
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 44 and bench.drops()["demux.fragment_lost"] == 156
    bench.run()
    assert bench.drops()["demux.fragment_lost"] == 200 and bench.in_flight()[lib.EXO_S_DEMUX] == 0


def test_r05_who_has_many_remembered_is_forgotten_first(build: Build) -> None:
    """A LibOS whose datagrams are more than the table has room for costs another none of its hundred."""
    theirs = [(i, from_source(0, i, 9)) for i in range(100)]
    flood = [(1000 + i, bytearray(from_source(0, i, 77))) for i in range(4 * FLOWS)]
    for _, frame in flood:
        frame[37] = 7  # to another port
    rest = [(10_000 + i, from_source(1, i, 9)) for i in range(100)]
    bench, libos = build([*theirs, *((at, bytes(frame)) for at, frame in flood), *rest])
    other = FakeLibOS(bench, entries=4096, pages=900)
    other.bind("udp dst port 7")
    bench.run(until=9000)
    assert len(other.receive()) > FLOWS
    bench.run()
    assert len(libos.receive()) == 200 and "demux.fragment_lost" not in bench.drops()


def test_r05_the_table_is_bounded_whatever_comes(build: Build) -> None:
    """Twice as many datagrams at once as it remembers: no more are followed than it has room for, the last one is, and
    what is not followed is counted.
    """
    most = 2 * FLOWS
    firsts = [(i * 1000, named(0, i)) for i in range(most)]
    ends = firsts[-1][0] + 1000
    bench, libos = build([*firsts, *((ends + i * 1000, named(1, most - 1 - i)) for i in range(most))])
    bench.run(until=ends - 1)
    assert len(libos.receive()) == most
    bench.run()
    followed = [frame.data for frame in libos.receive()]
    assert FLOWS // 2 < len(followed) <= FLOWS
    assert followed[0] == named(1, most - 1)
    assert bench.drops()["demux.fragment_lost"] == most - len(followed)


def test_r05_fragments_of_one_datagram_do_not_follow_another(build: Build) -> None:
    """Another identification, protocol or address is another datagram."""
    strangers = []
    for at, value in ((19, 1), (23, 6), (29, 9), (33, 77)):
        frame = bytearray(frag(1))
        frame[at] = value
        strangers.append(bytes(frame))
    bench, libos = build([(i * 1000, frame) for i, frame in enumerate([frag(0), *strangers, frag(2)])])
    bench.run()
    assert [frame.data for frame in libos.receive()] == [frag(0), frag(2)]
    assert bench.drops() == {"demux.fragment_lost": len(strangers)}
