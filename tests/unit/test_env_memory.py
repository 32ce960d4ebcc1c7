# SPDX-License-Identifier: MIT
"""An environment's two areas: layout, seals, and what it takes to open and close one."""

import fcntl
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import ABI_VERSION, ffi, lib
from tests.conftest import held
from tests.fakes.dispatcher import open_fds

RINGS = ("fill", "receive", "transmit", "completion")
ENTRY = {"fill": 8, "receive": 32, "transmit": 32, "completion": 16, "verdict": 2}
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
FUTURE_WRITE = 0x10


def layout(**entries: int) -> Any:
    asked = dict.fromkeys(RINGS, 64) | entries
    return ffi.new("struct exo_layout *", {f"{name}_entries": n for name, n in asked.items()})


@pytest.fixture
def env() -> Iterator[Any]:
    made = ffi.new("struct exo_env *")
    assert lib.exo_env_open(made, 3, layout(receive=128), 99) == 0
    yield made
    lib.exo_env_close(made)


def test_what_is_written_into_the_kernel_area(env: Any) -> None:
    kernel = env.kernel
    assert (kernel.abi_version, kernel.env, env.number, env.wake_fd) == (ABI_VERSION, 3, 3, -1)
    assert env.state == lib.EXO_ENV_LIVE
    assert ffi.buffer(ffi.addressof(kernel, "layout"))[:] == ffi.buffer(ffi.addressof(env, "layout"))[:]
    assert ffi.buffer(env.libos, env.layout.libos_area_size)[:] == bytes(env.layout.libos_area_size)


def test_the_seed_is_repeatable_and_differs_by_environment() -> None:
    seeds = []
    for number, seed in ((1, 5), (2, 5), (1, 6), (1, 5)):
        env = ffi.new("struct exo_env *")
        assert lib.exo_env_open(env, number, layout(), seed) == 0
        seeds.append(env.kernel.seed)
        lib.exo_env_close(env)
    assert seeds[0] == seeds[3] and len(set(seeds)) == 3


@pytest.mark.parametrize("entries", [8, 64, 1024, 32768])
def test_arrays_are_aligned_apart_and_inside(entries: int) -> None:
    env = ffi.new("struct exo_env *")
    assert lib.exo_env_open(env, 1, layout(**dict.fromkeys(RINGS, entries)), 0) == 0
    for head, names, size in (
        ("exo_kernel_area", ("receive", "completion"), env.layout.kernel_area_size),
        ("exo_libos_area", ("fill", "transmit", "verdict"), env.layout.libos_area_size),
    ):
        end = ffi.sizeof(f"struct {head}")
        for name in names:
            offset = getattr(env.layout, f"{name}_offset")
            assert offset % 64 == 0 and offset >= end
            end = offset + entries * ENTRY[name]
        assert end <= size and size % 4096 == 0 and size - end < 4096
    assert os.fstat(env.kernel_fd).st_size == env.layout.kernel_area_size
    assert os.fstat(env.libos_fd).st_size == env.layout.libos_area_size
    lib.exo_env_close(env)


def test_seals(env: Any) -> None:
    assert fcntl.fcntl(env.kernel_fd, fcntl.F_GET_SEALS) == SEALS | FUTURE_WRITE
    assert fcntl.fcntl(env.libos_fd, fcntl.F_GET_SEALS) == SEALS


def test_the_kernel_area_is_never_writable_again(env: Any) -> None:
    size = env.layout.kernel_area_size
    with pytest.raises(PermissionError):
        mmap.mmap(env.kernel_fd, size)
    again = os.open(f"/proc/self/fd/{env.kernel_fd}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, size)
    for fd in (again, env.kernel_fd):
        for act in (
            lambda fd=fd: os.write(fd, b"x"),
            lambda fd=fd: os.ftruncate(fd, 0),
            lambda fd=fd: os.posix_fallocate(fd, 0, 1 << 20),
        ):
            with pytest.raises(PermissionError):
                act()
    os.close(again)
    with mmap.mmap(env.kernel_fd, size, prot=mmap.PROT_READ) as seen:
        env.kernel.receive_put.value = 77
        at = ffi.offsetof("struct exo_kernel_area", "receive_put")
        assert int.from_bytes(seen[at : at + 4], "little") == 77


def test_the_libos_area_is_shared_and_of_fixed_size(env: Any) -> None:
    for act in (lambda: os.ftruncate(env.libos_fd, 0), lambda: os.ftruncate(env.libos_fd, 1 << 20)):
        with pytest.raises(PermissionError):
            act()
    with mmap.mmap(env.libos_fd, env.layout.libos_area_size) as mine:
        mine[:4] = (5).to_bytes(4, "little")
        assert env.libos.fill_put.value == 5
        mine.madvise(9)
        assert env.libos.fill_put.value == 0


@pytest.mark.parametrize("name", RINGS)
@pytest.mark.parametrize("entries", [0, 1, 4, 7, 9, 1000, 32769, 65536, 0x80000000, 0xFFFFFFFF])
def test_impossible_rings(name: str, entries: int) -> None:
    before = open_fds()
    env = ffi.new("struct exo_env *")
    assert lib.exo_env_open(env, 1, layout(**{name: entries}), 0) == lib.EXO_E_INVALID
    lib.exo_env_close(env)
    assert open_fds() == before


@pytest.mark.parametrize("number", [0, 0xFFFFFFFF])
def test_impossible_numbers(number: int) -> None:
    assert lib.exo_env_open(ffi.new("struct exo_env *"), number, layout(), 0) == lib.EXO_E_INVALID


def test_invariant_8_what_is_left_after_a_test_would_be_seen() -> None:
    """By the fixture that looks after each: a machine with a page, an environment's areas, a child."""
    before = held()
    machine = lib.exo_machine_new(ffi.new("struct exo_machine_config *", {"pages": 16}))
    assert held() != before
    lib.exo_machine_free(machine)
    env = ffi.new("struct exo_env *")
    assert lib.exo_env_open(env, 1, layout(), 0) == 0
    assert held() != before
    lib.exo_env_close(env)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in held()[1] - before[1]
    assert held() == before


def test_invariant_8_open_and_close_leave_nothing() -> None:
    before = open_fds()
    for _ in range(50):
        env = ffi.new("struct exo_env *")
        assert lib.exo_env_open(env, 1, layout(), 0) == 0
        lib.exo_env_close(env)
        lib.exo_env_close(env)
        assert (env.kernel, env.libos, env.kernel_fd, env.libos_fd) == (ffi.NULL, ffi.NULL, -1, -1)
    assert open_fds() == before
    assert "memfd:exonet" not in Path("/proc/self/maps").read_text()
