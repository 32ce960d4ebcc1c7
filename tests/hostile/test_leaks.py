# SPDX-License-Identifier: MIT
"""Invariant 8 over fifty LibOS processes that live with traffic and die by force: nothing of them is left."""

import ctypes
import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from exonet.errors import UsageError
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire.pcap import PcapWire
from tests.conftest import ROOT, SANITIZED

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: no environment can be isolated")
CYCLES = 25
WARM = 5
GROWTH_KIB = 8192  # the heap's own ups and downs; one LibOS's areas and buffers, kept each time, would be 20 MiB
CAPTURE = ROOT / "captures" / "udp-64.pcap"


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _locks(path: Path) -> int:
    """How many locks a descriptor of ours holds; the one that lists the directory is gone by now."""
    try:
        return path.read_text().count("lock:")
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Held:
    """What this process holds. `mappings`: of memfds; `locks`: on bytes of the file of uids."""

    fds: int
    children: int
    threads: int
    mappings: int
    locks: int
    rss_kib: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        # Which of malloc's arenas a thread gets is chance, and an arena keeps what it has had: free pages are not held.
        ctypes.CDLL(None).malloc_trim(0)
        status = dict(line.split(":", 1) for line in lines("/proc/self/status"))
        return cls(
            fds=len(list(Path("/proc/self/fd").iterdir())),
            children=sum(len(Path(task, "children").read_text().split()) for task in Path("/proc/self/task").iterdir()),
            threads=int(status["Threads"]),
            mappings=len([line for line in lines("/proc/self/maps") if "memfd:" in line]),
            locks=sum(_locks(path) for path in Path("/proc/self/fdinfo").iterdir()),
            rss_kib=int(status["VmRSS"].split()[0]),
        )

    def but_for_memory(self) -> tuple[int, ...]:
        return self.fds, self.children, self.threads, self.mappings


def namespaces(pids: list[int]) -> set[str]:
    """The network namespaces of such of these processes as are still there."""
    found = set()
    for pid in pids:
        try:
            found.add(str(Path(f"/proc/{pid}/ns/net").readlink()))
        except OSError:
            continue
    return found


def live_and_die(machine: Machine, number: int) -> int:
    """One LibOS process, with traffic of its own port, ended in one of the ways there are. Returns its pid."""
    env = machine.spawn(LibOSSpec(f"life {number}", bindings=("ip",), local="none", process=True))
    assert env.process is not None
    pid = env.process.pid
    machine.run(machine.now() + 1_000_000)
    if number % 3 == 0:
        os.kill(pid, signal.SIGKILL)
        while env.alive:
            machine.run(machine.now() + 1_000_000)
    elif number % 3 == 1:
        os.kill(pid, signal.SIGSTOP)
    if env.alive:
        machine.environments.end(env, "the test ends it")
    return pid


def test_invariant_8_lives_and_deaths_in_one_machine_leave_nothing(preload: None) -> None:
    pids: list[int] = []
    with PcapWire(CAPTURE, speed="x1", loop=0) as wire, Machine(MachineConfig(pages=4096)) as machine:
        machine.attach(wire, NicConfig(promiscuous=True))
        pages = machine.environments.pages
        start: Held | None = None
        for number in range(CYCLES):
            if number == WARM:
                start = Held.now()
            pids.append(live_and_die(machine, number))
            assert pages.free_count == pages.total and not machine.environments.authority.count()
        assert start is not None
        end = Held.now()
        assert end.but_for_memory() == start.but_for_memory()
        assert SANITIZED or end.rss_kib - start.rss_kib < GROWTH_KIB
        assert machine.launcher._uids is not None and not machine.launcher._uids._taken
    assert not namespaces(pids)


def test_invariant_8_successive_machines_leave_nothing(preload: None) -> None:
    pids: list[int] = []
    start: Held | None = None
    for number in range(CYCLES):
        if number == WARM:
            start = Held.now()
        with PcapWire(CAPTURE, speed="max") as wire, Machine(MachineConfig(pages=4096)) as machine:
            machine.attach(wire, NicConfig(promiscuous=True))
            if number % 5 == 4:
                with pytest.raises(UsageError):
                    machine.spawn(LibOSSpec("broken", libos="no.such:LibOS", bindings=("ip",), process=True))
            pids.append(live_and_die(machine, number))
            machine.run()
            machine.settle()
    assert start is not None
    end = Held.now()
    assert end.but_for_memory() == start.but_for_memory()
    assert end.locks <= start.locks
    assert SANITIZED or end.rss_kib - start.rss_kib < GROWTH_KIB
    assert not namespaces(pids)
