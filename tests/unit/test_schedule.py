# SPDX-License-Identifier: MIT
"""What is said of virtual time on a command line: the slice vector, the cost model."""

import json
from pathlib import Path

import pytest

from exonet.errors import UsageError
from exonet.kernel.schedule import CostModel, Slice


def test_a_vector_is_read_in_order() -> None:
    assert Slice.parse_vector("web:100us,a:b:50 ns,-:1.5ms") == (
        Slice("web", 100_000),
        Slice("a:b", 50),
        Slice(None, 1_500_000),
    )
    assert Slice.parse_vector("") == ()


@pytest.mark.parametrize("part", ["web", "web:", ":5us", "web:0us", "web:-1us", "web:5s", "web:1h", "web:fast", "5us"])
def test_a_slice_that_is_none_is_named(part: str) -> None:
    with pytest.raises(UsageError, match=f"slice '{part}': expected NAME:LENGTH"):
        Slice.parse_vector(f"dns:1us,{part}")


def test_a_cost_model_is_a_name_or_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"costs": {"place": 7}}))
    assert CostModel.named(str(own)) == CostModel(place=7)
    assert CostModel.named("dec5000").classify == 1500
    for content in ("{}", "[]", "no", '{"costs": {"plaice": 7}}', '{"costs": {"place": -7}}'):
        own.write_text(content)
        with pytest.raises(UsageError):
            CostModel.named(str(own))
    with pytest.raises(UsageError, match="expected one of dec5000, free, host, or a JSON file"):
        CostModel.named("vax")
