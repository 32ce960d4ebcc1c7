# SPDX-License-Identifier: MIT
"""A crowd: claims of one kind that ask a group together (claims.py), since a filter can have hundreds, and there can be
hundreds of groups. What their values are under a mask, and which fields they span, is found once for all groups.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from itertools import product
from math import prod
from operator import contains, or_

from exonet.kernel.claim import Claim, Entry, Ruler
from exonet.kernel.line import Line
from exonet.kernel.projection import Pick

__all__ = ["Crowd"]

Key = tuple[int, ...]
Bounds = tuple[int, int]
#: So many entries of a line are asked one by one who of a crowd they overlap.
FEW_ENTRIES = 32


class Crowd:
    """base, agreed: the values of one of them, and in which bits all have those. low: the least volume of one."""

    __slots__ = ("_among", "_columns", "_parts", "_picked", "agreed", "base", "claims", "low")

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = claims
        self.low = min([claim.low for claim in claims])
        self._columns = [set(column) for column in zip(*[claim.values for claim in claims], strict=True)]
        self.base = claims[0].values
        columns = zip(self.base, self._columns, strict=True)
        self.agreed = [~reduce(or_, [value ^ first for value in column]) for first, column in columns]
        self._parts: dict[tuple[int, int], set[int]] = {}
        self._picked: dict[Pick, dict[Key, list[Claim]]] = {}
        self._among: dict[tuple[Pick, Ruler], dict[Key, dict[Bounds, list[Claim]]]] = {}

    def keys(self, pick: Pick, held: Mapping[Key, object]) -> Collection[Key]:
        """Those of `held` that any of them has by its picked bits: found from the side that has fewer."""
        parts = [self._part(each) for each in pick]
        most = prod(map(len, parts))
        if len(held) <= min(most, len(self.claims)):
            possible = [key for key in held if all(map(contains, parts, key))]
        elif most <= len(self.claims):
            possible = [key for key in product(*parts) if key in held]
        else:
            possible = [key for key in self._by(pick) if key in held]
        if not possible or most == 1:
            return possible
        picked = self._by(pick)
        return [key for key in possible if key in picked]

    def at(self, pick: Pick, key: Key) -> Sequence[Claim]:
        """Those with the key by their picked bits."""
        return self._by(pick)[key]

    def overlaps(
        self, pick: Pick, key: Key, field: Ruler, line: Line[Entry]
    ) -> Iterable[tuple[Entry, Sequence[Claim]]]:
        """Entries of a line, and some of those with the key that each overlaps; an entry may come several times."""
        among = self._spread(pick, field)[key]
        within = line.overlapping(min(low for low, _ in among), max(high for _, high in among))
        if len(within) <= FEW_ENTRIES:
            for entry in within:
                start, end = entry[1].bounds(field)
                for (low, high), claims in among.items():
                    if low <= end and high >= start:
                        yield entry, claims
        else:
            for (low, high), claims in among.items():
                for entry in line.overlapping(low, high):
                    yield entry, claims

    def _part(self, each: tuple[int, int]) -> set[int]:
        found = self._parts.get(each)
        if found is None:
            place, mask = each
            found = self._parts[each] = {value & mask for value in self._columns[place]}
        return found

    def _by(self, pick: Pick) -> Mapping[Key, list[Claim]]:
        found = self._picked.get(pick)
        if found is None:
            found = self._picked[pick] = {}
            for claim in self.claims:
                values = claim.values
                found.setdefault(tuple([values[place] & mask for place, mask in pick]), []).append(claim)
        return found

    def _spread(self, pick: Pick, field: Ruler) -> Mapping[Key, dict[Bounds, list[Claim]]]:
        found = self._among.get((pick, field))
        if found is None:
            found = self._among[pick, field] = {}
            for key, claims in self._by(pick).items():
                among: dict[Bounds, list[Claim]] = {}
                for claim in claims:
                    among.setdefault(claim.bounds(field), []).append(claim)
                found[key] = among
        return found
