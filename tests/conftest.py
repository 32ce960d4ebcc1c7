# SPDX-License-Identifier: MIT
"""Shared fixtures, the large traces that are not part of the project, and what a run under sanitizers needs."""

import contextlib
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: What scripts/test preloads where it tests the C under sanitizers. Programs that are not ours must not have it.
PRELOAD = os.environ.get("EXONET_PRELOAD", "")
SANITIZED = PRELOAD != ""
#: Descriptors that only a machine, its wires and its LibOSes open.
OURS = re.compile(r"memfd:exonet|socket:|pipe:|anon_inode|/dev/net/tun|net:")


def shared_dir() -> Path:
    """The directory with more traces beside the project; EXONET_SHARED overrides. May not exist."""
    return Path(os.environ.get("EXONET_SHARED", ROOT.parent / "shared"))


def shared_captures(pattern: str = "*/*.pcap*") -> list[Path]:
    """Captures for parametrising; empty where the directory is absent."""
    return sorted((shared_dir() / "captures").glob(pattern))


@pytest.fixture(scope="session", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the machines of a test run make the sockets by which they are shown: away from those that people run."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXONET_RUN_DIR", str(directory))
        yield directory


def every_capture(pattern: str = "*.pcap*", most_bytes: int = 1 << 40) -> list[Any]:
    """For parametrising: the project's own captures and the larger ones, in place of which there may be one skip."""
    own = sorted((ROOT / "captures").glob(pattern))
    absent = pytest.mark.skip(f"no shared captures at {shared_dir() / 'captures'}")
    larger = shared_captures(f"*/{pattern}") or [pytest.param(None, marks=absent, id="shared")]
    return [path for path in own + larger if not isinstance(path, Path) or path.stat().st_size < most_bytes]


@pytest.fixture
def shared() -> Path:
    """The directory of larger traces, or a skip that says it is absent."""
    path = shared_dir() / "captures"
    if not path.is_dir():
        pytest.skip(f"no shared captures at {path}")
    return path


def pytest_collection_finish() -> None:
    """What imports made stays: tests that collect garbage, to see what is left, need not go through it each time."""
    gc.collect()
    gc.freeze()


def held() -> tuple[set[str], set[int]]:
    """What a machine takes from the system and a test must give back: descriptors and maps of ours; child processes."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{entry.name} {entry.readlink()}")
    found = {fd for fd in found if OURS.search(fd)}
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:exonet" in line:
            found.add(line.split(" ", 1)[0])
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return found, {int(word) for word in children.read_text().split()}


@pytest.fixture(autouse=True)
def invariant_8_nothing_is_left() -> Iterator[None]:
    """After every test (DESIGN §10): no page, no area, no socket, no device and no process is left over from it.

    Pages and areas are maps of memfds; bindings and NIC descriptors go with their machine. What only waits to be
    collected is collected first.
    """
    before, children = held()
    yield
    for collect in (False, True):
        if collect:
            gc.collect()
        after, living = held()
        if after <= before and living <= children:
            return
    pytest.fail(f"left over: {sorted(after - before)}, processes {sorted(living - children)}", pytrace=False)


@pytest.fixture
def preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """LibOS processes load our extensions, so where those are sanitized the processes need what this one has."""
    if SANITIZED:
        monkeypatch.setenv("LD_PRELOAD", PRELOAD)
