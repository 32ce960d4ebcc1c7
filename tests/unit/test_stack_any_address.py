# SPDX-License-Identifier: MIT
"""any_address, the mode of replay: every unicast is ours, answers turn the frame round, nobody is asked."""

import pytest
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
)

from exonet.errors import UsageError
from libos_stacks.engine import Engine, Neighbour, StackConfig
from tests.stack_frames import ARP, BROADCAST, ICMP, IP, MAC, UDP, Ether, IPv6, Reason, engine, feed, one, sent

THEIRS, HOST = "00:11:22:33:44:55", "00:aa:bb:cc:dd:ee"


@pytest.fixture
def stack():
    with Engine(StackConfig.make(MAC, any_address=True)) as stack:
        yield stack


def frame(dst="192.0.2.1", src="198.51.100.7", link=THEIRS):
    version = IPv6 if ":" in dst else IP
    return Ether(dst=link, src=HOST) / version(src=src, dst=dst)


@pytest.mark.parametrize(
    ("dst", "src"), [("192.0.2.1", "198.51.100.7"), ("8.8.8.8", "10.7.0.255"), ("169.254.1.1", "169.254.1.2")]
)
def test_echo_is_answered_as_the_one_addressed(stack, dst, src):
    assert feed(stack, frame(dst, src) / ICMP() / b"x") == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply.src, reply[IP].src, reply[IP].dst, reply[ICMP].type) == (HOST, THEIRS, dst, src, 0)


@pytest.mark.parametrize(
    "dst", ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "240.0.0.1", "::", "::1", "::ffff:192.0.2.1"]
)
def test_what_is_no_hosts_address_is_not_answered(stack, dst):
    """RFC 1122 3.2.1.3, RFC 4291 2.5.2 and 2.5.3: silent, and counted."""
    v6 = ":" in dst
    src = "2001:db8::2" if v6 else "198.51.100.7"
    assert feed(stack, frame(dst, src) / (ICMPv6EchoRequest() if v6 else ICMP())) == Reason.OTHERHOST
    assert feed(stack, frame(dst, src) / UDP(dport=9)) == Reason.OTHERHOST
    assert sent(stack) == []


@pytest.mark.parametrize(
    ("dst", "src"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "127.0.0.1"),
        ("192.0.2.1", "0.1.2.3"),
        ("192.0.2.1", "224.0.0.1"),
        ("192.0.2.1", "255.255.255.255"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::1", "::1"),
        ("2001:db8::1", "::ffff:192.0.2.1"),
        ("2001:db8::1", "ff02::1"),
    ],
)
def test_what_no_other_host_can_send_is_not_answered(stack, dst, src):
    message = ICMPv6EchoRequest() if ":" in dst else ICMP()
    for packet in (frame(dst, src) / message, frame(dst, src) / UDP(dport=9)):
        assert feed(stack, packet) == Reason.IP_INVALID_SOURCE
    assert sent(stack) == []


@pytest.mark.parametrize(("dst", "src"), [("192.0.2.1", "0.0.0.0"), ("2001:db8::1", "::")])
def test_echo_from_nobody_is_refused(stack, dst, src):
    assert feed(stack, frame(dst, src) / (ICMPv6EchoRequest() if ":" in dst else ICMP())) == Reason.REFUSED
    assert sent(stack) == []


@pytest.mark.parametrize("target", ["127.0.0.1", "0.0.0.0", "255.255.255.255"])
def test_arp_for_what_is_no_hosts_address_is_not_answered(stack, target):
    request = Ether(dst=BROADCAST, src=HOST) / ARP(op=1, hwsrc=HOST, psrc="192.0.2.7", pdst=target)
    assert feed(stack, request) == Reason.OTHERHOST
    assert sent(stack) == []


@pytest.mark.parametrize("target", ["::1", "::", "::ffff:192.0.2.1"])
def test_solicitations_of_what_is_no_hosts_address_are_not_answered(stack, target):
    link = Ether(dst="33:33:ff:00:00:01", src=HOST)
    packet = link / IPv6(src="2001:db8::2", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=target)
    assert feed(stack, packet / ICMPv6NDOptSrcLLAddr(lladdr=HOST)) == Reason.NDP_HEADER
    assert sent(stack) == []


def test_echo_over_ipv6(stack):
    assert feed(stack, frame("2001:db8::1", "2001:db8::2") / ICMPv6EchoRequest()) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply.src, reply[IPv6].src) == (HOST, THEIRS, "2001:db8::1") and ICMPv6EchoReply in reply


@pytest.mark.parametrize(("dst", "src"), [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")])
def test_udp_is_answered_as_the_one_addressed(stack, dst, src):
    socket = stack.udp(53, family=6 if ":" in dst else 4)
    for i in range(3):
        assert feed(stack, frame(dst, src) / UDP(sport=1000 + i, dport=53) / b"q") == Reason.DELIVERED
    for i in range(3):
        got = socket.receive()
        socket.send(b"a", got.peer, got.port, 0, got.local)
        reply = one(stack)
        assert (reply.dst, reply.src, reply[UDP].sport, reply[UDP].dport) == (HOST, THEIRS, 53, 1000 + i)
        assert (reply.payload.src, reply.payload.dst) == (dst, src)
    assert stack.neighbour(src)[0] == Neighbour.PERMANENT and stack.poll(10**12) is None


def test_a_closed_port_is_told(stack):
    assert feed(stack, frame() / UDP(dport=9)) == Reason.NO_SOCKET
    reply = one(stack)
    assert (reply.dst, reply.src, reply[ICMP].code) == (HOST, THEIRS, 3)
    feed(stack, frame("2001:db8::1", "2001:db8::2") / UDP(dport=9))
    assert one(stack)[ICMPv6DestUnreach].code == 4


def test_nobody_is_asked_and_strangers_have_no_route(stack):
    with pytest.raises(UsageError, match="no such thing"):
        stack.udp(53).send(b"x", "192.0.2.9", 9, 0)
    assert sent(stack) == []


def test_groups_have_no_address_to_answer_from(stack):
    socket = stack.udp(67)
    assert feed(stack, frame("255.255.255.255", link=BROADCAST) / UDP(dport=67)) == Reason.DELIVERED
    got = socket.receive()
    with pytest.raises(UsageError):
        socket.send(b"x", got.peer, got.port, 0, got.local)
    assert feed(stack, frame("ff02::1", "2001:db8::2", "33:33:00:00:00:01") / ICMPv6EchoRequest()) == Reason.DELIVERED
    assert sent(stack) == []


def test_arp_requests_are_answered_for_every_address(stack):
    request = Ether(dst=BROADCAST, src=HOST) / ARP(op=1, hwsrc=HOST, psrc="192.0.2.7", pdst="192.0.2.1")
    assert feed(stack, request) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.psrc, reply.hwsrc, reply.dst) == ("192.0.2.1", MAC, HOST)
    for psrc in ("0.0.0.0", "192.0.2.1"):  # a probe or an announcement is no question to us
        feed(stack, Ether(dst=BROADCAST, src=HOST) / ARP(op=1, hwsrc=HOST, psrc=psrc, pdst="192.0.2.1"))
        assert sent(stack) == []
    stack.udp(5, "192.0.2.1").send(b"x", "192.0.2.7", 9, 0)
    assert one(stack).dst == HOST


def test_solicitations_are_answered_for_every_address(stack):
    def ask(src):
        packet = (
            Ether(dst="33:33:ff:00:00:01", src=HOST)
            / IPv6(src=src, dst="ff02::1:ff00:1", hlim=255)
            / ICMPv6ND_NS(tgt="2001:db8::1")
        )
        return packet if src == "::" else packet / ICMPv6NDOptSrcLLAddr(lladdr=HOST)

    assert feed(stack, ask("2001:db8::2")) == Reason.DELIVERED
    assert one(stack)[ICMPv6ND_NA].tgt == "2001:db8::1"
    assert feed(stack, ask("::")) == Reason.OTHERHOST
    assert sent(stack) == []
    advert = (
        Ether(dst=THEIRS, src=HOST)
        / IPv6(src="2001:db8::2", dst="2001:db8::1", hlim=255)
        / ICMPv6ND_NA(tgt="2001:db8::2")
    )
    assert feed(stack, advert) == Reason.OTHERHOST


@pytest.mark.slow
def test_many_peers_do_not_grow_the_table():
    stack = engine(any_address=True, neighbours=16)
    socket = stack.udp(53)
    for i in range(1000):
        feed(stack, frame(src=f"198.51.{i // 250}.{i % 250}") / UDP(dport=53))
        got = socket.receive()
        socket.send(b"x", got.peer, got.port, 0, got.local)
    assert len(sent(stack)) == 1000


def test_a_small_mtu_takes_no_ipv6():
    stack = Engine(StackConfig.make(MAC, any_address=True, mtu=1000))
    assert feed(stack, frame("2001:db8::1", "2001:db8::2") / ICMPv6EchoRequest()) == Reason.UNHANDLED_PROTO
