# SPDX-License-Identifier: MIT
"""Trace events: their lines, their catalogue, and where they may not be written."""

import json
import re
from pathlib import Path

import pytest

import exonet.trace
from exonet.errors import RunError, UsageError
from exonet.trace import BindingMade, Event, EventLog, RunEnded


def test_a_line_per_event(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with EventLog(path) as log:
        log.now = lambda: 12
        log.write(BindingMade(3, 1, "web", 0, "tcp port 80", 4, snoop=False))
        assert json.loads(path.read_text()) == {
            "ns": 12, "event": "binding_made", "binding": 3, "env": 1, "environment": "web", "port": 0,
            "filter": "tcp port 80", "conjuncts": 4, "snoop": False,
        }  # fmt: skip
    log.write(RunEnded(interrupted=False))
    assert path.read_text().count("\n") == 1


def test_nowhere_is_a_place_too() -> None:
    EventLog().write(RunEnded(interrupted=True))


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        EventLog(tmp_path / "no" / "trace.jsonl")


def test_a_full_disk_ends_the_log_and_is_told_at_its_end() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log = EventLog(Path("/dev/full"))
    log.write(RunEnded(interrupted=True))
    assert not log.listening
    log.write(RunEnded(interrupted=True))
    with pytest.raises(RunError, match="trace /dev/full: cannot be written: No space left"):
        log.close()
    log.close()
    with pytest.raises(KeyError), EventLog(Path("/dev/full")) as log:
        log.write(RunEnded(interrupted=True))
        raise KeyError("what went wrong first")


def test_the_catalogue_has_every_event() -> None:
    told = set(re.findall(r"^([a-z_]+) {2,}", exonet.trace.__doc__ or "", re.MULTILINE))
    assert told == {kind.name() for kind in Event.__subclasses__()}
