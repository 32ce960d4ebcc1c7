# SPDX-License-Identifier: MIT
"""The source distribution: it holds the project, pip installs it where there is nothing of exonet's, and it passes its
own quick tests where it is unpacked.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.effort import LONG

BUILT = shutil.ignore_patterns(
    *("*.so", "*.o", "__pycache__", "_kernel.c", "_stack.c", "*.egg-info", "*_cache", "build", "dist", "report"),
    *(".venv", ".cache", ".hypothesis", ".git"),
)
BUILD = "import setuptools.build_meta as meta; print(meta.build_sdist({!r}))"


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXONET"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, since building leaves files behind."""
    source, place = tmp_path_factory.mktemp("copy") / "source", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=BUILT)
    return place / run(sys.executable, "-c", BUILD.format(str(place)), cwd=source).split()[-1]


def test_the_source_distribution_has_what_the_project_has(distribution: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git clone: nothing says what the project has")
    listed = run("git", "-c", f"safe.directory={ROOT}", "ls-files", cwd=ROOT).splitlines()
    with tarfile.open(distribution) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert [name for name in listed if name not in held and (ROOT / name).exists()] == []


@pytest.fixture
def installed(distribution: Path, tmp_path: Path) -> Path:
    """An environment with it; what exonet needs it borrows from the one that runs the tests: nothing is downloaded."""
    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    site = next(place.glob("lib/python3*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", place / "bin" / "python")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed")
    run(*pip, "install", *options, distribution, cwd=tmp_path)
    return place


def test_pip_installs_both_packages_the_command_and_the_demo(installed: Path, tmp_path: Path) -> None:
    python, site = installed / "bin" / "python", next(installed.glob("lib/python3*/site-packages"))
    for package in ("exonet", "libos_stacks"):
        wanted = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py") if "csrc" not in path.parts}
        assert wanted <= {path.relative_to(site) for path in (site / package).rglob("*.py")}
        assert (site / package / "py.typed").exists() and len(list((site / package).glob("_*.so"))) == 1
    where = "import exonet.abi, libos_stacks.abi; print(exonet.abi.__file__); print(libos_stacks.abi.__file__)"
    assert all(Path(line).is_relative_to(site) for line in run(python, "-c", where, cwd=tmp_path).splitlines())
    demo = "from exonet.cli.common import demo_trace; print(demo_trace())"
    trace = Path(run(python, "-c", demo, cwd=tmp_path).strip())
    assert trace.is_relative_to(installed)
    words = ("--bind", "dns=udp port 53", "--clock", "virtual")
    assert "balanced" in run(installed / "bin" / "exonet", "replay", trace, *words, cwd=tmp_path)


@pytest.mark.skipif(not LONG, reason="takes minutes and fetches packages: a part of scripts/test long")
@pytest.mark.timeout(1800)
def test_unpacked_alone_it_passes_its_quick_tests(distribution: Path, tmp_path: Path) -> None:
    with tarfile.open(distribution) as tar:
        tar.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    run("scripts/test", "quick", cwd=unpacked)
