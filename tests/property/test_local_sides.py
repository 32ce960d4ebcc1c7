# SPDX-License-Identifier: MIT
"""Boxes of local sides, and what is checked beside them, against the plain reference: the same verdict for each frame,
by the tables and natively, in bursts.
"""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from exonet.abi import check, ffi, lib
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, available, compile_form
from tests.localside_reference import lets
from tests.property.test_transmit_fuzz import HIGH, LOW, NET4, NET6, OWN, mutated, random_frame

MAC, ALIEN_MAC = bytes.fromhex(OWN.replace(":", "")), bytes.fromhex("020000000066")
FRAMES, BURST = 6000, lib.EXO_BURST
PREFIXES = {4: [0, 8, 29, 30, 32], 6: [0, 64, 125, 126, 128]}
PORTS = [(0, 65535)] * 4 + [(LOW, HIGH), (1500, 1500), (0, 1000), (0, 65534)]
Rows = list[dict[str, Any]]


class Sender:
    """An environment with nothing but local sides. `native`: its shapes are answered by code of their own."""

    def __init__(self, rows: Rows, code: dict[Form, NativeCode] | None = None) -> None:
        self.env = ffi.new("struct exo_env *")
        check(lib.exo_env_locals(self.env, rows, len(rows), 7), "local sides")
        if code is not None:
            for demux in filter(None, self.env.side):
                install(demux, code)

    def verdicts(self, frames: Sequence[bytes], port: int = 0) -> list[int]:
        held = [ffi.new("uint8_t[]", data) for data in frames]
        lengths = [len(data) for data in frames]
        natives = [{"data": data, "len": n, "wire_len": n, "port": port} for data, n in zip(held, lengths, strict=True)]
        array, reasons = ffi.new("struct exo_frame[]", natives), ffi.new("int32_t[]", len(frames))
        lib.exo_transmit_check(self.env, array, len(frames), reasons)
        return list(reasons)

    def close(self) -> None:
        check(lib.exo_env_locals(self.env, ffi.NULL, 0, 0), "no local sides")


def install(demux: Any, code: dict[Form, NativeCode]) -> None:
    native = ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        if lib.exo_demux_form(demux, place, native) >= 0:
            form = Form.of(native)
            if form not in code:
                code[form] = compile_form(form)
            assert code[form].install(demux)


def random_side(pick: random.Random) -> dict[str, Any]:
    family = pick.choice([4, 4, 4, 6, 6, 6, 6, 0])
    low, high = pick.choice(PORTS)
    row = {
        "mac": pick.choice([MAC] * 6 + [ALIEN_MAC, bytes(6)]),
        "any": int(pick.random() < 0.01),
        "family": family,
        "protocol": pick.choice([0, 0, 0, 17, 6, 1, 58, 60, 132]),
        "port_low": low,
        "port_high": high,
        "ethertype": pick.choice([0, 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8]),
        "port": int(pick.random() < 0.1),
    }
    if family:
        packed = (NET4 if family == 4 else NET6).network_address.packed
        row |= {
            "address": pick.choice([packed] * 4 + [bytes(16)]).ljust(16, b"\0"),
            "prefix": pick.choice(PREFIXES[family]),
        }
    return row


def corpus(seed: object, rounds: int = FRAMES) -> list[bytes]:
    pick = random.Random(f"local sides {seed}")
    return [mutated(random_frame(pick), pick) for _ in range(rounds)]


def sides(seed: int) -> Rows:
    pick = random.Random(seed)
    return [random_side(pick) for _ in range(pick.choice([1, 1, 2, 3, 8]))]


def compare(rows: Rows, frames: Sequence[bytes], found: Sequence[int]) -> int:
    for data, reason in zip(frames, found, strict=True):
        assert reason in (0, lib.EXO_R_TRANSMIT_SPOOFED)
        assert (reason == 0) == lets(rows, data), (rows, data.hex())
    return sum(not reason for reason in found)


NATIVE = pytest.mark.skipif(not available(), reason="llvmlite is not installed")


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=NATIVE)])
def test_r11_boxes_say_what_the_reference_says(native: bool) -> None:
    code: dict[Form, NativeCode] | None = {} if native else None
    frames, passed = corpus("boxes"), 0
    for seed in range(12 if native else 60):
        rows = sides(seed)
        if not any(row["port"] == 0 for row in rows):
            continue
        sender, some = Sender(rows, code), random.Random(seed).sample(frames, 640)
        for at in range(0, len(some), BURST):
            burst = some[at : at + BURST]
            passed += compare(rows, burst, sender.verdicts(burst))
        sender.close()
    assert passed > 200, "the corpus must hold frames that pass"
