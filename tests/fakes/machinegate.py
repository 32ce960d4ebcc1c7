# SPDX-License-Identifier: MIT
"""A gate straight to a machine in C, without the kernel's Python: real rings and real pages on both sides."""

import mmap
import os
from ipaddress import ip_address
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.filters.compile import compile_filter
from exonet.gate.client import BaseGate, Extent, Grant, Welcome
from tests.fakes.libos import Bench

RINGS = ("fill_entries", "receive_entries", "transmit_entries", "completion_entries")


class MachineGate(BaseGate):
    """An inline environment of `bench`; every right is granted, every local side of `mac` may be sent."""

    def __init__(self, bench: Bench, config: dict[str, Any], entries: int = 64) -> None:
        super().__init__()
        self.bench = bench
        self.machine = bench.native
        layout = ffi.new("struct exo_layout *", dict.fromkeys(RINGS, entries))
        self.number = check(lib.exo_machine_env(self.machine, layout, -1), "environment")
        self.env = lib.exo_machine_env_at(self.machine, self.number)
        self.table = lib.exo_machine_pages(self.machine)
        self.config = config
        mac = bytes.fromhex(config["mac"].replace(":", ""))
        local = ffi.new("struct exo_local[]", [{"mac": mac, "any": 1, "port_high": 65535}])
        check(lib.exo_machine_locals(self.machine, self.number, local, 1), "locals")

    @property
    def wake_fd(self) -> int:
        return -1

    def welcome(self) -> Welcome:
        grants = (Grant(b"all", "filter", ("bind",), {}),)
        ports = ({"port": 0, "mac": self.config["mac"], "mtu": 1500},)
        areas: tuple[Any, Any] = (self.env.kernel, self.env.libos)
        return Welcome(self.number, "test", self.config, grants, ports, 0, *areas, mmap.mmap(-1, 4096))

    def allocate(self, count: int, first: int | None = None) -> Extent:
        fd = ffi.new("int32_t *")
        wanted = lib.EXO_ANY_PAGE if first is None else first
        start = check(lib.exo_pages_allocate(self.table, self.number, wanted, count, fd), f"{count} pages")
        memory = mmap.mmap(fd[0], count * 4096)
        os.close(fd[0])
        return Extent(start, count, memory)

    def free(self, first: int, count: int) -> None:
        check(lib.exo_pages_release(self.table, self.number, first, count), f"pages {first}, {count}")

    def pin(self, first: int, count: int) -> None:
        check(lib.exo_pages_pin(self.table, self.number, first, count), f"pages {first}, {count}")

    def unpin(self, first: int, count: int) -> None:
        check(lib.exo_pages_unpin(self.table, self.number, first, count), f"pages {first}, {count}")

    def bind(self, filter_text: str, capability: bytes, port: int = 0, **_: Any) -> int:
        number = check(lib.exo_machine_binding(self.machine, self.number, port, 0), f"binding {filter_text}")
        demux = lib.exo_machine_demux(self.machine, port, False)
        for conjunct in compile_filter(filter_text).conjuncts:
            check(lib.exo_demux_insert(demux, conjunct.to_native(number)), f"conjunct {conjunct}")
        return number

    def subscribe(self, mac: bytes, port: int = 0) -> None:
        check(lib.exo_machine_subscribe(self.machine, self.number, port, mac), f"group {mac.hex(':')}")

    def neighbour(self, address: str, port: int = 0) -> None:
        host = ip_address(address)
        packed = host.packed.ljust(16, b"\0")
        check(lib.exo_machine_neighbour(self.machine, self.number, port, host.version, packed), f"address {address}")

    def sleep(self, deadline_ns: int | None) -> None:
        lib.exo_machine_wake_at(self.machine, self.number, deadline_ns)

    def wake(self) -> None:
        """The machine looks after every step."""

    def now(self) -> int:
        now: int = lib.exo_now(self.machine)
        return now
