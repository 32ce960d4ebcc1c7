# SPDX-License-Identifier: MIT
"""Reassembly (RFC 791, 5722, 8200 4.5, 6946, 7112) and fragmenting, both families.

scapy cuts and joins on the other side.
"""

import random

import pytest
from scapy.layers.inet import IPOption_NOP, defragment, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    defragment6,
)

from tests.stack_frames import (
    ICMP,
    IP,
    IP4,
    IP6,
    PEER4,
    PEER6,
    SECOND,
    UDP,
    Ether,
    IPv6,
    Reason,
    answers,
    conserve,
    engine,
    ether,
    feed,
    introduce,
    ip4,
    ip6,
    one,
    ping4,
    ping6,
    sent,
)

DATA = bytes(i * 7 % 256 for i in range(4000))


@pytest.fixture
def stack():
    with engine() as stack:
        introduce(stack)
        yield stack


def cut4(packet, size):
    return [ether() / part for part in fragment(packet[IP], size)]


def cut6(packet, size, ident=77, head=None):
    """IPv6 fragments made by hand from the upper-layer bytes that scapy computed."""
    whole = bytes(packet[IPv6])[40:]
    nh = packet[IPv6].nh
    base = head or ip6()
    pieces = [(at, whole[at : at + size]) for at in range(0, len(whole), size)]
    return [
        base.copy() / IPv6ExtHdrFragment(nh=nh, offset=at // 8, m=int(at + size < len(whole)), id=ident) / piece
        for at, piece in pieces
    ]


def cut(family, size=1480, data=DATA, ident=77, dport=7):
    if family == 4:
        return cut4(ip4(id=ident) / UDP(sport=1000, dport=dport) / data, size)
    return cut6(ip6() / UDP(sport=1000, dport=dport) / data, size, ident)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("order", ["in order", "reversed", "shuffled", "duplicated"])
@pytest.mark.parametrize("size", [8, 64, 1448])
@pytest.mark.slow
def test_every_order_gives_the_datagram_back(stack, family, order, size):
    socket = stack.udp(7, family=family)
    parts = cut(family, size, DATA if size > 8 else DATA[:800])
    expected = DATA if size > 8 else DATA[:800]
    if order == "reversed":
        parts.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(parts)
    elif order == "duplicated":
        parts = [p for part in parts[:-1] for p in (part, part)] + parts[-1:]
    for i, part in enumerate(parts[:-1]):
        reason = feed(stack, part)
        assert reason == (Reason.FRAG_OVERLAP if order == "duplicated" and i % 2 else Reason.DELIVERED)
    count = len(cut(family, size, expected))
    assert stack.held == count - 1 and socket.receive() is None and stack.counters["udp_in"] == 0
    assert feed(stack, parts[-1]) == Reason.DELIVERED
    assert stack.held == 0 and socket.receive().data == expected
    assert stack.counters["delivered"] >= count and stack.counters["reassembled"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_all_fragments_settle_as_the_datagram_does(stack, family):
    for part in cut(family, dport=9):
        last = feed(stack, part)
    assert last == Reason.NO_SOCKET and stack.drops == {"stack.no_socket": 3} and stack.held == 0
    error = one(stack)
    assert PEER4 in (error[IP].dst,) if family == 4 else error[IPv6].dst == PEER6


def test_a_large_fragmented_echo_returns_in_fragments(stack):
    data = random.Random(1).randbytes(65507)
    for part in cut4(ping4(data), 1480):
        feed(stack, part)
    frames = [Ether(f) for f in stack.output()]
    assert len(frames) == 45 and all(len(f) <= 1514 for f in frames)
    whole = defragment([f[IP] for f in frames])[0]
    reply = IP(bytes(whole))[ICMP]
    assert reply.type == 0 and bytes(reply.payload) == data
    assert stack.counters["fragments_out"] == 45


def test_a_large_fragmented_echo_returns_in_fragments_over_ipv6(stack):
    data = random.Random(1).randbytes(60000)
    for part in cut6(ping6(data), 1448):
        feed(stack, part)
    frames = [Ether(f) for f in stack.output()]
    assert all(len(f) <= 1514 for f in frames)
    raw = bytes(defragment6([f[IPv6] for f in frames]))  # it changes the packets it is given
    whole, again = IPv6(raw), IPv6(raw)
    assert whole[ICMPv6EchoReply].data == data
    del again[ICMPv6EchoReply].cksum
    assert bytes(again) == raw


@pytest.mark.parametrize("size", [1472, 1473, 1480, 2952, 2953, 65507])
def test_what_is_sent_in_fragments_scapy_joins(stack, size):
    data = random.Random(size).randbytes(size)
    stack.udp(7).send(data, PEER4, 9, 0)
    frames = [Ether(f) for f in stack.output()]
    assert len(frames) == -(-(size + 8) // 1480) and all(len(f[IP]) <= 1500 for f in frames)
    assert len({f[IP].id for f in frames}) == 1
    assert all((len(frames) == 1) == f[IP].flags.DF for f in frames)
    whole = IP(bytes(defragment([f[IP] for f in frames])[0]))
    assert bytes(whole[UDP].payload) == data
    del whole[UDP].chksum
    again = IP(bytes(whole))[UDP].chksum
    assert again == int.from_bytes(bytes(frames[0][IP])[26:28], "big")


@pytest.mark.parametrize("size", [1452, 1453, 65527])
def test_what_is_sent_in_fragments_over_ipv6_scapy_joins(stack, size):
    data = random.Random(size).randbytes(size)
    stack.udp(7, family=6).send(data, PEER6, 9, 0)
    frames = [Ether(f) for f in stack.output()]
    assert all(len(f[IPv6]) <= 1500 for f in frames)
    if size == 1452:
        assert len(frames) == 1 and IPv6ExtHdrFragment not in frames[0]
        return
    joined = b"".join(bytes(f[IPv6ExtHdrFragment].payload) for f in frames)
    assert joined[8:] == data and len({f[IPv6ExtHdrFragment].id for f in frames}) == 1
    assert [f[IPv6ExtHdrFragment].m for f in frames] == [1] * (len(frames) - 1) + [0]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("shift", [-8, 8])
def test_overlap_drops_the_datagram_and_what_comes_later(stack, family, shift):
    socket = stack.udp(7, family=family)
    parts = [bytes(p) for p in cut(family, 1448)]
    bad = cut(family, 1448)[1]
    if family == 4:
        bad[IP].frag += shift // 8
        del bad[IP].chksum
    else:
        bad[IPv6ExtHdrFragment].offset += shift // 8
    for part in (parts[0], parts[2] if shift > 0 else parts[0] and parts[1]):
        feed(stack, part)
    assert stack.held == 2
    assert feed(stack, bad) == Reason.FRAG_OVERLAP
    assert stack.held == 0 and stack.drops == {"stack.frag_overlap": 3}
    for part in parts:
        assert feed(stack, part) == Reason.FRAG_OVERLAP
    assert socket.receive() is None
    stack.poll(60 * SECOND)
    assert answers(stack) == []  # no error message (RFC 5722)
    for part in parts:
        feed(stack, part, 61 * SECOND)
    assert socket.receive().data == DATA


@pytest.mark.parametrize("family", [4, 6])
def test_a_duplicate_with_other_bytes_is_an_overlap(stack, family):
    first = bytearray(bytes(cut(family, 1448)[0]))
    feed(stack, bytes(first))
    first[-1] ^= 1
    assert feed(stack, bytes(first)) == Reason.FRAG_OVERLAP and stack.held == 0


@pytest.mark.parametrize("family", [4, 6])
def test_ends_that_disagree_are_an_overlap(stack, family):
    def part(at, size, more):
        if family == 4:
            return ip4(id=5, proto=17, frag=at // 8, flags="MF" if more else 0) / bytes(size)
        return ip6() / IPv6ExtHdrFragment(nh=17, offset=at // 8, m=more, id=5) / bytes(size)

    cases = [
        [(800, 80, 0), (1600, 80, 1)],  # beyond the end
        [(800, 80, 0), (400, 80, 0)],  # a second end
        [(1600, 80, 1), (800, 80, 0)],  # an end before what is there
        [(800, 80, 0), (800, 80, 1)],  # the same bytes, not the last
        [(800, 80, 1), (800, 80, 0)],  # the same bytes, the last
    ]
    for number, case in enumerate(cases, 1):
        stack.poll(number * 100 * SECOND)
        assert feed(stack, part(*case[0]), number * 100 * SECOND) == Reason.DELIVERED
        assert feed(stack, part(*case[1]), number * 100 * SECOND) == Reason.FRAG_OVERLAP
        assert stack.held == 0


@pytest.mark.parametrize(("family", "life"), [(4, 30), (6, 60)])
def test_time_exceeded_is_told_where_the_first_fragment_came(stack, family, life):
    parts = [bytes(p) for p in cut(family, 1448)]
    feed(stack, parts[0], SECOND)
    assert stack.poll(life * SECOND + SECOND - 1) is not None and stack.held == 1
    stack.output()
    stack.poll((life + 1) * SECOND)
    assert stack.held == 0 and stack.drops == {"stack.frag_reasm_timeout": 1}
    conserve(stack)
    (error,) = answers(stack)
    if family == 4:
        assert (error[ICMP].type, error[ICMP].code) == (11, 1)
        assert bytes(error)[42:] == parts[0][14:][:548]
    else:
        assert error[ICMPv6TimeExceeded].code == 1
        assert bytes(error)[62:] == parts[0][14:][:1232]
    feed(stack, parts[1], 200 * SECOND)
    stack.poll(300 * SECOND)
    assert answers(stack) == [] and stack.drops == {"stack.frag_reasm_timeout": 2}


def test_no_time_exceeded_about_a_group(stack):
    part = ether("ff:ff:ff:ff:ff:ff") / IP(src=PEER4, dst="10.7.0.255", flags="MF", proto=17) / bytes(80)
    feed(stack, part)
    stack.poll(31 * SECOND)
    assert stack.held == 0 and answers(stack) == []


@pytest.mark.parametrize("family", [4, 6])
def test_a_late_fragment_does_not_join_an_expired_datagram(stack, family):
    parts = cut(family, 2016)
    feed(stack, parts[0], 0)
    assert feed(stack, parts[1], 61 * SECOND) == Reason.DELIVERED  # before the timer ran
    assert stack.held == 1 and stack.drops == {"stack.frag_reasm_timeout": 1}


@pytest.mark.parametrize("size", [1, 7, 9, 100])
def test_a_fragment_that_is_no_multiple_of_eight(stack, size):
    assert feed(stack, ip4(flags="MF", proto=17) / bytes(size)) == Reason.IP_HEADER
    assert sent(stack) == []
    assert feed(stack, ip6() / IPv6ExtHdrFragment(nh=59, m=1, id=1) / bytes(size)) == Reason.IP_HEADER
    problem = one(stack)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 4)


def test_a_fragment_beyond_65535(stack):
    assert feed(stack, ip4(frag=8189, proto=17) / bytes(24)) == Reason.IP_HEADER
    assert feed(stack, ip6() / IPv6ExtHdrFragment(nh=17, offset=8191, id=1) / bytes(24)) == Reason.IP_HEADER
    problem = one(stack)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 42)


def test_an_empty_fragment(stack):
    assert feed(stack, ip4(flags="MF", proto=17)) == Reason.IP_HEADER
    assert feed(stack, ip4(frag=9, proto=17)) == Reason.IP_HEADER
    assert feed(stack, ip6() / IPv6ExtHdrFragment(nh=17, offset=9, id=1)) == Reason.IP_HEADER


def test_headers_that_make_the_whole_too_long(stack):
    """The pieces fit, but with the first one's options the datagram does not (the ping of death)."""
    options = [IPOption_NOP()] * 40
    feed(stack, ip4(id=9, frag=8185 - 1, proto=17) / bytes(30))
    for at in range(0, 8184, 1024):
        size = min(8192, (8184 - at) * 8)
        packet = ip4(id=9, flags="MF", frag=at, proto=17, options=options if at == 0 else []) / bytes(size)
        reason = feed(stack, packet)
    assert reason == Reason.IP_HEADER and stack.held == 0


def test_headers_that_make_the_whole_too_long_in_ipv6(stack):
    from scapy.layers.inet6 import PadN

    head = ip6() / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(100))])
    feed(stack, ip6() / IPv6ExtHdrFragment(nh=17, offset=8190, id=3) / bytes(10))
    for at in range(0, 8190, 1024):
        size = min(8192, (8190 - at) * 8)
        base = head.copy() if at == 0 else ip6()
        reason = feed(stack, base / IPv6ExtHdrFragment(nh=17, offset=at, m=1, id=3) / bytes(size))
    assert reason == Reason.IP_HEADER and stack.held == 0


def test_options_of_the_first_fragment_do_not_matter_above(stack):
    socket = stack.udp(7)
    parts = cut4(ip4(options=[IPOption_NOP()] * 4, id=3) / UDP(dport=7) / DATA, 1440)
    for part in parts:
        feed(stack, part)
    assert socket.receive().data == DATA


def test_extension_headers_before_and_behind_the_fragment_header(stack):
    socket = stack.udp(7, family=6)
    whole = ip6() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=7) / DATA
    for part in cut6(whole, 1024, head=ip6() / IPv6ExtHdrHopByHop()):
        assert feed(stack, part) == Reason.DELIVERED
    assert socket.receive().data == DATA
    for part in cut6(
        ip6() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=8) / DATA, 1024, 78, ip6() / IPv6ExtHdrHopByHop()
    ):
        feed(stack, part)
    quote = IPv6(bytes(one(stack))[62:])  # as it would have come whole
    assert quote.nh == 0 and IPv6ExtHdrFragment not in quote and quote[UDP].dport == 8


def test_an_atomic_fragment_is_a_whole_packet(stack):
    socket = stack.udp(7, family=6)
    feed(stack, cut(6, 1448)[0])
    packet = ip6() / IPv6ExtHdrFragment(id=77) / UDP(sport=1, dport=7) / b"atom"
    assert feed(stack, packet) == Reason.DELIVERED
    assert socket.receive().data == b"atom" and stack.held == 1


def test_a_second_fragment_header_is_refused(stack):
    packet = ip6() / IPv6ExtHdrFragment(id=1) / IPv6ExtHdrFragment(id=2) / UDP(dport=7)
    assert feed(stack, packet) == Reason.IP_HEADER


@pytest.mark.parametrize(
    ("nh", "body"),
    [
        (17, bytes(0)),
        (6, bytes(16)),
        (60, bytes([17, 4]) + bytes(14)),
        (60, bytes([60, 0]) + bytes(6) + bytes([17, 3]) + bytes(6)),
    ],
)
def test_a_first_fragment_without_all_headers_is_told(stack, nh, body):
    reason = feed(stack, ip6() / IPv6ExtHdrFragment(nh=nh, m=1, id=9) / body)
    assert reason == Reason.IP_HEADER
    assert one(stack)[ICMPv6ParamProblem].code == 3


def test_a_first_fragment_that_may_be_an_error_is_not_answered(stack):
    assert feed(stack, ip6() / IPv6ExtHdrFragment(nh=58, m=1, id=9)) == Reason.IP_HEADER
    assert sent(stack) == []


def test_a_chain_of_many_headers_in_a_first_fragment_is_told(stack):
    body = (bytes([60, 0, 1, 4]) + bytes(4)) * 40
    assert feed(stack, ip6() / IPv6ExtHdrFragment(nh=60, m=1, id=9) / body) == Reason.IP_HEADER


def test_keys_differ_by_source_and_protocol(stack):
    socket = stack.udp(7)
    ours, theirs = (
        cut4(ip4(id=5) / UDP(dport=7) / DATA, 2048),
        cut4(ip4(id=5, src="10.7.0.10") / UDP(dport=7) / DATA[::-1], 2048),
    )
    feed(stack, ours[0])
    feed(stack, theirs[0])
    feed(stack, ip4(id=5, proto=99, flags="MF") / bytes(80))
    assert stack.held == 3
    feed(stack, ours[1])
    feed(stack, theirs[1])
    assert socket.receive().data == DATA and socket.receive().data == DATA[::-1]


def test_one_source_holds_at_most_half(stack):
    stack = engine(reassembly_bytes=16384)
    other = ip4(id=1, src="10.7.0.10", flags="MF", proto=17) / bytes(1400)
    feed(stack, other)
    for ident in range(100):
        feed(stack, ip4(id=ident, flags="MF", proto=17) / bytes(1400))
    assert stack.held == 1 + 8192 // 1500
    assert stack.drops == {"stack.frag_reasm_full": 100 - 8192 // 1500}


def test_all_sources_hold_at_most_the_limit():
    stack = engine(reassembly_bytes=16384)
    for host in range(10, 90):
        feed(stack, ip4(src=f"10.7.0.{host}", flags="MF", proto=17) / bytes(1400))
    assert stack.held == 16384 // 1470
    stack.poll(31 * SECOND)
    assert stack.held == 0
    conserve(stack)


def test_the_number_of_datagrams_is_bounded(stack):
    for ident in range(100):
        feed(stack, ip4(id=ident, flags="MF", proto=17) / bytes(8))
    assert stack.held == 64


def test_the_number_of_fragments_of_a_datagram_is_bounded(stack):
    for at in range(1024):
        assert feed(stack, ip4(id=1, flags="MF", frag=at * 2, proto=17) / bytes(8)) == Reason.DELIVERED
    assert feed(stack, ip4(id=1, flags="MF", frag=4000, proto=17) / bytes(8)) == Reason.FRAG_REASM_FULL
    assert stack.held == 0


def test_a_datagram_larger_than_the_share_is_dropped():
    stack = engine(reassembly_bytes=4096)
    for part in cut(4, 1480):
        feed(stack, part)
    assert stack.drops.get("stack.frag_reasm_full", 0) >= 2


def test_closing_with_fragments_held_frees_them():
    stack = engine()
    feed(stack, ip4(id=1, flags="MF", proto=17) / bytes(80))
    stack.udp().send(b"x", "10.7.0.99", 9, 0)
    stack.close()
    stack.close()


def test_an_echo_request_in_fragments_to_a_group(stack):
    packet = ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst="ff02::1") / ICMPv6EchoRequest(data=DATA)
    head = ether("33:33:00:00:00:01") / IPv6(src=PEER6, dst="ff02::1")
    for part in cut6(packet, 1024, head=head):
        assert feed(stack, part) == Reason.DELIVERED
    assert Ether(stack.output()[0])[IPv6].src == IP6
    assert IP4
