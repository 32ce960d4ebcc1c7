# SPDX-License-Identifier: MIT
"""Offered loads as a person writes them: "0.5" million packets per second, "200k", "x2" of the capture's speed."""

import re
from dataclasses import dataclass

from exonet.errors import UsageError
from exonet.lab.progress import format_rate

_RATE = re.compile(r"(x)?(?:pps=)?(\d+(?:\.\d+)?)([kMG]?)")
_FACTOR = {"": 1e6, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True, order=True)
class Rate:
    """A load: packets per second, or (`relative`) a multiple of the capture's own speed."""

    value: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> "Rate":
        match = _RATE.fullmatch(text.strip())
        if match is None or float(match[2]) == 0 or (match[1] and match[3]):
            raise UsageError(
                f'rate "{text}": it must be million packets per second as 0.5, or 200k, or x2 of the capture\'s speed'
            )
        if match[1]:
            return cls(float(match[2]), relative=True)
        factor = 1.0 if "pps=" in text and not match[3] else _FACTOR[match[3]]
        return cls(float(match[2]) * factor)

    @classmethod
    def parse_list(cls, text: str) -> tuple["Rate", ...]:
        return tuple(cls.parse(part) for part in text.split(","))

    @property
    def speed(self) -> str:
        """As --speed takes it."""
        return f"x{self.value:g}" if self.relative else f"pps={self.value:.0f}"

    @property
    def text(self) -> str:
        """As it is typed, and fit for a file's name: "0.5", "x2"."""
        return f"x{self.value:g}" if self.relative else f"{self.value / 1e6:g}"

    def __str__(self) -> str:
        return f"x{self.value:g}" if self.relative else format_rate(self.value)
