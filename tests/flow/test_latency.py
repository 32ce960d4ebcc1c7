# SPDX-License-Identifier: MIT
"""How long frames took from the wire to their LibOS, by binding: figures computed on paper, on the virtual clock."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.delays import Delays
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.lab.figures import figures, with_rates
from exonet.wire.pcap import PcapWire
from tests.fakes.frames import udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

UDP64 = Path(__file__).resolve().parents[2] / "captures" / "udp-64.pcap"
T = 1000  # ns between arrivals


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def of_binding(bench: Bench, binding: int) -> Delays | None:
    found = lib.exo_machine_binding_delays(bench.native, binding)
    return None if found == ffi.NULL else Delays.read(found)


def of_env(bench: Bench, env: int) -> Delays:
    found = ffi.new("struct exo_delays *")
    lib.exo_machine_env_delays(bench.native, env, found)
    return Delays.read(found)


def one_a_step(libos: FakeLibOS) -> Any:
    return lambda _: bool(libos.receive(1))


def test_each_binding_has_the_delays_of_its_own_frames(bench: Bench) -> None:
    """A frame each T, for two ports in turn, and 10T to consume one: the k-th has waited 10(k + 1)T - kT."""
    bench.attach(ScriptWire([(k * T, udp(dport=53 + k % 2)) for k in range(8)]))
    libos = FakeLibOS(bench)
    even, odd = libos.bind("udp port 53"), libos.bind("udp port 54")
    bench.costs(consume=10 * T)
    bench.run(step=one_a_step(libos))
    waited = [10 * (k + 1) * T - k * T for k in range(8)]
    for binding, mine in ((even, waited[::2]), (odd, waited[1::2])):
        told = of_binding(bench, binding)
        assert told is not None
        assert (told.count, told.mean, told.max) == (4, sum(mine) // 4, mine[-1])
        assert mine[2] <= told.p50 <= mine[2] * 33 / 32 and told.p99 == told.p999 == mine[-1]
    whole = of_env(bench, libos.number)
    assert (whole.count, whole.mean, whole.max) == (8, sum(waited) // 8, waited[-1])


def test_what_a_binding_had_stays_known_of_its_environment(bench: Bench) -> None:
    """When it is unbound, and when the environment ends; its number may be another's by then."""
    bench.attach(ScriptWire([(k * T, udp()) for k in range(4)]))
    libos, other = FakeLibOS(bench), FakeLibOS(bench)
    binding = libos.bind("udp")
    bench.run(step=one_a_step(libos))
    before = of_env(bench, libos.number)
    assert before.count == 4
    assert lib.exo_machine_unbind(bench.native, binding) == 0
    assert other.bind("udp") == binding and of_binding(bench, binding) is None
    assert of_env(bench, libos.number) == before and of_env(bench, other.number).count == 0
    lib.exo_machine_env_kill(bench.native, libos.number)
    assert of_env(bench, libos.number) == before


def test_a_frame_whose_binding_has_gone_counts_for_its_environment(bench: Bench) -> None:
    bench.attach(ScriptWire([(0, udp())]))
    libos, other = FakeLibOS(bench), FakeLibOS(bench)
    binding = libos.bind("udp")
    bench.run()
    lib.exo_machine_unbind(bench.native, binding)
    assert other.bind("udp") == binding
    libos.receive()
    lib.exo_deliver_settle(bench.native, libos.env)
    assert (of_env(bench, libos.number).count, of_env(bench, other.number).count) == (1, 0)


def test_of_very_many_bindings_the_last_share_their_environments_delays(bench: Bench) -> None:
    """1,024 have delays of their own: a histogram takes 15 KB."""
    ports = range(1000, 1000 + 1030)
    bench.attach(ScriptWire([(k * T, udp(dport=port)) for k, port in enumerate(ports)]))
    libos = FakeLibOS(bench)
    bindings = [libos.bind(f"udp dst port {port}") for port in ports]
    bench.run(step=one_a_step(libos))
    known = [of_binding(bench, binding) for binding in bindings]
    assert [told is not None for told in known] == [True] * 1024 + [False] * 6
    assert of_env(bench, libos.number).count == 1030


@pytest.mark.parametrize("speed", ["max", "pps=1M"])
def test_a_run_reports_latency_and_cpu_time_of_an_inline_libos(speed: str) -> None:
    """But no latency at top speed, where it is how long the queues are."""
    with PcapWire(UDP64, speed=speed) as wire, Machine(MachineConfig()) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True), subscribe_all=True)
        machine.spawn(LibOSSpec("a", "sink", ("udp",), local="none", any_address=True), port)
        machine.run()
        machine.settle()
        (row,) = machine.reports()
    assert row["cpu_ns"] > 0
    if speed == "max":
        assert row["latency_ns"] is None and row["bindings"] == []
        return
    assert row["latency_ns"]["count"] == row["consumed"] > 0
    assert row["latency_ns"]["p50"] <= row["latency_ns"]["p99"] <= row["latency_ns"]["p999"] <= row["latency_ns"]["max"]
    assert [told["latency_ns"] for told in row["bindings"]] == [row["latency_ns"]]


def test_a_process_has_the_cpu_time_that_it_used_after_its_death_too(preload: None) -> None:
    with PcapWire(UDP64, speed="pps=100k") as wire, Machine(MachineConfig()) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True), subscribe_all=True)
        env = machine.spawn(LibOSSpec("a", "sink", ("udp",), local="none", any_address=True, process=True), port)
        machine.run()
        machine.settle()
        (row,) = machine.reports()
        assert 0 < row["cpu_ns"] < 2 * machine.now()  # and not what starting Python took
        machine.environments.end(env, "enough")
        (ended,) = machine.reports()
    assert row["cpu_ns"] <= ended["cpu_ns"] < 100 * row["cpu_ns"]
    assert ended["latency_ns"] == row["latency_ns"]


def test_the_page_has_a_row_for_each_libos_with_its_quantiles() -> None:
    latency = {"count": 4, "p50": 900, "p99": 12_000, "p999": 15_000_000, "max": 2_000_000_000}
    row = {"name": "web", "delivered": 4, "bytes": 500_000, "cpu_ns": 250_000_000, "latency_ns": latency}
    told = list(figures([with_rates(row, 2.0)], 2.0))
    assert [line.split() for line in told[:2]] == [
        ["LibOS", "delivered", "Mbit/s", "CPU", "p50", "p99", "p99.9", "max"],
        ["web", "2", "/s", "2.0", "12.5", "%", "900", "ns", "12.0", "µs", "15.0", "ms", "2.00", "s"],
    ]
    untimed = list(figures([with_rates(row | {"latency_ns": None}, 2.0)], 2.0))
    assert "p50" not in untimed[0] and len(untimed) == 2
