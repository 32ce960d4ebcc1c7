# SPDX-License-Identifier: MIT
"""Replay wires over generated captures, closed after the test; a ledger to attach; libpcap's own filters."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import ffi, reason_name
from exonet.wire.capture import Trace
from exonet.wire.pcap import PcapWire

__all__ = ["Ledger", "Libpcap", "Make", "make"]

Make = Callable[..., PcapWire]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(capture bytes, memory_limit=…, **options) -> PcapWire; memory_limit=1 streams."""
    wires: list[PcapWire] = []

    def build(data: bytes, *, memory_limit: int = 1 << 30, **options: Any) -> PcapWire:
        path = tmp_path / f"capture{len(wires)}"
        path.write_bytes(data)
        wires.append(PcapWire(Trace.load(path, memory_limit), **options))
        return wires[-1]

    yield build
    for wire in wires:
        wire.close()


class Ledger:
    """A ledger of its own, attached to wires as a port would, recording fates."""

    def __init__(self, *wires: PcapWire) -> None:
        self.native = ffi.new("struct exo_ledger *")
        self._fates = ffi.new("struct exo_fate[]", 4096)
        self.native.fates, self.native.fate_capacity = self._fates, 4096
        for port, wire in enumerate(wires):
            wire.native.ledger, wire.native.port = self.native, port

    @property
    def offered(self) -> int:
        return int(getattr(self.native, "in")[0])

    @property
    def drops(self) -> dict[str, int]:
        return {reason_name(i): self.native.drop[i] for i in range(96) if self.native.drop[i]}

    @property
    def fates(self) -> list[tuple[int, str]]:
        """(id, reason) in order."""
        return [(self._fates[i].id, reason_name(self._fates[i].reason)) for i in range(self.native.fate_count)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class Libpcap:
    """A pcap filter compiled by libpcap for Ethernet; what PcapWire takes as include and exclude."""

    def __init__(self, text: str) -> None:
        try:
            library = ctypes.CDLL("libpcap.so.0.8")
        except OSError:
            pytest.skip("libpcap is not installed")
        library.pcap_open_dead.restype = ctypes.c_void_p
        self._program = _Program()
        handle = ctypes.c_void_p(library.pcap_open_dead(1, 65535))
        assert library.pcap_compile(handle, ctypes.byref(self._program), text.encode(), 1, 0xFFFFFFFF) == 0
        library.pcap_close(handle)
        self.bpf_filter = ctypes.cast(library.bpf_filter, ctypes.c_void_p).value or 0
        self.instructions = self._program.instructions
