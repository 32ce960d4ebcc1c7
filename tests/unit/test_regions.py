# SPDX-License-Identifier: MIT
"""Bindings over the real filter compiler: regions of capabilities, nesting, conflicts; and no filter makes the
kernel ask a name service.
"""

import weakref
from collections.abc import Iterator

import pytest

from exonet.errors import ConflictError, DeniedError, FilterError
from exonet.kernel.binding import Bindings
from exonet.kernel.capability import Authority, Quota, Resource, Right, Scope
from exonet.kernel.regions import Regions
from exonet.kernel.studies import ROOM
from tests.fakes.machine import FakeMachine


class Machine(FakeMachine):
    """The fake machine with a demux of native conjuncts."""

    def insert(self, port: int, snoop: bool, conjunct: object) -> None:
        self.boxes.append((conjunct.binding, conjunct.atoms))  # type: ignore[attr-defined]


class Claimant:
    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"env{number}"
        self.quota = Quota()


class Desk:
    """Two claimants with capabilities over `region`, and the bindings of one machine."""

    def __init__(self) -> None:
        regions = Regions()
        self.machine = Machine()
        self.authority = Authority(regions.text_covers, bytes(32))
        self.bindings = Bindings(self.machine, self.authority, regions)
        self.claimants = Claimant(1), Claimant(2)

    def grant(self, who: int, region: str | None) -> bytes:
        rights = Right.BIND | Right.GRANT
        return self.authority.grant(self.claimants[who].number, Resource.FILTER, rights, Scope(port=0, region=region))

    def bind(self, who: int, text: str, token: bytes) -> int:
        return self.bindings.bind(self.claimants[who], text, token).number


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.machine.close()


@pytest.mark.parametrize(
    ("region", "inside", "outside"),
    [
        ("udp port 53", "udp port 53 and host 10.0.0.1", "udp port 54"),
        ("udp port 53", "udp dst port 53", "port 53"),
        ("net 10.0.0.0/8", "host 10.1.2.3", "host 11.1.2.3"),
        ("(tcp port 80) or (tcp port 443)", "tcp port 443", "tcp port 8080"),
        ("tcp portrange 1000-2000", "tcp port 1500", "tcp portrange 1500-2001"),
        ("ip6", "ip6 and udp", "udp"),
    ],
)
def test_r13_the_region_of_a_capability_holds(desk: Desk, region: str, inside: str, outside: str) -> None:
    token = desk.grant(0, region)
    with pytest.raises(DeniedError, match="does not cover"):
        desk.bind(0, outside, token)
    assert not desk.machine.boxes and not desk.machine.demux
    assert desk.bind(0, inside, token) == 0
    assert desk.machine.boxes


def test_r04_partial_overlap_names_both_and_what_would_do(desk: Desk) -> None:
    first, second = desk.grant(0, None), desk.grant(1, None)
    desk.bind(0, "udp port 53", first)
    with pytest.raises(ConflictError) as refused:
        desk.bind(1, "host 10.0.0.1", second)
    message = str(refused.value)
    assert "'host 10.0.0.1' and binding 0 of environment env1 ('udp port 53')" in message
    assert "(host 10.0.0.1) and not (udp port 53)" in message and "example" in message
    assert desk.bind(1, "(host 10.0.0.1) and not (udp port 53)", second) == 1


def test_r04_nested_needs_the_owner_s_capability(desk: Desk) -> None:
    first, second = desk.grant(0, None), desk.grant(1, None)
    desk.bind(0, "udp port 53", first)
    text = "udp port 53 and host 10.0.0.1"
    with pytest.raises(DeniedError, match="takes frames from binding 0 of environment env1"):
        desk.bind(1, text, second)
    owner = desk.authority.authentic(first)
    consent = desk.authority.derive(owner, 2, None, Scope(port=0, region=text))
    assert desk.bind(1, text, consent) == 1


def test_r04_conjuncts_are_nested_or_disjoint_each_for_itself(desk: Desk) -> None:
    """`tcp port 80` is half inside `ip`; its other half, over IPv6, nobody holds."""
    token = desk.grant(0, None)
    desk.bind(0, "ip", token)
    assert desk.bind(0, "tcp port 80", token) == 1
    with pytest.raises(ConflictError, match="overlap and neither is inside the other"):
        desk.bind(0, "host 10.0.0.1", token)


def test_r04_the_operator_consents_by_granting_the_narrower_region(desk: Desk) -> None:
    wide, narrow = desk.grant(0, "ip"), desk.grant(1, "tcp port 80")
    for token in (wide, narrow):
        desk.bindings.operator_grants(desk.authority.authentic(token))
    desk.bind(0, "ip", wide)
    assert desk.bind(1, "tcp port 80", narrow) == 1
    with pytest.raises(DeniedError, match="takes frames from binding 1"):
        desk.bind(0, "tcp dst port 80 and host 10.0.0.1", wide)
    desk.authority.revoke(desk.authority.authentic(wide).identifier)
    assert desk.bind(1, "tcp dst port 80", narrow) == 2


def test_r04_the_same_frames_by_other_words(desk: Desk) -> None:
    token = desk.grant(0, None)
    desk.bind(0, "tcp port 80", token)
    with pytest.raises(ConflictError, match="the very same frames"):
        desk.bind(0, "port 80 and tcp", token)


@pytest.mark.parametrize(
    "text",
    [
        *("host example.com", "src evil.example", "net loopback", "gateway router", "host 10.0.0.1 or evil.example"),
        *("ether host somebody", "dst host 1.de", "port evil.example", "host tcp-evil", "not localhost", "host a1"),
        *(
            "host \\tcp",
            "src \\port",
            "host \\not",
            "host \\or or \\and",
            "net \\udp",
            "host \\10.0.0.1",
            "ether host \\ip",
        ),
        *("host \\-", "host \\$", "port 53 and host \\ftp", "llc && rr", "llc||(ui)", "llc and rr", "llc !test"),
    ],
)
def test_no_filter_makes_the_kernel_ask_a_name_service(text: str) -> None:
    with pytest.raises(FilterError, match="is a name: addresses must be given as numbers"):
        Regions().prepare(text)


@pytest.mark.parametrize(
    "text",
    [
        *("host 10.0.0.1", "net 10.7", "net 10.0.0.0/8", "ip6 host fe80::1", "net 2001:db8::/32", "port domain"),
        *(
            "ether host 02:00:00:00:00:01",
            "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
            "ip proto \\tcp",
            "ether[12:2]=0x806",
        ),
        *("portrange 1-100", "len <= 64", "vlan 5 and ip", "icmp[icmptype] = icmp-echo", "Udp.dport == 53", "not arp"),
        *("net 10.0.0.0 mask 255.0.0.0", "dst host ::", "(tcp port 80) or (udp port 53)", "not (host 10.0.0.1)"),
    ],
)
def test_filters_without_names_are_taken(text: str) -> None:
    assert Regions().prepare(text).conjuncts


def test_what_was_prepared_is_remembered_within_bounds() -> None:
    regions = Regions()
    first = weakref.ref(regions.prepare("tcp port 1"))
    assert regions.prepare("tcp port 1") is first()
    for number in range(3):
        regions.studies.find(number, lambda: None, weigh=lambda _: ROOM // 2)
    assert first() is None
    assert regions.prepare("tcp port 1")
