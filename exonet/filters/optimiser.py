# SPDX-License-Identifier: MIT
"""libpcap's optimiser, checked: it gets some texts wrong, and then `tcpdump -O` is right and `tcpdump` is not.

    1/2=1/3&&1>4/5&&1>6/7        holds for every frame; the optimised program takes none
    link[0] & 0xffffffff != 0    asks for a byte; the optimised program takes every frame

Only texts that compute, or whose offsets depend on what went before, can go wrong so. They are compiled both ways, and
both programs are run over frames of every way through either of them. Where they differ the program without the
optimiser is what the text means (R5).
Reference: libpcap issues 434, 437, 1688, 1699.
"""

import random
import re
from collections.abc import Iterator, Sequence

from exonet.errors import FilterError
from exonet.filters.conjunct import FRAME, LENGTH
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.path import State
from exonet.filters.steps import Steps, Undecomposable
from exonet.filters.value import WORD
from exonet.filters.walk import MAX_FRAME, Walk

__all__ = ["compile_checked", "may_be_wrong"]

_COMPUTES = re.compile(r"[<>=]|geneve|vxlan")
MAX_STEPS = 3_000
MAX_WAYS = 128
MOST_IP4_HEADER = 60
#: Captured bytes of a frame that is tried, where the way asks for no more.
CAPTURED = 128
PLAIN = tuple(
    bytes.fromhex("0200000000020200000000010800" + ip)
    for ip in (
        "4500002a000140004006000a0a0000010a000002" + "04000050000000010000000250020200" + "00" * 40,
        "4500002a000100004011000a0a0000010a000002" + "04000035001200000001" + "00" * 40,
        "45000054000100004001000a0a0000010a000002" + "0800000000010001" + "00" * 40,
    )
)


def may_be_wrong(text: str) -> bool:
    """Is it a text of the kind that the optimiser gets wrong?"""
    return _COMPUTES.search(text) is not None


def compile_checked(library: Libpcap, text: str) -> Program:
    """The program that says what the text means. FilterError carries libpcap's own message."""
    if not may_be_wrong(text):
        return library.compile(text)
    plain = library.compile(text, optimize=False)
    try:
        optimised = library.compile(text)
    except FilterError:  # it refuses what it believes to take nothing
        if any(plain.matches(*frame) for frame in _frames((plain,))):
            return plain
        raise
    wrong = any(optimised.matches(*frame) != plain.matches(*frame) for frame in _frames((optimised, plain)))
    return plain if wrong else optimised


_Tried = tuple[bytes, int]


def _frames(programs: Sequence[Program]) -> Iterator[_Tried]:
    """Frames, and their lengths on the wire, of the ways through the programs."""
    for frame in PLAIN:
        yield frame, len(frame)
    chosen = random.Random(1)  # the same frames each time
    for program in programs:
        for state in _ways(program):
            for filling in (0x00, 0xFF, None, None):
                yield _frame(state, filling, chosen)


def _ways(program: Program) -> Iterator[State]:
    """Ways to a return, accepting or not: all of them where they are few."""
    try:
        walk = Walk(program.instructions)
        for number, state in enumerate(walk.ways(Steps(MAX_STEPS)), start=1):
            yield state
            if number == MAX_WAYS:
                return
    except Undecomposable:
        return


def _frame(state: State, filling: int | None, chosen: random.Random) -> _Tried:
    """A frame that goes that way, as far as its bits say; filling: of every byte that is open, None for random ones."""
    bits = dict(state.bits)
    for value, (low, high) in state.ranges.items():
        number = chosen.randint(low, high) if filling is None else high if filling else low
        term = value.term(WORD, number)
        if term is not None:
            space, mask, wanted = term
            known, found = bits.get(space, (0, 0))
            bits[space] = (known | mask, found & ~mask | wanted)
    at, behind = state.ip4 or (0, 0)
    length = min(max(CAPTURED, state.frame_bytes, at + MOST_IP4_HEADER + behind), MAX_FRAME)
    open_bytes = chosen.randbytes(length) if filling is None else bytes([filling]) * length
    frame = _set(int.from_bytes(open_bytes, "little"), bits.get(FRAME, (0, 0)), 0)
    for space in bits:
        if space > FRAME:  # after an IPv4 header, which has no options unless the way says so
            if not bits.get(FRAME, (0, 0))[0] >> 8 * space & 0x0F:
                frame = _set(frame, (0x0F, 0x05), space)
            frame = _set(frame, bits[space], space + 4 * (frame >> 8 * space & 0x0F))
    data = (frame & (1 << 8 * length) - 1).to_bytes(length, "little")
    known, wanted = bits.get(LENGTH, (0, 0))
    return data, length & ~known & WORD | wanted


def _set(frame: int, bits: tuple[int, int], at: int) -> int:
    """A frame as a number, with known bits set from byte `at` on."""
    known, value = bits
    return frame & ~(known << 8 * at) | value << 8 * at
