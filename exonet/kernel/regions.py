# SPDX-License-Identifier: MIT
"""What the kernel asks of the filter compiler: what a text claims, whether a region covers it, how two claims lie.

Over `exonet.filters`. The conjuncts that are checked here are the objects that become the demux's boxes, so what is
authorised and what is installed cannot disagree (DESIGN §5).
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from exonet.abi import lib
from exonet.errors import FilterError
from exonet.filters.compile import CompiledFilter, compile_filter
from exonet.filters.conjunct import Conjunct
from exonet.filters.region import Nesting, Region, Relation, nesting, relation, separate
from exonet.filters.shape import Shape
from exonet.filters.syntax import to_pcap

__all__ = ["Regions"]

REMEMBERED = 512
GROUP_BIT = 0x01000000  # of the first 32-bit word

PCAP_WORDS = """
and or not host net port portrange src dst gateway mask proto protochain ether link ppp slip fddi tr wlan ip ip6 arp
rarp tcp udp sctp icmp icmp6 igmp igrp pim vrrp carp ah esp atalk aarp decnet iso stp ipx netbeui lat moprc mopdl
clnp esis isis broadcast multicast less greater len vlan mpls pppoed pppoes geneve inbound outbound llc tcpflags
icmptype icmpcode icmp6type icmp6code tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr
icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo icmp-routeradvert icmp-routersolicit
icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply icmp-ireq icmp-ireqreply icmp-maskreq icmp-maskreply
icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded icmp6-parameterproblem icmp6-echo icmp6-echoreply
icmp6-multicastlistenerquery icmp6-routersolicit icmp6-routeradvert icmp6-neighborsolicit icmp6-neighboradvert
icmp6-redirect
"""
#: The words of pcap-filter(7) that are not looked up anywhere.
KEYWORDS = frozenset(PCAP_WORDS.split())
WORD = re.compile(r"[\w.:\-\\%]+")
NUMBER = re.compile(r"\d+([.]\d+){0,3}|0[xX][0-9a-fA-F]+|\d+[:-]\d+|([0-9a-fA-F]{1,2}[:.-]){5}[0-9a-fA-F]{1,2}")
SERVICE = ("port", "portrange", "proto", "protochain")


def refuse_names(text: str) -> None:
    """FilterError where a filter names a host or net: libpcap would ask the name service, and the kernel would wait.

    Services and protocols by name are read from files; they may follow `port` and `proto`.
    """
    previous = ""
    for found in WORD.findall(to_pcap(text)):
        word = found.strip("-").lstrip("\\")
        known = not word or word in KEYWORDS or NUMBER.fullmatch(word) or _is_ip6(word)
        if not known and (previous not in SERVICE or "." in word):
            raise FilterError(f"filter {text!r}: {word!r} is a name: addresses must be given as numbers")
        previous = word


def _is_ip6(word: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(word))
    except ValueError:
        return False


class Regions:
    """`kernel.binding.Filters` by the real compiler; remembers the last texts it has compiled."""

    def __init__(self) -> None:
        self._compiled: dict[str, CompiledFilter] = {}

    def compile(self, text: str) -> CompiledFilter:
        """FilterError where it does not parse or decompose."""
        found = self._compiled.get(text)
        if found is None:
            refuse_names(text)
            found = compile_filter(text)
            if len(self._compiled) >= REMEMBERED:
                self._compiled.clear()
            self._compiled[text] = found
        return found

    def text_covers(self, outer: str, inner: str) -> bool:
        """Does every frame of `inner` match `outer`? For `capability.Authority`."""
        return Region.of(self.compile(outer)).covers(self.compile(inner).conjuncts)

    def relation(self, a: Sequence[Conjunct], b: Sequence[Conjunct]) -> Relation:
        return relation(a, b)

    def nesting(self, a: Sequence[Conjunct], b: Sequence[Conjunct]) -> Nesting:
        return nesting(a, b)

    def separate(self, inner: Sequence[Conjunct], outer: Sequence[Conjunct]) -> tuple[Conjunct, ...]:
        return separate(inner, outer)

    def unicast(self, conjuncts: Sequence[Conjunct]) -> tuple[Conjunct, ...]:
        """Those that can take a unicast frame: groups are shared by subscription (R2), so R4 is about these alone."""
        return unicast(conjuncts)

    def native(self, conjunct: Conjunct, binding: int) -> Any:
        """A box of the demux. Equal boxes of group frames have several owners: their breadth, which is of no use
        where every match gets a copy, tells them apart.
        """
        native = conjunct.to_native(binding)
        if _groups_only(conjunct):
            native.breadth = binding + 1
        return native

    def shapes(self, conjuncts: Sequence[Conjunct]) -> set[Shape]:
        return {Shape.of(conjunct) for conjunct in conjuncts}


def unicast(conjuncts: Sequence[Conjunct]) -> tuple[Conjunct, ...]:
    """Those that can take a unicast frame."""
    return tuple(conjunct for conjunct in conjuncts if not _groups_only(conjunct))


def _groups_only(conjunct: Conjunct) -> bool:
    """Does it ask for the group bit, the lowest of the first byte?"""
    return any(
        atom.base == lib.EXO_BASE_FRAME and atom.offset == 0 and atom.mask & atom.value & GROUP_BIT
        for atom in conjunct.atoms
    )
