# SPDX-License-Identifier: MIT
"""Python expressions over header fields, as objects and as text."""

import pytest

from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.fields import Arp, Eth, Icmp, Icmp6, Ip, Ip6, Tcp, Udp, Vlan
from exonet.filters.syntax import parse
from tests.demux_box import made_frames

SAME = (
    (Udp.dport == 53, "udp dst port 53"),
    (Udp.sport == 53, "udp src port 53"),
    (Tcp.dport == 80, "tcp dst port 80"),
    (Udp.dport.between(1000, 2000), "udp dst portrange 1000-2000"),
    (Udp.dport.one_of([53, 5353]), "udp dst port 53 or udp dst port 5353"),
    (Ip.src == "10.0.0.1", "ip src host 10.0.0.1"),
    (Ip.dst.within("10.0.0.0/8"), "ip dst net 10.0.0.0/8"),
    (Ip6.src == "2001:db8::1", "ip6 src host 2001:db8::1"),
    (Ip6.dst.within("2001:db8::/32"), "ip6 dst net 2001:db8::/32"),
    (Ip6.dst != "2001:db8::1", "ip6 and not dst host 2001:db8::1"),
    (Eth.dst == "ff:ff:ff:ff:ff:ff", "ether broadcast"),
    (Eth.src != "02-00-00-00-00-01", "not ether src 02:00:00:00:00:01"),
    (Eth.type == 0x88CC, "ether proto 0x88cc"),
    (Ip.proto == 6, "ip and ip[9] = 6"),
    (Ip.tos & 0xFC == 0xB8, "ip[1] & 0xfc = 0xb8"),
    (Ip.ttl < 5, "ip[8] < 5"),
    (Ip.ttl <= 5, "ip[8] <= 5"),
    (Ip.ttl > 5, "ip[8] > 5"),
    (Ip.ttl >= 5, "ip[8] >= 5"),
    (Ip.ttl != 5, "ip[8] != 5"),
    (Ip.len.between(20, 40), "ip[2:2] >= 20 and ip[2:2] <= 40"),
    (Ip.ttl & 1 != 0, "ip[8] & 1 != 0"),
    (Ip6.nh == 58, "ip6[6] = 58"),
    (Icmp.type == 8, "icmp[icmptype] = icmp-echo"),
    (Icmp6.type == 135, "icmp6[icmp6type] = icmp6-neighborsolicit"),
    (Arp.op == 1, "arp[6:2] = 1"),
    (Arp.tpa == "10.0.0.2", "arp[24:4] = 0x0a000002"),
    (Vlan.id == 10, "vlan 10"),
    (Vlan.id.one_of([10]), "vlan 10"),
    ((Vlan.id == 10) & (Udp.dport == 53), "vlan 10 and udp dst port 53"),
    ((Udp.dport == 53) & ~Ip.src.within("10.0.0.0/8"), "udp dst port 53 and not src net 10.0.0.0/8"),
    ((Tcp.dport == 80) | (Tcp.dport == 443), "tcp dst port 80 or tcp dst port 443"),
    (Tcp.flags.has(0x12), "tcp[13] & 0x12 = 0x12 or (ip6 and ip6[6] = 6 and ip6[53] & 0x12 = 0x12)"),
    (Tcp.flags & 0x02 == 0x02, "tcp[13] & 2 = 2 or (ip6[6] = 6 and ip6[53] & 2 = 2)"),
)


@pytest.mark.parametrize(("expression", "text"), SAME, ids=[text for _, text in SAME])
def test_r05_an_expression_is_what_libpcap_makes_of_its_text(expression, text):
    assert set(compile_filter(expression).conjuncts) == set(compile_filter(text).conjuncts)


TEXTS = (
    ("Udp.dport == 53", "udp dst port 53"),
    ("53 == Udp.dport", "udp dst port 53"),
    ("Udp.dport in [53, 5353]", "udp dst port (53 or 5353)"),
    ("Ip.src in '10.0.0.0/8' and Udp.dport == 53", "ip src net 10.0.0.0/8 and udp dst port 53"),
    ("1000 <= Udp.dport <= 2000", "udp dst portrange 1000-2000"),
    ("999 < Udp.dport < 2001", "udp dst portrange 1000-2000"),
    ("1024 > Ip.len", "ip[2:2] < 1024"),
    ("Tcp.flags & 2 == 2 and Ip.ttl >= 1", "tcp[13] & 2 = 2 and ip[8] >= 1"),
    ("(Udp.dport == 53) & ~(Ip.src == '10.0.0.1')", "udp dst port 53 and not ip src host 10.0.0.1"),
    ("(Udp.dport == 53) | (Tcp.dport == 53)", "udp dst port 53 or tcp dst port 53"),
    ("not Eth.src == '02:00:00:00:00:01'", "not ether src 02:00:00:00:00:01"),
    ("Ip.proto not in [6, 17]", "not (ip[9] = 6 or ip[9] = 17)"),
    ("Tcp.flags & 1 != 0", "tcp[13] & 1 != 0 or (ip6[6] = 6 and ip6[53] & 1 != 0)"),
)


@pytest.mark.parametrize(("text", "pcap"), TEXTS)
def test_expressions_as_text(text, pcap):
    one, other = compile_filter(text), compile_filter(pcap)
    for data, wire_len in made_frames():
        assert one.matches(data, wire_len) == other.matches(data, wire_len)


@pytest.mark.parametrize(("text", "message"), (
    ("Udp.dport == 70000", "Udp.dport 70000: must be 0..65535"),
    ("Udp.dport == -1", "Udp.dport -1: must be 0..65535"),
    ("Udp.dport == True", "is not a number"),
    ("Udp.dport == 'http'", "must be a number 0..65535"),
    ("Udp.foo == 1", "there is no such field; Udp has sport, dport"),
    ("Udp.dport == 53 & Ip.src == '10.0.0.1'", "parentheses"),
    ("__import__('os').system('true') or Udp.dport == 1", "is not a comparison"),
    ("Udp.dport", "is not a comparison"),
    ("Udp.dport ==", "invalid syntax"),
    ("Udp.dport == 1 < 2 < 3", "compares too many things"),
    ("1 in Udp.dport", "must stand on the left"),
    ("Udp.dport in 5", "takes a list"),
    ("Udp.dport in '10.0.0.0/8'", "only addresses have prefixes"),
    ("Udp.dport in []", "there must be a value"),
    ("Udp.dport is 5", "not understood"),
    ("Tcp.flags & 2 < 2", "not understood"),
    ("2 > Udp.dport > 1", "low <= field <= high"),
    ("Ip.src in '10.0.0.1/8'", "has host bits set"),
    ("Ip.src == '10.0.0.256'", "must be an IPv4 address"),
    ("Ip6.src == 'fe80::x'", "must be an IPv6 address"),
    ("Ip6.src in 'fe80::1/10'", "has host bits set"),
    ("Ip6.src < 'fe80::1'", "have ==, !="),
    ("Eth.src == '02:00'", "must be an Ethernet address"),
    ("Eth.src == 5", "must be an Ethernet address"),
    ("Eth.src > '02:00:00:00:00:01'", "have ==, !="),
    ("Vlan.id > 5", "has == only"),
    ("Vlan.id in [1, 2]", "bind once per value"),
    ("Vlan.id == 4096", "must be 0..4095"),
    ("Udp.dport.real == 1", "is not a field"),
    ("2000 <= Udp.dport <= 1000", "must not be greater"),
    ("(" * 300 + "Udp.dport == 1" + ")" * 300, "nested"),
    ("not " * 150 + "Udp.dport == 1", "nested more than 100 deep"),
    ("Udp.dport == 1" + " or Udp.dport == 1" * 5000, "at most 65536"),
))  # fmt: skip
def test_bad_expressions_are_one_clear_error(text, message):
    with pytest.raises(FilterError) as refusal:
        compile_filter(text)
    assert message in str(refusal.value)


def test_objects_refuse_python_truth_and_wrong_operands():
    with pytest.raises(FilterError, match="combine with"):
        bool(Udp.dport == 1)
    with pytest.raises(FilterError, match="parentheses"):
        Udp.dport & (Ip.src == "10.0.0.1")
    with pytest.raises(FilterError, match="not a comparison"):
        (Udp.dport == 1) & 5
    with pytest.raises(FilterError, match="IPv6 addresses have"):
        Ip6.src.between("::1", "::2")
    with pytest.raises(FilterError, match="Ethernet addresses have"):
        Eth.src.between("02:00:00:00:00:01", "02:00:00:00:00:02")
    assert str(parse("Udp.dport == 53")) == "udp dst port 53"


def test_a_refused_expression_shows_what_was_written():
    with pytest.raises(FilterError, match=r"Udp\.dport == 53 and Udp\.dport == 54"):
        compile_filter("Udp.dport == 53 and Udp.dport == 54")
