# SPDX-License-Identifier: MIT
"""The form of a shape as the demux sees it: `struct exo_form` of csrc/demux.h. Native code is made from it alone."""

from dataclasses import dataclass
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.filters.conjunct import Conjunct

__all__ = ["Form", "Lane", "shape_bytes", "shape_of"]

HEAD: int = ffi.offsetof("struct exo_form", "lane")
LANE: int = ffi.sizeof("struct exo_lane")


BASES = {
    lib.EXO_BASE_FRAME: "frame",
    lib.EXO_BASE_IP4: "payload",
    lib.EXO_BASE_LENGTH: "length",
    lib.EXO_BASE_PROGRAM: "program",
}


@dataclass(frozen=True, slots=True)
class Lane:
    """A masked load of 1, 2, 4 or 8 bytes (excluded: of 3 too) at base + offset, in the machine's byte order."""

    base: int
    offset: int
    bytes: int
    mask: int

    @classmethod
    def of(cls, native: Any) -> "Lane":
        return cls(native.base, native.offset, native.bytes, native.mask)

    def __str__(self) -> str:
        """As in pcap-filter: frame[26:8]; the mask as the frame's bytes, where it is not all of them."""
        if self.base == lib.EXO_BASE_PROGRAM:
            return "refused by its program"
        field = f"{BASES[self.base]}[{self.offset}:{self.bytes}]"
        shown = self.mask.to_bytes(8, "little")[: self.bytes]
        return field if shown == b"\xff" * self.bytes else f"{field} & {shown.hex()}"


@dataclass(frozen=True, slots=True)
class Form:
    """What the dispatch decides on, the lanes of the key, those that must not hold, guards, the interval's field."""

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

    def to_native(self) -> Any:
        """A `struct exo_form *`, byte for byte what the demux has."""
        native = ffi.new("struct exo_form *")
        native.ethertype, native.protocol, native.unfragmented = self.ethertype, self.protocol, self.unfragmented
        native.frame_bytes, native.ip4_bytes, native.ip4_at = self.frame_bytes, self.ip4_bytes, self.ip4_at
        native.lanes, native.excluded = len(self.lanes), len(self.excluded)
        for place, lane in zip(native.lane, (*self.lanes, *self.excluded), strict=False):
            place.base, place.offset, place.bytes, place.mask = lane.base, lane.offset, lane.bytes, lane.mask
        native.interval.base, native.interval.offset, native.interval.bytes = self.interval
        return native

    def __str__(self) -> str:
        parts = [] if self.ethertype < 2 else [f"ethertype {self.ethertype:#06x}"]
        if self.protocol != lib.EXO_ANY_PROTOCOL:
            parts.append(f"protocol {self.protocol}")
        if self.unfragmented:
            parts.append("no later fragment")
        parts += map(str, self.lanes)
        parts += [f"not {lane}" for lane in self.excluded]
        base, offset, width = self.interval
        if width:
            parts.append(f"an interval of {BASES[base]}[{offset}:{width}]")
        parts.append(f"{self.frame_bytes} bytes")
        if self.ip4_bytes:
            parts.append(f"{self.ip4_bytes} after the IPv4 header at {self.ip4_at}")
        return ", ".join(parts)

    @property
    def stride(self) -> int:
        """Bytes of an entry in its table."""
        return int(lib.exo_form_stride(self.to_native()))

    @property
    def branch(self) -> int:
        """The pair of ethertype and protocol that the dispatch tells it by, as a number."""
        return int(lib.exo_form_branch(self.to_native()))

    @property
    def destined(self) -> bool:
        """Does it fix the IP destination? Frames to other addresses are then not asked of it, where many compete."""
        return bool(lib.exo_form_destination(self.to_native()))

    @classmethod
    def of_conjunct(cls, conjunct: Conjunct) -> "Form":
        """The shape that a conjunct falls in, whether or not it is in use."""
        native = ffi.new("struct exo_form *")
        check(lib.exo_form_of(conjunct.to_native(0), native), f"conjunct {conjunct}")
        return cls.of(native)


def shape_of(conjunct: Conjunct) -> bytes:
    """Which shape a conjunct falls in: the bytes of its form, up to its last lane. Cheaper than Form.of_conjunct."""
    native = ffi.new("struct exo_form *")
    check(lib.exo_form_of(conjunct.to_native(0), native), "conjunct")
    return shape_bytes(native)


def shape_bytes(native: Any) -> bytes:
    """What tells one `struct exo_form` from another."""
    return bytes(ffi.buffer(native, HEAD + LANE * (native.lanes + native.excluded)))
