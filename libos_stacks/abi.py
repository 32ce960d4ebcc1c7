# SPDX-License-Identifier: MIT
"""The one module that touches `libos_stacks._stack`: its `ffi` and `lib`."""

from libos_stacks._stack import ffi, lib

__all__ = ["ffi", "lib"]
