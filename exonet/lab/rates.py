# SPDX-License-Identifier: MIT
"""Offered loads as a person writes them: "200k" or "500000" packets per second, "x2" of the capture's speed."""

from dataclasses import dataclass
from fractions import Fraction

from exonet.errors import UsageError
from exonet.lab.progress import format_rate
from exonet.wire.speed import Speed, SpeedKind


@dataclass(frozen=True, slots=True, order=True)
class Rate:
    """A load: packets per second, or (`relative`) a multiple of the capture's own speed."""

    value: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """What --speed takes too, but for bits per second and `max`. Raises UsageError."""
        speed = Speed.parse(text, "rate")
        if speed.kind not in (SpeedKind.FRAMES, SpeedKind.STAMPS):
            raise UsageError(f'rate "{text}": it must be packets a second, as 200k, or x2 of the capture\'s speed')
        return cls(float(speed.rate), relative=speed.kind is SpeedKind.STAMPS)

    @classmethod
    def parse_list(cls, text: str) -> tuple["Rate", ...]:
        """Several with commas, each once."""
        return tuple(dict.fromkeys(cls.parse(part) for part in text.split(",")))

    @property
    def speed(self) -> str:
        """As --speed takes it."""
        kind = SpeedKind.STAMPS if self.relative else SpeedKind.FRAMES
        return str(Speed(kind, Fraction(self.value).limit_denominator(10**6)))

    @property
    def text(self) -> str:
        """As it is typed, exact, and fit for a file's name: "500k", "1.25M", "x2"."""
        return self.speed if self.relative else "".join(self._scaled())

    def __str__(self) -> str:
        """As it is shown: "8.00 M/s", with more digits where it has more."""
        if self.relative:
            return self.speed
        return format_rate(self.value) if float(f"{self.value:.3g}") == self.value else f"{' '.join(self._scaled())}/s"

    def _scaled(self) -> tuple[str, str]:
        unit, factor = ("M", 10**6) if self.value >= 10**6 else ("k", 1000)
        scaled = Fraction(self.value).limit_denominator(10**6) / factor
        return f"{float(scaled):.12f}".rstrip("0").rstrip("."), unit
