# SPDX-License-Identifier: MIT
"""Offered load on a TAP device: a sender process on the host's side, in a network namespace of its own.

    with TapLoad("exo0", 100_000, 50_000) as load:
        …make the device in load.namespace, then load.start(), then read; load.seconds() is how long the sending took

The sender writes 64-byte UDP frames (60 without the check sequence) at times anchored to its start, so that a late one
is caught up and not lost to the schedule; what the device's queue refuses is the device's drop, and counted there.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from exonet.clock import NS_PER_S, monotonic_ns
from exonet.errors import RunError
from exonet.wire.namespace import Namespace, enter

MARGIN_NS = NS_PER_S // 2
STATION = bytes.fromhex("020000000001")
FLOWS = 1024


class TapLoad:
    """A sender of `packets` frames at `pps` into device `device`. A context manager: it owns namespace and process."""

    def __init__(self, device: str, pps: float, packets: int) -> None:
        self.namespace = f"exonet-load-{os.getpid()}"
        self.duration_ns = round(packets / pps * NS_PER_S) + MARGIN_NS
        self._command = [sys.executable, "-m", "exonet.lab.load", self.namespace, device, str(pps), str(packets)]
        self._process: subprocess.Popen[str] | None = None
        self._seconds: float | None = None

    def start(self) -> None:
        """Lets the sender go; the device must be there."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def seconds(self) -> float:
        """How long the sending took; waits for its end. Raises RunError where it failed."""
        if self._seconds is None:
            if self._process is None:
                raise RunError("the load was never started")
            said, _ = self._process.communicate(timeout=60)
            if self._process.returncode:
                raise RunError(f"the load's sender ended with status {self._process.returncode}")
            self._seconds = float(json.loads(said)["seconds"])
        return self._seconds

    def __enter__(self) -> Self:
        self._owned = Namespace.create(self.namespace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._owned.close()


def frames(size: int = 60) -> list[bytes]:
    """UDP frames of `size` bytes (without the check sequence) and many flows, checksums right.

    From 198.18.0.1 to 198.18.0.2 (RFC 2544's own network).
    """
    return [_frame(1024 + flow, size) for flow in range(FLOWS)]


def _frame(port: int, size: int) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\xc6\x12\0\1", b"\xc6\x12\0\2")
    total = sum(struct.unpack("!10H", header))
    header = header[:10] + struct.pack("!H", 0xFFFF - total % 0xFFFF) + header[12:]
    return STATION + b"\x02\0\0\0\0\xfe\x08\0" + header + struct.pack("!HHHH", port, 9, size - 34, 0) + bytes(size - 42)


def send(device: str, pps: float, packets: int) -> float:
    """Sends, and returns the seconds it took."""
    load = frames()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        begin = monotonic_ns()
        sent = 0
        while sent < packets:
            due = min(packets, int((monotonic_ns() - begin) * pps / NS_PER_S) + 1)
            for number in range(sent, due):
                with suppress(OSError):  # ENOBUFS: the device's queue is full, and it counts that itself
                    wire.send(load[number % FLOWS])
            sent = due
            time.sleep(0)
        return (monotonic_ns() - begin) / NS_PER_S


def main() -> int:
    """The sender's process: NAMESPACE DEVICE PPS PACKETS."""
    namespace, device, pps, packets = sys.argv[1:]
    enter(Path("/run/netns", namespace))
    print(json.dumps({"seconds": send(device, float(pps), int(packets))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
