# SPDX-License-Identifier: MIT
"""Bindings come and go on a live machine, and nobody else's frames notice (issue 3, "Churn").

A steady LibOS has sockets of its own; a churner, whose connected sockets lie in the same tables, binds and unbinds all
the time: shapes come, are compiled, go and come back, tables double and shrink, intervals pile up under one key, and
some binds are refused. EXONET_CHURN (a number) multiplies how much of it there is.
"""

import gc
import json
import os
import struct
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import lib
from exonet.clock import monotonic_ns
from exonet.filters.native import available
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Quota
from exonet.kernel.environment import Environment
from exonet.kernel.running import TURN_S
from exonet.trace import EventLog
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import pcap
from tests.fakes.churner import DONE, KINDS, REGION, done, flow
from tests.fakes.frames import HERE
from tests.fakes.wire import ScriptWire

PATIENCE_NS = 60_000_000_000
LOOK_NS = 20_000_000
TIMES = int(os.environ.get("EXONET_CHURN", "1"))
FLOWS = 12
INTERVALS = {*range(100, 104), *range(105, 109)}
ETHERNET = bytes.fromhex("0200000000010200000000990800")
STEADY = (
    *(flow(number, "10.7.0.1") for number in range(FLOWS)),
    # Wider than those, in the churner's shapes or in shapes of its own.
    "udp and dst host 10.7.0.1 and dst port 53",
    "udp and src host 10.9.0.3 and dst host 10.7.0.2",
    "udp and dst host 10.7.0.4 and dst portrange 100-103",
    "udp and dst host 10.7.0.4 and dst portrange 105-108",
)
QUOTA = Quota(bindings=1 << 18, conjuncts=1 << 18, shapes=128)


def udp(payload: bytes, src: str, dst: str, sport: int, dport: int) -> bytes:
    """Quicker than scapy; without checksums."""
    addresses = ip_address(src).packed + ip_address(dst).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0) + addresses
    return ETHERNET + header + struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def frames() -> list[tuple[bool, bytes]]:
    """(the steady one's?, frame): those of every steady binding, and beside each the churner's, which differ little."""
    made = []
    for number in range(400):
        payload = number.to_bytes(4, "big") * 8
        # Of its sockets, and of strangers, whom its listener has.
        peer = f"10.1.{number >> 8}.{number & 255}"
        made.append((True, udp(payload, peer, "10.7.0.1", 1024 + number, 53)))
        made.append((False, udp(payload, peer, "10.7.1.1", 1024 + number, 53)))
        # One address of eight is the steady one's peer.
        own = number % 8 == 3
        made.append((own, udp(payload, f"10.9.0.{number % 8}", f"10.7.{0 if own else 1}.2", 4000, number)))
        # Two intervals of ports, and what lies around and between.
        own = number in INTERVALS
        made.append((own, udp(payload, peer, f"10.7.{0 if own else 1}.4", 4000, number)))
        made.append((False, udp(bytes([number & 1]) * 40, peer, "10.7.1.3", 4000, 1000 + number)))
    return made


@dataclass(frozen=True)
class Share:
    """What one of the two must have had after so many frames of the looped trace."""

    count: int
    digest: int

    @classmethod
    def of(cls, parts: list[tuple[bool, bytes]], offered: int, steady: bool) -> "Share":
        loops, rest = divmod(offered, len(parts))
        digests = [lib.exo_digest(frame, len(frame)) if mine is steady else None for mine, frame in parts]
        whole, some = ([each for each in chosen if each is not None] for chosen in (digests, digests[:rest]))
        return cls(loops * len(whole) + len(some), (loops * sum(whole) + sum(some)) % 2**64)

    @classmethod
    def had(cls, report: dict[str, Any]) -> "Share":
        assert report["alive"] and report["lies"] == 0, report
        return cls(report["delivered"], report["digest"])


def finish(machine: Machine, churner: Environment) -> None:
    """Runs until the churner says that it is done, and what it has brought is compiled."""
    end = monotonic_ns() + PATIENCE_NS
    while not done(machine.environments.bindings.of(churner.number)):
        assert churner.alive, churner.end_reason
        assert monotonic_ns() < end, f"{len(machine.environments.bindings.of(churner.number))} bindings after 60 s"
        assert machine.run(machine.now() + LOOK_NS)
    while machine.compiler is not None and machine.compiler.pending:
        assert monotonic_ns() < end and machine.run(machine.now() + LOOK_NS)


def counted(log: Path, churner: Environment) -> dict[str, int]:
    """Its binds, unbinds and refusals; compilations, and the distinct shapes among them."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    its = [row["event"] for row in rows if row.get("env") == churner.number]
    compiled = [row["shape"] for row in rows if row["event"] == "shape_compiled" and not row["error"]]
    names = {"binding_made": "made", "binding_removed": "removed", "refused": "refused"}
    return {names[event]: its.count(event) for event in names} | {
        "compiled": len(compiled),
        "shapes": len(set(compiled)),
    }


@pytest.mark.parametrize("process", [True, False], ids=["process", "inline"])
@pytest.mark.parametrize(
    ("speed", "mode"), [("max", NicMode.BACKPRESSURE), ("pps=20000", NicMode.DROP)], ids=["full rate", "drop"]
)
@pytest.mark.alone
def test_churn_costs_no_other_binding_a_frame(
    tmp_path: Path, process: bool, speed: str, mode: NicMode, preload: None
) -> None:
    if process and os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    parts = frames()
    trace, log = tmp_path / "trace.pcap", tmp_path / "events"
    trace.write_bytes(pcap([(place * 1000, frame) for place, (_, frame) in enumerate(parts)]))
    rounds, live = 3, 120 * TIMES
    options = {"rounds": rounds, "live": live, "turn": 4}
    common = {"process": process, "local": "none", "receive_buffers": 1000}
    with (
        PcapWire(trace, speed=speed, loop=0) as wire,
        EventLog(log) as events,
        Machine(MachineConfig(), events) as machine,
    ):
        machine.attach(wire, NicConfig(mac=HERE, promiscuous=True, mode=mode))
        machine.spawn(LibOSSpec("steady", bindings=STEADY, quota=QUOTA, **common))
        before = lib.exo_demux_bytes(lib.exo_machine_demux(machine.native, 0, 0))
        churner = machine.spawn(
            LibOSSpec(
                "churner",
                libos="tests.fakes.churner:Churner",
                bindings=(REGION,),
                options=options,
                quota=QUOTA,
                **common,
            )
        )
        finish(machine, churner)
        ledger = machine.settle()
        mine, its = machine.reports()
        assert ledger.offered > len(parts) // 2 and mine["dropped"] == {}, ledger.table()
        assert Share.had(mine) == Share.of(parts, ledger.offered, True)
        had, due = Share.had(its), Share.of(parts, ledger.offered, False)
        if its["dropped"] and mode is NicMode.DROP:  # its own loss: who waits for answers posts no buffers
            assert had.count + its["dropped"]["ring.no_buffer"] == due.count
            assert ledger.dropped == its["dropped"], ledger.table()
        else:
            assert had == due and ledger.dropped == {}, ledger.table()
        # Its listener and DONE are left, and of the tables what the most at once needed at most.
        assert [binding.text for binding in machine.environments.bindings.of(churner.number)] == [REGION, DONE]
        assert len(machine.environments.bindings) == len(STEADY) + 2
        demux = lib.exo_machine_demux(machine.native, 0, 0)
        assert lib.exo_demux_conjuncts(demux) == len(STEADY) + 2
        assert lib.exo_demux_bytes(demux) - before < 200 * live
        count = counted(log, churner)
    bound = rounds * live
    # DONE is inside the listener, whose conjunct for it is neither bound nor unbound by the churner.
    assert (count["made"], count["refused"]) == (bound + 2, rounds), count
    assert bound <= count["removed"] <= bound + 2
    if available():
        assert count["compiled"] == count["shapes"] >= len(KINDS), count


def test_neither_a_full_collection_nor_a_thread_holds_up_a_running_machine() -> None:
    """Python's collection would walk the objects of every binding, in the middle of a bind. For Python's lock an inline
    LibOS's step would wait 5 ms: at half of full load that lost a frame in a thousand while shapes were compiled.
    """
    before, turn, seen = gc.get_threshold(), sys.getswitchinterval(), []
    with ScriptWire(ends=False) as wire, Machine(MachineConfig(pages=64)) as machine:
        machine.attach(wire, NicConfig())
        machine.run(machine.now() + 250_000_000, lambda _: seen.append((*gc.get_threshold(), sys.getswitchinterval())))
    assert seen and all(each[:2] == before[:2] and each[2] > 1 << 30 for each in seen)
    assert all(each[3] == pytest.approx(TURN_S) for each in seen)
    assert gc.get_threshold() == before and sys.getswitchinterval() == turn > TURN_S
