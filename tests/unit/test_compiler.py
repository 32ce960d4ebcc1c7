# SPDX-License-Identifier: MIT
"""The thread that makes native code for a machine's shapes: what it compiles, keeps, installs, and says."""

import json
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import check, ffi, lib
from exonet.errors import ExonetError, KernelBug, MissingError
from exonet.filters.compile import compile_filter
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, available
from exonet.hardware.nic import NicConfig
from exonet.kernel import compiler as compiler_module
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.compiler import Compiler
from exonet.kernel.cores import Cores
from exonet.trace import EventLog
from tests.fakes.frames import udp
from tests.fakes.wire import ScriptWire

PATIENCE_MS = 20_000
LISTENER, NARROW, OTHER = (
    "ip and udp dst port 53",
    "ip and udp and src port 4000 and dst port 53",
    "ip and tcp dst port 80",
)
THREAD = "exonet-compiler"

pytestmark = pytest.mark.skipif(not available(), reason="llvmlite is not installed")


class Desk:
    """A machine of one port, without a loop, and a compiler whose work the tests do step by step."""

    def __init__(self, directory: Path) -> None:
        self.wire = ScriptWire()
        config = {"clock": lib.EXO_CLOCK_MONOTONIC, "pages": 16, "seed": 1}
        self.native = lib.exo_machine_new(ffi.new("struct exo_machine_config *", config))
        check(lib.exo_machine_attach(self.native, self.wire.native, NicConfig().native()), "port")
        self.log = directory / "events"
        self.events = EventLog(self.log)
        self.compiler = Compiler(self.native, self.events)
        self._next = 0

    def demux(self, *, snoop: bool = False) -> Any:
        return lib.exo_machine_demux(self.native, 0, snoop)

    def bind(self, text: str, *, snoop: bool = False) -> int:
        """As a binding of no environment: the demux alone."""
        number, self._next = self._next, self._next + 1
        for conjunct in compile_filter(text).conjuncts:
            check(lib.exo_demux_insert(self.demux(snoop=snoop), conjunct.to_native(number)), text)
        return number

    def unbind(self, number: int) -> None:
        assert lib.exo_demux_remove(self.demux(), number)

    def answered(self, *, snoop: bool = False) -> list[bool]:
        """Of each shape: natively?"""
        form = ffi.new("struct exo_form *")
        found = [lib.exo_demux_form(self.demux(snoop=snoop), place, form) for place in range(lib.EXO_MAX_SHAPES)]
        return [bool(each) for each in found if each >= 0]

    def owner(self, frame: bytes) -> int:
        native, owner, data = ffi.new("struct exo_frame *"), ffi.new("uint32_t *"), ffi.new("uint8_t[]", frame)
        native.data, native.len, native.wire_len = data, len(frame), len(frame)
        lib.exo_demux_classify(self.demux(), native, 1, owner)
        return int(owner[0])

    def settle(self) -> None:
        """Until everything asked for is made."""
        self.compiler.look()
        while self.compiler.pending:
            self.wait()
            self.compiler.collect()

    def wait(self) -> None:
        poll = select.poll()
        poll.register(self.compiler, select.POLLIN)
        assert poll.poll(PATIENCE_MS), "nothing was compiled"

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        self.compiler.close()
        self.events.close()
        lib.exo_machine_free(self.native)
        self.wire.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Form]:
    """The forms that are compiled from here on."""
    forms: list[Form] = []
    real = compiler_module.compile_form

    def compile_form(form: Form) -> NativeCode:
        forms.append(form)
        return real(form)

    monkeypatch.setattr(compiler_module, "compile_form", compile_form)
    return forms


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Form]:
    """No form compiles any more. Returns those that were tried."""
    tried: list[Form] = []

    def compile_form(form: Form) -> NativeCode:
        tried.append(form)
        raise error

    monkeypatch.setattr(compiler_module, "compile_form", compile_form)
    return tried


def threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


def test_a_shape_gets_code_and_answers_as_its_table_did(desk: Desk) -> None:
    listener, narrow = desk.bind(LISTENER), desk.bind(NARROW)
    frames = [udp(dport=53), udp(sport=1, dport=53), udp(dport=54)]
    wanted = [narrow, listener, lib.EXO_NO_OWNER]
    assert [desk.owner(frame) for frame in frames] == wanted
    assert not any(desk.answered())
    desk.settle()
    assert all(desk.answered()) and len(desk.answered()) > 1
    assert [desk.owner(frame) for frame in frames] == wanted
    assert [(row["event"], row["error"]) for row in desk.said()] == [("shape_compiled", "")] * len(desk.answered())


def test_code_is_not_installed_before_it_is_collected(desk: Desk) -> None:
    """The thread only makes it: the kernel's thread alone, between two bursts, puts it into a demux."""
    desk.bind(LISTENER)
    desk.compiler.look()
    desk.wait()
    assert not any(desk.answered()) and desk.compiler.pending
    desk.settle()
    assert all(desk.answered()) and not desk.compiler.pending


def test_a_known_shape_compiles_nothing(desk: Desk, made: list[Form]) -> None:
    desk.bind(LISTENER)
    desk.settle()
    before = len(made)
    desk.bind("ip and udp dst port 54")
    desk.settle()
    assert len(made) == before > 0 and all(desk.answered())


def test_a_shape_that_comes_back_has_its_code_at_the_next_look(desk: Desk, made: list[Form]) -> None:
    number = desk.bind(LISTENER)
    desk.settle()
    before = list(made)
    desk.unbind(number)
    assert desk.answered() == []
    desk.compiler.look()
    number = desk.bind(LISTENER)
    assert not any(desk.answered())
    desk.compiler.look()
    assert all(desk.answered()) and not desk.compiler.pending and made == before
    assert desk.owner(udp(dport=53)) == number


def test_a_shape_that_went_and_came_between_two_looks_has_its_code_too(desk: Desk, made: list[Form]) -> None:
    number = desk.bind(LISTENER)
    desk.settle()
    before = list(made)
    desk.unbind(number)
    desk.bind("ip and udp dst port 54")
    assert not any(desk.answered())
    desk.compiler.look()
    assert all(desk.answered()) and made == before


def test_a_shape_that_goes_while_its_code_is_made_is_no_harm(desk: Desk, made: list[Form]) -> None:
    number = desk.bind(LISTENER)
    desk.compiler.look()
    desk.unbind(number)
    desk.settle()
    assert desk.answered() == [] and not desk.compiler.pending
    before = list(made)
    desk.bind(LISTENER)
    desk.compiler.look()
    assert all(desk.answered()) and made == before


def test_every_demux_of_the_machine_gets_the_one_code(desk: Desk, made: list[Form]) -> None:
    desk.bind(LISTENER)
    desk.bind(LISTENER, snoop=True)
    desk.settle()
    assert all(desk.answered()) and all(desk.answered(snoop=True)) and len(made) == len(set(made))


def test_without_llvmlite_tables_answer_and_it_is_said_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = refuse(monkeypatch, MissingError("llvmlite: not installed"))
    listener, other = desk.bind(LISTENER), desk.bind(OTHER)
    desk.settle()
    assert desk.compiler.missing == "llvmlite: not installed" and not desk.compiler.pending
    assert not any(desk.answered()) and desk.owner(udp(dport=53)) == listener
    count = len(tried)
    desk.unbind(other)
    desk.bind(NARROW)
    desk.settle()
    assert len(tried) == count and not desk.compiler.pending
    assert [row["error"] for row in desk.said()] == ["llvmlite: not installed"]


@pytest.mark.parametrize("error", [KernelBug("the code of a shape does not parse"), RuntimeError("out of registers")])
def test_a_compile_that_fails_is_an_event_and_the_next_shape_compiles(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        tried = refuse(patch, error)
        listener = desk.bind(LISTENER)
        desk.settle()
        assert not any(desk.answered()) and not desk.compiler.pending and desk.compiler.missing == ""
        assert desk.owner(udp(dport=53)) == listener
        (row,) = desk.said()
        assert str(error) in row["error"] and row["shape"] == str(tried[0])
        desk.bind(LISTENER, snoop=True)
        desk.settle()
        assert len(tried) == 1, "what failed once is not tried again"
    desk.bind(OTHER)
    desk.settle()
    assert sorted(desk.answered()) == [False, True]


def test_eviction_keeps_what_is_installed(desk: Desk, made: list[Form], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_module, "KEPT", 3)
    kept = desk.bind(LISTENER)
    desk.settle()
    for at in range(44, 52):
        number = desk.bind(f"ip and udp and dst port 80 and ether[{at}] = 1")
        desk.settle()
        assert all(desk.answered())
        desk.unbind(number)
    assert len(made) == 9 and desk.owner(udp(dport=53)) == kept
    desk.bind("ip and udp dst port 54")
    desk.bind("ip and udp and dst port 80 and ether[51] = 1")  # the last one's code is there yet
    desk.settle()
    assert len(made) == 9 and all(desk.answered())
    desk.bind("ip and udp and dst port 80 and ether[44] = 1")  # the first one's is not
    desk.settle()
    assert len(made) == 10 and all(desk.answered())


def test_poke_makes_it_readable_once(desk: Desk) -> None:
    for _ in range(100_000):  # more than its socket holds
        desk.compiler.poke()
    desk.wait()
    for _ in range(100_000):
        desk.compiler.collect()
        if not select.select([desk.compiler], [], [], 0)[0]:
            break
    assert not select.select([desk.compiler], [], [], 0)[0]


def test_close_joins_the_thread_and_drops_what_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    tried: list[Form] = []

    def compile_form(form: Form) -> NativeCode:
        tried.append(form)
        begun.set()
        assert go.wait(PATIENCE_MS / 1000)
        raise ExonetError("too late")

    monkeypatch.setattr(compiler_module, "compile_form", compile_form)
    for text in (LISTENER, OTHER, NARROW):
        desk.bind(text)
    desk.compiler.look()
    assert begun.wait(PATIENCE_MS / 1000) and threads() == 1
    threading.Timer(0.01, go.set).start()
    desk.compiler.close()
    assert threads() == 0 and len(tried) == 1
    desk.compiler.close()


def test_an_inline_bind_brings_the_machine_s_loop_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its shape would wait for the next tick."""
    monkeypatch.setattr(Compiler, "look", lambda self: None)  # so that nothing but the bind can ring
    with ScriptWire() as wire, Machine(MachineConfig(pages=512)) as machine:
        machine.attach(wire, NicConfig())
        compiler = machine.compiler
        assert compiler is not None and not select.select([compiler], [], [], 0)[0]
        machine.spawn(LibOSSpec("web", bindings=(LISTENER,), local="none", receive_buffers=8))
        assert select.select([compiler], [], [], 0)[0]


def test_there_is_no_thread_before_there_is_a_shape(desk: Desk) -> None:
    desk.compiler.look()
    desk.compiler.collect()
    assert threads() == 0
    desk.bind(LISTENER)
    desk.compiler.look()
    assert threads() == 1


def test_the_compiler_leaves_a_single_other_core_to_the_liboses() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core")
    own = min(allowed)
    expected = {own} if len(allowed) == 2 else allowed - {own}
    with Cores(own).compiler():
        assert os.sched_getaffinity(0) == expected
    assert os.sched_getaffinity(0) == allowed
    with Cores(None).compiler():
        assert os.sched_getaffinity(0) == allowed


def local(last: int) -> dict[str, Any]:
    address = bytes([10, 0, 0, last]) + bytes(12)
    return {"mac": bytes([2, 0, 0, 0, 0, last]), "family": 4, "address": address, "prefix": 32, "port_high": 65535}


def local_demuxes(desk: Desk) -> list[Any]:
    place = ffi.new("uint32_t *")
    return list(iter(lambda: lib.exo_machine_next_locals(desk.native, place), ffi.NULL))


def natively(demux: Any) -> list[bool]:
    form = ffi.new("struct exo_form *")
    found = [lib.exo_demux_form(demux, place, form) for place in range(lib.EXO_MAX_SHAPES)]
    return [bool(each) for each in found if each >= 0]


def test_r11_local_sides_of_many_environments_are_compiled_once(desk: Desk) -> None:
    layout = ffi.new("struct exo_layout *")
    for entries in ("fill", "receive", "transmit", "completion"):
        setattr(layout, f"{entries}_entries", 8)
    numbers = [check(lib.exo_machine_env(desk.native, layout, -1), "environment") for _ in range(3)]
    assert local_demuxes(desk) == []
    for number in numbers[:2]:
        check(lib.exo_machine_locals(desk.native, number, [local(number)], 1), "local sides")
    desk.settle()
    first, second = local_demuxes(desk)
    assert (natively(first), natively(second)) == ([True] * 3, [True] * 3)
    assert desk.compiler.compiled == 3
    check(lib.exo_machine_locals(desk.native, numbers[2], [local(9)], 1), "local sides")
    check(lib.exo_machine_locals(desk.native, numbers[0], [local(7)], 1), "local sides")
    desk.compiler.look()
    assert not desk.compiler.pending and desk.compiler.compiled == 3
    assert [natively(demux) for demux in local_demuxes(desk)] == [[True] * 3] * 3
    check(lib.exo_machine_env_kill(desk.native, numbers[1]), "kill")
    assert len(local_demuxes(desk)) == 2
