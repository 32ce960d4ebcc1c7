# SPDX-License-Identifier: MIT
"""Offered load on a TAP device: a sender process on the host's side, in a network namespace of its own.

    with TapLoad("exo0", 100_000, 50_000) as load:
        …make the device in load.namespace, then load.start(), then read while load.lasts();
        load.seconds() is how long the sending took

The sender writes 64-byte UDP frames (60 without the check sequence) at times anchored to its start, so that a late one
is caught up and not lost to the schedule; what the device's queue refuses is the device's drop, and counted there.
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from exonet.clock import NS_PER_S, monotonic_ns, process_cpu_ns
from exonet.errors import RunError
from exonet.wire.namespace import Namespace, enter

#: A run ends this long after its sender has, so that what is on its way arrives.
MARGIN_NS = NS_PER_S // 20
#: A sender has this many times as long as its load should take, and some seconds to begin.
SLOWEST = 10
PATIENCE_S = 20.0
STATION = bytes.fromhex("020000000001")
FLOWS = 1024


class TapLoad:
    """A sender of `packets` frames at `pps` into device `device`. A context manager: it owns namespace and process."""

    def __init__(self, device: str, pps: float, packets: int) -> None:
        self.namespace = f"exonet-load-{os.getpid()}"
        self.longest_s = SLOWEST * packets / pps + PATIENCE_S
        self._command = [sys.executable, "-m", "exonet.lab.load", self.namespace, device, str(pps), str(packets)]
        self._process: subprocess.Popen[str] | None = None
        self._seconds: float | None = None
        self._cpu_ns = 0

    def start(self) -> None:
        """Lets the sender go; the device must be there. Returns when it begins, however long it took to start.

        Raises RunError where it does not.
        """
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        assert process.stdin is not None and process.stdout is not None
        if not select.select([process.stdout], [], [], PATIENCE_S)[0] or not process.stdout.readline():
            raise RunError("the load's sender did not begin")
        process.stdin.close()

    def lasts(self) -> bool:
        """Does it still send?"""
        if self._process is None:
            return False
        with suppress(OSError):
            self._cpu_ns = process_cpu_ns(self._process.pid)
        return self._process.poll() is None

    @property
    def cpu_ns(self) -> dict[int, int]:
        """The CPU time that the sender has had, by its pid."""
        return {} if self._process is None else {self._process.pid: self._cpu_ns}

    def seconds(self) -> float:
        """How long the sending took; waits for its end. Raises RunError where it failed."""
        if self._seconds is None:
            if self._process is None:
                raise RunError("the load was never started")
            try:
                self._process.wait(timeout=self.longest_s)
            except subprocess.TimeoutExpired:
                raise RunError(f"the load's sender takes more than {self.longest_s:.0f} s") from None
            assert self._process.stdout is not None
            said = self._process.stdout.read()
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
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
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
        print("ready", flush=True)
        sys.stdin.read()  # until the run begins
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
