# SPDX-License-Identifier: MIT
"""What a LibOS can try, each by itself: a checksum that rewrites the frame, chains without an end, floods, groups."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from exonet.abi import check, lib
from exonet.clock import monotonic_ns
from tests.fakes.frames import HERE, HOST, PEER, THERE, frag, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire
from tests.flow.test_receive_path import conserved

MAC = bytes.fromhex(HERE.replace(":", ""))
LOCAL = {"mac": MAC, "family": 4, "address": bytes([10, 0, 0, 1]) + bytes(12), "prefix": 32}
ANY = {"mac": MAC, "any": 1}
SECOND_NS = 1_000_000_000
OUT = bytes(Ether(src=HERE, dst=THERE) / IP(src=HOST, dst=PEER) / UDP(sport=4000, dport=9) / Raw(bytes(8)))


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.close()


def live(benches: list[Bench], wire: ScriptWire, **nic: Any) -> Bench:
    bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    benches.append(bench)
    bench.attach(wire, **nic)
    return bench


def run(bench: Bench, ns: int) -> int:
    reasons: int = lib.exo_machine_run(bench.native, lib.exo_now(bench.native) + ns)
    return reasons


def ones_complement(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("field", [6, 26, 34], ids=["source mac", "source address", "source port"])
def test_r10_a_checksum_that_rewrites_what_was_checked_is_spoofed(benches: list[Bench], field: int) -> None:
    """csum_start + csum_offset may point anywhere: the frame is checked as it leaves."""
    bench = Bench()
    benches.append(bench)
    bench.attach(ScriptWire())
    libos = FakeLibOS(bench)
    libos.locals({**LOCAL, "protocol": 17, "port_low": 4000, "port_high": 4000})
    frame = bytearray(OUT)
    start = len(frame) - 4  # what is summed is the attacker's own, so the result is, too
    frame[start:] = (0xBEEF).to_bytes(2, "big") + bytes(2)
    libos.transmit(bytes(frame), flags=lib.EXO_F_NEEDS_CSUM, csum_start=start, csum_offset=(field - start) & 0xFFFF)
    bench.run()
    assert bench.drops() in ({"transmit.bad_descriptor": 1}, {"transmit.spoofed": 1})
    frame[2:4] = (0x4110 ^ 0xFFFF).to_bytes(2, "big")  # the sum from byte 0 on is chosen by bytes of the destination
    libos.transmit(bytes(frame), flags=lib.EXO_F_NEEDS_CSUM, csum_start=0, csum_offset=field)
    bench.run()
    assert not bench.wires[0].sent and bench.drops().get("transmit.spoofed")  # type: ignore[attr-defined]


@pytest.mark.parametrize("entries", [8, 16, 64])
def test_a_chain_without_an_end_is_refused_and_costs_nobody_else(benches: list[Bench], entries: int) -> None:
    """A ring full of EXO_F_MORE can never get an end."""
    bench = Bench()
    benches.append(bench)
    bench.attach(ScriptWire())
    libos, other = FakeLibOS(bench, entries=entries), FakeLibOS(bench)
    for each in (libos, other):
        each.locals(ANY)
    for i in range(entries):
        libos.describe(page=libos.first, offset=0, length=64, flags=lib.EXO_F_MORE, cookie=i)
    other.transmit(OUT)
    assert bench.run() == lib.EXO_RUN_IDLE
    assert bench.drops()["transmit.bad_descriptor"] >= 1 and bench.drops()["sent"] == 1
    assert len(libos.completions()) >= min(entries, 18)


@pytest.mark.parametrize("attack", ["half a chain", "completions never taken"])
def test_invariant_5_what_cannot_leave_does_not_keep_the_kernel_awake(benches: list[Bench], attack: str) -> None:
    bench = live(benches, ScriptWire(ends=False))
    libos = FakeLibOS(bench)
    libos.locals(ANY)
    if attack == "half a chain":
        libos.describe(page=libos.first, offset=0, length=64, flags=lib.EXO_F_MORE)
    else:
        for _ in range(2):
            for _ in range(libos.entries):
                libos.transmit(OUT)
            run(bench, SECOND_NS // 50)
    before = lib.exo_machine_sleeps(bench.native)
    assert run(bench, SECOND_NS // 5) & lib.EXO_RUN_DEADLINE
    slept = lib.exo_machine_sleeps(bench.native) - before
    assert 1 <= slept < 200, "it polls at a low rate, and does not spin"
    if attack == "half a chain":
        libos.transmit(OUT)
        run(bench, SECOND_NS // 50)
        assert bench.drops() == {"sent": 1} or "transmit.bad_descriptor" not in bench.drops()
    else:
        sent = bench.drops()["sent"]
        libos.completions()
        run(bench, SECOND_NS // 20)
        assert bench.drops()["sent"] > sent


@pytest.mark.parametrize("attack", ["hangs", "half a chain", "bounces"])
def test_invariant_5_a_run_ends_whatever_libos_does(benches: list[Bench], attack: str) -> None:
    """Every wire has ended: what LibOSes do or leave undone among themselves holds the end up for a bounded time."""
    bench = live(benches, ScriptWire([(0, udp())]))
    libos, peer = FakeLibOS(bench), FakeLibOS(bench)
    libos.bind("udp dst port 53")
    peer.bind("udp dst port 7")
    lib.exo_nic_filter_add(lib.exo_machine_nic(bench.native, 0), MAC)
    for each in (libos, peer):
        each.locals(ANY)
    if attack == "half a chain":
        libos.describe(page=libos.first, offset=0, length=64, flags=lib.EXO_F_MORE)
    end = monotonic_ns() + 8 * SECOND_NS
    reasons = 0
    while monotonic_ns() < end:
        reasons = lib.exo_machine_run(
            bench.native, (1 << 63) - 1 if attack == "hangs" else monotonic_ns() + SECOND_NS // 100
        )
        if reasons & lib.EXO_RUN_IDLE:
            break
        lib.exo_machine_ready(bench.native)
        for each, port in ((libos, 7), (peer, 53)):
            if attack != "hangs":
                for _ in each.receive():
                    if attack == "bounces":
                        each.transmit(udp(dport=port))
                each.completions()
    assert reasons & lib.EXO_RUN_IDLE
    conserved(bench)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_full_wake_socket_does_not_block_the_kernel(benches: list[Bench], kind: int) -> None:
    """Its other end reads nothing, and it is in the mode that blocks: the LibOS shares it and may have made it so."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with mine, theirs:
        with contextlib.suppress(BlockingIOError):
            while True:
                mine.send(b"x" * 100, socket.MSG_DONTWAIT)
        assert mine.getblocking()
        wire = ScriptWire(ends=False)
        bench = live(benches, wire)
        libos = FakeLibOS(bench)
        libos.env.wake_fd = mine.fileno()
        libos.bind("udp")
        libos.locals(ANY)
        for _ in range(20):
            libos.area().need_wakeup.value = 1
            libos.transmit(OUT)
            wire.add(0, udp())
            begin = monotonic_ns()
            run(bench, SECOND_NS // 1000)
            assert monotonic_ns() - begin < SECOND_NS
            libos.receive()
        run(bench, SECOND_NS // 1000)
        assert libos.env.wakeups >= 20, "it was tried"
        assert bench.drops() == {"delivered": 20, "sent": 20}


def test_virtual_time_passes_and_a_run_ends_when_a_step_does_nothing_for_ever(benches: list[Bench]) -> None:
    bench = Bench()
    benches.append(bench)
    bench.attach(ScriptWire([(0, udp())]))
    libos = FakeLibOS(bench)
    libos.bind("udp")
    steps = 0

    def step(env: int) -> bool:
        nonlocal steps
        steps += 1
        assert steps < 5_000_000
        libos.receive()
        return True

    assert bench.run(step=step) == lib.EXO_RUN_IDLE
    assert bench.drops() == {"delivered": 1}


@pytest.mark.parametrize("mode", ["DROP", "BACKPRESSURE"])
def test_a_libos_that_floods_its_neighbour_takes_nothing_from_the_wire(benches: list[Bench], mode: str) -> None:
    """Local switching shares the NIC with the wire; where there is not room for both, the wire goes first."""
    frames, at_once = 2000, 4
    wire = ScriptWire(ends=False)
    bench = live(benches, wire, mode=getattr(lib, f"EXO_NIC_{mode}"), descriptors=256)
    good, victim, flooder = (FakeLibOS(bench, entries=256, pages=pages) for pages in (129, 32, 32))
    for libos, port in ((good, 53), (victim, 7), (flooder, 9)):
        libos.bind(f"udp dst port {port}")
        libos.locals(ANY)
    lib.exo_nic_filter_add(lib.exo_machine_nic(bench.native, 0), MAC)
    flooder.memory(flooder.first + flooder.pages - 1, 0, 80)[:] = udp(dport=7, payload=bytes(38))
    got = 0
    for _ in range(frames // at_once):  # by turns and not by time: nothing is late, however busy the machine is
        for _ in range(at_once):
            wire.add(monotonic_ns(), udp(dport=53))
        for _ in range(64):
            flooder.describe(page=flooder.first + flooder.pages - 1, offset=0, length=80)
        flooder.completions()
        lib.exo_machine_run(bench.native, monotonic_ns() + 100_000)
        lib.exo_machine_ready(bench.native)
        got += len(good.receive())
        victim.receive()
    for _ in range(400):
        lib.exo_machine_run(bench.native, monotonic_ns() + 100_000)
        got += len(good.receive())
        victim.receive()
    assert lib.exo_nic_counters(lib.exo_machine_nic(bench.native, 0)).switched > frames, "it did flood"
    assert (wire.at, got) == (frames, frames), (bench.drops(), good.env.drop[lib.EXO_R_RING_NO_BUFFER])


def test_groups_that_were_left_can_be_joined_by_others(benches: list[Bench]) -> None:
    """The table of groups is for everybody: one LibOS joins and leaves more of them than it has rows."""
    bench = Bench()
    benches.append(bench)
    bench.attach(ScriptWire())
    hostile, other = FakeLibOS(bench), FakeLibOS(bench)
    for i in range(2 * lib.EXO_MAX_GROUPS):
        mac = b"\x33\x33" + i.to_bytes(4, "big")
        hostile.subscribe(mac)
        check(lib.exo_machine_unsubscribe(bench.native, hostile.number, 0, mac), "leave")
    other.subscribe(b"\x01\x00\x5e\x00\x00\xfb")
    hostile.subscribe(b"\x01\x00\x5e\x00\x00\xfb")
    hostile.subscribe()
    lib.exo_machine_env_kill(bench.native, hostile.number)
    assert lib.exo_machine_unsubscribe(bench.native, hostile.number, 0, b"\x01\x00\x5e\x00\x00\xfb") < 0
    check(lib.exo_machine_unsubscribe(bench.native, other.number, 0, b"\x01\x00\x5e\x00\x00\xfb"), "leave")


def test_r05_a_binding_that_goes_takes_its_fragments_with_it(benches: list[Bench]) -> None:
    """Its number may be another's by then: nothing that follows the first fragment reaches the new owner."""
    bench = Bench()
    benches.append(bench)
    first, later = frag(0), frag(1)
    wire = ScriptWire([(0, first)], ends=False)
    bench.attach(wire)
    libos, other = FakeLibOS(bench), FakeLibOS(bench)
    number = libos.bind("udp dst port 53")
    bench.run(until=1000)
    check(lib.exo_machine_unbind(bench.native, number), "unbind")
    assert other.bind("udp dst port 80") == number
    wire.add(2000, later)
    bench.run(until=5000)
    lib.exo_machine_env_kill(bench.native, other.number)
    bench.run(until=3 * SECOND_NS)
    assert len(libos.receive()) == 1
    assert bench.drops().get("demux.fragment_lost") == 1
    conserved(bench)


def test_a_frame_of_every_length_cut_anywhere_reaches_somebody_or_is_counted(benches: list[Bench]) -> None:
    """The shortest frames take the rare ways (announcements, what an ARP asks for) without what they do not hold."""
    bench = Bench()
    benches.append(bench)
    heads = [
        udp(),
        bytes.fromhex("ffffffffffff0200000000990806"),
        bytes.fromhex("333300000001020000000099" + "86dd60000000001c3a"),
    ]
    data = [head.ljust(64, b"\xff")[:n] for head in heads for n in range(65)]
    wire = ScriptWire([(i * 1000, frame) for i, frame in enumerate(data)])
    bench.attach(wire)
    libos = FakeLibOS(bench, entries=256, pages=128)
    libos.bind("ip")
    libos.subscribe()
    bench.run()
    assert all(len(frame.data) >= 60 for frame in libos.receive())
    conserved(bench)


def test_a_run_does_not_end_while_a_libos_still_takes_frames(benches: list[Bench]) -> None:
    """What is consumed during a pass lies after the time at which the pass began."""
    for _ in range(20):
        bench = live(benches, ScriptWire([(0, udp())] * 30))
        libos = FakeLibOS(bench)
        libos.bind("udp")
        got = 0
        while not lib.exo_machine_run(bench.native, monotonic_ns() + 1_000_000) & lib.EXO_RUN_IDLE:
            lib.exo_machine_ready(bench.native)
            got += len(libos.receive(most=7))
        assert got == 30
