# SPDX-License-Identifier: MIT
"""`pip install .` of the sources as they are shipped, into a virtual environment that has nothing of exonet's."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
TREES = ("exonet", "libos_stacks", "captures")
BUILT = shutil.ignore_patterns("*.so", "*.o", "__pycache__", "_kernel.c", "_stack.c")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXONET"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Such an environment; what exonet needs it borrows from the one that runs the tests, so nothing is downloaded."""
    source, place = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in TREES:
        shutil.copytree(ROOT / name, source / name, ignore=BUILT)
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    site = next(place.glob("lib/python3*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", place / "bin" / "python")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed")
    run(*pip, "install", *options, source, cwd=tmp_path)
    shutil.rmtree(source)
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
