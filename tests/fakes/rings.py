# SPDX-License-Identifier: MIT
"""`struct stk_rings` alone over a FakeKernel: no gate, no stack. Frames go out through `send`."""

from typing import Any, Self

from libos_stacks.abi import ffi, lib
from tests.fakes.kernel import PAGE, FakeKernel

RECEIVE_PAGE, TRANSMIT_PAGE = 7, 1000


class Rings:
    """Receive buffers of `size` bytes in `receive_pages`, transmit buffers of `transmit_size` in `transmit_pages`."""

    def __init__(
        self,
        kernel: FakeKernel,
        receive_pages: int = 8,
        size: int = 2048,
        most: int = 1 << 20,
        transmit_pages: int = 0,
        transmit_size: int = 2048,
    ) -> None:
        self.kernel = kernel
        self.native: Any = lib.stk_rings_new(kernel.kernel, kernel.libos)
        assert self.native != ffi.NULL
        self.outputs: dict[int, Any] = {}
        self._keep: list[Any] = []
        if receive_pages:
            self.extent(RECEIVE_PAGE, receive_pages)
            made = lib.stk_rings_receive_buffers(self.native, RECEIVE_PAGE, receive_pages, size, most)
            assert made == receive_pages * (PAGE // size)
        if transmit_pages:
            self.extent(TRANSMIT_PAGE, transmit_pages)
            made = lib.stk_rings_transmit_buffers(self.native, TRANSMIT_PAGE, transmit_pages, transmit_size)
            assert made == transmit_pages * (PAGE // transmit_size)

    def extent(self, first: int, pages: int) -> None:
        memory = bytearray(pages * PAGE)
        self.kernel.grant(first, memory)
        base = ffi.from_buffer("uint8_t[]", memory)
        self._keep.append(base)
        assert lib.stk_rings_extent(self.native, first, pages, base) == 0

    def output(self, port: int = 0) -> Any:
        if port not in self.outputs:
            self.outputs[port] = ffi.new("struct stk_output *")
            lib.stk_rings_output(self.native, port, self.outputs[port])
        return self.outputs[port]

    def send(self, frame: bytes, port: int = 0, reserve: int | None = None) -> bool:
        """As a stack sends: reserve, write, commit. False where there is no room. Not flushed."""
        out = self.output(port)
        place = out.reserve(out.context, len(frame) if reserve is None else reserve)
        if place == ffi.NULL:
            return False
        ffi.memmove(place, frame, len(frame))
        out.commit(out.context, len(frame))
        return True

    def sink(self, frames: int = 1 << 20) -> int:
        count: int = lib.stk_rings_sink(self.native, frames)
        return count

    def status(self) -> dict[str, int]:
        out = ffi.new("struct stk_rings_status *")
        lib.stk_rings_status(self.native, out)
        return {name: getattr(out, name) for name, _ in ffi.typeof("struct stk_rings_status").fields}

    def close(self) -> None:
        if self.native != ffi.NULL:
            lib.stk_rings_free(self.native)
            self.native = ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
