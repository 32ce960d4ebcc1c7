# SPDX-License-Identifier: MIT
"""Native code for the demux's shapes, made off the packet path (DESIGN §7).

A thread of its own compiles; the kernel's thread alone looks for shapes that lack code and installs what is done, both
between two bursts, so a probe is swapped while no classification runs. Until then, and where llvmlite is missing, the
tables answer. Code is kept while the machine lives: a shape that comes back compiles nothing.
"""

import contextlib
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from exonet.abi import ffi, lib
from exonet.clock import monotonic_ns
from exonet.closing import Closing
from exonet.errors import ExonetError, KernelBug, MissingError
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, compile_form
from exonet.kernel.cores import Cores
from exonet.trace import EventLog, ShapeCompiled

__all__ = ["Compiler"]

#: Forms whose code is kept though no demux has them any more.
KEPT = 512
#: How long the compiler's thread may keep Python's lock, seconds: an inline LibOS's step waits for it. Usual are 5 ms.
TURN_S = 0.0001


class Compiler(Closing):
    """The probes of one machine. `fileno()` is readable when there is something to `collect`."""

    def __init__(self, native: Any, events: EventLog | None = None, cores: Cores | None = None) -> None:
        self._native = native
        self._events = events or EventLog()
        self._cores = cores or Cores(None)
        self._seen: dict[tuple[int, int], int] = {}
        self._seen_locals = 0
        self._code: dict[Form, NativeCode] = {}
        self._under_way: set[Form] = set()
        self._failed: set[Form] = set()
        self._wanted: queue.SimpleQueue[Form | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[Form, NativeCode | ExonetError, int]] = queue.SimpleQueue()
        self._here, self._there = socket.socketpair()
        for end in (self._here, self._there):
            end.setblocking(False)
        self._thread: threading.Thread | None = None
        self._usual_turn = sys.getswitchinterval()
        self.missing = ""  # why there is no native code at all
        self.compiled = 0

    def fileno(self) -> int:
        return self._here.fileno()

    @property
    def pending(self) -> bool:
        """Is there a shape whose code is under way?"""
        return bool(self._under_way)

    def poke(self) -> None:
        """A bind may have brought a shape: makes the machine's loop come and look."""
        _ring(self._there)

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
                self._start().put(form)

    def collect(self) -> None:
        """Installs what has been compiled since."""
        _drain(self._here)
        while not self._made.empty():
            form, code, took_ns = self._made.get()
            self._under_way.discard(form)
            if isinstance(code, ExonetError):
                self._lacks(form, code, took_ns)
                continue
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

    # The thread

    def _start(self) -> "queue.SimpleQueue[Form | None]":
        if self._thread is None:
            sys.setswitchinterval(min(TURN_S, self._usual_turn))
            self._thread = threading.Thread(target=self._compile, name="exonet-compiler", daemon=True)
            self._thread.start()
        return self._wanted

    def _compile(self) -> None:
        with self._cores.compiler():
            self._compile_all()

    def _compile_all(self) -> None:
        while (form := self._wanted.get()) is not None:
            begin = monotonic_ns()
            made: NativeCode | ExonetError
            try:
                made = compile_form(form)
            except ExonetError as error:
                made = error
            except Exception as error:  # of llvmlite: one shape without native code, not all that come after it
                made = KernelBug(f"shape {form}: no native code: {type(error).__name__}: {error}")
            self._made.put((form, made, monotonic_ns() - begin))
            _ring(self._there)

    def close(self) -> None:
        """Waits for the compilation under way, if there is one. The machine must not classify any more."""
        if self._thread is not None:
            while not self._wanted.empty():
                self._wanted.get()
            self._wanted.put(None)
            self._thread.join()
            self._thread = None
            sys.setswitchinterval(self._usual_turn)
        self._here.close()
        self._there.close()


def _forms(demux: Any, native: bool | None = None) -> Iterator[Form]:
    """The forms of a demux's shapes; only those with (True) or without (False) native code."""
    form = ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        answered = lib.exo_demux_form(demux, place, form)
        if answered >= 0 and native in (None, bool(answered)):
            yield Form.of(form)


def _without_code(demux: Any) -> Iterator[Form]:
    return _forms(demux, native=False)


def _ring(end: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):  # it is readable already
        end.send(b"\0")


def _drain(end: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while end.recv(64):
            pass
