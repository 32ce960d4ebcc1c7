# SPDX-License-Identifier: MIT
"""Who classifies a working set: exonet's demux, libpcap filter by filter, DPDK's rte_acl. Each gives ns per frame.

Time is the thread's own on the processor: another program on the core costs no more than what it does to the caches.
A run counts only where every frame got its right owner, else RunError. All three run the same frames in the same order,
in bursts of 64 (libpcap knows none), in memory of their own in huge pages where the system gives them.
"""

import contextlib
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from exonet.abi import ffi, lib
from exonet.errors import MissingError, RunError
from exonet.filters.libpcap import Libpcap
from exonet.lab.bench import Context, Skip
from tests.bench.bench_build import build, build_shared, dpdk_flags
from tests.bench.bench_demux_cases import SIZE, Bytes, Demuxed, Table, Work

_POINTER, _U32, _U64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64


def _owned(good: int, work: Work, rounds: int, who: str) -> None:
    wanted = work.count * rounds
    if good != wanted:
        raise RunError(f"{who}: {wanted - good} of {wanted} {work.name} frames got a wrong owner")


def _order(work: Work) -> int | None:
    return None if work.order is None else int(work.order.ctypes.data)


class Ours:
    """exo_demux_classify, burst by burst."""

    def __init__(self, context: Context) -> None:
        self._drive = ctypes.CDLL(str(build_shared(context, "demuxdrive"))).drive
        self._drive.restype = _U64
        self._drive.argtypes = [_POINTER, _POINTER, _POINTER, _U32, _U32, _POINTER, _U64, _U32, _POINTER]
        self._classify = int(ffi.cast("uintptr_t", ffi.addressof(lib, "exo_demux_classify")))

    def nanoseconds(self, table: Table | Demuxed, work: Work) -> float:
        """Per frame, as the demux answers now."""
        self_ = int(ffi.cast("uintptr_t", table.native))
        frames, right = work.frames.ctypes.data, work.right.ctypes.data
        start = time.thread_time_ns()
        good = self._drive(self._classify, self_, frames, SIZE, SIZE, _order(work), work.count, work.rounds, right)
        spent = time.thread_time_ns() - start
        _owned(good, work, work.rounds, "demux")
        return spent / (work.count * work.rounds)


class Libpcaps:
    """libpcap's bpf_filter over one program per value, in sequence. Skip where libpcap is not installed."""

    def __init__(self, context: Context, texts: Sequence[str]) -> None:
        try:
            libpcap = Libpcap()
        except MissingError as error:
            raise Skip(str(error)) from None
        self._programs = [libpcap.compile(text) for text in texts]
        addresses = [program.addresses for program in self._programs]
        self._run = addresses[0][0]
        self._array = (_POINTER * len(texts))(*(address for _, address in addresses))
        self._drive = ctypes.CDLL(str(build_shared(context, "pcapdrive"))).drive
        self._drive.restype = _U64
        self._drive.argtypes = [_POINTER, _POINTER, _U32, _POINTER, _U32, _U32, _POINTER, _U64, _U32, _POINTER]

    def nanoseconds(self, work: Work, frames: int) -> float:
        """Per frame; `frames` in all are enough, it takes its time."""
        count = min(frames, work.count)
        at, right = work.frames.ctypes.data, work.right.ctypes.data
        start = time.thread_time_ns()
        good = self._drive(self._run, self._array, len(self._programs), at, SIZE, SIZE, _order(work), count, 1, right)
        spent = time.thread_time_ns() - start
        if good != count:
            raise RunError(f"libpcap: {count - good} of {count} {work.name} frames got a wrong owner")
        return spent / count


class RteAcl:
    """DPDK's rte_acl in a process of its own, a rule per frame of `values`. Skip where it cannot run."""

    def __init__(self, context: Context, values: Bytes) -> None:
        flags, libraries = dpdk_flags()
        program = build(context, "acldrive", flags, libraries)
        self._directory = Path(tempfile.mkdtemp(dir=context.work))
        self._said = (self._directory / "said").open("w+b")
        file = self._write("values", values)
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        arguments = ["--no-huge", "--no-pci", "-m", "64", "--no-telemetry", "--no-shconf", "--log-level=error"]
        arguments += ["--force-max-simd-bitwidth=512", f"--lcores=0@({cores})"]
        self._process = subprocess.Popen(
            [str(program), *arguments, "--", file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        # The environment abstraction layer may say something first.
        while not (line := self._answer()).startswith("methods:"):
            pass
        self.methods = line.split()[1:]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _write(self, name: str, array: Bytes) -> str:
        path = self._directory / name
        array.tofile(path)
        return str(path)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            last = (self._said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise Skip(f"rte_acl does not run here: {last}")
        return line

    def nanoseconds(self, work: Work, method: str) -> float:
        """Per frame."""
        paths = [self._directory / f"{work.name}.{part}" for part in ("frames", "right", "order")]
        arrays = (work.frames, work.right, work.order)
        for path, array in zip(paths, arrays, strict=True):
            if array is not None and not path.exists():
                array.tofile(path)
        order = "-" if work.order is None else str(paths[2])
        assert self._process.stdin is not None
        self._process.stdin.write(f"{method} {paths[0]} {paths[1]} {order} {work.rounds}\n")
        self._process.stdin.flush()
        nanoseconds, good, total = self._answer().split()
        _owned(int(good), work, work.rounds, f"rte_acl {method}")
        return float(nanoseconds) / int(total)


@contextlib.contextmanager
def rte_acl(context: Context, values: Bytes) -> Iterator[RteAcl]:
    peer = RteAcl(context, values)
    try:
        yield peer
    finally:
        peer.close()
