# SPDX-License-Identifier: MIT
"""The contract's form: exo_abi.h is read by gcc and cffi as it stands, holds no pointer, leaves no hole."""

import re
from pathlib import Path

import pytest

from exonet.abi import ffi as kernel
from libos_stacks.abi import ffi as stack

HEADER = Path(__file__).resolve().parents[2] / "exonet" / "csrc" / "exo_abi.h"
TEXT = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
STRUCTS = re.findall(r"^struct (\w+) \{", TEXT, re.M)
#: Shared memory is a process's business with another compiler: only types whose size is the same everywhere.
FIXED = re.compile(r"^(u?int(8|16|32|64)_t|struct exo_\w+)$")


@pytest.mark.parametrize("what", [r"#", r"<<|>>", r"__attribute__|\binline\b|\bstatic\b|_Static_assert", r"\*", r"//"])
def test_the_header_holds_declarations_that_both_read_and_no_pointer(what: str) -> None:
    assert re.findall(what, TEXT) == []


def test_there_is_something_to_hold_to_it() -> None:
    assert {"exo_fill", "exo_receive", "exo_transmit", "exo_completion", "exo_kernel_area"} <= set(STRUCTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_padding_is_explicit_and_widths_are_fixed(name: str) -> None:
    struct = kernel.typeof(f"struct {name}")
    at = 0
    for field, row in struct.fields:
        assert row.offset == at, f"a hole before {name}.{field}"
        kind = row.type.item if row.type.kind == "array" else row.type
        assert FIXED.match(kind.cname), f"{name}.{field}: {kind.cname}"
        at += kernel.sizeof(row.type)
    assert at == kernel.sizeof(struct), f"a hole at the end of {name}"


@pytest.mark.parametrize("name", STRUCTS)
def test_both_extensions_have_the_very_same_types(name: str) -> None:
    """By ffi.include(): what the one makes the other takes."""
    assert stack.typeof(f"struct {name}") is kernel.typeof(f"struct {name}")


@pytest.mark.parametrize("name", STRUCTS)
def test_every_offset_is_asserted_in_c(name: str) -> None:
    asserted = (HEADER.parent / "abi.c").read_text()
    assert f"SIZE({name}, {kernel.sizeof(f'struct {name}')});" in asserted
    for field, row in kernel.typeof(f"struct {name}").fields:
        assert f"AT({name}, {field}, {row.offset});" in asserted


@pytest.mark.parametrize("name", ["exo_kernel_area", "exo_libos_area"])
def test_each_index_has_a_cache_line_of_its_own(name: str) -> None:
    rows = [row for _, row in kernel.typeof(f"struct {name}").fields if row.type.cname == "struct exo_index"]
    assert len(rows) >= 5 and all(row.offset % 64 == 0 for row in rows)
    assert kernel.sizeof("struct exo_index") == 64
