# SPDX-License-Identifier: MIT
"""Frames against the end of readable memory, and native probes for every shape of a demux: what tests of classification
share. Each frame ends where its mapping does, before a page that nobody may touch: a read too far ends the test run.
"""

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

from exonet.abi import NO_OWNER, ffi, lib
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, compile_form
from tests.demux_box import Demux, Frame

PAGE = mmap.PAGESIZE
LONGEST = 65535


class Guarded:
    """Room for one frame that ends where the readable memory does."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._pages = (longest + PAGE - 1) // PAGE
        self._map = mmap.mmap(-1, (self._pages + 1) * PAGE)
        self._view = ffi.from_buffer(self._map)
        self._end = int(ffi.cast("uintptr_t", self._view)) + self._pages * PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self._end), ctypes.c_size_t(PAGE), 0) == 0

    def place(self, data: bytes) -> object:
        start = self._pages * PAGE - len(data)
        self._map[start : start + len(data)] = data
        return ffi.cast("uint8_t *", self._end - len(data))


class Arena:
    """Frames in guarded memory, all at once, for as many questions as one likes."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = list(frames)
        self._native: Any = ffi.new("struct exo_frame[]", max(len(self.frames), 1))
        self._room = [Guarded(max(len(data), 1)) for data, _ in self.frames]
        self._owners = ffi.new("uint32_t[]", max(len(self.frames), 1))
        for i, (data, wire_len) in enumerate(self.frames):
            self._set(i, data, wire_len)

    def _set(self, i: int, data: bytes, wire_len: int) -> None:
        native = self._native[i]
        native.data, native.len, native.wire_len = self._room[i].place(data), len(data), wire_len

    def fill(self, frames: Sequence[Frame]) -> None:
        """Other frames in the same room: as many, none longer than a page."""
        self.frames = list(frames)
        for i, (data, wire_len) in enumerate(self.frames):
            self._set(i, data, wire_len)

    def classify(self, demux: Demux) -> list[int | None]:
        lib.exo_demux_classify(demux.native, self._native, len(self.frames), self._owners)
        return [None if owner == NO_OWNER else owner for owner in ffi.unpack(self._owners, len(self.frames))]

    def match_all(self, demux: Demux, place: int, most: int = 64) -> set[int]:
        bindings = ffi.new("uint32_t[]", most)
        found = lib.exo_demux_match_all(demux.native, self._native + place, bindings, most)
        return {int(bindings[i]) for i in range(min(found, most))}


class Codes:
    """Probes by form: each made once."""

    def __init__(self) -> None:
        self._made: dict[Form, NativeCode] = {}

    def install(self, demux: Demux) -> int:
        """Native code for every shape; returns how many there are."""
        native, shapes = ffi.new("struct exo_form *"), 0
        for place in range(lib.EXO_MAX_SHAPES):
            if lib.exo_demux_form(demux.native, place, native) >= 0:
                form = Form.of(native)
                code = self._made.setdefault(form, self._made.get(form) or compile_form(form))
                assert code.install(demux.native)
                shapes += 1
        return shapes

    def __len__(self) -> int:
        return len(self._made)

    def clear(self) -> None:
        """For when no demux lives that uses them."""
        self._made.clear()
