# SPDX-License-Identifier: MIT
"""The register file, the configuration, and the Python face."""

import dataclasses

import pytest

from exonet.abi import ffi, lib
from exonet.errors import ExhaustedError, UsageError
from exonet.hardware.nic import REGISTERS, Nic, NicConfig, NicMode, format_mac, parse_mac
from tests.nic_rig import NEVER, Rig, ethernet

RXDW = 128


@pytest.fixture
def rig():
    with Rig() as rig:
        yield rig
        rig.conserved()


def raw(rig, offset):
    return lib.exo_nic_read(rig.nic.native, offset)


def test_offsets_are_the_datasheets():
    expected = {"CTRL": 0, "STATUS": 8, "RCTL": 0x100, "ICR": 0x1500, "EITR0": 0x1680, "RLPML": 0x5004, "MTA0": 0x5200}
    expected |= {"RAL0": 0x5400, "RAH0": 0x5404, "MRQC": 0x5818, "RETA0": 0x5C00, "RSSRK0": 0x5C80, "MPC": 0x4010}
    expected |= {"RNBC": 0x40A0, "RUC": 0x40A4, "ROC": 0x40AC, "CRCERRS": 0x4000, "RDH2": 0xC090, "RDT0": 0xC018}
    expected |= {"TDH0": 0xE010, "TDT0": 0xE018, "SRRCTL1": 0xC04C, "RXDCTL0": 0xC028, "RQDPC0": 0xC030}
    assert {name: REGISTERS[name] for name in expected} == expected


def test_an_unknown_offset_reads_zero_and_ignores_writes(rig):
    before = {name: rig.nic.register(name) for name in REGISTERS}
    for offset in (
        0x4,
        0x2,
        0x101,
        0x3FFC,
        0x4014,
        0x5408 + 8 * 16,
        0xC03C,
        0xE00C,
        0xE040,
        0xF000,
        0x10000,
        0xFFFFFFFF,
    ):
        assert raw(rig, offset) == 0
        lib.exo_nic_write(rig.nic.native, offset, 0xFFFFFFFF)
    assert {name: rig.nic.register(name) for name in REGISTERS} == before


def test_every_register_takes_any_value(rig):
    """Invariant 5: no write crashes the NIC, and it goes on conserving frames."""
    for value in (0xFFFFFFFF, 0, 0x80000000, 0x12345678):
        for name in REGISTERS:
            rig.nic.write(name, value)
            rig.receive(ethernet(), ethernet(size=1000))
            rig.take(3)
            rig.refill()
            rig.conserved()
    rig.nic.write("CTRL", 1 << 26)
    rig.ids()
    rig.refill()
    assert rig.receive(ethernet()) == 1
    assert len(rig.take()) == 1


def test_reading_changes_nothing(rig):
    rig.receive(ethernet(), ethernet(size=5))
    first = {name: rig.nic.register(name) for name in REGISTERS}
    assert {name: rig.nic.register(name) for name in REGISTERS} == first


def test_icr_is_cleared_by_writing_ones(rig):
    rig.receive(ethernet())
    assert rig.nic.register("ICR") == RXDW == raw(rig, 0xC0)
    rig.nic.write("ICR", 4)
    assert rig.nic.register("ICR") == RXDW
    rig.nic.write("ICR", RXDW)
    assert (rig.nic.register("ICR"), rig.due()) == (0, NEVER)


def test_ims_and_imc_mask_the_cause(rig):
    rig.nic.write("IMC", RXDW)
    rig.receive(ethernet(), now=5)
    assert (rig.nic.register("ICR"), rig.due()) == (RXDW, NEVER)
    rig.receive(ethernet(), now=9)
    rig.nic.write("IMS", RXDW)
    assert rig.due() == 9, "unmasking a cause that is there asks now"
    assert rig.nic.register("IMS") == RXDW


def test_ics_raises_by_software(rig):
    rig.receive(ethernet(size=3), now=40)
    rig.nic.write("ICS", RXDW)
    assert rig.due() == 40


def test_eitr_is_in_microseconds_from_bit_2():
    with Rig(itr_ns=162_000) as rig:
        assert rig.nic.register("EITR0") == 648
        rig.nic.write("EITR0", 980)
        assert rig.nic.register("EITR0") == 980
        lib.exo_nic_acknowledge(rig.nic.native, 1000)
        rig.receive(ethernet(), now=2000)
        lib.exo_nic_unmask(rig.nic.native, 2000)
        assert rig.due() == 1000 + 245_000
    with Rig(itr_ns=4_000_000_000) as rig:
        assert rig.nic.register("EITR0") == 0x7FFC, "the most it can say"


def test_tail_moves_only_over_what_was_taken(rig):
    rig.receive(*[ethernet()] * 9)
    rig.nic.write("RDT0", 3)
    assert rig.nic.register("RDT0") == 7, "nothing taken, nothing to give back"
    rig.take(4)
    for value in (4, 6, 8, 0xFFFFFFFF):
        rig.nic.write("RDT0", value)
        assert rig.nic.register("RDT0") == 7
    rig.nic.write("RDT0", 1)
    assert (rig.nic.register("RDT0"), rig.nic.register("RDH0")) == (1, 1), "and the FIFO drained into them"
    rig.refill()
    assert rig.nic.register("RDT0") == 3
    assert rig.ids() == [4, 5, 6, 7, 8]


def test_head_and_lengths_are_read_only(rig):
    for name in ("RDH0", "RDLEN0", "RDBAL0", "RQDPC0", "TDH0", "TDT0", "TDLEN0", "STATUS", "MPC", "GPRC"):
        before = rig.nic.register(name)
        rig.nic.write(name, before ^ 1)
        assert rig.nic.register(name) == before


def test_status_and_control(rig):
    assert rig.nic.register("STATUS") & 2, "link up"
    rig.nic.write("CTRL", 0x40)
    assert rig.nic.register("CTRL") == 0x40
    assert rig.nic.register("TDLEN0") == lib.EXO_NIC_TX_DESCRIPTORS * 16
    assert rig.nic.register("TXDCTL0") == 1 << 25


def test_srrctl_shows_buffer_size_and_drop_enable():
    with Rig(drop_enable=True) as rig:
        assert rig.nic.register("SRRCTL0") == 1 << 31 | 1 << 25 | 2
        rig.nic.write("SRRCTL0", 0)
        assert rig.nic.register("SRRCTL0") == 1 << 25 | 2


def test_vet_is_the_tag_the_descriptor_looks_for(rig):
    rig.nic.write("VET", 0x88A8)
    rig.receive(ethernet(ethertype=0x8100), ethernet(ethertype=0x88A8))
    out = ffi.new("uint8_t[16]")
    status = [lib.exo_nic_descriptor(rig.nic.native, 0, i, out) or out[8] for i in range(2)]
    assert status == [3, 11]


# ---- configuration ----


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("mac", "02:00:00", "six hexadecimal bytes"),
        ("mac", "zz:00:00:00:00:00", "six hexadecimal bytes"),
        ("mac", "002:0:0:0:0:0", "six hexadecimal bytes"),
        ("mac", "01:00:5e:00:00:01", "group address"),
        ("queues", 0, "1..8"),
        ("queues", 9, "1..8"),
        ("descriptors", 100, "power of two"),
        ("descriptors", 4, "8..32768"),
        ("descriptors", 65536, "8..32768"),
        ("descriptors", "many", "whole number"),
        ("fifo_bytes", -1, "0..268435456"),
        ("max_frame", 59, "60..65535"),
        ("max_frame", 65536, "60..65535"),
        ("itr_ns", -5, "0..4294967295"),
        ("seed", -1, "seed -1"),
        ("mode", 7, "NicMode"),
    ],
)
def test_a_bad_configuration_names_the_thing_the_value_and_what_is_right(field, value, says):
    with pytest.raises(UsageError) as error:
        NicConfig(**{field: value})
    assert says in str(error.value)
    assert str(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_drop_enable_and_backpressure_exclude_each_other():
    with pytest.raises(UsageError, match="choose one"):
        NicConfig(drop_enable=True, mode=NicMode.BACKPRESSURE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queues", 0),
        ("queues", 9),
        ("descriptors", 4),
        ("descriptors", 12),
        ("descriptors", 65536),
        ("max_frame", 10),
        ("max_frame", 65536),
        ("mode", 2),
        ("fifo_bytes", 0xFFFFFFFF),
    ],
)
def test_c_refuses_what_python_refuses(field, value):
    native = NicConfig().native()
    setattr(native, field, value)
    assert lib.exo_nic_new(native, ffi.new("struct exo_ledger *"), 0) == ffi.NULL


def test_c_needs_a_ledger_and_a_station_address():
    native = NicConfig().native()
    assert lib.exo_nic_new(native, ffi.NULL, 0) == ffi.NULL
    native.mac = [1, 0, 0, 0, 0, 0]
    assert lib.exo_nic_new(native, ffi.new("struct exo_ledger *"), 0) == ffi.NULL
    lib.exo_nic_free(ffi.NULL)


def test_configuration_is_frozen_and_reaches_c():
    config = NicConfig(mac="02-aa-bb-cc-dd-ee", queues=3, mode=NicMode.BACKPRESSURE, promiscuous=True, seed=2**64 - 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.queues = 2
    native = config.native()
    assert bytes(native.mac) == bytes.fromhex("02aabbccddee")
    assert (native.queues, native.mode, native.promiscuous, native.seed) == (3, 1, 1, 2**64 - 1)


def test_mac_text_round_trip():
    assert format_mac(parse_mac("02:0a:00:FF:00:01")) == "02:0a:00:ff:00:01"


def test_no_memory_is_one_clear_error(monkeypatch):
    class Nothing:
        def exo_nic_new(self, *_):
            return ffi.NULL

    monkeypatch.setattr("exonet.hardware.nic.lib", Nothing())
    config = object.__new__(NicConfig)
    for field in dataclasses.fields(NicConfig):
        object.__setattr__(config, field.name, field.default)
    with pytest.raises(ExhaustedError, match="1 x 1024 slots of 9728 bytes"):
        Nic.alone(config, ffi.new("struct exo_ledger *"))


# ---- the face ----


def test_describe_is_plain_data(rig):
    rig.receive(ethernet(), ethernet(size=2))
    described = rig.nic.describe()
    assert (described["mac"], described["promiscuous"]) == ("02:00:00:00:00:01", False)
    assert (described["descriptors"], described["max_frame"]) == (8, 1514)
    assert described["counters"]["rx_short"] == 1
    assert described["in_flight"] == 1
    assert described["queues"] == [{"head": 1, "tail": 7, "drops": 0}]
    assert described["interrupt"] == {"icr": RXDW, "ims": RXDW, "eitr0": 0}


def test_unknown_register_and_value_are_refused(rig):
    with pytest.raises(UsageError, match='register "RDH9"'):
        rig.nic.register("RDH9")
    with pytest.raises(UsageError, match="register RCTL"):
        rig.nic.write("RCTL", 2**32)


def test_close_is_idempotent_and_leaves_a_machines_nic_alone():
    with Rig() as rig:
        face = Nic(rig.nic.native)
        face.close()
        face.close()
        assert rig.receive(ethernet()) == 1
