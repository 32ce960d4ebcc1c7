# SPDX-License-Identifier: MIT
"""The form of a shape as the demux sees it: `struct exo_form` of csrc/demux.h. Native code is made from it alone."""

from dataclasses import dataclass
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.filters.conjunct import Conjunct

__all__ = ["Form", "Lane"]


@dataclass(frozen=True, slots=True)
class Lane:
    """A masked load of 1, 2, 4 or 8 bytes at base + offset, in the machine's byte order."""

    base: int
    offset: int
    bytes: int
    mask: int

    @classmethod
    def of(cls, native: Any) -> "Lane":
        return cls(native.base, native.offset, native.bytes, native.mask)


@dataclass(frozen=True, slots=True)
class Form:
    """What the dispatch decides on, the lanes of the key, those that must not hold, the guards, the interval's field."""

    ethertype: int
    protocol: int
    unfragmented: bool
    lanes: tuple[Lane, ...]
    excluded: tuple[Lane, ...]
    frame_bytes: int
    ip4_bytes: int
    ip4_at: int
    interval: tuple[int, int, int]

    @classmethod
    def of(cls, native: Any) -> "Form":
        """From a `struct exo_form`."""
        lanes = tuple(Lane.of(native.lane[i]) for i in range(native.lanes + native.excluded))
        return cls(
            native.ethertype,
            native.protocol,
            bool(native.unfragmented),
            lanes[: native.lanes],
            lanes[native.lanes :],
            native.frame_bytes,
            native.ip4_bytes,
            native.ip4_at,
            (native.interval.base, native.interval.offset, native.interval.bytes),
        )

    @classmethod
    def of_conjunct(cls, conjunct: Conjunct) -> "Form":
        """The shape that a conjunct falls in, whether or not it is in use."""
        native = ffi.new("struct exo_form *")
        check(lib.exo_form_of(conjunct.to_native(0), native), f"conjunct {conjunct}")
        return cls.of(native)
