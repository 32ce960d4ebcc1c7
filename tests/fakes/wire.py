# SPDX-License-Identifier: MIT
"""A wire whose frames are a list: (due ns, bytes) in, and what was sent in `sent`."""

from collections.abc import Iterable, Sequence

from exonet.abi import ffi, lib
from exonet.wire.link import Wire

NEVER = (1 << 64) - 1


class ScriptWire(Wire):
    """Gives each frame when it is due. `room`: how many frames send takes in all, -1: the wire is gone. `ends`:
    EXO_E_END after the last. `flags`: of every frame. `cut`: bytes of each that a snaplen left out.
    """

    def __init__(self, frames: Iterable[tuple[int, bytes]] = (), *, room: int = 1 << 30, ends: bool = True) -> None:
        super().__init__(ffi.new("struct exo_wire *"), "script")
        self.frames = list(frames)
        self.sent: list[bytes] = []
        self.at = 0
        self.room = room
        self.ends = ends
        self.flags = 0
        self.cut = 0
        self._data = [ffi.from_buffer(data) for _, data in self.frames]
        self._callbacks = [
            ffi.callback("int32_t(struct exo_wire *, struct exo_frame *, uint32_t, uint64_t)", self._receive),
            ffi.callback("int32_t(struct exo_wire *, const struct exo_frame *, uint32_t, uint64_t)", self._send),
            ffi.callback("uint64_t(struct exo_wire *, uint64_t)", self._next_due),
        ]
        wire = self.native
        wire.receive, wire.send, wire.next_due = self._callbacks
        wire.fd = -1

    def add(self, due: int, data: bytes) -> None:
        self.frames.append((due, data))
        self._data.append(ffi.from_buffer(data))

    def _receive(self, wire: object, out: object, most: int, now: int) -> int:
        count = 0
        while count < most and self.at < len(self.frames) and self.frames[self.at][0] <= now:
            due, data = self.frames[self.at]
            out[count] = {
                "data": ffi.cast("uint8_t *", self._data[self.at]),
                "len": len(data),
                "wire_len": len(data) + self.cut,
                "flags": self.flags,
                "sender": 0,
                "ts": due,
                "id": self.at,
            }
            self.at += 1
            count += 1
        if self.native.ledger != ffi.NULL:
            self.native.ledger.__getattribute__("in")[lib.EXO_S_SOURCE] += count
        self.native.rx_frames += count
        return count or (lib.EXO_E_END if self.ends and self.at == len(self.frames) else 0)

    def _send(self, wire: object, frames: Sequence[object], count: int, now: int) -> int:
        taken = min(count, self.room - len(self.sent))
        self.sent += [bytes(ffi.buffer(frames[i].data, frames[i].len)) for i in range(taken)]
        return taken

    def _next_due(self, wire: object, now: int) -> int:
        if self.at < len(self.frames):
            return max(now, self.frames[self.at][0])
        return now if self.ends else NEVER

    def close(self) -> None:
        self.native = ffi.NULL
