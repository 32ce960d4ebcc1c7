# SPDX-License-Identifier: MIT
"""R20: every reason of the ledger is met on a real machine, alone, and the whole ledger balances each time.

A scenario per reason; a reason without one fails, so does a scenario without a reason. What cannot happen is no
reason.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from exonet.abi import lib, reason_name
from exonet.hardware.nic import Nic
from exonet.ledger import Ledger, count_tap
from exonet.wire.capture import Trace
from exonet.wire.device import DeviceCounters
from exonet.wire.impair import Impair, Impairments
from exonet.wire.link import Wire
from exonet.wire.pcap import PcapWire
from exonet.wire.tap import Snapshot, balance
from libos_stacks.environment import Environment
from tests.fakes.captures import BASE, Ng
from tests.fakes.frames import BROADCAST, HERE, THERE, arp_request, ether, frag, udp
from tests.fakes.gate import CONFIG
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.machinegate import MachineGate
from tests.fakes.replays import Libpcap
from tests.fakes.wire import ScriptWire

REASONS = [reason_name(number) for number in range(lib.EXO_R_SOURCE_FIRST, lib.EXO_REASONS)]
MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:99"
IP4, PEER4, IP6, PEER6 = "10.7.0.2", "10.7.0.1", "fd07::2", "fd07::1"
OUT = bytes.fromhex((THERE + HERE).replace(":", "")) + udp()[12:]
LOCAL = {"mac": bytes.fromhex(HERE.replace(":", "")), "any": 1}
SECOND = 1_000_000_000
GOLDEN = Path(__file__).with_name("golden_reasons.json")
#: How often a read fails in a millisecond is not the machine's to say.
TIMED = {"tap.read_error"}


class Case:
    """One machine, what a scenario puts on it, and its whole ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bench = Bench()

    # Machines

    def attach(self, *frames: bytes, **nic: Any) -> ScriptWire:
        """A wire that gives the frames at once."""
        wire = ScriptWire([(0, frame) for frame in frames])
        self.bench.attach(wire, **nic)
        return wire

    def receives(self, *frames: bytes, **nic: Any) -> None:
        """A LibOS that is bound to UDP consumes what comes."""
        self.attach(*frames, **nic)
        self.consumes()

    def consumes(self, bind: str = "udp", verdict: int = 0) -> None:
        libos = FakeLibOS(self.bench)
        libos.bind(bind)
        self.bench.run(step=lambda _: bool(libos.receive(verdict=verdict)))

    def replays(self, capture: bytes, **options: Any) -> None:
        path = self.directory / "trace"
        path.write_bytes(capture)
        self.bench.attach(PcapWire(Trace.load(path), **options))
        self.consumes()

    def impaired(self, frames: int, want: Impairments) -> None:
        self.bench.attach(Impair(ScriptWire([(0, udp())] * frames), want, limit=8))
        self.consumes()

    def sends(self, *, locals: tuple[dict[str, Any], ...] = (LOCAL,), room: int = 99, **nic: Any) -> FakeLibOS:
        """A LibOS that is about to send one frame."""
        self.attach(**nic).room = room
        libos = FakeLibOS(self.bench)
        libos.locals(*locals)
        libos.transmit(OUT)
        return libos

    def stack(
        self, *packets: Packet | bytes, gap: int = 1_000_000, read: bool = True, flags: int = 0, cut: int = 0
    ) -> None:
        """The stack engine of a LibOS is given the packets, `gap` ns apart. read: its socket on port 7 is read."""
        wire = ScriptWire([(k * gap, bytes(packet)) for k, packet in enumerate(packets)])
        wire.flags, wire.cut = flags, cut
        self.bench.attach(wire)
        bindings = [f"ether dst {MAC} or ether multicast"]
        config = CONFIG | {"addresses": [f"{IP4}/24", f"{IP6}/64"], "bindings": bindings}
        with Environment(MachineGate(self.bench, config)) as environment:
            socket = environment.udp(7)

            def step(_: int) -> bool:
                frames = environment.pump()
                taken = len(list(socket.datagrams())) if read else 0
                environment.flush()
                return bool(frames or taken)

            self.bench.run(step=step)

    def tap(self, reads: int, handed: int, dropped: int) -> None:
        """A machine that has read so many frames of a device that claims so many, counted as a run on a TAP does."""
        self.receives(*[udp()] * reads)
        none = DeviceCounters(**dict.fromkeys(DeviceCounters.__dataclass_fields__, 0))
        before = Snapshot(none, 0, 0)
        after = Snapshot(replace(none, tx_packets=handed, tx_dropped=dropped), reads, 0)
        found = balance(before, after)
        count_tap(self.bench.ledger, found.offered, found.read, found.read_errors, found.dropped, found.unaccounted)

    # The end

    def ledger(self) -> Ledger:
        native, ports = self.bench.native, range(len(self.bench.wires))
        switched = sum(Nic(lib.exo_machine_nic(native, port)).counters.switched for port in ports)
        return Ledger.read(self.bench.ledger, *self.bench.in_flight_by_origin(), switched=switched)


def to_stack(**fields: Any) -> Packet:
    return Ether(src=PEER_MAC, dst=MAC) / IP(src=PEER4, dst=IP4, **fields)


def hurt(packet: Packet, at: int) -> bytes:
    """With one bit flipped."""
    data = bytearray(bytes(packet))
    data[at] ^= 1
    return bytes(data)


def ng(*packets: bytes, link_type: int = 1) -> bytes:
    made = Ng().section().interface(link_type).interface(1)
    for k, data in enumerate(packets):
        made.packet(BASE * 10**6 + k, data, interface=int(k > 0))
    return made.out


def tap_read_error(case: Case) -> None:
    """A descriptor whose reads fail, and not because the device is gone."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    case.bench.close()
    case.bench = Bench(clock=lib.EXO_CLOCK_MONOTONIC)
    case.bench.attach(Wire(lib.exo_tap_new(fd, 1500), "unreadable"))
    lib.exo_machine_run(case.bench.native, lib.exo_now(case.bench.native) + 1_000_000)


def nic_rx_fifo(case: Case) -> None:
    wire = case.attach(udp())
    Nic(lib.exo_machine_nic(case.bench.native, 0)).write("RCTL", 0)
    case.consumes()
    assert wire.at == 1


def nic_rx_crc(case: Case) -> None:
    """A wire that has looked at the frame check sequence says so."""
    case.attach(udp()).flags = lib.EXO_F_BAD_CRC
    case.consumes()


def demux_no_neighbour(case: Case) -> None:
    case.attach(arp_request("10.0.0.9"))
    libos = FakeLibOS(case.bench)
    libos.bind("udp")
    libos.subscribe()
    case.bench.run()


def ring_no_buffer(case: Case) -> None:
    case.attach(udp())
    FakeLibOS(case.bench, post=False).bind("udp")
    case.bench.run()


def ring_bad_buffer(case: Case) -> None:
    case.attach(udp())
    libos = FakeLibOS(case.bench, post=False)
    libos.bind("udp")
    libos.fill(1 << 31, 0, 2048)
    case.bench.run()


def ring_full(case: Case) -> None:
    """It posts buffers for more frames than it takes: eight wait in the ring, the ninth finds no place."""
    wire = case.attach(*[udp()] * 8)
    wire.add(SECOND, udp())
    libos = FakeLibOS(case.bench, entries=8)
    libos.bind("udp")
    case.bench.run(until=SECOND // 2)
    libos.fill(libos.first, 0, 2048)
    case.bench.run()
    assert len(libos.receive(repost=False)) == 8
    lib.exo_machine_stepped(case.bench.native, libos.number, 0)


def ring_corrupt(case: Case) -> None:
    case.attach(udp())
    libos = FakeLibOS(case.bench, post=False)
    libos.bind("udp")
    libos.area().fill_put.value = 0x80000000
    case.bench.run()


def ring_env_dead(case: Case) -> None:
    case.attach(udp())
    libos = FakeLibOS(case.bench)
    libos.bind("udp")
    case.bench.run()
    assert lib.exo_machine_env_kill(case.bench.native, libos.number) == 0


def says(verdict: int) -> Callable[[Case], None]:
    """A LibOS consumes a frame and says this of it."""

    def scenario(case: Case) -> None:
        case.attach(udp())
        case.consumes(verdict=verdict)

    return scenario


def transmit_bad_descriptor(case: Case) -> None:
    case.attach()
    libos = FakeLibOS(case.bench)
    libos.locals(LOCAL)
    libos.describe(page=1 << 31, offset=0, length=60)
    case.bench.run()


def sends(**how: Any) -> Callable[[Case], None]:
    def scenario(case: Case) -> None:
        case.sends(**how)
        case.bench.run()

    return scenario


def receives(*frames: bytes, **nic: Any) -> Callable[[Case], None]:
    return lambda case: case.receives(*frames, **nic)


def stack(*packets: Packet | bytes, **how: Any) -> Callable[[Case], None]:
    return lambda case: case.stack(*packets, **how)


OTHER = {"mac": LOCAL["mac"], "family": 4, "address": bytes([10, 7, 7, 7]) + bytes(12), "prefix": 32}
TINY = [to_stack(id=5, proto=17, flags="MF", frag=k) / Raw(bytes(8)) for k in range(1025)]
#: A scenario and how many frames it loses for its reason; None: at least one.
SCENARIOS: dict[str, tuple[Callable[[Case], None], int | None]] = {
    "source.excluded": (lambda case: case.replays(ng(udp(), udp(sport=7)), exclude=Libpcap("udp src port 7")), 1),
    "source.link_type": (lambda case: case.replays(ng(udp(), udp(), link_type=101)), 1),
    "source.oversize": (lambda case: case.replays(ng(udp(), bytes(70_000))), 1),
    "source.impair_loss": (lambda case: case.impaired(5, Impairments(loss=1.0)), 5),
    "source.queue_full": (lambda case: case.impaired(11, Impairments(delay=SECOND)), 3),
    "tap.tx_dropped": (lambda case: case.tap(reads=5, handed=5, dropped=3), 3),
    "tap.unaccounted": (lambda case: case.tap(reads=5, handed=7, dropped=0), 2),
    "tap.read_error": (tap_read_error, None),
    "mac.filtered": (receives(ether("02:00:00:00:00:55") + udp()[14:], promiscuous=0), 1),
    "nic.rx_missed": (receives(*[udp()] * 70, descriptors=8, fifo_bytes=0), 63),
    "nic.rx_no_buffer": (receives(*[udp()] * 70, descriptors=8, drop_enable=1), 63),
    "nic.rx_short": (receives(udp()[:10]), 1),
    "nic.rx_long": (receives(udp(payload=bytes(2000)), max_frame=1514), 1),
    "nic.rx_crc": (nic_rx_crc, 1),
    "nic.rx_fifo": (nic_rx_fifo, 1),
    "demux.no_match": (receives(ether(kind=0x88B5) + bytes(50)), 1),
    "demux.no_subscriber": (receives(ether(BROADCAST) + udp()[14:]), 1),
    "demux.no_neighbour": (demux_no_neighbour, 1),
    "demux.fragment_lost": (lambda case: (case.attach(frag(1)), case.consumes("udp dst port 53"))[1], 1),
    "ring.no_buffer": (ring_no_buffer, 1),
    "ring.bad_buffer": (ring_bad_buffer, 1),
    "ring.full": (ring_full, 1),
    "ring.corrupt": (ring_corrupt, 1),
    "ring.env_dead": (ring_env_dead, 1),
    "stack.unaccounted": (says(lib.EXO_R_NIC_RX_CRC), 1),
    "stack.too_short": (stack(bytes(to_stack())[:24]), 1),
    "stack.otherhost": (stack(Ether(src=PEER_MAC, dst=MAC) / IP(src=PEER4, dst="10.7.0.77") / UDP(dport=7)), 1),
    "stack.unhandled_proto": (stack(to_stack(proto=200) / Raw(bytes(40))), 1),
    "stack.ip_header": (stack(to_stack(version=5) / UDP(dport=7) / Raw(bytes(40))), 1),
    "stack.ip_csum": (stack(hurt(to_stack() / UDP(dport=7), 24)), 1),
    "stack.icmp_csum": (stack(hurt(to_stack() / ICMP() / Raw(bytes(40)), 36)), 1),
    "stack.udp_csum": (stack(hurt(to_stack() / UDP(dport=7) / Raw(bytes(40)), 60)), 1),
    "stack.no_socket": (stack(to_stack() / UDP(dport=9) / Raw(bytes(40))), 1),
    "stack.socket_rcvbuff": (stack(*[to_stack() / UDP(dport=7) / Raw(bytes(1400))] * 200, read=False), 23),
    # Our engine holds fragments as delivered until it gives them up: a LibOS that holds the entries can say so.
    "stack.frag_reasm_timeout": (says(lib.EXO_R_STACK_FRAG_REASM_TIMEOUT), 1),
    "stack.frag_reasm_full": (stack(*TINY), 1),
    "stack.frag_overlap": (stack(*TINY[:1] * 2), 1),
    "stack.arp_header": (stack(Ether(src=PEER_MAC, dst=MAC) / ARP(op=9, psrc=PEER4, pdst=IP4)), 1),
    "stack.ndp_header": (
        stack(Ether(src=PEER_MAC, dst=MAC) / IPv6(src=PEER6, dst=IP6, hlim=9) / ICMPv6ND_NS(tgt=IP6)),
        1,
    ),
    "stack.icmp_header": (stack(to_stack(proto=1) / Raw(bytes(4))), 1),
    "stack.udp_header": (stack(to_stack(proto=17) / Raw(bytes(4))), 1),
    "stack.snapped": (stack(bytes(to_stack() / UDP(dport=7))[:24], flags=lib.EXO_F_SNAPPED, cut=50), 1),
    "stack.vlan": (stack(Ether(src=PEER_MAC, dst=MAC) / Dot1Q(vlan=5) / IP(src=PEER4, dst=IP4) / UDP(dport=7)), 1),
    "stack.refused": (stack(Ether(src=PEER_MAC, dst=BROADCAST) / IP(src=PEER4, dst="10.7.0.255") / ICMP()), 1),
    "stack.ip_invalid_source": (
        stack(Ether(src=PEER_MAC, dst=MAC) / IP(src="127.0.0.1", dst=IP4) / UDP(dport=7) / Raw(bytes(40))),
        1,
    ),
    "transmit.spoofed": (sends(locals=(OTHER,)), 1),
    "transmit.bad_descriptor": (transmit_bad_descriptor, 1),
    "transmit.not_granted": (sends(locals=()), 1),
    "transmit.too_long": (sends(max_frame=60), 1),
    "transmit.wire_full": (sends(room=0), 1),
    "transmit.no_carrier": (sends(room=-1), 1),
}


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.bench.close()


def test_r20_every_reason_has_a_scenario_and_every_scenario_a_reason() -> None:
    assert list(SCENARIOS) == REASONS


@pytest.mark.parametrize("reason", SCENARIOS)
def test_r20_a_reason_happens_and_the_whole_ledger_balances(case: Case, reason: str) -> None:
    scenario, count = SCENARIOS[reason]
    scenario(case)
    ledger = case.ledger().check()
    assert list(ledger.dropped) == [reason], "alone"
    assert ledger.dropped[reason] == count if count is not None else ledger.dropped[reason] >= 1
    assert ledger.in_flight == 0
    assert ledger.offered + ledger.copies == ledger.delivered + ledger.dropped[reason]
    assert reason in TIMED or ledger.to_json() == json.loads(GOLDEN.read_text())[reason]


def make() -> None:
    """The golden ledgers anew: python -m tests.flow.test_every_reason"""
    lines = []
    for reason in sorted(set(SCENARIOS) - TIMED):
        with tempfile.TemporaryDirectory() as directory:
            case = Case(Path(directory))
            SCENARIOS[reason][0](case)
            lines.append(f"{json.dumps(reason)}: {json.dumps(case.ledger().to_json())}")
            case.bench.close()
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    make()
