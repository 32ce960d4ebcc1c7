# SPDX-License-Identifier: MIT
"""A range as a value: the program that compares once takes what the program takes, with the value for the range."""

import pytest

from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.ranged import as_values
from tests.property.test_templates import as_walked

FORMS = (
    "tcp dst portrange {}",
    "tcp portrange {}",
    "portrange {}",
    "not tcp dst portrange {}",
    "host 10.0.0.1 and portrange {}",
    "tcp src portrange {} and not dst portrange {}",
)
LOW, HIGH, VALUE = 1000, 2000, 7


def frame(source: int, target: int) -> bytes:
    """TCP over IPv4."""
    ports = source.to_bytes(2, "big") + target.to_bytes(2, "big")
    return bytes(12) + bytes.fromhex("08004500002800000000400600000a0000010a000002") + ports + bytes(16)


@pytest.mark.parametrize("form", FORMS)
def test_it_takes_the_value_where_the_program_takes_the_range(form: str) -> None:
    program = Libpcap().compile(form.format(*(f"{LOW}-{HIGH}",) * form.count("{}")))
    code, pairs = as_values(program.instructions)
    changed = bytearray(code)
    for pc in pairs:
        assert changed[8 * pc + 4 : 8 * pc + 8] == LOW.to_bytes(4, "little")
        changed[8 * pc + 4 : 8 * pc + 8] = VALUE.to_bytes(4, "little")
    single = Program(program._run, "", bytes(changed))
    ports = (0, VALUE + 1, LOW - 1, LOW, LOW + 1, HIGH - 1, HIGH, HIGH + 1, 65535)
    assert pairs and len(changed) == len(program.code)
    for source, target in ((a, b) for a in ports for b in ports):
        valued = (VALUE if LOW <= port <= HIGH else port for port in (source, target))
        assert program.matches(frame(source, target)) == single.matches(frame(*valued)), (source, target)


def test_one_end_alone_is_no_range() -> None:
    for text in ("tcp[2:2] > 1000", "tcp[2:2] >= 1000 and tcp[0:2] <= 2000", "tcp dst port 80"):
        assert not as_values(Libpcap().compile(text).instructions)[1]


@pytest.mark.parametrize(
    "text",
    [
        "ip and udp[2:2] >= {} and udp[2:2] <= {}",
        "ip and udp[0:4] >= {} and udp[0:4] <= {}",
        "ip[16:4] >= {} and ip[16:4] <= {}",
        "ip and udp[2:2] & 0xfff0 >= {} and udp[2:2] & 0xfff0 <= {}",
    ],
)
def test_ends_beyond_the_field_and_masked_ones_are_as_they_are_walked(text: str) -> None:
    ends = ((1000, 2000), (1100, 2500), (1000, 65536 + 2000), (65536 + 1000, 65536 + 2000), (2000, 1000), (16, 31))
    as_walked([text.format(low, high) for low, high in ends])
