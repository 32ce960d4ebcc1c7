# SPDX-License-Identifier: MIT
"""Shared fixtures, captures that are not part of the project, and what a run under sanitizers needs."""

import contextlib
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.effort import PROFILE

ROOT = Path(__file__).resolve().parent.parent
#: What scripts/test preloads where it tests the C under sanitizers. Programs that are not ours must not have it.
PRELOAD = os.environ.get("EXONET_PRELOAD", "")
SANITIZED = PRELOAD != ""
#: Descriptors that only a machine, its wires and its LibOSes open.
OURS = re.compile(r"memfd:exonet|socket:|pipe:|anon_inode|/dev/net/tun|net:")


def more_captures(pattern: str = "*.pcap*") -> list[Path]:
    """The captures in the folder that EXONET_CAPTURES names and in those below it; none where it is not set.

    Tests read nothing else outside the project.
    """
    named = os.environ.get("EXONET_CAPTURES")
    return sorted(Path(named).rglob(pattern)) if named else []


def pytest_configure() -> None:
    settings.load_profile(PROFILE)
    named = os.environ.get("EXONET_CAPTURES")
    if named and not more_captures():
        raise pytest.UsageError(f"EXONET_CAPTURES={named}: this folder holds no captures (*.pcap*)")


@pytest.fixture(scope="session", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the machines of a test run make the sockets by which they are shown: away from those that people run."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXONET_RUN_DIR", str(directory))
        yield directory


def every_capture(pattern: str = "*.pcap*", most_bytes: int = 1 << 40) -> list[Any]:
    """For parametrising: the project's own captures, and more, whose tests have the mark `captures`."""
    more = [path for path in more_captures(pattern) if path.stat().st_size < most_bytes]
    return own_captures(pattern) + [pytest.param(path, marks=pytest.mark.captures) for path in more]


def own_captures(pattern: str = "*.pcap*") -> list[Path]:
    """The captures of the project that are whole."""
    return sorted((ROOT / "captures").glob(pattern))


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
    """After every test (docs/rules.md): no page, no area, no socket, no device and no process is left over from it.

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
