# SPDX-License-Identifier: MIT
"""The naive classifier: every conjunct in turn, the best rank wins. What the demux is compared with in tests."""

from exonet.filters.conjunct import Conjunct


class Reference:
    """The interface of csrc/demux.h over a list."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[Conjunct, int]] = []

    def insert(self, binding: int, conjunct: Conjunct) -> None:
        if (conjunct, binding) not in self._entries:
            self._entries.append((conjunct, binding))

    def remove(self, binding: int) -> int:
        """Returns how many conjuncts it had."""
        before = len(self._entries)
        self._entries = [entry for entry in self._entries if entry[1] != binding]
        return before - len(self._entries)

    def classify(self, frame: bytes, wire_len: int | None = None) -> int | None:
        """The binding of the most specific conjunct that holds."""
        found = self.match_all(frame, wire_len)
        return found[0] if found else None

    def match_all(self, frame: bytes, wire_len: int | None = None) -> list[int]:
        """Every binding that takes the frame, each once, the most specific first."""
        held = [(conjunct.rank, binding) for conjunct, binding in self._entries if conjunct.matches(frame, wire_len)]
        held.sort(key=lambda entry: entry[0])
        return list(dict.fromkeys(binding for _, binding in held))
