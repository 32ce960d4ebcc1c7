# SPDX-License-Identifier: MIT
"""The NIC's transmit side: gather, commit, flush."""

import pytest

from exonet.abi import ffi, lib
from tests.nic_rig import BROADCAST, GROUP, ListWire, Rig, ethernet

LAST = lib.EXO_NIC_TX_DESCRIPTORS - 1


@pytest.fixture
def rig():
    with Rig() as rig:
        lib.exo_ledger_record(rig.ledger, 1024)
        yield rig


def commit(rig, data, sender=1):
    buffer = lib.exo_nic_tx_buffer(rig.nic.native, len(data))
    if buffer == ffi.NULL:
        return False
    ffi.memmove(buffer, data, len(data))
    fields = {"data": buffer, "len": len(data), "wire_len": len(data), "sender": sender, "id": 7}
    frame = ffi.new("struct exo_frame *", fields)
    lib.exo_nic_tx_commit(rig.nic.native, frame)
    return True


def flush(rig, wire, now=0):
    return lib.exo_nic_flush(rig.nic.native, wire.native if wire else ffi.NULL, now)


def test_a_burst_leaves_in_order_and_each_frame_is_sent_once(rig):
    wire, frames = ListWire(), [ethernet(size=60 + i, fill=i) for i in range(40)]
    assert all(commit(rig, frame, sender=2) for frame in frames)
    assert flush(rig, wire, now=9) == 40
    assert wire.sent == frames
    assert flush(rig, wire) == 0
    assert rig.ledger.out[lib.EXO_S_TRANSMIT] == rig.ledger.drop[lib.EXO_R_SENT] == 40
    assert (rig.ledger.fates[39].env, rig.ledger.fates[39].ended, rig.ledger.fates[39].port) == (2, 9, 3)
    counters = rig.nic.counters
    assert (counters.tx_packets, counters.tx_bytes, counters.tx_descriptors) == (40, sum(map(len, frames)), 40)


def test_head_and_tail_move(rig):
    commit(rig, ethernet())
    commit(rig, ethernet())
    assert (rig.nic.register("TDH0"), rig.nic.register("TDT0")) == (0, 2)
    flush(rig, ListWire())
    assert (rig.nic.register("TDH0"), rig.nic.register("TDT0")) == (2, 2)
    assert rig.nic.register("ICR") & 1, "transmit descriptor written back"


def test_a_full_wire_drops_the_rest(rig):
    wire = ListWire(room=2)
    for _ in range(5):
        commit(rig, ethernet())
    assert flush(rig, wire) == 2
    assert rig.drops() == {"sent": 2, "transmit_wire_full": 3}
    assert rig.ledger.out[lib.EXO_S_TRANSMIT] == 2
    assert rig.nic.counters.tx_packets == 2


@pytest.mark.parametrize("wire", [None, ListWire(room=lib.EXO_E_SYSTEM)], ids=["no wire", "a broken wire"])
def test_a_wire_that_is_gone_is_no_carrier(rig, wire):
    commit(rig, ethernet())
    assert flush(rig, wire) == 0
    assert rig.drops() == {"transmit_no_carrier": 1}


def test_the_ring_is_full_one_before_its_size(rig):
    assert [commit(rig, b"x" * 60) for _ in range(LAST + 1)] == [True] * LAST + [False]
    assert flush(rig, ListWire()) == LAST
    assert commit(rig, ethernet())


def test_dma_memory_runs_out_and_comes_back(rig):
    wire, big = ListWire(), bytes(65535)
    n = 0
    while commit(rig, big):
        n += 1
    assert n == 16
    assert flush(rig, wire) == n
    assert commit(rig, big)


def test_buffers_that_are_not_committed_leave_holes(rig):
    wire = ListWire()
    buffers = [lib.exo_nic_tx_buffer(rig.nic.native, 100) for _ in range(3)]
    for last, (buffer, length) in enumerate(zip(buffers, (100, 90, 80), strict=True)):
        ffi.memmove(buffer, bytes([last]) * length, length)
    for which in (0, 2):
        frame = ffi.new("struct exo_frame *", {"data": buffers[which], "len": 80, "wire_len": 80})
        lib.exo_nic_tx_commit(rig.nic.native, frame)
    assert flush(rig, wire) == 2
    assert wire.sent == [bytes(80), b"\2" * 80]
    assert lib.exo_nic_tx_buffer(rig.nic.native, 60) == buffers[0], "a flush takes all of them back"
    assert flush(rig, wire) == 0


def test_what_lies_in_no_buffer_is_not_committed(rig):
    buffer = lib.exo_nic_tx_buffer(rig.nic.native, 64)
    for at, length in ((0, 65), (1, 64), (64, 1), (-1, 1)):
        frame = ffi.new("struct exo_frame *", {"data": buffer + at, "len": length, "wire_len": length})
        lib.exo_nic_tx_commit(rig.nic.native, frame)
    assert flush(rig, ListWire()) == 0


def test_a_commit_without_a_buffer_does_nothing(rig):
    lib.exo_nic_tx_commit(rig.nic.native, ffi.new("struct exo_frame *", {"len": 0}))
    assert flush(rig, ListWire()) == 0


def test_group_frames_are_counted(rig):
    for to in (BROADCAST, GROUP, GROUP):
        commit(rig, ethernet(to=to))
    flush(rig, ListWire())
    assert (rig.nic.register("BPTC"), rig.nic.register("MPTC"), rig.nic.register("GPTC")) == (1, 2, 3)
    assert rig.nic.register("GOTCL") == rig.nic.register("TOTL") == 180


def test_r08_a_group_frame_of_an_environment_goes_out_and_comes_back(rig):
    wire, data = ListWire(), ethernet(to=BROADCAST)
    commit(rig, data)
    flush(rig, wire)
    rig.receive(data, flags=lib.EXO_F_LOCAL)
    assert wire.sent == [frame.data for frame in rig.take()] == [data]
    assert rig.nic.counters.switched == 1
