# SPDX-License-Identifier: MIT
"""Per-packet fates: `struct exo_fate` records of the native ledger, streamed into a file with bounded memory: CSV where
its name ends so, else Parquet.

Columns: index (the packet's number in its source), segment (0, or which it is of those the packet was cut into),
timestamp_ns (the capture's own; null where there is none), stage,
reason, environment, port, latency_ns (arrival to end; null for what never arrived at the machine), converted (to an
Ethernet frame from a packet of another link type).
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from pyarrow import csv, parquet

from exonet.abi import check, ffi, lib, reason_name, stage_name
from exonet.closing import Closing
from exonet.errors import ExonetError, UsageError, not_written

RECORD = numpy.dtype(
    [
        ("id", "u8"),
        ("stamp", "u8"),
        ("arrived", "u8"),
        ("ended", "u8"),
        ("env", "u4"),
        ("reason", "u1"),
        ("converted", "u1"),
        ("port", "u2"),
    ]
)
#: The bits of a frame's number that say which segment of its packet it is.
SEGMENT = numpy.uint64(lib.EXO_SEGMENT_MASK << lib.EXO_SEGMENT_SHIFT)
WORD = pyarrow.dictionary(pyarrow.int16(), pyarrow.string())
SCHEMA = pyarrow.schema(
    [
        ("index", pyarrow.uint64()),
        ("segment", pyarrow.uint16()),
        ("timestamp_ns", pyarrow.uint64()),
        ("stage", WORD),
        ("reason", WORD),
        ("environment", WORD),
        ("port", pyarrow.uint16()),
        ("latency_ns", pyarrow.uint64()),
        ("converted", pyarrow.bool_()),
    ]
)


class Fates(Closing):
    """Records the fates of a machine's frames into `path`. Call drain() when the loop comes back with EXO_RUN_FATES.

    native: the machine's `struct exo_ledger *`. name_of: an environment's name by number. capacity: fates between two
    drains. `lost` counts fates that found no room; a Parquet file's metadata has it under `exonet.fates_lost`.
    UsageError where the file cannot be made. Where it takes no more, recording ends and the run goes on: `close` says
    so (RunError), once.
    """

    def __init__(
        self,
        native: Any,
        path: Path | str,
        name_of: Callable[[int], str],
        *,
        capacity: int = 1 << 18,
        batch: int = 1 << 16,
    ) -> None:
        self.path = Path(path)
        self.rows = 0
        self._native = native
        self._name_of = name_of
        self._batch = batch
        self._pending: list[Any] = []
        self._pending_rows = 0
        self._error: ExonetError | None = None
        self._writer: Any = None
        try:
            self._writer = _Csv(self.path) if self.path.suffix == ".csv" else _Parquet(self.path)
        except OSError as error:
            self._fail(error)
            if isinstance(self._error, UsageError):
                raise self._error from None
            return
        check(lib.exo_ledger_record(native, capacity), f"recording {capacity} fates")

    @property
    def lost(self) -> int:
        return int(self._native.fates_lost)

    def drain(self) -> int:
        """Takes what the ledger has recorded since the last drain; returns how many fates that were."""
        count = int(self._native.fate_count)
        if count:
            raw = bytes(ffi.buffer(self._native.fates, count * RECORD.itemsize))
            self._native.fate_count = 0
            self._pending.append(numpy.frombuffer(raw, RECORD))
            self._pending_rows += count
            self.rows += count
            if self._pending_rows >= self._batch:
                self._write()
        return count

    def flush(self) -> None:
        """Drains, and gives names to all there is: before one of them is forgotten."""
        self.drain()
        self._write()

    def end(self) -> None:
        """Drains, ends the file and stops recording. Idempotent."""
        if self._writer is None:
            return
        self.flush()
        if self._writer is None:
            return
        try:
            self._writer.end(self.lost)
        except OSError as error:
            self._fail(error)
        self._stop()

    def close(self) -> None:
        """`end`; raises RunError where the file does not hold all."""
        self.end()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        if not self._pending:
            return
        records = numpy.concatenate(self._pending)
        self._pending, self._pending_rows = [], 0
        try:
            self._writer.write(columns(records, self._name_of))
        except OSError as error:
            self._fail(error)
            with suppress(OSError):
                self._writer.end(self.lost)
            self._stop()

    def _fail(self, error: OSError) -> None:
        if self._error is None:
            self._error = not_written(f"fates file {self.path}", error)

    def _stop(self) -> None:
        self._writer.forget()
        self._writer = None
        lib.exo_ledger_record(self._native, 0)


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._file = parquet.ParquetWriter(path, SCHEMA, compression="zstd")

    def write(self, batch: Any) -> None:
        self._file.write_batch(batch)

    def end(self, lost: int) -> None:
        self._file.add_key_value_metadata({"exonet.schema": "1", "exonet.fates_lost": str(lost)})
        self._file.close()

    def forget(self) -> None:
        self._file.is_open = False  # where it could not be closed it would try again when it is collected


class _Csv:
    """The same columns with a header; what has no value is an empty field."""

    def __init__(self, path: Path) -> None:
        self._schema = pyarrow.schema(
            [field.with_type(pyarrow.string()) if field.type == WORD else field for field in SCHEMA]
        )
        options = csv.WriteOptions(quoting_style="needed")
        self._file = csv.CSVWriter(path, self._schema, write_options=options)

    def write(self, batch: Any) -> None:
        plain = [column.cast(field.type) for column, field in zip(batch, self._schema, strict=True)]
        self._file.write_batch(pyarrow.record_batch(plain, schema=self._schema))

    def end(self, lost: int) -> None:
        self._file.close()

    def forget(self) -> None:
        pass


def columns(records: Any, name_of: Callable[[int], str]) -> Any:
    """A record batch of SCHEMA from an array of RECORD."""
    stages, reasons, arrived = _words()
    no_latency = ~arrived[records["reason"]] | (records["ended"] < records["arrived"])
    numbers, env = numpy.unique(records["env"], return_inverse=True)
    names = pyarrow.array(
        [None if number == lib.EXO_NO_ENV else name_of(int(number)) for number in numbers], pyarrow.string()
    )
    return pyarrow.record_batch(
        [
            pyarrow.array(records["id"] & ~SEGMENT),
            pyarrow.array((records["id"] & SEGMENT) >> lib.EXO_SEGMENT_SHIFT, pyarrow.uint16()),
            pyarrow.array(records["stamp"], mask=records["stamp"] == 0),
            _dictionary(stages, records["reason"]),
            _dictionary(reasons, records["reason"]),
            names.take(pyarrow.array(env)).dictionary_encode().cast(WORD),
            pyarrow.array(records["port"]),
            pyarrow.array(records["ended"] - records["arrived"], mask=no_latency),
            pyarrow.array(records["converted"] != 0),
        ],
        schema=SCHEMA,
    )


def _words() -> tuple[list[str], list[str], Any]:
    """By reason number: the stage's name, the reason's without it, and whether such a frame arrived at the machine."""
    numbers = range(lib.EXO_REASONS)
    stages = [stage_name(lib.exo_reason_stage(number)) for number in numbers]
    reasons = [reason_name(number).rpartition(".")[2] for number in numbers]
    return stages, reasons, numpy.array([stage not in ("source", "tap") for stage in stages])


def _dictionary(words: list[str], indices: Any) -> Any:
    distinct = sorted(set(words))
    index = numpy.array([distinct.index(word) for word in words], dtype="i2")
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(index[indices]), pyarrow.array(distinct))
