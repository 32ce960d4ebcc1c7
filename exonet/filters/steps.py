# SPDX-License-Identifier: MIT
"""The budget of a decomposition: counted steps, and not time, so that a text is always taken or always refused.

A step is some microseconds of work: an instruction that is followed on a way, or a part of a conjunct. Everything that
one filter's text can make a kernel do (walk.py, simplify.py) takes from it. Questions have a part of it for themselves:
where that is spent, what is not known to be needless stays in the conjuncts, which are then more but not wrong.
"""

__all__ = ["MAX_QUESTION_STEPS", "MAX_STEPS", "MAX_TRIED_STEPS", "Steps", "Undecomposable"]

MAX_STEPS = 30_000
#: Of these at most.
MAX_QUESTION_STEPS = 8_000
#: What takes more is decomposed anew for new values: trying a template on others costs as much for each.
MAX_TRIED_STEPS = 3_000


class Undecomposable(Exception):
    """The program is not a union of conjuncts within the limits; the text is the reason."""


class Steps:
    """How many are `taken`, of at most so many. whole: the budget that this one is a part of."""

    __slots__ = ("most", "taken", "whole")

    def __init__(self, most: int = MAX_STEPS, whole: "Steps | None" = None) -> None:
        self.most = most
        self.taken = 0
        self.whole = whole

    def take(self, count: int = 1) -> None:
        """Undecomposable where there are not so many left."""
        self.taken += count
        if self.whole:
            self.whole.taken += count
        if self.taken > self.most:
            raise Undecomposable(f"it takes more than {self.most} steps to decompose")
