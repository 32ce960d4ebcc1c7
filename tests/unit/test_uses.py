# SPDX-License-Identifier: MIT
"""Uses: which constants of a program are mere values, and at which places each stands."""

from dataclasses import replace

import pytest

from exonet.filters.compile import conjuncts_of
from exonet.filters.conjunct import Conjunct
from exonet.filters.lane import Lane
from exonet.filters.libpcap import Libpcap
from exonet.filters.span import Field
from exonet.filters.uses import Uses
from exonet.filters.value import Value, constant
from exonet.filters.walk import Walk

PORT = Value(0, 54, 2, 0xFFFF)
FIRST_BYTE = Value(0, 54, 1, 0xFF)
OTHER_PORT = PORT._replace(offset=56)
WHOLE = Lane(0, 54, 2, 0xFFFF)


def lanes(text: str) -> list[Lane]:
    program = Libpcap().compile(text).instructions
    walk = Walk(program)
    conjuncts_of(walk)
    return [lane for lanes, _ in walk.uses.values([instruction.k for instruction in program]).holes for lane in lanes]


def accepted(uses: Uses, *paths: int, kind: tuple[int, ...] = (0,)) -> None:
    """Paths that made these comparisons are accepted, each with a conjunct that has a value of both ports; kind: what
    two bytes of each have.
    """
    formed = {}
    for i, made in enumerate(paths):
        known = {0: (0xFFFF << 96 | 0xFFFFFFFF << 432, kind[i % len(kind)] << 96)}
        uses.accept(made, known, None)
        conjunct = Conjunct.of(known, frame_bytes=80 + i)
        assert conjunct
        formed[conjunct] = made
    uses.notes.form(formed)


def holes(uses: Uses, constants: list[int]) -> list[tuple[Lane, tuple[int, ...]]]:
    return [(lane, pcs) for lanes, pcs in uses.values(constants).holes for lane in lanes]


def test_equal_constants_of_one_field_are_one_value_with_followers() -> None:
    uses = Uses()
    accepted(uses, uses.compare(PORT, 2, uses.compare(PORT, 0, 0)))
    assert holes(uses, [80, 0, 80]) == [(WHOLE, (0, 2))]


@pytest.mark.parametrize(
    ("other", "unlike"), [(443, True), (80 ^ 8, True), (81, False), (80 ^ 128, False), (82, False)]
)
def test_unlike_constants_of_one_field_are_in_general_position(other: int, unlike: bool) -> None:
    """More than two apart, and by more than a bit."""
    uses = Uses()
    accepted(uses, uses.compare(PORT, 2, uses.compare(PORT, 0, 0)))
    found = uses.values([80, 0, other ^ (8 << 5 if other == 80 ^ 8 else 0)])
    assert (found.unlike == ((0, 2),)) == (len(found.holes) == 2) == unlike


def test_equal_constants_of_other_bytes_are_values_of_their_own() -> None:
    uses = Uses()
    accepted(uses, uses.compare(OTHER_PORT, 1, uses.compare(PORT, 0, 0)))
    assert holes(uses, [80, 80]) == [(WHOLE, (0,)), (Lane(0, 56, 2, 0xFFFF), (1,))]


def test_what_compares_two_fields_is_one_value_in_both() -> None:
    uses = Uses()
    accepted(uses, uses.compare(PORT, 0, 0), uses.compare(OTHER_PORT, 0, 0))
    assert holes(uses, [80]) == [(WHOLE, (0,)), (Lane(0, 56, 2, 0xFFFF), (0,))]


@pytest.mark.parametrize("other", [PORT._replace(offset=70, mask=0xFFF), PORT._replace(offset=70, mask=7), constant(3)])
def test_what_compares_something_else_too_is_no_value(other: Value) -> None:
    """A field of another form, bits of one, a constant."""
    uses = Uses()
    accepted(uses, uses.compare(PORT, 0, 0), uses.compare(other, 0, 0))
    assert holes(uses, [3]) == []


@pytest.mark.parametrize("other", [FIRST_BYTE, PORT._replace(mask=0xFFF)])
def test_a_part_of_a_field_is_no_follower_of_it(other: Value) -> None:
    uses = Uses()
    accepted(uses, uses.compare(other, 1, uses.compare(PORT, 0, 0)))
    assert holes(uses, [6, 6]) == []


@pytest.mark.parametrize(
    ("kind", "apart"), [((0x0008, 0x0608), True), ((0x0008, 0x0108), False), ((0x0008, 0x0008), False)]
)
def test_comparisons_meet_on_one_path_or_on_two_accepted_ones(kind: tuple[int, int], apart: bool) -> None:
    """Unless the paths differ in two bits of the ethertype."""
    once, both = Uses(), Uses()
    for uses in (once, both):
        port, part = uses.compare(PORT, 0, 0), uses.compare(FIRST_BYTE, 1, 0)
        accepted(uses, port, *([part] if uses is both else []), kind=kind)
    assert holes(once, [80, 6]) == [(WHOLE, (0,))]
    assert holes(both, [80, 6]) == ([(WHOLE, (0,)), (Lane(0, 54, 1, 0xFF), (1,))] if apart else [])


def test_a_field_that_intervals_are_made_of_tells_nothing_apart() -> None:
    uses = Uses()
    accepted(uses, uses.compare(PORT, 0, 0), uses.compare(FIRST_BYTE, 1, 0), kind=(0x0008, 0x0608))
    uses.notes.formed = tuple((replace(each, frame_bytes=80), made) for each, made in uses.notes.formed or ())
    assert len(holes(uses, [80, 6])) == 2
    uses.notes.tried[Field(0, 12, 2)] = set()
    assert holes(uses, [80, 6]) == []


def test_bits_that_a_merge_has_lost_tell_nothing_apart() -> None:
    uses = Uses()
    accepted(uses, uses.compare(PORT, 0, 0), uses.compare(FIRST_BYTE, 1, 0), kind=(0x0008, 0x0608))
    uses.notes.lose(0, 1 << 105)
    assert holes(uses, [80, 6]) == []


def test_a_follower_of_what_matters_matters() -> None:
    uses = Uses()
    part = uses.compare(FIRST_BYTE, 1, 0)
    made = uses.compare(PORT, 2, part)
    accepted(uses, made | uses.compare(PORT, 0, made & ~part))
    assert holes(uses, [80, 6, 80]) == []


def test_a_program_of_very_many_comparisons_has_no_values() -> None:
    uses, made = Uses(), 0
    for pc in range(129):
        assert len(holes(uses, [5] * pc)) == pc
        made = uses.compare(PORT._replace(offset=60 + 2 * pc), pc, made)
        accepted(uses, made)
    assert holes(uses, [5] * 129) == []


def test_a_network_has_its_value_under_its_mask() -> None:
    assert Lane(0, 26, 4, 0xFFF00000) in lanes("ip src net 10.16.0.0/12")


def test_what_names_fields_is_no_value() -> None:
    assert [lane.offset for lane in lanes("ether[12:2] = 0x1234 and ether[26:2] = 5")] == [26]
    assert [lane.offset for lane in lanes("vlan 5 and ip and tcp dst port 80")] == [14, 2]
