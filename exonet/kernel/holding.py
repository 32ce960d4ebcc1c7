# SPDX-License-Identifier: MIT
"""The holding of an environment: how much of its quota its bindings use, kept as counters."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from exonet.kernel.capability import Quota

__all__ = ["Holding"]

Bound = TypeVar("Bound")


class Holding(Generic[Bound]):
    """bindings: by number, the oldest first. conjuncts: those of all, and the further ones that others hold because
    of them. shapes: how many bindings need each.
    """

    __slots__ = ("bindings", "conjuncts", "shapes")

    def __init__(self) -> None:
        self.bindings: dict[int, Bound] = {}
        self.conjuncts = 0
        self.shapes: dict[Hashable, int] = {}

    def charge(self, quota: Quota, environment: str, conjuncts: int, shapes: Iterable[Hashable]) -> int:
        """ExhaustedError where one more binding is over a quota. Returns how many of its shapes are new here."""
        held = self.shapes
        fresh = 0
        for shape in shapes:
            if shape not in held:
                fresh += 1
        if len(self.bindings) >= quota.bindings:
            quota.charge("bindings", len(self.bindings), 1, environment)
        if self.conjuncts + conjuncts > quota.conjuncts:
            quota.charge("conjuncts", self.conjuncts, conjuncts, environment)
        if len(held) + fresh > quota.shapes:
            quota.charge("shapes", len(held), fresh, environment)
        return fresh

    def add(self, number: int, binding: Bound, conjuncts: int, shapes: Iterable[Hashable]) -> None:
        self.bindings[number] = binding
        self.conjuncts += conjuncts
        held = self.shapes
        for shape in shapes:
            held[shape] = held.get(shape, 0) + 1

    def remove(self, number: int, conjuncts: int, shapes: Iterable[Hashable]) -> bool:
        """Returns whether anything is left."""
        del self.bindings[number]
        self.conjuncts -= conjuncts
        held = self.shapes
        for shape in shapes:
            if held[shape] == 1:
                del held[shape]
            else:
                held[shape] -= 1
        return bool(self.bindings)
