# SPDX-License-Identifier: MIT
"""The dispatch on destinations asks every shape that may match: many shapes over many addresses, come and gone."""

import random
import struct
from dataclasses import dataclass
from typing import Any

import pytest

from exonet.abi import check, lib
from exonet.filters.compile import compile_filter
from exonet.filters.conjunct import Conjunct
from tests.demux_box import Demux, Frame
from tests.guarded import Codes

#: Fields of an IPv4 or IPv6 frame with UDP: how many bits each fixes, no sum of some equal to the sum of others,
#: with the destination's 32 or 128 or without.
FIELDS = ("source", "sport", "low", "high", "bit")
BITS = {"source": 30, "sport": 16, "low": 8, "high": 4, "bit": 1}
VALUES = {"source": 3, "sport": 3, "low": 2, "high": 2, "bit": 2}
HOSTS = 6


@dataclass(frozen=True)
class Filter:
    """dst -1: not fixed."""

    layer: str
    dst: int
    fixed: tuple[tuple[str, int], ...]

    def matches(self, layer: str, dst: int, values: dict[str, int]) -> bool:
        return (
            layer == self.layer and self.dst in (-1, dst) and all(values[name] == value for name, value in self.fixed)
        )

    @property
    def bits(self) -> int:
        address = {"ip": 32, "ip6": 128}[self.layer] if self.dst >= 0 else 0
        return address + sum(BITS[name] for name, _ in self.fixed)

    def conjunct(self) -> Conjunct:
        six = self.layer == "ip6"
        payload = 62 if six else 42
        words = {
            "source": lambda v: f"ether[{34 if six else 26}:4] & 0xfffffffc = {v << 2}",
            "sport": lambda v: f"ether[{payload - 8}:2] = {v + 1}",
            "low": lambda v: f"ether[{payload}] = {v}",
            "high": lambda v: f"ether[{payload + 1}] & 0xf0 = {v << 4}",
            "bit": lambda v: f"ether[{payload + 2}] & 1 = {v}",
        }
        parts = [
            self.layer,
            "ip6[6] = 17" if six else "ip proto 17",
            *(words[name](value) for name, value in self.fixed),
        ]
        if self.dst >= 0:
            parts.append(f"dst host {f'fd00::f{self.dst:x}' if six else f'10.7.0.{self.dst}'}")
        (only,) = compile_filter(" and ".join(parts)).conjuncts
        return only


def frame_of(layer: str, dst: int, values: dict[str, int]) -> Frame:
    payload = bytes([values["low"], values["high"] << 4, values["bit"]]) + bytes(30)
    udp = struct.pack(">HHHH", values["sport"] + 1, 53, 8 + len(payload), 0) + payload
    if layer == "ip":
        head = bytes((0x45, 0)) + struct.pack(">HHHBBH", 20 + len(udp), 1, 0, 64, 17, 0)
        head += bytes((0, 0, 0, values["source"] << 2 | 1, 10, 7, 0, dst))
        data = bytes(12) + b"\x08\x00" + head + udp
    else:
        source, to = bytes(15) + bytes([values["source"] << 2]), b"\xfd" + bytes(14) + bytes([0xF0 + dst])
        data = bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + source + to + udp
    return data, len(data)


def drawn(chosen: random.Random) -> Filter:
    names = [name for name in FIELDS if chosen.random() < 0.5]
    dst = -1 if chosen.random() < 0.1 and names else chosen.randrange(HOSTS)
    return Filter(chosen.choice(("ip", "ip6")), dst, tuple((name, chosen.randrange(VALUES[name])) for name in names))


def wanted(bound: dict[Filter, int], layer: str, dst: int, values: dict[str, int]) -> int | None:
    taking = [each for each in bound if each.matches(layer, dst, values)]
    return bound[max(taking, key=lambda each: each.bits)] if taking else None


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_r04_the_most_specific_of_many_shapes_wins_at_every_address(seed: int, native: bool) -> None:
    if native:
        pytest.importorskip("llvmlite", reason="llvmlite is not installed: there is no native code to test")
    chosen, demux, codes = random.Random(seed), Demux(seed), Codes() if native else None
    bound: dict[Filter, int] = {}
    for number in range(240):
        if bound and chosen.random() < 0.4:
            gone = chosen.choice(sorted(bound, key=bound.__getitem__))
            assert demux.remove(bound.pop(gone)) == 1
        else:
            new = drawn(chosen)
            if new not in bound:
                demux.bind(number, [new.conjunct()])
                bound[new] = number
        if number % 8:
            continue
        if codes and number > 200:
            codes.install(demux)
        asked = []
        for _ in range(64):
            values = {name: chosen.randrange(VALUES[name]) for name in FIELDS}
            asked.append((chosen.choice(("ip", "ip6")), chosen.randrange(HOSTS + 1), values))
        assert demux.classify([frame_of(*each) for each in asked]) == [wanted(bound, *each) for each in asked]
    for each in list(bound):
        demux.remove(bound.pop(each))
    assert (demux.shapes, demux.conjuncts) == (0, 0)


def at_address(box: Any, address: int) -> Any:
    """The box with another IPv4 destination: the words at 28 and 32 hold two bytes of it each."""
    for atom in box.atom[0 : box.atoms]:
        if atom.base == lib.EXO_BASE_FRAME and atom.offset == 28:
            atom.value = address >> 16
        elif atom.base == lib.EXO_BASE_FRAME and atom.offset == 32:
            atom.value = (address & 0xFFFF) << 16
    return box


def test_more_sets_of_shapes_than_there_is_room_for_are_asked_in_full() -> None:
    """8,000 addresses, each with shapes of its own choice out of thirteen: some fall back to all, none is answered
    wrong.
    """
    demux, base = Demux(5), 10 << 24
    boxes = [
        compile_filter(f"ip proto 17 and dst host 10.1.2.3 and ether[{50 + i}] = 7").conjuncts[0].to_native(0)
        for i in range(13)
    ]
    frames, owners = [], []
    for address in range(1, 8001):
        chosen = [i for i in range(13) if address >> i & 1]
        for i in chosen:
            box = at_address(boxes[i], base + address)
            box.binding = address * 13 + i
            check(lib.exo_demux_insert(demux.native, box), "conjunct")
        data = bytearray(frame_of("ip", 0, dict.fromkeys(FIELDS, 0))[0])
        data[30:34] = (base + address).to_bytes(4, "big")
        data[50 + chosen[-1]] = 7
        frames.append((bytes(data), len(data)))
        owners.append(address * 13 + chosen[-1])
    assert demux.classify(frames) == owners
    for address in range(1, 8001):
        for i in range(13):
            assert demux.remove(address * 13 + i) == address >> i & 1
    assert (demux.shapes, demux.conjuncts) == (0, 0)
