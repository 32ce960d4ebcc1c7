# SPDX-License-Identifier: MIT
"""Who receives what (docs/rules.md, Receiving): whole ledgers of a native machine with hand-driven LibOSes."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from exonet.abi import check, lib
from tests.fakes.frames import (
    BROADCAST,
    HERE,
    HOST,
    HOST6,
    PEER,
    PEER6,
    THERE,
    arp_request,
    dns,
    ether,
    frag,
    fragment6,
    icmp_error,
    solicitation,
    udp,
)
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

Make = Callable[..., tuple[Bench, ScriptWire, list[FakeLibOS]]]


@pytest.fixture
def make() -> Iterator[Make]:
    """make(frames, libos count, **nic) -> machine on the virtual clock, its wire, its LibOSes."""
    benches: list[Bench] = []

    def build(frames: list[bytes], count: int = 1, nic: dict[str, Any] | None = None, **libos: Any) -> Any:
        bench = Bench()
        benches.append(bench)
        wire = ScriptWire([(i * 1000, frame) for i, frame in enumerate(frames)])
        bench.attach(wire, **(nic or {}))
        return bench, wire, [FakeLibOS(bench, **libos) for _ in range(count)]

    yield build
    for bench in benches:
        bench.close()


def conserved(bench: Bench) -> None:
    """Each stage: in + copies = out + drops + in flight, every term counted by itself (R20)."""
    flight, ledger = bench.in_flight(), bench.ledger
    entering = ledger.__getattribute__("in")
    for stage in (lib.EXO_S_SOURCE, lib.EXO_S_MAC, lib.EXO_S_NIC, lib.EXO_S_DEMUX, lib.EXO_S_RING, lib.EXO_S_STACK):
        drops = sum(
            ledger.drop[reason]
            for reason in range(lib.EXO_R_SENT + 1, lib.EXO_REASONS)
            if lib.exo_reason_stage(reason) == stage
        )
        assert entering[stage] + ledger.copies[stage] == ledger.out[stage] + drops + flight[stage], stage


def test_r01_unicast_has_one_owner_or_is_no_match(make: Make) -> None:
    bench, _, (web, names) = make([udp(dport=53), udp(dport=80), udp(dport=53)], 2)
    names.bind("udp dst port 53")
    web.bind("tcp dst port 80")
    assert bench.run() == lib.EXO_RUN_IDLE
    assert [frame.data for frame in names.receive()] == [udp(dport=53)] * 2
    assert web.receive() == []
    lib.exo_machine_stepped(bench.native, names.number, 0)
    assert bench.drops() == {"delivered": 2, "demux.no_match": 1}
    conserved(bench)


def test_r02_group_frames_are_copied_to_every_subscriber_whose_filter_takes_them(make: Make) -> None:
    hello = ether("01:00:5e:00:00:fb") + udp(dport=5000)[14:]
    bench, _, (a, b, c) = make([hello], 3)
    for libos in (a, b, c):
        libos.bind(f"ether multicast and udp dst port {5000 if libos is not c else 6000}")
        libos.subscribe(bytes.fromhex("01005e0000fb"))
    bench.run()
    assert [len(libos.receive()) for libos in (a, b, c)] == [1, 1, 0]
    assert bench.ledger.copies[lib.EXO_S_DEMUX] == 1
    for libos in (a, b):
        lib.exo_machine_stepped(bench.native, libos.number, 0)
    assert bench.drops() == {"delivered": 2}
    conserved(bench)


def test_r02_group_frame_without_subscriber_is_counted(make: Make) -> None:
    bench, _, (a,) = make([ether(BROADCAST) + udp(dport=5000)[14:]])
    a.bind("udp dst port 5000")
    bench.run()
    assert a.receive() == []
    assert bench.drops() == {"demux.no_subscriber": 1}
    conserved(bench)


def test_r02_arp_and_neighbour_solicitations_go_to_the_owner_of_the_address(make: Make) -> None:
    bench, _, (a, b) = make([arp_request("10.0.0.2"), arp_request("10.0.0.9"), solicitation("fd00::2")], 2)
    for libos, last in ((a, 1), (b, 2)):
        libos.bind(f"dst host 10.0.0.{last} or dst host fd00::{last}")
        libos.subscribe()
        machine = bench.native
        check(lib.exo_machine_neighbour(machine, libos.number, 0, 4, bytes([10, 0, 0, last])), "owner")
        check(
            lib.exo_machine_neighbour(machine, libos.number, 0, 6, bytes.fromhex("fd") + bytes(14) + bytes([last])), "6"
        )
    bench.run()
    assert [frame.data[: frame.wire_len] for frame in b.receive()] == [arp_request("10.0.0.2"), solicitation("fd00::2")]
    assert a.receive() == []
    assert bench.drops()["demux.no_neighbour"] == 1


def test_r02_gratuitous_arp_goes_to_every_subscriber(make: Make) -> None:
    gratuitous = arp_request("10.0.0.7", source="10.0.0.7")
    bench, _, (a, b) = make([gratuitous], 2)
    for libos in (a, b):
        libos.bind(f"udp dst port {5000 + libos.number}")
        libos.subscribe()
    bench.run()
    assert [len(a.receive()), len(b.receive())] == [1, 1]


ANNOUNCED = {
    "dhcp offer": Ether(dst=BROADCAST, src=THERE) / IP(src=PEER, dst="255.255.255.255") / UDP(sport=67, dport=68),
    "mdns": Ether(dst="01:00:5e:00:00:fb", src=THERE) / IP(src=PEER, dst="224.0.0.251") / UDP(sport=5353, dport=5353),
    "mdns6": Ether(dst="33:33:00:00:00:fb", src=THERE) / IPv6(src=PEER6, dst="ff02::fb") / UDP(sport=5353, dport=5353),
    "router": Ether(dst="33:33:00:00:00:01", src=THERE) / IPv6(src="fe80::9", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
}


@pytest.mark.parametrize("packet", ANNOUNCED.values(), ids=ANNOUNCED)
def test_r02_announcements_go_to_every_subscriber_whatever_its_filter(make: Make, packet: Ether) -> None:
    """c did not join the group; d did, under a filter that has nothing to do with it, and so did a and b."""
    bench, _, (a, b, c, d) = make([bytes(packet)], 4)
    for libos in (a, b, c, d):
        libos.bind(f"tcp dst port {5000 + libos.number}")
    group = bytes.fromhex(packet.dst.replace(":", ""))
    a.subscribe()
    b.subscribe(group)
    c.subscribe(bytes.fromhex("01005e7f0001"))
    d.subscribe(group)
    bench.run()
    assert [len(libos.receive()) for libos in (a, b, c, d)] == [1, 1, 0, 1]
    assert bench.ledger.copies[lib.EXO_S_DEMUX] == 2


def neighbours(bench: Bench, libos: FakeLibOS, *addresses: str) -> None:
    for text in addresses:
        address = ip_address(text)
        code = lib.exo_machine_neighbour(bench.native, libos.number, 0, address.version, address.packed)
        check(code, f"owner of {text}")


ASKED = {
    "arp": Ether(dst=HERE, src=THERE) / ARP(op=1, hwsrc=THERE, psrc=PEER, pdst=HOST),
    "ns": Ether(dst=HERE, src=THERE) / IPv6(src=PEER6, dst=HOST6, hlim=255) / ICMPv6ND_NS(tgt=HOST6),
}


@pytest.mark.parametrize("packet", ASKED.values(), ids=ASKED)
def test_r02_a_unicast_question_goes_to_the_owner_of_the_address_too(make: Make, packet: Ether) -> None:
    """As Linux asks again when an entry is stale (RFC 1122 2.3.2.1, RFC 4861 7.3.3): a filter's claim is no answer."""
    bench, _, (owner, other) = make([bytes(packet)], 2)
    owner.bind("udp dst port 53")
    other.bind("arp or icmp6")
    neighbours(bench, owner, HOST, HOST6)
    bench.run()
    assert (len(owner.receive()), len(other.receive())) == (1, 0)
    for libos in (owner, other):
        lib.exo_machine_stepped(bench.native, libos.number, 0)
    assert bench.drops() == {"delivered": 1}
    conserved(bench)


ECHOES = {
    "echo": Ether(dst=HERE, src=THERE) / IP(src=PEER, dst=HOST) / ICMP(type=8, id=7) / Raw(b"ping"),
    "echo6": Ether(dst=HERE, src=THERE) / IPv6(src=PEER6, dst=HOST6) / ICMPv6EchoRequest(id=7, data=b"ping"),
}


@pytest.mark.parametrize("packet", ECHOES.values(), ids=ECHOES)
def test_r03_echo_to_a_shared_address_goes_to_the_one_that_answers_for_it(make: Make, packet: Ether) -> None:
    """Two LibOSes have a range of ports each; no filter claims the ping. Where one does, it has it (R1)."""
    bench, _, (low, high, pinged) = make([bytes(packet)] * 2, 3)
    low.bind("udp dst portrange 1-999")
    high.bind("udp dst portrange 1000-1999")
    neighbours(bench, high, HOST, HOST6)
    bench.run(until=500)
    assert [len(libos.receive()) for libos in (low, high)] == [0, 1]
    pinged.bind("icmp or icmp6")
    bench.run()
    assert [len(libos.receive()) for libos in (low, high, pinged)] == [0, 0, 1]
    assert "demux.no_match" not in bench.drops()


def test_r03_echo_to_an_address_that_nobody_answers_for_is_no_match(make: Make) -> None:
    bench, _, (a,) = make([bytes(ECHOES["echo"])])
    a.bind("udp dst portrange 1-999")
    neighbours(bench, a, "10.0.0.2")
    bench.run()
    assert bench.drops() == {"demux.no_match": 1}


@pytest.mark.parametrize("version", [4, 6])
def test_r03_icmp_error_goes_to_the_owner_of_the_quoted_packet(make: Make, version: int) -> None:
    """a and b share an address; b sent the packet that the error quotes."""
    bench, _, (a, b) = make([icmp_error(version, quoted_sport=2000)], 2)
    a.bind("udp dst port 1000")
    b.bind("udp dst port 2000")
    bench.run()
    assert len(b.receive()) == 1
    assert a.receive() == []


def test_r05_later_fragments_follow_the_first_and_early_ones_wait(make: Make) -> None:
    first, later, last = frag(0), frag(1), frag(2)
    bench, _, (a,) = make([later, first, last])
    a.bind("udp dst port 53")
    bench.run()
    assert [frame.data for frame in a.receive()] == [later, first, last]
    lib.exo_machine_stepped(bench.native, a.number, 0)
    conserved(bench)


def test_r05_fragments_without_a_first_are_counted_in_the_end(make: Make) -> None:
    bench, _, (a,) = make([frag(1)])
    a.bind("udp dst port 53")
    bench.run(until=1_000_000)
    assert bench.in_flight()[lib.EXO_S_DEMUX] == 1
    conserved(bench)
    bench.run()
    assert bench.drops() == {"demux.fragment_lost": 1}
    conserved(bench)


def test_r05_later_fragments_follow_the_first_where_a_wider_binding_takes_them_too(make: Make) -> None:
    bench, _, (host, names) = make([frag(0), frag(1), frag(2)], 2)
    host.bind("ip dst host 10.0.0.1")
    names.bind("ip dst host 10.0.0.1 and udp dst port 53")
    bench.run()
    assert [frame.data for frame in names.receive()] == [frag(0), frag(1), frag(2)]
    assert host.receive() == []


def test_r05_fragments_of_ipv6_follow_too(make: Make) -> None:
    parts = [fragment6(index) for index in range(3)]
    bench, _, (a,) = make([parts[2], parts[0], parts[1]])
    a.bind("ip6 dst host fd00::1 and ip6[6] = 44 and ip6[42:2] & 0xfff8 = 0")
    bench.run()
    assert [frame.data for frame in a.receive()] == [parts[2], parts[0], parts[1]]
    lib.exo_machine_stepped(bench.native, a.number, 0)
    conserved(bench)


def test_r05_waiting_fragments_have_a_quota(make: Make) -> None:
    """64 wait; what comes beyond is lost at once, and the first one brings those that waited."""
    bench, _, (a,) = make([frag(1)] * 70, entries=256, pages=128)
    a.bind("udp dst port 53")
    bench.run(until=1_000_000)
    assert bench.drops() == {"demux.fragment_lost": 6} and bench.in_flight()[lib.EXO_S_DEMUX] == 64
    conserved(bench)
    bench.run()
    assert bench.drops() == {"demux.fragment_lost": 70}


def test_r05_a_binding_that_ends_is_followed_no_more(make: Make) -> None:
    bench, _, (a,) = make([frag(0), frag(1)])
    binding = a.bind("udp dst port 53")
    bench.run(until=500)
    check(lib.exo_machine_unbind(bench.native, binding), "unbind")
    bench.run()
    assert [frame.data for frame in a.receive()] == [frag(0)]
    assert bench.drops() == {"demux.fragment_lost": 1}


def test_r06_snoop_gets_copies_and_never_the_frame(make: Make) -> None:
    bench, _, (owner, spy) = make([udp(dport=53), udp(dport=80)], 2)
    owner.bind("udp dst port 53")
    spy.bind("udp", snoop=True)
    bench.run()
    assert [frame.flags & lib.EXO_F_SNOOP for frame in spy.receive()] == [lib.EXO_F_SNOOP] * 2
    assert [frame.flags & lib.EXO_F_SNOOP for frame in owner.receive()] == [0]
    for libos in (owner, spy):
        lib.exo_machine_stepped(bench.native, libos.number, 0)
    assert bench.drops() == {"delivered": 3, "demux.no_match": 1}
    assert bench.ledger.copies[lib.EXO_S_DEMUX] == 2
    conserved(bench)


def test_r07_padding_keeps_the_original_length(make: Make) -> None:
    short = udp(dport=53, payload=b"")[:42]
    bench, _, (a,) = make([short])
    a.bind("udp dst port 53 and len <= 42")
    bench.run()
    (frame,) = a.receive()
    assert frame.data == short + bytes(18)
    assert frame.wire_len == 42
    assert frame.flags & lib.EXO_F_PADDED


def test_a_frame_longer_than_a_buffer_is_chained(make: Make) -> None:
    jumbo = udp(dport=53, payload=bytes(range(256)) * 20)
    bench, _, (a,) = make([jumbo])
    a.bind("udp dst port 53")
    bench.run()
    assert [frame.data for frame in a.receive()] == [jumbo]


def test_the_checksum_is_folded_into_the_copy(make: Make) -> None:
    bench, _, (a,) = make([dns()])
    a.bind("udp")
    bench.run()
    entry = a._array("struct exo_receive", a.env.kernel, a.env.layout.receive_offset)[0]
    (frame,) = a.receive()
    assert entry.csum == lib.exo_checksum(frame.data[14:], len(frame.data) - 14, 0)


def test_no_posted_buffer_is_the_libos_s_own_loss(make: Make) -> None:
    bench, _, (poor, rich) = make([udp(dport=53), udp(dport=80)] * 3, 2, post=False)
    poor.bind("udp dst port 53")
    rich.bind("udp dst port 80")
    for i in range(3):
        rich.fill(rich.first + i, 0, 2048)
    bench.run()
    assert len(rich.receive()) == 3
    assert bench.drops() == {"ring.no_buffer": 3}


def test_a_full_receive_ring_is_counted(make: Make) -> None:
    bench, _, (a,) = make([udp(dport=53)] * 12, entries=8, pages=16)
    a.bind("udp")
    for i in range(8):
        a.fill(a.first + i, 0, 2048) if i >= 8 else None
    bench.run()
    assert len(a.receive(repost=False)) == 8
    assert bench.drops() == {"ring.no_buffer": 4}


@pytest.mark.parametrize(
    "bad",
    [
        {"page": 1 << 31, "offset": 0, "length": 2048},
        {"page": 0, "offset": 4000, "length": 97},
        {"page": 0, "offset": 0, "length": 0},
        {"page": 200, "offset": 0, "length": 2048},
    ],
)
def test_invariant_3_nothing_is_written_outside_posted_pinned_pages(make: Make, bad: dict[str, int]) -> None:
    bench, _, (liar, other) = make([udp(dport=53), udp(dport=80)], 2, post=False)
    liar.bind("udp dst port 53")
    other.bind("udp dst port 80")
    other.fill(other.first, 0, 2048)
    liar.fill(bad["page"] + (liar.first if bad["page"] == 0 else 0), bad["offset"], bad["length"])
    before = bytes(other.memory(other.first + 1, 0, 4096))
    bench.run()
    assert len(other.receive()) == 1
    assert bytes(other.memory(other.first + 1, 0, 4096)) == before
    assert bench.drops() == {"ring.bad_buffer": 1}


def test_invariant_3_an_unpinned_page_is_not_written(make: Make) -> None:
    bench, _, (a,) = make([udp(dport=53)], post=False)
    a.bind("udp")
    a.fill(a.first, 0, 2048)
    check(lib.exo_pages_unpin(a.table, a.number, a.first, 1), "unpin")
    bench.run()
    assert bench.drops() == {"ring.bad_buffer": 1}
    assert bytes(a.memory(a.first, 0, 2048)) == bytes(2048)


def test_invariant_3_another_environments_page_is_not_written(make: Make) -> None:
    bench, _, (thief, victim) = make([udp(dport=53)], 2, post=False)
    thief.bind("udp")
    thief.fill(victim.first, 0, 2048)
    bench.run()
    assert bench.drops() == {"ring.bad_buffer": 1}
    assert bytes(victim.memory(victim.first, 0, 2048)) == bytes(2048)


@pytest.mark.parametrize("index", ["fill_put", "receive_taken", "transmit_put", "completion_taken"])
def test_invariant_5_an_impossible_ring_index_shuts_that_ring_only(make: Make, index: str) -> None:
    bench, _, (liar, other) = make([udp(dport=53), udp(dport=80)] * 2, 2)
    liar.bind("udp dst port 53")
    other.bind("udp dst port 80")
    getattr(liar.area(), index).value = 0x80000000
    if index == "completion_taken":
        for _ in range(70):
            liar.transmit(b"x" * 60)
        liar.area().transmit_put.value = 64
    bench.run()
    lib.exo_machine_stepped(bench.native, liar.number, 0)
    assert len(other.receive()) == 2
    if index != "completion_taken":
        assert liar.env.lies >= 1
    assert lib.exo_machine_env_kill(bench.native, liar.number) == 0
    conserved(bench)


def test_a_dead_environment_costs_its_own_frames_only(make: Make) -> None:
    bench, wire, (dead, other) = make([udp(dport=53), udp(dport=80)], 2)
    dead.bind("udp dst port 53")
    other.bind("udp dst port 80")
    bench.run()
    assert lib.exo_machine_env_kill(bench.native, dead.number) == 0
    assert bench.drops() == {"ring.env_dead": 1}
    wire.native.flags = 0
    assert len(other.receive()) == 1
    conserved(bench)


def test_a_verdict_is_the_frames_fate(make: Make) -> None:
    bench, _, (a,) = make([udp(dport=53)] * 3)
    a.bind("udp")
    bench.run()
    a.receive(1)
    a.receive(1, verdict=lib.EXO_R_STACK_UDP_CSUM)
    a.receive(1, verdict=lib.EXO_R_NIC_RX_CRC)
    lib.exo_machine_stepped(bench.native, a.number, 0)
    assert bench.drops() == {"delivered": 1, "stack.udp_csum": 1, "stack.unaccounted": 1}
    conserved(bench)
