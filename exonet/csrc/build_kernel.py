# SPDX-License-Identifier: MIT
"""Builds `exonet._kernel`, the cffi API-mode extension over csrc/: the headers below are its cdef, in this order."""

import os
import platform
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADERS = (
    "exo_abi.h",
    "frame.h",
    "l3.h",
    "ledger.h",
    "checksum.h",
    "wire.h",
    "link_layer.h",
    "trace.h",
    "delays.h",
    "replay.h",
    "link.h",
    "nic.h",
    "demux.h",
    "env.h",
    "isolate.h",
    "machine.h",
    "cpu.h",
)
#: Without it gcc makes no prefetch for writing on x86-64. To a processor that has none the instruction is none (Intel
#: SDM volume 2B, PREFETCHW).
PREFETCH = ["-mprfchw"] if platform.machine() == "x86_64" else []
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O3", "-g", "-fno-strict-aliasing", "-D_GNU_SOURCE", *PREFETCH]


def sanitizer_flags() -> list[str]:
    """`EXONET_SANITIZE=1`: ASan and UBSan. `EXONET_COVERAGE=1`: gcov. `scripts/test` asks for both at once."""
    flags = []
    if os.environ.get("EXONET_SANITIZE") == "1":
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    if os.environ.get("EXONET_COVERAGE") == "1":
        flags += ["--coverage", "-fprofile-abs-path"]
    return [*flags, "-O1"] if flags else []


def relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)


ffibuilder = FFI()
for header in HEADERS:
    if (HERE / header).exists():
        ffibuilder.cdef((HERE / header).read_text())
ffibuilder.set_source(
    "exonet._kernel",
    '#include "exo_kernel.h"',
    sources=[relative(path) for path in sorted(HERE.glob("*.c"))],
    include_dirs=[relative(HERE)],
    libraries=["z"],
    extra_compile_args=FLAGS + sanitizer_flags(),
    extra_link_args=sanitizer_flags(),
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(verbose=False, tmpdir=".")
