# SPDX-License-Identifier: MIT
"""The NIC's receive path: descriptors, FIFO, every way to lose a frame, interrupts, and the driver's side."""

import struct
import threading

import pytest

from exonet.abi import ffi, lib
from tests.nic_rig import BROADCAST, GROUP, NEVER, OTHER, OWN, Rig, ethernet

BAD_CRC = lib.EXO_F_BAD_CRC
LOCAL = lib.EXO_F_LOCAL


def burst(n, size=60):
    return [ethernet(size=size, fill=i) for i in range(n)]


@pytest.fixture(params=[False, True], ids=["filtering", "promiscuous"])
def rig(request):
    with Rig(promiscuous=request.param) as rig:
        yield rig
        rig.conserved()


def test_frames_come_out_in_order_with_their_metadata(rig):
    frames = burst(5)
    assert rig.receive(*frames, now=77) == 5
    taken = rig.take()
    assert [frame.data for frame in taken] == frames
    assert [frame.id for frame in taken] == [0, 1, 2, 3, 4]
    assert [frame.stamp for frame in taken] == [1000, 1001, 1002, 1003, 1004]
    assert {(frame.ts, frame.port, frame.queue, frame.flags) for frame in taken} == {(77, 3, 0, 0)}


def test_one_descriptor_is_always_left_unused(rig):
    rig.receive(*burst(7))
    assert rig.nic.counters.rx_packets == 7
    assert rig.nic.register("RDH0") == rig.nic.register("RDT0") == 7
    rig.receive(ethernet())
    assert rig.nic.counters.rx_packets == 7, "head == tail means none free"
    assert rig.in_flight() == 8, "the eighth waits in the FIFO"


def test_take_gives_at_most_max_and_each_frame_once(rig):
    rig.receive(*burst(5))
    assert [frame.id for frame in rig.take(2)] == [0, 1]
    assert [frame.id for frame in rig.take(0)] == []
    assert rig.ids() == [2, 3, 4]
    assert rig.ids() == []


def test_taking_a_full_ring_stops_before_descriptors_taken_earlier(rig):
    rig.receive(*burst(7))
    assert len(rig.take(64)) == 7
    assert rig.take(64) == []


def test_untaken_frames_come_again(rig):
    rig.receive(*burst(7))
    assert [frame.id for frame in rig.take(5)] == [0, 1, 2, 3, 4]
    rig.untake(2)
    rig.conserved()
    assert rig.in_flight() == 4
    rig.refill()
    assert (rig.nic.register("RDH0"), rig.nic.register("RDT0")) == (7, 2), "three were given back"
    rig.untake(1)
    assert rig.ids() == [3, 4, 5, 6], "what was refilled is gone"
    rig.untake(100)
    rig.untake(1, queue=7)
    assert rig.ids() == [3, 4, 5, 6]


def test_nothing_is_reused_before_refill(rig):
    rig.receive(*burst(7))
    taken = ffi.new("struct exo_frame[7]")
    assert lib.exo_nic_take(rig.nic.native, 0, taken, 7) == 7
    rig.receive(*[ethernet(fill=100 + i) for i in range(4)])
    assert [bytes(ffi.buffer(taken[i].data, 60)) for i in range(7)] == burst(7)


def test_refill_drains_the_fifo_in_order(rig):
    rig.receive(*burst(11))
    assert rig.ids() == [0, 1, 2, 3, 4, 5, 6]
    rig.refill()
    assert rig.ids() == [7, 8, 9, 10]


def test_a_frame_never_overtakes_those_in_the_fifo(rig):
    rig.receive(*burst(9))
    rig.take(3)
    rig.refill()
    rig.receive(ethernet(fill=50))
    assert rig.nic.counters.rx_packets == 10, "7, then three given back: two from the FIFO, one from the wire"
    rig.refill()
    assert rig.ids() == [3, 4, 5, 6, 7, 8, 9]


def test_refill_of_an_unknown_queue_does_nothing(rig):
    rig.refill(queue=7)
    assert rig.take(queue=7) == []


@pytest.mark.parametrize("size", [14, 31, 32, 33, 42, 59, 60, 61, 64, 65, 128, 1514])
def test_every_length_is_copied_whole(rig, size):
    data = ethernet(size=size, fill=size)
    rig.receive(data)
    (frame,) = rig.take()
    assert frame.data == data


@pytest.mark.parametrize("size", [14, 20, 33, 42, 59])
def test_r07_padding_keeps_original_length(rig, size):
    rig.receive(*[ethernet(size=1514, fill=1)] * 7)
    rig.take()
    rig.refill()
    data = ethernet(size=size)
    rig.receive(*[data] * 3)
    for frame in rig.take():
        assert (frame.data, frame.wire_len) == (data, size)
        assert frame.padded == data + bytes(60 - size), "zeroes, not what an earlier frame left there"
        assert frame.flags & lib.EXO_F_PADDED


def test_r07_a_snapped_frame_is_not_called_padded(rig):
    rig.receive(ethernet(size=40), wire_len=900, flags=lib.EXO_F_SNAPPED)
    (frame,) = rig.take()
    assert (len(frame.data), frame.wire_len, frame.flags) == (40, 900, lib.EXO_F_SNAPPED)
    assert frame.padded == ethernet(size=40) + bytes(20)


def test_padding_in_the_descriptor_is_counted_as_length():
    with Rig() as rig:
        rig.receive(ethernet(size=42))
        out = ffi.new("uint8_t[16]")
        assert lib.exo_nic_descriptor(rig.nic.native, 0, 0, out) == 0
        packet_info, header_info, rss, status, length, vlan = struct.unpack("<HHIIHH", bytes(out))
        assert (packet_info, header_info, rss, status, length, vlan) == (0, 0, 0, 3, 60, 0)


def test_descriptor_shows_the_vlan_tag():
    with Rig() as rig:
        rig.receive(ethernet(ethertype=0x8100, fill=1))
        out = ffi.new("uint8_t[16]")
        lib.exo_nic_descriptor(rig.nic.native, 0, 0, out)
        _, _, _, status, _, vlan = struct.unpack("<HHIIHH", bytes(out))
        assert (status, vlan) == (1 | 2 | 8, 0x0102)


def test_descriptor_goes_back_to_read_format():
    with Rig() as rig:
        out = ffi.new("uint8_t[16]")
        lib.exo_nic_descriptor(rig.nic.native, 0, 0, out)
        fresh = bytes(out)
        rig.receive(ethernet())
        lib.exo_nic_descriptor(rig.nic.native, 0, 0, out)
        assert bytes(out) != fresh
        rig.take()
        rig.refill()
        lib.exo_nic_descriptor(rig.nic.native, 0, 0, out)
        assert bytes(out) == fresh


def test_descriptor_views_refuse_what_is_not_there(rig):
    out = ffi.new("uint8_t[4096]")
    for queue, index in ((1, 0), (0, 8)):
        assert lib.exo_nic_descriptor(rig.nic.native, queue, index, out) == lib.EXO_E_INVALID
        assert lib.exo_nic_buffer(rig.nic.native, queue, index, out, 10) == lib.EXO_E_INVALID
    assert lib.exo_nic_buffer(rig.nic.native, 0, 0, out, 4096) < 4096


def test_done_bit_is_written_last():
    """Another thread that sees the done bit sees the whole frame: polled while the receive runs without the GIL."""
    with Rig(descriptors=32768, max_frame=1514, promiscuous=True) as rig:
        size, n = 1500, 20000
        array, _keep = rig.frames([ethernet(size=size, fill=7)])
        many = ffi.new("struct exo_frame[]", [array[0]] * n)
        torn: list[int] = []
        seen = 0

        def watch() -> None:
            nonlocal seen
            data = ffi.new("uint8_t[]", size)
            expected = ethernet(size=size, fill=7)
            for index in range(0, n, 50):
                out = ffi.new("uint8_t[16]")
                alive = True
                while alive and not out[8] & 1:
                    alive = worker.is_alive()  # before the look: what is not done after its end never will be
                    assert lib.exo_nic_descriptor(rig.nic.native, 0, index, out) == 0
                lib.exo_nic_buffer(rig.nic.native, 0, index, data, size)
                seen += 1
                if bytes(data) != expected or bytes(out)[12:14] != size.to_bytes(2, "little"):
                    torn.append(index)

        worker = threading.Thread(target=lib.exo_nic_receive, args=(rig.nic.native, many, n, 0))
        worker.start()
        watch()
        worker.join()
        assert (seen, torn) == (n // 50, [])


# ---- losing frames: each reason, its counter, its register ----


def test_rx_short_is_a_frame_without_a_header(rig):
    rig.receive(b"", b"\x02", OWN, ethernet(size=13))
    assert rig.drops() == {"nic_rx_short": 4}
    assert rig.nic.counters.rx_short == rig.nic.register("RUC") == 4
    assert rig.ids() == []


def test_rx_long_is_a_giant_on_the_wire(rig):
    rig.receive(ethernet(size=1514), ethernet(size=1515))
    rig.receive(ethernet(size=100), wire_len=1515, flags=lib.EXO_F_SNAPPED)
    assert rig.drops() == {"nic_rx_long": 2}
    assert rig.nic.counters.rx_long == rig.nic.register("ROC") == 2
    assert rig.ids() == [0]


def test_rlpml_lowers_the_limit_and_cannot_raise_it(rig):
    rig.nic.write("RLPML", 100)
    rig.receive(ethernet(size=100), ethernet(size=101))
    assert rig.drops() == {"nic_rx_long": 1}
    rig.nic.write("RLPML", 9000)
    assert rig.nic.register("RLPML") == 1514
    rig.nic.write("RLPML", 0)
    assert rig.nic.register("RLPML") == 60


def test_rx_crc_is_what_the_wire_says(rig):
    rig.receive(ethernet(), flags=BAD_CRC)
    assert rig.drops() == {"nic_rx_crc": 1}
    assert rig.nic.counters.rx_crc == rig.nic.register("CRCERRS") == 1


def test_rx_missed_when_the_fifo_is_full(rig):
    rig.receive(*burst(7 + 4 + 2))
    assert rig.drops() == {"nic_rx_missed": 2}, "four frames of 60 bytes fit into 256"
    assert rig.nic.counters.rx_missed == rig.nic.register("MPC") == 2
    assert rig.nic.register("RNBC") == 6, "RNBC counts those that met no descriptor, kept or not"
    assert rig.nic.counters.rx_no_buffer == 0
    assert rig.nic.register("ICR") & 64


def test_fifo_counts_bytes_not_frames(rig):
    rig.receive(*burst(7), ethernet(size=200), ethernet(size=57), ethernet(size=56))
    assert rig.drops() == {"nic_rx_missed": 2}, "a short frame occupies 60 bytes: 200 + 60 > 256"
    rig.ids()
    rig.refill()
    rig.receive(*burst(7), ethernet(size=196), ethernet(size=20))
    assert rig.drops() == {"nic_rx_missed": 3}, "60 and 196 fill it to the byte"


def test_a_frame_longer_than_the_fifo_needs_a_descriptor(rig):
    rig.receive(*burst(6), ethernet(size=1000), ethernet(size=1000))
    assert rig.drops() == {"nic_rx_missed": 1}
    assert rig.ids() == [0, 1, 2, 3, 4, 5, 6]


def test_without_a_fifo_every_frame_needs_a_descriptor():
    with Rig(fifo_bytes=0) as rig:
        rig.receive(*burst(9))
        assert rig.drops() == {"nic_rx_missed": 2}
        rig.conserved()


def test_rx_no_buffer_with_drop_enable():
    with Rig(drop_enable=True) as rig:
        rig.receive(*burst(10))
        assert rig.drops() == {"nic_rx_no_buffer": 3}
        assert rig.nic.counters.rx_no_buffer == rig.nic.register("RQDPC0") == 3
        assert rig.nic.register("RNBC") == 3
        rig.conserved()


def test_rx_fifo_when_the_receiver_is_switched_off(rig):
    rig.receive(*burst(9))
    rig.nic.write("RCTL", rig.nic.register("RCTL") & ~2)
    assert rig.drops() == {"nic_rx_fifo": 2}, "what waited is lost, what was done stays"
    rig.receive(ethernet())
    assert rig.drops() == {"nic_rx_fifo": 3}
    rig.nic.write("RCTL", rig.nic.register("RCTL") | 2)
    assert rig.ids() == [0, 1, 2, 3, 4, 5, 6]
    assert rig.nic.counters.rx_fifo == 3


def test_rx_fifo_when_the_device_is_reset(rig):
    rig.receive(*burst(9), now=5)
    rig.nic.write("RLPML", 100)
    rig.nic.write("CTRL", 1 << 26)
    assert rig.drops() == {"nic_rx_fifo": 2}
    assert rig.nic.register("RLPML") == 1514
    assert rig.nic.register("CTRL") & (1 << 26) == 0, "the bit clears itself"
    assert rig.ids() == [0, 1, 2, 3, 4, 5, 6]


def test_a_disabled_queue_loses_its_frames(rig):
    rig.receive(*burst(2))
    rig.nic.write("RXDCTL0", 0)
    assert rig.nic.register("RXDCTL0") == 0
    rig.receive(*burst(2))
    assert rig.drops() == {"nic_rx_fifo": 2}
    rig.nic.write("RXDCTL0", 1 << 25)
    rig.receive(ethernet())
    assert rig.ids() == [0, 1, 4]


def test_mac_filtered_comes_before_the_checks():
    with Rig() as rig:
        rig.receive(ethernet(to=OTHER), ethernet(to=OTHER, size=10), ethernet(to=OTHER, size=1515))
        assert rig.drops() == {"mac_filtered": 3}
        assert rig.nic.counters.rx_filtered == 3
        rig.conserved()


def test_lost_frames_have_this_port_in_their_fate(rig):
    lib.exo_ledger_record(rig.ledger, 16)
    rig.receive(ethernet(size=5), now=9)
    rig.receive(ethernet(size=5), flags=LOCAL, now=9)
    fate = rig.ledger.fates[0]
    assert (fate.id, fate.port, fate.ended, fate.reason) == (0, 3, 9, lib.EXO_R_NIC_RX_SHORT)
    assert rig.ledger.fate_count == 2


# ---- backpressure ----


def test_backpressure_stops_at_the_first_frame_without_room():
    with Rig(mode=1, promiscuous=True) as rig:
        assert rig.receive(*burst(20)) == 11
        assert rig.receive(*burst(5)) == 0
        assert rig.drops() == {}
        rig.conserved()
        rig.take(3)
        rig.refill()
        assert rig.receive(*burst(9)) == 3, "as many as were given back"
        rig.conserved()


def test_backpressure_still_drops_what_is_bad():
    with Rig(mode=1) as rig:
        assert rig.receive(*burst(11)) == 11
        assert rig.receive(ethernet(size=5), ethernet(to=OTHER), ethernet()) == 2
        assert rig.drops() == {"mac_filtered": 1, "nic_rx_short": 1}
        rig.conserved()


def test_r08_backpressure_cannot_hold_back_a_switched_frame():
    with Rig(mode=1) as rig:
        assert rig.receive(*burst(11)) == 11
        assert rig.receive(ethernet(), flags=LOCAL) == 1
        assert rig.drops() == {"nic_rx_missed": 1}
        assert rig.nic.counters.rx_missed == 1
        rig.conserved()


def test_backpressure_and_a_frame_longer_than_the_fifo():
    with Rig(mode=1) as rig:
        assert rig.receive(*burst(7)) == 7
        assert rig.receive(ethernet(size=1000)) == 0
        rig.take()
        rig.refill()
        assert rig.receive(ethernet(size=1000)) == 1


# ---- counters ----


def test_group_frames_are_counted_and_flagged():
    for promiscuous in (False, True):
        with Rig(promiscuous=promiscuous) as rig:
            rig.join(GROUP)
            rig.receive(ethernet(to=BROADCAST), ethernet(to=GROUP), ethernet(to=GROUP), ethernet())
            counters = rig.nic.counters
            assert (counters.rx_broadcast, counters.rx_multicast, counters.rx_packets) == (1, 2, 4)
            assert (rig.nic.register("BPRC"), rig.nic.register("MPRC")) == (1, 2)
            assert [frame.flags & lib.EXO_F_GROUP for frame in rig.take()] == [lib.EXO_F_GROUP] * 3 + [0]


def test_switched_frames_are_counted(rig):
    rig.receive(ethernet(), flags=LOCAL)
    assert rig.nic.counters.switched == 1
    assert rig.take()[0].flags == LOCAL


def test_statistics_registers(rig):
    rig.receive(ethernet(size=42), ethernet(size=100), ethernet(size=1515))
    assert rig.nic.counters.rx_bytes == rig.nic.register("GORCL") == 142
    assert rig.nic.register("TORL") == 1657
    assert (rig.nic.register("TPR"), rig.nic.register("GPRC")) == (3, 2)
    assert rig.nic.counters.rx_descriptors == 2


# ---- interrupts ----


def test_an_arrival_asks_for_an_interrupt_at_once(rig):
    assert rig.due() == NEVER
    rig.receive(ethernet(), now=100)
    rig.receive(ethernet(), now=200)
    assert rig.due() == 100
    lib.exo_nic_acknowledge(rig.nic.native, 250)
    assert rig.due() == NEVER
    assert rig.nic.counters.interrupts == rig.nic.register("IAC") == 1


def test_no_interrupt_for_frames_that_were_lost(rig):
    rig.receive(ethernet(size=3), now=100)
    assert rig.due() == NEVER


def test_acknowledge_masks_until_unmask(rig):
    rig.receive(ethernet(), now=100)
    lib.exo_nic_acknowledge(rig.nic.native, 100)
    rig.receive(ethernet(), now=150)
    assert rig.due() == NEVER
    lib.exo_nic_unmask(rig.nic.native, 300)
    assert rig.due() == 300, "work is pending, so it fires at once"


def test_unmask_without_work_is_quiet(rig):
    rig.receive(ethernet(), now=100)
    lib.exo_nic_acknowledge(rig.nic.native, 100)
    rig.receive(ethernet(), now=150)
    assert lib.exo_nic_pending(rig.nic.native)
    rig.take()
    assert not lib.exo_nic_pending(rig.nic.native)
    lib.exo_nic_unmask(rig.nic.native, 300)
    assert rig.due() == NEVER


def test_throttled_interrupt_waits_for_the_interval():
    with Rig(itr_ns=1000) as rig:
        rig.receive(ethernet(), now=100)
        assert rig.due() == 100, "the first one comes at once"
        lib.exo_nic_acknowledge(rig.nic.native, 100)
        rig.take()
        lib.exo_nic_unmask(rig.nic.native, 110)
        rig.receive(ethernet(), now=150)
        assert rig.due() == 1100
        lib.exo_nic_acknowledge(rig.nic.native, 1100)
        rig.take()
        lib.exo_nic_unmask(rig.nic.native, 1100)
        rig.receive(ethernet(), now=5000)
        assert rig.due() == 5000


def test_draining_the_fifo_asks_for_an_interrupt(rig):
    rig.receive(*burst(9), now=1)
    lib.exo_nic_acknowledge(rig.nic.native, 1)
    rig.take()
    lib.exo_nic_unmask(rig.nic.native, 2)
    assert rig.due() == NEVER
    rig.refill(now=7)
    assert rig.due() == 7
