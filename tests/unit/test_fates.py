# SPDX-License-Identifier: MIT
"""Per-packet fates: from the native ledger to Parquet."""

import errno
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from exonet.abi import ffi, lib
from exonet.errors import RunError, UsageError
from exonet.fates import SCHEMA, Fates


def meet(native: Any, number: int, reason: int, env: int = 0, stamp: int = 0, arrived: int = 0, ended: int = 0) -> None:
    frame = ffi.new("struct exo_frame *", {"id": number, "stamp": stamp, "ts": arrived, "port": 1})
    lib.exo_ledger_fate(native, frame, reason, env, ended)


@pytest.fixture
def native() -> Any:
    return ffi.new("struct exo_ledger *")


def names(number: int) -> str:
    return {1: "web", 2: "dns"}.get(number, f"environment {number}")


def test_each_fate_becomes_a_row(native: Any, tmp_path: Path) -> None:
    path = tmp_path / "fates.parquet"
    with Fates(native, path, names) as fates:
        meet(native, 0, lib.EXO_R_DELIVERED, env=1, stamp=1_700_000_000_000_000_001, arrived=100, ended=350)
        meet(native, 1, lib.EXO_R_DEMUX_NO_MATCH, arrived=200, ended=200)
        meet(native, 2, lib.EXO_R_SOURCE_EXCLUDED, stamp=5, arrived=10, ended=50)
        meet(native, 3, lib.EXO_R_SENT, env=2, arrived=7, ended=9)
        meet(native, 4, lib.EXO_R_RING_FULL, env=9, arrived=900, ended=800)
        assert fates.drain() == 5
    table = parquet.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [
        {"index": 0, "segment": 0, "timestamp_ns": 1_700_000_000_000_000_001, "stage": "stack", "reason": "delivered",
         "environment": "web", "port": 1, "latency_ns": 250, "converted": False},
        {"index": 1, "segment": 0, "timestamp_ns": None, "stage": "demux", "reason": "no_match",
         "environment": None, "port": 1,
         "latency_ns": 0, "converted": False},
        {"index": 2, "segment": 0, "timestamp_ns": 5, "stage": "source", "reason": "excluded",
         "environment": None, "port": 1,
         "latency_ns": None, "converted": False},
        {"index": 3, "segment": 0, "timestamp_ns": None, "stage": "transmit", "reason": "sent",
         "environment": "dns", "port": 1,
         "latency_ns": 2, "converted": False},
        {"index": 4, "segment": 0, "timestamp_ns": None, "stage": "ring", "reason": "full",
         "environment": "environment 9",
         "port": 1, "latency_ns": None, "converted": False},
    ]  # fmt: skip


def test_a_csv_file_is_csv(native: Any, tmp_path: Path) -> None:
    path = tmp_path / "fates.csv"
    with Fates(native, path, names, batch=1) as fates:
        meet(native, 0, lib.EXO_R_DELIVERED, env=1, stamp=1_700_000_000_000_000_001, arrived=100, ended=350)
        fates.drain()
        meet(native, 1, lib.EXO_R_SOURCE_EXCLUDED, arrived=200, ended=200)
    assert path.read_text().splitlines() == [
        ",".join(f'"{field.name}"' for field in SCHEMA),
        '0,0,1700000000000000001,"stack","delivered","web",1,250,false',
        '1,0,,"source","excluded",,1,,false',
    ]


def test_memory_is_bounded_and_what_found_no_room_is_told(native: Any, tmp_path: Path) -> None:
    path = tmp_path / "fates.parquet"
    with Fates(native, path, names, capacity=10, batch=16) as fates:
        for turn in range(8):
            for number in range(12):
                meet(native, 12 * turn + number, lib.EXO_R_DELIVERED, env=1)
            assert fates.drain() == 10
        assert fates.lost == 16
    file = parquet.ParquetFile(path)
    assert file.metadata.num_rows == 80
    assert file.num_row_groups == 4
    assert file.metadata.metadata[b"exonet.fates_lost"] == b"16"


def test_no_fates_make_an_empty_file_and_closing_twice_is_fine(native: Any, tmp_path: Path) -> None:
    fates = Fates(native, tmp_path / "none.parquet", names)
    fates.close()
    fates.close()
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0
    assert native.fates == ffi.NULL


def test_nothing_is_recorded_unless_asked(native: Any) -> None:
    meet(native, 0, lib.EXO_R_DELIVERED)
    assert (native.fate_count, native.fates_lost, native.drop[lib.EXO_R_DELIVERED]) == (0, 0, 1)


def test_a_file_that_cannot_be_written_is_refused(native: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fates file .*fates\.parquet: cannot be written"):
        Fates(native, tmp_path / "missing" / "fates.parquet", names)


def test_absurd_capacity_is_out_of_memory(native: Any) -> None:
    assert lib.exo_ledger_record(native, 1 << 62) == lib.EXO_E_MEMORY
    assert native.fates == ffi.NULL


def test_a_disk_that_fills_up_fails_the_run_and_names_the_file(
    native: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fates.parquet"
    fates = Fates(native, path, names, batch=1)
    meet(native, 0, lib.EXO_R_DELIVERED, env=1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_batch", full)
    monkeypatch.setattr(parquet.ParquetWriter, "close", full)
    assert fates.drain() == 1
    assert native.fates == ffi.NULL, "nothing is recorded for a file that takes nothing"
    meet(native, 1, lib.EXO_R_DELIVERED, env=1)
    assert fates.drain() == 0
    with pytest.raises(RunError, match=r"fates\.parquet: cannot be written: No space left on device"):
        fates.close()
    fates.close()  # and nothing more is said
    monkeypatch.undo()
