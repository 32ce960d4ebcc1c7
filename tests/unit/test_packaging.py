# SPDX-License-Identifier: MIT
"""What is shipped: metadata, locks, manifest, scripts. Building and installing is what scripts/test does first."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
SCRIPTS = ("scripts/run", "scripts/test", "scripts/bench", ".ci/run")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, int]:
    """How many hashes each requirement of a lock has."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    rows = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(re.match(r"[A-Za-z0-9_.-]+==\S+", row) for row in rows)
    return {canonical(row.split("==")[0]): row.count("--hash=sha256:") for row in rows}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ \[;]", name.strip())[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_has_its_hashes(name: str) -> None:
    assert all(locked(name).values())


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_the_locks_hold_what_the_project_asks_for(project: dict[str, Any]) -> None:
    run, dev = (set(locked(name)) for name in LOCKS)
    needed = {canonical(name) for name in project["project"]["dependencies"] + project["build-system"]["requires"]}
    assert needed <= run <= dev
    extras = {name: set(map(canonical, wanted)) for name, wanted in project["project"]["optional-dependencies"].items()}
    assert set(extras) == {"dev"}, "what the README shows needs no extra"
    assert extras["dev"] <= dev


def test_the_set_up_installs_and_builds_with_locked_versions_only() -> None:
    """Build isolation would fetch the newest setuptools and cffi."""
    text = (ROOT / "scripts" / "setup").read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-build-isolation" in line for line in installs), installs
    assert all("--no-deps" in line for line in installs)


def test_both_packages_are_typed_and_found(project: dict[str, Any]) -> None:
    assert {"exonet", "libos_stacks"} <= set(project["tool"]["setuptools"]["packages"]["find"]["include"])
    for package in ("exonet", "libos_stacks"):
        assert (ROOT / package / "py.typed").exists()
        assert project["tool"]["setuptools"]["package-data"][package] == ["py.typed"]
    for directory in {path.parent for path in (ROOT / "exonet").rglob("*.py")}:
        assert directory.name == "csrc" or (directory / "__init__.py").exists(), directory


def test_the_source_distribution_has_every_folder_of_the_project() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text().splitlines()
    built = {".venv", ".cache", ".git", "build", "dist", "report"}
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in built]
    shipped = [name for name in folders if not name.endswith((".egg-info", "_cache")) and name != ".hypothesis"]
    assert [name for name in shipped if f"graft {name}" not in manifest] == []


def test_a_type_checker_sees_the_types_of_what_is_installed(tmp_path: Path) -> None:
    """Outside the project, by the installation that runs the tests: an editable one, where the set-up made it."""
    text = "from exonet.errors import UsageError; x: int = UsageError('')"
    command = [sys.executable, "-P", "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "-c", text]
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert 'expression has type "UsageError", variable has type "int"' in done.stdout, done.stdout


def test_the_command_and_the_liboses_are_entry_points(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"exonet": "exonet.cli.entry:main"}
    for target in project["project"]["entry-points"]["exonet.libos"].values():
        module, _, name = target.partition(":")
        source = ROOT / Path(*module.split("."))
        candidates = [source.with_suffix(".py"), source / "__init__.py"]
        assert any(path.exists() and f"class {name}" in path.read_text() for path in candidates)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_runnable(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_shipped_captures_are_small_and_described() -> None:
    files = [path for path in (ROOT / "captures").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    told = (ROOT / "captures" / "README.md").read_text()
    assert [path.name for path in files if path.name != "README.md" and f"`{path.name}`" not in told] == []


def test_every_source_file_has_its_licence_line() -> None:
    places = [
        path
        for kind in ("*.py", "*.c", "*.h")
        for top in ("exonet", "libos_stacks", "tests")
        for path in (ROOT / top).rglob(kind)
    ]
    generated = {"_kernel.c", "_stack.c", "zz_stubs.c"}
    bare = [
        path
        for path in places
        if path.name not in generated and "SPDX-License-Identifier: MIT" not in path.read_text()[:200]
    ]
    assert bare == []
