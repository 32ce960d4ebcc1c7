# SPDX-License-Identifier: MIT
"""A LibOS's environment over a fake gate: what it binds and allocates, what it gives back, how it sleeps, what it
refuses.
"""

from typing import Any

import pytest

from exonet import errors
from exonet.gate.client import Grant
from libos_stacks.abi import ffi, lib
from libos_stacks.environment import Environment
from libos_stacks.settings import Settings
from tests.fakes.gate import CONFIG, FakeGate
from tests.fakes.kernel import PAGE, FakeKernel


def calls(gate: FakeGate, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in gate.calls if call[0] == name]


def test_bindings_groups_and_addresses_are_announced() -> None:
    gate = FakeGate(bindings=["udp port 53", "icmp"], addresses=["10.7.0.2/24", "fd00::2/64"])
    with Environment(gate) as environment:
        assert calls(gate, "bind") == [("udp port 53", b"root", 0), ("icmp", b"root", 0)]
        assert calls(gate, "subscribe") == [(bytes(6), 0)]
        assert calls(gate, "neighbour") == [("10.7.0.2", 0), ("fd00::2", 0)]
        assert (environment.number, environment.name, environment.ports) == (1, "test", [0])
        assert environment.settings.families == (4, 6)


def test_groups_of_the_stack_are_subscribed_one_by_one() -> None:
    gate = FakeGate(groups="stack", addresses=["10.7.0.2/24", "fd00::12:3456/64"])
    with Environment(gate):
        macs = {mac for mac, _ in calls(gate, "subscribe")}
    assert bytes.fromhex("ffffffffffff") in macs
    assert bytes.fromhex("3333ff123456") in macs
    assert bytes(6) not in macs


def test_buffers_lie_in_pinned_pages_and_all_is_given_back() -> None:
    gate = FakeGate(receive_buffers=33, transmit_buffers=16)
    environment = Environment(gate)
    assert sorted(gate.owned.values()) == [8, 17]
    assert len(gate.pinned) == 25
    assert gate.kernel.posted == 33
    environment.udp(7)
    environment.close()
    environment.close()
    assert gate.pinned == set() and gate.owned == {} and gate.left == 4096


def test_a_large_mtu_gets_page_sized_transmit_buffers() -> None:
    gate = FakeGate(mtu=9000, transmit_buffers=16, receive_buffers=32)
    with Environment(gate):
        assert sorted(gate.owned.values()) == [16, 16]


def test_no_transmit_buffers_is_an_environment_that_only_listens() -> None:
    gate = FakeGate(transmit_buffers=0)
    with Environment(gate) as environment:
        assert list(gate.owned.values()) == [16]
        socket = environment.udp(9)
        with pytest.raises(BlockingIOError):
            socket.sendto(b"x", ("10.7.0.255", 9))
        assert environment.describe()["stack"]["out_no_buffer"] == 1


def test_too_few_pages_is_the_gates_error_and_leaves_nothing_behind() -> None:
    gate = FakeGate(pages=20)
    with pytest.raises(errors.ExhaustedError, match="8 pages: 4 left"):
        Environment(gate)
    assert gate.pinned == set() and gate.owned == {}


def test_a_binding_without_a_capability_is_denied_and_leaves_nothing_behind() -> None:
    gate = FakeGate(bindings=["tcp port 80"])
    gate.capabilities = ()
    with pytest.raises(errors.DeniedError, match="tcp port 80"):
        Environment(gate)
    assert gate.owned == {}


def test_the_first_capability_whose_region_takes_a_binding_is_used() -> None:
    gate = FakeGate(bindings=["tcp port 80"])
    rights, nowhere = ("bind",), {"port": 3}
    gate.capabilities = (
        Grant(b"other port", "filter", rights, nowhere),
        Grant(b"narrow", "filter", rights, {"port": 0}),
        Grant(b"wide", "filter", rights, {}),
    )
    gate.denied = {b"narrow"}
    with Environment(gate):
        assert calls(gate, "bind") == [("tcp port 80", b"wide", 0)]
    gate.denied |= {b"wide"}
    with pytest.raises(errors.DeniedError, match="outside"):
        Environment(gate)


def test_r03_a_shared_address_may_have_another_owner() -> None:
    gate = FakeGate(addresses=["10.7.0.2/24", "10.7.0.3/24"])
    gate.taken = {"10.7.0.2"}
    with Environment(gate):
        assert calls(gate, "neighbour") == [("10.7.0.3", 0)]


def test_a_kernel_that_is_gone_does_not_stop_the_clean_up() -> None:
    gate = FakeGate()

    def gone(first: int, count: int) -> None:
        raise errors.LibOSError("the kernel is gone")

    environment = Environment(gate)
    gate.unpin = gone  # type: ignore[method-assign]
    environment.close()


def test_an_area_of_another_abi_is_refused() -> None:
    kernel = FakeKernel()
    kernel.kernel.abi_version = 2
    with pytest.raises(errors.LibOSError, match="ABI version 2: must be 1"):
        Environment(FakeGate(kernel))


def test_areas_and_memory_may_be_pointers_as_inline() -> None:
    gate = FakeGate()
    welcome, allocate = gate.welcome(), gate.allocate
    keep = []

    def inline(count: int, first: int | None = None) -> Any:
        extent = allocate(count, first)
        keep.append(extent.memory)
        pointer = ffi.cast("uint8_t *", ffi.from_buffer(extent.memory))
        return type(extent)(extent.first, extent.count, pointer)

    fields = {
        name: getattr(welcome, name) for name in ("env", "name", "config", "capabilities", "ports", "pages", "owners")
    }
    areas = type(welcome)(
        **fields,
        kernel_area=ffi.cast("void *", gate.kernel.kernel),
        libos_area=ffi.cast("void *", gate.kernel.libos),
    )
    gate.allocate = inline  # type: ignore[method-assign]
    gate.welcome = lambda: areas  # type: ignore[method-assign]
    with Environment(gate) as environment:
        assert gate.kernel.deliver(bytes(60))
        assert environment.sink() == 1


def test_the_sink_counts_frames_and_patience_keeps_it_going() -> None:
    gate = FakeGate(FakeKernel(entries=256), receive_buffers=128)
    with Environment(gate) as environment:
        for _ in range(100):
            gate.kernel.deliver(bytes(60))
        assert environment.sink() == 64
        environment.patience = 2
        assert environment.sink() == 36
        assert gate.kernel.libos.counters.delivered == 100


def test_sleep_announces_itself_and_ends_awake() -> None:
    gate = FakeGate()
    seen = []
    gate.on_sleep = lambda deadline: seen.append((deadline, gate.kernel.libos.need_wakeup.value))
    with Environment(gate) as environment:
        environment.sleep(5)
        environment.sleep(None)
        assert seen == [(5, 1), (None, 1)]
        assert gate.kernel.libos.need_wakeup.value == 0
        gate.kernel.deliver(bytes(60))
        assert environment.spin(1)
        environment.sleep(None)
        assert len(seen) == 2


def test_sleep_that_fails_ends_awake_too() -> None:
    gate = FakeGate()

    def fail(_: int | None) -> None:
        raise EOFError

    gate.on_sleep = fail
    with Environment(gate) as environment:
        with pytest.raises(EOFError):
            environment.sleep(None)
        assert gate.kernel.libos.need_wakeup.value == 0


def test_flush_wakes_a_sleeping_kernel_once() -> None:
    gate = FakeGate()
    with Environment(gate) as environment:
        gate.kernel.kernel.need_wakeup.value = 1
        environment.flush()
        assert gate.wakes == 0
        environment.udp(9).sendto(b"x", ("10.7.0.1", 9))
        environment.flush()
        environment.flush()
        assert gate.wakes == 1
        assert [frame.data[12:14] for frame in gate.kernel.take_sent()] == [b"\x08\x06"]


def test_stop_is_seen() -> None:
    gate = FakeGate()
    with Environment(gate) as environment:
        assert not environment.stopped
        gate.kernel.kernel.stop.value = 1
        assert environment.stopped
        assert environment.spin(10)


def test_a_stack_with_nothing_to_do_has_no_deadline_and_one_that_asks_has() -> None:
    gate = FakeGate()
    with Environment(gate) as environment:
        environment.pump()
        environment.udp(9).sendto(b"x", ("10.7.0.1", 9))
        deadline = environment.poll()
        assert deadline is not None and deadline > gate.clock
        gate.clock = deadline
        environment.flush()
        gate.kernel.take_sent()
        environment.pump()
        environment.flush()
        assert gate.kernel.take_sent(), "the request must be asked again without any frame having come"


def test_describe_names_where_the_buffers_are() -> None:
    gate = FakeGate()
    with Environment(gate) as environment:
        description = environment.describe()
    assert description["rings"] == {
        "posted": 32, "spare": 0, "transmit_free": 16, "in_flight": 0, "sent": 0, "refused": 0, "unreadable": 0
    }  # fmt: skip
    assert (description["env"], description["name"]) == (1, "test")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"mac": "02:00"}, "mac '02:00': must be six bytes"),
        ({"mac": "01:00:00:00:00:01"}, "unicast"),
        ({"mac": None}, "mac None"),
        ({"addresses": ["10.7.0.300/24"]}, "address '10.7.0.300/24': must be"),
        ({"gateway": "somewhere"}, "gateway 'somewhere': must be an IP address"),
        ({"mtu": 100}, "mtu 100: must be a number 576..65521"),
        ({"mtu": "large"}, "mtu 'large'"),
        ({"mtu": True}, "mtu True"),
        ({"vlan": 4095}, "vlan 4095: must be a number 0..4094"),
        ({"receive_buffers": 0}, "receive_buffers 0"),
        ({"groups": "some"}, 'groups "some": must be "all" or "stack"'),
        ({"options": {"spin": -1}}, "spin -1"),
        ({"addresses": [f"10.0.0.{i}/8" for i in range(1, 18)]}, "17 addresses: at most 16"),
        ({"addresses": ["224.0.0.1/8"]}, "unicast"),
    ],
)
def test_a_bad_configuration_names_key_value_and_what_is_right(change: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        Environment(FakeGate(**change))
    assert words in str(caught.value)


def test_settings_have_the_defaults_of_an_ethernet_host() -> None:
    settings = Settings.of(
        {"mac": "02-00-00-00-00-02".replace("-", ":"), "gateway": ["10.7.0.1", "fe80::1"], "mtu": "1400"}
    )
    assert (settings.libos, settings.mtu, settings.vlan, settings.groups) == ("echo", 1400, 0, "all")
    assert [gateway.version for gateway in settings.gateways] == [4, 6]
    assert (settings.receive_buffers, settings.transmit_buffers, settings.families) == (512, 256, ())
    assert Settings.of(CONFIG | {"any_address": True}).families == (4, 6)
    assert Settings.of(CONFIG | {"any_address": True, "mtu": 600}).families == (4,)


def test_pages_of_the_abi() -> None:
    assert PAGE == 4096 == lib.EXO_PAGE_SIZE
