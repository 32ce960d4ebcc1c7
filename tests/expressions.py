# SPDX-License-Identifier: MIT
"""What libpcap's own tests of its filter compiler ask of it on Ethernet, in the grammar's terms: every keyword, every
qualifier, every way to spell an address, a network, a port or a range. `ours` is what Debian's libpcap 1.10 compiles.

Names of hosts and networks are written as the numbers that they stand for: a test run resolves none.
"""

from collections.abc import Iterator
from itertools import product

#: Before a host, a network or a port.
WAYS = ("", "src or dst ", "src ", "dst ")


def bytes_of_headers() -> Iterator[str]:
    for link in ("link", "ether", "fddi", "ppp", "slip", "tr", "wlan"):
        for at, value in (("5", "0x12"), ("5:1", "0x12"), ("7:2", "0x1234"), ("10:4", "0x12345678")):
            yield f"{link}[{at}] == {value}"
    for header in ("ip", "arp", "ip6", "sctp", "tcp", "udp", "vrrp", "carp", "icmp6"):
        yield f"{header}[0xab] == 0xcd"


def link_layer() -> Iterator[str]:
    for cast in ("broadcast", "multicast"):
        yield from (f"{link}{cast}" for link in ("", "ether ", "link "))
    yield from (
        "ether host ab:cd:ef:0:0:1",
        "ether src or dst host ab.CD.ef.0.0.1",
        "ether src or dst Ab.cD.ef.00.0.01",
    )
    yield from ("ether src host ab-cd-ef-00-00-02", "ether src ab.cd.ef.00.00.02")
    yield from ("ether dst host abcd.ef00.0003", "ether dst abcdef000003")
    names = "aarp arp atalk decnet ip ip6 ipx iso lat mopdl moprc netbeui rarp sca stp"
    for name in names.split():
        yield from (f"ether proto \\{name}", name)
    yield "ether proto loopback"
    yield from (f"link proto {number}" for number in (0, 6, 255, 1500, 1501, 65535, 65536))
    kinds = "i s u rr rnr rej ui ua disc dm sabme test xid frmr"
    yield from ("llc", *(f"llc {kind}" for kind in kinds.split()))


def tags() -> Iterator[str]:
    yield from ("vlan", "vlan 10", "vlan 4095", "vlan and vlan", "mpls", "mpls 100", "mpls and mpls")
    yield from ("pppoed", "pppoes", "pppoes 1234", "pppoes and mpls 123")
    yield from ("geneve", "geneve 12345", "geneve and geneve")


def addresses() -> Iterator[str]:
    four, six = "10.20.30.40", "fd00:a1b2:c3d4::1020:3040:5060:7080"
    for protocol, way, word in product(("arp", "rarp"), WAYS, ("", "host ")):
        if way or word:
            yield f"{protocol} {way}{word}{four}"
    networks = ("10.20.0.0/16", "10.20/16", "10.20", *(f"{n} mask {m}" for n in ("10.20.0.0", "10.20")
                for m in ("255.255.0.0", "255.255")))  # fmt: skip
    for way, network in product(("arp ", "arp src or dst "), networks):
        yield f"{way}net {network}"
    for way in (*WAYS, "dst or src ", "src and dst ", "dst and src "):
        yield f"{way}net 10.20.0.0/16"
        yield from (f"{way}host {address}" for address in (four, six))
        yield f"{way}host {four} or {way}host {six}"
    several = ("192.168.243.1", "192.168.242.4", "fd00:a1b2:c3d4::a0b0:c0d0:e0f0:1278")
    for way in ("", "src ", "dst ", "src and dst "):
        yield " or ".join(f"{way}host {address}" for address in several)
    for way in ("ip ", "arp ", "rarp "):
        yield f"{way}and ether host aa:00:04:00:01:08 and not host 192.168.243.1"
    for way, word in product(("", "src ", "dst "), ("", "host ")):
        if way or word:
            yield f"decnet {way}{word}50.764"
    yield from (f"decnet host {name}" for name in ("64.120", "17.1024", "1", "1.2.3"))


def protocols() -> Iterator[str]:
    for name, number in (("clnp", 0x81), ("esis", 0x82), ("isis", 0x83)):
        yield from (f"iso proto \\{name}", name, f"iso proto {number:#x}")
    yield from ("es-is", "is-is", "iso proto 256", "isis proto 32")
    kinds = {
        "l1": (0x1A, 0x18, 0x12, 0x0F, 0x11), "l2": (0x1B, 0x19, 0x14, 0x10, 0x11), "iih": (0x11, 0x0F, 0x10),
        "lsp": (0x12, 0x14), "snp": (0x1B, 0x1A, 0x18, 0x19), "csnp": (0x18, 0x19), "psnp": (0x1A, 0x1B),
    }  # fmt: skip
    for name, numbers in kinds.items():
        yield from (name, "isis proto " + " or ".join(map(hex, numbers)))
    for way in ("ip ", "ip6 ", ""):
        yield from (f"{way}proto \\tcp", f"{way}proto 6")
    numbers = {"carp": 112, "icmp": 1, "igmp": 2, "igrp": 9}
    for name, number in numbers.items():
        yield from (name, f"ip proto {number}")
    yield from ("vrrp", "ip proto 88", "icmp6", "ip6 proto 58", "protochain 17")


def constants() -> Iterator[str]:
    icmp = {
        "echoreply": 0, "unreach": 3, "sourcequench": 4, "redirect": 5, "echo": 8, "routeradvert": 9,
        "routersolicit": 10, "timxceed": 11, "paramprob": 12, "tstamp": 13, "tstampreply": 14, "ireq": 15,
        "ireqreply": 16, "maskreq": 17, "maskreply": 18,
    }  # fmt: skip
    yield " && ".join(f"{number} == icmp-{name}" for name, number in icmp.items())
    flags = ("fin", "syn", "rst", "push", "ack", "urg", "ece", "cwr")
    yield " && ".join(f"{1 << bit:#x} == tcp-{name}" for bit, name in enumerate(flags))
    yield "icmptype == 0 && icmpcode == 1 && icmp6type == 0 && icmp6code == 1 && tcpflags == 13"


def ports() -> Iterator[str]:
    """A range of one port is that port; a range whose ends are in the wrong order is turned round; names mix in."""
    one = {"tcp ": ("25", "smtp"), "udp ": ("53", "domain"), "sctp ": ("5672",), "": ("7",)}
    for protocol, names in one.items():
        for way in WAYS:
            yield from (f"{protocol}{way}port {name}" for name in names)
            yield from (f"{protocol}{way}portrange {low}-{high}" for low, high in product(names, repeat=2))
            yield f"{protocol}{way}portrange {names[0]}"
    two = {"tcp ": (("25", "smtp"), ("53", "domain")), "udp ": (("67", "bootps"), ("68", "bootpc")),
           "sctp ": (("1",), ("1023",)), "": (("1",), ("1023",))}  # fmt: skip
    for protocol, (lows, highs) in two.items():
        for way, low, high in product(WAYS, lows, highs):
            yield from (f"{protocol}{way}portrange {low}-{high}", f"{protocol}{way}portrange {high}-{low}")


def others() -> Iterator[str]:
    yield from ("", "less 200", "greater 100", "len <= 200", "len >= 100", "inbound", "outbound", "ifindex 10")


def every() -> tuple[str, ...]:
    """All of them, each once."""
    parts = (bytes_of_headers, link_layer, tags, addresses, protocols, constants, ports, others)
    return tuple(dict.fromkeys(text for part in parts for text in part()))
