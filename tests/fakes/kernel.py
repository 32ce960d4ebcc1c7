# SPDX-License-Identifier: MIT
"""A fake kernel: the kernel's side of the four rings of one environment, in plain Python over the ABI.

For tests of the LibOS's side. It is strict where the real kernel is forgiving: a fill or transmit entry outside the
pages it granted, a completion without room or an index that runs ahead fails the test. Indices may start anywhere, so
wrap-around is reached at once.
"""

from dataclasses import dataclass
from typing import Any

from libos_stacks.abi import ffi, lib

MASK = 0xFFFFFFFF
PAGE = lib.EXO_PAGE_SIZE


def align(n: int) -> int:
    return -(-n // 64) * 64


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame as the kernel took it from the transmit ring, and the flags of its entries."""

    port: int
    data: bytes
    flags: tuple[int, ...]


class FakeKernel:
    """Areas laid out as struct exo_layout says, `entries` in each ring, every index beginning at `start`."""

    def __init__(self, entries: int = 64, start: int = 0, completion_entries: int | None = None) -> None:
        self.entries = entries
        completions = completion_entries or entries
        receive = align(ffi.sizeof("struct exo_kernel_area"))
        completion = align(receive + entries * ffi.sizeof("struct exo_receive"))
        fill = align(ffi.sizeof("struct exo_libos_area"))
        transmit = align(fill + entries * ffi.sizeof("struct exo_fill"))
        verdict = align(transmit + entries * ffi.sizeof("struct exo_transmit"))
        kernel_size = align(completion + completions * ffi.sizeof("struct exo_completion"))
        libos_size = align(verdict + entries * ffi.sizeof("uint16_t"))
        self.kernel_memory = bytearray(kernel_size)
        self.libos_memory = bytearray(libos_size)
        kernel, libos = ffi.from_buffer(self.kernel_memory), ffi.from_buffer(self.libos_memory)
        self.kernel: Any = ffi.cast("struct exo_kernel_area *", kernel)
        self.libos: Any = ffi.cast("struct exo_libos_area *", libos)
        self._receive = ffi.cast("struct exo_receive *", kernel + receive)
        self._completion = ffi.cast("struct exo_completion *", kernel + completion)
        self._fill = ffi.cast("struct exo_fill *", libos + fill)
        self._transmit = ffi.cast("struct exo_transmit *", libos + transmit)
        self.verdicts = ffi.cast("uint16_t *", libos + verdict)
        self._keep = (kernel, libos)
        self.kernel.abi_version = lib.EXO_ABI_VERSION
        self.kernel.env = 1
        self.kernel.seed = 42
        self.kernel.layout = [
            entries, entries, entries, completions, receive, completion, fill, transmit, verdict, 0, kernel_size,
            libos_size,
        ]  # fmt: skip
        for index in ("fill_taken", "receive_put", "transmit_taken", "completion_put"):
            getattr(self.kernel, index).value = start & MASK
        self.completions = completions
        self.pages: dict[int, memoryview] = {}
        self._receive_put = start & MASK
        self._completion_put = start & MASK

    @classmethod
    def over(cls, env: Any, pages: Any) -> "FakeKernel":
        """On the areas of a real `struct exo_env`, with the pages of `struct exo_pages` that are its own."""
        made = cls.__new__(cls)
        made.kernel = ffi.cast("struct exo_kernel_area *", env.kernel)
        made.libos = ffi.cast("struct exo_libos_area *", env.libos)
        layout = made.kernel.layout
        made.entries, made.completions = layout.receive_entries, layout.completion_entries
        kernel, libos = ffi.cast("uint8_t *", env.kernel), ffi.cast("uint8_t *", env.libos)
        made._receive = ffi.cast("struct exo_receive *", kernel + layout.receive_offset)
        made._completion = ffi.cast("struct exo_completion *", kernel + layout.completion_offset)
        made._fill = ffi.cast("struct exo_fill *", libos + layout.fill_offset)
        made._transmit = ffi.cast("struct exo_transmit *", libos + layout.transmit_offset)
        made.verdicts = ffi.cast("uint16_t *", libos + layout.verdict_offset)
        made._receive_put = made._completion_put = 0
        mine = [number for number in range(pages.count) if pages.page[number].env == env.number]
        made.pages = {n: memoryview(ffi.buffer(pages.page[n].address, PAGE)).cast("B") for n in mine}
        return made

    def grant(self, first: int, memory: Any) -> None:
        """Pages from `first` on are backed by `memory`."""
        view = memoryview(memory).cast("B")
        for i in range(len(view) // PAGE):
            self.pages[first + i] = view[i * PAGE : (i + 1) * PAGE]

    @property
    def posted(self) -> int:
        """Entries waiting in the fill ring."""
        count: int = (self.libos.fill_put.value - self.kernel.fill_taken.value) & MASK
        assert count <= self.entries, f"fill_put runs {count} ahead"
        return count

    @property
    def unconsumed(self) -> int:
        """Entries of the receive ring the LibOS has not taken."""
        count: int = (self._receive_put - self.libos.receive_taken.value) & MASK
        assert count <= self.entries, f"receive_taken is {count} behind"
        return count

    def take_buffer(self) -> tuple[int, int, int] | None:
        """One fill entry, checked: (page, offset, length)."""
        if self.posted == 0:
            return None
        taken = self.kernel.fill_taken.value
        entry = self._fill[taken & (self.entries - 1)]
        page, offset, length = entry.page, entry.offset, entry.length
        assert page in self.pages, f"fill entry names page {page}"
        assert offset + length <= PAGE
        self.kernel.fill_taken.value = (taken + 1) & MASK
        return page, offset, length

    def deliver(self, frame: bytes, wire_len: int | None = None, flags: int = 0, csum: int = 0) -> bool:
        """Copies a frame into posted buffers and publishes it.

        False where no buffer or no room is there: the frame is lost.
        """
        return self.place(frame, wire_len, flags, csum) and self.publish()

    def place(self, frame: bytes, wire_len: int | None = None, flags: int = 0, csum: int = 0) -> bool:
        """`deliver` without publishing."""
        parts: list[tuple[int, int, bytes]] = []
        at = 0
        while at < len(frame) or not parts:
            if self.unconsumed + len(parts) >= self.entries:
                return False
            buffer = self.take_buffer()
            if buffer is None:
                return False
            part = frame[at : at + buffer[2]]
            parts.append((buffer[0], buffer[1], part))
            at += len(part)
        for i, (page, offset, part) in enumerate(parts):
            self.pages[page][offset : offset + len(part)] = part
            more = lib.EXO_F_MORE if i + 1 < len(parts) else 0
            self.write(page, offset, len(part), len(frame) if wire_len is None else wire_len, flags | more, csum)
        return True

    def write(self, page: int, offset: int, length: int, wire_len: int, flags: int = 0, csum: int = 0) -> None:
        """A receive entry as it stands: for nonsense too."""
        entry = self._receive[self._receive_put & (self.entries - 1)]
        entry.page, entry.offset, entry.length = page, offset, length
        entry.wire_len, entry.flags, entry.csum = wire_len, flags, csum
        self._receive_put = (self._receive_put + 1) & MASK

    def verdict(self, at: int) -> int:
        """What the LibOS said became of the frame that begins at receive index `at`."""
        reason: int = self.verdicts[at & (self.entries - 1)]
        return reason

    def publish(self) -> bool:
        self.kernel.receive_put.value = self._receive_put
        return True

    def take_sent(self, limit: int = 1 << 30, status: int = 0, complete: bool = True) -> list[Sent]:
        """Takes whole frames from the transmit ring, reading their pages, and completes their entries with `status`."""
        frames: list[Sent] = []
        while len(frames) < limit and (frame := self._take_one(status, complete)) is not None:
            frames.append(frame)
        return frames

    def _take_one(self, status: int, complete: bool) -> Sent | None:
        data, port = b"", 0
        flags: list[int] = []
        taken = self.kernel.transmit_taken.value
        ready = (self.libos.transmit_put.value - taken) & MASK
        assert ready <= self.entries, f"transmit_put runs {ready} ahead"
        if ready == 0:
            return None
        while not flags or flags[-1] & lib.EXO_F_MORE:
            assert len(flags) < ready, "a chain that does not end"
            entry = self._transmit[(taken + len(flags)) & (self.entries - 1)]
            assert entry.page in self.pages and entry.offset + entry.length <= PAGE
            data += self.pages[entry.page][entry.offset : entry.offset + entry.length]
            flags.append(entry.flags)
            port = entry.port
            if complete:
                self.complete(entry.cookie, status)
        assert len(flags) <= 18
        self.kernel.transmit_taken.value = (taken + len(flags)) & MASK
        return Sent(port, data, tuple(flags))

    def complete(self, cookie: int, status: int = 0) -> None:
        """One completion entry, published."""
        waiting = (self._completion_put - self.libos.completion_taken.value) & MASK
        assert waiting < self.completions, "no room for a completion"
        entry = self._completion[self._completion_put & (self.completions - 1)]
        entry.cookie, entry.status = cookie, status
        self._completion_put = (self._completion_put + 1) & MASK
        self.kernel.completion_put.value = self._completion_put
