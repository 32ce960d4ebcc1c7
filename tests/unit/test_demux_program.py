# SPDX-License-Identifier: MIT
"""Programs that a conjunct asks besides its box: they say what libpcap says; what demux and regions make of them."""

import random
import struct

import pytest

from exonet.abi import ffi, lib
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from exonet.filters.form import Form
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.region import Kind, Region, overlap, relation
from exonet.filters.span import LENGTH, program_of, program_space
from exonet.kernel.regions import Regions
from tests.demux_box import Demux

LOADS = (0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xB1)
STORES = (0x02, 0x03)
SUMS = tuple(
    operation << 4 | source | 4 for operation in range(11) for source in (0, 8) if operation != 8 or not source
)
JUMPS = tuple(operation << 4 | source | 5 for operation in range(1, 5) for source in (0, 8))
MOVES = (0x07, 0x87)
CELLS = 4
SAME = "ip[12:4] = ip[16:4]"
OTHER = "ip[14:2] = ip[18:2]"

Fields = tuple[int, int, int, int]


def code(*instructions: Fields) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def drawn(chosen: random.Random) -> bytes:
    """A valid program of random instructions, which mostly reads bytes that are there."""
    length = chosen.randint(2, 14)
    found: list[Fields] = [(0x02, 0, 0, cell) for cell in range(CELLS)]  # libpcap leaves them as they were before
    for at in range(length - 1):
        kind = chosen.choice((LOADS, LOADS, STORES, SUMS, SUMS, JUMPS, MOVES))
        operation, left = chosen.choice(kind), length - at - 1
        k = chosen.choice((0, 1, 2, 5, 14, 31, 32, 33, 60, 64, 255, 1 << 31, 0xFFFFFFFF))
        if kind is STORES or operation in (0x60, 0x61):
            k %= CELLS
        if operation in (0x34, 0x94):
            k = k or 3
        if operation in (0x64, 0x74):  # libpcap shifts by 32 and more as the machine happens to
            k %= 32
        found.append((operation, chosen.randrange(left), chosen.randrange(left), k))
    return code(*found, (chosen.choice((0x06, 0x16)), 0, 0, chosen.choice((0, 1, 65535))))


def answer(program: bytes, frame: bytes, wire_len: int) -> int:
    native = ffi.from_buffer("struct exo_instruction[]", program)
    return int(lib.exo_program_takes(native, len(native), ffi.from_buffer("uint8_t[]", frame), len(frame), wire_len))


def test_a_program_says_what_libpcap_says() -> None:
    chosen, run, seen = random.Random(5), Libpcap().compile("ip")._run, [0, 0]
    for _ in range(3000):
        program = drawn(chosen)
        for _ in range(4):
            frame = bytes(chosen.choice((0, 1, 5, 0x45, 255)) for _ in range(chosen.choice((0, 1, 14, 60, 66))))
            wire_len = len(frame) + chosen.choice((0, 0, 1, 70000))
            wanted = Program(run, "", program).matches(frame, wire_len)
            assert answer(program, frame, wire_len) == wanted, (program.hex(), frame.hex(), wire_len)
            seen[wanted] += 1
    assert min(seen) > 1000


ENDS = (0x06, 0, 0, 1)
INVALID = {
    "empty": b"",
    "no return": code((0x30, 0, 0, 1)),
    "a loop": code((0x00, 0, 0, 1), (0x05, 0, 0, 0xFFFFFFFE), ENDS),
    "a jump beyond the end": code((0x05, 0, 0, 1), ENDS),
    "a branch beyond the end": code((0x15, 0, 1, 7), ENDS),
    "a cell that is not there": code((0x60, 0, 0, 16), ENDS),
    "a store beyond the cells": code((0x02, 0, 0, 16), ENDS),
    "a division by zero": code((0x34, 0, 0, 0), ENDS),
    "an unknown load": code((0xA0, 0, 0, 1), ENDS),
    "an unknown operation": code((0xB4, 0, 0, 1), ENDS),
    "a negation by X": code((0x8C, 0, 0, 0), ENDS),
    "an unknown jump": code((0x55, 0, 0, 1), ENDS),
    "a code out of range": code((0x130, 0, 0, 1), ENDS),
    "an unknown return": code((0x0E, 0, 0, 1)),
    "too long": code(*[(0x30, 0, 0, 1)] * lib.EXO_MAX_PROGRAM, ENDS),
}


@pytest.mark.parametrize("program", INVALID.values(), ids=INVALID)
def test_a_program_that_is_none_is_refused(program: bytes) -> None:
    assert answer(program, bytes(60), 60) == lib.EXO_E_INVALID
    conjunct = Conjunct.of({program_space(program): (1, 1)})
    assert conjunct and program_of(conjunct.box[0][0]) == program
    if program:
        assert Demux().insert(0, conjunct) == lib.EXO_E_INVALID


def conjuncts(text: str) -> tuple[Conjunct, ...]:
    return compile_filter(text).conjuncts


def frame(source: str, destination: str, port: int = 7) -> bytes:
    ends = bytes(map(int, (source + "." + destination).split(".")))
    header = bytes.fromhex("45000028000100004006 0000".replace(" ", ""))
    return bytes(12) + b"\x08\x00" + header + ends + struct.pack(">HH", 1024, port) + bytes(16)


LAND, HALF, FAR = (frame("10.0.0.1", end) for end in ("10.0.0.1", "10.9.0.1", "172.16.3.4"))


def owners(demux: Demux) -> list[int | None]:
    return demux.classify([(data, len(data)) for data in (LAND, HALF, FAR)])


def test_r04_a_program_wins_from_its_box_and_programs_share_a_shape() -> None:
    demux = Demux()
    demux.bind(0, conjuncts("ip"))
    demux.bind(1, conjuncts(SAME))
    assert demux.shapes == 2 and owners(demux) == [1, 0, 0]
    demux.bind(2, conjuncts(f"{OTHER} and not {SAME}"))
    assert demux.shapes == 2 and owners(demux) == [1, 2, 0]
    demux.remove(1)
    assert owners(demux) == [0, 2, 0]
    demux.bind(1, conjuncts(SAME))
    demux.remove(2)
    demux.remove(0)
    assert owners(demux) == [1, None, None]


def test_the_same_program_twice_is_one_entry_and_anothers_is_a_conflict() -> None:
    demux = Demux()
    (conjunct,) = conjuncts(SAME)
    demux.insert(0, conjunct)
    demux.insert(0, conjunct)
    assert lib.exo_demux_conjuncts(demux.native) == 1
    assert demux.insert(1, conjunct) == lib.EXO_E_CONFLICT
    assert owners(demux) == [0, None, None]


def test_programs_are_told_apart_by_their_numbers_too() -> None:
    """Nothing of a program is a value that a template may fill in."""
    regions = Regions()
    for port in (80, 443, 80, 22):
        compiled = regions.prepare(f"tcp dst port {port} and {SAME}")
        for data in (LAND, FAR, frame("10.0.0.1", "10.0.0.1", port), frame("10.0.0.1", "10.0.0.2", port)):
            assert any(each.matches(data) for each in compiled.conjuncts) == Libpcap().compile(compiled.text).matches(
                data
            ), (port, data.hex())


def test_r13_a_region_knows_no_more_of_a_program_than_its_box() -> None:
    mine, other = conjuncts(SAME), conjuncts(OTHER)
    assert relation(mine, conjuncts("ip")).kind is Kind.INSIDE
    assert relation(mine, mine).kind is Kind.EQUAL
    assert relation(mine, conjuncts("ip6")).kind is Kind.DISJOINT
    assert relation(mine, other).kind is Kind.PARTIAL
    assert overlap(mine, conjuncts("tcp dst port 80"))
    assert Region(conjuncts("ip")).covers(mine)
    assert not Region(mine).covers(conjuncts("ip")) and not Region(other).covers(mine)
    narrower = conjuncts(f"tcp port 80 and {SAME}")
    assert Region(conjuncts("tcp port 80")).covers(narrower)
    assert not Region(mine).covers(narrower)  # it is another program


def test_a_conjunct_and_its_shape_say_that_there_is_a_program() -> None:
    (conjunct,) = conjuncts(SAME)
    assert "its program takes it" in str(conjunct)
    form = Form.of_conjunct(conjunct)
    assert "not refused by its program" in str(form)
    assert bytes(ffi.buffer(Form.of(form.to_native()).to_native())) == bytes(ffi.buffer(form.to_native()))


def test_frames_longer_than_a_capture_holds_are_taken_by_their_length_on_the_wire() -> None:
    for text, taken in (("greater 100", True), ("len > 1500", True), ("len > 65535", True), ("less 70000", False)):
        for wire_len in (65536, 70001, 1 << 31, (1 << 32) - 1):
            wanted = taken or wire_len <= 70000
            demux = Demux()
            demux.bind(0, conjuncts(text))
            assert Libpcap().compile(text).matches(bytes(60), wire_len) == wanted
            assert demux.classify([(bytes(60), wire_len)]) == [0 if wanted else None], (text, wire_len)
            assert any(conjunct.matches(bytes(60), wire_len) for conjunct in conjuncts(text)) == wanted


def test_a_programs_space_is_its_own() -> None:
    spaces = {program_space(program) for program in (b"", b"\0", b"\0\0", b"\1", b"ab", b"ba")}
    assert len(spaces) == 6 and max(spaces) < LENGTH
    assert {program_of(space) for space in spaces} == {b"", b"\0", b"\0\0", b"\1", b"ab", b"ba"}
    assert program_of(LENGTH) is None and program_of(0) is None and program_of(14) is None


@pytest.mark.parametrize(
    "text",
    ["geneve 12345 and (host 10.20.30.40 or not tcp port 0)", "geneve and not tcp", "geneve and (ip or not udp)"],
)
def test_options_that_reach_past_the_frame_are_refused_as_libpcap_does(text: str) -> None:
    """What a way needs of a program is not dropped because all of its known fields may be."""
    head = bytes.fromhex("02000000000202000000000108004500005000010000401100000a141e280a141e29303917c100000000")
    inner = bytes.fromhex("2400010000408400000a141edd0a141e29000703ff")
    program, conjuncts = Libpcap().compile(text), compile_filter(text).conjuncts
    for options in (0, 1, 2, 17, 63):
        for protocol in (0x0800, 0x0806, 0x86DD, 0x1234):
            data = head + bytes([options, 0]) + protocol.to_bytes(2, "big") + b"\x00\x30\x39\x00" + bytes(8) + inner
            data += bytes(30)
            taken = any(conjunct.matches(data, len(data)) for conjunct in conjuncts)
            assert taken == program.matches(data, len(data)), (options, protocol)
