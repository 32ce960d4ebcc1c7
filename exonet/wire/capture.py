# SPDX-License-Identifier: MIT
"""Capture files: `Trace.load()` reads pcap and pcapng, plain or gzip, into memory, or prepares to stream the larger."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from exonet.abi import check, ffi, lib
from exonet.closing import Closing
from exonet.errors import CaptureError, ExhaustedError
from exonet.wording import counted

__all__ = ["ETHERNET", "Burst", "Frame", "Interface", "Times", "Trace", "link_type_name"]

ETHERNET = 1
DEFAULT_MEMORY_LIMIT = 1 << 30

_SCAN_STEP = 1 << 20
_BURST = 256
_EXPECTED = "expected pcap, pcapng, or gzip of one"
_LINK_TYPES = {
    0: "NULL", 1: "ETHERNET", 6: "IEEE802_5", 9: "PPP", 10: "FDDI", 12: "RAW", 14: "RAW", 50: "PPP_HDLC",
    51: "PPP_ETHER", 100: "ATM_RFC1483", 101: "RAW", 104: "C_HDLC", 105: "IEEE802_11", 107: "FRELAY", 108: "LOOP",
    109: "ENC", 113: "LINUX_SLL", 117: "PFLOG", 119: "IEEE802_11_PRISM", 127: "IEEE802_11_RADIOTAP",
    138: "APPLE_IP_OVER_IEEE1394", 147: "USER0", 163: "IEEE802_11_AVS", 166: "PPP_PPPD", 187: "BLUETOOTH_HCI_H4",
    189: "USB_LINUX", 192: "PPI", 195: "IEEE802_15_4_WITHFCS", 197: "ERF", 201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    204: "PPP_WITH_DIR", 219: "MPLS", 220: "USB_LINUX_MMAPPED", 227: "CAN_SOCKETCAN", 228: "IPV4", 229: "IPV6",
    249: "USBPCAP", 258: "PKTAP", 276: "LINUX_SLL2",
}  # fmt: skip
_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip",
    b"snoop\x00": "snoop", b"ERF": "ERF", b"\x1f\x9d": "compress",
}  # fmt: skip


def link_type_name(number: int) -> str:
    """`LINKTYPE_` name of a link type's number where it is a common one, as "1 (ETHERNET)"."""
    return f"{number} ({_LINK_TYPES[number]})" if number in _LINK_TYPES else str(number)


@dataclass(frozen=True, slots=True)
class Interface:
    """A capture's interface: a pcap file's one, or a pcapng's interface description blocks over all sections.

    resolution: ticks of its timestamps in a second; ticks: base and exponent of that. fcs_bytes: trailing checksum
    bytes its frames are said to have.
    records: how many are of it; converted: to Ethernet frames; refused: that cannot be.
    """

    link_type: int
    snap_length: int
    section: int
    ticks: tuple[int, int]
    offset_s: int
    fcs_bytes: int
    records: int = 0
    converted: int = 0
    refused: int = 0

    @property
    def resolution(self) -> int:
        return int(self.ticks[0] ** self.ticks[1])


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of a capture.

    data: the frame's captured bytes; none of a record that captured more than 65535. wire_len: its length on the wire.
    converted: it was made from a packet of another link type. A record that could not be has its bytes as captured.
    stamp: ns since the epoch, 0 where the capture has none.
    reason: 0, or the EXO_R_SOURCE_ reason for which it is not replayed.
    """

    number: int
    data: bytes
    wire_len: int
    stamp: int
    snapped: bool
    reason: int = 0
    converted: bool = False

    def __bytes__(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Times:
    """The timestamps of a capture, ns; of `stamped` records, in file order.

    backward: steps back from one record to the next, by step_back at most. long_gaps: gaps of more than a minute; the
    longest lies before record longest_before. clamped: times before 1970 or after 2262, put to that end. fractions:
    pcap's fraction of a second is a second or more there, and added as it is.
    """

    stamped: int
    earliest: int
    latest: int
    backward: int
    step_back: int
    long_gaps: int
    longest_gap: int
    longest_before: int
    clamped: int
    fractions: int

    @property
    def duration(self) -> int:
        """From the earliest to the latest, as capinfos has it."""
        return self.latest - self.earliest


@dataclass(frozen=True, slots=True)
class Burst:
    """Records that were read together, as C has them: good until the next burst of the same iteration is asked for.

    frames: `struct exo_frame[]`. reasons: `int32_t[]`, as Frame.reason. count: how many there are.
    """

    frames: Any
    reasons: Any
    count: int

    def __getitem__(self, place: int) -> Frame:
        """Record 0..count-1 of the burst, copied."""
        return _frame(self.frames[place], self.reasons[place])


class Trace(Closing):
    """A capture file. Loaded traces can be indexed; streamed ones only iterated. Wires hold it: closing early is safe.

    A file that breaks after its header is loaded as far as it goes, and `broken` says where and why it ends.
    """

    def __init__(self, native: Any, path: Path) -> None:
        self.path = path
        self._native = ffi.gc(native, lib.exo_trace_release)

    @classmethod
    def load(cls, path: str | os.PathLike[str], memory_limit: int = DEFAULT_MEMORY_LIMIT) -> Self:
        """Reads `path`; what needs more than `memory_limit` bytes is streamed later. Raises CaptureError."""
        fault = ffi.new("struct exo_fault *")
        native = lib.exo_trace_open(os.fsencode(path), max(0, min(memory_limit, 2**63)), fault)
        if native == ffi.NULL:
            raise _refusal(Path(path), fault)
        return cls(native, Path(path))

    @property
    def native(self) -> Any:
        """`struct exo_trace *`, as long as this object lives."""
        if self._native is None:
            raise ValueError(f"{self.path}: the trace is closed")
        return self._native

    @property
    def _info(self) -> Any:
        return lib.exo_trace_info(self.native)

    def _complete(self) -> Any:
        """The info over the whole file."""
        self.scan()
        return self._info

    def scan(self, on_progress: Callable[[int], None] | None = None) -> None:
        """Reads a streamed trace to its end, so that all that is said of it is of all of it; once.

        on_progress: called now and then with the records so far. Of a loaded trace everything is known.
        """
        while not self._info.complete:
            check(lib.exo_trace_scan(self.native, _SCAN_STEP), f"scan {self.path}")
            if on_progress is not None:
                on_progress(int(self._info.count))

    @property
    def streamed(self) -> bool:
        """Larger than the memory limit: replayed through a window."""
        return bool(self._info.streamed)

    @property
    def format(self) -> str:
        """`pcap` or `pcapng`, with ` (gzip)` where it is compressed."""
        name = "pcapng" if self._info.format == lib.EXO_TRACE_PCAPNG else "pcap"
        return f"{name} (gzip)" if self._info.gzip else name

    @property
    def count(self) -> int:
        """Records, of every link type."""
        return int(self._complete().count)

    def __len__(self) -> int:
        return self.count

    @property
    def bytes(self) -> int:
        """Captured bytes of all records."""
        return int(self._complete().bytes)

    @property
    def wire_bytes(self) -> int:
        """Bytes that the records had on the wire."""
        return int(self._complete().wire_bytes)

    @property
    def first_timestamp(self) -> int:
        """ns since the epoch of the first record that has a timestamp; 0: none has."""
        return int(self._info.first_stamp if self._info.stamped else self._complete().first_stamp)

    @property
    def last_timestamp(self) -> int:
        """ns since the epoch of the last record (in file order) that has a timestamp."""
        return int(self._complete().last_stamp)

    @property
    def times(self) -> Times:
        """What there is to know of the timestamps of all records."""
        info = self._complete()
        return Times(**{field.name: int(getattr(info, field.name)) for field in fields(Times)})

    def replay_length(self, max_gap: int | None = None) -> int:
        """ns that a replay of all frames takes at x1: steps back take no time, and no gap more than max_gap ns (R7)."""
        out = ffi.new("uint64_t *")
        check(lib.exo_replay_length(self.native, max_gap or 0, out), f"times of {self.path}")
        return int(out[0])

    @property
    def snapped(self) -> int:
        """Records that the snaplen cut (R7)."""
        return int(self._complete().snapped)

    @property
    def converted(self) -> int:
        """Records of another link type that become Ethernet frames."""
        return int(self._complete().converted)

    @property
    def fcs(self) -> int:
        """Records whose frame check sequence is left away."""
        return int(self._complete().fcs)

    @property
    def not_ethernet(self) -> int:
        """Records of another link type that cannot become Ethernet frames: `source.link_type`."""
        return int(self._complete().not_ethernet)

    @property
    def oversize(self) -> int:
        """Records longer than 65535 bytes: `source.oversize`."""
        return int(self._complete().oversize)

    @property
    def memory(self) -> int:
        """Bytes of memory held: data and index, or one window."""
        return int(self._info.memory)

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Every interface described, in file order."""
        self._complete()
        found: list[Interface] = []
        while (native := lib.exo_trace_interface(self.native, len(found))) != ffi.NULL:
            ticks = (2 if native.tsresol & 0x80 else 10, native.tsresol & 0x7F)
            found.append(
                Interface(
                    native.link_type,
                    native.snaplen,
                    native.section,
                    ticks,
                    native.tsoffset,
                    native.fcslen,
                    native.records,
                    native.converted,
                    native.refused,
                )
            )
        return tuple(found)

    @property
    def link_types(self) -> tuple[int, ...]:
        """The link types of the interfaces, each once, in file order."""
        return tuple(dict.fromkeys(interface.link_type for interface in self.interfaces))

    def told_of_link_types(self) -> list[str]:
        """A sentence for each link type of the interfaces: how many packets are of it, and what becomes of them."""
        lines = []
        for number in self.link_types:
            of_it = [interface for interface in self.interfaces if interface.link_type == number]
            records, converted, refused = (
                sum(counts) for counts in zip(*((i.records, i.converted, i.refused) for i in of_it), strict=True)
            )
            line = f"{link_type_name(number)}: {counted(records, 'packet')}"
            if number != ETHERNET and records:
                line += f", {converted:,} converted to Ethernet" if converted else ", none can become an Ethernet frame"
                line += f", {refused:,} cannot be" if converted and refused else ""
            lines.append(line)
        return lines

    @property
    def broken(self) -> str | None:
        """Where and why the file ends before its end; None: it does not."""
        self._complete()
        fault = lib.exo_trace_broken(self.native)
        return None if fault == ffi.NULL else f"{self.path}: {_place(fault)}"

    def digest(self) -> int:
        """Sum of exo_digest over the captured bytes of the frames, modulo 2^64: what a lossless sink finds."""
        out = ffi.new("uint64_t *")
        check(lib.exo_trace_digest(self.native, out), f"digest of {self.path}")
        return int(out[0])

    def __getitem__(self, number: int) -> Frame:
        """Record `number`, negative from the end. Raises IndexError, and TypeError for a streamed trace."""
        if self.streamed:
            raise TypeError(f"{self.path} is streamed: iterate over it, or raise memory_limit")
        out = ffi.new("struct exo_frame *")
        wanted = number + self.count if number < 0 else number
        reason = lib.exo_trace_frame(self.native, wanted, out) if wanted >= 0 else lib.EXO_E_NOT_FOUND
        if reason == lib.EXO_E_NOT_FOUND:
            raise IndexError(f"record {number} of {self.path}: it has {self.count}")
        return _frame(out, check(reason, f"record {number} of {self.path}"))

    def bursts(self, most: int = _BURST) -> Iterator[Burst]:
        """Every record in order, at most `most` at a time, without a copy; loaded or streamed."""
        cursor = ffi.gc(lib.exo_cursor_new(self.native), lib.exo_cursor_free)
        if cursor == ffi.NULL:
            raise ExhaustedError(f"{self.path}: out of memory")
        frames, reasons = ffi.new("struct exo_frame[]", most), ffi.new("int32_t[]", most)
        while (n := lib.exo_cursor_read(cursor, frames, reasons, most)) > 0:
            yield Burst(frames, reasons, n)
        if n != lib.EXO_E_END:
            check(n, f"read {self.path}")

    def __iter__(self) -> Iterator[Frame]:
        """Every record in order, frames and others; loaded or streamed."""
        for burst in self.bursts():
            yield from [burst[i] for i in range(burst.count)]

    def describe(self) -> dict[str, Any]:
        """For `exonet show` and the JSON of a run. Does not read a streamed trace on."""
        info = self._info
        return {
            "path": str(self.path),
            "format": self.format,
            "records": info.count,
            "complete": bool(info.complete),
            "bytes": info.bytes,
            "snapped": info.snapped,
            "converted": info.converted,
            "fcs": info.fcs,
            "not_ethernet": info.not_ethernet,
            "oversize": info.oversize,
            "streamed": bool(info.streamed),
            "memory": info.memory,
            "broken": self.broken if info.complete else None,
        }

    def close(self) -> None:
        """Gives the memory back, once no wire holds it any more."""
        if self._native is not None:
            ffi.release(self._native)
            self._native = None


def _frame(native: Any, reason: int) -> Frame:
    return Frame(
        number=native.id,
        data=ffi.buffer(native.data, native.len)[:] if native.len else b"",
        wire_len=native.wire_len,
        stamp=native.stamp,
        snapped=bool(native.flags & lib.EXO_F_SNAPPED),
        reason=reason,
        converted=bool(native.flags & lib.EXO_F_CONVERTED),
    )


def _place(fault: Any) -> str:
    message = ffi.string(fault.message).decode(errors="replace")
    return f"breaks at byte {fault.offset}, after {counted(fault.record, 'record')}: {message}"


def _refusal(path: Path, fault: Any) -> CaptureError | ExhaustedError:
    message = ffi.string(fault.message).decode(errors="replace")
    found = bytes(fault.found)[: fault.found_len]
    if fault.code == lib.EXO_E_SYSTEM:
        return CaptureError(f"{path}: {message}: {os.strerror(fault.saved_errno)}; {_EXPECTED}")
    if fault.code == lib.EXO_E_FULL:
        return CaptureError(f"{path}: {message}; raise --memory, or write it to a file first")
    if fault.code != lib.EXO_E_FORMAT:
        return ExhaustedError(f"{path}: {message}")
    if not found:
        return CaptureError(f"{path}: the file is empty; {_EXPECTED}")
    for magic, name in _OTHER_FORMATS.items():
        if found.startswith(magic):
            return CaptureError(f"{path}: a {name} file; {_EXPECTED}")
    return CaptureError(f"{path}: {message} (byte {fault.offset}); it begins with {found.hex(' ')}; {_EXPECTED}")
