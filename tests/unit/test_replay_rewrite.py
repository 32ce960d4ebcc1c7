# SPDX-License-Identifier: MIT
"""Rewriting and the address shift against scapy: the fields, and checksums that stay as right or wrong as they were."""

import ipaddress
import random
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire.capture import Trace
from exonet.wire.rewrite import PortMap, PrefixMap, Rewrite, parse_mac
from tests.conftest import every_capture
from tests.fakes.captures import pcap, receive_all
from tests.fakes.replays import Make, make

__all__ = ["make"]

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def rewritten(rewrite: Rewrite, data: bytes, *, shift: int = 0, fix: bool = False) -> bytes:
    native = ffi.new("struct exo_rewrite *")
    rewrite.fill(native, fix_checksums=fix)
    assert lib.exo_rewrite_check(native) == 0
    buffer, out = ffi.from_buffer(data), ffi.new("uint8_t[]", len(data) + 4)
    frame = ffi.new("struct exo_frame *", {"data": buffer, "len": len(data), "wire_len": len(data)})
    lib.exo_rewrite_frame(native, shift, frame, out)
    assert frame.len == frame.wire_len
    return ffi.buffer(frame.data, frame.len)[:]


def ether(payload: Packet) -> Packet:
    return Ether(src=A, dst=B) / payload


def stack(l4: Packet, rng: random.Random, v6: bool) -> Packet:
    if v6:
        return ether(IPv6(src=f"2001:db8::{rng.randrange(65536):x}", dst=f"2001:db8:1::{rng.randrange(65536):x}") / l4)
    return ether(IP(src=f"10.{rng.randrange(256)}.0.1", dst=f"10.1.{rng.randrange(256)}.9", ttl=7) / l4)


def random_packets(count: int) -> list[bytes]:
    rng = random.Random(7)
    packets = []
    for i in range(count):
        load = Raw(rng.randbytes(rng.randrange(0, 40)))
        ports = {"sport": rng.randrange(1, 65536), "dport": rng.randrange(1, 65536)}
        v6 = i % 2 == 1
        echo = ICMPv6EchoRequest(data=load.load) if v6 else ICMP() / load
        packets.append(bytes(stack([TCP(**ports) / load, UDP(**ports) / load, echo][i % 3], rng, v6)))
    return packets


def recomputed(data: bytes) -> bytes:
    """The frame with every checksum computed by scapy."""
    packet = Ether(data)
    for layer, field in (
        (IP, "chksum"),
        (TCP, "chksum"),
        (UDP, "chksum"),
        (ICMP, "chksum"),
        (ICMPv6EchoRequest, "cksum"),
    ):
        if layer in packet:
            delattr(packet[layer], field)
    return bytes(packet)


EVERYTHING = Rewrite(
    source_mac=parse_mac("0a:00:00:00:00:01"),
    destination_mac=parse_mac("0a-00-00-00-00-02"),
    ttl=64,
    addresses=(PrefixMap.parse("10.0.0.0/9:172.16.0.0/12"), PrefixMap.parse("[2001:db8::/32]:[fd00:1:2::/48]")),
    ports=(PortMap.parse("0-32767:8080"), PortMap(60_000, 65_535, 53)),
)


def by_hand(data: bytes, shift: int) -> bytes:
    """What EVERYTHING and a shift make of a frame, done by scapy and ipaddress."""
    packet = Ether(data)
    packet.src, packet.dst = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
    ip = packet[IP] if IP in packet else packet[IPv6]
    for side in ("src", "dst"):
        address = ipaddress.ip_address(getattr(ip, side))
        if address in ipaddress.ip_network("10.0.0.0/9"):
            address = ipaddress.IPv4Address(int(ipaddress.IPv4Address("172.16.0.0")) | int(address) & 0x000FFFFF)
        elif address in ipaddress.ip_network("2001:db8::/32"):
            base = int(ipaddress.IPv6Address("fd00:1:2::"))
            address = ipaddress.IPv6Address(base | int(address) & (2**80 - 1))
        setattr(ip, side, str(address + shift))
    if IP in packet:
        ip.ttl = 64
    else:
        ip.hlim = 64
    for kind in (TCP, UDP):
        if kind in packet:
            for side in ("sport", "dport"):
                port = getattr(packet[kind], side)
                setattr(packet[kind], side, 8080 if port < 32_768 else 53 if port >= 60_000 else port)
    return recomputed(bytes(packet))


@pytest.mark.parametrize("fix", [False, True], ids=["followed", "computed"])
@pytest.mark.slow
def test_everything_at_once_equals_scapy(fix: bool) -> None:
    for number, data in enumerate(random_packets(300)):
        shift = number * 977 % 70_000
        assert rewritten(EVERYTHING, data, shift=shift, fix=fix) == by_hand(data, shift), Ether(data)


def test_shift_equals_scapy_and_undoes_itself() -> None:
    for data in random_packets(200):
        packet = Ether(data)
        ip = packet[IP] if IP in packet else packet[IPv6]
        ip.src, ip.dst = (str(ipaddress.ip_address(x) + 1000) for x in (ip.src, ip.dst))
        there = rewritten(Rewrite(), data, shift=1000)
        assert there == recomputed(bytes(packet))
        assert rewritten(Rewrite(), there, shift=2**64 - 1000) == data or IPv6 in packet


def ones_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    return total % 0xFFFF


def test_r07_a_broken_checksum_stays_exactly_as_broken() -> None:
    """The sum over header and pseudo-header, which is 0 modulo 0xffff where it is right, does not move."""
    rng = random.Random(3)
    for data in random_packets(120):
        packet = Ether(data)
        wrong = rng.randrange(1, 65536)
        if IP in packet:
            packet[IP].chksum ^= wrong
        layer = TCP if TCP in packet else UDP
        if layer not in packet:
            continue
        packet[layer].chksum ^= wrong
        before = bytes(packet)
        after = rewritten(EVERYTHING, before, shift=5)
        for frame_pair in [(before, after)]:
            sums = []
            for frame in frame_pair:
                header = 14 + (20 if IP in packet else 40)
                pseudo = frame[26:34] if IP in packet else frame[22:54]
                sums.append((ones_sum(frame[14:34]) if IP in packet else 0, ones_sum(pseudo + frame[header:])))
            if int.from_bytes(before[header + 6 : header + 8], "big") or layer is TCP:
                assert sums[0] == sums[1]


def test_a_missing_udp_checksum_stays_missing() -> None:
    data = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(chksum=0) / b"x"))
    for fix in (False, True):
        assert Ether(rewritten(EVERYTHING, data, shift=9, fix=fix))[UDP].chksum == 0


@pytest.mark.slow
def test_a_udp_checksum_that_becomes_zero_is_sent_as_ones() -> None:
    zeros = 0
    for port in range(65_536):
        data = bytes.fromhex("450000200001000040110000" + "0a000001" + "0a000002" + "0035") + port.to_bytes(2, "big")
        udp = Ether(bytes(12) + b"\x08\x00" + data + b"\x00\x0c\x12\x34" + b"abcd")
        if port % 4096 and zeros:
            continue
        fixed = rewritten(Rewrite(), bytes(udp), fix=True)
        if fixed[40:42] == b"\xff\xff":
            zeros += 1
            moved = rewritten(Rewrite(), fixed, shift=3)
            assert moved == recomputed(moved)
            assert rewritten(Rewrite(), moved, shift=2**32 - 3)[40:42] == b"\xff\xff"
            break
    assert zeros


@pytest.mark.parametrize(
    "tags", [Dot1Q(vlan=7, prio=5), Dot1AD(vlan=8) / Dot1Q(vlan=9), Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3)]
)
def test_tagged_frames_are_rewritten_below_their_tags(tags: Packet) -> None:
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=80, dport=81) / b"x"
    out = Ether(rewritten(EVERYTHING, bytes(ether(tags / inner)), shift=1))
    assert (out[IP].src, out[IP].dst, out[UDP].sport, out[IP].ttl) == ("172.16.0.2", "172.16.0.3", 8080, 64)
    assert bytes(out) == recomputed(bytes(out))
    assert bytes(out)[12 : 12 + len(tags)] == bytes(ether(tags / inner))[12 : 12 + len(tags)]


def test_vlan_set_and_strip() -> None:
    bare = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / b"payload"))
    tagged = rewritten(Rewrite(vlan=1234), bare)
    assert tagged == bare[:12] + bytes.fromhex("810004d2") + bare[12:]
    assert rewritten(Rewrite(vlan="strip"), tagged) == bare == rewritten(Rewrite(vlan="strip"), bare)
    prio = bytes(ether(Dot1AD(vlan=9, prio=6) / Dot1Q(vlan=3) / IP()))
    out = Ether(rewritten(Rewrite(vlan=7), prio))
    assert (out[Dot1AD].vlan, out[Dot1AD].prio, out[Dot1Q].vlan) == (7, 6, 3)
    assert Dot1AD not in Ether(rewritten(Rewrite(vlan="strip"), prio))
    assert rewritten(Rewrite(vlan=5), b"runt") == b"runt"


def test_arp_addresses_follow() -> None:
    out = Ether(rewritten(EVERYTHING, bytes(ether(ARP(psrc="10.0.0.1", pdst="0.0.0.0"))), shift=2))
    assert (out[ARP].psrc, out[ARP].pdst) == ("172.16.0.3", "0.0.0.0")
    odd = bytes(ether(ARP(psrc="10.0.0.1", hwlen=6, ptype=0x86DD)))
    assert rewritten(Rewrite(), odd, shift=2) == odd
    assert rewritten(Rewrite(), odd[:30], shift=2) == odd[:30]


@pytest.mark.parametrize("address", ["224.0.0.251", "255.255.255.255", "0.0.0.0", "ff02::1", "::"])
def test_groups_and_the_unspecified_address_are_not_shifted(address: str) -> None:
    kind = IPv6(src=address, dst=address) if ":" in address else IP(src=address, dst=address)
    data = bytes(ether(kind / UDP() / b"x"))
    assert rewritten(Rewrite(), data, shift=7) == data


@pytest.mark.parametrize(
    "chain",
    [
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
        IPv6ExtHdrFragment(offset=0, m=1, id=5),
        IPv6ExtHdrRouting(addresses=["2001:db8::77"], segleft=1),
        IPv6ExtHdrRouting(addresses=["2001:db8::77"], segleft=0),
        AH(nh=17, payloadlen=4, spi=1, seq=1, icv=b"0" * 12),
    ],
    ids=["options", "fragment", "routed", "arrived", "ah"],
)
def test_ipv6_extension_headers(chain: Packet) -> None:
    before = Ether(
        bytes(
            ether(
                IPv6(src="2001:db8::1", dst="2001:db8::2") / chain / UDP(sport=1, dport=40_000, chksum=0x1234) / b"data"
            )
        )
    )
    data = bytes(before)
    after = rewritten(Rewrite(), data, shift=3)
    assert ipaddress.ip_address(after[22:38]) == ipaddress.ip_address("2001:db8::4")
    moved = ones_sum(after[54:]) - ones_sum(data[54:])
    assert moved % 0xFFFF == (-6 if chain.name != "IPv6 Option Header Routing" or chain.segleft == 0 else -3) % 0xFFFF


def test_later_fragments_have_no_ports() -> None:
    for data in (
        bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2", frag=8, proto=17) / Raw(bytes(range(40))))),
        bytes(ether(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(offset=8, nh=17) / Raw(bytes(40)))),
    ):
        start = 34 if data[12:14] == b"\x08\x00" else 54
        for fix in (False, True):
            assert rewritten(EVERYTHING, data, shift=1, fix=fix)[start:] == data[start:]


def test_a_first_fragment_keeps_the_checksum_of_the_whole() -> None:
    whole = ether(IP(src="10.0.0.1", dst="10.0.0.2", id=9) / UDP(sport=1, dport=2) / Raw(bytes(range(200))))
    moved = rewritten(EVERYTHING, bytes(whole), shift=4)
    first = Ether(bytes(whole))
    first[IP].flags, first[IP].len = "MF", 100
    del first[IP].chksum
    data = bytes(first)[: 14 + 100]
    assert Ether(rewritten(EVERYTHING, data, shift=4))[UDP].chksum == Ether(moved)[UDP].chksum
    assert Ether(rewritten(EVERYTHING, data, shift=4, fix=True))[UDP].chksum == first[UDP].chksum


def test_snapped_packets_keep_checksums_right_for_the_whole() -> None:
    whole = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2) / Raw(bytes(300))))
    moved = rewritten(EVERYTHING, whole, shift=4)
    for cut in range(len(whole)):
        part = rewritten(EVERYTHING, whole[:cut], shift=4)
        assert len(part) == cut
        if cut >= 52:
            assert part == moved[:cut]


def test_padding_and_a_zero_total_length() -> None:
    data = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"x"))
    assert rewritten(EVERYTHING, data + bytes(17), shift=1) == rewritten(EVERYTHING, data, shift=1) + bytes(17)
    offload = bytearray(bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2", len=0) / TCP(sport=1, dport=2) / b"xyz")))
    fixed = Ether(rewritten(Rewrite(), bytes(offload), fix=True))
    fixed[IP].len = None
    again = bytes(fixed)
    assert Ether(again)[TCP].chksum == Ether(recomputed(again))[TCP].chksum


def test_fix_checksums_repairs_what_offload_left() -> None:
    for data in random_packets(100):
        packet = Ether(data)
        for layer in (IP, TCP, UDP, ICMP):
            if layer in packet:
                packet[layer].chksum = 0x1234
        assert rewritten(Rewrite(), bytes(packet), fix=True) == data


@pytest.mark.parametrize("seed", range(4))
def test_hostile_frames_keep_their_length(seed: int) -> None:
    rng = random.Random(seed)
    base = random_packets(6)
    for _ in range(1500):
        data = bytearray(rng.choice(base))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(12, min(len(data), 60))] = rng.choice(
                (0, 1, 4, 6, 15, 43, 44, 51, 60, 64, 79, 255, rng.randrange(256))
            )
        cut = bytes(data[: rng.randrange(len(data) + 1)])
        for fix in (False, True):
            assert len(rewritten(EVERYTHING, cut, shift=rng.getrandbits(64), fix=fix)) == len(cut)


@pytest.mark.parametrize("path", every_capture("*.pcap", most_bytes=200_000), ids=lambda path: path.name)
def test_a_shift_there_and_back_changes_nothing_on_real_traffic(path: Path) -> None:
    """IPv4: adding 2^32 - 5 after 5 gives the first address again, and so must every checksum, right or wrong."""
    for frame in Trace.load(path):
        if b"\x86\xdd" in frame.data[12:20] or not frame.data:
            continue
        there = rewritten(Rewrite(), frame.data, shift=5)
        assert rewritten(Rewrite(), there, shift=2**32 - 5) == frame.data, frame.number


def test_a_loop_shifts_by_its_number(make: Make) -> None:
    data = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.250") / UDP(sport=1, dport=2) / b"x"))
    for memory in (1 << 30, 1):
        wire = make(pcap([(0, data)]), memory_limit=memory, speed="max", loop=8, shift=True)
        frames = [Ether(frame.data) for frame in receive_all(wire.native, burst=5)]
        assert [f[IP].src for f in frames] == [f"10.0.0.{1 + k}" for k in range(8)]
        assert [f[IP].dst for f in frames] == [f"10.0.{(250 + k) // 256}.{(250 + k) % 256}" for k in range(8)]
        assert all(bytes(f) == recomputed(bytes(f)) for f in frames)
        assert wire.counters()["rewritten"] == 8


def test_a_burst_of_giants_does_not_outgrow_the_arena(make: Make) -> None:
    giant = bytes(ether(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(bytes(60_000))))
    wire = make(pcap([(i, giant) for i in range(20)]), speed="max", rewrite=Rewrite(vlan=3))
    frames = receive_all(wire.native, burst=64)
    assert len(frames) == 20 and {f.data for f in frames} == {rewritten(Rewrite(vlan=3), giant)}


def test_rewrite_text() -> None:
    text = "smac=0a:00:00:00:00:01,dmac=0a:00:00:00:00:02,ttl=64,ip=10.0.0.0/9:172.16.0.0/12"
    assert (
        Rewrite.parse([text, "ip=[2001:db8::/32]:[fd00:1:2::/48]", "port=0-32767:8080,port=60000-65535:53"])
        == EVERYTHING
    )
    assert Rewrite.parse("vlan=strip") == Rewrite(vlan="strip")
    assert Rewrite.parse("vlan=12").vlan == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smac=1:2:3", 'MAC address "1:2:3": must be six hexadecimal bytes'),
        ("vlan=4096", 'VLAN "4096": must be 0..4095'),
        ("ttl=-1", 'time to live "-1": must be 0..255'),
        ("port=70000:1", 'port "70000": must be 0..65535'),
        ("port=80", 'port map "80": must be FROM:TO'),
        ("port=90-80:1", 'port "80": must be 90..65535'),
        ("ip=10.0.0.0/8", 'address map "10.0.0.0/8": must be FROM:TO'),
        ("ip=[::/0]:[10.0.0.0/8]", "both sides must be IPv4, or both IPv6"),
        ("ip=10.0.0.0/33:1.0.0.0/8", 'network "10.0.0.0/33"'),
        ("colour=red", 'rewrite "colour=red": must be smac=MAC'),
        ("ttl", 'rewrite "ttl": must be'),
    ],
)
def test_bad_rewrite_text(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        Rewrite.parse(text)
    assert expected in str(caught.value)


def test_bad_rewrite_values() -> None:
    for options in (
        {"vlan": 5000},
        {"vlan": "drop"},
        {"ttl": 256},
        {"source_mac": b"abc"},
        {"ports": (PortMap(1, 1, 1),) * 17},
    ):
        with pytest.raises(UsageError):
            Rewrite(**options)


def test_the_c_side_checks_its_maps() -> None:
    for fields in ({"family": 5}, {"family": 4, "from_bits": 33}, {"family": 6, "to_bits": 129}):
        native = ffi.new("struct exo_rewrite *", {"prefix_maps": 1})
        for name, value in fields.items():
            setattr(native.prefix_map[0], name, value)
        assert lib.exo_rewrite_check(native) == lib.EXO_E_INVALID
    native = ffi.new("struct exo_rewrite *", {"port_maps": 1})
    native.port_map[0].first = 5
    assert lib.exo_rewrite_check(native) == lib.EXO_E_INVALID
