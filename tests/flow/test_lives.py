# SPDX-License-Identifier: MIT
"""Environments that come and go: more lives than there are places, and nothing of a dead one in the next."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from exonet.abi import ffi, lib
from exonet.clock import Clock
from exonet.errors import DeniedError, ExhaustedError, LibOSError
from exonet.gate.client import InlineGate
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Resource, Right, check
from exonet.kernel.environment import Mode
from exonet.kernel.inline import InlineKernel
from exonet.kernel.localside import mac_bytes
from tests.fakes.frames import arp_request, frag, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

PLACES = lib.EXO_MAX_ENVS
MAC = "02:00:00:00:00:01"
US = 1000


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(pages=2048)
    yield made
    made.close()


def script(*frames: bytes) -> ScriptWire:
    """A frame each millisecond."""
    return ScriptWire([((k + 1) * 1000 * US, frame) for k, frame in enumerate(frames)])


def life(bench: Bench) -> FakeLibOS:
    return FakeLibOS(bench, entries=8, pages=4)


def kill(bench: Bench, libos: FakeLibOS) -> None:
    assert lib.exo_machine_env_kill(bench.native, libos.number) == 0


def next_life(bench: Bench, number: int) -> FakeLibOS:
    """Lives until the place of environment `number` is taken again."""
    while (libos := life(bench)).number % PLACES != number:
        kill(bench, libos)
    return libos


def test_places_are_used_again_and_numbers_never(bench: Bench) -> None:
    numbers = []
    for _ in range(3 * PLACES):
        libos = life(bench)
        numbers.append(libos.number)
        kill(bench, libos)
    assert numbers[: PLACES - 1] == list(range(1, PLACES))
    assert len(set(numbers)) == 3 * PLACES and all(number % PLACES for number in numbers)
    assert lib.exo_pages_free_count(lib.exo_machine_pages(bench.native)) == 2048
    assert lib.exo_machine_env_at(bench.native, numbers[0]) == ffi.NULL
    assert lib.exo_machine_env_at(bench.native, numbers[-1]).state == lib.EXO_ENV_DEAD


def test_only_the_living_fill_the_machine(bench: Bench) -> None:
    living = [life(bench) for _ in range(PLACES - 1)]
    layout = ffi.new("struct exo_layout *", [8, 8, 8, 8])
    assert lib.exo_machine_env(bench.native, layout, -1) == lib.EXO_E_FULL
    kill(bench, living[99])
    assert lib.exo_machine_env(bench.native, layout, -1) == living[99].number + PLACES
    assert lib.exo_machine_env(bench.native, layout, -1) == lib.EXO_E_FULL


def test_invariant_2_what_a_dead_environment_had_its_successor_has_not(bench: Bench) -> None:
    """Binding, group, neighbour, fragments of a datagram: the first two frames are the first life's, no more after."""
    first, *rest = (frag(index) for index in range(3))
    bench.attach(script(udp(dport=53), first, udp(dport=53), *rest, arp_request("10.7.0.2"), udp(dport=80)))
    old = life(bench)
    old.bind("udp")
    old.subscribe()
    address = bytes([10, 7, 0, 2])
    assert lib.exo_machine_neighbour(bench.native, old.number, 0, 4, address) == 0
    old.locals({"any": 1})
    lib.exo_machine_wake_at(bench.native, old.number, 5)
    bench.run(until=2500 * US)
    assert len(old.receive(repost=False)) == 2
    kill(bench, old)
    new = next_life(bench, old.number)
    assert (new.number, new.env.locals, new.env.placed_frames) == (old.number + PLACES, 0, 0)
    new.bind("udp dst port 80")
    machine, mac = bench.native, b"\xff" * 6
    assert lib.exo_machine_subscribe(machine, old.number, 0, mac) == lib.EXO_E_INVALID
    assert lib.exo_machine_unsubscribe(machine, old.number, 0, bytes(6)) == lib.EXO_E_NOT_FOUND
    assert lib.exo_machine_neighbour(machine, old.number, 0, 4, address) == lib.EXO_E_INVALID
    assert lib.exo_machine_locals(machine, old.number, ffi.new("struct exo_local[1]"), 1) == lib.EXO_E_INVALID
    assert lib.exo_machine_binding(machine, old.number, 0, 0) == lib.EXO_E_INVALID
    assert lib.exo_machine_env_kill(machine, old.number) == lib.EXO_E_NOT_FOUND
    lib.exo_machine_wake_at(machine, old.number, 5)
    assert bench.run() == lib.EXO_RUN_IDLE
    assert [frame.data for frame in new.receive()] == [udp(dport=80)]
    lib.exo_machine_stepped(machine, new.number, 0)
    drops = bench.drops()
    assert drops.pop("delivered") == 3 and sum(drops.values()) == 2 + len(rest)


def test_r19_slices_name_environments_that_live(bench: Bench) -> None:
    old = life(bench)
    kill(bench, old)
    slices = ffi.new("struct exo_slice[]", [(old.number, 100)])
    assert lib.exo_cpu_slices(bench.native, slices, 1) == lib.EXO_E_INVALID


def test_invariant_8_a_machine_outlives_more_liboses_than_it_has_places(tmp_path: Path) -> None:
    """Each with a station of its own, as `web`; fates and the ledger name the life that had the frame."""
    fates, lives = tmp_path / "fates.parquet", PLACES + 20
    wire = script(*[udp(dport=53)] * lives)
    with Machine(MachineConfig(clock=Clock.VIRTUAL, pages=2048)) as machine:
        machine.attach(wire, NicConfig(mac=MAC, promiscuous=True))
        machine.record_fates(fates)
        descriptors = []
        for turn in range(lives):
            spec = LibOSSpec(f"life{turn}", bindings=("udp dst port 53",), entries=8, receive_buffers=8,
                             transmit_buffers=0, mac=f"02:00:00:01:{turn // 256:02x}:{turn % 256:02x}")  # fmt: skip
            env = machine.spawn(spec)
            machine.run(until_ns=(turn + 1) * 1000 * US + 500 * US)
            if turn in (1, lives - 1):
                gc.collect()
                descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
            station, nic = ffi.new("uint8_t[6]", mac_bytes(spec.mac)), lib.exo_machine_nic(machine.native, 0)
            assert lib.exo_nic_is_local(nic, station)
            machine.environments.end(env, "its turn is over")
            assert not lib.exo_nic_is_local(nic, station)
        assert descriptors[0] == descriptors[1]
        reports = machine.reports()
        ledger = machine.settle()
    assert ledger.consumed == lives and not ledger.dropped
    assert [row["delivered"] for row in reports] == [1] * (PLACES - 1)
    assert reports[-1]["name"] == f"life{lives - 1}"
    assert parquet.read_table(fates)["environment"].to_pylist() == [f"life{turn}" for turn in range(lives)]


def test_r14_a_token_of_a_dead_life_is_refused_to_the_next(tmp_path: Path) -> None:
    with Machine(MachineConfig(clock=Clock.VIRTUAL, pages=256)) as machine:
        machine.attach(script(), NicConfig(mac=MAC))
        environments, authority = machine.environments, machine.environments.authority
        old = environments.open("old", Mode.INLINE)
        token = environments.grant(old, Resource.PAGES, Right.READ | Right.WRITE)
        stale = InlineGate(InlineKernel(machine.dispatcher, old))
        environments.end(old, "over")
        new = environments.open("new", Mode.INLINE)
        while new.number % PLACES != old.number:
            environments.end(new, "over")
            new = environments.open("new", Mode.INLINE)
        assert new.number == old.number + PLACES and authority.held_by(new.number) == []
        for holder in (old.number, new.number):
            with pytest.raises(DeniedError, match="revoked"):
                check(authority, token, holder=holder, resource=Resource.PAGES, right=Right.READ)
        with pytest.raises(LibOSError, match="it has ended"):
            stale.welcome()
        assert environments.pages.extents(new.number) == []


def test_the_256th_living_environment_is_refused() -> None:
    with Machine(MachineConfig(clock=Clock.VIRTUAL, pages=256)) as machine:
        machine.attach(script(), NicConfig(mac=MAC))
        opened = [machine.environments.open(f"e{k}", Mode.INLINE) for k in range(PLACES - 1)]
        with pytest.raises(ExhaustedError):
            machine.environments.open("one too many", Mode.INLINE)
        machine.environments.end(opened[0], "over")
        assert machine.environments.open("again", Mode.INLINE).number == 1 + PLACES
