# SPDX-License-Identifier: MIT
"""docs/rules.md holds each rule and invariant that code, tests and documents cite, and of each there is a test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

RULES = ROOT / "docs" / "rules.md"
KINDS = {".py", ".c", ".h", ".md"}
CITED = re.compile(r"\bR(\d{1,2})\b|\btest_r(\d\d)_")
SPAN = re.compile(r"\bR(\d{1,2}) to R(\d{1,2})\b")
INVARIANTS = re.compile(r"(?<![a-z])invariants?[ _](\d)(?:(?:, |_)(\d))*(?:(?: and |_and_)(\d))?")


def sources(*tops: str) -> Iterator[Path]:
    for top in tops:
        for path in [ROOT / top] if (ROOT / top).is_file() else (ROOT / top).rglob("*"):
            if path.suffix in KINDS and path.name not in ("_kernel.c", "_stack.c", "zz_stubs.c", Path(__file__).name):
                yield path


def rules(text: str) -> set[int]:
    spans = {number for first, last in SPAN.findall(text) for number in range(int(first), int(last) + 1)}
    return spans | {int(one or other) for one, other in CITED.findall(text)}


def invariants(text: str) -> set[int]:
    return {int(number) for found in INVARIANTS.findall(text) for number in found if number}


@pytest.fixture(scope="module")
def told() -> tuple[set[int], set[int]]:
    """The numbers of the rules and of the invariants that stand in the document."""
    text = RULES.read_text()
    stand = [int(number) for number in re.findall(r"(?m)^- \*\*R(\d+)\*\* ", text)]
    numbered = [int(number) for number in re.findall(r"(?m)^(\d)\. ", text)]
    assert stand == sorted(set(stand)) and numbered == list(range(1, len(numbered) + 1))
    return set(stand), set(numbered)


def test_what_is_cited_stands_in_the_document(told: tuple[set[int], set[int]]) -> None:
    for path in sources("exonet", "libos_stacks", "tests", "docs", "README.md", "ARCHITECTURE.md", "FILTERS.md"):
        text = path.read_text()
        assert rules(text) <= told[0], path
        assert invariants(text) <= told[1], path


def test_what_stands_in_the_document_has_a_test(told: tuple[set[int], set[int]]) -> None:
    text = "\n".join(path.read_text() for path in sources("tests"))
    assert told[0] <= rules(text)
    assert told[1] <= invariants(text)


def test_code_refers_to_documents_of_the_project_only() -> None:
    for path in sources("exonet", "libos_stacks", "tests", "README.md", "ARCHITECTURE.md", "FILTERS.md"):
        for name in re.findall(r"\b(?:docs/)?[A-Za-z]+\.md\b", path.read_text()):
            assert (ROOT / name).exists() or (path.parent / name).exists() or name == "README.md", (path, name)
