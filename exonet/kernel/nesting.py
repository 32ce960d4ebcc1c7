# SPDX-License-Identifier: MIT
"""Who is asked first of two nested bindings whose conjuncts fix equally many bits: the one of less breadth.

A filter's breadth is the logarithm of its volume, rounded: it tells most nested filters apart and not all (SEMANTICS
R4). Where it does not, the new binding gets one between those of the bindings inside it and of those around it.
"""

from collections.abc import Iterable

from exonet.errors import ExhaustedError

__all__ = ["breadth_between"]

#: How far from its neighbour, where there is one on one side only: others may come between.
APART = 64
MOST = (1 << 32) - 1


def breadth_between(own: int, inside: Iterable[int], around: Iterable[int]) -> int:
    """Above all inside and below all around: its own where that is. ExhaustedError where there is no number left."""
    low, high = max(inside, default=-1), min(around, default=MOST + 1)
    if low < own < high:
        return own
    if low + 1 >= high:
        raise ExhaustedError("no room is left in the order of the bindings it is nested with; bind the widest first")
    if high > MOST:
        return min(low + APART, MOST)
    return max(high - APART, 0) if low < 0 else (low + high) // 2
