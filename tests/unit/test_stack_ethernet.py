# SPDX-License-Identifier: MIT
"""Ethernet and 802.1Q: whose frame it is, padding, cut frames, VLANs, groups."""

import pytest
from scapy.layers.l2 import Dot1AD, Dot1Q

from libos_stacks.abi import lib
from tests.stack_frames import (
    ARP,
    BROADCAST,
    ICMP,
    IP,
    IP4,
    MAC,
    PEER4,
    PEER_MAC,
    UDP,
    Ether,
    Reason,
    engine,
    ether,
    feed,
    introduce,
    ip4,
    one,
    ping4,
)


def test_another_stations_unicast_is_otherhost():
    assert feed(engine(), ether("02:00:00:00:00:77") / IP(dst=IP4) / UDP()) == Reason.OTHERHOST


@pytest.mark.parametrize("mac", ["01:80:c2:00:00:00", "01:00:5e:00:00:fb", "09:00:00:00:00:00"])
def test_groups_nobody_joined_are_otherhost(mac):
    assert feed(engine(), ether(mac) / IP(dst=IP4) / UDP()) == Reason.OTHERHOST


def test_a_group_source_is_refused():
    assert feed(engine(), Ether(dst=MAC, src="03:00:00:00:00:01") / IP(dst=IP4) / UDP()) == Reason.REFUSED


@pytest.mark.parametrize("length", range(14))
def test_frames_below_a_header_are_too_short(length):
    assert feed(engine(), bytes(length)) == Reason.TOO_SHORT
    assert feed(engine(), bytes(length), flags=lib.EXO_F_SNAPPED, wire_len=60) == Reason.SNAPPED


@pytest.mark.parametrize("kind", [0x0026, 0x05DC, 0x0600, 0x88CC, 0x8137, 0x0842])
def test_other_ethertypes_and_802_3_lengths_are_unhandled(kind):
    assert feed(engine(), ether(type=kind) / bytes(46)) == Reason.UNHANDLED_PROTO


def test_families_without_an_address_are_unhandled():
    only4, only6 = engine(f"{IP4}/24"), engine("fd07::2/64")
    assert feed(only4, ether(type=0x86DD) / bytes(40)) == Reason.UNHANDLED_PROTO
    assert feed(only6, ether(type=0x0800) / bytes(40)) == Reason.UNHANDLED_PROTO
    assert feed(only6, ether(BROADCAST) / ARP(pdst=IP4)) == Reason.UNHANDLED_PROTO


def tagged(*tags, kind=Dot1Q):
    packet = ether()
    for vid in tags:
        packet = packet / kind(vlan=vid)
    return packet / IP(src=PEER4, dst=IP4) / ICMP(id=1, seq=2) / b"x"


@pytest.mark.parametrize(
    ("own", "tags", "reason"),
    [
        (0, (0,), Reason.DELIVERED),
        (0, (5,), Reason.VLAN),
        (5, (5,), Reason.DELIVERED),
        (5, (6,), Reason.VLAN),
        (5, (), Reason.VLAN),
        (5, (0,), Reason.VLAN),
        (5, (5, 5), Reason.VLAN),
        (0, (0, 0), Reason.VLAN),
    ],
)
def test_the_own_vlan_only_and_priority_tags_as_untagged(own, tags, reason):
    assert feed(engine(vlan=own), tagged(*tags)) == reason


def test_a_providers_tag_is_no_vlan_of_ours():
    assert feed(engine(), tagged(5, kind=Dot1AD)) == Reason.VLAN


def test_a_tag_that_ends_early_is_too_short():
    frame = bytes(tagged(5))
    for length in (14, 15, 16, 17):
        assert feed(engine(vlan=5), frame[:length]) == Reason.TOO_SHORT


def test_answers_carry_the_own_tag():
    stack = engine(vlan=5)
    feed(stack, ether(BROADCAST) / Dot1Q(vlan=5) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER4, pdst=IP4))
    reply = one(stack)
    assert reply[Dot1Q].vlan == 5 and reply[ARP].psrc == IP4 and reply.dst == PEER_MAC
    feed(stack, tagged(5))
    reply = one(stack)
    assert reply[Dot1Q].vlan == 5 and reply[ICMP].type == 0 and len(reply) == 18 + 20 + 8 + 1


def test_r07_padding_is_not_part_of_the_packet():
    stack = engine()
    introduce(stack)
    frame = bytes(ping4(b"x"))
    for flags, wire_len in ((0, 60), (lib.EXO_F_PADDED, len(frame))):
        assert feed(stack, frame.ljust(60, b"\xaa"), flags=flags, wire_len=wire_len) == Reason.DELIVERED
        assert one(stack)[ICMP].load == b"x"


def test_r07_a_packet_longer_than_its_unpadded_frame_is_too_short():
    frame = bytes(ping4(b"x"))
    assert feed(engine(), frame.ljust(60, b"\0"), flags=lib.EXO_F_PADDED, wire_len=len(frame) - 1) == Reason.TOO_SHORT


def test_r07_frames_a_snaplen_cut_are_counted_apart():
    frame = bytes(ping4(bytes(1000)))
    assert feed(engine(), frame[:96], flags=lib.EXO_F_SNAPPED, wire_len=len(frame)) == Reason.SNAPPED
    assert feed(engine(), frame[:96]) == Reason.TOO_SHORT


def test_groups_are_broadcast_all_hosts_and_solicited_nodes_once_each():
    stack = engine("10.7.0.2/24", "fd07::2/64", "fe80::2/64", "fd07::3/64")
    assert [mac.hex(":") for mac in stack.groups()] == [
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "33:33:00:00:00:01",
        "33:33:ff:00:00:02",
        "33:33:ff:00:00:03",
    ]
    assert len(engine("10.7.0.2/24").groups()) == 2


def test_no_room_in_the_output_is_counted():
    from tests.stack_frames import Engine, StackConfig

    stack = Engine(StackConfig.make(MAC, f"{IP4}/24"), memory=50)
    introduce(stack)
    feed(stack, ping4(bytes(100)))
    assert stack.output() == [] and stack.counters["out_no_buffer"] == 1 and stack.counters["echo_out"] == 0
    feed(stack, ip4() / UDP(dport=9))
    assert stack.counters["out_no_buffer"] == 2
