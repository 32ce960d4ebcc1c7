# SPDX-License-Identifier: MIT
"""Uses: which constants of a program are mere values, and at which places each stands."""

import pytest

from exonet.filters.compile import conjuncts_of
from exonet.filters.libpcap import Libpcap
from exonet.filters.uses import Lane, Uses
from exonet.filters.value import Value
from exonet.filters.walk import Walk

PORT = Value(0, 54, 2, 0xFFFF)
FIRST_BYTE = Value(0, 54, 1, 0xFF)
IDLE: dict[int, tuple[int, int]] = {}


def lanes(text: str) -> list[Lane]:
    walk = Walk(Libpcap().compile(text).instructions)
    conjuncts_of(walk)
    return [lane for lane, _ in walk.values()]


def test_equal_constants_of_one_field_are_one_value_with_followers() -> None:
    uses = Uses()
    uses.accept(uses.compare(PORT, 2, uses.compare(PORT, 0, 0)), IDLE, None)
    assert uses.values([80, 0, 80]) == [(Lane(0, 54, 2, 0xFFFF), (0, 2))]
    assert uses.values([80, 0, 81]) == []


def test_equal_constants_of_other_bytes_are_values_of_their_own() -> None:
    uses = Uses()
    other = PORT._replace(offset=56)
    uses.accept(uses.compare(other, 1, uses.compare(PORT, 0, 0)), IDLE, None)
    assert uses.values([80, 80]) == [(Lane(0, 54, 2, 0xFFFF), (0,)), (Lane(0, 56, 2, 0xFFFF), (1,))]


@pytest.mark.parametrize("other", [FIRST_BYTE, PORT._replace(mask=0xFFF)])
def test_a_part_of_a_field_is_no_follower_of_it(other: Value) -> None:
    uses = Uses()
    uses.accept(uses.compare(other, 1, uses.compare(PORT, 0, 0)), IDLE, None)
    assert uses.values([6, 6]) == []


def test_comparisons_meet_on_one_path_or_on_two_accepted_ones() -> None:
    apart, both = Uses(), Uses()
    for uses in (apart, both):
        uses.accept(uses.compare(PORT, 0, 0), IDLE, None)
        made = uses.compare(FIRST_BYTE, 1, 0)
        if uses is both:
            uses.accept(made, IDLE, None)
    assert apart.values([80, 6]) == [(Lane(0, 54, 2, 0xFFFF), (0,))]
    assert both.values([80, 6]) == []


def test_a_follower_of_what_matters_matters() -> None:
    uses = Uses()
    made = uses.compare(PORT, 2, uses.compare(FIRST_BYTE, 1, 0))
    uses.accept(made, IDLE, None)
    uses.accept(uses.compare(PORT, 0, 1 << 2), IDLE, None)
    assert uses.values([80, 6, 80]) == []


def test_a_program_of_very_many_comparisons_has_no_values() -> None:
    uses, made = Uses(), 0
    for pc in range(129):
        assert len(uses.values([5] * pc)) == pc
        made = uses.compare(PORT._replace(offset=60 + 2 * pc), pc, made)
        uses.accept(made, IDLE, None)
    assert uses.values([5] * 129) == []


def test_a_network_has_its_value_under_its_mask() -> None:
    assert Lane(0, 26, 4, 0xFFF00000) in lanes("ip src net 10.16.0.0/12")


def test_what_names_fields_is_no_value() -> None:
    assert [lane.offset for lane in lanes("ether[12:2] = 0x1234 and ether[26:2] = 5")] == [26]
    assert [lane.offset for lane in lanes("vlan 5 and ip and tcp dst port 80")] == [14, 2]
