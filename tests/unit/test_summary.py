# SPDX-License-Identifier: MIT
"""What scripts/test says at its end: the slowest tests, and what was skipped and why."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.summary import SLOWEST, Tried, table

SOME = """
import pytest

def test_passes(): pass
def test_fails(): assert False
@pytest.mark.skip(reason="no such device")
def test_is_skipped(): pass
def test_skips(): pytest.skip("no such device")
@pytest.fixture
def broken(): raise OSError
def test_errs(broken): pass
"""


def test_a_run_adds_each_of_its_tests_once_also_where_workers_share_them(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SOME)
    out = tmp_path / "out"
    environment = os.environ | {"EXONET_SUMMARY": str(out), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    for workers in ("0", "2"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.summary", "-p", "no:cacheprovider", "-n", workers]
        assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 1
        found = [Tried(*json.loads(line)) for line in out.read_text().splitlines()]
        assert sorted((test.name.split("::")[1], test.failed, test.skipped) for test in found) == [
            ("test_errs", True, ""),
            ("test_fails", True, ""),
            ("test_is_skipped", False, "no such device"),
            ("test_passes", False, ""),
            ("test_skips", False, "no such device"),
        ]
        out.unlink()


def test_the_table_has_the_slowest_and_the_reasons() -> None:
    tests = [Tried(f"t{i}", i, False, "") for i in range(20)]
    tests += [Tried("s", 0, False, "not root"), Tried("s2", 0, False, "not root"), Tried("f", 0, True, "")]
    lines = table(tests).splitlines()
    assert lines[1] == "    19.0 s  t19" and lines[SLOWEST] == "    10.0 s  t10"
    assert lines[SLOWEST + 1 :] == ["2 skipped:", "       2    not root", "20 tests passed, 1 failed"]
