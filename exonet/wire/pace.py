# SPDX-License-Identifier: MIT
"""The pace wire: a rate for any wire. A pcap wire paces itself; this is for cables, TAPs and wrappers."""

from fractions import Fraction
from typing import Any, Protocol

from exonet.abi import lib
from exonet.errors import UsageError
from exonet.wire.link import Wire
from exonet.wire.wrapper import Wrapper

_MOST = 1 << 62


class SpeedLike(Protocol):
    """What is needed of `exonet.wire.speed.Speed`."""

    @property
    def kind(self) -> int:
        """What due times are made from: a number of enum exo_pace (and exo_replay_mode)."""

    @property
    def ns_per_unit(self) -> Fraction:
        """ns for a ns of capture time, for a frame, or for a bit on the line."""


class Pace(Wrapper):
    """Lets the frames of `wire` out at `speed`, and owns `wire`. Sent frames are not paced.

    Due times are anchored to a start, so a late reader catches up; a wire that had nothing (a live one) starts anew
    with its
    next frame. A frame's `ts` becomes the time it was due. Raises UsageError for a speed beyond all measure.
    """

    def __init__(self, wire: Wire, speed: SpeedLike) -> None:
        unit = speed.ns_per_unit
        if unit < 0 or unit.numerator >= _MOST or unit.denominator >= _MOST:
            raise UsageError(f"pace {wire.name}: speed {speed}: must be above 0, as x1 or pps=10000")
        native = lib.exo_pace_new(wire.native, int(speed.kind), unit.numerator, unit.denominator)
        super().__init__(native, wire.name, wire)
        self.speed = speed

    def describe(self) -> dict[str, Any]:
        backward = lib.exo_pace_backward(self.native)
        return {**super().describe(), "kind": "pace", "speed": str(self.speed), "backward_stamps": backward}
