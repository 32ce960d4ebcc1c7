# SPDX-License-Identifier: MIT
"""Neighbour discovery (RFC 4861) and the neighbour table's life for IPv6."""

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6ExtHdrFragment,
)

from exonet.errors import UsageError
from libos_stacks.engine import Neighbour
from tests.stack_frames import (
    IP6,
    MAC,
    PEER6,
    PEER_MAC,
    SECOND,
    UDP,
    IPv6,
    Reason,
    engine,
    ether,
    feed,
    introduce,
    ip6,
    one,
    sent,
)

OTHER_MAC = "02:00:00:00:00:55"
ROUTER = "fe80::1"
SOLICITED = ("33:33:ff:00:00:02", "ff02::1:ff00:2")


def ns(src=PEER6, target=IP6, mac=PEER_MAC, unicast=False, **fields):
    link, dst = (MAC, IP6) if unicast else SOLICITED
    packet = ether(link) / IPv6(src=src, dst=dst, hlim=fields.pop("hlim", 255)) / ICMPv6ND_NS(tgt=target, **fields)
    return packet / ICMPv6NDOptSrcLLAddr(lladdr=mac) if mac else packet


def na(target=PEER6, mac=PEER_MAC, s=1, o=1, dst=IP6, **fields):
    link = "33:33:00:00:00:01" if dst.startswith("ff") else MAC
    packet = (
        ether(link)
        / IPv6(src=PEER6, dst=dst, hlim=fields.pop("hlim", 255))
        / ICMPv6ND_NA(tgt=target, R=0, S=s, O=o, **fields)
    )
    return packet / ICMPv6NDOptDstLLAddr(lladdr=mac) if mac else packet


def state(stack, address=PEER6):
    found, mac = stack.neighbour(address)
    return found, mac.hex(":")


@pytest.fixture
def stack():
    with engine() as stack:
        yield stack


@pytest.mark.parametrize("unicast", [False, True])
def test_a_solicitation_is_answered_and_its_sender_learnt(stack, unicast):
    assert feed(stack, ns(unicast=unicast)) == Reason.DELIVERED
    reply = one(stack)
    advert = reply[ICMPv6ND_NA]
    assert (reply.dst, reply[IPv6].src, reply[IPv6].dst, reply[IPv6].hlim) == (PEER_MAC, IP6, PEER6, 255)
    assert (advert.tgt, advert.R, advert.S, advert.O, reply[ICMPv6NDOptDstLLAddr].lladdr) == (IP6, 0, 1, 1, MAC)
    assert state(stack)[1] == PEER_MAC


def test_a_solicitation_without_a_link_address_makes_us_ask(stack):
    assert feed(stack, ns(unicast=True, mac=None)) == Reason.DELIVERED
    assert one(stack)[ICMPv6ND_NS].tgt == PEER6
    feed(stack, na())
    assert one(stack)[ICMPv6ND_NA].tgt == IP6


def test_a_duplicate_address_probe_is_answered_to_all_nodes(stack):
    assert feed(stack, ns(src="::", mac=None)) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply[IPv6].dst, reply[ICMPv6ND_NA].S, reply[ICMPv6ND_NA].O) == (
        "33:33:00:00:00:01",
        "ff02::1",
        0,
        1,
    )
    assert stack.counters["address_conflicts"] == 1


def test_another_target_is_otherhost(stack):
    assert feed(stack, ns(target="fd07::1:2")) == Reason.OTHERHOST
    assert sent(stack) == [] and state(stack)[0] == Neighbour.FREE


@pytest.mark.parametrize(
    "packet",
    [
        ns(hlim=254),
        ns(code=1),
        ns(target="ff02::1"),
        ns(src="::"),
        ns(mac="01:00:00:00:00:01"),
        ether() / IPv6(src="::", dst=IP6, hlim=255) / ICMPv6ND_NS(tgt=IP6),
        na(hlim=64),
        na(code=1),
        na(target="ff02::1"),
        na(dst="ff02::1", s=1),
        na(mac="03:00:00:00:00:01"),
        ip6(hlim=255) / IPv6ExtHdrFragment() / ICMPv6ND_NS(tgt=IP6),
    ],
)
def test_what_rfc_4861_says_to_discard(stack, packet):
    assert feed(stack, packet) == Reason.NDP_HEADER
    assert sent(stack) == [] and state(stack)[0] == Neighbour.FREE


def raw(kind, body):
    from scapy.layers.inet6 import ICMPv6Unknown

    return ip6(hlim=255) / ICMPv6Unknown(type=kind, msgbody=body)


@pytest.mark.parametrize("kind", [134, 135, 136])
@pytest.mark.parametrize("option", [b"\1\0" + bytes(6), b"\1\2" + bytes(6), b"\1", b"\1\xff" + bytes(14)])
def test_broken_options_spoil_the_message(stack, kind, option):
    body = bytes(12) if kind == 134 else bytes(4) + bytes.fromhex("fd070000000000000000000000000002")
    packet = raw(kind, body + option)
    if kind == 134:
        packet[IPv6].src = ROUTER
    assert feed(stack, packet) == Reason.NDP_HEADER


@pytest.mark.parametrize("kind", [134, 135, 136])
@pytest.mark.parametrize("size", [4, 8, 11])
def test_short_messages(stack, kind, size):
    assert feed(stack, raw(kind, bytes(size))) == Reason.NDP_HEADER


def test_solicitations_are_repeated_and_then_given_up(stack):
    socket = stack.udp(family=6)
    socket.send(b"x", PEER6, 7, 0)
    ask = one(stack)
    assert (ask.dst, ask[IPv6].dst, ask[IPv6].src, ask[IPv6].hlim) == ("33:33:ff:00:00:09", "ff02::1:ff00:9", IP6, 255)
    assert ask[ICMPv6ND_NS].tgt == PEER6 and ask[ICMPv6NDOptSrcLLAddr].lladdr == MAC
    for at in (1, 2):
        assert stack.poll(at * SECOND) == (at + 1) * SECOND and len(sent(stack)) == 1
    assert stack.poll(3 * SECOND) is None and sent(stack) == []
    assert socket.error() == (6, 1, 3) and stack.counters["out_neigh_failed"] == 1


def resolve(stack, now=0):
    socket = stack.udp(family=6)
    socket.send(b"x", PEER6, 7, now)
    feed(stack, na(), now)
    stack.output()
    return socket


def test_what_waited_leaves_when_the_answer_comes(stack):
    socket = stack.udp(family=6)
    for i in range(3):
        socket.send(bytes([i]), PEER6, 7, 0)
    stack.output()
    assert feed(stack, na(mac=None)) == Reason.OTHERHOST  # no address in it
    assert feed(stack, na(target="fd07::8")) == Reason.OTHERHOST  # nobody asked
    assert feed(stack, na()) == Reason.DELIVERED
    assert [p[UDP].load for p in sent(stack)] == [b"\0", b"\1", b"\2"]
    assert state(stack) == (Neighbour.REACHABLE, PEER_MAC)


@pytest.mark.parametrize(
    ("s", "o", "mac", "after"),
    [  # RFC 4861 7.2.5 and its appendix C, from REACHABLE
        (1, 1, OTHER_MAC, (Neighbour.REACHABLE, OTHER_MAC)),
        (0, 1, OTHER_MAC, (Neighbour.STALE, OTHER_MAC)),
        (1, 0, OTHER_MAC, (Neighbour.STALE, PEER_MAC)),
        (0, 0, OTHER_MAC, (Neighbour.STALE, PEER_MAC)),
        (0, 0, PEER_MAC, (Neighbour.REACHABLE, PEER_MAC)),
        (0, 1, PEER_MAC, (Neighbour.REACHABLE, PEER_MAC)),
        (1, 0, None, (Neighbour.REACHABLE, PEER_MAC)),
        (0, 1, None, (Neighbour.REACHABLE, PEER_MAC)),
    ],
)
def test_the_flags_of_an_advertisement(stack, s, o, mac, after):
    resolve(stack)
    assert feed(stack, na(mac=mac, s=s, o=o)) == Reason.DELIVERED
    assert state(stack) == after


def test_an_unsolicited_answer_leaves_the_neighbour_stale(stack):
    socket = stack.udp(family=6)
    socket.send(b"x", PEER6, 7, 0)
    feed(stack, na(s=0, dst="ff02::1"))
    assert state(stack)[0] == Neighbour.STALE
    assert feed(stack, na(s=0, o=0, mac=OTHER_MAC)) == Reason.DELIVERED
    assert state(stack) == (Neighbour.STALE, PEER_MAC)


def test_reachability_is_verified_by_unicast(stack):
    socket = resolve(stack)
    socket.send(b"x", PEER6, 7, 31 * SECOND)
    assert state(stack)[0] == Neighbour.DELAY
    stack.output()
    stack.poll(36 * SECOND)
    probe = one(stack)
    assert (probe.dst, probe[IPv6].dst) == (PEER_MAC, PEER6) and state(stack)[0] == Neighbour.PROBE
    feed(stack, na(), 36 * SECOND)
    assert state(stack)[0] == Neighbour.REACHABLE


def test_somebody_elses_claim_to_our_address_is_counted(stack):
    assert feed(stack, na(target=IP6)) == Reason.REFUSED
    assert stack.counters["address_conflicts"] == 1 and state(stack, IP6)[0] == Neighbour.FREE


def ra(src=ROUTER, lifetime=1800, options=(), **fields):
    packet = ether("33:33:00:00:00:01") / IPv6(src=src, dst="ff02::1", hlim=fields.pop("hlim", 255))
    packet = packet / ICMPv6ND_RA(routerlifetime=lifetime, **fields) / ICMPv6NDOptSrcLLAddr(lladdr=OTHER_MAC)
    for option in options:
        packet = packet / option
    return packet


def test_a_router_is_used_for_its_lifetime(stack):
    socket = stack.udp(family=6)
    with pytest.raises(UsageError):
        socket.send(b"x", "2001:db8::1", 7, 0)
    assert feed(stack, ra()) == Reason.DELIVERED
    socket.send(b"x", "2001:db8::1", 7, 0)
    assert one(stack).dst == OTHER_MAC
    assert feed(stack, ra("fe80::7")) == Reason.DELIVERED  # the first is kept
    feed(stack, ra(lifetime=0), SECOND)
    with pytest.raises(UsageError):
        socket.send(b"x", "2001:db8::1", 7, SECOND)
    feed(stack, ra(lifetime=10), SECOND)
    with pytest.raises(UsageError):
        socket.send(b"x", "2001:db8::1", 7, 11 * SECOND)


def prefix(address="2001:db8::", bits=64, on_link=1, valid=100):
    return ICMPv6NDOptPrefixInfo(prefix=address, prefixlen=bits, L=on_link, validlifetime=valid)


def test_on_link_prefixes_are_reached_directly_for_their_lifetime(stack):
    socket = stack.udp(family=6)
    assert feed(stack, ra(lifetime=0, options=[ICMPv6NDOptMTU(), prefix()])) == Reason.DELIVERED
    socket.send(b"x", "2001:db8::1", 7, 0)
    assert one(stack)[ICMPv6ND_NS].tgt == "2001:db8::1"
    feed(stack, ra(lifetime=0, options=[prefix(valid=200)]), 50 * SECOND)
    socket.send(b"x", "2001:db8::2", 7, 249 * SECOND)
    with pytest.raises(UsageError):
        socket.send(b"x", "2001:db8::3", 7, 250 * SECOND)
    feed(stack, ra(lifetime=0, options=[prefix(valid=0xFFFFFFFF)]), 250 * SECOND)
    socket.send(b"x", "2001:db8::3", 7, 10**6 * SECOND)


@pytest.mark.parametrize("option", [prefix(on_link=0), prefix("fe80::"), prefix("ff00::"), prefix(bits=129)])
def test_other_prefixes_are_left_alone(stack, option):
    feed(stack, ra(lifetime=0, options=[option]))
    with pytest.raises(UsageError):
        stack.udp(family=6).send(b"x", "2001:db8::1", 7, 0)


def test_a_flood_of_prefixes_is_bounded(stack):
    for i in range(100):
        feed(stack, ra(lifetime=0, options=[prefix(f"2001:db8:{i:x}::", 48)]))
    socket = stack.udp(family=6)
    socket.send(b"x", "2001:db8:7::1", 7, 0)
    with pytest.raises(UsageError):
        socket.send(b"x", "2001:db8:8::1", 7, 0)


@pytest.mark.parametrize("packet", [ra(src="2001:db8::1"), ra(hlim=254), ra(code=1)])
def test_router_advertisements_that_are_discarded(stack, packet):
    assert feed(stack, packet) == Reason.NDP_HEADER


def test_solicitations_of_routers_and_redirects_are_not_for_us(stack):
    assert feed(stack, ip6(hlim=255) / ICMPv6ND_RS()) == Reason.UNHANDLED_PROTO
    assert feed(stack, ip6(hlim=255) / ICMPv6ND_Redirect(tgt=PEER6, dst=PEER6)) == Reason.REFUSED


def test_the_source_address_fits_the_destination():
    stack = engine("fd07::2/64", "fe80::2/64", "2001:db8:1::2/64", gateway="fe80::1")
    socket = stack.udp(family=6)
    for peer, source in [
        ("fe80::9", "fe80::2"),
        ("fd07::9", "fd07::2"),
        ("2001:db8:1::9", "2001:db8:1::2"),
        ("ff02::5", "fe80::2"),
    ]:
        socket.send(b"x", peer, 7, 0)
        assert one(stack)[IPv6].src == source
    socket.send(b"x", "2001:db8:5::1", 7, 0)
    assert one(stack)[ICMPv6ND_NS].tgt == "fe80::1"


def test_a_router_that_is_known_serves_many(stack):
    introduce(stack)
    feed(stack, ra())
    socket = stack.udp(family=6)
    for i in range(1, 20):
        socket.send(b"x", f"2001:db8::{i}", 7, 0)
    assert {p.dst for p in sent(stack)} == {OTHER_MAC}
