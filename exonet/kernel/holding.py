# SPDX-License-Identifier: MIT
"""The holding of an environment: how much of its quota its bindings use, kept as counters.

A shape is loose where others' frames are asked of it, too: it fixes no IP destination, or the owner's region is less
than whole destinations, so that another may own the rest of an address. Each is one probe more for such a frame where
the ports do not tell them apart, so they are limited by the pair of ethertype and protocol that the demux knows.
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from exonet.kernel.capability import Quota
from exonet.kernel.claim import Shape

__all__ = ["Holding"]

Bound = TypeVar("Bound")


class Holding(Generic[Bound]):
    """bindings: by number, the oldest first. conjuncts: those of all, and the further ones that others hold because
    of them. shapes, loose: how many bindings need each.
    """

    __slots__ = ("bindings", "conjuncts", "loose", "shapes")

    def __init__(self) -> None:
        self.bindings: dict[int, Bound] = {}
        self.conjuncts = 0
        self.shapes: dict[Shape, int] = {}
        self.loose: dict[Shape, int] = {}

    def charge(
        self, quota: Quota, environment: str, conjuncts: int, shapes: Iterable[Shape], loose: Sequence[Shape]
    ) -> int:
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
        if len(self.loose) + len(loose) > quota.loose_shapes:
            self._charge_loose(quota, environment, loose)
        return fresh

    def _charge_loose(self, quota: Quota, environment: str, loose: Sequence[Shape]) -> None:
        held: dict[int, int] = {}
        for shape in self.loose:
            held[shape.branch] = held.get(shape.branch, 0) + 1
        more: dict[int, int] = {}
        for shape in loose:
            if shape not in self.loose:
                more[shape.branch] = more.get(shape.branch, 0) + 1
        for branch, count in more.items():
            quota.charge("loose_shapes", held.get(branch, 0), count, environment)

    def add(self, number: int, binding: Bound, conjuncts: int, shapes: Iterable[Shape], loose: Sequence[Shape]) -> None:
        self.bindings[number] = binding
        self.conjuncts += conjuncts
        for held, needed in ((self.shapes, shapes), (self.loose, loose)):
            for shape in needed:
                held[shape] = held.get(shape, 0) + 1

    def remove(self, number: int, conjuncts: int, shapes: Iterable[Shape], loose: Iterable[Shape]) -> bool:
        """Returns whether anything is left."""
        del self.bindings[number]
        self.conjuncts -= conjuncts
        for held, needed in ((self.shapes, shapes), (self.loose, loose)):
            for shape in needed:
                if held[shape] == 1:
                    del held[shape]
                else:
                    held[shape] -= 1
        return bool(self.bindings)
