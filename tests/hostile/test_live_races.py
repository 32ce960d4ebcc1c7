# SPDX-License-Identifier: MIT
"""Races with a machine at full rate: kills, stops, holes, scribbles, closed sockets and revocations in the middle.

Whatever becomes of the victim, the other LibOS gets every frame of its own and the ledger balances.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from exonet.clock import monotonic_ns
from exonet.kernel.capability import Resource
from tests.fakes.live import MS, live, pid_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: no environment can be isolated")
RACERS = "tests.hostile.race_liboses"
LOST = {"ring.no_buffer", "ring.full"}

#: Its socket may tell of the death before the process can be asked.
KILLED = ("killed by signal 9", "it closed its control socket or was killed")


@contextmanager
def beside(action: Callable[[], object], after_ns: int) -> Iterator[None]:
    """Does something on another thread in a while: while the machine's C loop runs."""
    timer = threading.Timer(after_ns / 1e9, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_killed_at_any_moment(preload: None, tmp_path: Path) -> None:
    pick = random.Random(1)
    with live(tmp_path, {}, {}, {}, {}) as run, ExitStack() as kills:
        for victim in run.victims:
            kill = partial(os.kill, pid_of(victim), signal.SIGKILL)
            kills.enter_context(beside(kill, pick.randrange(MS, 12 * MS)))
        ledger = run.end()
        assert ledger.in_flight == 0 and set(ledger.dropped) <= {*LOST, "ring.env_dead", "demux.no_match"}
        pages = run.machine.environments.pages
        for victim in run.victims:
            assert victim.end_reason in KILLED and not pages.used(victim.number)
        assert sum(map(run.delivered, run.victims)) + sum(ledger.dropped.values()) == run.frames // 2


def test_stopped_while_frames_wait_for_it_and_for_good(preload: None, tmp_path: Path) -> None:
    """With backpressure it is waited for, but not for ever; woken again, it takes what is in its ring."""
    with live(tmp_path, {}, {}) as run:
        woken, stopped = run.victims
        run.run(MS)
        for victim in run.victims:
            os.kill(pid_of(victim), signal.SIGSTOP)
        start = monotonic_ns()
        with beside(partial(os.kill, pid_of(woken), signal.SIGCONT), 300 * MS):
            ledger = run.end()
        assert monotonic_ns() - start < 6000 * MS
        assert set(ledger.dropped) <= LOST and all(victim.alive for victim in run.victims)
        report = run.report(stopped)
        assert ledger.in_flight == report["placed"] - report["consumed"] > 0
        for victim, held in ((woken, 0), (stopped, ledger.in_flight)):
            assert run.delivered(victim) + sum(run.dropped(victim).values()) + held == run.share


def test_invariant_5_storms_on_its_own_memory(preload: None, tmp_path: Path) -> None:
    """Holes under the copy cost nothing but the contents; what it does to its rings costs its own frames."""
    racers = ("Puncher", "RingPuncher", "Unmapper", "Scribbler")
    with live(tmp_path, *({"libos": f"{RACERS}:{racer}"} for racer in racers)) as run:
        ledger = run.end()
        for victim in run.victims:
            lost = {name: count for name, count in run.dropped(victim).items() if not name.startswith("transmit.")}
            assert all(name.startswith(("ring.", "stack.")) for name in lost), lost
        puncher = run.victims[0]
        assert puncher.alive and run.delivered(puncher) == run.share and not run.dropped(puncher), ledger.table()


def test_it_closes_its_sockets_or_leaves(preload: None, tmp_path: Path) -> None:
    ways = ("wake", "control", "both", "leave")
    with live(tmp_path, *({"libos": f"{RACERS}:Closer", "options": {"how": how}} for how in ways)) as run:
        run.run(60 * MS)
        run.end()
        assert [victim.alive for victim in run.victims] == [True, False, False, False]
        assert run.victims[3].end_reason == "exit status 7"


def test_r14_revoked_at_full_rate(preload: None, tmp_path: Path) -> None:
    """Binding and buffers are broken at once, though its process posts all the while; what was copied stays."""
    pick = random.Random(2)
    gone = [
        (Resource.FILTER, {"demux.no_match"}),
        (Resource.PAGES, {"ring.bad_buffer", "ring.no_buffer"}),
        (Resource.PAGES, {"ring.bad_buffer", "ring.no_buffer"}),
        (Resource.FILTER, {"demux.no_match"}),
    ]
    with live(tmp_path, *({} for _ in gone)) as run:
        placed = []
        for victim, (resource, _) in zip(run.victims, gone, strict=True):
            run.run(pick.randrange(MS, 4 * MS))
            run.revoke(victim, resource)
            placed.append(int(victim.native.placed_frames))
        ledger = run.end()
        assert ledger.in_flight == 0 and set(ledger.dropped) <= {reason for _, reasons in gone for reason in reasons}
        for victim, before, (resource, reasons) in zip(run.victims, placed, gone, strict=True):
            report = run.report(victim)
            assert victim.alive and 0 < before == report["placed"] == report["consumed"] == report["delivered"]
            lost = run.dropped(victim)
            assert set(lost) <= reasons
            assert resource is Resource.FILTER or sum(lost.values()) == run.share - before


def test_r14_what_waits_to_be_sent_is_not_sent_after_the_revocation(preload: None, tmp_path: Path) -> None:
    echo = {"libos": "echo", "any_address": True, "local": "any", "options": {"port": 7}}
    with live(tmp_path, echo, loop=20) as run:
        (victim,) = run.victims
        while int(victim.native.sent) < 100:
            run.run(MS)
        run.revoke(victim, Resource.WIRE)
        sent = int(victim.native.sent)
        run.end()
        report = run.report(victim)
        assert victim.alive and report["sent"] == sent and report["submitted"] > sent
        refused = report["submitted"] - sent
        assert {name: count for name, count in report["dropped"].items() if name.startswith("transmit.")} == {
            "transmit.not_granted": refused
        }
