# SPDX-License-Identifier: MIT
"""The NIC's address filter."""

import pytest

from exonet.abi import lib
from tests.nic_rig import BROADCAST, GROUP, OTHER, OWN, Rig, ethernet

EXTRA = bytes.fromhex("020000000002")
ALL = bytes(6)


def accepts(rig, mac):
    before = rig.nic.counters.rx_filtered
    rig.receive(ethernet(to=mac))
    rig.take()
    rig.refill()
    return rig.nic.counters.rx_filtered == before


@pytest.fixture
def rig():
    with Rig() as rig:
        yield rig
        rig.conserved()


def test_r09_a_port_takes_its_own_address_and_broadcast_only(rig):
    taken = [mac for mac in (OWN, OTHER, EXTRA, GROUP, BROADCAST) if accepts(rig, mac)]
    assert taken == [OWN, BROADCAST]


def test_r09_promiscuous_takes_everything():
    with Rig(promiscuous=True) as rig:
        assert all(accepts(rig, mac) for mac in (OWN, OTHER, EXTRA, GROUP, BROADCAST, ALL))


@pytest.mark.parametrize("mac", [EXTRA, GROUP])
def test_an_address_is_counted_per_user(rig, mac):
    assert rig.join(mac) == rig.join(mac) == 0
    assert accepts(rig, mac)
    assert rig.leave(mac) == 0
    assert accepts(rig, mac), "two joins need two leaves"
    assert rig.leave(mac) == 0
    assert not accepts(rig, mac)
    assert rig.leave(mac) == lib.EXO_E_NOT_FOUND


def test_groups_are_exact(rig):
    rig.join(GROUP)
    neighbour = GROUP[:5] + bytes([GROUP[5] ^ 1])
    same_mta_bit = bytes([GROUP[0], GROUP[1] ^ 1, *GROUP[2:]])
    assert not accepts(rig, neighbour)
    assert not accepts(rig, same_mta_bit)


def test_zero_is_every_group(rig):
    assert rig.join(ALL) == 0
    assert accepts(rig, GROUP)
    assert not accepts(rig, OTHER)
    assert rig.leave(ALL) == 0
    assert not accepts(rig, GROUP)
    assert rig.leave(ALL) == lib.EXO_E_NOT_FOUND


@pytest.mark.parametrize(("first", "room"), [(2, lib.EXO_NIC_UNICAST - 1), (1, lib.EXO_NIC_GROUPS)])
def test_a_full_table_says_so(rig, first, room):
    macs = [bytes([first, 1]) + i.to_bytes(4, "big") for i in range(room + 1)]
    assert [rig.join(mac) for mac in macs] == [0] * room + [lib.EXO_E_FULL]
    assert all(accepts(rig, mac) for mac in macs[:room:17])
    assert not accepts(rig, macs[room])
    assert rig.join(macs[0]) == 0, "one that is there already needs no room"
    assert rig.leave(macs[1]) == 0
    assert rig.join(macs[room]) == 0
    assert not accepts(rig, macs[1])


def test_r08_local_is_what_the_unicast_table_holds(rig):
    rig.join(EXTRA)
    rig.join(GROUP)
    macs = (OWN, EXTRA, OTHER, GROUP, BROADCAST, ALL)
    assert [lib.exo_nic_is_local(rig.nic.native, mac) for mac in macs] == [1, 1, 0, 0, 0, 0]
    rig.leave(EXTRA)
    assert not lib.exo_nic_is_local(rig.nic.native, EXTRA)


def test_broadcast_can_be_switched_off(rig):
    rig.nic.write("RCTL", rig.nic.register("RCTL") & ~(1 << 15))
    assert not accepts(rig, BROADCAST)
    assert accepts(rig, OWN)


def test_multicast_promiscuous(rig):
    rig.nic.write("RCTL", rig.nic.register("RCTL") | 1 << 4)
    assert accepts(rig, GROUP)
    assert not accepts(rig, OTHER)


def test_receive_address_registers(rig):
    assert rig.nic.register("RAL0") == int.from_bytes(OWN[:4], "little")
    assert rig.nic.register("RAH0") == int.from_bytes(OWN[4:], "little") | 1 << 31
    rig.nic.write("RAL3", int.from_bytes(EXTRA[:4], "little"))
    assert not accepts(rig, EXTRA)
    rig.nic.write("RAH3", int.from_bytes(EXTRA[4:], "little") | 1 << 31)
    assert accepts(rig, EXTRA)
    rig.nic.write("RAH3", int.from_bytes(EXTRA[4:], "little"))
    assert not accepts(rig, EXTRA)


def test_an_added_address_shows_in_the_registers(rig):
    rig.join(EXTRA)
    assert rig.nic.register("RAL1") == int.from_bytes(EXTRA[:4], "little")
    assert rig.nic.register("RAH1") == int.from_bytes(EXTRA[4:], "little") | 1 << 31


def test_multicast_table_is_an_imperfect_filter(rig):
    """Bits 47:36 of the address choose the bit, as igb_hash_mc_addr computes it."""
    bit = GROUP[5] << 4 | GROUP[4] >> 4
    rig.nic.write(f"MTA{bit // 32}", 1 << bit % 32)
    assert accepts(rig, GROUP)
    rig.nic.write(f"MTA{bit // 32}", 0)
    assert not accepts(rig, GROUP)
    rig.join(GROUP)
    assert rig.nic.register(f"MTA{bit // 32}") == 1 << bit % 32


def test_addresses_survive_a_device_reset(rig):
    rig.join(EXTRA)
    rig.join(OWN)
    rig.nic.write("CTRL", 1 << 26)
    rig.leave(OWN)
    assert accepts(rig, EXTRA)
    assert accepts(rig, OWN)
