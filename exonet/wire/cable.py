# SPDX-License-Identifier: MIT
"""The cable: two wires joined in memory, for two machines in one process, or for scapy beside one."""

from typing import Any

from exonet.abi import check, ffi, lib
from exonet.errors import UsageError
from exonet.wire.link import Wire


class CableEnd(Wire):
    """One end. What the other end sends arrives here `latency` ns later, in order, if there is room for it."""

    def __init__(self, native: Any, name: str, frames: int, latency: int) -> None:
        super().__init__(native, name)
        self._frames = frames
        self._latency = latency

    def describe(self) -> dict[str, Any]:
        held = self.native.held(self.native)
        return {
            **super().describe(),
            "kind": "cable",
            "frames": self._frames,
            "latency_ns": self._latency,
            "held": held,
        }


def cable(
    frames: int = 4096, *, latency: int = 0, wake: bool = False, name: str = "cable"
) -> tuple[CableEnd, CableEnd]:
    """Two ends, named `name.a` and `name.b`.

    Each direction holds at most `frames` (1..16777216): a full one takes no more, and the sender counts what it could
    not send. `latency` is in ns, 0 delivers at the same moment. The ends are for one thread and one time line; with
    `wake` each end has a descriptor that becomes readable, and the two may be used from a thread each. Raises
    UsageError.
    """
    if not 1 <= frames <= 1 << 24:
        raise UsageError(f"cable {name}: {frames} frames: a direction holds 1..{1 << 24}")
    if not 0 <= latency <= 10**18:
        raise UsageError(f"cable {name}: latency {latency} ns: must be 0..10^18")
    ends = ffi.new("struct exo_wire *[2]")
    check(lib.exo_cable_new(frames, latency, int(wake), ends), f"cable {name}")
    return CableEnd(ends[0], f"{name}.a", frames, latency), CableEnd(ends[1], f"{name}.b", frames, latency)
