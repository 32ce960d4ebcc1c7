# SPDX-License-Identifier: MIT
"""Physical pages in C: allocation by number and any, pins, fresh backing, seals, the owner table."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from exonet.abi import ffi, lib
from exonet.errors import ConflictError, ExhaustedError, UsageError
from exonet.kernel.capability import Quota
from exonet.kernel.pages import PageTable

ANY = lib.EXO_ANY_PAGE
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Pages:
    """`struct exo_pages` with what a test does to it."""

    def __init__(self, count: int = 16) -> None:
        self.native: Any = lib.exo_pages_new(count)
        self.fds: list[int] = []

    def allocate(self, env: int, first: int, count: int) -> int:
        fd = ffi.new("int32_t *", -1)
        got = int(lib.exo_pages_allocate(self.native, env, first, count, fd))
        assert (got >= 0) == (fd[0] >= 0)
        if got >= 0:
            self.fds.append(fd[0])
        return got

    def map(self, fd: int, count: int) -> mmap.mmap:
        return mmap.mmap(fd, 4096 * count)

    def row(self, page: int) -> tuple[int, int]:
        """What a LibOS reads of a page; it agrees with the kernel's own table."""
        owner, own = self.native.owner[page], self.native.page[page]
        assert (owner.env, owner.pins) == (own.env, own.pins)
        assert (own.address == ffi.NULL) == (own.env == 0)
        return owner.env, owner.pins


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    for fd in made.fds:
        os.close(fd)
    lib.exo_pages_free(made.native)


def test_any_is_the_lowest_run_that_fits(pages: Pages) -> None:
    assert [pages.allocate(1, ANY, 3), pages.allocate(2, 5, 2), pages.allocate(1, ANY, 4)] == [0, 5, 7]
    assert pages.allocate(1, ANY, 2) == 3
    assert lib.exo_pages_free_count(pages.native) == 5
    assert pages.allocate(1, ANY, 6) == lib.EXO_E_FULL


def test_a_named_page_that_is_taken_is_busy(pages: Pages) -> None:
    assert pages.allocate(1, 4, 4) == 4
    assert pages.allocate(2, 7, 2) == lib.EXO_E_BUSY
    assert pages.row(8) == (0, 0)


@pytest.mark.parametrize(
    ("env", "first", "count"),
    [(0, ANY, 1), (1, ANY, 0), (1, ANY, 17), (1, 16, 1), (1, 15, 2), (1, 0xFFFFFFFE, 2), (1, 1, 0xFFFFFFFF)],
)
def test_impossible_allocations(pages: Pages, env: int, first: int, count: int) -> None:
    assert pages.allocate(env, first, count) == lib.EXO_E_INVALID
    assert lib.exo_pages_free_count(pages.native) == 16


@pytest.mark.parametrize("call", ["release", "pin", "unpin", "seize"])
@pytest.mark.parametrize(("first", "count"), [(16, 1), (15, 2), (0, 0), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF)])
def test_ranges_outside_the_table(pages: Pages, call: str, first: int, count: int) -> None:
    assert getattr(lib, f"exo_pages_{call}")(pages.native, 1, first, count) == lib.EXO_E_INVALID


@pytest.mark.parametrize("call", ["release", "pin", "unpin", "seize"])
def test_only_the_owner_of_every_page(pages: Pages, call: str) -> None:
    pages.allocate(1, 0, 2)
    pages.allocate(2, 2, 1)
    act = getattr(lib, f"exo_pages_{call}")
    assert act(pages.native, 1, 0, 3) == lib.EXO_E_NOT_FOUND
    assert act(pages.native, 2, 0, 1) == lib.EXO_E_NOT_FOUND
    assert act(pages.native, 0, 5, 1) == lib.EXO_E_NOT_FOUND
    assert [pages.row(i) for i in range(3)] == [(1, 0), (1, 0), (2, 0)]


def test_pins_are_counted_and_hold_the_page(pages: Pages) -> None:
    pages.allocate(1, 0, 4)
    assert lib.exo_pages_pin(pages.native, 1, 1, 2) == 0
    assert lib.exo_pages_pin(pages.native, 1, 2, 1) == 0
    assert [pages.row(i)[1] for i in range(4)] == [0, 1, 2, 0]
    assert lib.exo_pages_release(pages.native, 1, 0, 4) == lib.EXO_E_BUSY
    assert lib.exo_pages_release(pages.native, 1, 0, 1) == 0
    assert lib.exo_pages_unpin(pages.native, 1, 1, 3) == lib.EXO_E_INVALID
    assert lib.exo_pages_unpin(pages.native, 1, 1, 2) == 0
    assert [pages.row(i)[1] for i in range(4)] == [0, 0, 1, 0]
    assert lib.exo_pages_seize(pages.native, 1, 1, 3) == 0
    assert lib.exo_pages_free_count(pages.native) == 16


def test_a_pin_count_does_not_wrap(pages: Pages) -> None:
    pages.allocate(1, 0, 2)
    pages.native.page[1].pins = 0xFFFFFFFF
    assert lib.exo_pages_pin(pages.native, 1, 0, 2) == lib.EXO_E_FULL
    assert pages.native.page[0].pins == 0


def test_reclaim_takes_all_pinned_or_not(pages: Pages) -> None:
    pages.allocate(1, 0, 2)
    pages.allocate(2, 2, 2)
    pages.allocate(1, 4, 3)
    lib.exo_pages_pin(pages.native, 1, 4, 3)
    assert lib.exo_pages_reclaim(pages.native, 1) == 5
    assert lib.exo_pages_reclaim(pages.native, 1) == 0
    assert lib.exo_pages_reclaim(pages.native, 0) == lib.EXO_E_INVALID
    assert lib.exo_pages_free_count(pages.native) == 14


def test_a_segment_is_sealed_and_shared(pages: Pages) -> None:
    pages.allocate(1, 3, 2)
    fd = pages.fds[-1]
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
    for act in (lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 1 << 20)):
        with pytest.raises(PermissionError):
            act()
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pages.map(fd, 2) as memory:
        memory[4096:4100] = b"here"
        assert ffi.buffer(pages.native.page[4].address, 4)[:] == b"here"


def test_invariant_4_a_page_that_changes_owner_gets_fresh_backing(pages: Pages) -> None:
    pages.allocate(1, 0, 2)
    old = pages.map(pages.fds[-1], 2)
    old[:6] = b"secret"
    old[4096:4102] = b"secret"
    assert lib.exo_pages_release(pages.native, 1, 0, 1) == 0
    assert old[:6] == bytes(6)
    assert old[4096:4102] == b"secret"
    pages.allocate(2, 0, 1)
    fresh = pages.map(pages.fds[-1], 1)
    assert fresh[:] == bytes(4096)
    old[:6] = b"again!"
    assert fresh[:6] == bytes(6)
    assert ffi.buffer(pages.native.page[0].address, 6)[:] == bytes(6)
    fresh[:3] = b"new"
    assert old[:6] == b"again!"
    old.close()
    fresh.close()


def test_the_kernel_survives_holes(pages: Pages) -> None:
    pages.allocate(1, 0, 2)
    with pages.map(pages.fds[-1], 2) as memory:
        memory[:4] = b"data"
        memory.madvise(9)
        assert ffi.buffer(pages.native.page[0].address, 4)[:] == bytes(4)
        ffi.buffer(pages.native.page[0].address, 4)[:] = b"dma!"
        assert memory[:4] == b"dma!"


def test_the_owner_table_can_only_be_read(pages: Pages) -> None:
    fd = pages.native.owner_fd
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS | 0x10
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 128)
    for act in (lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 0), lambda: os.posix_fallocate(fd, 0, 4096)):
        with pytest.raises(OSError) as error:
            act()
        assert error.value.errno == errno.EPERM
    pages.allocate(7, 2, 1)
    with mmap.mmap(fd, 128, prot=mmap.PROT_READ) as table:
        assert int.from_bytes(table[16:20], "little") == 7


@pytest.mark.parametrize("count", [0, (1 << 24) + 1, 0xFFFFFFFF])
def test_impossible_tables(count: int) -> None:
    assert lib.exo_pages_new(count) == ffi.NULL


def test_free_of_a_table_with_pages_unmaps_them() -> None:
    pages = Pages()
    pages.allocate(1, ANY, 5)
    os.close(pages.fds.pop())
    lib.exo_pages_free(pages.native)
    lib.exo_pages_free(ffi.NULL)


class TestPageTable:
    @pytest.fixture
    def table(self) -> Iterator[PageTable]:
        native = lib.exo_pages_new(16)
        made = PageTable(native)
        yield made
        made.close()
        lib.exo_pages_free(native)

    def test_quota_of_pages_and_extents(self, table: PageTable) -> None:
        quota = Quota(pages=5, extents=2)
        table.allocate(1, "web", quota, ANY, 4)
        with pytest.raises(ExhaustedError, match="environment web: 4 pages and 2 more: its quota is 5"):
            table.allocate(1, "web", quota, ANY, 2)
        table.allocate(1, "web", quota, ANY, 1)
        with pytest.raises(ExhaustedError, match="2 extents and 1 more"):
            table.allocate(1, "web", Quota(extents=2), ANY, 1)
        assert table.used(1) == 5

    def test_what_was_freed_is_charged_until_it_is_handed_back(self, table: PageTable) -> None:
        """Else a LibOS that holds on to what it frees would have memory without end."""
        quota, inodes = Quota(pages=6), set()
        for _ in range(20):
            extent = table.allocate(1, "web", quota, ANY, 4)
            inodes.add(os.fstat(extent.fd).st_ino)
            table.release(1, "web", extent.first, 4)
            assert (table.used(1), table.charged(1)) == (0, 4)
        assert len(inodes) == 1
        small = table.allocate(1, "web", quota, ANY, 2)
        with pytest.raises(ExhaustedError, match="6 pages and 5 more: its quota is 6"):
            table.allocate(1, "web", quota, ANY, 5)
        other = table.allocate(1, "web", quota, ANY, 1)
        assert os.fstat(other.fd).st_ino in inodes, "what is free of its own has room for it"
        assert table.charged(1) == 6 and os.fstat(small.fd).st_ino not in inodes
        assert table.forget(1) == 3 and table.charged(1) == 0

    def test_freed_segments_are_counted_as_extents_too(self, table: PageTable) -> None:
        for count in (1, 2, 3):
            table.release(1, "web", table.allocate(1, "web", Quota(), ANY, count).first, count)
        with pytest.raises(ExhaustedError, match="3 extents and 1 more"):
            table.allocate(1, "web", Quota(extents=3), ANY, 4)
        assert table.allocate(1, "web", Quota(extents=3), ANY, 3).count == 3

    def test_invariant_4_a_segment_is_handed_back_empty_and_to_nobody_else(self, table: PageTable) -> None:
        extent = table.allocate(1, "web", Quota(), ANY, 2)
        inode, kept = os.fstat(extent.fd).st_ino, mmap.mmap(extent.fd, 8192)
        table.release(1, "web", extent.first, 2)
        kept[:4] = b"mine"
        other = table.allocate(2, "dns", Quota(), ANY, 2)
        assert os.fstat(other.fd).st_ino != inode
        again = table.allocate(1, "web", Quota(), ANY, 2)
        assert os.fstat(again.fd).st_ino == inode and kept[:4] == bytes(4)
        page = ffi.buffer(table.native.page[again.first].address, 8192)
        kept[4096:4100] = b"back"
        assert page[4096:4100] == b"back"
        kept.close()

    def test_invariant_4_a_segment_that_others_have_is_never_handed_back(self, table: PageTable) -> None:
        extent = table.allocate(1, "web", Quota(pages=5), ANY, 2)
        extent.shared, inode = True, os.fstat(extent.fd).st_ino
        table.release(1, "web", extent.first, 2)
        again = table.allocate(1, "web", Quota(pages=5), ANY, 2)
        assert os.fstat(again.fd).st_ino != inode and table.charged(1) == 4
        with pytest.raises(ExhaustedError, match="4 pages and 2 more"):
            table.allocate(1, "web", Quota(pages=5), ANY, 2)

    def test_errors_name_what_was_asked(self, table: PageTable) -> None:
        table.allocate(1, "web", Quota(), 3, 4)
        with pytest.raises(ConflictError, match=r"environment dns: 2 pages \(6\.\.7\) of 16, 12 free"):
            table.allocate(2, "dns", Quota(), 6, 2)
        with pytest.raises(UsageError, match=r"environment dns: free pages 3\.\.4"):
            table.release(2, "dns", 3, 2)
        table.pin(1, "web", 3, 1)
        with pytest.raises(ConflictError, match=r"environment web: free pages 3\.\.6"):
            table.release(1, "web", 3, 4)
        with pytest.raises(UsageError):
            table.unpin(1, "web", 4, 1)

    def test_an_extent_lives_until_its_last_page(self, table: PageTable) -> None:
        extent = table.allocate(1, "web", Quota(), ANY, 3)
        assert table.whole(1, 0, 3) is extent
        assert table.release(1, "web", 1, 1) == []
        assert table.whole(1, 0, 3) is None
        again = table.allocate(1, "web", Quota(), 1, 1)
        assert table.whole(1, 0, 3) is None and table.whole(1, 1, 1) is again
        assert table.used(1) == 3
        assert table.release(1, "web", 0, 1) == []
        assert table.release(1, "web", 1, 2) == [extent, again]
        assert table.extents(1) == [] and extent.fd == -1

    def test_withdraw_takes_what_is_left(self, table: PageTable) -> None:
        extent = table.allocate(1, "web", Quota(), ANY, 3)
        table.release(1, "web", 0, 1)
        table.allocate(2, "dns", Quota(), 0, 1)
        table.pin(1, "web", 1, 1)
        table.withdraw("web", extent)
        table.withdraw("web", extent)
        assert table.used(1) == 0 and table.used(2) == 1 and table.free_count == 15

    def test_find_looks_inside_a_range_only(self, table: PageTable) -> None:
        table.allocate(1, "web", Quota(), 5, 1)
        assert table.find(4, 4, 2) == 6
        assert table.find(4, 4, 3) is None
        assert table.find(14, 100, 2) == 14

    def test_forget_and_describe(self, table: PageTable) -> None:
        table.allocate(1, "web", Quota(), 2, 2)
        assert table.describe() == {
            "total": 16,
            "free": 14,
            "extents": [{"env": 1, "first": 2, "count": 2, "held": 2}],
        }
        assert table.forget(1) == 2 and table.forget(1) == 0
        assert table.describe()["extents"] == []
