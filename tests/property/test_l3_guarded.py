# SPDX-License-Identifier: MIT
"""`exo_l3_*`: where a frame's network layer is, and quoted packets turned round, of frames of every length and content
against the end of readable memory.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from exonet.abi import ffi, lib
from tests.fakes.frames import HERE, HOST, HOST6, PEER, PEER6, THERE, frag, fragment6
from tests.guarded import Guarded
from tests.tags import PROVIDER, session, tagged

ETHER = Ether(dst=HERE, src=THERE)
LONG = IP(src=HOST, dst=PEER, id=9, ttl=3, options=b"\x01" * 40)
MUTATIONS = 4000


@dataclass(frozen=True)
class Way:
    """How a frame is wrapped, and what is to be found: bytes before the network header, VLANs, session."""

    name: str
    vlans: tuple[int, ...] = ()
    kind: int = 0x8100
    pppoe: bool = False
    found: int = 0

    def __call__(self, frame: bytes) -> bytes:
        inner = session(frame, 7) if self.pppoe else frame
        return tagged(inner, *self.vlans, kind=self.kind) if self.vlans else inner

    @property
    def at(self) -> int:
        return 14 + 4 * len(self.vlans) + 8 * self.pppoe


WAYS = (
    Way("untagged"),
    Way("one tag", (5,), found=5),
    Way("a provider's", (5,), kind=PROVIDER, found=0x1005),
    Way("two tags", (5, 6), kind=PROVIDER, found=0x10050006),
    Way("priority", (0, 6), found=6),
    Way("session", pppoe=True),
    Way("session in a VLAN", (5,), pppoe=True, found=5),
    Way("session in two", (5, 6), pppoe=True, found=0x00050006),
)
ERRORS: dict[str, tuple[Packet, Packet, Packet]] = {  # the error's header, the packet it quotes, its answer
    "udp": (
        ICMP(type=3, code=3),
        IP(src=HOST, dst=PEER, id=9, ttl=3, flags="DF") / UDP(sport=5, dport=6, len=8, chksum=7),
        IP(src=PEER, dst=HOST, id=9, ttl=3) / UDP(sport=6, dport=5, len=8, chksum=7),
    ),
    "tcp with options": (
        ICMP(type=11),
        LONG / TCP(sport=5, dport=6, seq=1),
        IP(src=PEER, dst=HOST, id=9, ttl=3, options=b"\x01" * 40) / TCP(sport=6, dport=5, seq=1),
    ),
    "echo": (
        ICMP(type=12),
        IP(src=HOST, dst=PEER, id=9, ttl=3) / ICMP(type=8, id=5, chksum=7),
        IP(src=PEER, dst=HOST, id=9, ttl=3) / ICMP(type=0, id=5, chksum=7),
    ),
    "udp6": (
        ICMPv6PacketTooBig(),
        IPv6(src=HOST6, dst=PEER6) / UDP(sport=5, dport=6, len=8, chksum=7),
        IPv6(src=PEER6, dst=HOST6) / UDP(sport=6, dport=5, len=8, chksum=7),
    ),
    "echo6": (
        ICMPv6PacketTooBig(),
        IPv6(src=HOST6, dst=PEER6) / ICMPv6EchoRequest(id=5, cksum=7),
        IPv6(src=PEER6, dst=HOST6) / ICMPv6EchoRequest(id=5, cksum=7, type=129),
    ),
}


def outer(error: Packet) -> Packet:
    return IPv6(src="fd00::fe", dst=HOST6) if "v6" in error.name else IP(src="10.0.0.254", dst=HOST)


class Finder:
    """The functions over a frame that ends where readable memory does."""

    def __init__(self) -> None:
        self.room = Guarded(4096)
        self.frame: Any = ffi.new("struct exo_frame *")
        self.out: Any = ffi.new("uint8_t[]", lib.EXO_TURNED)

    def place(self, data: bytes) -> None:
        self.frame.data, self.frame.len, self.frame.wire_len = self.room.place(data), len(data), len(data)

    def find(self, data: bytes) -> Any:
        self.place(data)
        l3 = ffi.new("struct exo_l3 *")
        lib.exo_l3_find(self.frame, l3)
        assert l3.length == max(0, len(data) - l3.at)
        assert not l3.length or l3.data == self.frame.data + l3.at
        return l3

    def rare(self, data: bytes) -> bool:
        self.place(data)
        return bool(lib.exo_l3_rare(self.frame))

    def turn(self, data: bytes) -> bytes:
        self.place(data)
        length = lib.exo_l3_turn(self.frame, self.out)
        assert length <= lib.EXO_TURNED
        return bytes(ffi.buffer(self.out, length))


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder()


PLAIN: dict[str, tuple[bytes, bool]] = {  # with whether more than filters decides on it
    "udp": (bytes(ETHER / IP(dst=HOST) / UDP()), False),
    "udp6": (bytes(ETHER / IPv6(dst=HOST6) / UDP()), False),
    "icmp": (bytes(ETHER / IP(dst=HOST) / ICMP()), True),
    "icmp6": (bytes(ETHER / IPv6(dst=HOST6) / ICMPv6EchoRequest()), True),
    "first": (frag(0)[:90], True),
    "last": (frag(2)[:90], True),
    "fragment6": (fragment6(1)[:90], True),
    "arp": (bytes(ETHER / ARP()), True),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_network_layer_is_found_at_every_length(finder: Finder, way: Way) -> None:
    for name, (plain, rare) in PLAIN.items():
        frame = way(plain)
        if way.pppoe and name == "arp":
            assert not finder.rare(frame)
            continue
        for length in range(len(frame) + 1):
            l3 = finder.find(frame[:length])
            if length >= way.at:
                assert (l3.at, l3.type, l3.vlans) == (way.at, int.from_bytes(plain[12:14], "big"), way.found)
                assert (l3.pppoe != 0) == way.pppoe
            else:
                assert l3.length == 0
            assert finder.rare(frame[:length]) <= rare
        assert finder.rare(frame) == rare, name


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_r03_a_quoted_packet_is_turned_round_at_every_length(
    finder: Finder, error: tuple[Packet, Packet, Packet], way: Way
) -> None:
    header, quoted, answer = error
    frame = way(bytes(ETHER / outer(header) / header / (bytes(quoted) + b"q" * 9)))
    layers = 40 if IPv6 in quoted else 4 * (bytes(quoted)[0] & 15)
    whole = way.at + len(outer(header)) + 8 + layers + 8
    wanted = bytearray(frame[: way.at] + bytes(quoted)[: layers + 8])
    turned = bytes(answer)
    for low, high in ((8, 40),) if IPv6 in quoted else ((6, 8), (12, 20)):
        wanted[way.at + low : way.at + high] = turned[low:high]
    wanted[way.at + layers :] = turned[layers : layers + 8]
    for length in range(len(frame) + 1):
        assert finder.turn(frame[:length]) == (bytes(wanted) if length >= whole else b""), length


def test_r03_what_is_no_error_is_not_turned_round(finder: Finder) -> None:
    for plain, _ in PLAIN.values():
        assert finder.turn(plain + bytes(80)) == b""


def mutated() -> Iterator[bytes]:
    pick = random.Random(11)
    sources = [plain for plain, _ in PLAIN.values()]
    sources += [bytes(ETHER / outer(header) / header / quoted) for header, quoted, _ in ERRORS.values()]
    for _ in range(MUTATIONS):
        frame = bytearray(pick.choice(WAYS)(pick.choice(sources)))
        for _ in range(pick.randrange(4)):
            frame[pick.randrange(12, len(frame))] = pick.choice((0, 1, 4, 5, 15, 58, 0x45, 0x4F, 0x60, 0x81, 0x88, 255))
        yield bytes(frame[: pick.randrange(len(frame) + 1)])


def test_nothing_past_the_end_is_read_whatever_a_frame_says(finder: Finder) -> None:
    for frame in mutated():
        l3 = finder.find(frame)
        assert l3.at <= 14 + 8 + 8
        finder.rare(frame)
        turned = finder.turn(frame)
        assert not turned or turned[: l3.at] == frame[: l3.at]
