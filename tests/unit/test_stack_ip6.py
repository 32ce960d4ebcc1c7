# SPDX-License-Identifier: MIT
"""IPv6 input and ICMPv6 (RFC 8200, 4291, 4443, 5095, 8201)."""

import pytest
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    PadN,
    RouterAlert,
)

from tests.stack_frames import (
    IP6,
    PEER6,
    PEER_MAC,
    SECOND,
    TCP,
    UDP,
    IPv6,
    Reason,
    engine,
    ether,
    feed,
    frame_sum,
    introduce,
    ip6,
    one,
    ping6,
    sent,
)


@pytest.fixture
def stack():
    with engine() as stack:
        introduce(stack)
        yield stack


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1400, 1452])
def test_echo_returns_the_data(stack, size):
    data = bytes(i % 251 for i in range(size))
    assert feed(stack, ping6(data)) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply[IPv6].src, reply[IPv6].dst) == (PEER_MAC, IP6, PEER6)
    echo = reply[ICMPv6EchoReply]
    assert (echo.id, echo.seq, echo.data) == (7, 9, data)


def test_echo_to_all_nodes_is_answered_from_an_own_address(stack):
    assert (
        feed(stack, ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst="ff02::1") / ICMPv6EchoRequest())
        == Reason.DELIVERED
    )
    assert one(stack)[IPv6].src == IP6


def test_echo_from_nobody_is_refused(stack):
    assert feed(stack, ping6(src="::")) == Reason.REFUSED


@pytest.mark.parametrize("dst", ["fd07::3", "::", "::1", "ff02::2", "ff02::1:ff00:3", "ff05::1", "fe80::2"])
def test_other_destinations_are_otherhost(stack, dst):
    mac = "33:33:00:00:00:01" if dst.startswith("ff") else "02:00:00:00:00:01"
    assert feed(stack, ether(mac) / IPv6(src=PEER6, dst=dst) / ICMPv6EchoRequest()) == Reason.OTHERHOST


@pytest.mark.parametrize("dst", ["ff01::1", "ff02::1", "ff02::1:ff00:2"])
def test_own_groups_are_taken(stack, dst):
    socket = stack.udp(7, family=6)
    assert feed(stack, ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst=dst) / UDP(dport=7)) == Reason.DELIVERED
    assert str(socket.receive().local) == dst


def test_unicast_inside_a_link_group_is_discarded(stack):
    assert feed(stack, ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst=IP6) / ICMPv6EchoRequest()) == Reason.OTHERHOST


@pytest.mark.parametrize("src", ["ff02::1", "::1", "::ffff:10.0.0.1", IP6])
def test_impossible_sources_are_dropped(stack, src):
    assert feed(stack, ping6(src=src)) == Reason.IP_INVALID_SOURCE


@pytest.mark.parametrize("hlim", [0, 1, 255])
def test_the_destination_does_not_mind_the_hop_limit(stack, hlim):
    assert feed(stack, ping6(hlim=hlim)) == Reason.DELIVERED


@pytest.mark.parametrize("version", [0, 4, 5, 7, 15])
def test_the_version(stack, version):
    assert feed(stack, ping6(version=version)) == Reason.IP_HEADER


def test_the_payload_length(stack):
    frame = bytearray(bytes(ping6(b"abc")))
    frame[19] += 1
    assert feed(stack, bytes(frame)) == Reason.TOO_SHORT
    frame[19] -= 2
    assert feed(stack, bytes(frame)) == Reason.ICMP_CSUM
    frame[19] = 7
    assert feed(stack, bytes(frame)) == Reason.ICMP_HEADER
    assert feed(stack, bytes(ping6(b"abc")) + b"padding") == Reason.DELIVERED


@pytest.mark.parametrize("offset", range(8))
def test_a_flipped_icmp_bit_is_found(stack, offset):
    frame = bytearray(bytes(ping6(b"abcdefgh")))
    frame[54 + offset] ^= 1
    assert feed(stack, bytes(frame)) == Reason.ICMP_CSUM


def test_an_unknown_next_header_is_told(stack):
    assert feed(stack, ip6(nh=132) / bytes(20)) == Reason.UNHANDLED_PROTO
    problem = one(stack)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 6)
    assert feed(stack, ip6() / IPv6ExtHdrDestOpt(nh=51) / bytes(20)) == Reason.UNHANDLED_PROTO
    assert one(stack)[ICMPv6ParamProblem].ptr == 40
    assert feed(stack, ip6() / TCP()) == Reason.UNHANDLED_PROTO


def test_no_next_header_ends_quietly(stack):
    assert feed(stack, ip6(nh=59) / bytes(8)) == Reason.UNHANDLED_PROTO and sent(stack) == []


def chain(*headers):
    packet = ip6()
    for header in headers:
        packet = packet / header
    return packet / ICMPv6EchoRequest(data=b"x")


@pytest.mark.parametrize(
    "headers",
    [
        [IPv6ExtHdrHopByHop(options=[RouterAlert()])],
        [IPv6ExtHdrDestOpt(options=[Pad1(), Pad1()])],
        [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrDestOpt()],
        [IPv6ExtHdrRouting(addresses=["fd07::5"], segleft=0)],
        [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(200))])],
        [IPv6ExtHdrFragment()],
    ],
)
def test_extension_headers_are_stepped_over(stack, headers):
    assert feed(stack, chain(*headers)) == Reason.DELIVERED
    assert one(stack)[ICMPv6EchoReply].data == b"x"


def test_a_routing_header_with_segments_left_is_told(stack):
    for kind in (0, 2, 4, 253):
        header = IPv6ExtHdrRouting(type=kind, addresses=["fd07::5"], segleft=1)
        # scapy would sum for the final address; the header is refused before any checksum
        assert feed(stack, ip6() / header / UDP(dport=7, chksum=1)) == Reason.IP_HEADER
        problem = one(stack)[ICMPv6ParamProblem]
        assert (problem.code, problem.ptr) == (0, 42)


def test_hop_by_hop_anywhere_but_first_is_told(stack):
    assert feed(stack, chain(IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop())) == Reason.UNHANDLED_PROTO
    problem = one(stack)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 40)


@pytest.mark.parametrize(("kind", "answered"), [(0x1E, None), (0x5E, False), (0x9E, True), (0xDE, True), (0xC2, True)])
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("header", [0, 60])
def test_unknown_options_by_their_two_bits(stack, kind, answered, group, header):
    base = ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst="ff02::1", nh=header) if group else ip6(nh=header)
    udp = bytes(IPv6(src=PEER6, dst="ff02::1" if group else IP6) / UDP(dport=9))[40:]
    reason = feed(stack, base / (bytes([17, 0, kind, 4]) + bytes(4) + udp))
    errors = sent(stack)
    if answered is None:
        assert reason == Reason.NO_SOCKET and len(errors) == (not group)
        return
    assert reason == Reason.IP_HEADER
    if answered and (not group or kind >> 6 == 2):
        problem = errors[0][ICMPv6ParamProblem]
        assert (problem.code, problem.ptr) == (2, 42)
    else:
        assert errors == []


@pytest.mark.parametrize(
    "raw", [bytes([17, 0, 5, 5, 0, 0, 0, 0]), bytes([17, 0, 0, 0, 0, 0, 0, 5]), bytes([17, 0, 1, 255, 0, 0, 0, 0])]
)
def test_an_option_beyond_its_header_is_told(stack, raw):
    assert feed(stack, ip6(nh=60) / (raw + bytes(8))) == Reason.IP_HEADER
    assert one(stack)[ICMPv6ParamProblem].code == 0


@pytest.mark.parametrize("nh", [0, 43, 60, 44])
@pytest.mark.parametrize("size", range(8))
def test_an_extension_header_beyond_the_packet_is_told(stack, nh, size):
    assert feed(stack, ip6(nh=nh) / bytes(size)) == Reason.IP_HEADER
    problem = one(stack)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 4)
    if nh != 44:
        assert feed(stack, ip6(nh=nh) / (bytes([17, 9]) + bytes(30))) == Reason.IP_HEADER


def test_a_long_chain_is_bounded(stack):
    assert feed(stack, chain(*[IPv6ExtHdrDestOpt()] * 15)) == Reason.DELIVERED
    assert feed(stack, chain(*[IPv6ExtHdrDestOpt()] * 150)) == Reason.IP_HEADER


def test_a_closed_port_is_told_with_the_packet_quoted(stack):
    packet = ip6() / UDP(sport=1000, dport=9) / bytes(1400)
    assert feed(stack, packet) == Reason.NO_SOCKET
    error = one(stack)
    assert error[ICMPv6DestUnreach].code == 4 and len(error[IPv6]) == 1280
    assert bytes(error)[62:] == bytes(packet)[14:][:1232]


@pytest.mark.parametrize(("packet", "count"), [(UDP(dport=9), 0), (IPv6ExtHdrDestOpt(nh=51), 0)])
def test_no_error_about_a_group_or_nobody(stack, packet, count):
    feed(stack, ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst="ff02::1") / packet)
    feed(stack, ip6(src="::") / packet)
    assert len(sent(stack)) == count


def test_errors_are_limited(stack):
    for _ in range(70):
        feed(stack, ip6() / UDP(dport=9), SECOND)
    assert len(sent(stack)) == 50 and stack.counters["errors_limited"] == 20


INNER = IPv6(src=IP6, dst=PEER6) / UDP(sport=5000, dport=7) / bytes(1200)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ICMPv6DestUnreach(code=4), (6, 1, 4)),
        (ICMPv6TimeExceeded(code=0), (6, 3, 0)),
        (ICMPv6ParamProblem(code=1), (6, 4, 1)),
        (ICMPv6PacketTooBig(mtu=1300), (6, 2, 0)),
    ],
)
def test_an_error_reaches_the_socket_it_quotes(stack, message, error):
    socket = stack.udp(5000, family=6)
    assert feed(stack, ip6() / message / INNER) == Reason.DELIVERED
    assert socket.error() == error
    fragment = IPv6(src=IP6, dst=PEER6) / IPv6ExtHdrFragment(nh=17, m=1) / bytes(INNER[UDP])
    assert feed(stack, ip6() / message / fragment) == Reason.DELIVERED
    assert socket.error() == error


@pytest.mark.parametrize(
    "inner",
    [
        IPv6(src="fd07::77", dst=PEER6) / UDP(sport=5000),
        IPv6(src=IP6, dst=PEER6) / UDP(sport=5001),
        IPv6(src=IP6, dst=PEER6) / TCP(sport=5000),
        IPv6(src=IP6, dst=PEER6, nh=17) / b"short",
        IPv6(src=IP6, dst=PEER6) / IPv6ExtHdrFragment(nh=17, offset=5) / bytes(20),
        IPv6(src=IP6, dst=PEER6, nh=44) / b"short",
    ],
)
def test_an_error_about_nothing_of_ours_is_dropped(stack, inner):
    socket = stack.udp(5000, family=6)
    assert feed(stack, ip6() / ICMPv6PacketTooBig(mtu=1300) / inner) == Reason.NO_SOCKET
    assert socket.error() is None and stack.path_mtu(PEER6, 0) == 1500


def test_an_error_that_quotes_too_little(stack):
    assert feed(stack, ip6() / ICMPv6DestUnreach() / bytes(39)) == Reason.ICMP_HEADER
    assert feed(stack, ip6() / ICMPv6DestUnreach() / bytes(60)) == Reason.ICMP_HEADER


def test_too_big_lowers_the_path_of_datagrams_and_echo_replies(stack):
    inner = IPv6(src=IP6, dst=PEER6) / ICMPv6EchoReply(data=bytes(1300))
    assert feed(stack, ip6() / ICMPv6PacketTooBig(mtu=1300) / inner, SECOND) == Reason.DELIVERED
    assert stack.path_mtu(PEER6, SECOND) == 1300
    feed(stack, ping6(bytes(1400)), SECOND)
    parts = sent(stack)
    assert len(parts) == 2 and all(len(p[IPv6]) <= 1300 for p in parts)
    feed(stack, ip6() / ICMPv6PacketTooBig(mtu=100) / inner, SECOND)
    assert stack.path_mtu(PEER6, SECOND) == 1280  # RFC 8201 4
    assert stack.path_mtu(PEER6, 602 * SECOND) == 1500


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ICMPv6EchoReply(), Reason.NO_SOCKET),
        (ICMPv6EchoRequest(code=1), Reason.ICMP_HEADER),
        (ICMPv6Unknown(type=200) / bytes(4), Reason.UNHANDLED_PROTO),
        (ICMPv6Unknown(type=100) / bytes(4), Reason.UNHANDLED_PROTO),
        (ICMPv6MLQuery(), Reason.UNHANDLED_PROTO),
        (ICMPv6Unknown(type=0) / bytes(4), Reason.UNHANDLED_PROTO),
    ],
)
def test_other_icmp(stack, message, reason):
    assert feed(stack, ip6() / message) == reason
    assert sent(stack) == []


def test_no_error_about_an_error(stack):
    """A reassembled error with a bad option behind it is not answered."""
    frame = ip6(nh=60) / (bytes([58, 0, 0x9E, 4]) + bytes(4) + bytes([1, 4, 0, 0, 0, 0, 0, 0]))
    assert (
        feed(stack, frame) == Reason.IP_HEADER
    )  # the type behind the option cannot be told yet: answered once, no loop
    assert len(sent(stack)) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 1399, 1400])
def test_checksum_given_by_the_kernel_is_used(stack, size):
    frame = bytes(ping6(bytes(i % 256 for i in range(size))))
    assert feed(stack, frame, csum=frame_sum(frame)) == Reason.DELIVERED
    if size > 60:
        assert feed(stack, frame, csum=frame_sum(frame) ^ 0x0101) == Reason.ICMP_CSUM
