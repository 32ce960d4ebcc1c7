# SPDX-License-Identifier: MIT
"""IPv4 input and ICMP (RFC 791, 792, 1122, 1191)."""

import pytest
from scapy.layers.inet import IPOption, IPOption_LSRR, IPOption_NOP, IPOption_SSRR
from scapy.utils import checksum

from tests.stack_frames import (
    BROADCAST,
    ICMP,
    IP,
    IP4,
    MAC,
    PEER4,
    PEER_MAC,
    SECOND,
    TCP,
    UDP,
    Reason,
    engine,
    ether,
    feed,
    frame_sum,
    introduce,
    ip4,
    one,
    ping4,
    sent,
)


@pytest.fixture
def stack():
    with engine() as stack:
        introduce(stack)
        yield stack


@pytest.mark.parametrize("size", [0, 1, 2, 3, 55, 56, 57, 1400, 1472])
def test_echo_returns_the_data(stack, size):
    data = bytes(i % 251 for i in range(size))
    assert feed(stack, ping4(data)) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply.src, reply[IP].src, reply[IP].dst) == (PEER_MAC, MAC, IP4, PEER4)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 7, 9)
    assert bytes(reply[ICMP].payload) == data
    assert stack.counters["echo_in"] == stack.counters["echo_out"] == 1


@pytest.mark.parametrize("ttl", [0, 1, 255])
def test_the_destination_does_not_mind_the_ttl(stack, ttl):
    assert feed(stack, ping4(ttl=ttl)) == Reason.DELIVERED


@pytest.mark.parametrize("dst", ["255.255.255.255", "10.7.0.255", "224.0.0.1"])
def test_echo_to_a_group_is_refused(stack, dst):
    assert feed(stack, ether(BROADCAST) / IP(src=PEER4, dst=dst) / ICMP()) == Reason.REFUSED
    assert sent(stack) == []


@pytest.mark.parametrize("dst", ["10.7.0.3", "10.7.1.255", "224.0.0.251", "0.0.0.0", "127.0.0.1", "240.0.0.1"])
def test_other_destinations_are_otherhost(stack, dst):
    assert feed(stack, ping4(dst=dst)) == Reason.OTHERHOST


def test_unicast_inside_a_link_broadcast_is_discarded(stack):
    assert feed(stack, ether(BROADCAST) / IP(src=PEER4, dst=IP4) / ICMP()) == Reason.OTHERHOST


@pytest.mark.parametrize(
    "src", ["127.0.0.1", "224.0.0.1", "255.255.255.255", "10.7.0.255", "240.0.0.1", "0.0.0.9", IP4]
)
def test_impossible_sources_are_dropped(stack, src):
    assert feed(stack, ping4(src=src)) == Reason.IP_INVALID_SOURCE
    assert sent(stack) == []


def test_echo_from_nobody_is_refused(stack):
    assert feed(stack, ping4(src="0.0.0.0")) == Reason.REFUSED
    assert sent(stack) == []


def test_a_31_and_a_32_have_no_broadcast():
    for prefix in (31, 32):
        stack = engine(f"10.7.0.2/{prefix}")
        assert feed(stack, ping4(dst="10.7.0.3")) == Reason.OTHERHOST


def broken(offset, value, fix=True):
    frame = bytearray(bytes(ping4(bytes(30))))
    frame[14 + offset] = value
    if fix:
        packet = bytes(frame[14:34])
        header = IP(packet)
        del header.chksum
        frame[24:26] = bytes(2)
        total = sum(int.from_bytes(frame[14 + i : 16 + i], "big") for i in range(0, (frame[14] & 15) * 4, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        frame[24:26] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, 0x55, Reason.IP_HEADER),
        (0, 0x05, Reason.IP_HEADER),
        (0, 0x44, Reason.IP_HEADER),
        (0, 0x40, Reason.IP_HEADER),
        (3, 19, Reason.IP_HEADER),
        (3, 0, Reason.IP_HEADER),
        (2, 255, Reason.TOO_SHORT),
        (3, 59, Reason.TOO_SHORT),
        (0, 0x45, Reason.DELIVERED),
        (1, 0xFF, Reason.DELIVERED),
        (6, 0x80, Reason.DELIVERED),
        (6, 0x40, Reason.DELIVERED),
        (9, 6, Reason.UNHANDLED_PROTO),
        (9, 2, Reason.UNHANDLED_PROTO),
        (9, 255, Reason.UNHANDLED_PROTO),
    ],
)
def test_header_fields(stack, offset, value, reason):
    assert feed(stack, broken(offset, value)) == reason


@pytest.mark.parametrize("offset", range(20))
def test_a_flipped_header_bit_is_found(stack, offset):
    frame = bytearray(bytes(ping4()))
    frame[14 + offset] ^= 0x10
    assert feed(stack, bytes(frame)) in (Reason.IP_CSUM, Reason.IP_HEADER, Reason.TOO_SHORT)


@pytest.mark.parametrize(
    "options", [[IPOption_NOP()], [IPOption(b"\x94\x04\x00\x00")], [IPOption(b"\x01\x00\xff\xff")]]
)
def test_options_are_stepped_over(stack, options):
    assert feed(stack, ping4(options=options)) == Reason.DELIVERED
    assert one(stack)[IP].ihl == 5


OWN = bytes([10, 7, 0, 2])
NOON = (12 * 3600 * 1000).to_bytes(4, "big")
#: What the engine notes at 5 ms: no universal time, so the high bit is set (RFC 791 3.1).
AT_5_MS = (5 | 1 << 31).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        (b"\x07\x0b\x04" + bytes(8), b"\x07\x0b\x08" + OWN + bytes(4)),
        (b"\x07\x0b\x08" + b"abcd" + bytes(4), b"\x07\x0b\x0cabcd" + OWN),
        (b"\x07\x0b\x0cabcdefgh", b"\x07\x0b\x0cabcdefgh"),  # full
        (b"\x07\x03\x04", b"\x07\x03\x04"),  # no room at all
        (b"\x07\x27\x04" + bytes(36), b"\x07\x27\x08" + OWN + bytes(32)),
        (b"\x44\x0c\x05\x00" + bytes(8), b"\x44\x0c\x09\x00" + AT_5_MS + bytes(4)),
        (b"\x44\x0c\x0d\x20abcdefgh", b"\x44\x0c\x0d\x30abcdefgh"),  # full: one more had no room
        (b"\x44\x0c\x05\x01" + bytes(8), b"\x44\x0c\x0d\x01" + OWN + AT_5_MS),
        (b"\x44\x14\x0d\x01" + b"abcd" + NOON + bytes(8), b"\x44\x14\x15\x01abcd" + NOON + OWN + AT_5_MS),
        (b"\x44\x0c\x05\x03" + OWN + bytes(4), b"\x44\x0c\x0d\x03" + OWN + AT_5_MS),
        (b"\x44\x0c\x05\x03" + b"\x08\x08\x08\x08" + bytes(4), b"\x44\x0c\x05\x03\x08\x08\x08\x08" + bytes(4)),
        (
            b"\x01\x07\x07\x04" + bytes(4) + b"\x94\x04\0\0" + b"\x44\x08\x05\x00" + bytes(4),
            b"\x07\x07\x08" + OWN + b"\x44\x08\x09\x00" + AT_5_MS,
        ),
    ],
)
def test_an_echo_reply_takes_back_the_recorded_route_and_times(stack, came, goes):
    """RFC 1122 3.2.2.6: updated to include this host, and without truncation."""
    assert feed(stack, ping4(b"data", options=[IPOption(came)]), now=5_000_000) == Reason.DELIVERED
    reply = bytes(one(stack)[IP])
    header = 20 + -(-len(goes) // 4) * 4
    assert reply[0] == 0x40 | header // 4
    assert reply[20:header] == goes.ljust(header - 20, b"\0")
    assert reply[header:] == bytes(ICMP(type=0, id=7, seq=9) / b"data")


def test_only_the_first_fragment_of_a_reply_has_what_is_recorded():
    with engine(f"{IP4}/24", mtu=576) as stack:
        introduce(stack)
        packet = ping4(bytes(1400), options=[IPOption(b"\x07\x27\x04" + bytes(36))])
        for part in packet[IP].fragment(fragsize=400):
            feed(stack, ether() / part)
        replies = sent(stack)
    assert [len(reply[IP]) <= 576 for reply in replies] == [True] * len(replies)
    assert [reply[IP].ihl for reply in replies] == [15, *[5] * (len(replies) - 1)]
    assert sum(reply[IP].len - reply[IP].ihl * 4 for reply in replies) == 1408


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b"\x07\x02\0\0", 21),
        (b"\x07\x07\x03" + bytes(5), 22),
        (b"\x07\x07\x05" + bytes(5), 22),  # room for a part of an address
        (b"\x44\x03\x05\0", 21),
        (b"\x44\x08\x04\0" + bytes(4), 22),
        (b"\x44\x08\x05\x01" + bytes(4), 22),
        (b"\x44\x08\x05\x02" + bytes(4), 23),
        (b"\x44\x08\x09\xf0" + bytes(4), 23),  # the count of those that had no room is full
        (b"\x07\x03\x04\x07\x03\x04\0\0", 23),  # at most once
        (b"\x44\x04\x05\0\x44\x04\x05\0", 24),
    ],
)
def test_a_broken_record_is_a_parameter_problem(stack, raw, pointer):
    frame = bytearray(bytes(ping4(options=[IPOption(b"\1" * len(raw))])))
    end = 34 + len(raw)
    frame[34:end] = raw  # which scapy cannot make, nor read in what the answer quotes
    frame[24:26] = bytes(2)
    frame[24:26] = checksum(bytes(frame[14:end])).to_bytes(2, "big")
    assert feed(stack, bytes(frame)) == Reason.IP_HEADER
    (frame,) = stack.output()
    assert (frame[34], frame[35], frame[38]) == (12, 0, pointer)


@pytest.mark.parametrize("option", [IPOption_LSRR, IPOption_SSRR])
def test_source_routes_are_refused(stack, option):
    assert feed(stack, ping4(options=[option(routers=["10.7.0.5"])])) == Reason.REFUSED
    assert sent(stack) == []


@pytest.mark.parametrize(
    ("raw", "pointer"), [(b"\x94\x01\0\0", 20), (b"\x94\x00\0\0", 20), (b"\x01\x94\x08\0", 21), (b"\1\1\1\7", 23)]
)
def test_a_broken_option_is_a_parameter_problem(stack, raw, pointer):
    assert feed(stack, ether() / IP(src=PEER4, dst=IP4, options=[IPOption(raw)]) / UDP() / b"data") == Reason.IP_HEADER
    error = one(stack)
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].ptr) == (12, 0, pointer)


def test_an_unknown_protocol_is_told_unreachable(stack):
    assert feed(stack, ip4(proto=132) / bytes(20)) == Reason.UNHANDLED_PROTO
    error = one(stack)
    assert (error[ICMP].type, error[ICMP].code) == (3, 2)
    assert feed(stack, ip4() / TCP(dport=80)) == Reason.UNHANDLED_PROTO


def test_a_closed_port_is_told_unreachable_with_the_packet_quoted(stack):
    packet = ip4() / UDP(sport=1000, dport=9) / bytes(700)
    assert feed(stack, packet) == Reason.NO_SOCKET
    error = one(stack)
    assert (error[ICMP].type, error[ICMP].code, error[IP].dst) == (3, 3, PEER4)
    assert bytes(error)[42:] == bytes(packet)[14:][: 576 - 28]
    assert stack.counters["unreachable_out"] == 1


@pytest.mark.parametrize("dst", ["255.255.255.255", "10.7.0.255", "224.0.0.1"])
def test_no_error_about_a_group(stack, dst):
    assert feed(stack, ether(BROADCAST) / IP(src=PEER4, dst=dst) / UDP(dport=9)) == Reason.NO_SOCKET
    assert sent(stack) == []


def test_no_error_to_a_source_that_is_no_host(stack):
    assert feed(stack, ip4(src="0.0.0.0") / UDP(dport=9)) == Reason.NO_SOCKET
    assert sent(stack) == []


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_no_error_about_an_error(stack, kind):
    """A bad option would be a parameter problem, were it not in an ICMP error."""
    packet = ip4(options=[IPOption(b"\x94\x01\0\0")]) / ICMP(type=kind) / bytes(28)
    assert feed(stack, packet) == Reason.IP_HEADER
    assert sent(stack) == []


def test_errors_are_limited_by_a_token_bucket(stack):
    for _ in range(80):
        feed(stack, ip4() / UDP(dport=9), SECOND)
    assert len(sent(stack)) == 50 and stack.counters["errors_limited"] == 30
    feed(stack, ip4() / UDP(dport=9), SECOND + 2_000_000)
    assert len(sent(stack)) == 1
    for _ in range(80):
        feed(stack, ip4() / UDP(dport=9), 100 * SECOND)
    assert len(sent(stack)) == 50
    feed(stack, ip4() / UDP(dport=9), 0)  # a clock that goes back does no harm
    assert sent(stack) == []


@pytest.mark.parametrize("offset", range(8))
def test_a_flipped_icmp_bit_is_found(stack, offset):
    frame = bytearray(bytes(ping4(b"abcdefgh")))
    frame[34 + offset] ^= 1
    assert feed(stack, bytes(frame)) == Reason.ICMP_CSUM


@pytest.mark.parametrize("length", range(8))
def test_a_short_icmp_message(stack, length):
    assert feed(stack, ip4(proto=1) / bytes(length)) == Reason.ICMP_HEADER


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (0, 0, Reason.NO_SOCKET),
        (8, 1, Reason.ICMP_HEADER),
        (5, 1, Reason.REFUSED),
        (4, 0, Reason.UNHANDLED_PROTO),
        (13, 0, Reason.UNHANDLED_PROTO),
        (17, 0, Reason.UNHANDLED_PROTO),
        (42, 0, Reason.UNHANDLED_PROTO),
        (3, 1, Reason.ICMP_HEADER),
    ],
)
def test_other_icmp(stack, kind, code, reason):
    assert feed(stack, ip4() / ICMP(type=kind, code=code)) == reason
    assert sent(stack) == []


def quoted(stack, kind, code, port=5000, mtu=0, source=IP4, cut=None, proto=None, **ip):
    inner = IP(src=source, dst=PEER4, **ip) / UDP(sport=port, dport=7) / bytes(1400)
    if proto is not None:
        inner[IP].proto = proto
    return ip4() / ICMP(type=kind, code=code, nexthopmtu=mtu) / bytes(inner)[:cut]


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (12, 0)])
def test_an_error_reaches_the_socket_it_quotes(stack, kind, code):
    socket = stack.udp(5000)
    assert feed(stack, quoted(stack, kind, code, cut=28)) == Reason.DELIVERED
    assert socket.error() == (4, kind, code) and socket.error() is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"port": 5001}, Reason.NO_SOCKET),
        ({"source": "10.7.0.77"}, Reason.NO_SOCKET),
        ({"proto": 6}, Reason.NO_SOCKET),
        ({"frag": 5}, Reason.NO_SOCKET),
        ({"cut": 27}, Reason.ICMP_HEADER),
        ({"cut": 19}, Reason.ICMP_HEADER),
        ({"version": 6}, Reason.ICMP_HEADER),
        ({"ihl": 4}, Reason.ICMP_HEADER),
        ({"ihl": 15, "cut": 67}, Reason.ICMP_HEADER),
    ],
)
def test_an_error_about_nothing_of_ours_is_dropped(stack, fields, reason):
    socket = stack.udp(5000)
    assert feed(stack, quoted(stack, 3, 4, mtu=600, **fields)) == reason
    assert socket.error() is None and stack.path_mtu(PEER4, 0) == 1500


def test_too_big_lowers_the_path_and_udp_is_fragmented(stack):
    socket = stack.udp(5000)
    socket.send(bytes(1400), PEER4, 7, 0)
    assert one(stack)[IP].flags.DF
    assert feed(stack, quoted(stack, 3, 4, mtu=1000), SECOND) == Reason.DELIVERED
    assert socket.error() == (4, 3, 4)
    assert stack.path_mtu(PEER4, SECOND) == 1000 and stack.path_mtu("10.7.0.10", SECOND) == 1500
    socket.send(bytes(1400), PEER4, 7, SECOND)
    parts = sent(stack)
    assert [len(p[IP]) for p in parts] == [996, 452] and not any(p[IP].flags.DF for p in parts)
    feed(stack, quoted(stack, 3, 4, mtu=1400), SECOND)
    assert stack.path_mtu(PEER4, SECOND) == 1000  # never raised by a message
    assert stack.path_mtu(PEER4, 602 * SECOND) == 1500  # but by time


def test_too_big_of_an_old_router_takes_the_next_plateau(stack):
    stack.udp(5000)
    feed(stack, quoted(stack, 3, 4, mtu=0))
    assert stack.path_mtu(PEER4, 0) == 1006


def test_too_big_below_the_floor_stops_at_it_and_df_is_left_out(stack):
    socket = stack.udp(5000)
    feed(stack, quoted(stack, 3, 4, mtu=68))
    assert stack.path_mtu(PEER4, 0) == 576
    socket.send(b"x", PEER4, 7, 1)
    assert not one(stack)[IP].flags.DF


def test_checksum_given_by_the_kernel_is_used(stack):
    """Right for even and odd lengths, with padding; a wrong one shows that it is used where it is shorter to use."""
    for size in (0, 1, 2, 63, 64, 1399, 1400):
        frame = bytes(ping4(bytes(i % 256 for i in range(size)))).ljust(60, b"\x5a")
        assert feed(stack, frame, csum=frame_sum(frame)) == Reason.DELIVERED
        if size > 60:
            assert feed(stack, frame, csum=frame_sum(frame) ^ 0x0101) == Reason.ICMP_CSUM
