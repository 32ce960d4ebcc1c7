# SPDX-License-Identifier: MIT
"""Some seeded rounds of the fuzz that `scripts/fuzz` runs for hours; EXONET_LONG=seconds: more. And: it can fail."""

import pytest

from exonet.filters.conjunct import Conjunct
from tests.effort import LONG
from tests.fuzz_filters import Disagreement, Fuzz, run


def test_r05_native_table_reference_and_libpcap_agree_on_random_filters() -> None:
    fuzz = Fuzz(frames=300, per_capture=5, every=8)
    for seed in range(2):
        fuzz.round(seed, 12)
    assert fuzz.counts["filters"] > 15
    assert 0.02 < fuzz.counts["of them taken"] / fuzz.counts["evaluations"] < 0.7
    if LONG:
        said: list[str] = []
        assert run(fuzz, 1000, LONG, said.append) == 0, said


def test_the_fuzz_finds_a_conjunct_that_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Conjunct.matches

    def wrong(conjunct: Conjunct, frame: bytes, wire_len: int | None = None) -> bool:
        return honest(conjunct, frame, wire_len) or frame[-1:] == b"\0"

    monkeypatch.setattr(Conjunct, "matches", wrong)
    fuzz = Fuzz(frames=200, per_capture=2, every=1)
    with pytest.raises(Disagreement, match="reference says True for filter"):
        fuzz.round(1, 12)
