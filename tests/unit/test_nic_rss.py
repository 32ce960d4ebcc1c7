# SPDX-License-Identifier: MIT
"""Receive-side scaling: Microsoft's verification vectors, a bit-by-bit reference, and the queues it chooses."""

import ipaddress
import random

import pytest

from exonet.abi import ffi, lib
from exonet.hardware.nic import REGISTERS
from tests.nic_rig import Rig, ethernet, ip4

# "Verifying the RSS Hash Calculation" (Windows driver documentation):
# destination, its port, source, its port, hash with ports (TCP), hash of the addresses.
VECTORS_4 = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x51CCC178, 0x323E8FC2),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xC626B0EA, 0xD718262A),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0x5C2B394A, 0xD2D0A5DE),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0xAFC7327F, 0x82989176),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x10E828A2, 0x5D1809C5),
]
VECTORS_6 = [
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x40207D3D, 0x2CC18CD5),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0xDDE51BBF, 0x0F0C461C),
    ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x02D1FEEF, 0x4B61E985),
]
TCP, UDP, ICMP = 6, 17, 1


def ip6(source, target, next_header, sport=0, dport=0):
    header = b"\x60\0\0\0\x00\x08" + bytes([next_header, 64])
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    return (
        ethernet(size=12)
        + b"\x86\xdd"
        + header
        + addresses
        + sport.to_bytes(2, "big")
        + dport.to_bytes(2, "big")
        + bytes(4)
    )


def tagged(frame):
    return frame[:12] + b"\x81\x00\x00\x05" + frame[12:]


def toeplitz(key, data):
    """The definition: XOR of the key's 32-bit windows at every bit that is set."""
    bits, result = int.from_bytes(key, "big"), 0
    for i in range(len(data) * 8):
        if data[i // 8] & 0x80 >> i % 8:
            result ^= bits >> (len(key) * 8 - 32 - i) & 0xFFFFFFFF
    return result


def key_of(rig):
    return b"".join(rig.nic.register(f"RSSRK{i}").to_bytes(4, "little") for i in range(10))


@pytest.fixture
def rig():
    with Rig(queues=4) as rig:
        yield rig
        rig.conserved()


def rss(rig, frame):
    return lib.exo_nic_rss(rig.nic.native, frame, len(frame))


@pytest.mark.parametrize(("target", "dport", "source", "sport", "with_ports", "addresses"), VECTORS_4)
def test_microsofts_vectors_ip4(rig, target, dport, source, sport, with_ports, addresses):
    assert rss(rig, ip4(source, target, TCP, sport, dport)) == with_ports
    assert rss(rig, tagged(ip4(source, target, TCP, sport, dport))) == with_ports
    assert rss(rig, ip4(source, target, UDP, sport, dport)) == with_ports
    assert rss(rig, ip4(source, target, ICMP, sport, dport)) == addresses
    assert rss(rig, ip4(source, target, TCP, sport, dport, fragment=0x2000)) == addresses
    assert rss(rig, ip4(source, target, TCP, sport, dport, fragment=100)) == addresses
    assert rss(rig, ip4(source, target, TCP, sport, dport)[:36]) == addresses, "its ports were cut off"


@pytest.mark.parametrize(("target", "dport", "source", "sport", "with_ports", "addresses"), VECTORS_6)
def test_microsofts_vectors_ip6(rig, target, dport, source, sport, with_ports, addresses):
    assert rss(rig, ip6(source, target, TCP, sport, dport)) == with_ports
    assert rss(rig, ip6(source, target, UDP, sport, dport)) == with_ports
    assert rss(rig, tagged(ip6(source, target, TCP, sport, dport))) == with_ports
    assert rss(rig, ip6(source, target, 44, sport, dport)) == addresses
    assert rss(rig, ip6(source, target, TCP, sport, dport)[:56]) == addresses


def test_frames_without_an_ip_header_hash_to_zero(rig):
    whole = ip4("1.2.3.4", "5.6.7.8")
    frames = [b"", b"\0", whole[:33], ethernet(ethertype=0x0806), ethernet(ethertype=0x8100, size=16)]
    frames += [whole[:14] + b"\x44" + whole[15:], whole[:14] + b"\x65" + whole[15:], ip6("::1", "::2", TCP)[:53]]
    assert [rss(rig, frame) for frame in frames] == [0] * len(frames)


def test_ip4_options_move_the_ports(rig):
    plain = ip4("1.2.3.4", "5.6.7.8", TCP, 1000, 2000)
    options = plain[:14] + b"\x47" + plain[15:34] + bytes(8) + plain[34:]
    assert rss(rig, options) == rss(rig, plain)


def test_hash_types_can_be_switched_off(rig):
    frame = ip4("66.9.149.187", "161.142.100.80", UDP, 2794, 1766)
    rig.nic.write("MRQC", rig.nic.register("MRQC") & ~(1 << 22))
    assert rss(rig, frame) == 0x323E8FC2
    rig.nic.write("MRQC", 2)
    assert rss(rig, frame) == 0
    assert rss(rig, ip6("::1", "::2", TCP)) == 0


@pytest.mark.parametrize("seed", [1, 2**64 - 1])
def test_a_seeded_key_agrees_with_the_definition(seed):
    draw = random.Random(seed)
    with Rig(queues=2, seed=seed) as rig:
        key = key_of(rig)
        assert len(set(key)) > 20
        for _ in range(100):
            source, target = (str(ipaddress.ip_address(draw.randbytes(4))) for _ in range(2))
            frame = ip4(source, target, TCP, draw.randrange(65536), draw.randrange(65536))
            assert rss(rig, frame) == toeplitz(key, frame[26:38])
        rig.nic.write("RSSRK9", 0x12345678)
        frame = ip6("2001:db8::1", "2001:db8::2", TCP, 1, 2)
        assert rss(rig, frame) == toeplitz(key_of(rig), frame[22:58])


def flows(n):
    return [ip4("10.0.0.1", f"10.1.{i // 256}.{i % 256}", UDP, 1000 + i, 53) for i in range(n)]


def test_reta_chooses_the_queue():
    with Rig(queues=4, descriptors=256) as rig:
        frames = flows(200)
        rig.receive(*frames)
        for queue in range(4):
            taken = rig.take(queue=queue, maximum=256)
            assert taken
            assert {(frame.queue, frame.rss_hash % 128 % 4) for frame in taken} == {(queue, queue)}
            assert all(frame.rss_hash == rss(rig, frame.data) for frame in taken)
        rig.conserved()


def test_reta_can_be_rewritten_and_a_queue_that_is_not_there_means_the_first():
    with Rig(queues=2, descriptors=64) as rig:
        for i in range(32):
            rig.nic.write(f"RETA{i}", 0x01010101)
        rig.receive(*flows(20), ethernet(ethertype=0x0806))
        assert (len(rig.take()), len(rig.take(queue=1))) == (1, 20), "no hash: the first queue"
        for i in range(32):
            rig.nic.write(f"RETA{i}", 0x07070707)
        rig.receive(*flows(20))
        assert (len(rig.take()), len(rig.take(queue=1))) == (20, 0)


def to_queue(rig, queue):
    return next(frame for frame in flows(200) if rss(rig, frame) % 128 % rig.config.queues == queue)


def test_one_full_queue_blocks_the_shared_fifo(rig):
    first, second = to_queue(rig, 0), to_queue(rig, 1)
    rig.receive(*[first] * 8, second)
    assert rig.ids(1) == [], "head-of-line blocking"
    rig.take(1)
    rig.refill()
    assert rig.ids(1) == [8]


def test_drop_enable_on_one_queue_unblocks_the_others(rig):
    rig.nic.write("SRRCTL0", rig.nic.register("SRRCTL0") | 1 << 31)
    first, second = to_queue(rig, 0), to_queue(rig, 1)
    rig.receive(*[first] * 9, second)
    assert rig.drops() == {"nic_rx_no_buffer": 2}
    assert (rig.nic.register("RQDPC0"), rig.nic.register("RQDPC1")) == (2, 0)
    assert rig.ids(1) == [9]


def test_setting_drop_enable_clears_the_line(rig):
    first, second = to_queue(rig, 0), to_queue(rig, 1)
    rig.receive(*[first] * 9, second)
    rig.nic.write("SRRCTL0", 1 << 31)
    assert rig.drops() == {"nic_rx_no_buffer": 2}
    assert rig.ids(1) == [9]


def test_descriptor_carries_hash_and_type(rig):
    frame = ip4("66.9.149.187", "161.142.100.80", TCP, 2794, 1766)
    rig.receive(frame)
    out = bytearray(16)
    view = ffi.from_buffer(out)
    lib.exo_nic_descriptor(rig.nic.native, 0x51CCC178 % 128 % 4, 0, view)
    assert (out[0] & 15, int.from_bytes(out[4:8], "little")) == (1, 0x51CCC178)


def test_one_queue_does_not_hash():
    with Rig() as rig:
        rig.receive(*flows(3))
        assert {frame.rss_hash for frame in rig.take()} == {0}
        rig.nic.write("MRQC", rig.nic.register("MRQC") | 2)
        rig.receive(*flows(3))
        assert 0 not in {frame.rss_hash for frame in rig.take()}


def test_every_queue_has_registers(rig):
    for queue in range(4):
        assert rig.nic.register(f"RDLEN{queue}") == 8 * 16
        assert rig.nic.register(f"RDBAL{queue}") == queue * 8 * 16
        assert rig.nic.register(f"RDBAH{queue}") == 0
    assert lib.exo_nic_read(rig.nic.native, REGISTERS["RDLEN4"]) == 0, "there is no fifth queue"
