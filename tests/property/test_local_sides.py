# SPDX-License-Identifier: MIT
"""Boxes of local sides, and what is checked beside them, against the plain reference: the same verdict for each frame,
by the tables and natively, in bursts; each frame ends where readable memory does.
"""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Dot1Q, Ether

from exonet.abi import check, ffi, lib
from exonet.filters.form import Form
from exonet.filters.native import NativeCode, available, compile_form
from tests.effort import tries
from tests.guarded import Guarded
from tests.localside_reference import lets
from tests.property.test_transmit_fuzz import HIGH, LOW, NET4, NET6, OWN, SETS, mutated, random_frame

MAC, ALIEN_MAC = bytes.fromhex(OWN.replace(":", "")), bytes.fromhex("020000000066")
FRAMES, BURST = tries(1500), lib.EXO_BURST
PREFIXES = {4: [0, 8, 29, 30, 32], 6: [0, 64, 125, 126, 128]}
PORTS = [(0, 65535)] * 4 + [(LOW, HIGH), (1500, 1500), (0, 1000), (0, 65534)]
Rows = list[dict[str, Any]]


class Sender:
    """An environment with nothing but local sides. `native`: its shapes are answered by code of their own."""

    def __init__(self, rows: Rows, code: dict[Form, NativeCode] | None = None) -> None:
        self.env = ffi.new("struct exo_env *")
        self._rooms = [Guarded(2048) for _ in range(BURST)]
        check(lib.exo_env_locals(self.env, rows, len(rows), 7), "local sides")
        if code is not None:
            for demux in filter(None, self.env.side):
                install(demux, code)

    def verdicts(self, frames: Sequence[bytes], port: int = 0) -> list[int]:
        held = [room.place(data) for room, data in zip(self._rooms, frames, strict=False)]
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
    for seed in range(tries(5 if native else 20)):
        rows = sides(seed)
        if not any(row["port"] == 0 for row in rows):
            continue
        sender, some = Sender(rows, code), random.Random(seed).sample(frames, 640)
        for at in range(0, len(some), BURST):
            burst = some[at : at + BURST]
            passed += compare(rows, burst, sender.verdicts(burst))
        sender.close()
    assert passed > 200, "the corpus must hold frames that pass"


ETHER = Ether(src=OWN, dst="02:00:00:00:00:99")
V4, V6 = IP(src="10.0.0.4", dst="10.0.0.99"), IPv6(src="fd00::4", dst="fd00::99", hlim=255)
UPPER, DETECTION = UDP(sport=LOW, dport=7), IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::4")
OPTIONED = IP(src="10.0.0.4", dst="10.0.0.99", options=b"\x01" * 8)
#: What each may be sent from one of the SETS.
HONEST = {
    "udp": V4 / UPPER,
    "udp behind options": OPTIONED / UPPER,
    "udp behind a tag": Dot1Q(vlan=7) / V4 / UPPER,
    "echo": V4 / ICMP(id=LOW),
    "echo behind options": OPTIONED / ICMP(id=LOW),
    "udp6": V6 / UPPER,
    "udp6 behind a tag": Dot1Q(vlan=7) / V6 / UPPER,
    "udp6 behind an extension": V6 / IPv6ExtHdrHopByHop() / UPPER,
    "udp6 in a first fragment": V6 / IPv6ExtHdrFragment(m=1) / UPPER,
    "echo6": V6 / ICMPv6EchoRequest(id=LOW),
    "solicitation": V6 / ICMPv6ND_NS(tgt="fd00::9") / ICMPv6NDOptSrcLLAddr(lladdr=OWN),
    "advertisement": V6 / ICMPv6ND_NA(tgt="fd00::4") / ICMPv6NDOptDstLLAddr(lladdr=OWN),
    "router solicitation": V6 / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=OWN),
    "report": V6 / ICMPv6MLReport2(),
    "detection": DETECTION,
    "detection behind an extension": IPv6(src="::", dst="ff02::1", hlim=255) / IPv6ExtHdrHopByHop() / DETECTION.payload,
}


def declaring(packet: bytes, at: int) -> list[bytes]:
    """The packet with each length that its header may declare, less than there is and more; with each first byte of
    that header and small numbers behind it, headers' and options' lengths among them; and cut short. at: of the header.
    """
    field = at + (2 if packet[at] >> 4 == 4 else 4)
    lengths = [packet[:field] + n.to_bytes(2, "big") + packet[field + 2 :] for n in range(len(packet) - at + 3)]
    firsts = [packet[:at] + bytes([n]) + packet[at + 1 :] for n in range(256)]
    others = [packet[:i] + bytes([n]) + packet[i + 1 :] for i in range(at + 20, len(packet)) for n in range(3)]
    return [packet, *lengths, *firsts, *others, *(packet[:n] for n in range(14, len(packet)))]


@pytest.mark.parametrize("name", HONEST)
def test_r11_whatever_length_a_packet_declares_what_lies_behind_is_not_its_own(name: str) -> None:
    """Ports, identifiers, messages and options count where the packet's own length has them, not where bytes are."""
    packet = bytes(ETHER / HONEST[name]) + bytes(8)
    frames, passed = declaring(packet, 18 if "tag" in name else 14), set[bool]()
    for rows in SETS.values():
        sender, found = Sender(rows), list[int]()
        for at in range(0, len(frames), BURST):
            found += sender.verdicts(frames[at : at + BURST])
        compare(rows, frames, found)
        passed |= {not found[0]}
        assert any(found[1:])
        sender.close()
    assert True in passed
