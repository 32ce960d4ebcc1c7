# SPDX-License-Identifier: MIT
"""Replay speeds: `x1`, `xN`, `pps=N`, `gbps=N`, `max`; what `--speed` takes, and the pace wire too."""

import enum
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from exonet.abi import lib
from exonet.errors import UsageError

__all__ = ["Speed", "SpeedKind"]

_NUMBER = r"(\d+(?:\.\d+)?(?:e\d{1,2})?)"
_TEXT = re.compile(rf"x{_NUMBER}|{_NUMBER}x|(pps|gbps|mbps)={_NUMBER}([kMG]?)|(max)", re.IGNORECASE)
_SUFFIX = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_NS = 1_000_000_000
_FINEST = 1_000_000


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
    def parse(cls, text: str) -> Self:
        """`x1`, `x2.5` (or `10x`), `pps=1000`, `pps=1.5M`, `gbps=1`, `mbps=100`, `max`. Raises UsageError."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise _refuse(text)
        times, before, unit, number, suffix, _ = match.groups()
        if unit is None and times is None and before is None:
            return cls(SpeedKind.MAX)
        rate = Fraction(times or before or number)
        if unit is not None:
            rate *= _SUFFIX[suffix.lower()] * {"pps": 1, "mbps": 10**6, "gbps": 10**9}[unit.lower()]
        rate = rate.limit_denominator(_FINEST)
        if not 0 < rate <= 10**12:
            raise _refuse(text)
        kinds = {None: SpeedKind.STAMPS, "pps": SpeedKind.FRAMES}
        return cls(kinds.get(unit.lower() if unit else None, SpeedKind.BITS), rate)

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


def _refuse(text: str) -> UsageError:
    known = "xN, pps=N, mbps=N or gbps=N with N above 0 (as x1, x0.5, pps=10k), or max"
    return UsageError(f'speed "{text}": must be {known}')
