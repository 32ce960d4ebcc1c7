# SPDX-License-Identifier: MIT
"""Binding on a real machine: prepared filters, regions that are disjoint when granted, quotas, and what a bind costs
when many are live.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from exonet.abi import check, ffi, lib
from exonet.clock import Clock
from exonet.errors import ConflictError, DeniedError, ExhaustedError, FilterError, UsageError
from exonet.filters.fields import Tcp, Udp
from exonet.kernel import binding as binding_module
from exonet.kernel import regions as regions_module
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.kernel.capability import Quota
from exonet.kernel.claims import Claims
from exonet.kernel.environment import Mode
from exonet.kernel.regions import Regions
from tests.fakes.desk import Desk, open_desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    with open_desk() as opened:
        yield opened


def test_a_prepared_filter_is_bound_again_and_again_and_compiled_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open("web", "tcp")
    ready = desk.bindings.prepare((Tcp.dport == 80) | (Tcp.dport == 443))
    monkeypatch.setattr(regions_module, "fill", lambda program, _: pytest.fail(f"compiled {program.text!r} again"))
    for _ in range(3):
        bound = desk.bind("web", ready)
        assert desk.conjuncts == len(ready.conjuncts) and bound.filter is ready
        assert desk.bindings.prepare(ready.text) is ready
        desk.bindings.unbind(desk.envs["web"], bound.number)
        assert not desk.conjuncts


def test_r13_a_prepared_filter_is_still_authorised(desk: Desk) -> None:
    desk.open("web", "tcp")
    with pytest.raises(DeniedError, match="does not cover"):
        desk.bind("web", desk.bindings.prepare(Udp.dport == 80))
    forged = bytearray(desk.tokens["web"])
    forged[40] ^= 1
    desk.bind("web", "tcp dst port 80")
    with pytest.raises(DeniedError, match="not one that this kernel granted"):
        desk.bindings.bind(desk.envs["web"], "tcp dst port 81", bytes(forged))
    authority = desk.machine.environments.authority
    authority.revoke(authority.authentic(desk.tokens["web"]).identifier)
    assert not len(desk.bindings) and not desk.conjuncts
    with pytest.raises(DeniedError, match="revoked"):
        desk.bind("web", "tcp dst port 81")


def test_nothing_is_compiled_without_a_token_for_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    web, other = desk.open("web", "tcp"), desk.open("other", "udp")
    forged = bytearray(desk.tokens["web"])
    forged[40] ^= 1
    monkeypatch.setattr(regions_module, "fill", lambda program, _: pytest.fail(f"compiled {program.text!r}"))
    text = "tcp dst port 80"
    for env, token, port, snoop in (
        (web, bytes(forged), 0, False),
        (other, desk.tokens["web"], 0, False),
        (web, desk.tokens["web"], 1, False),
        (web, desk.tokens["web"], 0, True),
    ):
        with pytest.raises(DeniedError, match=f"filter '{text}': "):
            desk.bindings.bind(env, text, token, port, snoop=snoop)


@pytest.mark.slow
def test_a_region_that_no_token_can_hold_is_refused_at_the_grant(desk: Desk) -> None:
    desk.open("many", " or ".join(f"udp dst port {1000 + i}" for i in range(600)))
    with pytest.raises(UsageError, match=r"environment more: a capability of 2[\d,]+ bytes: at most 16,384"):
        desk.open("more", " or ".join(f"tcp dst port {1000 + i}" for i in range(1100)))


def test_a_filter_over_the_quota_is_compared_with_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.open("web", "tcp", Quota(conjuncts=5))
    desk.bind("web", "tcp dst port 80")
    monkeypatch.setattr(Claims, "near", lambda *_: pytest.fail("compared"))
    with pytest.raises(ExhaustedError, match="conjuncts"):
        desk.bind("web", "tcp port 81 or tcp port 82")


@pytest.mark.parametrize("text", ["outbound", "tcp and ether[0] > 255"])
def test_a_filter_that_takes_nothing_is_not_bound(desk: Desk, text: str) -> None:
    desk.open("web", None)
    with pytest.raises(FilterError, match="takes nothing"):
        desk.bind("web", text)
    assert len(desk.bindings) == 0


def test_regions_of_different_owners_are_disjoint_when_granted(desk: Desk) -> None:
    desk.open("dns", "udp port 53")
    with pytest.raises(ConflictError) as refused:
        desk.open("mail", "host 10.0.0.1")
    said = str(refused.value)
    assert "region 'host 10.0.0.1' of environment mail and region 'udp port 53' of environment dns" in said
    assert "Ether(" in said and "UDP(" in said
    with pytest.raises(ConflictError, match="are the very same frames"):
        desk.open("again", "port 53 and udp")
    assert desk.machine.environments.authority.held_by(desk.envs["again"].number) == []
    desk.open("disjoint", "host 10.0.0.1 and not udp port 53")
    desk.open("nested", "udp port 53 and dst host 10.0.0.9")
    desk.open("sharing", "host 10.0.0.2", shared=True)


@pytest.mark.parametrize(("held", "wanted"), [(None, 0), (0, None), (None, None), (0, 0), (0, 1)])
@pytest.mark.parametrize("region", ["host 10.0.0.1", "udp port 53"])
def test_a_region_on_every_port_is_disjoint_from_others_on_each(
    desk: Desk, held: int | None, wanted: int | None, region: str
) -> None:
    desk.open("dns", "udp port 53", port=held)
    if (held, wanted) == (0, 1):
        desk.open("other", region, port=wanted)
        return
    with pytest.raises(ConflictError, match="environment other and region 'udp port 53' of environment dns"):
        desk.open("other", region, port=wanted)
    assert desk.machine.environments.authority.held_by(desk.envs["other"].number) == []


def test_a_region_is_free_again_when_its_capability_is_gone(desk: Desk) -> None:
    desk.open("first", "tcp port 80")
    desk.machine.environments.end(desk.envs["first"], "over")
    desk.open("second", "tcp port 80")


def test_r04_the_operator_s_nested_regions_take_from_each_other_without_asking(desk: Desk) -> None:
    desk.open("all", "ip")
    desk.open("web", "tcp port 80")
    desk.bind("all", "ip")
    desk.bind("web", "tcp port 80")
    with pytest.raises(DeniedError) as refused:
        desk.bind("all", "tcp dst port 80 and dst host 10.0.0.1")
    said = str(refused.value)
    assert "by its conjunct 1 (" in said and "tcp.dport == 80" in said and "for example Ether(" in said
    assert "or bind" not in said  # what is left of it would take nothing


def test_r04_a_refusal_names_both_conjuncts(desk: Desk) -> None:
    desk.open("web", None)
    desk.bind("web", "tcp dst port 80")
    with pytest.raises(ConflictError) as refused:
        desk.bind("web", "dst host 10.0.0.1")
    said = str(refused.value)
    assert "conjunct 1 (" in said and "tcp.dport == 80" in said and "10.0.0.1" in said and "Ether(" in said
    assert "this would do: '(dst host 10.0.0.1) and not (tcp dst port 80)'" in said


def test_a_listener_around_many_connected_sockets_is_compared_with_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open("web", "tcp")
    for i in range(300):
        desk.bind("web", f"tcp and src host 10.0.1.{i % 250} and src port {1024 + i} and dst port 80")
    monkeypatch.setattr(binding_module, "quick", lambda *_: pytest.fail("compared with one of them"))
    desk.bind("web", "tcp dst port 80")
    desk.bind("web", "tcp and src host 10.0.2.1 and src port 1 and dst port 81")


@pytest.mark.parametrize("middle", ["32700-32800", "32768-32768", "32001-33998"])
def test_ranges_of_others_cost_a_range_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch, middle: str) -> None:
    """R3's own case: LibOSes that share an address by port ranges, here with hundreds of ragged ones."""
    desk.open("a", "ip and udp dst portrange 1-15000")
    desk.open("b", "ip and udp dst portrange 15001-31000")
    desk.open("c", "ip and udp dst portrange 32000-33999")
    for name, first in (("a", 0), ("b", 15000)):
        for i in range(150):
            desk.bind(name, f"ip and udp dst portrange {first + 100 * i + 1}-{first + 100 * i + 97}")
    monkeypatch.setattr(binding_module, "quick", lambda *_: pytest.fail("compared with one of them"))
    desk.bind("c", f"ip and udp dst portrange {middle}")
    desk.bind("a", "ip and udp dst portrange 98-99")
    desk.bind("b", "ip and udp dst portrange 15102-15103")


def test_a_network_around_many_networks_is_compared_with_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.open("web", "ip")
    for i in range(300):
        desk.bind("web", f"ip src net 10.{i >> 8}.{i & 255}.0/24")
    monkeypatch.setattr(binding_module, "quick", lambda *_: pytest.fail("compared with one of them"))
    desk.bind("web", "ip src net 10.0.0.0/8")
    desk.bind("web", "ip src net 10.0.0.0/16")
    desk.bind("web", "ip src net 10.200.0.0/24")
    desk.bind("web", "ip src host 10.0.7.9")
    with pytest.raises(ConflictError, match="very same frames"):
        monkeypatch.undo()
        desk.bind("web", "ip src net 10.0.9.0/24")


def test_what_a_wider_binding_makes_others_hold_goes_with_it(desk: Desk) -> None:
    """The wider filter has a conjunct that cuts the narrower one and fixes more bits: the narrower needs their meet."""
    desk.open("web", None)
    narrow = desk.bind("web", "ip[1] & 1 = 1 and ip[8] = 5")
    before = desk.conjuncts
    charged = desk.bindings._holdings[desk.envs["web"].number].conjuncts
    for _ in range(3):
        wide = desk.bind("web", "(ip[1] & 1 = 1 and ip[7] = 3 and ip[4:2] = 100) or ip[8] = 5")
        assert wide.caused == {narrow: list(narrow.extra)} and narrow.extra
        assert desk.conjuncts == before + len(wide.filter.conjuncts) + len(narrow.extra)
        desk.bindings.unbind(desk.envs["web"], wide.number)
        assert desk.conjuncts == before and not narrow.extra
        assert desk.bindings._holdings[desk.envs["web"].number].conjuncts == charged


def test_more_hard_comparisons_than_one_bind_may_make_refuse_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute and relative offsets of the same bytes: masks and values do not tell that these are disjoint."""
    desk.open("web", "ip")
    for port in (81, 82, 83):
        desk.bind("web", f"ip[0] = 0x45 and ether[36:2] = {port}")
    before = desk.conjuncts
    monkeypatch.setattr(binding_module, "MOST_EXACT", 2)
    with pytest.raises(ExhaustedError, match=r"more than 2 bindings, binding 2 .* box by box"):
        desk.bind("web", "ip and tcp dst port 80")
    assert (len(desk.bindings), desk.conjuncts) == (3, before)
    monkeypatch.setattr(binding_module, "MOST_EXACT", 3)
    desk.bind("web", "ip and tcp dst port 80")


@pytest.mark.parametrize("quota", [Quota(bindings=3), Quota(conjuncts=5), Quota(shapes=2)])
def test_a_quota_names_itself_and_nobody_else_is_affected(desk: Desk, quota: Quota) -> None:
    desk.open("greedy", "udp", quota)
    desk.open("modest", "tcp")
    name = next(name for name in ("bindings", "conjuncts", "shapes") if getattr(quota, name) != getattr(Quota(), name))
    with pytest.raises(ExhaustedError, match=rf"environment greedy: \d+ {name} and \d+ more: its quota is"):
        for i in range(20):
            desk.bind("greedy", f"udp dst port {i} and udp[{8 + i}] = 1")
    desk.bind("modest", "tcp dst port 80")


def masks(first: int = 0) -> Iterator[str]:
    """Hundreds of filters, each with a mask that no other has, all disjoint."""
    for i in range(first, first + 400):
        yield f"udp and dst port {i + 1} and udp[{8 + i // 8}] & {1 << i % 8} != 0"


def probes_of(desk: Desk, frame: bytes) -> tuple[int | None, int]:
    """The frame's owner, and of how many shapes it was asked."""
    asked = 0

    @ffi.callback("exo_probe")  # type: ignore[untyped-decorator]
    def probe(table: Any, frames: Any, n: int, found: Any, owners: Any) -> None:
        nonlocal asked
        asked += n
        for i in range(n):
            lib.exo_demux_ask(table, frames + i, found + i, owners + frames[i].place)

    form = ffi.new("struct exo_form *")
    for place in range(lib.EXO_MAX_SHAPES):
        if lib.exo_demux_form(desk.demux, place, form) >= 0:
            assert lib.exo_demux_install(desk.demux, form, probe, ffi.NULL) == 1
    frames, data, owner = ffi.new("struct exo_frame *"), ffi.from_buffer(frame), ffi.new("uint32_t *")
    frames.data, frames.len, frames.wire_len = data, len(frame), len(frame)
    ffi.memmove(owner, b"\xff" * 4, 4)
    lib.exo_demux_classify(desk.demux, frames, 1, owner)
    for place in range(lib.EXO_MAX_SHAPES):
        if lib.exo_demux_form(desk.demux, place, form) >= 0:
            lib.exo_demux_install(desk.demux, form, ffi.NULL, ffi.NULL)
    return (None if owner[0] == lib.EXO_NO_OWNER else int(owner[0])), asked


@pytest.mark.parametrize(
    ("layer", "victim", "attacker"),
    [("ip", "10.7.0.2", "10.7.0.9"), ("ip6", "fd00::2", "fd00::9"), ("ip", "10.7.0.2", "10.9.0.0/16")],
)
@pytest.mark.slow
def test_the_tuple_space_explosion_costs_nobody_else_a_probe(
    desk: Desk, layer: str, victim: str, attacker: str
) -> None:
    """CVE-2019-25076: many masks, each one more probe; here for frames to the attacker's own addresses only."""
    desk.open("victim", f"{layer} and udp and dst host {victim}")
    where = "net" if "/" in attacker else "host"
    desk.open("attacker", f"{layer} and udp and dst {where} {attacker}", Quota())
    mine = desk.bind("victim", f"{layer} and udp and dst host {victim} and dst port 53")
    make = IPv6(src="fd00::1", dst=victim) if layer == "ip6" else IP(src="10.0.0.1", dst=victim)
    frame = bytes(Ether(dst="02:00:00:00:00:01") / make / UDP(dport=53) / bytes(64))
    assert probes_of(desk, frame) == (mine.number, 1)
    refused = 0
    for i in range(100):
        host = attacker.replace("0.0/16", f"0.{i}")
        field = f"ether[{62 + i // 8}]" if layer == "ip6" else f"udp[{8 + i // 8}]"
        try:
            desk.bind(
                "attacker", f"{layer} and udp and dst host {host} and dst port {i + 1} and {field} & {1 << i % 8} != 0"
            )
        except ExhaustedError as error:
            assert "shapes" in str(error)
            refused += 1
    assert refused == 100 - Quota().shapes
    assert probes_of(desk, frame) == (mine.number, 1)


@pytest.mark.slow
def test_shapes_that_others_frames_are_asked_of_are_few(desk: Desk) -> None:
    """Where owners share an address by ports, or filter on no address: at most so many probes more for the others."""
    desk.open("victim", "udp and dst host 10.0.0.1 and dst port 53")
    attacker = desk.open("attacker", "udp and ip and not dst port 53", replace(Quota(), loose_shapes=12))
    mine = desk.bind("victim", "udp and dst host 10.0.0.1 and dst port 53")
    before, refused = int(lib.exo_demux_shapes(desk.demux)), 0
    for number, text in enumerate(masks(60)):
        address = "dst host 10.0.0.1 and " if number % 2 else ""
        try:
            desk.bind("attacker", f"ip and {address}({text}) and not dst port 53")
        except ExhaustedError as error:
            assert re.search(r"environment attacker: \d+ loose shapes and 1 more: its quota is 12", str(error))
            refused += 1
    assert refused > 380
    frame = bytes(Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.9", dst="10.0.0.1") / UDP(dport=53) / bytes(64))
    owner, probes = probes_of(desk, frame)
    assert owner == mine.number and probes <= 1 + attacker.quota.loose_shapes
    desk.machine.environments.end(attacker, "enough")
    assert lib.exo_demux_shapes(desk.demux) == before
    assert probes_of(desk, frame) == (mine.number, 1)


@pytest.mark.parametrize("layer, host", [("ip", "10.0.0.1"), ("ip6", "fd00::1")])
def test_owners_of_an_address_by_ports_cost_each_other_no_probe(desk: Desk, layer: str, host: str) -> None:
    """A shape is asked of frames to the ports that it has, be they single ones or ranges."""
    region = f"{layer} and udp and dst host {host} and dst portrange"
    desk.open("victim", f"{region} 0-1023")
    attacker = desk.open("attacker", f"{region} 1024-65535", Quota())
    mine = desk.bind("victim", f"{layer} and udp and dst host {host} and dst port 53")
    payload = 62 if layer == "ip6" else 42
    for i in range(attacker.quota.loose_shapes):
        ports = f"port {2000 + i}" if i % 2 else f"portrange {3000 + 10 * i}-{3007 + 10 * i}"
        other = f"ether[{payload + i // 8}] & {1 << i % 8} != 0"
        desk.bind("attacker", f"{layer} and udp and dst host {host} and dst {ports} and {other}")
    make = IPv6(src="fd00::9", dst=host) if layer == "ip6" else IP(src="10.0.0.9", dst=host)
    frame = bytes(Ether(dst="02:00:00:00:00:01") / make / UDP(dport=53) / bytes(64))
    assert probes_of(desk, frame) == (mine.number, 1)


def test_the_last_shapes_of_a_port_are_for_those_who_hold_few(desk: Desk) -> None:
    names = [f"e{i}" for i in range(5)]
    for i, name in enumerate(names):
        desk.open(name, f"udp dst portrange {1000 * i}-{1000 * i + 999}", Quota(shapes=64, loose_shapes=64))
    for i, name in enumerate(names[:4]):
        with pytest.raises(ExhaustedError, match=rf"environment {name}: \d+ shapes"):
            for text in masks(1000 * i):
                desk.bind(name, text)
    assert lib.exo_demux_shapes(desk.demux) == binding_module.CROWDED + binding_module.FEW_SHAPES
    desk.bind(names[4], "udp dst port 4500 and udp[400] = 7")


def test_live_machines_hash_by_seeds_of_their_own_and_virtual_ones_repeat() -> None:
    def seeds(clock: Clock) -> set[int]:
        found = set()
        for _ in range(2):
            with Machine(MachineConfig(clock=clock, pages=16, seed=5)) as machine:
                found.add(machine.hash_seed)
        return found

    assert len(seeds(Clock.MONOTONIC)) == 2
    assert seeds(Clock.VIRTUAL) == {5}


def test_spawn_refuses_a_region_that_cuts_another(desk: Desk) -> None:
    spec = LibOSSpec("a", libos="sink", bindings=("udp port 53",), local="none")
    desk.machine.spawn(spec)
    other = replace(spec, name="b", bindings=("dst host 10.0.0.1",))
    with pytest.raises(ConflictError, match=r"region .dst host 10\.0\.0\.1. of environment b"):
        desk.machine.spawn(other)


def model(text: str) -> Any:
    (only,) = Regions().prepare(text).conjuncts
    return only.to_native(0)


def fill(desk: Desk, count: int, each: Callable[[Any, int], None]) -> None:
    env = desk.machine.environments.open("many", Mode.INLINE).number
    box = model("tcp and src host 10.0.0.1 and dst host 10.0.0.2 and src port 1 and dst port 80")
    for number in range(count):
        box.binding = check(lib.exo_machine_binding(desk.machine.native, env, 0, 0), "binding")
        each(box, number)
        check(lib.exo_demux_insert(desk.demux, box), "conjunct")


def test_a_binding_takes_at_most_200_bytes_of_the_c_core(desk: Desk) -> None:
    empty = lib.exo_demux_bytes(desk.demux) + lib.exo_machine_binding_bytes(desk.machine.native)
    place = next(
        i
        for box in [model("tcp and src host 10.0.0.1 and dst host 10.0.0.2 and src port 1 and dst port 80")]
        for i in range(box.atoms)
        if box.atom[i].base == lib.EXO_BASE_IP4
    )

    def ports(box: Any, number: int) -> None:
        box.atom[place].value = number

    fill(desk, 100_000, ports)
    assert desk.conjuncts == 100_000
    held = lib.exo_demux_bytes(desk.demux) + lib.exo_machine_binding_bytes(desk.machine.native) - empty
    assert held / 100_000 <= 200
    desk.machine.environments.end(desk.machine.environments.at(1), "over")
    assert not desk.conjuncts


def test_the_end_of_an_environment_leaves_the_bindings_of_others(desk: Desk) -> None:
    native = desk.machine.native
    desk.open("b", "udp")
    mine = desk.bind("b", "udp dst port 1")

    def ports(box: Any, number: int) -> None:
        box.atom[box.atoms - 1].value = number

    fill(desk, 20, ports)
    many = desk.machine.environments.at(2)
    after = desk.bind("b", "udp dst port 2")
    for number in (mine.number + 1, mine.number + 8, after.number - 1):  # the first, one between, the last of its list
        check(lib.exo_machine_unbind(native, number), "unbind")
    assert desk.conjuncts == 17 + len(mine.filter.conjuncts) + len(after.filter.conjuncts)
    desk.machine.environments.end(many, "over")
    assert desk.conjuncts == len(mine.filter.conjuncts) + len(after.filter.conjuncts)
    assert lib.exo_machine_unbind(native, mine.number + 2) == lib.EXO_E_NOT_FOUND
