# SPDX-License-Identifier: MIT
"""Which spans overlap one: against looking at each."""

import random

import pytest

from exonet.kernel.line import Line


@pytest.mark.parametrize("most", [1, 255, 65535, 2**32 - 1])
def test_a_line_finds_what_overlaps(most: int) -> None:
    chosen = random.Random(most)
    line: Line[int] = Line()
    held: dict[int, tuple[int, int]] = {}

    def span() -> tuple[int, int]:
        low = chosen.choice((0, most, most // 2, chosen.randint(0, most)))
        return low, min(
            low + chosen.choice((0, 1, most // 2, most, chosen.randint(0, 1 << chosen.randint(0, 32)))), most
        )

    for step in range(600):
        if held and chosen.random() < (0.3 if step < 300 else 0.7):
            gone = chosen.choice(list(held))
            line.remove(gone, *held.pop(gone))
        else:
            held[step] = span()
            line.add(step, *held[step])
        low, high = span()
        wanted = {each for each, (start, end) in held.items() if start <= high and low <= end}
        found = line.overlapping(low, high)
        assert set(found) == wanted and len(found) == len(wanted)
    for each, where in held.items():
        line.remove(each, *where)
    assert not line
