# SPDX-License-Identifier: MIT
"""Ctrl-C before anything runs, output files that take nothing, and LibOSes that cannot be found: whose fault it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACE = str(ROOT / "captures" / "udp-64.pcap")
REPLAY = ["replay", TRACE, "--speed", "max", "--bind", "a=ip"]
VIRTUAL = ["--clock", "virtual"]
#: Sends itself SIGINT as module MODULE is looked for, then runs the command.
INTERRUPTED = """
import os, signal, sys

MODULE = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, *_):
        if name == MODULE:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from exonet.cli.entry import main
sys.exit(main())
"""
ECHO = """
class Quiet:
    def __init__(self, environment, options):
        self.environment = environment
    def step(self):
        self.environment.pump()
        return False
    def deadline(self):
        return self.environment.poll()
"""


def run(*arguments: str, cwd: Path = ROOT, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, **options}
    return subprocess.run(
        [sys.executable, "-P", "-m", "exonet.cli.entry", *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        cwd=cwd,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    "module", ["exonet.cli.main", "exonet.lab.plan", "exonet.lab.run", "exonet._kernel", "pyarrow"]
)
def test_ctrl_c_while_modules_load_is_one_line(module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, module, *REPLAY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (signal.SIGINT + 128, "", "exonet: interrupted\n")


@pytest.mark.parametrize("option", ["--json", "--fates", "--pcap-out", "--trace"])
def test_a_file_on_a_full_disk_is_a_failed_run_and_named_beside_the_ledger(option: str) -> None:
    done = run(*REPLAY, *VIRTUAL, option, "/dev/full")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "/dev/full" in done.stderr and "No space left on device" in done.stderr
    assert "standard output" not in done.stderr and "balanced" in done.stdout


def test_the_cost_model_and_the_report_name_their_own_files(tmp_path: Path) -> None:
    done = run("calibrate", "--repeat", "1", "--out", "/dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "exonet: error: cost model /dev/full: cannot be written: No space left on device\n",
    )
    (tmp_path / "drops.csv").symlink_to("/dev/full")
    sweep = ["drops", TRACE, *VIRTUAL, "--rates", "1M", "--rings", "64", "--packets", "100", "--out", str(tmp_path)]
    done = run(*sweep)
    assert done.returncode == 1 and f"report {tmp_path}: cannot be written" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        ("nosuch:Class", 'libos "nosuch:Class": there is no module nosuch, neither installed nor in'),
        ("json:Nope", "module 'json' has no attribute 'Nope'"),
        ("json.nosuch:Nope", "No module named 'json.nosuch'"),
        ("..:Nope", "must be module:Class"),
        ("sink,port=7", 'option "port": it has burst, spin only'),
        ("nosuch", "there are echo, sink, or module:Class"),
    ],
)
@pytest.mark.parametrize("clock", ["monotonic", "virtual"])
def test_a_libos_that_is_not_there_is_the_callers_mistake(stack: str, says: str, clock: str) -> None:
    done = run("replay", TRACE, "--speed", "max", "--bind", f"a=ip,stack={stack}", "--clock", clock)
    if stack == "nosuch" and "must be module:Class" in done.stderr:  # a source tree that nobody installed
        says = "must be module:Class"
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


def test_too_few_pages_are_the_callers_mistake_and_said_once() -> None:
    done = run(*REPLAY, "--pages", "64")
    assert (done.returncode, done.stderr.count("environment a: ")) == (2, 1), done.stderr
    assert "wants 512 pages, and the machine has 64 in all" in done.stderr


@pytest.mark.parametrize("script", ["run", "bench", "test"])
def test_scripts_are_found_through_a_link(script: str, tmp_path: Path) -> None:
    """With a set-up that makes nothing and says where it was found."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / script).write_text((ROOT / "scripts" / script).read_text())
    (scripts / "setup").write_text("echo found; exit 0\n")
    (tmp_path / "link").symlink_to(scripts / script)
    done = subprocess.run(["bash", tmp_path / "link"], capture_output=True, text=True, cwd="/", timeout=20, check=False)
    assert done.stdout == "found\n", done.stderr


@pytest.mark.parametrize("mode", ["process", "inline"])
def test_a_libos_of_ones_own_is_found_in_the_working_directory(mode: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "quiet_libos.py").write_text(ECHO)
    bind = f"q=ip,stack=quiet_libos:Quiet,{mode}"
    done = run("replay", TRACE, "--speed", "max", "--limit", "10", "--bind", bind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "balanced" in done.stdout


def test_a_libos_that_ends_during_a_sweep_makes_it_a_failed_one(tmp_path: Path) -> None:
    (tmp_path / "dying_libos.py").write_text(ECHO.replace("return False", "raise ValueError('enough')"))
    bind = ["--bind", "q=ip,stack=dying_libos:Quiet"]
    done = run("drops", TRACE, *VIRTUAL, "--rates", "1M", "--rings", "64", "--packets", "100", *bind, cwd=tmp_path)
    assert done.returncode == 1
    assert "LibOS q ended before the run did: it raised ValueError: enough" in done.stderr
