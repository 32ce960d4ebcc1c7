# SPDX-License-Identifier: MIT
"""UDP (RFC 768) and its sockets: binding, queues, checksums both ways, sending."""

import random

import pytest

from exonet.errors import ConflictError, ExhaustedError, UsageError
from libos_stacks.abi import ffi, lib
from tests.stack_frames import (
    BROADCAST,
    ICMP,
    IP,
    IP4,
    IP6,
    PEER4,
    PEER6,
    SECOND,
    UDP,
    IPv6,
    Reason,
    engine,
    ether,
    feed,
    frame_sum,
    introduce,
    ip4,
    ip6,
    one,
    sent,
)


@pytest.fixture
def stack():
    with engine() as stack:
        introduce(stack)
        yield stack


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, 18, 19, 100, 1452])
def test_echo(stack, family, size):
    socket = stack.udp(7, family=family)
    data = random.Random(size).randbytes(size)
    packet = (ip4() if family == 4 else ip6()) / UDP(sport=1000, dport=7) / data
    assert feed(stack, packet, 5) == Reason.DELIVERED
    got = socket.receive()
    assert (got.data, str(got.peer), got.port, str(got.local), got.timestamp) == (
        data,
        PEER4 if family == 4 else PEER6,
        1000,
        IP4 if family == 4 else IP6,
        5,
    )
    assert got.peer_mac.hex(":") == "02:00:00:00:00:09"
    assert socket.receive() is None
    socket.send(got.data, got.peer, got.port, 6, got.local)
    reply = one(stack)
    assert (reply[UDP].sport, reply[UDP].dport) == (7, 1000) and bytes(reply[UDP].payload) == data
    assert (stack.counters["udp_in"], stack.counters["udp_out"]) == (1, 1)


@pytest.mark.parametrize("family", [4, 6])
def test_a_checksum_that_computes_to_zero_is_sent_as_all_ones(stack, family):
    socket = stack.udp(7, family=family)
    peer = PEER4 if family == 4 else PEER6
    probe = 0
    socket.send(b"\0\0", peer, 9, 0)
    probe = one(stack)[UDP].chksum
    socket.send(probe.to_bytes(2, "big"), peer, 9, 0)
    frame = stack.output()[0]
    assert frame[-4:-2] == b"\xff\xff"
    other = engine(f"{peer}/24" if family == 4 else f"{peer}/64")
    back = other.udp(9, family=family)
    assert feed(other, b"\2\0\0\0\0\1" + frame[6:]) == Reason.DELIVERED
    assert back.receive() is not None


def test_a_zero_checksum_is_none_in_ipv4_and_refused_in_ipv6(stack):
    stack.udp(7)
    stack.udp(7, family=6)
    assert feed(stack, ip4() / UDP(dport=7, chksum=0) / b"x") == Reason.DELIVERED
    assert feed(stack, ip6() / UDP(dport=7, chksum=0) / b"x") == Reason.UDP_CSUM


@pytest.mark.parametrize("family", [4, 6])
def test_every_flipped_octet_is_found(stack, family):
    stack.udp(7, family=family)
    start = 34 if family == 4 else 54
    frame = bytes((ip4() if family == 4 else ip6()) / UDP(sport=1000, dport=7) / b"payload")
    for at in range(start, len(frame)):
        bad = bytearray(frame)
        bad[at] ^= 0x40
        assert feed(stack, bytes(bad)) in (Reason.UDP_CSUM, Reason.UDP_HEADER)
    assert sent(stack) == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 17, 18, 33, 34, 60, 61, 500, 1399, 1400])
@pytest.mark.parametrize("trailer", [0, 1, 2, 7])
def test_the_kernels_checksum_agrees_with_computing(stack, family, size, trailer):
    stack.udp(7, family=family)
    data = random.Random(size).randbytes(size)
    frame = bytes((ip4() if family == 4 else ip6()) / UDP(sport=1, dport=7) / data) + random.Random(trailer).randbytes(
        trailer
    )
    assert feed(stack, frame, csum=frame_sum(frame)) == Reason.DELIVERED
    bad = bytearray(frame)
    bad[-1 - trailer] ^= 0x80
    assert feed(stack, bytes(bad), csum=frame_sum(bytes(bad))) in (Reason.UDP_CSUM, Reason.UDP_HEADER)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("length", "reason"), [(0, 1), (7, 1), (8, 0), (11, 0), (12, 0), (13, 1), (65535, 1)])
def test_the_length_field(stack, family, length, reason):
    """Shorter than the IP payload is right, longer or below 8 is not (RFC 768)."""
    socket = stack.udp(7, family=family)
    chksum = {"chksum": 0} if family == 4 else {}
    packet = (ip4() if family == 4 else ip6()) / UDP(sport=1, dport=7, len=length, **chksum) / b"abcd"
    got = feed(stack, packet)
    if reason:
        assert got == Reason.UDP_HEADER
    elif family == 4:
        assert got == Reason.DELIVERED and socket.receive().data == b"abcd"[: length - 8]


@pytest.mark.parametrize("size", range(8))
def test_shorter_than_a_header(stack, size):
    assert feed(stack, ip4(proto=17) / bytes(size)) == Reason.UDP_HEADER


def test_broadcast_and_all_hosts_reach_the_wildcard_socket_only(stack):
    wildcard, bound = stack.udp(7), stack.udp(8, IP4)
    for dst in ("255.255.255.255", "10.7.0.255", "224.0.0.1"):
        packet = ether(BROADCAST) / IP(src=PEER4, dst=dst)
        assert feed(stack, packet / UDP(sport=1000, dport=7) / b"x") == Reason.DELIVERED
        assert feed(stack, packet / UDP(sport=1000, dport=8) / b"x") == Reason.NO_SOCKET
        got = wildcard.receive()
        assert str(got.local) == dst
        wildcard.send(b"y", got.peer, got.port, 0, got.local)  # a group is no source: an own address is chosen
        assert one(stack)[IP].src == IP4
    assert bound.receive() is None


def test_queues_are_bounded_in_bytes_and_go_round():
    stack = engine(socket_bytes=1000)
    introduce(stack)
    socket = stack.udp(7)
    rng = random.Random(1)
    expected = []
    full = 0
    for _ in range(500):
        data = rng.randbytes(rng.choice((0, 1, 50, 150, 333)))
        if feed(stack, ip4() / UDP(sport=9, dport=7) / data) == Reason.DELIVERED:
            expected.append(data)
        else:
            full += 1
        while expected and rng.random() < 0.45:
            assert socket.receive().data == expected.pop(0)
    while expected:
        assert socket.receive().data == expected.pop(0)
    assert socket.receive() is None and full > 10
    assert stack.drops == {"stack.socket_rcvbuff": full}
    assert feed(stack, ip4() / UDP(dport=7) / bytes(1000)) == Reason.SOCKET_RCVBUFF


def test_ready_is_round_robin_and_survives_closing(stack):
    sockets = [stack.udp(port) for port in (10, 11, 12)]
    for port in (10, 10, 11, 12):
        feed(stack, ip4() / UDP(dport=port) / b"x")
    numbers = [s.number for s in sockets]
    assert [stack.ready() for _ in range(4)] == [*numbers, numbers[0]]
    sockets[1].close()
    again = stack.udp(13)
    assert again.number == numbers[1]
    seen = {stack.ready() for _ in range(4)}
    assert seen == {numbers[0], numbers[2]}
    feed(stack, ip4() / UDP(dport=13) / b"x")
    assert again.number in {stack.ready() for _ in range(3)}
    for socket in (sockets[0], sockets[0], sockets[2], again):
        assert socket.receive() is not None
    assert stack.ready() is None and stack.ready() is None


def test_binding(stack):
    socket = stack.udp(53)
    assert socket.port == 53
    for address in (None, IP4):
        with pytest.raises(ConflictError, match="udp port 53"):
            stack.udp(53, address)
    stack.udp(53, family=6)
    bound = stack.udp(54, IP4)
    with pytest.raises(ConflictError):
        stack.udp(54)
    bound.close()
    stack.udp(54)
    for bad in ("10.7.0.3", "255.255.255.255", "224.0.0.1", "fd07::3"):
        with pytest.raises(UsageError):
            stack.udp(55, bad)
    for port in (-1, 65536):
        with pytest.raises((UsageError, OverflowError)):
            stack.udp(port)
    with pytest.raises(UsageError):
        stack.udp(56, family=5)
    socket.close()
    with pytest.raises(UsageError):
        socket.close()
    with pytest.raises(UsageError):
        _ = socket.port
    assert socket.receive() is None and socket.error() is None
    lib.stk_udp_done(stack.native, socket.number)


def test_specific_addresses_share_a_port():
    stack = engine("10.7.0.2/24", "10.7.0.4/24")
    first, second = stack.udp(53, "10.7.0.2"), stack.udp(53, "10.7.0.4")
    feed(stack, ip4("10.7.0.4") / UDP(dport=53) / b"four")
    assert first.receive() is None and second.receive().data == b"four"
    introduce(stack)
    second.send(b"x", PEER4, 9, 0)
    assert one(stack)[IP].src == "10.7.0.4"
    with pytest.raises(UsageError):
        from ipaddress import ip_address

        second.send(b"x", PEER4, 9, 0, ip_address("10.7.0.2"))


def test_ephemeral_ports_follow_the_seed_and_end():
    ports = [[engine(seed=seed).udp().port for _ in range(2)] for seed in (1, 1, 2)]
    assert ports[0] == ports[1] != ports[2]
    assert all(49152 <= p <= 65535 for row in ports for p in row)
    stack = engine(socket_bytes=8)
    taken = [stack.udp().port for _ in range(1024)]
    assert len(set(taken)) == 1024
    with pytest.raises(ExhaustedError):
        stack.udp()


def test_what_cannot_be_sent_is_refused(stack):
    from ipaddress import ip_address

    socket, six = stack.udp(7), stack.udp(7, family=6)
    for data, peer, port, local in [
        (bytes(65508), PEER4, 9, None),
        (b"", PEER4, 0, None),
        (b"", PEER4, 65536, None),
        (b"", PEER6, 9, None),
        (b"", "0.0.0.0", 9, None),
        (b"", IP4, 9, None),
        (b"", "240.0.0.1", 9, None),
        (b"", "127.0.0.1", 9, None),
        (b"", PEER4, 9, "10.7.0.77"),
        (b"", "192.0.2.1", 9, None),
    ]:
        with pytest.raises(UsageError):
            socket.send(data, peer, port, 0, local and ip_address(local))
    for data, peer in [(bytes(65528), PEER6), (b"", "::"), (b"", "::1"), (b"", IP6), (b"", "2001:db8::1")]:
        with pytest.raises(UsageError):
            six.send(data, peer, 9, 0)
    assert sent(stack) == []


def test_sending_to_groups_needs_no_neighbour(stack):
    socket, six = stack.udp(7), stack.udp(7, family=6)
    for peer, mac, ttl in [
        ("255.255.255.255", BROADCAST, 64),
        ("10.7.0.255", BROADCAST, 64),
        ("224.0.0.251", "01:00:5e:00:00:fb", 1),
        ("239.255.1.2", "01:00:5e:7f:01:02", 1),
    ]:
        socket.send(b"x", peer, 9, 0)
        packet = one(stack)
        assert (packet.dst, packet[IP].ttl, packet[IP].src) == (mac, ttl, IP4)
    six.send(b"x", "ff02::fb", 9, 0)
    packet = one(stack)
    assert (packet.dst, packet[IPv6].hlim) == ("33:33:00:00:00:fb", 1)


def test_identifiers_differ_and_follow_the_seed():
    def ids(seed):
        stack = engine(seed=seed)
        introduce(stack)
        socket = stack.udp(7)
        for _ in range(4):
            socket.send(b"x", PEER4, 9, 0)
        return [p[IP].id for p in sent(stack)]

    assert ids(1) == ids(1) != ids(2) and len(set(ids(1))) == 4


def test_no_room_for_a_datagram_is_said():
    from tests.stack_frames import MAC, Engine, StackConfig

    stack = Engine(StackConfig.make(MAC, f"{IP4}/24", f"{IP6}/64"), memory=200)
    introduce(stack)
    for family, peer in ((4, PEER4), (6, PEER6)):
        socket = stack.udp(7, family=family)
        for size in (400, 3000):
            with pytest.raises(ExhaustedError):
                socket.send(bytes(size), peer, 9, 0)
    assert stack.counters["out_no_buffer"] == 4 and stack.counters["udp_out"] == 0


def test_two_runs_with_one_seed_are_equal_to_the_byte():
    def run():
        stack = engine(seed=42)
        introduce(stack)
        socket = stack.udp()
        for i in range(20):
            feed(stack, ip4() / UDP(dport=i) / b"x", i * SECOND)
            socket.send(bytes(i * 300), PEER4, 7, i * SECOND)
            stack.poll(i * SECOND)
        return stack.output(), stack.describe()

    assert run() == run()


def test_an_empty_datagram_may_have_no_data_pointer(stack):
    socket = stack.udp(7)
    peer = bytes([10, 7, 0, 9]) + bytes(12)
    assert lib.stk_udp_send(stack.native, socket.number, 4, peer, 9, ffi.NULL, ffi.NULL, 0, 0) == 0
    assert len(one(stack)[UDP].payload) == 0


def test_errors_and_sockets_of_one_engine_do_not_reach_another(stack):
    other = engine()
    socket = other.udp(5000)
    inner = IP(src=IP4, dst=PEER4) / UDP(sport=5000, dport=7)
    assert feed(stack, ip4() / ICMP(type=3, code=3) / inner) == Reason.NO_SOCKET
    assert socket.error() is None
