# SPDX-License-Identifier: MIT
"""The link protocol: what every wire is to Python. The frames themselves move in C (`csrc/wire.h`)."""

from typing import Any

from exonet.abi import ffi
from exonet.closing import Closing


class Wire(Closing):
    """A wire: a pcap replay, a TAP device, a cable's end, or a wrapper around another wire.

    `native` is the `struct exo_wire *` that a port is attached to; it is valid until `close()`, which is idempotent
    and also closes what the wire wraps. A subclass sets `native` and `name` and extends `describe()`.
    """

    native: Any
    name: str

    def __init__(self, native: Any, name: str) -> None:
        if native == ffi.NULL:
            raise MemoryError(f"wire {name}: out of memory")
        self.native = native
        self.name = name

    def describe(self) -> dict[str, Any]:
        """Kind, name and counters, for `exonet show` and the JSON of a run."""
        wire = self.native
        return {
            "name": self.name,
            "rx_frames": wire.rx_frames,
            "rx_bytes": wire.rx_bytes,
            "tx_frames": wire.tx_frames,
            "tx_bytes": wire.tx_bytes,
        }

    def close(self) -> None:
        """Gives back what the wire holds: memory, descriptors, devices."""
        if self.native != ffi.NULL:
            self.native.close(self.native)
            self.native = ffi.NULL
