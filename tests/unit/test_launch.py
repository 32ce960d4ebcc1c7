# SPDX-License-Identifier: MIT
"""The main loop of a LibOS process: which class it loads, when it steps, spins, sleeps and ends, and how it
complains.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from exonet import errors
from exonet.gate import naming
from libos_stacks import launch
from libos_stacks.echo import Echo
from libos_stacks.environment import Environment
from libos_stacks.settings import Settings
from libos_stacks.sink import Sink
from tests.fakes.gate import CONFIG, FakeGate
from tests.fakes.kernel import FakeKernel


class Scripted:
    """A LibOS that steps as `options["steps"]` says and then raises or asks to be stopped."""

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        self.environment = environment
        self.steps = list(options["steps"])

    def step(self) -> bool:
        if not self.steps:
            raise RuntimeError("two\nlines")
        return bool(self.steps.pop(0))

    def deadline(self) -> int | None:
        return 77


def scripted(*steps: bool, **config: Any) -> FakeGate:
    options = {"steps": steps, "spin": 3}
    return FakeGate(libos=f"{__name__}:Scripted", options=options, **config)


def test_own_classes_and_module_paths_are_found() -> None:
    assert launch.load("echo") is Echo
    assert launch.load("sink") is Sink
    assert launch.load(f"{__name__}:Scripted") is Scripted


class Declaring(Echo):
    OPTIONS = ("how", "port")


class Silent(Sink):
    """Says nothing of its own options, so what its parent has is not all."""


def options(kind: type, **config: Any) -> dict[str, Any]:
    return launch.options_of(kind, Settings.of({**CONFIG, "options": {}, **config}))


def test_options_that_a_libos_does_not_have_are_refused_and_the_known_named() -> None:
    with pytest.raises(errors.UsageError, match='option "port": it has burst, spin only'):
        options(Sink, options={"port": [7]})
    with pytest.raises(errors.UsageError, match='option "burst": it has how, port, spin only'):
        options(Declaring, options={"how": 1, "burst": 64})
    assert options(Declaring, options={"how": 1, "port": 7, "spin": 5}) == {"how": 1, "port": 7, "spin": 5}
    assert options(Silent, options={"anything": 1}) == {"anything": 1}


def test_the_ports_that_filters_name_are_for_a_libos_that_serves_ports() -> None:
    assert options(Echo, serves=[53, 67]) == {"port": [53, 67]}
    assert options(Echo, serves=[53], options={"port": 7}) == {"port": 7}
    assert options(Silent, serves=[53]) == {"port": [53]}
    assert options(Sink, serves=[53]) == {}


@pytest.mark.parametrize("name", ["ecco", "no.such.module:X", "libos_stacks.echo:Ecco", ":x"])
def test_an_unknown_libos_is_named(name: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        launch.load(name)
    assert f'libos "{name}"' in str(caught.value)


def test_an_entry_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "third", f"{__name__}:Scripted"

    monkeypatch.setattr(naming, "entry_points", lambda group: [Point()] if group == "exonet.libos" else [])
    assert launch.load("third") is Scripted


def test_idle_sleeps_until_the_deadline_and_stop_ends_it() -> None:
    gate = scripted(True, False, True, True, False)
    sleeps = []

    def sleep(deadline: int | None) -> None:
        sleeps.append(deadline)
        gate.kernel.kernel.stop.value = len(sleeps) == 2

    gate.on_sleep = sleep
    assert launch.run(gate) == 0
    assert sleeps == [77, 77]
    assert [call[0] for call in gate.calls if call[0] in ("subscribe", "ready", "sleep")] == [
        "subscribe",
        "ready",
        "sleep",
        "sleep",
    ]
    assert gate.owned == {}


def test_a_busy_libos_sees_stop_too() -> None:
    gate = scripted(*[True] * 1000)
    gate.kernel.kernel.stop.value = 1
    launch.run(gate)


def test_build_is_the_same_libos_inline() -> None:
    gate = FakeGate(libos="sink", receive_buffers=64)
    libos, close = launch.build(gate)
    assert isinstance(libos, Sink) and libos.environment.patience == 0
    gate.kernel.deliver(bytes(60))
    assert libos.step() is False and libos.step() is False and libos.deadline() is None
    close()
    assert gate.owned == {}
    with pytest.raises(errors.UsageError):
        launch.build(FakeGate(libos="ecco"))


def test_what_the_libos_raises_comes_out_after_clean_up() -> None:
    gate = scripted(True)
    with pytest.raises(RuntimeError):
        launch.serve(gate)
    assert gate.owned == {} and gate.pinned == set()


def test_a_libos_that_raises_ends_with_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.run(scripted(True)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("libos: RuntimeError: two lines (")
    assert launch.run(FakeGate(libos="ecco")) == errors.UsageError.exit_code
    assert capsys.readouterr().err == 'libos: libos "ecco": must be module:Class or one of echo, sink\n'


@pytest.mark.parametrize("stop, status", [(1, 0), (0, 1)])
def test_a_closed_control_socket_ends_it(stop: int, status: int) -> None:
    gate = scripted(False)

    def sleep(_: int | None) -> None:
        gate.kernel.kernel.stop.value = stop
        raise errors.LibOSError("the kernel has closed the control socket")

    gate.on_sleep = sleep
    assert launch.run(gate) == status


def test_the_sink_drains_and_counts() -> None:
    kernel = FakeKernel(entries=256)
    gate = FakeGate(kernel, libos="sink", receive_buffers=128, options={"spin": 10})
    rounds = iter([100, 28, 0])

    def feed(_: int | None) -> None:
        count = next(rounds)
        for _ in range(count):
            assert kernel.deliver(bytes(60))
        kernel.kernel.stop.value = count == 0

    gate.on_sleep = feed
    launch.run(gate)
    assert kernel.libos.counters.delivered == 128


def test_complaints_are_one_line() -> None:
    assert launch.complaint(errors.UsageError("mtu 3: must be more")) == "mtu 3: must be more"
    try:
        Scripted(None, {"steps": []}).step()  # type: ignore[arg-type]
    except RuntimeError as error:
        line = launch.complaint(error)
    assert line.startswith("RuntimeError: two lines (") and "test_launch.py:" in line and "\n" not in line
