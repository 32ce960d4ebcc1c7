# SPDX-License-Identifier: MIT
"""Names in filters: those that libpcap would ask the name service for are refused, or the kernel would wait for it.

Services and protocols by name are read from files; they may follow `port` and `proto`, and stand for `port` again where
they are joined to such: `port ftp or ftp-data`.
"""

import re
import socket

from exonet.errors import FilterError
from exonet.filters.syntax import to_pcap
from exonet.wording import quoted

__all__ = ["Names", "refuse_names"]

PCAP_WORDS = """
and or not host net port portrange src dst gateway mask proto protochain ether link ppp slip fddi tr wlan ip ip6 arp
rarp tcp udp sctp icmp icmp6 igmp igrp pim vrrp carp ah esp atalk aarp decnet iso stp ipx netbeui lat moprc mopdl
clnp esis isis broadcast multicast less greater len vlan mpls pppoed pppoes geneve inbound outbound llc tcpflags
icmptype icmpcode icmp6type icmp6code tcp-fin tcp-syn tcp-rst tcp-push tcp-ack tcp-urg tcp-ece tcp-cwr
icmp-echoreply icmp-unreach icmp-sourcequench icmp-redirect icmp-echo icmp-routeradvert icmp-routersolicit
icmp-timxceed icmp-paramprob icmp-tstamp icmp-tstampreply icmp-ireq icmp-ireqreply icmp-maskreq icmp-maskreply
icmp6-destinationunreach icmp6-packettoobig icmp6-timeexceeded icmp6-parameterproblem icmp6-echo icmp6-echoreply
icmp6-multicastlistenerquery icmp6-routersolicit icmp6-routeradvert icmp6-neighborsolicit icmp6-neighboradvert
icmp6-redirect sca es-is is-is l1 l2 iih lsp snp csnp psnp ifindex
"""
#: The words of pcap-filter(7) that are not looked up anywhere.
KEYWORDS = frozenset(PCAP_WORDS.split())
#: What may follow `llc`; elsewhere such a word is a name.
LLC_KINDS = frozenset(("i", "s", "u", "rr", "rnr", "rej", "ui", "ua", "disc", "dm", "sabme", "test", "xid", "frmr"))
JOINING = ("and", "or", "not")
WORD = re.compile(r"[\w.:\-\\]+")
NUMBER = re.compile(
    r"\d+([.]\d+){0,3}(/\d+)?|0[xX][0-9a-fA-F]+|\d*[:-]\d+|([0-9a-fA-F]{1,2}[:.-]){5}[0-9a-fA-F]{1,2}"
    r"|([0-9a-fA-F]{4}[.]){2}[0-9a-fA-F]{4}|[0-9a-fA-F]{12}"
)
SERVICE = ("port", "portrange", "proto", "protochain")
REMEMBERED = 4096
LONGEST = 64


class Names:
    """Which words are none, as far as they have been met: texts of known words and numbers are passed at once."""

    def __init__(self) -> None:
        self._safe: set[str] = set()

    def refuse(self, text: str) -> None:
        """FilterError where pcap-filter text names a host or net.

        A part between blanks that passes by itself is of known words and numbers, which pass wherever they stand.
        """
        safe, number = self._safe, NUMBER.fullmatch
        for part in text.split():
            if part in safe or part.isdecimal() or number(part.strip("()")) or _is_ip6(part):
                continue
            break
        else:
            return
        _refuse(text, text)
        for part in set(text.split()) - safe:
            if len(part) <= LONGEST and not number(part) and _passes(part):
                if len(safe) >= REMEMBERED:
                    safe.clear()
                safe.add(part)


def refuse_names(source: str) -> None:
    """FilterError where a filter in either language names a host or net."""
    _refuse(to_pcap(source), source)


def _passes(part: str) -> bool:
    try:
        _refuse(part, part)
    except FilterError:
        return False
    return True


def _refuse(text: str, shown: str) -> None:
    previous, behind, service = "", 0, False
    for found in WORD.finditer(text):
        word, escaped = found[0].strip("-"), "\\" in found[0]
        llc = previous == "llc" and not text[behind : found.start()].strip() and word in LLC_KINDS
        number = NUMBER.fullmatch(word) or _is_ip6(word)
        # What is escaped is a name, whatever it says: `ip proto \tcp`.
        known = not escaped and (not word or word in KEYWORDS or number)
        if not known and not llc and not (service and "." not in word):
            raise FilterError(
                f"filter {quoted(shown)}: {quoted(word, LONGEST)} is a name: addresses must be given as numbers"
            )
        if not escaped and word in KEYWORDS and word not in JOINING:
            service = word in SERVICE
        previous, behind = word, found.end()


def _is_ip6(word: str) -> bool:
    if ":" not in word:
        return False
    try:
        return bool(socket.inet_pton(socket.AF_INET6, word))
    except (OSError, ValueError):
        return False
