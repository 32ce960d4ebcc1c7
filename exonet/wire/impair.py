# SPDX-License-Identifier: MIT
"""Impairments: loss, delay, jitter, reordering, duplication and corruption, repeatable by seed. The words are tc-
netem's.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Self

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire.link import Wire
from exonet.wire.wrapper import Wrapper

_WHOLE = 1 << 32
_SHARES = ("loss", "reorder", "duplicate", "corrupt")
_TIMES = ("delay", "jitter")
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_MOST_NS = 3600 * _UNITS["s"]
_NUMBER = r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})"
_SHARE = re.compile(_NUMBER + r"(%?)", re.ASCII)
_TIME = re.compile(_NUMBER + r"(ns|us|ms|s)", re.ASCII)


def _share(key: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"impairment {key}={text}: want a share, 0%..100% or 0..1, as in {key}=1%")
    return share


def _time(key: str, text: str) -> int:
    match = _TIME.fullmatch(text)
    ns = round(float(match[1]) * _UNITS[match[2]]) if match else -1
    if not 0 <= ns <= _MOST_NS:
        raise UsageError(
            f"impairment {key}={text}: want a time up to 3600s with its unit, as in {key}=2ms (ns, us, ms, s)"
        )
    return ns


@dataclass(frozen=True, slots=True)
class Impairments:
    """What an impair wire does to frames. Shares are 0..1, times ns.

    loss        frames that vanish
    delay       added to every frame's time of arrival
    jitter      delay varies by up to this to either side, evenly; order is kept (only `reorder` changes it)
    reorder     frames that are held back until the next one has overtaken them, or 10 ms have gone
    duplicate   frames that come twice, the copy right behind
    corrupt     frames with one bit flipped anywhere in them
    """

    loss: float = 0.0
    delay: int = 0
    jitter: int = 0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0

    def __post_init__(self) -> None:
        for key in _SHARES:
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"impairment {key}={getattr(self, key)}: want a share in 0..1")
        for key in _TIMES:
            if not 0 <= getattr(self, key) <= _MOST_NS:
                raise UsageError(f"impairment {key}={getattr(self, key)}: want ns in 0..{_MOST_NS}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`loss=1%,delay=2ms,jitter=500us,reorder=5%,duplicate=1%,corrupt=0.1%`, any of them, in any order. Raises
        UsageError.
        """
        values: dict[str, Any] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if key not in _SHARES + _TIMES or not equals:
                known = ", ".join(field.name for field in fields(cls))
                raise UsageError(
                    f'impairment "{part.strip()}": want NAME=VALUE with a name of {known}, as in loss=1%,delay=2ms'
                )
            if key in values:
                raise UsageError(f"impairment {key}: given twice")
            values[key] = _share(key, value) if key in _SHARES else _time(key, value)
        return cls(**values)

    def __str__(self) -> str:
        """Text that `parse` reads back as the same impairments; empty where there are none."""
        shares = [f"{key}={getattr(self, key):.17f}".rstrip("0").rstrip(".") for key in _SHARES if getattr(self, key)]
        return ",".join(shares + [f"{key}={getattr(self, key)}ns" for key in _TIMES if getattr(self, key)])


@dataclass(frozen=True, slots=True)
class ImpairCounters:
    """What one direction did. `refused`: delayed frames that the wire inside would not take in their time."""

    seen: int
    lost: int
    reordered: int
    duplicated: int
    corrupted: int
    overflowed: int
    refused: int


class Impair(Wrapper):
    """A wire whose received frames (with `both`, sent ones too) suffer `impairments`. It owns `wire`.

    The same seed and frames give the same result, and the same frames are lost whatever else is switched on. At most
    `limit` frames wait in each direction; more are dropped as `source.queue_full`. Sent frames that are lost here
    have left the machine, so only `counters(sent=True)` knows of them. Raises UsageError.
    """

    def __init__(
        self, wire: Wire, impairments: Impairments, seed: int = 0, *, both: bool = False, limit: int = 65536
    ) -> None:
        if not 1 <= limit <= 1 << 24:
            raise UsageError(f"impair {wire.name}: limit {limit}: must be 1..{1 << 24}")
        want = ffi.new("struct exo_impairments *")
        for key in _SHARES:
            setattr(want, key, round(getattr(impairments, key) * _WHOLE))
        want.delay, want.jitter = impairments.delay, impairments.jitter
        want.both, want.limit = int(both), limit
        super().__init__(lib.exo_impair_new(wire.native, want, seed & (2**64 - 1)), wire.name, wire)
        self.impairments = impairments
        self.seed = seed
        self.both = both

    def counters(self, *, sent: bool = False) -> ImpairCounters:
        native = lib.exo_impair_counters(self.native, int(sent))
        return ImpairCounters(*(getattr(native, field.name) for field in fields(ImpairCounters)))

    def describe(self) -> dict[str, Any]:
        received = self.counters()
        result = {**super().describe(), "kind": "impair", "impairments": str(self.impairments), "seed": self.seed}
        result["received"] = {field.name: getattr(received, field.name) for field in fields(received)}
        if self.both:
            sent = self.counters(sent=True)
            result["sent"] = {field.name: getattr(sent, field.name) for field in fields(sent)}
        return result
