# SPDX-License-Identifier: MIT
"""A core for the kernel alone: its thread is there while it runs, LibOS processes and the compiler are elsewhere."""

import os
from pathlib import Path

import pytest

from exonet.errors import UsageError
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.cores import Cores
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import pcap
from tests.fakes.frames import udp

ALLOWED = os.sched_getaffinity(0)
two_cores = pytest.mark.skipif(len(ALLOWED) < 2, reason="one core: none can be set apart")


@two_cores
@pytest.mark.alone
def test_the_kernel_has_its_core_to_itself(tmp_path: Path, preload: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    path, core = tmp_path / "trace.pcap", max(ALLOWED)
    path.write_bytes(pcap([(k * 5_000_000, udp(sport=1000 + k)) for k in range(50)]))
    seen: list[set[int]] = []
    with PcapWire(path, speed="x1") as wire, Machine(MachineConfig(pages=1024, core=core)) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE), subscribe_all=True)
        env = machine.spawn(LibOSSpec("sink", bindings=("udp",), process=True, local="any"), port)
        assert env.process is not None
        assert os.sched_getaffinity(env.process.pid) == ALLOWED - {core}
        machine.run(machine.now() + 2_000_000_000, lambda _: seen.append(os.sched_getaffinity(0)))
        assert machine.settle().delivered == 50
    assert seen and all(cores == {core} for cores in seen)
    assert os.sched_getaffinity(0) == ALLOWED


@two_cores
def test_cores_come_back_whatever_happens() -> None:
    cores = Cores(min(ALLOWED))
    with pytest.raises(ZeroDivisionError), cores.others():
        assert os.sched_getaffinity(0) == ALLOWED - {min(ALLOWED)}
        _ = 1 // 0
    assert os.sched_getaffinity(0) == ALLOWED


def test_a_core_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(UsageError, match="core 4095: must be one of"):
        Machine(MachineConfig(core=4095))
    with Cores(None).kernel():
        assert os.sched_getaffinity(0) == ALLOWED
