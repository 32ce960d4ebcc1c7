# SPDX-License-Identifier: MIT
"""Speeds: `x1`, `xN`, `200k`, `pps=N`, `gbps=N`, `max`; what `--speed` and `--rates` take, and the pace wire too."""

import enum
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from exonet.abi import lib
from exonet.errors import UsageError

__all__ = ["Speed", "SpeedKind"]

_NUMBER = r"(\d+(?:\.\d+)?(?:e\d{1,2})?)"
_TEXT = re.compile(rf"x{_NUMBER}|{_NUMBER}x|(?:(pps|gbps|mbps)=)?{_NUMBER}([kMG]?)|(max)", re.IGNORECASE)
_SUFFIX = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_NS = 1_000_000_000
_FINEST = 1_000_000
#: Below it a number without a unit is refused: nobody can know whether it is a factor, millions, or packets a second.
_BARE = 1000


class SpeedKind(enum.IntEnum):
    """What the due times are made from; the values are those of enum exo_replay_mode."""

    STAMPS = lib.EXO_REPLAY_STAMPS
    FRAMES = lib.EXO_REPLAY_FRAMES
    BITS = lib.EXO_REPLAY_BITS
    MAX = lib.EXO_REPLAY_MAX


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast: `rate` is a factor (STAMPS), frames/s (FRAMES) or bits/s (BITS); 0 for MAX.

    A frame's bits are those it takes on the wire: 8 * (max(wire_len, 60) + 4 bytes of FCS + 20 of preamble and gap), so
    that `gbps=1` of 60-byte frames is the 1,488,095 frames/s that Ethernet can carry.
    """

    kind: SpeedKind
    rate: Fraction = Fraction(0)

    @classmethod
    def parse(cls, text: str, what: str = "speed") -> Self:
        """`x1`, `x2.5` (or `10x`), `200k` or `pps=200k`, `500000`, `gbps=1`, `mbps=100`, `max`.

        A number without a unit is of packets a second, from 1,000 on. Raises UsageError, which calls it a `what`.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise _refuse(text, what)
        times, before, unit, number, suffix, most = match.groups()
        if most:
            return cls(SpeedKind.MAX)
        rate = Fraction(times or before or number)
        kind = SpeedKind.STAMPS
        if number is not None:
            if unit is None and not suffix and 0 < rate < _BARE:
                raise _ambiguous(text.strip(), rate, what)
            kind = SpeedKind.FRAMES if (unit or "pps").lower() == "pps" else SpeedKind.BITS
            rate *= _SUFFIX[suffix.lower()] * {"pps": 1, "mbps": 10**6, "gbps": 10**9}[(unit or "pps").lower()]
        rate = rate.limit_denominator(_FINEST)
        if not 0 < rate <= 10**12:
            raise _refuse(text, what)
        return cls(kind, rate)

    @property
    def ns_per_unit(self) -> Fraction:
        """ns of replay for 1 ns of capture time (STAMPS), for one frame (FRAMES), or for one bit (BITS)."""
        if self.kind is SpeedKind.MAX:
            return Fraction(0)
        return (1 if self.kind is SpeedKind.STAMPS else _NS) / self.rate

    def __str__(self) -> str:
        if self.kind is SpeedKind.MAX:
            return "max"
        scaled, name = self.rate, {SpeedKind.STAMPS: "x", SpeedKind.FRAMES: "pps=", SpeedKind.BITS: "gbps="}[self.kind]
        if self.kind is SpeedKind.BITS:
            scaled /= 10**9
        return f"{name}{scaled.numerator if scaled.denominator == 1 else float(scaled)}"


def _refuse(text: str, what: str) -> UsageError:
    known = "xN, N packets a second, pps=N, mbps=N or gbps=N with N above 0 (as x1, x0.5, 10k, gbps=1), or max"
    return UsageError(f'{what} "{text}": must be {known}')


def _ambiguous(text: str, rate: Fraction, what: str) -> UsageError:
    return UsageError(
        f'{what} "{text}": write x{text} for {text} times the capture\'s own speed, or {text}M for '
        f"{float(rate * 10**6):,.0f} packets a second (pps={text} for so few)"
    )
