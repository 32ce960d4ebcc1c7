# SPDX-License-Identifier: MIT
"""Behind VLAN tags and in PPPoE sessions (R2, R3, R5): what asks for an address, announcements and fragments
go where the same untagged would, and never across VLANs.
"""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether

from exonet.abi import check, lib
from exonet.clock import Clock
from exonet.errors import UsageError
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from tests.fakes.frames import (
    BROADCAST,
    HERE,
    HOST,
    HOST6,
    PEER,
    PEER6,
    THERE,
    arp_request,
    frag,
    fragment6,
    solicitation,
)
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire
from tests.tags import PROVIDER, session, tagged

Make = Callable[..., tuple[Bench, list[FakeLibOS]]]


@pytest.fixture
def make() -> Iterator[Make]:
    """make(frames, one VLAN for each LibOS, **nic) -> machine on the virtual clock, LibOSes without bindings."""
    benches: list[Bench] = []

    def build(frames: list[bytes], vlans: tuple[int, ...] = (0,), **nic: int) -> tuple[Bench, list[FakeLibOS]]:
        bench = Bench(pages=2048)
        benches.append(bench)
        bench.attach(ScriptWire([(i * 1000, frame) for i, frame in enumerate(frames)]), **nic)
        liboses = [FakeLibOS(bench, entries=512, pages=200) for _ in vlans]
        for libos, vlan in zip(liboses, vlans, strict=True):
            libos.env.vlan = vlan
        return bench, liboses

    yield build
    for bench in benches:
        bench.close()


def answers_for(bench: Bench, libos: FakeLibOS, *addresses: str) -> None:
    for text in addresses:
        address = ip_address(text)
        code = lib.exo_machine_neighbour(bench.native, libos.number, 0, address.version, address.packed)
        check(code, f"owner of {text}")


def sizes(liboses: list[FakeLibOS]) -> list[int]:
    return [len(libos.receive()) for libos in liboses]


def conserved(bench: Bench) -> bool:
    ledger = bench.ledger
    entered = ledger.__getattribute__("in")[lib.EXO_S_DEMUX] + ledger.copies[lib.EXO_S_DEMUX]
    dropped = sum(count for name, count in bench.drops().items() if name.startswith("demux."))
    return bool(entered == ledger.out[lib.EXO_S_DEMUX] + dropped + bench.in_flight()[lib.EXO_S_DEMUX])


TO_US = {"dst": HERE, "src": THERE}
QUESTIONS = {
    "arp": arp_request(HOST),
    "unicast arp": bytes.fromhex(HERE.replace(":", "")) + arp_request(HOST)[6:],
    "solicitation": solicitation(HOST6),
    "ping": bytes(Ether(**TO_US) / IP(src=PEER, dst=HOST) / ICMP(type=8, id=7) / b"ping"),
    "ping6": bytes(Ether(**TO_US) / IPv6(src=PEER6, dst=HOST6) / ICMPv6EchoRequest(id=7, data=b"ping")),
}
QUESTIONS["part of a ping"] = QUESTIONS["ping"][:20] + b"\x20\0" + QUESTIONS["ping"][22:]


@pytest.mark.parametrize("frame", QUESTIONS.values(), ids=QUESTIONS)
def test_r02_an_address_is_asked_of_its_owner_in_that_vlan(make: Make, frame: bytes) -> None:
    """Three have the same address: untagged, in VLAN 5, in VLAN 6. VID 0 is no VLAN; nobody is in 7, or in two tags."""
    nobodys = [tagged(frame, 7), tagged(frame, 5, 6), tagged(frame, 5, kind=PROVIDER), tagged(frame, 0, 0, 0)]
    sent = [frame, tagged(frame, 5), tagged(frame, 6), tagged(frame, 0), tagged(frame, 0, 5), *nobodys, session(frame)]
    bench, liboses = make(sent, (0, 5, 6))
    for libos in liboses:
        libos.bind(f"udp dst port {5000 + libos.number}")
        answers_for(bench, libos, HOST, HOST6)
    bench.run()
    assert [[frame.data for frame in libos.receive()] for libos in liboses] == [
        [padded(sent[0]), padded(sent[3])],
        [padded(sent[1]), padded(sent[4])],
        [padded(sent[2])],
    ]
    assert sum(bench.drops().values()) == len(nobodys) + 1 and conserved(bench)


def padded(frame: bytes) -> bytes:
    return frame.ljust(60, b"\0")


def test_r02_a_tagged_question_that_no_owner_has_goes_where_filters_say(make: Make) -> None:
    bench, (owner, filters) = make([tagged(arp_request(HOST), 5)], (0, 0))
    owner.bind("arp")
    filters.bind("vlan 5 and arp")
    answers_for(bench, owner, HOST)
    for libos in (owner, filters):
        libos.subscribe()
    bench.run()
    assert sizes([owner, filters]) == [0, 1]


def test_r02_an_address_is_given_back_in_its_vlan_only(make: Make) -> None:
    frame = arp_request(HOST)
    bench, (five, six, other) = make([tagged(frame, 5), tagged(frame, 6)], (5, 6, 6))
    for libos in (five, six):
        libos.bind(f"udp dst port {5000 + libos.number}")
        answers_for(bench, libos, HOST)
    packed, machine = ip_address(HOST).packed, bench.native
    assert lib.exo_machine_neighbour(machine, other.number, 0, 4, packed) == lib.EXO_E_CONFLICT
    assert lib.exo_machine_forget_neighbour(machine, other.number, 0, 4, packed) == lib.EXO_E_NOT_FOUND
    assert lib.exo_machine_forget_neighbour(machine, five.number, 0, 4, packed) == 0
    assert lib.exo_machine_forget_neighbour(machine, five.number, 0, 4, packed) == lib.EXO_E_NOT_FOUND
    bench.run()
    assert sizes([five, six]) == [0, 1]
    assert bench.drops() == {"demux.no_neighbour": 1}


ANNOUNCED = {
    "gratuitous arp": arp_request("10.0.0.7", source="10.0.0.7"),
    "dhcp offer": bytes(Ether(dst=BROADCAST, src=THERE) / IP(dst="255.255.255.255") / UDP(sport=67, dport=68)),
    "mdns": bytes(Ether(dst="01:00:5e:00:00:fb", src=THERE) / IP(dst="224.0.0.251") / UDP(sport=5353, dport=5353)),
    "mdns6": bytes(Ether(dst="33:33:00:00:00:fb", src=THERE) / IPv6(dst="ff02::fb") / UDP(sport=5353, dport=5353)),
    "router": bytes(Ether(dst="33:33:00:00:00:01", src=THERE) / IPv6(src="fe80::9", dst="ff02::1") / ICMPv6ND_RA()),
}


@pytest.mark.parametrize("frame", ANNOUNCED.values(), ids=ANNOUNCED)
def test_r02_an_announcement_is_for_the_subscribers_of_its_vlan(make: Make, frame: bytes) -> None:
    """Others get it as any group frame, by their filter; the last has one that takes everything."""
    bench, liboses = make(
        [frame, tagged(frame, 5), tagged(frame, 6), tagged(frame, 5, 6), session(frame)], (0, 5, 5, 0)
    )
    for libos in liboses[:-1]:
        libos.bind(f"udp dst port {5000 + libos.number}")
    liboses[-1].bind("ether multicast")
    for libos in liboses:
        libos.subscribe()
    bench.run()
    assert sizes(liboses) == [1, 1, 1, 5]
    assert conserved(bench)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "untagged": lambda frame: frame,
    "5": lambda frame: tagged(frame, 5),
    "6": lambda frame: tagged(frame, 6),
    "a provider's 5": lambda frame: tagged(frame, 5, kind=PROVIDER),
    "5 and 6": lambda frame: tagged(frame, 5, 6),
    "6 and 5": lambda frame: tagged(frame, 6, 5),
    "session 1": lambda frame: session(frame, 1),
    "session 2": lambda frame: session(frame, 2),
}


@pytest.mark.parametrize("part", (frag, fragment6), ids=("ip4", "ip6"))
@pytest.mark.parametrize("early", (False, True), ids=("in order", "last one first"))
def test_r05_fragments_follow_within_their_vlans_and_sessions(
    make: Make, part: Callable[[int], bytes], early: bool
) -> None:
    """The same datagram by its numbers, once in each way: none of the owners gets anything of another's."""
    order = (2, 0, 1) if early else (0, 1, 2)
    sent = [[way(part(index)) for index in order] for way in WAYS.values()]
    bench, liboses = make([frames[turn] for turn in range(3) for frames in sent], (0,) * len(WAYS))
    for libos, frames in zip(liboses, sent, strict=True):
        libos.bind(first_of(frames[order.index(0)]))
    bench.run()
    assert [[frame.data for frame in libos.receive()] for libos in liboses] == sent
    assert not bench.drops() and conserved(bench)


def first_of(frame: bytes) -> str:
    """A filter for this frame's own encapsulation and its packet's first 8 bytes, which only a first fragment has."""
    at = next(i for i in range(14, 40) if frame[i - 2 : i] in (b"\x08\0", b"\x86\xdd", b"\0\x21", b"\0\x57"))
    outer = [f"ether[{i}:2] = {int.from_bytes(frame[i : i + 2], 'big')}" for i in range(12, at, 2)]
    if frame[at] >> 4 == 4:
        return " and ".join([*outer, f"ether[{at + 6}:2] & 0x1fff = 0", f"ether[{at + 9}] = 17"])
    return " and ".join([*outer, f"ether[{at + 42}:2] & 0xfff8 = 0", f"ether[{at + 6}] = 44"])


def test_r05_sessions_of_other_stations_are_other_sessions(make: Make) -> None:
    """A session's number is its two stations' own (RFC 2516 4)."""
    other = session(frag(1))[:6] + bytes.fromhex("020000000077") + session(frag(1))[12:]
    bench, (libos,) = make([session(frag(0)), other, session(frag(1))])
    libos.bind(first_of(session(frag(0))))
    bench.run()
    assert [frame.data for frame in libos.receive()] == [session(frag(0)), session(frag(1))]
    assert bench.drops() == {"demux.fragment_lost": 1}


def test_r05_a_priority_tag_is_no_vlan(make: Make) -> None:
    bench, (libos,) = make([frag(0), tagged(frag(1), 0), frag(2)])
    libos.bind("udp dst port 53")
    bench.run()
    assert len(libos.receive()) == 3


@pytest.mark.parametrize("vlans", ((), (5,), (0, 5)), ids=("untagged", "one tag", "two tags"))
def test_r02_r05_what_is_cut_short_is_not_taken_for_what_it_was(make: Make, vlans: tuple[int, ...]) -> None:
    """Every length, in NIC buffers that still hold the whole frame behind the end: a byte too far would be seen."""
    whole = [tagged(frame, *vlans) if vlans else frame for frame in [*QUESTIONS.values(), *ANNOUNCED.values()]]
    for frame in whole:
        lengths = range(12, min(len(frame), 90))
        sent = [frame] * 16 + [frame[:length] for length in lengths]
        bench, (libos,) = make(sent, vlans[-1:] or (0,), descriptors=8)
        libos.bind("udp dst port 4999")
        libos.subscribe()
        answers_for(bench, libos, HOST, HOST6)
        bench.run()
        got = [received.wire_len for received in libos.receive()][16:]
        assert all(length >= needed(frame, 14 + 4 * len(vlans)) for length in got) and len(got) < len(lengths)
        assert conserved(bench)


def needed(frame: bytes, at: int) -> int:
    """The bytes without which the frame is not what it is."""
    if frame[at - 2 : at] == b"\x08\x06":
        return at + 28
    if frame[at - 2 : at] == b"\x08\0":
        return at + (28 if frame[at + 9] == 17 else 21)
    return at + {135: 64, 128: 41}.get(frame[at + 40], 44)


@pytest.mark.parametrize("vlan", (-1, 4095))
def test_a_libos_is_put_on_a_vlan_that_there_is(vlan: int) -> None:
    with pytest.raises(UsageError, match=f"LibOS a: vlan {vlan}: must be 1..4094, or 0 for none"):
        LibOSSpec("a", bindings=("udp",), vlan=vlan)


def test_r02_stacks_with_one_address_in_three_vlans_answer_each_in_its_own() -> None:
    question = arp_request("10.7.0.2", source="10.7.0.9")
    wire = ScriptWire([(0, tagged(question, 5)), (1000, tagged(question, 6)), (2000, question)])
    with Machine(MachineConfig(clock=Clock.VIRTUAL)) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True))
        for vlan in (0, 5, 6):
            text = f"vlan {vlan} and dst host 10.7.0.2" if vlan else "dst host 10.7.0.2"
            spec = {"mac": f"02:00:00:00:00:1{vlan}", "addresses": ("10.7.0.2/24",), "vlan": vlan, "groups": "all"}
            machine.spawn(LibOSSpec(f"in {vlan}", libos="echo", bindings=(text,), **spec), port)
        machine.run()
        assert not machine.settle().dropped
    wanted = [tagged(bytes(14), 5)[12:16], tagged(bytes(14), 6)[12:16], b"\x08\x06"]
    assert [frame[12 : 12 + len(kind)] for frame, kind in zip(wire.sent, wanted, strict=True)] == wanted
    assert [frame[11] for frame in wire.sent] == [0x15, 0x16, 0x10]
