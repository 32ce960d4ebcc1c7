# SPDX-License-Identifier: MIT
"""Templates: a filter that differs from a known one in values only decomposes as the slow way says, without it."""

import random
import re
from collections.abc import Sequence

import pytest

from exonet.abi import ffi
from exonet.errors import FilterError
from exonet.filters.compile import compile_filter, conjuncts_of
from exonet.filters.conjunct import Conjunct
from exonet.filters.form import shape_of
from exonet.filters.libpcap import Libpcap
from exonet.filters.steps import Undecomposable
from exonet.filters.template import Templates
from exonet.filters.walk import Walk
from exonet.kernel.prepared import Prepared
from exonet.kernel.regions import Regions
from tests.filter_list import DECOMPOSE

CONNECTED = "tcp and src host {}.{}.{}.{} and src port {} and dst host 10.7.0.2 and dst port {}"


class Counting:
    """The slow way, counted."""

    def __init__(self) -> None:
        self.walks = 0

    def __call__(self, walk: Walk) -> tuple[Conjunct, ...]:
        self.walks += 1
        return conjuncts_of(walk)


def other_values(text: str, chosen: random.Random) -> str:
    """The same filter with other numbers wherever that leaves a filter."""

    def other(found: re.Match[str]) -> str:
        number = found.group()
        return number if found.start() and text[found.start() - 1] in "[/x" else str(chosen.randint(0, 255))

    return re.sub(r"\b\d{1,5}\b", other, text)


@pytest.mark.parametrize("text", DECOMPOSE)
def test_a_template_says_what_the_slow_way_says(text: str) -> None:
    """Whatever the values: equal ones, small ones, neighbours, those of the protocols that the program tests."""
    chosen, templates = random.Random(7), Templates(conjuncts_of)
    for attempt in range(4):
        wanted = text if attempt == 0 else other_values(text, chosen)
        try:
            program = Libpcap().compile(wanted)
        except FilterError:  # these numbers make no filter
            continue
        try:
            slow = conjuncts_of(Walk(program.instructions))
        except Undecomposable as refusal:
            with pytest.raises(type(refusal)):
                templates.conjuncts(program)
            continue
        assert templates.conjuncts(program) == slow
        assert [c.breadth for c in templates.conjuncts(program)] == [c.breadth for c in slow]


def test_a_known_form_is_not_walked_again() -> None:
    slow = Counting()
    templates, chosen = Templates(slow), random.Random(1)
    for attempt in range(50):
        text = CONNECTED.format(*(chosen.randrange(1, 255) for _ in range(4)), *(chosen.randrange(1, 65536),) * 2)
        (found,) = compile_filter(text, templates).conjuncts
        assert found == compile_filter(text).conjuncts[0]
        if attempt == 0:
            first = slow.walks
    assert slow.walks == first == 3  # the walk, and two trials


@pytest.mark.parametrize(
    ("known", "other"),
    [
        ("tcp portrange 10-20", "tcp portrange 0-30"),  # an interval at an end of its field
        ("tcp portrange 10-20", "tcp portrange 1024-65535"),
        ("tcp portrange 10-20", "tcp portrange 11-12"),  # two values
        ("tcp src portrange 10-20 and dst portrange 10-20", "tcp src portrange 10-20 and dst portrange 100-2000"),
        ("ip[2:2] >= 10 and ip[2:2] <= 20", "ip[2:2] >= 16 and ip[2:2] <= 31"),  # a prefix
        ("port 80 or port 443", "port 80 or port 81"),  # neighbours merge
        ("ether[12:2] = 0x800 and ip[9] = 6", "ether[12:2] = 0x801 and ip[9] = 6"),
        ("ip[0] = 0x45 and udp port 53 and ether[34:2] = 53", "ip[0] = 0x45 and udp port 53 and ether[34:2] = 54"),
        ("ip host 10.0.0.1 and not 10.0.0.2", "ip host 10.0.0.2 and not 10.0.0.1"),
        ("net 10.0.0.0/8", "net 11.0.0.0/8"),
        ("tcp and not dst port 80", "tcp and not dst port 0"),  # an interval is cut at its end
        ("tcp and not dst port 80", "tcp and not dst port 1"),  # and may have a single value beyond
        (  # a value of one field may be the neighbour of another one's values, in the field that both are in
            "ip proto 6 and (ip[4] = 1 or (ip[4] = 2 and ip[5] = 7))",
            "ip proto 6 and (ip[4] = 1 or (ip[4] = 2 and ip[5] = 0))",
        ),
        ("tcp dst port 80 or tcp dst port 443", "tcp dst port 80 or tcp dst port 81"),
        ("src host 10.0.0.1 or src host 10.1.0.9", "src host 10.0.0.1 or src host 10.0.0.3"),
        (
            "ether[12:2] = 5 and ether[26:2] = 5 and ether[30] = 1",
            "ether[12:2] = 0x800 and ether[26:2] = 5 and ether[30] = 1",
        ),
    ],
)
def test_values_that_matter_are_no_holes(known: str, other: str) -> None:
    templates = Templates(conjuncts_of)
    for text in (known, other, known):
        program = Libpcap().compile(text)
        assert templates.conjuncts(program) == conjuncts_of(Walk(program.instructions))


def seen(prepared: Prepared) -> tuple[object, ...]:
    """All that a bind takes from a filter."""
    kinds = [(c.kind.masks, c.kind.guards, c.kind.plain, c.kind.field) for c in prepared.claims]
    claims = [
        (kind, c.values, c.span, bytes(c.shape), c.excluded, c.low, c.high, c.rank, c.box)
        for kind, c in zip(kinds, prepared.claims, strict=True)
    ]
    boxes = [(ffi.buffer(native)[:], groups) for native, groups in prepared.boxes()]
    shapes = [shape.shape for shape in prepared.shapes]  # type: ignore[attr-defined]
    return claims, boxes, shapes, prepared.high, prepared.count, prepared.conjuncts


def as_walked(texts: Sequence[str]) -> None:
    """Whatever templates the first of these texts leave, each becomes what a walk of it says: conjuncts, their order,
    breadth; and claims, native boxes and shapes of what the kernel prepares.
    """
    templates, fast, slow = Templates(conjuncts_of), Regions(), Regions()
    for text in texts:
        try:
            program = Libpcap().compile(text)
            walked = conjuncts_of(Walk(program.instructions))
        except (FilterError, Undecomposable):  # these values make no filter
            continue
        found = templates.conjuncts(program)
        assert found == walked, texts
        assert [c.breadth for c in found] == [c.breadth for c in walked]
        if walked:
            assert seen(fast.prepare(text)) == seen(slow._prepare(text, walked)), texts


@pytest.mark.parametrize("text", [*DECOMPOSE, CONNECTED.format(10, 0, 0, 1, 5, 80), "ip6 host ::5 and udp dst port 53"])
def test_a_filter_by_its_pattern_is_what_its_conjuncts_say(text: str) -> None:
    """Native boxes and shapes byte for byte, and the claims."""
    chosen, fast, slow = random.Random(3), Regions(), Regions()
    for attempt in range(3):
        wanted = text if attempt == 0 else other_values(text, chosen)
        try:
            conjuncts = compile_filter(wanted).conjuncts
            expected = seen(slow._prepare(wanted, conjuncts))
            found = fast.prepare(wanted)
        except FilterError:  # these numbers make no filter, or it names a host
            continue
        assert seen(found) == expected
        assert [c.conjunct for c in found.claims] == [c for c in conjuncts if c in [o.conjunct for o in found.claims]]
        assert {shape_of(c) for c in conjuncts} == {shape.shape for shape in found.shapes}  # type: ignore[attr-defined]


def test_values_that_the_dispatch_decides_on_have_patterns_of_their_own() -> None:
    """Equal programs but for a constant, which is the ethertype or the protocol, and the group bit."""
    fast, slow = Regions(), Regions()
    texts = [
        f"ether[12:2] = {kind} and ether[0] = {first} and ether[23] = {p}"
        for kind in (0x800, 0x806, 0x86DD, 5)
        for first in (0, 1, 2)
        for p in (6, 17, 200)
    ]
    for text in texts * 2:
        assert seen(fast.prepare(text)) == seen(slow._prepare(text, compile_filter(text).conjuncts)), text


def test_a_connected_socket_is_prepared_by_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    regions = Regions()
    regions.prepare(CONNECTED.format(10, 0, 0, 1, 5, 80))
    monkeypatch.setattr(Conjunct, "to_native", lambda *_: pytest.fail("made the slow way"))
    monkeypatch.setattr(Conjunct, "__init__", lambda *_: pytest.fail("made the slow way"))
    assert len(regions.prepare(CONNECTED.format(10, 0, 0, 2, 6, 81)).boxes()) == 1


@pytest.mark.parametrize(
    "form",
    [
        "ip6 and tcp and src host 2001:db8::{} and dst host 2001:db8::{} and src port {} and dst port {}",
        "tcp and src host 2001:db8::{} and dst host ::{} and src port {} and dst port {}",
        "host 10.0.{}.{} and port {}",
        "ip6 host 2001:db8::{} and tcp port {}",
        "port {}",
        "vlan {} and tcp and dst host 10.0.0.{} and dst port {}",
        "ip dst net 10.{}.0.0/16 and udp dst port {}",
        "ip6 dst net 2001:db8:{}::/48",
        "ip src net {}.0.0.0/8 or ip dst net {}.0.0.0/8",
        "host 10.0.{}.{}",
        "src host 10.0.{}.{}",
        "net 10.0.{}.0/24",
        "host 10.0.{}.{} and host 10.7.{}.{}",
        "src host 10.0.{}.{} or src host 10.7.{}.{}",
        "tcp and (port 1{}2 or port 2{}7)",
        "tcp dst port 1{}2 or tcp dst port 2{}7",
        "port 1{}2 or port 2{}7",
        "tcp and not port 1{}2",
        "not host 10.0.{}.{}",
        "not net 10.0.{}.0/24",
        "host 10.0.{}.{} and not port 1{}2",
        "host 10.0.{}.{} and (tcp port 1{}2 or udp port 2{}7)",
        "udp dst portrange 1{}2-2{}7",
        "tcp portrange 1{}2-2{}7",
        "portrange 1{}2-2{}7",
        "tcp and dst host 10.0.{}.{} and dst portrange 1{}2-2{}7",
    ],
)
def test_the_usual_forms_are_walked_once(form: str) -> None:
    slow = Counting()
    templates = Templates(slow)
    for first in range(4):
        text = form.format(*(10 + (first * place) % 7 for place in range(1, 5)))
        program = Libpcap().compile(text)
        assert templates.conjuncts(program) == conjuncts_of(Walk(program.instructions))
    assert slow.walks == (4 if "range" in form else 3)  # the walk, with a value for the range, and two trials


def test_a_form_is_not_tried_in_vain_for_ever() -> None:
    slow = Counting()
    templates = Templates(slow)
    for low in range(1000, 1100):
        compile_filter(f"tcp dst portrange {low}-3000 or udp dst port 5", templates)
    assert not templates._known and slow.walks == 3 * 16 + 84


def test_a_form_whose_values_matter_makes_few_templates() -> None:
    slow = Counting()
    templates = Templates(slow)
    for low in range(1000, 1100):
        compile_filter(f"ip[2:2] > {low} and dst host 10.0.0.1", templates)
    assert sum(map(len, templates._known.values())) == 16 and slow.walks == 3 * 16 + 84
