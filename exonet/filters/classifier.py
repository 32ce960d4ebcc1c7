# SPDX-License-Identifier: MIT
"""Who says whether a filter takes a frame: five classifiers of one filter that must agree on every frame.

    native       the demux with machine code for every shape (filters/native.py); needs llvmlite
    table        the demux as it is without: csrc/demux_probe.c reads the shape's form
    reference    the conjuncts in Python, one after the other
    libpcap      its interpreter over its own program: what the filter means (R5)
    unoptimised  the same over the program that its optimiser has not seen: `tcpdump -O`

Each takes bursts of a capture and answers with a numpy array of bool. What is no frame (of another link type, or too
long) is taken by none.
"""

from enum import Enum
from itertools import repeat
from typing import Any, Protocol

from exonet.abi import NO_OWNER, check, ffi, lib
from exonet.errors import ExhaustedError
from exonet.filters.compile import CompiledFilter
from exonet.filters.form import Form
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.native import NativeCode, compile_form
from exonet.filters.optimiser import compile_checked
from exonet.wire.capture import Burst

__all__ = ["MOST", "Classifier", "Kind", "LibpcapClassifier", "classifier"]

SEED = 1
MOST = 4096


class Kind(Enum):
    NATIVE = "native"
    TABLE = "table"
    REFERENCE = "reference"
    LIBPCAP = "libpcap"
    UNOPTIMISED = "unoptimised"


class Classifier(Protocol):
    """One filter, ready to be asked."""

    def takes(self, burst: Burst) -> Any:
        """An array of `burst.count` bool: which of the records the filter takes. At most MOST records at once."""


class DemuxClassifier:
    """A demux of its own in which the filter is the only binding. native: with machine code for each shape.

    ExhaustedError: the filter has more conjuncts or shapes than a demux holds. MissingError: no llvmlite.
    """

    def __init__(self, filter: CompiledFilter, *, native: bool) -> None:
        import numpy as np  # late: help needs none

        self._demux = ffi.gc(lib.exo_demux_new(SEED), lib.exo_demux_free)
        if self._demux == ffi.NULL:
            raise ExhaustedError("demux: out of memory")
        for conjunct in filter.conjuncts:
            check(lib.exo_demux_insert(self._demux, conjunct.to_native(0)), f"filter {filter.source!r}: {conjunct}")
        self._code = self._compile() if native else []
        self._owners = ffi.new("uint32_t[]", MOST)
        self._found: Any = np.frombuffer(ffi.buffer(self._owners), dtype=np.uint32)

    def _compile(self) -> list[NativeCode]:
        """Machine code for every shape; lives as long as the demux."""
        code = []
        form = ffi.new("struct exo_form *")
        for place in range(lib.EXO_MAX_SHAPES):
            if lib.exo_demux_form(self._demux, place, form) >= 0:
                code.append(compile_form(Form.of(form)))
                code[-1].install(self._demux)
        return code

    def takes(self, burst: Burst) -> Any:
        lib.exo_demux_classify(self._demux, burst.frames, burst.count, self._owners)
        return (self._found[: burst.count] != NO_OWNER) & frames_of(burst)


class ReferenceClassifier:
    """The conjuncts, in Python, on a copy of each frame."""

    def __init__(self, filter: CompiledFilter) -> None:
        self._filter = filter

    def takes(self, burst: Burst) -> Any:
        import numpy as np

        frames = (burst[i] for i in range(burst.count))
        return np.array([self._filter.matches(f.data, f.wire_len) for f in frames], dtype=bool) & frames_of(burst)


class LibpcapClassifier:
    """libpcap's bpf_filter on the frames where they lie. It sees nothing of our compiler."""

    def __init__(self, program: Program) -> None:
        import numpy as np

        self._program = program
        run, self._instructions = self._program.addresses
        self._run = ffi.cast("uint32_t (*)(uintptr_t, uintptr_t, uint32_t, uint32_t)", run)
        fields = {"data": np.uintp, "wire_len": np.uint32, "len": np.uint32}
        layout: Any = {
            "names": list(fields),
            "formats": list(fields.values()),
            "offsets": [ffi.offsetof("struct exo_frame", name) for name in fields],
            "itemsize": ffi.sizeof("struct exo_frame"),
        }
        self._frame: Any = np.dtype(layout)

    def takes(self, burst: Burst) -> Any:
        import numpy as np

        n = burst.count
        rows: Any = np.frombuffer(ffi.buffer(burst.frames, n * self._frame.itemsize), dtype=self._frame)
        lengths = (rows[name].tolist() for name in ("data", "wire_len", "len"))
        found = np.fromiter(map(self._run, repeat(self._instructions), *lengths), dtype=np.uint32, count=n)
        return (found != 0) & frames_of(burst)


def frames_of(burst: Burst) -> Any:
    """Which of the records are frames: an array of bool."""
    import numpy as np

    reasons: Any = np.frombuffer(ffi.buffer(burst.reasons, 4 * burst.count), dtype=np.int32)
    return reasons == 0


def classifier(kind: Kind, filter: CompiledFilter) -> Classifier:
    """MissingError where llvmlite (native) or libpcap is not installed."""
    if kind is Kind.REFERENCE:
        return ReferenceClassifier(filter)
    if kind is Kind.LIBPCAP:
        return LibpcapClassifier(compile_checked(Libpcap(), filter.text))
    if kind is Kind.UNOPTIMISED:
        return LibpcapClassifier(Libpcap().compile(filter.text, optimize=False))
    return DemuxClassifier(filter, native=kind is Kind.NATIVE)
