# SPDX-License-Identifier: MIT
"""A machine in C with LibOSes driven by the test: the kernel's half of the harness. Lies are easy here."""

import os
from dataclasses import dataclass, field
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.kernel.regions import Regions
from exonet.wire.link import Wire
from tests.fakes.frames import HERE

EVERY_GROUP = bytes(6)
MAC = bytes.fromhex(HERE.replace(":", ""))
#: One for all: what a filter text decomposes into is remembered.
REGIONS = Regions()
#: Local sides of HOST and HOST6.
LOCAL4 = {"mac": MAC, "family": 4, "address": bytes([10, 0, 0, 1]) + bytes(12), "prefix": 32}
LOCAL6 = {"mac": MAC, "family": 6, "address": bytes.fromhex("fd") + bytes(14) + b"\1", "prefix": 128}


@dataclass
class Received:
    data: bytes
    flags: int
    wire_len: int
    binding: int
    timestamp: int


class Bench:
    """A native machine and its ports; `close()` when done."""

    def __init__(self, clock: int = lib.EXO_CLOCK_VIRTUAL, pages: int = 256, seed: int = 7) -> None:
        config = {"clock": clock, "pages": pages, "seed": seed, "spin_ns": 0}
        self.native = lib.exo_machine_new(ffi.new("struct exo_machine_config *", config))
        self.ledger = lib.exo_machine_ledger(self.native)
        self.wires: list[Wire] = []

    def attach(self, wire: Wire, **nic: Any) -> int:
        config = {
            "mac": bytes.fromhex("020000000001"),
            "queues": 1,
            "descriptors": 64,
            "fifo_bytes": 65536,
            "max_frame": 9728,
            "mode": lib.EXO_NIC_DROP,
            "promiscuous": 1,
            "drop_enable": 0,
            "itr_ns": 0,
            "seed": 0,
        } | nic
        self.wires.append(wire)
        return check(
            lib.exo_machine_attach(self.native, wire.native, ffi.new("struct exo_nic_config *", config)), "port"
        )

    def costs(self, mode: int = lib.EXO_POLL_BUDGET, budget: int = 64, **costs: int) -> None:
        check(lib.exo_cpu_costs(self.native, ffi.new("struct exo_costs *", costs), mode, budget), "costs")

    def slices(self, *slices: tuple[int, int]) -> None:
        check(lib.exo_cpu_slices(self.native, ffi.new("struct exo_slice[]", list(slices)), len(slices)), "slices")

    def run(self, until: int = 1 << 62, step: Any = None) -> int:
        """Simulates to the end; `step(env)` runs inline environments and returns whether it did anything."""
        while True:
            reasons = lib.exo_machine_simulate(self.native, until)
            if not reasons & lib.EXO_RUN_INLINE:
                return reasons
            env = lib.exo_machine_ready(self.native)
            lib.exo_machine_stepped(self.native, env, bool(step(env)) if step else False)

    def in_flight(self) -> list[int]:
        """By stage, whoever offered the frames."""
        return [of_wires + of_liboses for of_wires, of_liboses in zip(*self.in_flight_by_origin(), strict=True)]

    def in_flight_by_origin(self) -> tuple[list[int], list[int]]:
        """By stage, of what wires offered and of what LibOSes sent."""
        out = ffi.new("uint64_t[18]")
        lib.exo_machine_in_flight(self.native, out)
        return out[0:9], out[9:18]

    def drops(self) -> dict[str, int]:
        """Every non-zero fate by name."""
        names = {i: lib.exo_reason_name(i) for i in range(lib.EXO_REASONS)}
        return {ffi.string(name).decode(): self.ledger.drop[i] for i, name in names.items() if self.ledger.drop[i]}

    def close(self) -> None:
        lib.exo_machine_free(self.native)
        for wire in self.wires:
            wire.close()


@dataclass
class FakeLibOS:
    """An inline environment whose rings the test moves by hand."""

    bench: Bench
    entries: int = 64
    pages: int = 16
    post: bool = True
    number: int = field(init=False)

    def __post_init__(self) -> None:
        names = ("fill_entries", "receive_entries", "transmit_entries", "completion_entries")
        layout = ffi.new("struct exo_layout *", dict.fromkeys(names, self.entries))
        machine = self.bench.native
        self.number = check(lib.exo_machine_env(machine, layout, -1), "environment")
        self.env = lib.exo_machine_env_at(machine, self.number)
        self.table = lib.exo_machine_pages(machine)
        fd = ffi.new("int32_t *")
        self.first = check(
            lib.exo_pages_allocate(self.table, self.number, lib.EXO_ANY_PAGE, self.pages, fd), f"{self.pages} pages"
        )
        os.close(fd[0])
        check(lib.exo_pages_pin(self.table, self.number, self.first, self.pages), "pin")
        if self.post:
            for i in range(min(self.entries, 2 * self.pages - 2)):
                self.fill(self.first + i // 2, 2048 * (i % 2), 2048)

    def area(self) -> Any:
        return self.env.libos

    def _array(self, kind: str, area: Any, offset: int) -> Any:
        return ffi.cast(f"{kind} *", ffi.cast("uint8_t *", area) + offset)

    def fill(self, page: int, offset: int, length: int) -> None:
        ring = self._array("struct exo_fill", self.env.libos, self.env.layout.fill_offset)
        put = self.env.libos.fill_put.value
        ring[put % self.entries] = {"page": page, "offset": offset, "length": length}
        self.env.libos.fill_put.value = (put + 1) & 0xFFFFFFFF

    def memory(self, page: int, offset: int, length: int) -> Any:
        return ffi.buffer(self.table.page[page].address + offset, length)

    def receive(self, most: int = 1 << 30, verdict: int = 0, repost: bool = True) -> list[Received]:
        """Takes at most `most` frames, says `verdict` of each, and posts their buffers again."""
        ring = self._array("struct exo_receive", self.env.kernel, self.env.layout.receive_offset)
        verdicts = self._array("uint16_t", self.env.libos, self.env.layout.verdict_offset)
        taken, put = self.env.libos.receive_taken.value, self.env.kernel.receive_put.value
        frames: list[Received] = []
        whole = b""
        while taken != put and len(frames) < most:
            entry = ring[taken % self.entries]
            verdicts[taken % self.entries] = verdict
            whole += bytes(self.memory(entry.page, entry.offset, entry.length))
            if not entry.flags & lib.EXO_F_MORE:
                frames.append(Received(whole, entry.flags, entry.wire_len, entry.binding, entry.timestamp))
                whole = b""
            if repost:
                self.fill(entry.page, entry.offset // 2048 * 2048, 2048)
            taken = (taken + 1) & 0xFFFFFFFF
        self.env.libos.receive_taken.value = taken
        return frames

    def transmit(self, data: bytes, **fields: int) -> None:
        """Posts a frame from the last page."""
        page = self.first + self.pages - 1
        self.memory(page, 0, len(data))[:] = data
        self.describe(page=page, offset=0, length=len(data), **fields)

    def describe(self, **fields: int) -> None:
        ring = self._array("struct exo_transmit", self.env.libos, self.env.layout.transmit_offset)
        put = self.env.libos.transmit_put.value
        ring[put % self.entries] = fields
        self.env.libos.transmit_put.value = (put + 1) & 0xFFFFFFFF

    def completions(self) -> list[tuple[int, int]]:
        ring = self._array("struct exo_completion", self.env.kernel, self.env.layout.completion_offset)
        taken, put = self.env.libos.completion_taken.value, self.env.kernel.completion_put.value
        out = []
        while taken != put:
            entry = ring[taken % self.entries]
            out.append((entry.cookie, entry.status))
            taken = (taken + 1) & 0xFFFFFFFF
        self.env.libos.completion_taken.value = taken
        return out

    def bind(self, text: str, port: int = 0, snoop: bool = False) -> int:
        machine = self.bench.native
        flags = lib.EXO_BIND_SNOOP if snoop else 0
        number = check(lib.exo_machine_binding(machine, self.number, port, flags), f"binding {text}")
        demux = lib.exo_machine_demux(machine, port, snoop)
        for conjunct in REGIONS.prepare(text).conjuncts:
            check(lib.exo_demux_insert(demux, REGIONS.stamp(REGIONS.box(conjunct), number)), f"conjunct {conjunct}")
        return number

    def subscribe(self, mac: bytes = EVERY_GROUP, port: int = 0) -> None:
        check(lib.exo_machine_subscribe(self.bench.native, self.number, port, mac), "subscription")

    def locals(self, *rows: dict[str, Any]) -> None:
        array = ffi.new("struct exo_local[]", [{"port_high": 65535} | row for row in rows] or [{}])
        check(lib.exo_machine_locals(self.bench.native, self.number, array, len(rows)), "locals")
