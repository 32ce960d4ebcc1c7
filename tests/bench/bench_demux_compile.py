# SPDX-License-Identifier: MIT
"""From a bind with a new shape to native code that answers for it, however many shapes there are."""

import statistics
from collections.abc import Iterator

from exonet.abi import ffi, lib
from exonet.clock import Stopwatch
from exonet.errors import RunError
from exonet.filters.native import available
from exonet.lab.bench import Context, Figure, Skip, Target
from tests.bench.bench_compile_live import live
from tests.bench.bench_demux_cases import SIZE, UDP, Bytes, Table, ip4_frames, ip6_frames, numbers

MOST_MS = 25
#: How many new shapes a sample is the median of.
NEW = 9
WIDE = "udp and src host fd00::9 and dst host fd00::2 and src port 1000 and dst port 53"


def _shape(number: int) -> str:
    """A filter with a shape of its own: bits of a byte of the payload that no other number looks at."""
    return f"ip and udp and dst port 53 and ether[{44 + number % 16}] & {3 + 4 * (number // 16)} = 0"


def compile_(context: Context) -> Iterator[Figure]:
    """A new shape to native code that answers, ms, with one shape and with 200 in a demux; on a running machine"""
    if not available():
        raise Skip("llvmlite is not installed: pip install llvmlite")
    frame = ip4_frames(numbers(1), protocol=UDP)
    frame[:, 27:30], frame[:, 30:34] = 0, (10, 0, 0, 0)
    for present in (1, context.size(200, 4)):
        medians, worst = [], []
        for _ in context.repeat():
            taken = _added(context, present, [(_shape(present + i), frame) for i in range(context.size(NEW, 2))])
            medians.append(statistics.median(taken))
            worst.append(max(taken))
        name = f"{present} shape{'s' if present > 1 else ''} present"
        yield Figure(f"{name}: new shape", "ms", tuple(medians), Target(MOST_MS, at_most=True))
        yield Figure(f"{name}: slowest of {context.size(NEW, 2)}", "ms", tuple(worst))
    wide = tuple(_added(context, 1, [(WIDE, ip6_frames(numbers(1)))])[0] for _ in context.repeat())
    yield Figure("IPv6 4-tuple", "ms", wide, Target(MOST_MS, at_most=True))
    yield from live(context)


def _added(context: Context, present: int, new: list[tuple[str, Bytes]]) -> list[float]:
    """ms from the bind of each to its native code, in a demux with `present` shapes that have theirs."""
    some = ip4_frames(numbers(1))
    some[:, 27:34] = 0
    some[:, 30] = 10
    with Table(context.seed) as table:
        for number in range(present):
            table.bind(_shape(number), some)
        table.answer(native=True)
        taken = []
        for text, frame in new:
            watch = Stopwatch()
            (binding,) = table.bind(text, frame)
            if table.compile_new() != 1:
                raise RunError(f"{text}: not one new shape")
            taken.append(watch.seconds * 1e3)
            _answers(table, frame, int(binding))
        return taken


def _answers(table: Table, frame: Bytes, binding: int) -> None:
    """RunError unless the binding gets its frame, and by native code."""
    native, bindings = ffi.new("struct exo_frame *"), ffi.new("uint32_t[]", lib.EXO_MAX_SHAPES)
    native.data = ffi.cast("const uint8_t *", frame.ctypes.data)
    native.len = native.wire_len = SIZE
    found = lib.exo_demux_match_all(table.native, native, bindings, lib.EXO_MAX_SHAPES)
    if binding not in list(bindings[0:found]):
        raise RunError(f"binding {binding}: its frame is not its own")
