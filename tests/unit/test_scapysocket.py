# SPDX-License-Identifier: MIT
"""scapy's own functions over wires: sr1, sniff, AsyncSniffer and an answering machine, in one thread and in two."""

import threading
import time
from collections.abc import Iterator

import pytest
from scapy.ansmachine import AnsweringMachine
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import AsyncSniffer, sniff

from exonet.errors import RunError
from exonet.wire import burst
from exonet.wire.cable import CableEnd, cable
from exonet.wire.scapysocket import WireSocket

ASK = Ether(dst="02:00:00:00:00:02") / IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(id=7, seq=1) / b"payload"


class Responder(AnsweringMachine):
    """Answers pings."""

    function_name = "responder"

    def is_request(self, request: Packet) -> bool:
        return ICMP in request and request[ICMP].type == 8

    def make_reply(self, request: Packet) -> Packet:
        reply = request.copy()
        reply[Ether].dst, reply[Ether].src = request[Ether].src, request[Ether].dst
        reply[IP].src, reply[IP].dst = request[IP].dst, request[IP].src
        reply[ICMP].type = 0
        del reply[ICMP].chksum
        return reply

    def print_reply(self, request: Packet, reply: Packet) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["polled", "woken"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[CableEnd, CableEnd]]:
    a, b = cable(wake=request.param)
    yield a, b
    a.close()
    b.close()


def echo(wire: CableEnd, now: int) -> None:
    """What a machine would do at the other end, without a thread: answers pings."""
    for frame in burst.receive(wire, now) or []:
        if Responder().is_request(request := Ether(frame.data)):
            burst.send(wire, [bytes(Responder().make_reply(request))], now)


def test_sr1_over_a_cable_driven_in_the_same_thread(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    socket = WireSocket(a, drive=lambda: echo(b, time.monotonic_ns()))
    answer = socket.sr1(ASK, timeout=5, verbose=0)
    assert (
        answer is not None
        and answer[ICMP].type == 0
        and answer[IP].src == "10.7.0.2"
        and answer[Raw].load == b"payload"
    )
    assert 0 <= answer.time - ASK.sent_time < 5 and abs(answer.time - time.time()) < 60


def test_functions_of_scapy_take_the_socket(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    socket = WireSocket(a, drive=lambda: echo(b, time.monotonic_ns()))
    answered, unanswered = socket.sr([ASK, ASK], timeout=5, verbose=0)
    assert len(answered) == 2 and len(unanswered) == 0
    assert socket.sr1(Ether() / ARP(), timeout=0.05, verbose=0) is None


def test_virtual_clock(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    now = 0

    def step() -> None:
        nonlocal now
        now += 1_000_000
        echo(b, now)

    answer = WireSocket(a, clock=lambda: now, drive=step).sr1(ASK, timeout=5, verbose=0)
    assert answer is not None and answer.time == pytest.approx(0.001)


def test_sniff_counts_filters_and_stops(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    burst.send(b, [bytes(ASK), bytes(Ether() / ARP()), bytes(ASK)], 0)
    socket = WireSocket(a)
    assert len(socket.sniff(count=3, timeout=5)) == 3
    burst.send(b, [bytes(ASK), bytes(Ether() / ARP())], 0)
    seen = sniff(opened_socket=socket, lfilter=lambda packet: ARP in packet, count=1, timeout=5)
    assert [packet.summary() for packet in seen] == [seen[0].summary()] and ARP in seen[0]
    assert len(socket.sniff(timeout=0.02)) == 0


def test_async_sniffer_and_its_stop(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    got = threading.Event()
    sniffer = AsyncSniffer(opened_socket=WireSocket(a), prn=lambda _: got.set(), store=True)
    sniffer.start()
    burst.send(b, [bytes(ASK)], 0)
    assert got.wait(5)
    assert len(sniffer.stop()) == 1


def test_answering_machine_in_a_thread_answers_sr1(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    server = WireSocket(b)
    machine = server.am(Responder, verbose=False, count=3)
    thread = threading.Thread(target=machine)
    thread.start()
    client = WireSocket(a)
    for sequence in range(3):
        question = Ether(dst="02:00:00:00:00:02") / IP(dst="10.7.0.2", src="10.7.0.1") / ICMP(id=7, seq=sequence)
        answer = client.sr1(question, timeout=5, verbose=0)
        assert answer is not None and answer[ICMP].seq == sequence
    thread.join(5)
    assert not thread.is_alive()


def test_malformed_frames_do_no_harm(ends: tuple[CableEnd, CableEnd]) -> None:
    a, b = ends
    burst.send(b, [b"", b"\x01", b"\xff" * 13, b"\x00" * 14, bytes(Ether() / IP() / UDP())[:30]], 0)
    burst.send(b, [bytes(ASK)], 0)
    seen = WireSocket(a).sniff(timeout=5, stop_filter=lambda packet: ICMP in packet)
    assert ICMP in seen[-1]


def test_a_full_wire_and_an_ended_one() -> None:
    a, b = cable(1)
    socket = WireSocket(a)
    with b:
        assert socket.send(ASK) == len(bytes(ASK))
        with pytest.raises(RunError, match=r"wire cable\.a: it is full"):
            socket.send(ASK)
        burst.send(b, [bytes(ASK)], 0)
    assert len(socket.sniff(timeout=5)) == 1, "ends by itself when the other end is closed"
    with pytest.raises(EOFError, match="it has ended"):
        socket.recv()
    socket.close()
    a.close()


def test_recv_without_a_frame_is_none(ends: tuple[CableEnd, CableEnd]) -> None:
    assert WireSocket(ends[0]).recv() is None
