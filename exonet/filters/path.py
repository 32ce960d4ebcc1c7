# SPDX-License-Identifier: MIT
"""The path: what a frame must satisfy for a program of classic BPF to take one way (walk.py), and where it stands."""

from dataclasses import dataclass, field

from exonet.filters.conjunct import Term
from exonet.filters.value import WORD, Value, constant

__all__ = ["NOTHING", "Range", "State"]

NOTHING = constant(0)
Range = tuple[int, int]


@dataclass(slots=True)
class State:
    """A path so far. excluded: the terms that must not hold. barred: the values of these, and of those whose frames the
    program has accepted before, which therefore need no exclusion.
    """

    pc: int = 0
    a: Value = NOTHING
    x: Value = NOTHING
    memory: dict[int, Value] = field(default_factory=dict)
    bits: dict[int, tuple[int, int]] = field(default_factory=dict)
    excluded: tuple[Term, ...] = ()
    barred: dict[tuple[int, int], frozenset[int]] = field(default_factory=dict)  # by space and mask
    ranges: dict[Value, Range] = field(default_factory=dict)
    frame_bytes: int = 0
    ip4: tuple[int, int] | None = None  # where the header begins, and bytes needed after it
    made: int = 0  # which comparisons it has made (uses.py)

    def copy(self) -> "State":
        return State(
            self.pc,
            self.a,
            self.x,
            dict(self.memory),
            dict(self.bits),
            self.excluded,
            dict(self.barred),
            dict(self.ranges),
            self.frame_bytes,
            self.ip4,
            self.made,
        )

    def constraints(self) -> "State":
        """The same set of frames, at the program's start."""
        state = State(
            bits=dict(self.bits),
            excluded=self.excluded,
            ranges=dict(self.ranges),
            frame_bytes=self.frame_bytes,
            ip4=self.ip4,
            made=self.made,
        )
        for term in self.excluded:
            state._bar(term)
        return state

    def fix(self, term: Term) -> bool:
        """Adds that a term holds; False where no frame is left."""
        space, mask, value = term
        if not mask:
            return True
        known, bits = self.bits.get(space, (0, 0))
        if (bits ^ value) & known & mask:
            return False
        self.bits[space] = (known | mask, bits | value)
        known, bits = self.bits[space]
        for (where, barred), values in self.barred.items():
            if where == space and barred & mask and not barred & ~known and bits & barred in values:
                return False
        return True

    def exclude(self, term: Term, accepted: bool = False) -> bool:
        """Adds that a term does not hold; False where no frame is left. accepted: the program takes those where it
        does.
        """
        space, mask, value = term
        known, bits = self.bits.get(space, (0, 0))
        if (bits ^ value) & known & mask:
            return True
        if not mask & ~known:
            return False
        if value not in self.barred.get((space, mask), ()):
            self._bar(term)
            if not accepted:
                self.excluded = (*self.excluded, term)
        return True

    def but_for(self, value: Value) -> tuple[object, ...]:
        """Equal for paths that differ at most in what they say of a value: its range, and which it has not."""
        others = frozenset(item for item in self.ranges.items() if item[0] != value)
        excluded = frozenset(self.excluded) - frozenset(self.excluding(value))
        return tuple(sorted(self.bits.items())), excluded, others, self.frame_bytes, self.ip4

    def excluding(self, value: Value) -> tuple[Term, ...]:
        """The excluded terms that are about a value and nothing else."""
        space, covered, _ = value.term(WORD, 0) or (None, 0, 0)
        return tuple(term for term in self.excluded if term[0] == space and not term[1] & ~covered)

    def within(self, other: "State") -> bool:
        """Is every frame of this path in the other one? Sufficient, not necessary."""
        if self.frame_bytes < other.frame_bytes:
            return False
        for space, (mask, value) in other.bits.items():
            known, bits = self.bits.get(space, (0, 0))
            if mask & ~known or (bits ^ value) & mask:
                return False
        if other.ip4 and (not self.ip4 or self.ip4[0] != other.ip4[0] or self.ip4[1] < other.ip4[1]):
            return False
        for ranged, (low, high) in other.ranges.items():
            least, most = self.bounds(ranged)
            if least < low or high < most:
                return False
        return all(self._lacks(term) for term in other.excluded)

    def _lacks(self, term: Term) -> bool:
        """Is it seen that the term does not hold?"""
        space, mask, value = term
        known, bits = self.bits.get(space, (0, 0))
        return bool((bits ^ value) & known & mask) or value in self.barred.get((space, mask), ())

    def _bar(self, term: Term) -> None:
        space, mask, value = term
        self.barred[space, mask] = self.barred.get((space, mask), frozenset()) | {value}

    def bounds(self, value: Value) -> Range:
        """The least and the greatest that the value (without its addend) can be, as far as is known."""
        low, high = self.ranges.get(value._replace(addend=0), (0, WORD))
        now = value._replace(addend=0).under(self.bits)
        return max(low, now.const), min(high, now.const | now.live)

    def confine(self, value: Value, low: int, high: int) -> bool:
        """Adds that the value (without its addend) lies in low..high; False where no frame is left."""
        least, most = self.bounds(value)
        if low <= least and most <= high:
            return True
        low, high = max(low, least), min(high, most)
        self.ranges[value._replace(addend=0)] = (low, high)
        return low <= high
