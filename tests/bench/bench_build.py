# SPDX-License-Identifier: MIT
"""Compiles what the benchmarks need beside exonet, from scripts/peers, into the work directory of a run."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from exonet.errors import RunError
from exonet.lab.bench import Context, Skip

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "scripts" / "peers"
HEADERS = ROOT / "exonet" / "csrc"


def build(context: Context, name: str, flags: Sequence[str] = (), libraries: Sequence[str] = ()) -> Path:
    """The program `name`, compiled once. Skip without a compiler, RunError where it does not compile."""
    return _compile(context, name, context.work / name, flags, libraries)


def build_shared(context: Context, name: str) -> Path:
    """The same as a library, against exonet's own headers."""
    flags = ("-shared", "-fPIC", f"-I{HEADERS}")
    return _compile(context, name, context.work / f"{name}.so", flags, ())


def dpdk_flags() -> tuple[list[str], list[str]]:
    """Compiler flags and libraries of DPDK. Skip where its headers are not installed."""
    program = shutil.which("pkg-config")
    if program is None:
        raise Skip("pkg-config is not installed: apt-get install pkg-config dpdk-dev")
    found = [
        subprocess.run([program, what, "libdpdk"], capture_output=True, text=True) for what in ("--cflags", "--libs")
    ]
    if any(done.returncode for done in found):
        raise Skip("DPDK's headers are not installed: apt-get install dpdk-dev")
    return found[0].stdout.split(), found[1].stdout.split()


def _compile(context: Context, name: str, target: Path, flags: Sequence[str], libraries: Sequence[str]) -> Path:
    if target.exists():
        return target
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Skip("gcc is not installed: apt-get install gcc libc6-dev")
    source = PEERS / f"{name}.c"
    command = [compiler, "-O2", "-D_GNU_SOURCE", *flags, "-o", str(target), str(source), *libraries]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        why = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise RunError(f"{source.name} does not compile: {why}")
    return target
