# SPDX-License-Identifier: MIT
"""Native code for the demux's shapes, made off the packet path.

A workshop (workshop.py) compiles; the kernel's thread alone looks for shapes that lack code and installs what is done,
both between two bursts, so a probe is swapped while no classification runs. Until then, and where llvmlite is missing,
the tables answer. Code is kept while the machine lives: a shape that comes back compiles nothing.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from exonet.abi import ffi, lib
from exonet.clock import monotonic_ns
from exonet.closing import Closing
from exonet.errors import ExonetError, KernelBug, MissingError
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, compile_form
from exonet.kernel.cores import Cores
from exonet.kernel.workshop import Workshop
from exonet.trace import EventLog, ShapeCompiled

__all__ = ["Compiler"]

#: Forms whose code is kept though no demux has them any more.
KEPT = 512


class Compiler(Closing):
    """The probes of one machine. `fileno()` is readable when there is something to `collect`."""

    def __init__(self, native: Any, events: EventLog | None = None, cores: Cores | None = None) -> None:
        self._native = native
        self._events = events or EventLog()
        self._workshop = Workshop("exonet-compiler", (cores or Cores(None)).compiler)
        self._seen: dict[tuple[int, int], int] = {}
        self._seen_locals = 0
        self._code: dict[Form, NativeCode] = {}
        self._under_way: set[Form] = set()
        self._failed: set[Form] = set()
        self.missing = ""  # why there is no native code at all
        self.compiled = 0

    def fileno(self) -> int:
        return self._workshop.fileno()

    @property
    def pending(self) -> bool:
        """Is there a shape whose code is under way?"""
        return bool(self._under_way)

    def poke(self) -> None:
        """A bind may have brought a shape: makes the machine's loop come and look."""
        self._workshop.ring()

    def look(self) -> None:
        """Asks for code for every shape that has come since the last look, and installs what there is."""
        for where, demux in self._demuxes():
            generation = lib.exo_demux_generation(demux)
            if self._seen.get(where) != generation:
                self._seen[where] = generation
                self._supply(demux)
        changes = lib.exo_machine_local_changes(self._native)
        if self._seen_locals != changes:
            self._seen_locals = changes
            for demux in self._local_demuxes():
                self._supply(demux)

    def _supply(self, demux: Any) -> None:
        for form in list(_without_code(demux)):
            code = self._code.get(form)
            if code is not None:
                code.install(demux)
            elif not self.missing and form not in self._under_way and form not in self._failed:
                self._forget_some()
                self._under_way.add(form)
                self._workshop.do(partial(_made, form), partial(self._keep, form))

    def collect(self) -> None:
        """Installs what has been compiled since."""
        self._workshop.collect()

    def _keep(self, form: Form, made: tuple[NativeCode | ExonetError, int]) -> None:
        code, took_ns = made
        self._under_way.discard(form)
        if isinstance(code, ExonetError):
            self._lacks(form, code, took_ns)
            return
        self._code[form] = code
        self.compiled += 1
        for demux in self._all_demuxes():
            code.install(demux)
        self._events.write(ShapeCompiled(str(form), took_ns, ""))

    def _lacks(self, form: Form, why: ExonetError, took_ns: int) -> None:
        """Its table answers for good. Without llvmlite that goes for every shape, and is said once."""
        if isinstance(why, MissingError):
            if self.missing:
                return
            self.missing = str(why)
        else:
            self._failed.add(form)
        self._events.write(ShapeCompiled(str(form), took_ns, str(why)))

    def _demuxes(self) -> Iterator[tuple[tuple[int, int], Any]]:
        for port in range(lib.EXO_MAX_PORTS):
            for snoop in (0, 1):
                demux = lib.exo_machine_demux(self._native, port, snoop)
                if demux == ffi.NULL:
                    return
                yield (port, snoop), demux

    def _local_demuxes(self) -> Iterator[Any]:
        """Those of what environments may send (R11): of each and of each port its own, mostly of the same few forms."""
        place = ffi.new("uint32_t *")
        while (demux := lib.exo_machine_next_locals(self._native, place)) != ffi.NULL:
            yield demux

    def _all_demuxes(self) -> Iterator[Any]:
        yield from (demux for _, demux in self._demuxes())
        yield from self._local_demuxes()

    def _forget_some(self) -> None:
        """Code that no demux uses goes when there is too much of it."""
        if len(self._code) < KEPT:
            return
        used = {form for demux in self._all_demuxes() for form in _forms(demux)}
        self._code = {form: code for form, code in self._code.items() if form in used}
        self._failed &= used

    def close(self) -> None:
        """Waits for the compilation under way, if there is one. The machine must not classify any more."""
        self._workshop.close()


def _made(form: Form) -> tuple[NativeCode | ExonetError, int]:
    """In the workshop's thread: the code, or why there is none, and the nanoseconds that took."""
    begin = monotonic_ns()
    made: NativeCode | ExonetError
    try:
        made = compile_form(form)
    except ExonetError as error:
        made = error
    except Exception as error:  # of llvmlite: one shape without native code, not all that come after it
        made = KernelBug(f"shape {form}: no native code: {type(error).__name__}: {error}")
    return made, monotonic_ns() - begin


def _forms(demux: Any, native: bool | None = None) -> Iterator[Form]:
    """The forms of a demux's shapes; only those with (True) or without (False) native code."""
    form = ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        answered = lib.exo_demux_form(demux, place, form)
        if answered >= 0 and native in (None, bool(answered)):
            yield Form.of(form)


def _without_code(demux: Any) -> Iterator[Form]:
    return _forms(demux, native=False)
