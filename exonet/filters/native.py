# SPDX-License-Identifier: MIT
"""The last pass: a shape's LLVM text to machine code, by llvmlite.

One module, one engine per shape: making a new one touches none that runs. MissingError where llvmlite is
not installed; the demux then answers from its tables.
"""

import functools
import importlib.util
from typing import Any

from exonet.abi import ffi, lib
from exonet.errors import KernelBug, MissingError
from exonet.filters.emit import ASK, GLANCE, PROBE, emit
from exonet.filters.form import Form

__all__ = ["NativeCode", "available", "compile_form"]


def available() -> bool:
    """Is llvmlite installed? Does not load it."""
    return importlib.util.find_spec("llvmlite") is not None


class NativeCode:
    """A shape's two functions: good while this object lives."""

    def __init__(self, form: Form, engine: Any, text: str) -> None:
        self.form = form
        self.text = text
        self._engine = engine
        self._native_form = form.to_native()
        self._probe = ffi.cast("exo_probe", engine.get_function_address(PROBE))
        self._glance = ffi.cast("exo_glance", engine.get_function_address(GLANCE))

    def install(self, demux: Any) -> bool:
        """Lets it answer for its shape, if the demux has that. The object must live as long as the demux uses it."""
        return bool(lib.exo_demux_install(demux, self._native_form, self._probe, self._glance))

    @property
    def probe(self) -> Any:
        """The `exo_probe`."""
        return self._probe

    @property
    def glance(self) -> Any:
        """The `exo_glance`."""
        return self._glance

    def assembly(self) -> str:
        """The machine's instructions, compiled again from the text."""
        machine = _machine()
        return str(machine.emit_assembly(_module(self.text, machine)))


@functools.cache
def _llvm() -> Any:
    """llvmlite, set up. Late: importing it takes longer than most commands run."""
    try:
        import llvmlite.binding as llvm
    except ImportError:
        raise MissingError("llvmlite: not installed; filters are answered from tables (pip install llvmlite)") from None
    llvm.add_symbol(ASK, int(ffi.cast("uintptr_t", ffi.addressof(lib, ASK))))
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _machine() -> Any:
    """A target machine of its own: an engine takes its machine with it when it goes."""
    llvm = _llvm()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2, jit=True)


def _module(text: str, machine: Any) -> Any:
    """Parsed, and through the passes a probe needs: memory slots into registers, simple algebra, straight control
    flow. Its loops are short and bounded; unrolling or vectorising them makes compiling slow and gains nothing.
    """
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text)
    except RuntimeError as error:
        raise KernelBug(f"the code of a shape does not parse: {error}") from error
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module


def compile_form(form: Form) -> NativeCode:
    """Compiles the code of a shape: some 10 ms. May run in any thread. MissingError without llvmlite."""
    machine = _machine()
    text = emit(form)
    engine = _llvm().create_mcjit_compiler(_module(text, machine), machine)
    engine.finalize_object()
    return NativeCode(form, engine, text)
