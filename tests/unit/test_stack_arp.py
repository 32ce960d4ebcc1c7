# SPDX-License-Identifier: MIT
"""ARP (RFC 826, RFC 5227) and the neighbour table's life for IPv4."""

import pytest

from exonet.errors import UsageError
from libos_stacks.engine import Neighbour
from tests.stack_frames import (
    ARP,
    BROADCAST,
    IP,
    IP4,
    MAC,
    PEER4,
    PEER_MAC,
    SECOND,
    UDP,
    Reason,
    engine,
    ether,
    feed,
    introduce,
    one,
    sent,
)

OTHER_MAC = "02:00:00:00:00:55"


def arp(op=1, dst=BROADCAST, hwsrc=PEER_MAC, psrc=PEER4, pdst=IP4, **fields):
    return ether(dst, src=PEER_MAC) / ARP(op=op, hwsrc=hwsrc, psrc=psrc, pdst=pdst, **fields)


def state(stack, address=PEER4):
    found, mac = stack.neighbour(address)
    return found, mac.hex(":")


def test_a_request_is_answered_and_its_sender_learnt():
    stack = engine()
    assert feed(stack, arp()) == Reason.DELIVERED
    reply = one(stack)
    assert (reply.dst, reply.src) == (PEER_MAC, MAC)
    assert (reply.op, reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == (2, MAC, IP4, PEER_MAC, PEER4)
    assert state(stack) == (Neighbour.STALE, PEER_MAC)
    assert len(reply) == 42


def test_nobody_elses_address_is_answered_or_learnt():
    stack = engine()
    assert feed(stack, arp(pdst="10.7.0.3")) == Reason.OTHERHOST
    assert sent(stack) == [] and state(stack)[0] == Neighbour.FREE


def test_gratuitous_arp_updates_an_entry_but_makes_none():
    stack = engine()
    assert feed(stack, arp(pdst=PEER4)) == Reason.OTHERHOST
    assert state(stack)[0] == Neighbour.FREE
    introduce(stack)
    for op in (1, 2):
        mac = f"02:00:00:00:00:{0x60 + op:02x}"
        assert feed(stack, arp(op, pdst=PEER4, hwsrc=mac)) == Reason.DELIVERED
        assert state(stack) == (Neighbour.STALE, mac)
    assert sent(stack) == []


@pytest.mark.parametrize("op", [1, 2])
def test_a_claim_to_our_address_is_never_learnt(op):
    stack = engine()
    reason = feed(stack, arp(op, psrc=IP4, pdst=IP4, hwsrc=OTHER_MAC))
    assert state(stack, IP4)[0] == Neighbour.FREE
    assert stack.counters["address_conflicts"] == 1
    assert reason == (Reason.DELIVERED if op == 1 else Reason.REFUSED)
    assert len(sent(stack)) == (1 if op == 1 else 0)


def test_a_probe_of_our_address_is_answered_and_not_learnt():
    stack = engine()
    assert feed(stack, arp(psrc="0.0.0.0")) == Reason.DELIVERED
    assert one(stack).psrc == IP4
    assert state(stack, "0.0.0.0")[0] == Neighbour.FREE


@pytest.mark.parametrize(
    "fields",
    [
        {"hwtype": 6},
        {"ptype": 0x86DD},
        {"hwlen": 8},
        {"plen": 16},
        {"op": 0},
        {"op": 3},
        {"op": 25},
        {"hwsrc": BROADCAST},
        {"hwsrc": "01:00:5e:00:00:01"},
        {"psrc": "255.255.255.255"},
        {"psrc": "10.7.0.255"},
        {"psrc": "224.0.0.1"},
        {"psrc": "0.0.0.7"},
    ],
)
def test_bad_fields_are_dropped(fields):
    packet = arp()
    for name, value in fields.items():
        setattr(packet[ARP], name, value)
    stack = engine()
    # hwlen and plen move scapy's fields; the octets are what counts.
    frame = bytearray(bytes(arp()))
    if "hwlen" in fields:
        frame[18] = fields["hwlen"]
    elif "plen" in fields:
        frame[19] = fields["plen"]
    else:
        frame = bytearray(bytes(packet))
    assert feed(stack, bytes(frame)) == Reason.ARP_HEADER
    assert sent(stack) == []


@pytest.mark.parametrize("length", range(14, 42))
def test_every_truncation_is_too_short(length):
    assert feed(engine(), bytes(arp())[:length]) == Reason.TOO_SHORT


def test_requests_are_repeated_with_backoff_and_then_given_up():
    stack = engine()
    socket = stack.udp()
    socket.send(b"hello", PEER4, 7, 0)
    request = one(stack)
    assert (request.dst, request.op, request.psrc, request.pdst, request.hwsrc) == (BROADCAST, 1, IP4, PEER4, MAC)
    assert stack.poll(SECOND - 1) == SECOND and sent(stack) == []
    assert stack.poll(SECOND) == 3 * SECOND and one(stack).op == 1
    assert stack.poll(3 * SECOND) == 7 * SECOND and one(stack).op == 1
    assert socket.error() is None
    assert stack.poll(7 * SECOND) is None and sent(stack) == []
    assert stack.counters["out_neigh_failed"] == 1 and stack.counters["arp_out"] == 3
    assert socket.error() == (4, 3, 1) and socket.error() is None
    assert state(stack)[0] == Neighbour.FREE


def test_what_waited_leaves_in_order_when_the_answer_comes():
    stack = engine()
    socket = stack.udp(5000)
    for i in range(5):
        socket.send(bytes([i]), PEER4, 7, i)
    assert len(sent(stack)) == 1
    assert feed(stack, arp(2, dst=MAC), 10) == Reason.DELIVERED
    packets = sent(stack)
    assert [p[UDP].load for p in packets] == [bytes([i]) for i in range(5)]
    assert {p.dst for p in packets} == {PEER_MAC} and {p[IP].dst for p in packets} == {PEER4}
    assert state(stack) == (Neighbour.REACHABLE, PEER_MAC)
    socket.send(b"now", PEER4, 7, 20)
    assert one(stack)[UDP].load == b"now"


def test_the_oldest_waiting_packet_goes_when_a_neighbours_queue_is_full():
    stack = engine()
    socket = stack.udp(5000)
    for i in range(200):
        socket.send(bytes([i]) * 1400, PEER4, 7, 0)
    lost = stack.counters["out_neigh_failed"]
    assert lost > 0
    stack.output()
    feed(stack, arp(2, dst=MAC))
    assert [p[UDP].load[0] for p in sent(stack)] == list(range(lost, 200))


def test_the_waiting_bytes_of_all_neighbours_are_bounded():
    stack = engine()
    socket = stack.udp(5000)
    refused = 0
    for host in range(10, 30):
        for _ in range(45):
            try:
                socket.send(bytes(1400), f"10.7.0.{host}", 7, 0)
            except Exception as error:
                assert "full" in str(error)
                refused += 1
    assert refused > 0 and stack.counters["out_no_buffer"] == refused


def test_the_largest_datagram_waits_whole():
    stack = engine()
    stack.udp(5000).send(bytes(65507), PEER4, 7, 0)
    stack.output()
    feed(stack, arp(2, dst=MAC))
    assert len(stack.output()) == 45 and stack.counters["out_neigh_failed"] == 0


def test_reachability_is_verified_by_unicast_requests_and_lost_without_answer():
    stack = engine()
    socket = stack.udp()
    socket.send(b"1", PEER4, 7, 0)
    feed(stack, arp(2, dst=MAC), 0)
    stack.output()
    stack.poll(29 * SECOND)
    socket.send(b"2", PEER4, 7, 29 * SECOND)
    assert state(stack)[0] == Neighbour.REACHABLE
    socket.send(b"3", PEER4, 7, 30 * SECOND)
    assert state(stack)[0] == Neighbour.DELAY and len(sent(stack)) == 2
    assert stack.poll(30 * SECOND) == 35 * SECOND
    stack.poll(35 * SECOND)
    probe = one(stack)
    assert probe.dst == PEER_MAC and probe.op == 1 and state(stack)[0] == Neighbour.PROBE
    feed(stack, arp(2, dst=MAC), 35 * SECOND)
    assert state(stack)[0] == Neighbour.REACHABLE
    socket.send(b"4", PEER4, 7, 66 * SECOND)
    for at in (71, 72, 74, 78):
        stack.poll(at * SECOND)
    assert state(stack)[0] == Neighbour.FREE


def test_a_repeated_word_does_not_weaken_what_is_known():
    stack = engine()
    stack.udp().send(b"1", PEER4, 7, 0)
    feed(stack, arp(2, dst=MAC), 0)
    feed(stack, arp(1), 1)
    assert state(stack)[0] == Neighbour.REACHABLE


def test_the_table_is_bounded_and_gives_up_what_is_not_used():
    stack = engine("10.7.0.2/16", neighbours=8)
    socket = stack.udp(9)
    feed(stack, arp())
    for i in range(100):
        socket.send(b"keep", PEER4, 7, 0)
        feed(stack, arp(psrc=f"10.7.1.{i}", hwsrc=OTHER_MAC))
    assert state(stack)[0] != Neighbour.FREE
    assert sum(state(stack, f"10.7.1.{i}")[0] != Neighbour.FREE for i in range(100)) == 7


def test_a_gateway_is_asked_for_what_is_not_on_the_link():
    stack = engine("10.7.0.2/24", gateway="10.7.0.1")
    stack.udp().send(b"x", "192.0.2.1", 53, 0)
    assert one(stack).pdst == "10.7.0.1"
    with pytest.raises(UsageError, match="no such thing"):
        engine("10.7.0.2/24").udp().send(b"x", "192.0.2.1", 53, 0)
