# SPDX-License-Identifier: MIT
"""The machine as the kernel's Python sees it: each C function of `csrc/machine.h` that binding and teardown call,
typed.

One Protocol, so that syscalls, bindings and environments can be tested over a fake; `NativeMachine` is the real one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from exonet.abi import check, ffi, lib
from exonet.kernel.localside import LocalSide

__all__ = ["MachinePort", "NativeMachine"]

SNOOP: int = lib.EXO_BIND_SNOOP
#: Writes a binding's number into a box.
Stamp = Callable[[Any, int], Any]
#: What to call the conjunct of a box, by its place, when it is refused; -1: the binding.
Said = Callable[[int], str]


class MachinePort(Protocol):
    """What binding, syscalls and teardown need of a machine. Errors are exceptions of `errors.py`."""

    @property
    def pages(self) -> Any:
        """`struct exo_pages *`"""

    def now(self) -> int: ...
    def open_env(self, layout: Any, wake_fd: int) -> int: ...
    def env(self, number: int) -> Any: ...
    def kill_env(self, number: int) -> Any:
        """Returns its `struct exo_env` as it stands at the end, the caller's to keep."""

    def drain(self, number: int, first: int, count: int) -> None: ...
    def wake_at(self, number: int, ns: int) -> None: ...
    def bind(self, env: int, port: int, flags: int, boxes: Sequence[Any], stamp: Stamp, said: Said) -> int:
        """A new binding with its conjuncts; where one is refused, without it."""

    def insert(self, port: int, snoop: bool, conjunct: Any) -> None: ...
    def clear(self, port: int, snoop: bool, binding: int) -> None: ...
    def shapes(self, port: int, snoop: bool) -> int: ...
    def unbind(self, binding: int) -> None: ...
    def subscribe(self, env: int, port: int, mac: bytes) -> None: ...
    def unsubscribe(self, env: int, port: int, mac: bytes) -> None: ...
    def neighbour(self, env: int, port: int, family: int, address: bytes) -> None: ...
    def forget_neighbour(self, env: int, port: int, family: int, address: bytes) -> None: ...
    def locals(self, env: int, sides: list[LocalSide]) -> None: ...
    def ports(self) -> list[dict[str, Any]]:
        """One {"port": n, "mac": "02:…", "mtu": n} per attached port."""


class NativeMachine:
    """The C machine. `ports` is what boot attached: it knows each wire's MTU."""

    def __init__(self, native: Any, ports: list[dict[str, Any]]) -> None:
        self.native = native
        self._ports = ports
        # An attribute: an inline LibOS asks for the time once a step, and a frame of Python less is a tenth of one.
        self.now: Callable[[], int] = partial(lib.exo_now, native)

    @property
    def pages(self) -> Any:
        return lib.exo_machine_pages(self.native)

    def open_env(self, layout: Any, wake_fd: int) -> int:
        return check(lib.exo_machine_env(self.native, layout, wake_fd), "a new environment")

    def env(self, number: int) -> Any:
        return lib.exo_machine_env_at(self.native, number)

    def kill_env(self, number: int) -> Any:
        check(lib.exo_machine_env_kill(self.native, number), f"environment {number}: end")
        last = ffi.new("struct exo_env *")
        last[0] = self.env(number)[0]
        return last

    def drain(self, number: int, first: int, count: int) -> None:
        """What it has posted to transmit from these pages leaves."""
        lib.exo_transmit_drain(self.native, self.env(number), first, count)

    def wake_at(self, number: int, ns: int) -> None:
        lib.exo_machine_wake_at(self.native, number, ns)

    def bind(self, env: int, port: int, flags: int, boxes: Sequence[Any], stamp: Stamp, said: Said) -> int:
        number: int = lib.exo_machine_binding(self.native, env, port, flags)
        if number < 0:
            check(number, f"{said(-1)}: environment {env}: a binding on port {port}")
        demux = lib.exo_machine_demux(self.native, port, flags & SNOOP)
        for box in boxes:
            code = lib.exo_demux_insert(demux, stamp(box, number))
            if code < 0:
                lib.exo_machine_unbind(self.native, number)
                check(code, f"{said(boxes.index(box))}: {self._held(demux, port)}")
        return number

    def insert(self, port: int, snoop: bool, conjunct: Any) -> None:
        """A conjunct into the demux of a port, or into the one of its snoop bindings."""
        demux = lib.exo_machine_demux(self.native, port, snoop)
        code = lib.exo_demux_insert(demux, conjunct)
        if code < 0:
            check(code, f"a conjunct of binding {conjunct.binding}: {self._held(demux, port)}")

    def _held(self, demux: Any, port: int) -> str:
        return f"port {port} holds {lib.exo_demux_shapes(demux)} of {lib.EXO_MAX_SHAPES} shapes"

    def clear(self, port: int, snoop: bool, binding: int) -> None:
        """Takes a binding's conjuncts out of the demux; the binding stays."""
        lib.exo_demux_remove(lib.exo_machine_demux(self.native, port, snoop), binding)

    def shapes(self, port: int, snoop: bool) -> int:
        """How many distinct ones the demux of a port has."""
        return int(lib.exo_demux_shapes(lib.exo_machine_demux(self.native, port, snoop)))

    def unbind(self, binding: int) -> None:
        """Its conjuncts leave the demux."""
        code = lib.exo_machine_unbind(self.native, binding)
        if code < 0:
            check(code, f"binding {binding}: end")

    def subscribe(self, env: int, port: int, mac: bytes) -> None:
        what = f"environment {env}: group {mac.hex(':')} on port {port}"
        check(lib.exo_machine_subscribe(self.native, env, port, mac), what)

    def unsubscribe(self, env: int, port: int, mac: bytes) -> None:
        what = f"environment {env}: group {mac.hex(':')} on port {port}"
        check(lib.exo_machine_unsubscribe(self.native, env, port, mac), what)

    def neighbour(self, env: int, port: int, family: int, address: bytes) -> None:
        what = f"environment {env}: neighbour {address.hex()} on port {port}"
        check(lib.exo_machine_neighbour(self.native, env, port, family, address), what)

    def forget_neighbour(self, env: int, port: int, family: int, address: bytes) -> None:
        what = f"environment {env}: neighbour {address.hex()} on port {port}"
        check(lib.exo_machine_forget_neighbour(self.native, env, port, family, address), what)

    def locals(self, env: int, sides: list[LocalSide]) -> None:
        rows = ffi.new("struct exo_local[]", max(1, len(sides)))
        for row, side in zip(rows, sides, strict=False):
            side.fill(row)
        check(
            lib.exo_machine_locals(self.native, env, rows, len(sides)), f"environment {env}: {len(sides)} local sides"
        )

    def ports(self) -> list[dict[str, Any]]:
        return self._ports
