# SPDX-License-Identifier: MIT
"""Writes frames of a capture into a pcapng file: one Ethernet interface, nanoseconds, every byte and length as it was.

Reference: draft-ietf-opsawg-pcapng sections 4.1, 4.2, 4.3.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from exonet.closing import Closing
from exonet.errors import RunError, UsageError
from exonet.wire.capture import ETHERNET, Frame
from exonet.wording import counted

__all__ = ["PcapngFile"]

SECTION_HEADER, INTERFACE, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
NO_LENGTH = (1 << 64) - 1
IF_TSRESOL = struct.pack("<HHB3xI", 9, 1, 9, 0)  # 10^-9 s, then the end of the options
BUFFER = 1 << 20


class PcapngFile(Closing):
    """A capture being written. UsageError where the file cannot be made; RunError where it could not be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        try:
            self._file: BinaryIO = path.open("wb", buffering=BUFFER)
        except OSError as error:
            raise UsageError(f"capture {path}: cannot be written: {error.strerror}") from None
        self._put(SECTION_HEADER, struct.pack("<IHHQ", BYTE_ORDER, 1, 0, NO_LENGTH))
        self._put(INTERFACE, struct.pack("<HHI", ETHERNET, 0, 0) + IF_TSRESOL)

    def _put(self, kind: int, body: bytes) -> None:
        length = 12 + len(body)
        try:
            self._file.write(struct.pack("<II", kind, length) + body + struct.pack("<I", length))
        except OSError as error:
            kept = counted(self.written, "frame")
            raise RunError(f"capture {self.path}: {error.strerror}: it ends after {kept}") from None

    def write(self, frame: Frame) -> None:
        """Adds a frame; one without a timestamp is dated 0."""
        high, low = divmod(frame.stamp, 1 << 32)
        head = struct.pack("<IIIII", 0, high, low, len(frame.data), max(frame.wire_len, len(frame.data)))
        self._put(ENHANCED_PACKET, head + frame.data + bytes(-len(frame.data) % 4))
        self.written += 1

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise RunError(f"capture {self.path}: {error.strerror}: it is not whole") from None
