# SPDX-License-Identifier: MIT
"""The last pass: a shape's LLVM text to machine code, by llvmlite (an optional extra of the package).

One module, one engine per shape: making a new one touches none that runs (DESIGN §7). MissingError where llvmlite is
not installed; the demux then answers from its tables.
"""

from typing import Any

from exonet.errors import MissingError
from exonet.filters.emit import SYMBOL, emit
from exonet.filters.form import Form

try:
    import llvmlite.binding as llvm
except ImportError:  # the extra is not installed
    llvm = None

__all__ = ["NativeCode", "available", "compile_form"]

#: What a probe needs and no more: the memory slots into registers, simple algebra, straight control flow. Loops are
#: short and bounded; unrolling or vectorising them makes compiling slow and gains nothing.
PASSES = ("sroa", "instcombine", "simplifycfg")


def available() -> bool:
    return llvm is not None


class NativeCode:
    """A probe function. Its address is good while this object lives."""

    def __init__(self, form: Form, engine: Any, text: str) -> None:
        self.form = form
        self.text = text
        self._engine = engine
        self.address: int = engine.get_function_address(SYMBOL)

    def assembly(self) -> str:
        """The machine's instructions, compiled again from the text."""
        return str(_machine().emit_assembly(_module(self.text, _machine())))


def _machine() -> Any:
    """A target machine of its own: an engine takes its machine with it when it goes."""
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )


def _module(text: str, machine: Any) -> Any:
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_default_triple()
    options = llvm.create_pipeline_tuning_options()
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module


def compile_form(form: Form) -> NativeCode:
    """Compiles the probe of a shape: some 10 ms. May run in any thread."""
    if llvm is None:
        raise MissingError("llvmlite: not installed; filters are answered from tables (pip install 'exonet[native]')")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = _machine()
    text = emit(form)
    engine = llvm.create_mcjit_compiler(_module(text, machine), machine)
    engine.finalize_object()
    return NativeCode(form, engine, text)
