# SPDX-License-Identifier: MIT
"""Shared fixtures, the large traces that are not part of the project, and what a run under sanitizers needs."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: What scripts/test preloads where it tests the C under sanitizers. Programs that are not ours must not have it.
PRELOAD = os.environ.get("EXONET_PRELOAD", "")
SANITIZED = PRELOAD != ""


def shared_dir() -> Path:
    """The directory with more traces beside the project; EXONET_SHARED overrides. May not exist."""
    return Path(os.environ.get("EXONET_SHARED", ROOT.parent / "shared"))


def shared_captures(pattern: str = "*/*.pcap*") -> list[Path]:
    """Captures for parametrising; empty where the directory is absent."""
    return sorted((shared_dir() / "captures").glob(pattern))


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


@pytest.fixture
def preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """LibOS processes load our extensions, so where those are sanitized the processes need what this one has."""
    if SANITIZED:
        monkeypatch.setenv("LD_PRELOAD", PRELOAD)
