# SPDX-License-Identifier: MIT
"""The workshop: what takes long is done beside the kernel's thread, and its result is taken in it."""

import itertools
import select
import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from exonet.clock import monotonic_ns
from exonet.errors import KernelBug
from exonet.kernel import workshop as workshop_module
from exonet.kernel.workshop import HALF_NS, Turn, Workshop

PATIENCE_S = 20
NAME = "a workshop"


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    with Workshop(NAME, nullcontext) as made:
        yield made


def readable(workshop: Workshop, timeout: float = 0) -> bool:
    return bool(select.select([workshop], [], [], timeout)[0])


def threads() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


def test_a_job_is_done_elsewhere_and_its_result_taken_here(workshop: Workshop) -> None:
    assert threads() == 0 and not readable(workshop)
    taken: list[tuple[str, str]] = []
    done = [threading.Event() for _ in range(3)]
    for event in done:
        workshop.do(
            lambda event=event: (event.set(), threading.current_thread().name)[1],
            lambda made: taken.append((made, threading.current_thread().name)),
        )
    assert all(event.wait(PATIENCE_S) for event in done) and threads() == 1
    assert taken == [], "nothing is taken before somebody collects"
    while len(taken) < 3:
        assert readable(workshop, PATIENCE_S)
        workshop.collect()
    assert taken == [(NAME, threading.current_thread().name)] * 3
    assert not readable(workshop)


def test_jobs_are_done_in_their_order(workshop: Workshop) -> None:
    order: list[int] = []
    last = threading.Event()
    for number in range(100):
        workshop.do(lambda number=number: order.append(number), lambda _: None)
    workshop.do(last.set, lambda _: None)
    assert last.wait(PATIENCE_S) and order == list(range(100))


def test_who_has_had_least_of_the_time_comes_first(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that always ask for more do not keep a fourth waiting, and none of them is starved."""
    monkeypatch.setattr(workshop_module, "monotonic_ns", itertools.count(step=1_000_000).__next__)
    turns = [Turn() for _ in range(4)]
    order: list[int] = []
    go = threading.Semaphore(0)

    def ask(who: int) -> None:
        def job() -> None:
            assert go.acquire(timeout=PATIENCE_S)
            order.append(who)

        workshop.do(job, lambda _: ask(who) if who < 3 else None, turns[who])

    def let(jobs: int) -> None:
        for _ in range(jobs):
            before = len(order)
            go.release()
            while len(order) == before:
                assert readable(workshop, PATIENCE_S)
                workshop.collect()

    for who in range(3):
        ask(who)
    let(6)
    ask(3)
    let(6)
    go.release(10)
    assert 3 in order[6:8], order
    assert min(order.count(who) for who in range(3)) >= 3, order


def test_what_one_has_had_is_forgotten() -> None:
    turn = Turn(used=8, at=monotonic_ns() - 3 * HALF_NS)
    assert 0.9 < turn.now() <= 1


def test_a_job_that_fails_is_a_bug_of_the_kernel_and_the_next_one_is_done(workshop: Workshop) -> None:
    taken: list[int] = []
    workshop.do(lambda: 1 // 0, taken.append)
    workshop.do(lambda: 7, taken.append)
    while not taken:
        assert readable(workshop, PATIENCE_S)
        try:
            workshop.collect()
        except KernelBug as error:
            assert str(error).startswith(f"{NAME}: ZeroDivisionError")
            workshop.ring()
    assert taken == [7]


def test_a_ring_is_heard_once(workshop: Workshop) -> None:
    for _ in range(10_000):  # more than the socket holds
        workshop.ring()
    assert readable(workshop)
    workshop.collect()
    assert not readable(workshop)


def test_close_waits_for_the_job_under_way_and_drops_the_others() -> None:
    begun, go = threading.Event(), threading.Event()
    did: list[int] = []
    workshop = Workshop(NAME, nullcontext)
    workshop.do(lambda: (begun.set(), go.wait(PATIENCE_S), did.append(0)), lambda _: did.append(-1))
    workshop.do(lambda: did.append(1), lambda _: None)
    assert begun.wait(PATIENCE_S)
    threading.Timer(0.01, go.set).start()
    workshop.close()
    assert did == [0] and threads() == 0
    workshop.close()


def test_the_thread_runs_where_it_is_told() -> None:
    places: list[str] = []

    class Place:
        def __enter__(self) -> None:
            places.append(threading.current_thread().name)

        def __exit__(self, *_: object) -> None:
            places.append("left")

    done = threading.Event()
    with Workshop(NAME, Place) as workshop:
        workshop.do(done.set, lambda _: None)
        assert done.wait(PATIENCE_S)
    assert places == [NAME, "left"]
