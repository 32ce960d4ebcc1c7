# SPDX-License-Identifier: MIT
"""The layout's rule: a later line may import earlier ones, never the reverse; no circles."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("words", "wire", "hardware", "filters", "gate", "kernel", "lab", "cli")
OPEN_TO_LIBOS = {"exonet", "exonet.abi", "exonet.errors", "exonet.clock", "exonet.closing", "exonet.gate"}


def sources(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "csrc" not in path.parts)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that the file imports, at the top or inside a function."""
    return frozenset(imported(path))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            assert node.module is not None
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in submodules if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()]
            yield from found or [node.module]


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else 0


EXONET = sources("exonet")
LIBOS = sources("libos_stacks")


@pytest.mark.parametrize("path", EXONET, ids=module_of)
def test_a_layer_imports_earlier_ones_only(path: Path) -> None:
    own = layer(module_of(path))
    wrong = [name for name in imports(path) if name.startswith("exonet") and layer(name) > own]
    assert not wrong, f"{module_of(path)} ({LAYERS[own]}) imports {wrong}"


@pytest.mark.parametrize("path", EXONET, ids=module_of)
def test_exonet_never_imports_a_libos(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("libos_stacks")]


@pytest.mark.parametrize("path", LIBOS, ids=module_of)
def test_a_libos_sees_the_abi_and_the_gate_only(path: Path) -> None:
    seen = {name for name in imports(path) if name.startswith("exonet")}
    wrong = {name for name in seen if name not in OPEN_TO_LIBOS and not name.startswith("exonet.gate.")}
    assert not wrong, f"{module_of(path)} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", EXONET + LIBOS, ids=module_of)
def test_one_module_touches_each_extension(path: Path) -> None:
    extensions = {"exonet._kernel": "exonet.abi", "libos_stacks._stack": "libos_stacks.abi"}
    for name in imports(path):
        if name in extensions:
            assert module_of(path) == extensions[name]


@pytest.mark.parametrize("path", EXONET + LIBOS, ids=module_of)
def test_no_circle_is_hidden_behind_type_checking(path: Path) -> None:
    assert "TYPE_CHECKING" not in path.read_text()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module_of(path): imports(path) for path in EXONET + LIBOS}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module in done:
            return
        for name in graph.get(module, ()):
            visit(name, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())
