# SPDX-License-Identifier: MIT
"""A replay on a machine: whole ledgers, and arrivals at their own times on the virtual clock."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import BASE, Ng, pcap
from tests.fakes.frames import udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.replays import Libpcap


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def replay(bench: Bench, path: Path, memory: int = 1 << 30, **options: Any) -> tuple[PcapWire, FakeLibOS]:
    wire = PcapWire(Trace.load(path, memory), **options)
    bench.attach(wire)
    env = FakeLibOS(bench)
    env.bind("udp")
    return wire, env


@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["loaded", "streamed"])
def test_r16_every_frame_arrives_at_its_capture_time(bench: Bench, tmp_path: Path, memory: int) -> None:
    frames = [(k * 1000 + k % 7, udp(sport=1000 + k)) for k in range(500)]
    (tmp_path / "trace").write_bytes(pcap(frames, nano=True))
    _, env = replay(bench, tmp_path / "trace", memory, speed="x1", loop=2)
    seen: list[int] = []

    def step(_: int) -> bool:
        found = env.receive()
        seen.extend(frame.timestamp for frame in found)
        return bool(found)

    bench.run(step=step)
    start = seen[0]
    loop = 499 * 1000 + 2
    gap = loop // 499
    due = [ns for ns, _ in frames]
    assert [ns - start for ns in seen] == due + [loop + gap + ns for ns in due]
    assert bench.drops() == {"delivered": 1000}
    assert bench.in_flight() == [0] * 9


@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["loaded", "streamed"])
def test_invariant_1_what_the_source_left_out_is_in_the_ledger(bench: Bench, tmp_path: Path, memory: int) -> None:
    ng = Ng().section().interface().interface(101)
    for k in range(40):
        ng.packet(BASE * 10**6 + k, udp(sport=k + 1), interface=int(k % 10 == 3))
    (tmp_path / "trace").write_bytes(ng.out)
    _, env = replay(bench, tmp_path / "trace", memory, exclude=Libpcap("udp src port 7 or udp src port 8"))
    taken: list[bytes] = []

    def step(_: int) -> bool:
        found = env.receive()
        taken.extend(frame.data for frame in found)
        return bool(found)

    bench.run(step=step)
    assert bench.drops() == {"delivered": 34, "source.link_type": 4, "source.excluded": 2}
    assert (getattr(bench.ledger, "in")[0], bench.ledger.out[0], len(taken)) == (40, 34, 34)
