# SPDX-License-Identifier: MIT
"""The engine's face: configuration errors, the account, determinism, the lists of reasons and counters."""

import pytest

from exonet.errors import UsageError
from libos_stacks.abi import ffi, lib
from libos_stacks.settings import Settings
from tests.stack_frames import MAC, PEER4, UDP, Engine, Reason, StackConfig, engine, feed, introduce, ip4, ping4


@pytest.mark.parametrize(
    ("addresses", "options", "message"),
    [
        ((), {"mtu": 575}, "mtu"),
        ((), {"mtu": 65522}, "mtu"),
        ((), {"mtu": 70000}, "mtu"),
        (("fd07::2/64",), {"mtu": 1279}, "1280"),
        ((), {"vlan": 4095}, "vlan"),
        ((), {"neighbours": 65537}, "neighbours"),
        ((), {"socket_bytes": 2**30 + 1}, "1 GiB"),
        ((), {"reassembly_bytes": 2**31}, "1 GiB"),
        (("224.0.0.1/4",), {}, "unicast"),
        (("ff02::1/64",), {}, "unicast"),
        (("0.0.0.0/0",), {}, "unicast"),
        (("10.7.0.300/24",), {}, "10.7.0.300"),
        (("10.7.0.2/33",), {}, "10.7.0.2/33"),
        (tuple(f"10.7.0.{i}/24" for i in range(2, 19)), {}, "at most 16"),
        ((), {"gateway": "224.0.0.1"}, "gateway"),
        ((), {"gateway": "ff02::1"}, "gateway"),
        ((), {"gateway": "nonsense"}, "nonsense"),
    ],
)
def test_a_bad_configuration_is_named(addresses, options, message):
    with pytest.raises(UsageError, match=message):
        Engine(StackConfig.make(MAC, *addresses, **options))


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", "zz:00:00:00:00:01", "01:00:00:00:00:01"])
def test_a_bad_mac_is_named(mac):
    with pytest.raises(UsageError, match="mac"):
        Engine(StackConfig.make(mac))


def test_c_refuses_what_python_cannot_say():
    native = StackConfig.make(MAC, "10.7.0.2/24").native()
    native.address_count = 17
    assert b"address_count" in ffi.string(lib.stk_config_check(native))
    native.address_count = 1
    native.address[0].family = 5
    assert lib.stk_new(native, ffi.new("struct stk_output *")) == ffi.NULL
    native.address[0].family = 4
    native.address[0].prefix = 33
    assert b"prefix" in ffi.string(lib.stk_config_check(native))


def test_a_welcome_makes_a_configuration():
    welcome = {
        "libos": "echo",
        "mac": MAC,
        "addresses": ["10.7.0.2/24", "fd07::2/64"],
        "gateway": "fd07::1",
        "mtu": 9000,
        "vlan": 3,
        "any_address": True,
        "bindings": ["udp port 53"],
    }
    config = Settings.of(welcome).stack(7)
    assert (config.mtu, config.vlan, config.any_address, config.seed, str(config.gateway6)) == (
        9000,
        3,
        True,
        7,
        "fd07::1",
    )
    with Engine(config) as stack:
        assert stack.describe()["addresses"] == ["10.7.0.2/24", "fd07::2/64"]
    assert Settings.of({"mac": MAC, "gateway": "10.7.0.1"}).stack(0).gateway4 is not None


def test_reasons_are_the_abis():
    names = {n: v for n, v in ffi.typeof("enum exo_reason").relements.items() if n.startswith("EXO_R_STACK_")}
    assert {f"EXO_R_STACK_{r.name}": int(r) for r in Reason if r} == {
        n: v for n, v in names.items() if not n.endswith("FIRST")
    }
    assert len(names) <= 32 + 1


def test_counters_are_all_shown():
    fields = {name for name, _ in ffi.typeof("struct stk_counters").fields}
    assert set(engine().counters) == fields - {"drop"}


def test_invariant_1_every_frame_has_one_fate():
    stack = engine()
    introduce(stack)
    stack.udp(7)
    for packet in (
        ping4(),
        ip4() / UDP(dport=7),
        ip4() / UDP(dport=8),
        ip4(flags="MF", proto=17) / bytes(8),
        b"",
        ip4(ihl=2),
    ):
        feed(stack, packet)
    assert stack.counters["in_frames"] == 8 and stack.held == 1
    assert stack.drops == {"stack.no_socket": 1, "stack.too_short": 1, "stack.ip_header": 1}


def test_an_output_of_the_callers_own():
    sent = []
    buffer = ffi.new("uint8_t[2048]")
    reserve = ffi.callback("uint8_t *(void *, uint32_t)", lambda context, n: buffer)
    commit = ffi.callback("void(void *, uint32_t)", lambda context, n: sent.append(bytes(ffi.buffer(buffer, n))))
    output = ffi.new("struct stk_output *", {"context": ffi.NULL, "reserve": reserve, "commit": commit})
    with Engine(StackConfig.make(MAC, "10.7.0.2/24"), output) as stack:
        stack.udp().send(b"x", PEER4, 7, 0)
        assert len(sent) == 1 and stack.output() == []


def test_poll_says_when_it_wants_to_be_called():
    stack = engine()
    assert stack.poll(0) is None
    stack.udp().send(b"x", PEER4, 7, 5)
    assert stack.poll(5) == 10**9 + 5
