# SPDX-License-Identifier: MIT
"""FILTERS.md says what is true: its tables of the manual pages' examples are those of today, and so is all else in it
that can be tried. `python -m tests.manual` writes the tables anew.
"""

import re

import pytest

from exonet.errors import ExonetError
from exonet.filters import fields
from exonet.filters.compile import compile_filter
from exonet.filters.fields import Expression
from exonet.filters.region import Kind, relation
from tests.manual import PATH, TABLES, filled, listed, version

TEXT = PATH.read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its first two lines."""
    lines = TEXT.partition(f"{heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---")) + 1
    end = next(i for i, line in enumerate(lines[start:], start) if not line.startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[start:end]]


def quoted(cell: str) -> str:
    found = re.search(r"`([^`]+)`", cell)
    assert found, cell
    return found.group(1).replace("\\|", "|")


@pytest.fixture(scope="module")
def today() -> str:
    if version() not in TEXT:
        pytest.skip(f"FILTERS.md is not about the installed {version()}")
    return filled(TEXT)


def test_the_tables_of_the_manual_pages_are_those_of_today(today: str) -> None:
    assert today == TEXT, "FILTERS.md is stale: run python -m tests.manual"


def test_a_stale_table_would_be_written_anew(today: str) -> None:
    stale = TEXT.replace("| 12 conjuncts, 12 shapes |", "| 13 conjuncts, 12 shapes |", 1)
    assert stale != TEXT
    assert filled(stale, lambda name: "nothing") == filled(TEXT, lambda name: "nothing") != today


def test_few_of_the_manual_pages_examples_are_refused(today: str) -> None:
    """What we refuse of what libpcap compiles: chains of headers, what no frame has."""
    refused = set(re.findall(r"^\| `(.*?)` \| \*\*refused\*\* \| .{30,} \|$", today, re.MULTILINE))
    chains = {"ip6 protochain 6", "ip6 protochain 44", "ip protochain 17", "protochain 17"}
    assert refused == {*chains, "inbound", "outbound"}
    assert len(refused) == today.count("**refused**")
    assert len(refused) < 0.04 * sum(len(listed(table)) for table in TABLES.values())


@pytest.mark.parametrize("row", rows("in text or as an object:"), ids=lambda row: row[0])
def test_the_python_expressions_are_the_filters_beside_them(row: list[str]) -> None:
    source: str | Expression = quoted(row[0])
    if "(an object)" in row[0]:
        source = eval(str(source), vars(fields))
    one, other = compile_filter(source).conjuncts, compile_filter(quoted(row[1])).conjuncts
    assert relation(one, other).kind is Kind.EQUAL


@pytest.mark.parametrize("row", rows("## Who gets a frame: the most specific wins"), ids=lambda row: row[1])
def test_the_inner_filters_lie_inside_the_outer(row: list[str]) -> None:
    outer, inner = (compile_filter(quoted(cell)).conjuncts for cell in row[:2])
    assert relation(inner, outer).kind is Kind.INSIDE


def test_the_conflict_is_one_and_its_remedy_is_none() -> None:
    one, other, remedy = "tcp port 80", "host 10.0.0.1", "(host 10.0.0.1) and not (tcp port 80)"
    assert all(f"`{text}`" in TEXT for text in (one, other, remedy))
    held = compile_filter(one).conjuncts
    assert relation(held, compile_filter(other).conjuncts).kind is Kind.PARTIAL
    assert relation(held, compile_filter(remedy).conjuncts).kind is Kind.DISJOINT


@pytest.mark.parametrize("row", [row for row in rows("## What is refused") if "`" in row[1]], ids=lambda row: row[1])
def test_what_is_said_to_be_refused_is(row: list[str]) -> None:
    with pytest.raises(ExonetError) as refusal:
        compile_filter(quoted(row[1]))
    assert f'"{quoted(row[1])}"' in str(refusal.value)


@pytest.mark.parametrize("text", ("ip6 proto 6", "ip6[6] = 0 and ip6[40] = 6"))
def test_what_is_said_to_do_instead_does(text: str) -> None:
    assert f"`{text}`" in TEXT and compile_filter(text).conjuncts
