# SPDX-License-Identifier: MIT
"""Only what pyproject.toml cannot say: the two cffi extensions."""

from setuptools import setup

setup(cffi_modules=["exonet/csrc/build_kernel.py:ffibuilder", "libos_stacks/csrc/build_stack.py:ffibuilder"])
