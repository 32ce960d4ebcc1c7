# SPDX-License-Identifier: MIT
"""Example frames of refusals: the line of scapy builds a frame that is as is said, and it is short."""

from itertools import combinations, permutations

import pytest

from exonet.filters.compile import CompiledFilter, compile_filter
from exonet.filters.libpcap import Libpcap
from exonet.filters.region import difference, overlap

scapy = pytest.importorskip("scapy.all")

FILTERS = (
    "tcp port 80", "net 10.0.0.0/8", "udp portrange 1000-2000", "not ip", "vlan 5", "vlan 5 and tcp port 80",
    "vlan and vlan 7 and ip", "pppoes and ip", "pppoes 7 and tcp port 80", "ip6 and tcp", "ip6 host 2001:db8::1",
    "ip6[6] = 44", "ip[6:2] & 0x1fff != 0", "ip[6:2] & 0x3fff = 0x2000", "greater 1000", "less 200", "less 10",
    "len > 40000 and ip", "ip[0] & 15 > 5 and tcp", "ether[100] = 5", "ether[2000] = 3 and len > 3000",
    "ether broadcast", "arp", "icmp6", "ether[12:2] < 1500", "tcp[13] & 2 != 0",
)  # fmt: skip
COMPILED = {text: compile_filter(text) for text in FILTERS}
LONGEST = 600


def built(expression: str) -> bytes:
    assert "\n" not in expression and len(expression) <= LONGEST
    return bytes(eval(expression, vars(scapy)))


def takes(filter_: CompiledFilter, frame: bytes) -> bool:
    """What the conjuncts say and libpcap says, of all of the frame."""
    found = filter_.matches(frame)
    assert Libpcap().compile(filter_.text).matches(frame) is found
    return found


def test_r04_the_line_builds_a_frame_that_both_take() -> None:
    found = 0
    for one, other in combinations(COMPILED.values(), 2):
        example = overlap(one.conjuncts, other.conjuncts)
        if example is not None:
            frame = built(example.scapy)
            assert takes(one, frame) and takes(other, frame), (one.text, other.text, example.scapy)
            found += 1
    assert found > 100


def test_r13_the_line_builds_a_frame_outside() -> None:
    for one, other in permutations(COMPILED.values(), 2):
        example = difference(one.conjuncts, other.conjuncts)
        if example is not None:
            frame = built(example.scapy)
            assert takes(one, frame) and not takes(other, frame), (one.text, other.text, example.scapy)


def test_a_frame_that_must_be_cut_says_so() -> None:
    example = difference(compile_filter("greater 1000").conjuncts, compile_filter("ether[100] >= 0").conjuncts)
    assert example is not None and example.scapy.endswith(f"  # {example.wire_len} bytes on the wire")
    assert example.wire_len >= 1000 and len(built(example.scapy)) == len(example.frame) <= 100
