# SPDX-License-Identifier: MIT
"""What the demux is measured with: 64-byte frames as arrays, and demuxes whose bindings own them.

A frame that a filter takes gives the values of a binding of the same shape: `Table.bind` puts the frame's own bytes
into the atoms of the filter's conjunct. So a hundred thousand bindings need no hundred thousand compilations, and
which binding owns a frame is known without asking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exonet.abi import check, ffi, lib
from exonet.filters.compile import compile_filter
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, available, compile_form
from exonet.lab.bench import Skip

SIZE = 64
HOT = 64
UNIFORM = 8192
DRAWS = 4
STREAM = 1 << 20  # 64 MB of frames

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.uint32]
Spans = NDArray[np.uint32]  # a row of least and greatest value each

_IP4, _IP6 = 0x0800, 0x86DD
UDP, TCP = 17, 6
#: The numbers of flows are spread over their 24 bits of source address: a bijection, so all differ.
_SPREAD = 0x9E3779B1


def ip4_frames(numbers: Numbers, *, protocol: int = UDP, host: int = 2, port: int = 53) -> Bytes:
    """A frame per number to 10.7.0.`host` `port`; source address and port are the number's own."""
    frames = _blank(len(numbers), _IP4)
    frames[:, 14:24] = (0x45, 0, 0, SIZE - 14, 0, 0, 0, 0, 64, protocol)
    frames[:, 26] = 10
    frames[:, 27:30] = _big_endian(numbers * np.uint32(_SPREAD), 4)[:, 1:]
    frames[:, 30:34] = (10, 7, 0, host)
    _ports(frames[:, 34:38], numbers, port)
    return frames


def port_ranges(count: int) -> tuple[Bytes, Spans]:
    """Disjoint ranges of destination ports, and for each a frame to a port somewhere in it."""
    width = 60_000 // count
    low = 1024 + width * numbers(count)
    frames = ip4_frames(numbers(count))
    frames[:, 36:38] = _big_endian(low + numbers(count) % max(width - 3, 1), 2)
    return frames, np.stack([low, low + max(width - 4, 0)], axis=1)


def networks(count: int) -> tuple[Bytes, Spans]:
    """Disjoint /24 of sources, and a frame from each."""
    low = np.uint32(10 << 24) + 256 * ((numbers(count) * np.uint32(_SPREAD)) >> np.uint32(16))
    frames = ip4_frames(numbers(count))
    frames[:, 26:30] = _big_endian(low + numbers(count) % np.uint32(256), 4)
    return frames, np.stack([low, low + 255], axis=1)


def flows(count: int, seed: int) -> Bytes:
    """Frames whose addresses and ports are drawn at random; all differ."""
    frames = ip4_frames(numbers(count))
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 12), np.uint8)
    # The number is the source address, scrambled: with that alone they would differ.
    drawn[:, :4] = frames[:, 26:30]
    frames[:, 26:38] = drawn
    return frames


def ip6_frames(numbers: Numbers, *, protocol: int = UDP, host: int = 2, port: int = 53) -> Bytes:
    """The same to fd00::`host`."""
    frames = _blank(len(numbers), _IP6)
    frames[:, 14:22] = (0x60, 0, 0, 0, 0, SIZE - 54, protocol, 64)
    frames[:, 22], frames[:, 38] = 0xFD, 0xFD
    frames[:, 34:38] = _big_endian(numbers * np.uint32(_SPREAD), 4)
    frames[:, 53] = host
    _ports(frames[:, 54:58], numbers, port)
    return frames


def _blank(count: int, ethertype: int) -> Bytes:
    frames = np.zeros((count, SIZE), np.uint8)
    frames[:, :6], frames[:, 6:12] = (2, 0, 0, 0, 0, 2), (2, 0, 0, 0, 0, 1)
    frames[:, 12:14] = (ethertype >> 8, ethertype & 0xFF)
    return frames


def _big_endian(numbers: Numbers, size: int) -> Bytes:
    return numbers.astype(f">u{size}").view(np.uint8).reshape(len(numbers), size)


def _ports(at: Bytes, numbers: Numbers, target: int) -> None:
    at[:, :2] = _big_endian(1024 + numbers % 60000, 2)
    at[:, 2:] = (target >> 8, target & 0xFF)


def flow_text(frame: Bytes) -> str:
    """A filter of the 4-tuple of one of ip4_frames'."""
    source, target = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
    ports = [int.from_bytes(frame[at : at + 2].tobytes(), "big") for at in (34, 36)]
    return f"udp and src host {source} and dst host {target} and src port {ports[0]} and dst port {ports[1]}"


def numbers(count: int) -> Numbers:
    return np.arange(count, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Work:
    """A working set. `order`: the frames' places in the order that they come in; None: as they lie. `right`: owners."""

    name: str
    frames: Bytes
    right: Numbers
    order: Numbers | None
    rounds: int

    @property
    def count(self) -> int:
        """Frames in one round."""
        return len(self.frames) if self.order is None else len(self.order)


def works(values: Bytes, owners: Numbers, seed: int, *, toy: bool, only: Sequence[str] = ()) -> list[Work]:
    """The working sets over frames `values` with their owners: resident, uniform, streaming."""
    draw = np.random.default_rng(seed)
    frames = 1 << 12 if toy else 1 << 20
    made = []
    for name, size in (("resident", HOT), ("uniform", UNIFORM), ("streaming", STREAM)):
        if only and name not in only:
            continue
        distinct, order = min(size, frames), None
        if name == "uniform":
            # Four draws a key leave out one in fifty.
            distinct = min(max(size, DRAWS * len(values)), frames)
        chosen = draw.integers(0, len(values), distinct)
        if name == "resident":
            # 64 different keys, where there are so many, in no order that a branch predictor could learn.
            chosen = draw.permutation(len(values))[:distinct]
            order = draw.integers(0, len(chosen), min(UNIFORM, frames)).astype(np.uint32)
        count = len(chosen) if order is None else len(order)
        made.append(Work(name, values[chosen], owners[chosen], order, max(1, frames // count)))
    return made


@dataclass(frozen=True, slots=True)
class Demuxed:
    """A demux that somebody else owns."""

    native: Any


class Table:
    """A demux with bindings, answered by its tables or natively. Frees it when closed."""

    def __init__(self, seed: int) -> None:
        self.native = lib.exo_demux_new(seed)
        self.bindings = 0
        self._code: dict[Form, NativeCode] = {}

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        lib.exo_demux_free(self.native)
        self._code.clear()

    def bind(self, text: str, frames: Bytes, spans: Spans | None = None) -> Numbers:
        """A binding of the filter's shape per frame, with the frame's values, and a span each where the filter has an
        interval. Returns their numbers.

        The filter must be one conjunct; IPv4 headers have no options.
        """
        (conjunct,) = compile_filter(text).conjuncts
        native = conjunct.to_native(0)
        end = native.ip4_at + 20
        atoms = [native.atom[i] for i in range(native.atoms)]
        values = [_words(frames, atom.offset + end * (atom.base == lib.EXO_BASE_IP4)) & atom.mask for atom in atoms]
        rows = np.stack(values, axis=1).tolist()
        first = self.bindings
        for number, row in enumerate(rows, first):
            native.binding = number
            for atom, value in zip(atoms, row, strict=True):
                atom.value = value
            if spans is not None:
                native.interval.low, native.interval.high = spans[number - first].tolist()
            check(lib.exo_demux_insert(self.native, native), f"binding {number}: {text}")
        self.bindings += len(rows)
        return np.arange(first, self.bindings, dtype=np.uint32)

    def forms(self, *, tabled: bool = False) -> list[Any]:
        """The `struct exo_form *` of every shape; tabled: of those without native code."""
        found = []
        for place in range(lib.EXO_MAX_SHAPES):
            form = ffi.new("struct exo_form *")
            native = lib.exo_demux_form(self.native, place, form)
            if native == 0 or (native == 1 and not tabled):
                found.append(form)
        return found

    def compile_new(self) -> int:
        """Gives native code to every shape that has none; how many that were. Skip without llvmlite."""
        new = self.forms(tabled=True)
        for form in new:
            self.code(form).install(self.native)
        return len(new)

    def code(self, form: Any) -> NativeCode:
        """The native code of a form, compiled once. Skip without llvmlite."""
        if not available():
            raise Skip("llvmlite is not installed: pip install llvmlite")
        key = Form.of(form)
        if key not in self._code:
            self._code[key] = compile_form(key)
        return self._code[key]

    def answer(self, *, native: bool) -> None:
        """From here on by native code, or by the tables. Skip where there is no native code."""
        for form in self.forms():
            if native:
                self.code(form).install(self.native)
            else:
                lib.exo_demux_install(self.native, form, ffi.NULL, ffi.NULL)

    def probes(self, work: Work) -> tuple[float, int]:
        """Probes per frame of a working set: on average, and the most."""
        frames = ffi.new("struct exo_frame[]", lib.EXO_PROBE_BURST)
        owners = ffi.new("uint32_t[]", lib.EXO_PROBE_BURST)
        asked = np.zeros(lib.EXO_PROBE_BURST, np.uint32)
        kept, total, most = [], 0, 0
        for form in self.forms():
            kept.append(_counted(self.code(form).probe, asked))
            lib.exo_demux_install(self.native, form, kept[-1], ffi.NULL)
        order = work.order if work.order is not None else np.arange(len(work.frames))
        for start in range(0, len(order), len(frames)):
            burst = order[start : start + len(frames)]
            asked[:] = 0
            for slot, place in enumerate(burst):
                frames[slot].data = ffi.cast("const uint8_t *", work.frames.ctypes.data + int(place) * SIZE)
                frames[slot].len = frames[slot].wire_len = SIZE
            lib.exo_demux_classify(self.native, frames, len(burst), owners)
            total += int(asked.sum())
            most = max(most, int(asked.max()))
        self.answer(native=True)
        return total / len(order), most


def _words(frames: Bytes, at: int) -> Numbers:
    """The big-endian words at an offset of all frames."""
    return frames[:, at : at + 4].copy().view(">u4")[:, 0].astype(np.uint32)


def _counted(inner: Any, asked: Numbers) -> Any:
    """The probe `inner`, adding to asked[place in the burst] on its way."""

    def probe(table: Any, frames: Any, n: int, found: Any, owners: Any) -> None:
        asked[[frames[i].place for i in range(n)]] += 1
        inner(table, frames, n, found, owners)

    return ffi.callback("exo_probe", probe)
