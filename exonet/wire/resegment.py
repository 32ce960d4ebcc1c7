# SPDX-License-Identifier: MIT
"""The resegment wire: packets of an offload capture become what its sender's NIC put on the wire."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from exonet.abi import ffi, lib
from exonet.errors import UsageError
from exonet.wire.link import Wire
from exonet.wire.wrapper import Wrapper

__all__ = ["Resegment", "ResegmentCounters"]

MTU_MIN, MTU_MAX = 68, 65521


@dataclass(frozen=True, slots=True)
class ResegmentCounters:
    """packets: that were cut, or whose missing IP length was filled in. segments: that they became. snapped: longer
    packets of which the snaplen left a part, so that they pass as they are.
    """

    packets: int
    segments: int
    snapped: int


class Resegment(Wrapper):
    """Cuts what `wire` gives and is longer than `mtu` bytes of IP packet, and owns `wire`. Sent frames pass.

    TCP is cut as segmentation offload does (RFC 9293): at the smaller of the segment sizes that both ends announced in
    SYNs that went by, less the packet's options, or else at the MTU. UDP becomes IP fragments, DF cleared, as Linux's
    UFO made them. Lengths and checksums are each segment's own; a packet whose IP length is 0 is as long as it was
    captured, and gets its length and checksums even where it is short. Everything else passes: other protocols,
    fragments, and what the snaplen cut. Each segment is a frame offered, due when its packet was.

    seed: of the hash of connections, of which the last 65,536 are remembered. beside: the wire of the other direction
    of the same traffic (`split`), whose connections this one shares. UsageError for an MTU out of 68..65521.
    """

    def __init__(self, wire: Wire, *, mtu: int = 1500, seed: int = 1, beside: Self | None = None) -> None:
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise UsageError(f"resegment {wire.name}: MTU {mtu}: must be {MTU_MIN}..{MTU_MAX}")
        other = ffi.NULL if beside is None else beside.native
        super().__init__(lib.exo_resegment_new(wire.native, mtu, seed & (2**64 - 1), other), wire.name, wire)
        self.mtu = mtu

    def counters(self) -> ResegmentCounters:
        native = lib.exo_resegment_counters(self.native)
        return ResegmentCounters(*(getattr(native, field.name) for field in fields(ResegmentCounters)))

    def describe(self) -> dict[str, Any]:
        counted = asdict(self.counters())
        return {
            **super().describe(),
            "kind": "resegment",
            "mtu": self.mtu,
            "resegmented": counted.pop("packets"),
            **counted,
        }
