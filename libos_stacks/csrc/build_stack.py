# SPDX-License-Identifier: MIT
"""Builds `libos_stacks._stack`, the cffi API-mode extension over csrc/; its ABI types are those of `exonet._kernel`."""

import importlib.util
import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADERS = ("stack.h", "ring.h")

_spec = importlib.util.spec_from_file_location("build_kernel", ROOT / "exonet" / "csrc" / "build_kernel.py")
assert _spec is not None and _spec.loader is not None
kernel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernel)

ffibuilder = FFI()
ffibuilder.include(kernel.ffibuilder)
for header in HEADERS:
    ffibuilder.cdef((HERE / header).read_text())
ffibuilder.set_source(
    "libos_stacks._stack",
    '#include "exo_kernel.h"\n#include "stk.h"',
    sources=[kernel.relative(path) for path in sorted(HERE.glob("*.c"))],
    include_dirs=[kernel.relative(HERE), kernel.relative(kernel.HERE)],
    extra_compile_args=kernel.FLAGS + kernel.sanitizer_flags(),
    extra_link_args=kernel.sanitizer_flags(),
)

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(verbose=False, tmpdir=".")
