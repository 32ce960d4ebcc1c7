# SPDX-License-Identifier: MIT
"""One stack on two ports, alone: by which output a packet leaves that answers nobody."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP, Ether

from libos_stacks.abi import ffi, lib
from libos_stacks.engine import StackConfig
from tests.stack_frames import BROADCAST, IP4, MAC, PEER4, PEER_MAC


class TwoPorts:
    """A stack on ports 2 and 5, whose frames wait in memory."""

    def __init__(self) -> None:
        self.memory = {port: lib.stk_memory_new(65536) for port in (2, 5)}
        out = ffi.new("struct stk_output *")
        lib.stk_memory_output(self.memory[2], out)
        self.native: Any = lib.stk_new(StackConfig.make(MAC, f"{IP4}/24").native(), out)
        for port, memory in self.memory.items():
            lib.stk_memory_output(memory, out)
            lib.stk_output_on(self.native, port, out)
        lib.stk_output_on(self.native, 8, out)  # there is none such
        self.socket = lib.stk_udp_open(self.native, 4, ffi.NULL, 7)

    def hear(self, port: int) -> None:
        """The peer asks for us on a port, and its request is answered there."""
        frame = bytes(Ether(src=PEER_MAC, dst=BROADCAST) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER4, pdst=IP4))
        assert lib.stk_input_at(self.native, port, frame, len(frame), len(frame), 0, 0, 0) == 0

    def send(self, peer: str = PEER4, port: int = lib.STK_ANY_PORT) -> int:
        address = ip_address(peer).packed.ljust(16, b"\0")
        return int(lib.stk_udp_send_by(self.native, port, self.socket, 4, address, 9, ffi.NULL, b"hi", 2, 1))

    def sent(self) -> dict[int, list[Ether]]:
        found: dict[int, list[Ether]] = {port: [] for port in self.memory}
        frame = ffi.new("uint8_t **")
        for port, memory in self.memory.items():
            while length := lib.stk_memory_take(memory, frame):
                found[port].append(Ether(bytes(ffi.buffer(frame[0], length))))
        return found

    def close(self) -> None:
        lib.stk_free(self.native)
        for memory in self.memory.values():
            lib.stk_memory_free(memory)


@pytest.fixture
def stack() -> Iterator[TwoPorts]:
    made = TwoPorts()
    yield made
    made.close()


@pytest.mark.parametrize("port", [2, 5])
def test_it_leaves_where_its_next_hop_is_known(stack: TwoPorts, port: int) -> None:
    stack.hear(port)
    assert [p[ARP].op for p in stack.sent()[port]] == [2]
    assert stack.send() == 0
    sent = stack.sent()
    assert [UDP in p for p in sent.pop(port)] == [True] and list(sent.values()) == [[]]


def test_where_nobody_knows_the_next_hop_the_first_port_asks(stack: TwoPorts) -> None:
    assert stack.send() == 0
    assert {port: len(found) for port, found in stack.sent().items()} == {2: 1, 5: 0}


def test_a_port_that_is_named_is_taken_whatever_is_known(stack: TwoPorts) -> None:
    stack.hear(2)
    stack.sent()
    assert stack.send(port=5) == 0
    assert [[ARP in p for p in found] for found in stack.sent().values()] == [[], [True]]


def test_no_route_is_no_route_on_any_port(stack: TwoPorts) -> None:
    assert stack.send("192.0.2.1") == lib.EXO_E_NOT_FOUND


def test_a_port_that_the_stack_is_not_on_is_its_first(stack: TwoPorts) -> None:
    """The kernel never gives such a frame; whatever it says, memory stays ours."""
    stack.hear(0xFFFF)
    assert {port: len(found) for port, found in stack.sent().items()} == {2: 1, 5: 0}
