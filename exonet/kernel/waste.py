# SPDX-License-Identifier: MIT
"""Waste: what is needed no more, freed a little at a time. To free a table of 100,000 entries at once takes tens of
milliseconds, and frames would wait.
"""

from typing import Any

from exonet.kernel.line import Line

__all__ = ["Waste"]


class Waste:
    """Falsy when there is none. Dictionaries of dictionaries or lines, and lists."""

    __slots__ = ("_heaps",)

    def __init__(self) -> None:
        self._heaps: list[Any] = []

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def add(self, heap: dict[Any, Any] | list[Any]) -> None:
        """The caller keeps no part of it."""
        if heap:
            self._heaps.append(heap)

    def free(self, most: int) -> None:
        """So many entries at most."""
        heaps = self._heaps
        while heaps and most > 0:
            heap = heaps[-1]
            if not heap:
                heaps.pop()
            elif isinstance(heap, list):
                some = min(most, len(heap))
                del heap[-some:]
                most -= some
            else:
                _, inner = heap.popitem()
                most -= 1
                if isinstance(inner, Line):
                    heaps.append(inner.drained())
                elif isinstance(inner, dict) and len(inner) > 1:
                    heaps.append(inner)
