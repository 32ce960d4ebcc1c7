# SPDX-License-Identifier: MIT
"""The tee: a capture file of what passes, in pcapng each packet with a comment that names its fate."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.errors import RunError, UsageError
from exonet.wire.link import Wire
from exonet.wire.wrapper import Wrapper


@dataclass(frozen=True, slots=True)
class TeeCounters:
    """Of the file: packets, those without a fate at close or when the memory ran out, fates that came too late,
    bytes, errno.
    """

    written: int
    in_flight: int
    forgotten: int
    unknown: int
    bytes: int
    error: int


class Tee(Wrapper):
    """Writes every frame that passes `wire` to the file `path`: pcap if it ends in .pcap, else pcapng. It owns `wire`.

    The comment, which pcap has not, is "delivered to web", "ring.no_buffer (web)", "demux.no_match", "sent by echo", or
    "in flight" for a frame without a fate at the end. Packets are in order of their fates, not sorted by time; one with
    several fates (a group frame, a copy of it in each environment) is written once for each. Times are the machine's
    clock plus `epoch` ns: 0 for the virtual clock. `memory` bytes of frames are remembered for their fate; the oldest
    is written as "fate unknown" when there are more. Raises UsageError where the file cannot be made; `close` raises
    RunError where it could not be written whole.
    """

    def __init__(
        self,
        wire: Wire,
        path: str | Path,
        *,
        names: Mapping[int, str] | None = None,
        memory: int = 32 << 20,
        epoch: int = 0,
    ) -> None:
        if not 1 << 16 <= memory <= 1 << 40:
            raise UsageError(f"tee {path}: memory {memory}: must be {1 << 16}..{1 << 40} bytes")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise UsageError(f"tee {path}: cannot be written: {error.strerror}") from error
        native = lib.exo_tee_new(wire.native, fd, Path(path).suffix == ".pcap", memory, epoch)
        if native == ffi.NULL:
            os.close(fd)
        super().__init__(native, wire.name, wire)
        self.path = Path(path)
        for env, name in (names or {}).items():
            self.name_environment(env, name)

    def name_environment(self, env: int, name: str) -> None:
        """What comments call environment `env`; before that it is "environment 3"."""
        check(lib.exo_tee_name(self.native, env, name.encode()), f"tee {self.path}: environment {env}")

    def counters(self) -> TeeCounters:
        native = lib.exo_tee_counters(self.native)
        return TeeCounters(*(getattr(native, field.name) for field in fields(TeeCounters)))

    def flush(self) -> None:
        """Brings what is written so far into the file. Raises RunError."""
        check(lib.exo_tee_flush(self.native), f"tee {self.path}")

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "kind": "tee", "path": str(self.path), **asdict(self.counters())}

    def close(self) -> None:
        if self.native == ffi.NULL:
            return
        lib.exo_tee_finish(self.native)
        counters = self.counters()
        super().close()
        if counters.error:
            raise RunError(
                f"tee {self.path}: {os.strerror(counters.error)}: the file ends after {counters.bytes} bytes"
            )
