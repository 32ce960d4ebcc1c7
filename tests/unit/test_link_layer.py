# SPDX-License-Identifier: MIT
"""Packets of other link types become Ethernet frames: byte for byte, and as tshark and tcpdump count."""

import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from exonet.abi import ffi, lib
from exonet.wire.capture import Frame, Trace
from exonet.wire.pcap import PcapWire
from tests.effort import tries
from tests.fakes.captures import Ng, pcap, receive_all, record
from tests.fakes.link_layers import ARP_REQUEST, BAD, GOOD, PACKETS, RECEIVER, SENDER, sll, sll2, tagged, wlan

LIMITS = pytest.mark.parametrize("limit", [1 << 30, 1], ids=["loaded", "streamed"])
FROM_HEADER = ("802.11", "radiotap", "ppi", "erf", "frame relay, bridged")
EVERY = [
    (name, link, kind, make(kind, packet), packet)
    for name, link, make in GOOD
    for kind, packet in PACKETS
    if (link, kind) not in ((228, 0x86DD), (229, 0x0800))
]


def convert(tmp_path: Path, link_type: int, data: bytes, limit: int = 1 << 30) -> Frame:
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap([(0, data)], link_type=link_type))
    (frame,) = Trace.load(path, limit)
    return frame


def made(kind: int, packet: bytes) -> tuple[bytes, bytes]:
    """Destination and source made from the IP addresses: written down, not computed."""
    if kind == 0x0800:
        group = packet[16] == 224
        return bytes.fromhex("01005e010203" if group else "02000a040506"), bytes.fromhex("02000a010203")
    return bytes.fromhex("333300010002" if packet[24] == 0xFF else "0206715b09ad"), bytes.fromhex("02066e5b04f4")


def expected(name: str, kind: int, packet: bytes) -> bytes:
    destination, source = made(kind, packet)
    if name.startswith(FROM_HEADER):
        destination, source = RECEIVER, SENDER
    if name.startswith("sll"):
        source = SENDER
    if name == "sll, broadcast":
        destination = b"\xff" * 6
    if name == "sll, multicast" and not destination[0] & 1:
        destination = bytes.fromhex("030000000000")
    return destination + source + kind.to_bytes(2, "big") + packet


def every(order: str) -> bytes:
    """One file of every kind, an interface each; and plain Ethernet beside them."""
    ng = Ng(order).section()
    for _, link, _ in GOOD:
        ng.interface(link)
    ng.interface(1)
    names = [name for name, _, _ in GOOD]
    for name, _, _, data, _ in EVERY:
        ng.packet(0, data, interface=names.index(name))
    return ng.packet(9, RECEIVER + SENDER + b"\x08\x00" + PACKETS[0][1], interface=len(GOOD)).out


@LIMITS
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_r07_every_link_type_becomes_ethernet(tmp_path: Path, order: str, limit: int) -> None:
    path = tmp_path / "every.pcapng"
    path.write_bytes(every(order))
    trace = Trace.load(path, limit)
    frames = list(trace)
    for (name, _, kind, _, packet), frame in zip(EVERY, frames, strict=False):
        assert frame.data == expected(name, kind, packet), name
        assert (frame.wire_len, frame.snapped, frame.reason, frame.converted) == (14 + len(packet), False, 0, True), (
            name
        )
    assert not frames[-1].converted
    assert (trace.converted, trace.not_ethernet, trace.count) == (len(EVERY), 0, len(EVERY) + 1)
    wire = PcapWire(trace, speed="max", loop=2)
    assert [f.data for f in receive_all(wire.native)] == 2 * [f.data for f in frames]
    assert wire.counters()["converted"] == 2 * len(EVERY)


@LIMITS
def test_simple_blocks_and_the_smallest_headers_leave_room_for_ethernet(tmp_path: Path, limit: int) -> None:
    """A raw packet's frame begins before its own block."""
    ng = Ng().section().interface(101)
    head = len(ng.out)
    for _, packet in PACKETS:
        ng.simple(packet)
    path = tmp_path / "simple.pcapng"
    path.write_bytes(ng.out[:head] + 1_500 * ng.out[head:])
    trace = Trace.load(path, limit)
    want = [expected("raw", kind, packet) for kind, packet in PACKETS]
    assert all(f.data == want[f.number % len(want)] for f in trace)
    assert (trace.count, trace.broken) == (1_500 * len(want), None)


@pytest.mark.parametrize(("name", "link_type", "data"), BAD, ids=[name for name, _, _ in BAD])
def test_what_cannot_become_ethernet_is_counted(tmp_path: Path, name: str, link_type: int, data: bytes) -> None:
    frame = convert(tmp_path, link_type, data)
    assert (frame.reason, frame.data, frame.converted) == (lib.EXO_R_SOURCE_LINK_TYPE, data, False), name


def test_arp_tags_and_802_2_pass(tmp_path: Path) -> None:
    everybody = b"\xff" * 6
    arp = everybody + SENDER + b"\x08\x06" + ARP_REQUEST
    for link_type, make in ((113, sll), (276, sll2)):
        assert convert(tmp_path, link_type, make(0x0806, ARP_REQUEST)).data == arp
        twice = tagged(0x8100, tagged(*PACKETS[0]), 5)
        want = bytes.fromhex("02000a040506") + SENDER + b"\x88\xa8" + twice
        assert convert(tmp_path, link_type, make(0x88A8, twice)).data == want
        stp = bytes.fromhex("424203") + bytes(35)
        frame = convert(tmp_path, link_type, make(4, stp, 2))
        assert frame.data == bytes.fromhex("030000000000") + SENDER + b"\x00\x26" + stp
    discovery = bytes.fromhex("110900000004") + bytes.fromhex("01010000")
    assert convert(tmp_path, 51, discovery).data[12:] == b"\x88\x63" + discovery
    lcp = bytes.fromhex("110000090006") + bytes.fromhex("c02101010004")
    assert convert(tmp_path, 51, lcp).data[12:] == b"\x88\x64" + lcp


@LIMITS
def test_lengths_of_a_snapped_packet(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "snapped.pcap"
    packet = wlan(*PACKETS[0])
    path.write_bytes(pcap([], link_type=105) + record("<", 0, packet[:60], wire_len=1532))
    trace = Trace.load(path, limit)
    (frame,) = trace
    assert (frame.data, frame.wire_len, frame.snapped) == (expected("802.11", *PACKETS[0])[:42], 1514, True)
    assert (trace.bytes, trace.wire_bytes) == (60, 1532), "what the file holds"


def counts(rows: list[list[str]]) -> Counter[str]:
    """By what tshark found in each packet."""
    found: Counter[str] = Counter()
    for ip, ip6, arp, vlan, udp, tcp in rows:
        words = {"ip": ip, "ip6": ip6, "arp": arp, "udp": udp, "tcp": tcp}
        words |= {f"udp dst port {udp}": udp, f"tcp dst port {tcp}": tcp}
        tags = "vlan and " * len(vlan.split(",")) if vlan else ""
        found.update(tags + word for word, there in words.items() if there)
    return found


def tshark(path: Path, *fields: str) -> list[list[str]]:
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *[part for field in fields for part in ("-e", field)]]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in out.splitlines()]


@pytest.mark.skipif(not shutil.which("tshark") or not shutil.which("tcpdump"), reason="needs tshark and tcpdump")
def test_tshark_counts_in_the_original_what_tcpdump_counts_in_the_frames(tmp_path: Path) -> None:
    ng = Ng(out=every("<"))
    for kind, packet in (
        (0x0806, ARP_REQUEST),
        (0x8100, tagged(*PACKETS[0])),
        (0x8100, tagged(0x8100, tagged(*PACKETS[2]))),
    ):
        for link, make in ((113, sll), (276, sll2)):
            ng.packet(1, make(kind, packet), interface=[link for _, link, _ in GOOD].index(link))
    original, converted = tmp_path / "original.pcapng", tmp_path / "converted.pcap"
    original.write_bytes(ng.out)
    converted.write_bytes(pcap([(i * 1000, f.data) for i, f in enumerate(Trace.load(original)) if not f.reason]))
    theirs = tshark(original, "ip.src", "ipv6.src", "arp.opcode", "vlan.id", "udp.dstport", "tcp.dstport")
    found = counts(theirs)
    assert found["ip"] > 90 and found["vlan and ip"] == found["vlan and vlan and ip"] == found["arp"] == 2
    for text, n in found.items():
        command = ["tcpdump", "-n", "--count", "-r", str(converted), text]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert int(said.split()[0]) == n, text
    assert {row[0] for row in tshark(converted, "_ws.malformed", "frame.number")} == {""}


def test_invariant_5_hostile_link_headers_stay_in_bounds() -> None:
    """Cut at any byte, and with any byte changed: what is said of a packet lies inside it."""
    rng = random.Random(5)
    link = ffi.new("struct exo_link *")
    header = ffi.new("uint8_t[14]")
    samples = [(link_type, data) for _, link_type, _, data, _ in EVERY] + [
        (link_type, data) for _, link_type, data in BAD
    ]
    samples += [(113, sll(0x8100, 200 * tagged(0x8100, b"")))]
    types = sorted(
        {link_type for link_type, _ in samples} | {6, 10, 100, 109, 117, 119, 138, 163, 166, 204, 219, 258, 9999}
    )
    for _ in range(tries(20_000)):
        link_type, data = rng.choice(samples)
        bytes_ = bytearray(data[: rng.randrange(len(data) + 1)])
        for _ in range(rng.randrange(4)):
            if bytes_:
                bytes_[rng.randrange(min(48, len(bytes_)))] = rng.choice((0, 1, 2, 4, 8, 0x7F, 0x80, 0xAA, 0xFF))
        if rng.random() < 0.2:
            link_type = rng.choice(types)
        held = ffi.new("uint8_t[]", bytes(bytes_)) if bytes_ else ffi.NULL
        wire = len(bytes_) + rng.choice((0, 0, 4, 1500, 2**32 - 1 - len(bytes_)))
        if lib.exo_link_parse(link_type, rng.choice((0, 4)), held, len(bytes_), wire, link):
            assert link.header + link.len <= len(bytes_) and link.len <= link.wire_len
            if not link.flags & lib.EXO_LINK_WHOLE:
                lib.exo_link_ethernet(link, held + link.header if bytes_ else held, header)


@pytest.mark.parametrize(("link", "kind"), [(228, b"\x08\x00"), (229, b"\x86\xdd")])
def test_a_link_type_that_says_the_version_is_believed(tmp_path: Path, link: int, kind: bytes) -> None:
    for version in (4, 6):
        assert convert(tmp_path, link, bytes([version << 4]) + bytes(39)).data[12:14] == kind


@LIMITS
def test_a_packet_is_left_out_for_one_reason(tmp_path: Path, limit: int) -> None:
    """Too long, and of a link type that cannot be converted: it was counted twice."""
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([(0, bytes(20)), (0, bytes(70_000))], link_type=189, snaplen=1 << 18))
    trace = Trace.load(path, limit)
    assert (trace.count, trace.not_ethernet, trace.oversize) == (2, 2, 0)
