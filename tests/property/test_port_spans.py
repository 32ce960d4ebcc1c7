# SPDX-License-Identifier: MIT
"""A shape is not asked of frames to ports that none of its entries has; it is of all that it would take."""

import random
import struct
from functools import cache

import pytest

from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from tests.demux_box import Demux, Frame
from tests.guarded import Codes

PORTS = (0, 1, 53, 80, 100, 101, 255, 256, 1000, 1023, 1024, 5000, 65534, 65535)
HOST, HOST6 = "10.7.0.2", "fd00::2"


def of_port(chosen: random.Random) -> str:
    """What a filter may say of the destination port: all of it, a part, a range, or nothing."""
    port, other = chosen.choice(PORTS), chosen.choice(PORTS)
    ways = (
        f"dst port {port}",
        f"udp[2:2] & {chosen.choice((0xFF00, 0xFFF0, 0x00FF, 0x8001, 0x0F00))} = {port}",
        f"udp[2] = {port >> 8}",
        f"udp[3] = {port & 255}",
        f"dst portrange {min(port, other)}-{max(port, other)}",
        "udp",
    )
    return chosen.choice(ways)


@cache
def conjuncts(text: str) -> tuple[Conjunct, ...]:
    return compile_filter(text).conjuncts


def drawn(chosen: random.Random, number: int) -> tuple[Conjunct, ...]:
    """Each number has a payload mask of its own, so that most are shapes of their own. `udp[2]` is of IPv4 alone."""
    six = chosen.random() < 0.3
    said = of_port(chosen)
    if six and "[" in said:
        at = 56 + ("udp[3]" in said)
        said = f"ether[{at}:{2 if ':2' in said else 1}]" + said.partition("]")[2]
    payload = f"ether[{70 + number % 6}] & {1 << number % 8 | 1 << number // 8 % 8} != {chosen.choice((0, 1))}"
    to = "" if chosen.random() < 0.2 else f" and dst host {HOST6 if six else HOST}"
    text = f"{'ip6 and ip6[6] = 17' if six else 'ip and udp'}{to} and {said} and {payload}"
    try:
        return conjuncts(text)
    except FilterError:  # a mask and a value that contradict each other
        return ()


def frame(chosen: random.Random) -> Frame:
    port = chosen.choice((*PORTS, chosen.randrange(65536)))
    payload = chosen.randbytes(24) if chosen.random() < 0.8 else bytes(24)
    udp = struct.pack(">HHHH", chosen.choice(PORTS), port, 8 + len(payload), 0) + payload
    if chosen.random() < 0.7:
        options = bytes(4 * chosen.choice((0, 0, 0, 0, 1, 5, 10)))
        first, fragment = 0x45 + len(options) // 4, chosen.choice((0, 0, 0, 0, 0x2000, 5))
        if chosen.random() < 0.05:
            first = chosen.randrange(256)
        head = struct.pack(">BBHHHBBH", first, 0, 20 + len(options) + len(udp), 1, fragment, 64, 17, 0)
        data = (
            bytes(12) + b"\x08\x00" + head + bytes((10, 0, 0, 1, 10, 7, 0, chosen.choice((2, 2, 2, 3)))) + options + udp
        )
    else:
        addresses = bytes(16) + b"\xfd" + bytes(14) + bytes([chosen.choice((2, 2, 3))])
        data = bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + addresses + udp
    if chosen.random() < 0.2:
        data = data[: chosen.randrange(len(data))]
    return data, len(data)


def wanted(bound: dict[int, tuple[Conjunct, ...]], data: Frame) -> set[int | None]:
    """Who may get the frame: those of the first rank, which several may share."""
    taking = [(one.rank[:2], binding) for binding, each in bound.items() for one in each if one.matches(*data)]
    first = min(taking, default=None)
    return {binding for rank, binding in taking if first and rank == first[0]} or {None}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_r05_whatever_is_said_of_ports_the_most_specific_wins(seed: int, native: bool) -> None:
    if native:
        pytest.importorskip("llvmlite", reason="llvmlite is not installed: there is no native code to test")
    chosen, demux, codes = random.Random(seed), Demux(seed), Codes() if native else None
    bound: dict[int, tuple[Conjunct, ...]] = {}
    taken = 0
    for number in range(160):
        new = drawn(chosen, number)
        if len(bound) > 50 and chosen.random() < 0.5:
            gone = chosen.choice(sorted(bound))
            assert demux.remove(gone) == len(bound.pop(gone))
        elif new and not any(one in each for one in new for each in bound.values()):
            demux.bind(number, new)
            bound[number] = new
        if number % 16 != 15:
            continue
        if codes and number > 140:
            codes.install(demux)
        frames = [frame(chosen) for _ in range(128)]
        for owner, data in zip(demux.classify(frames), frames, strict=True):
            may = wanted(bound, data)
            assert owner in may, (data[0].hex(), owner, may)
            taken += owner is not None
    assert taken > 200 and demux.shapes > 20
    for binding in list(bound):
        demux.remove(binding)
    assert (demux.shapes, demux.conjuncts) == (0, 0)
