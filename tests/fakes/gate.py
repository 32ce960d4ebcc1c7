# SPDX-License-Identifier: MIT
"""A gate in memory: every call of the Gate protocol, answered from a FakeKernel, remembered in `calls`."""

from collections.abc import Callable, Sequence
from mmap import mmap
from typing import Any, cast

from exonet import errors
from exonet.gate.client import BaseGate, Extent, Grant, Welcome
from tests.fakes.kernel import PAGE, FakeKernel

CONFIG: dict[str, Any] = {
    "libos": "echo",
    "mac": "02:00:00:00:00:02",
    "addresses": ["10.7.0.2/24"],
    "gateway": None,
    "mtu": 1500,
    "vlan": 0,
    "any_address": False,
    "bindings": [],
    "receive_buffers": 32,
    "transmit_buffers": 16,
    "groups": "all",
    "options": {},
}


class FakeGate(BaseGate):
    """`config` overrides CONFIG.

    `clock` is what `now()` says. `on_sleep` is called with the deadline: the place to let time pass or frames come.
    """

    def __init__(self, kernel: FakeKernel | None = None, pages: int = 4096, **config: Any) -> None:
        super().__init__()
        self.kernel = kernel or FakeKernel()
        self.config = CONFIG | config
        self.capabilities: tuple[Grant, ...] = (
            Grant(b"pages", "pages", ("write",), {}),
            Grant(b"root", "filter", ("bind",), {}),
        )
        self.denied: set[bytes] = set()
        self.taken: set[str] = set()
        self.clock = 1_000_000_000
        self.wakes = 0
        self.calls: list[tuple[Any, ...]] = []
        self.pinned: set[int] = set()
        self.owned: dict[int, int] = {}
        self.on_sleep: Callable[[int | None], None] = lambda deadline: None
        self.left = pages

    @property
    def wake_fd(self) -> int:
        return -1

    def welcome(self) -> Welcome:
        return Welcome(
            env=1,
            name="test",
            config=self.config,
            capabilities=self.capabilities,
            ports=({"port": 0, "mac": "02:00:00:00:00:02", "mtu": 1500},),
            pages=4096,
            kernel_area=cast(mmap, memoryview(self.kernel.kernel_memory).toreadonly()),
            libos_area=cast(mmap, self.kernel.libos_memory),
            owners=cast(mmap, bytearray(8 * 4096)),
        )

    def allocate(self, count: int, first: int | None = None) -> Extent:
        if count > self.left:
            raise errors.ExhaustedError(f"{count} pages: {self.left} left")
        self.left -= count
        start = 100 + max((page + n for page, n in self.owned.items()), default=0) if first is None else first
        memory = bytearray(count * PAGE)
        self.owned[start] = count
        self.kernel.grant(start, memory)
        return Extent(start, count, cast(mmap, memory))

    def free(self, first: int, count: int) -> None:
        assert not self.pinned & set(range(first, first + count))
        assert self.owned.pop(first) == count
        self.left += count

    def pin(self, first: int, count: int) -> None:
        self.pinned |= set(range(first, first + count))

    def unpin(self, first: int, count: int) -> None:
        self.pinned -= set(range(first, first + count))

    def bind(
        self, filter_text: str, capability: bytes, port: int = 0, *, shown: Sequence[bytes] = (), snoop: bool = False
    ) -> int:
        if capability in self.denied:
            raise errors.DeniedError(f'"{filter_text}" is outside')
        self.calls.append(("bind", filter_text, capability, port))
        return len(self.calls)

    def subscribe(self, mac: bytes, port: int = 0) -> None:
        self.calls.append(("subscribe", mac, port))

    def neighbour(self, address: str, port: int = 0) -> None:
        if address in self.taken:
            raise errors.ConflictError(f"address {address}: another answers for it")
        self.calls.append(("neighbour", address, port))

    def ready(self) -> None:
        self.calls.append(("ready",))

    def wake(self) -> None:
        self.wakes += 1

    def sleep(self, deadline_ns: int | None) -> None:
        self.calls.append(("sleep", deadline_ns))
        self.on_sleep(deadline_ns)

    def now(self) -> int:
        return self.clock

    def exit(self, status: int) -> None:
        self.calls.append(("exit", status))
