# SPDX-License-Identifier: MIT
"""What a replay offers and leaves out: loops, limit, duration, filters, link types, sides; and the ledger's source."""

from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire, split
from exonet.wire.rewrite import Rewrite
from tests.conftest import every_capture
from tests.fakes.captures import BASE, Ng, Wired, frame_bytes, pcap, receive_all, timed
from tests.fakes.replays import Ledger, Libpcap, Make, make

__all__ = ["make"]

NS = 10**9
EITHER = pytest.mark.parametrize("memory", [1 << 30, 1], ids=["loaded", "streamed"])


def ids(frames: list[Wired]) -> list[int]:
    return [frame.id for frame in frames]


def mixed() -> bytes:
    """Ten records: 0, 3, 6, 9 UDP port 53; 1, 7 TCP; 2 not Ethernet; 4 oversize; 5 a runt; 8 empty."""
    dns = bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=53)
    )
    tcp = bytes(
        Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(src="10.0.0.2", dst="10.0.0.1") / TCP(dport=80)
    )
    ng = Ng().section().interface().interface(101)
    for i, data in enumerate([dns, tcp, b"raw", dns, bytes(70_000), b"runt", dns, tcp, b"", dns]):
        ng.packet(BASE * 10**6 + i, data, interface=int(i == 2))
    return ng.out


@EITHER
@pytest.mark.parametrize("speed", ["x1", "max", "pps=1M"])
def test_every_record_is_offered_once_and_has_one_fate(make: Make, memory: int, speed: str) -> None:
    wire = make(mixed(), memory_limit=memory, speed=speed, include=Libpcap("udp or tcp"), exclude=Libpcap("tcp"))
    ledger = Ledger(wire)
    frames = receive_all(wire.native)
    assert ids(frames) == [0, 3, 6, 9]
    assert ledger.offered == 10
    assert ledger.drops == {"source.excluded": 4, "source.link_type": 1, "source.oversize": 1}
    excluded, link_type, oversize = "source.excluded", "source.link_type", "source.oversize"
    assert ledger.fates == [(1, excluded), (2, link_type), (4, oversize), (5, excluded), (7, excluded), (8, excluded)]
    counters = wire.counters()
    assert (counters["records"], counters["excluded"], counters["link_type"], counters["oversize"]) == (10, 4, 1, 1)
    assert (wire.native.rx_frames, wire.native.rx_bytes) == (4, sum(len(f.data) for f in frames))


@EITHER
def test_source_drops_take_no_slot_of_a_rate(make: Make, memory: int) -> None:
    wire = make(mixed(), memory_limit=memory, speed="pps=1M", exclude=Libpcap("udp")).start(0)
    assert [(f.id, f.ts) for f in receive_all(wire.native)] == [(1, 0), (5, 1000), (7, 2000), (8, 3000)]


@EITHER
def test_the_anchor_is_the_first_frame_that_is_offered(make: Make, memory: int) -> None:
    wire = make(mixed(), memory_limit=memory, include=Libpcap("udp"), exclude=Libpcap("len > 1000")).start(0)
    late = make(mixed(), memory_limit=memory, include=Libpcap("tcp")).start(0)
    assert [(f.id, f.ts) for f in receive_all(wire.native)] == [(0, 0), (3, 3000), (6, 6000), (9, 9000)]
    assert [(f.id, f.ts) for f in receive_all(late.native)] == [(1, 0), (7, 6000)]


@pytest.mark.parametrize("path", every_capture("*.pcap"), ids=lambda path: path.name)
def test_filters_take_what_libpcap_takes(path: Path) -> None:
    for text in ("tcp", "udp port 53", "ip6", "greater 100", "vlan"):
        taken = [PcapWire(path, speed="max", include=Libpcap(text)), PcapWire(path, speed="max", exclude=Libpcap(text))]
        both = [ids(receive_all(wire.native)) for wire in taken]
        assert sorted(both[0] + both[1]) == list(range(Trace.load(path).count))


@EITHER
@pytest.mark.parametrize("speed", ["x1", "max"])
@pytest.mark.parametrize(
    ("loop", "limit", "expected"), [(1, 3, 3), (2, 7, 7), (2, 100, 10), (0, 23, 23), (3, 0, 0), (1, 5, 5)]
)
def test_loop_and_limit(make: Make, memory: int, speed: str, loop: int, limit: int, expected: int) -> None:
    wire = make(pcap(timed(5)), memory_limit=memory, speed=speed, loop=loop, limit=limit)
    ledger = Ledger(wire)
    frames = receive_all(wire.native, burst=4)
    assert ids(frames) == list(range(expected))
    assert [f.data for f in frames] == [frame_bytes(i % 5) for i in range(expected)]
    assert (ledger.offered, ledger.drops) == (expected, {})


@EITHER
@pytest.mark.parametrize(
    ("speed", "duration", "expected"),
    [("x1", 2500, 3), ("x1", 2000, 2), ("x2", 2500, 5), ("pps=1M", 1, 1), ("x1", 0, 0)],
)
def test_duration_cuts_what_is_due_later(make: Make, memory: int, speed: str, duration: int, expected: int) -> None:
    wire = make(pcap(timed(5)), memory_limit=memory, speed=speed, duration=duration).start(10**6)
    ledger = Ledger(wire)
    assert ids(receive_all(wire.native, burst=2)) == list(range(expected))
    assert ledger.offered == expected


@EITHER
def test_duration_at_top_speed_ends_a_loop_for_ever(make: Make, memory: int) -> None:
    native = make(pcap(timed(5)), memory_limit=memory, speed="max", loop=0, duration=1000).start(0).native
    frames = ffi.new("struct exo_frame[]", 64)
    seen = 0
    for now in range(0, 1000, 100):
        seen += (n := native.receive(native, frames, 64, now))
        assert n > 0
    assert native.receive(native, frames, 64, 1000) == lib.EXO_E_END
    assert seen >= 50


@EITHER
@pytest.mark.parametrize("speed", ["x1", "max"])
def test_a_loop_for_ever_over_nothing_ends(make: Make, memory: int, speed: str) -> None:
    empty = make(pcap([]), memory_limit=memory, speed=speed, loop=0)
    assert receive_all(empty.native) == []
    barren = make(pcap(timed(5)), memory_limit=memory, speed=speed, loop=0, include=Libpcap("tcp"))
    ledger = Ledger(barren)
    assert receive_all(barren.native) == []
    assert ledger.drops == {"source.excluded": 5}
    finite = make(pcap(timed(5)), memory_limit=memory, speed=speed, loop=3000, include=Libpcap("tcp"))
    assert receive_all(finite.native) == []
    assert finite.counters()["excluded"] == 15_000


@EITHER
@pytest.mark.slow
def test_frames_stay_valid_until_the_next_receive(make: Make, memory: int) -> None:
    """Across window refills and loops of a stream: ten megabytes through a window of 192 KiB."""
    sizes = [60, 1514, 9000, 64, 300]
    data = pcap([(i, frame_bytes(i, sizes[i % 5])) for i in range(1000)])
    wire = make(data, memory_limit=memory, speed="max", loop=4)
    frames = receive_all(wire.native, burst=64)
    assert [f.data for f in frames] == [frame_bytes(i % 1000, sizes[i % 5]) for i in range(4000)]
    assert ids(frames) == list(range(4000))


def test_r07_snapped_frames_are_flagged_and_counted_apart(make: Make) -> None:
    data = Ng().section().interface().packet(1, b"x" * 40, wire_len=400).packet(2, b"y" * 40).out
    for speed in ("max", "x1"):
        wire = make(data, speed=speed)
        assert [(f.flags, f.wire_len) for f in receive_all(wire.native)] == [(lib.EXO_F_SNAPPED, 400), (0, 40)]
        assert wire.counters()["snapped"] == 1


def test_what_is_sent_is_counted_and_gone(make: Make) -> None:
    native = make(pcap(timed(2)), speed="max").native
    frames = ffi.new("struct exo_frame[]", 2)
    assert native.receive(native, frames, 2, 0) == 2
    assert native.send(native, frames, 2, 0) == 2
    assert (native.tx_frames, native.tx_bytes, native.held(native)) == (2, 120, 0)


def test_a_wire_outlives_its_trace(make: Make) -> None:
    for memory in (1 << 30, 1):
        wire = make(pcap(timed(50)), memory_limit=memory, speed="max")
        wire.trace.close()
        assert len(receive_all(wire.native)) == 50


def conversation() -> list[tuple[str, bytes]]:
    """(side, frame): a client asks its router who has the address, two servers answer, a stranger broadcasts."""
    a, b, c, d = (f"02:00:00:00:00:0{i}" for i in range(1, 5))
    return [
        ("client", bytes(Ether(src=a, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.9.0.2"))),
        ("server", bytes(Ether(src=b, dst=a) / ARP(op=2, psrc="10.9.0.2", pdst="10.0.0.1"))),
        ("client", bytes(Ether(src=a, dst=b) / IP(src="10.0.0.1", dst="10.9.0.2") / UDP())),
        ("server", bytes(Ether(src=b, dst=a) / Dot1Q(vlan=5) / IP(src="10.9.0.2", dst="10.0.0.1") / UDP())),
        ("server", bytes(Ether(src=b, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.9.0.2", pdst="10.0.0.7"))),
        ("client", bytes(Ether(src=c, dst=b) / IP(src="10.0.0.3", dst="10.9.0.2") / TCP())),
        ("client", b"short"),
        ("client", bytes(Ether(src=a, dst=d, type=0x88B5) / b"who is d")),
        ("server", bytes(Ether(src=d, dst=a, type=0x88B5) / b"d is a server, it was spoken to first")),
    ]


@EITHER
@pytest.mark.parametrize("clients", [[], ["10.0.0.0/24"], ["10.0.0.1", "10.0.0.3/32", "2001:db8::/32"]])
def test_split_gives_each_side_its_frames_on_one_time_line(tmp_path: Path, memory: int, clients: list[str]) -> None:
    frames = conversation()
    path = tmp_path / "two"
    path.write_bytes(pcap([(i * 1000, data) for i, (_, data) in enumerate(frames)]))
    wires = split(Trace.load(path, memory), clients=clients, speed="x1", loop=2)
    ledger = Ledger(*wires)
    for wire, side in zip(wires, ("client", "server"), strict=True):
        with wire:
            wire.start(500)
            found = receive_all(wire.native)
            numbers = [i for i, (whose, _) in enumerate(frames) if whose == side]
            assert ids(found) == numbers + [i + 9 for i in numbers]
            assert [f.ts for f in found] == [500 + 1000 * f.id for f in found]
            assert [f.data for f in found] == [frames[i % 9][1] for i in ids(found)]
    assert ledger.offered == 18 and ledger.drops == {}


@EITHER
def test_split_counts_a_source_drop_once(tmp_path: Path, memory: int) -> None:
    (tmp_path / "mixed").write_bytes(mixed())
    first, second = split(Trace.load(tmp_path / "mixed", memory), speed="max", exclude=Libpcap("len < 10"), limit=5)
    ledger = Ledger(first, second)
    assert (ids(receive_all(first.native)), ids(receive_all(second.native))) == ([0, 3, 6], [1, 7])
    assert ledger.drops == {"source.excluded": 1, "source.link_type": 1, "source.oversize": 1}
    first.close()
    second.close()


@EITHER
def test_a_side_without_frames_ends_a_loop_for_ever(tmp_path: Path, memory: int) -> None:
    (tmp_path / "one").write_bytes(pcap(timed(5)))
    for speed in ("max", "x1"):
        first, second = split(Trace.load(tmp_path / "one", memory), speed=speed, loop=0)
        assert receive_all(second.native) == []
        assert len(receive_all(first.native, most=50)) >= 50
        first.close()
        second.close()


def test_the_side_that_is_asked_second_begins_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "two").write_bytes(pcap([(i * 1000, data) for i, (_, data) in enumerate(conversation())]))
    first, second = split(tmp_path / "two")
    frames = ffi.new("struct exo_frame[]", 16)
    assert first.native.receive(first.native, frames, 16, 5000) == 1
    assert second.native.receive(second.native, frames, 16, 9000) == 3
    assert [frames[i].ts for i in range(3)] == [6000, 8000, 9000]
    first.close()
    assert second.native.receive(second.native, frames, 16, 99_000) == 1
    second.close()


def test_split_with_more_stations_than_it_remembers(tmp_path: Path) -> None:
    frames = [
        (i, i.to_bytes(6, "big")[::-1] + (i + 1 << 20).to_bytes(6, "big")[::-1] + b"\x88\xb5")
        for i in range(0, 80_000, 2)
    ]
    frames = [(i, bytes([data[0] & 0xFE]) + data[1:]) for i, data in frames]
    (tmp_path / "many").write_bytes(pcap(frames))
    first, second = split(tmp_path / "many", speed="max")
    assert len(receive_all(first.native)) + len(receive_all(second.native)) == 40_000
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loop": -1}, "loop -1: must be at least 0"),
        ({"limit": -5}, "limit -5"),
        ({"duration": -1}, "duration -1"),
        ({"max_gap": 0}, "max_gap 0: must be at least 1"),
        ({"speed": "warp"}, 'speed "warp"'),
    ],
)
def test_bad_options(make: Make, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make(pcap(timed(1)), **options)


def test_bad_sides(make: Make) -> None:
    path = make(pcap(timed(1))).trace.path
    with pytest.raises(UsageError, match="17 client prefixes: 16 are the most"):
        split(path, clients=["10.0.0.0/8"] * 17)
    with pytest.raises(UsageError, match='network "ten"'):
        split(path, clients=["ten"])


def test_the_c_side_refuses_what_python_would_not_send(make: Make) -> None:
    trace = make(pcap(timed(1))).trace
    error = ffi.new("int32_t *")
    bad: list[dict[str, int]] = [
        {"mode": 9},
        {"mode": 0, "multiply": 1, "divide": 0},
        {"mode": 0, "multiply": 10**16, "divide": 1},
        {"mode": 3, "include": 1},
        {"mode": 3, "split": 7},
        {"mode": 3, "side": 2},
        {"mode": 3, "prefixes": 17},
        {"mode": 3, "rewrite.vlan": 4096},
        {"mode": 3, "rewrite.flags": 64},
        {"mode": 3, "rewrite.prefix_maps": 17},
    ]
    for fields in bad:
        config = ffi.new("struct exo_replay_config *", {"limit": 1, "loops": 1})
        for name, value in fields.items():
            owner, _, leaf = name.rpartition(".")
            setattr(getattr(config, owner) if owner else config, leaf, value)
        assert lib.exo_replay_new(trace.native, config, error) == ffi.NULL, fields
        assert error[0] == lib.EXO_E_INVALID


def test_a_tag_that_would_make_a_giant_is_a_fate(make: Make) -> None:
    wire = make(pcap([(0, bytes(65_533)), (1, bytes(65_531))], snaplen=70_000), speed="max", rewrite=Rewrite(vlan=5))
    ledger = Ledger(wire)
    assert [len(f.data) for f in receive_all(wire.native)] == [65_535]
    assert ledger.fates == [(0, "source.oversize")]
