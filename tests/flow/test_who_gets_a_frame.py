# SPDX-License-Identifier: MIT
"""The counts that FILTERS.md, "Who gets a frame", lets one predict: replays of captures made for each rule."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import wrpcap

from exonet.cli.main import main
from tests.fakes.frames import BROADCAST, HERE, HOST, PEER, THERE, frag, tcp, udp

FILTERS = (Path(__file__).parents[2] / "FILTERS.md").read_text()
ALL = Ether(dst=BROADCAST, src=THERE)
TEXT = b"announced or not"
MDNS = Ether(dst="01:00:5e:00:00:fb", src=THERE) / IP(dst="224.0.0.251") / UDP(sport=5353, dport=5353) / DNS()
ANNOUNCED = {
    "mdns": MDNS,
    "gratuitous arp": ALL / ARP(op=1, hwsrc=THERE, psrc=PEER, pdst=PEER),
    "dhcp offer": ALL / IP(dst="255.255.255.255") / UDP(sport=67, dport=68) / TEXT,
    "router": Ether(dst="33:33:00:00:00:01", src=THERE) / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA(),
}
ASKED = ALL / ARP(op=1, hwsrc=THERE, psrc=PEER, pdst=HOST)
SHOUTED = ALL / IP(src=PEER, dst="255.255.255.255") / UDP(sport=9, dport=9) / TEXT


def delivered(tmp_path: Path, frames: Sequence[Packet | bytes], *words: str) -> dict[str, int]:
    """Frames that each LibOS got; "copies" and reasons of drops beside them."""
    path, out = tmp_path / "frames.pcap", tmp_path / "out.json"
    wrpcap(str(path), [Ether(bytes(frame)) for frame in frames])
    assert main(["replay", str(path), "--clock", "virtual", "--speed", "max", *words, "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    got = {each["name"]: each["delivered"] for each in told["environments"]}
    return got | told["ledger"]["dropped"] | {"copies": told["ledger"]["copies"]}


@pytest.mark.parametrize("kind", ANNOUNCED)
def test_r02_an_announcement_goes_where_the_filter_does_not_take_it(tmp_path: Path, kind: str) -> None:
    frames = [ANNOUNCED[kind]] * 24
    assert delivered(tmp_path, frames, "--bind", "v=mpls") == {"v": 24, "copies": 0}
    assert delivered(tmp_path, frames, "--bind", "v=mpls", "--bind", "w=tcp") == {"v": 24, "w": 24, "copies": 24}


@pytest.mark.parametrize("without", (
    "ether multicast",
    "ether multicast and (arp or udp dst port 5353 or udp dst port 68 or (ip6[6] = 58 and ip6[40] = 134))",
))  # fmt: skip
def test_r02_what_leaves_the_announcements_out_does(tmp_path: Path, without: str) -> None:
    assert f"`--exclude '{without}'`" in FILTERS
    got = delivered(tmp_path, [*ANNOUNCED.values()], "--bind", "v=mpls", "--exclude", without)
    assert got == {"v": 0, "copies": 0, "source.excluded": len(ANNOUNCED)}


def test_r02_behind_a_tag_they_are_group_frames_as_any(tmp_path: Path) -> None:
    inner = MDNS.payload
    tagged = Ether(dst=MDNS.dst, src=THERE) / Dot1Q(vlan=5) / inner
    got = delivered(tmp_path, [tagged], "--bind", "v=mpls", "--bind", "w=vlan 5")
    assert got == {"v": 0, "w": 1, "copies": 0}


def test_r02_the_narrower_filter_takes_no_group_frame_from_the_wider(tmp_path: Path) -> None:
    binds = ("--bind", "wide=udp", "--bind", "narrow=udp dst port 9", "--bind", "other=tcp")
    assert delivered(tmp_path, [SHOUTED], *binds) == {"wide": 1, "narrow": 1, "other": 0, "copies": 1}
    whispered = Ether(dst=HERE, src=THERE) / SHOUTED.payload
    assert delivered(tmp_path, [whispered], *binds) == {"wide": 0, "narrow": 1, "other": 0, "copies": 0}


def test_r02_a_request_goes_to_the_owner_of_the_address_alone(tmp_path: Path) -> None:
    owner = ("--bind", f"owner=tcp,local={HOST}/24")
    assert delivered(tmp_path, [ASKED], *owner, "--bind", "a=arp") == {"owner": 1, "a": 0, "copies": 0}
    assert delivered(tmp_path, [ASKED], "--bind", "a=arp", "--bind", "t=tcp") == {"a": 1, "t": 0, "copies": 0}
    assert delivered(tmp_path, [ASKED], "--bind", "t=tcp") == {"t": 0, "copies": 0, "demux.no_neighbour": 1}


def test_r03_an_error_goes_to_the_owner_of_what_it_quotes(tmp_path: Path) -> None:
    quoted = IP(src=HOST, dst=PEER) / UDP(sport=53, dport=4000) / TEXT
    error = Ether(dst=HERE, src=THERE) / IP(src="10.0.0.254", dst=HOST) / ICMP(type=3, code=3) / quoted
    got = delivered(tmp_path, [error], "--bind", "dns=udp port 53", "--bind", "ping=icmp")
    assert got == {"dns": 1, "ping": 0, "copies": 0}
    assert delivered(tmp_path, [error], "--bind", "ping=icmp") == {"ping": 1, "copies": 0}


def test_r05_later_fragments_follow_the_first(tmp_path: Path) -> None:
    binds = ("--bind", "dns=udp dst port 53", "--bind", "rest=ip")
    assert delivered(tmp_path, [frag(0), frag(1)], *binds) == {"dns": 2, "rest": 0, "copies": 0}
    assert delivered(tmp_path, [frag(1), frag(0)], *binds) == {"dns": 1, "rest": 1, "copies": 0}
    assert delivered(tmp_path, [frag(1), frag(0)], *binds[:2]) == {"dns": 2, "copies": 0}


def test_r04_filters_that_are_nested_conjunct_by_conjunct_bind(tmp_path: Path) -> None:
    one, other = "tcp", "tcp port 80 or udp port 53"
    assert f"`{one}` and `{other}` bind together" in FILTERS
    frames = [tcp(dport=80), tcp(dport=81), udp(dport=53), udp(dport=54)]
    got = delivered(tmp_path, frames, "--bind", f"one={one}", "--bind", f"other={other}")
    assert got == {"one": 1, "other": 2, "copies": 0, "demux.no_match": 1}
