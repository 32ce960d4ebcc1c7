# SPDX-License-Identifier: MIT
"""A LibOS that another package brings: by its entry point or as module:Class, inline and in a process of its own."""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from exonet.errors import UsageError
from exonet.gate.naming import installed
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire.pcap import PcapWire
from tests.fakes.captures import pcap
from tests.fakes.frames import udp

CODE = """
import numpy  # what is installed beside exonet is there too
from libos_stacks.sink import Sink
from acme.helper import GREETING


class Mine(Sink):
    def __init__(self, environment, options):
        super().__init__(environment, options)
        print(GREETING)
"""
METADATA = "Metadata-Version: 2.1\nName: acme\nVersion: 1\n"
ENTRY_POINTS = "[exonet.libos]\nmine = acme.mine:Mine\n"


class Mapped:
    """Finds one package where it says, as the hook of an editable install does."""

    def __init__(self, name: str, at: Path) -> None:
        self.name, self.at = name, at

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.at / "__init__.py", submodule_search_locations=[str(self.at)]
        )


@pytest.fixture(params=["on the path", "editable"])
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    source, site = tmp_path / "source", tmp_path / "site"
    (source / "acme").mkdir(parents=True)
    (source / "acme" / "__init__.py").write_text("")
    (source / "acme" / "mine.py").write_text(CODE)
    (source / "acme" / "helper.py").write_text('GREETING = "acme is here"\n')
    (site / "acme-1.dist-info").mkdir(parents=True)
    (site / "acme-1.dist-info" / "METADATA").write_text(METADATA)
    (site / "acme-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    if request.param == "editable":
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Mapped("acme", source / "acme")])
    else:
        monkeypatch.syspath_prepend(str(source))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap([(k * 1000, udp(sport=1000 + k)) for k in range(50)]))
    return path


@pytest.mark.usefixtures("package", "preload")
@pytest.mark.parametrize("name", ["mine", "acme.mine:Mine"])
@pytest.mark.parametrize("process", [True, False], ids=["process", "inline"])
def test_a_libos_of_another_package_runs(trace: Path, name: str, process: bool) -> None:
    if process and os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    with PcapWire(trace, speed="max") as wire, Machine(MachineConfig(pages=1024)) as machine:
        port = machine.attach(wire, NicConfig(promiscuous=True, mode=NicMode.BACKPRESSURE), subscribe_all=True)
        env = machine.spawn(LibOSSpec("third", libos=name, bindings=("udp",), process=process, local="any"), port)
        machine.run()
        assert machine.settle().delivered == 50
        machine.close()
        assert env.output == (b"acme is here\n" if process else b"")


@pytest.mark.usefixtures("package")
def test_it_is_listed_and_nobody_takes_our_own_names() -> None:
    assert installed() == {
        "echo": "libos_stacks.echo:Echo",
        "mine": "acme.mine:Mine",
        "sink": "libos_stacks.sink:Sink",
    }


def test_an_unknown_name_is_refused_before_anything_is_started(trace: Path) -> None:
    with PcapWire(trace) as wire, Machine(MachineConfig(pages=64)) as machine:
        machine.attach(wire, NicConfig())
        with pytest.raises(UsageError, match='libos "ecco": must be module:Class or one of echo, sink'):
            machine.spawn(LibOSSpec("web", libos="ecco", bindings=("udp",), process=True))
        assert not list(machine.environments)
