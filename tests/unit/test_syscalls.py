# SPDX-License-Identifier: MIT
"""System calls over the fake machine, through inline gates: what each does, what it refuses, and that a refusal
changes nothing.
"""

from collections.abc import Callable, Iterator

import pytest

from exonet.abi import lib
from exonet.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    FilterError,
    LibOSError,
    UsageError,
)
from exonet.gate.client import InlineGate
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Mode, Rings
from exonet.kernel.localside import LocalSide, mac_bytes
from tests.fakes.dispatcher import FakeKernel, running_kernel

GROUP = bytes.fromhex("01005e000001")


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    with running_kernel() as made:
        yield made


class Side:
    """An environment, its gate and its tokens."""

    def __init__(self, kernel: FakeKernel, name: str, **options: object) -> None:
        self.kernel = kernel
        self.env: Environment = kernel.open(name, **options)
        self.gate: InlineGate = kernel.gate(self.env)

    def token(self, resource: Resource = Resource.FILTER) -> bytes:
        return self.kernel.token(self.env, resource)


@pytest.fixture
def web(kernel: FakeKernel) -> Iterator[Side]:
    side = Side(kernel, "web")
    yield side
    side.gate.close()


@pytest.fixture
def dns(kernel: FakeKernel) -> Side:
    return Side(kernel, "dns")


def refused(side: Side, kind: type[Exception], message: str, act: Callable[[], object]) -> None:
    """`act` raises, and nothing at all has changed."""
    before, count = side.kernel.machine.state(), side.kernel.authority.count()
    with pytest.raises(kind, match=message):
        act()
    assert side.kernel.machine.state() == before
    assert side.kernel.authority.count() == count


class TestHello:
    def test_welcome(self, web: Side) -> None:
        welcome = web.gate.welcome()
        assert (welcome.env, welcome.name, welcome.config) == (web.env.number, "web", {"libos": "web"})
        assert [grant.resource for grant in welcome.capabilities] == ["pages", "filter", "wire"]
        assert [row["port"] for row in welcome.ports] == [0]
        assert welcome.capability("filter", "bind", 0) == web.token()
        assert int.from_bytes(welcome.kernel_area[4:8], "little") == web.env.number
        welcome.libos_area[0] = 1
        with pytest.raises(TypeError):
            welcome.kernel_area[0] = 1
        with pytest.raises(LibOSError, match="was granted no cpu capability"):
            welcome.capability("cpu", "read")
        assert web.gate.welcome() is welcome

    def test_after_its_end_there_is_no_kernel_for_it(self, kernel: FakeKernel, web: Side) -> None:
        kernel.environments.end(web.env, "over")
        with pytest.raises(LibOSError, match="it has ended"):
            web.gate.welcome()

    def test_ready_and_exit(self, web: Side) -> None:
        web.gate.ready()
        web.gate.exit(7)
        assert web.env.ready and web.env.exit_status == 7

    def test_time_is_the_machine_s(self, kernel: FakeKernel, web: Side) -> None:
        kernel.machine.clock = 123
        assert web.gate.now() == 123
        web.gate.sleep(500)
        web.gate.sleep(None)
        assert kernel.machine.wakes == [(web.env.number, 500)]


class TestPages:
    def test_allocate_write_pin_free(self, kernel: FakeKernel, web: Side) -> None:
        extent = web.gate.allocate(3, first=10)
        assert (extent.first, extent.count) == (10, 3)
        extent.memory[:5] = b"hello"
        web.gate.pin(10, 3)
        refused(web, ConflictError, "free pages 10..12", lambda: web.gate.free(10, 3))
        web.gate.unpin(10, 3)
        web.gate.free(10, 3)
        assert kernel.pages.free_count == 64
        assert extent.memory[:5] == bytes(5)

    def test_another_s_pages(self, web: Side, dns: Side) -> None:
        web.gate.allocate(2, first=4)
        refused(dns, ConflictError, r"environment dns: 1 pages \(5..5\)", lambda: dns.gate.allocate(1, first=5))
        for call in (dns.gate.free, dns.gate.pin, dns.gate.unpin):
            refused(dns, UsageError, "environment dns", lambda call=call: call(4, 1))

    def test_quotas(self, kernel: FakeKernel) -> None:
        side = Side(kernel, "small", quota=Quota(pages=4, extents=2))
        side.gate.allocate(1)
        refused(side, ExhaustedError, "1 pages and 4 more", lambda: side.gate.allocate(4))
        side.gate.allocate(1)
        refused(side, ExhaustedError, "2 extents", lambda: side.gate.allocate(1))

    def test_a_capability_over_a_range_gives_pages_of_it_only(self, kernel: FakeKernel) -> None:
        env = kernel.environments.open("ranged", Mode.INLINE)
        kernel.environments.grant(env, Resource.PAGES, Right.WRITE, Scope(pages=(20, 4)))
        gate = kernel.gate(env)
        assert gate.allocate(3).first == 20
        assert gate.allocate(1).first == 23
        for asked in ({"count": 1}, {"count": 1, "first": 24}, {"count": 2, "first": 23}):
            with pytest.raises(DeniedError, match=r"it is for pages 20\.\.23"):
                gate.allocate(**asked)

    def test_without_the_right(self, kernel: FakeKernel) -> None:
        env = kernel.environments.open("poor", Mode.INLINE)
        with pytest.raises(DeniedError, match="environment poor: holds no pages capability"):
            kernel.gate(env).allocate(1)
        kernel.environments.grant(env, Resource.PAGES, Right.READ)
        with pytest.raises(DeniedError, match="lacks the right write"):
            kernel.gate(env).allocate(1)

    def test_r14_revoking_takes_pinned_pages(self, kernel: FakeKernel, web: Side) -> None:
        web.gate.allocate(2)
        web.gate.pin(0, 2)
        kernel.authority.revoke(kernel.authority.authentic(web.token(Resource.PAGES)).identifier)
        assert kernel.pages.free_count == 64 and kernel.pages.extents(web.env.number) == []


class TestDelegatedMemory:
    def test_a_whole_extent_is_shared_and_nothing_else(self, web: Side, dns: Side) -> None:
        mine = web.gate.allocate(2)
        web.gate.allocate(1)
        web.gate.delegate(mine.capability, dns.env.number)
        (granted,) = dns.gate.granted()
        assert dns.gate.granted() == []
        assert granted.extent is not None and (granted.extent.first, granted.extent.count) == (0, 2)
        assert len(granted.extent.memory) == 8192
        mine.memory[:4] = b"ping"
        assert granted.extent.memory[:4] == b"ping"
        refused(dns, UsageError, "pin pages 0..0", lambda: dns.gate.pin(0, 1))

    def test_freeing_revokes_the_delegation(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        extent = web.gate.allocate(1)
        token = web.gate.delegate(extent.capability, dns.env.number)
        web.gate.free(0, 1)
        with pytest.raises(DeniedError, match="revoked"):
            kernel.authority.authentic(token)

    def test_invariant_4_what_was_lent_and_freed_shows_nothing_of_what_comes_after(self, web: Side, dns: Side) -> None:
        extent = web.gate.allocate(1)
        web.gate.delegate(extent.capability, dns.env.number)
        (granted,) = dns.gate.granted()
        web.gate.free(0, 1)
        web.gate.allocate(1).memory[:4] = b"mine"
        assert granted.extent is not None and granted.extent.memory[:4] == bytes(4)

    def test_a_revoked_capability_cannot_be_delegated(self, web: Side, dns: Side) -> None:
        extent = web.gate.allocate(1)
        web.gate.revoke(extent.capability)
        refused(web, DeniedError, "revoked", lambda: web.gate.delegate(extent.capability, dns.env.number))

    def test_events_have_a_quota_and_descriptors_do_not_leak(self, kernel: FakeKernel, web: Side) -> None:
        deaf = Side(kernel, "deaf", quota=Quota(events=2))
        extent = web.gate.allocate(1)
        for _ in range(2):
            web.gate.delegate(extent.capability, deaf.env.number)
        refused(web, ExhaustedError, "deaf: 2 events", lambda: web.gate.delegate(extent.capability, deaf.env.number))


class TestBind:
    def test_bind_and_unbind(self, kernel: FakeKernel, web: Side) -> None:
        number = web.gate.bind("net=lab and port=80", web.token())
        assert kernel.machine.demux == {number: [web.env.number, 0, 0]}
        assert kernel.machine.boxes == [(number, frozenset({("net", "lab"), ("port", "80")}))]
        assert kernel.bindings.describe()[0]["filter"] == "net=lab and port=80"
        web.gate.unbind(number)
        assert not kernel.machine.demux and not kernel.machine.boxes and not len(kernel.bindings)
        refused(web, UsageError, f"binding {number}: environment web has none such", lambda: web.gate.unbind(number))

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("net=home", DeniedError, "does not cover 'net=home'"),
            ("nonsense", FilterError, "must be field=value"),
            ("net=lab or net=home", DeniedError, "does not cover"),
        ],
    )
    def test_r13_a_refused_bind_leaves_nothing_behind(
        self, web: Side, text: str, kind: type[Exception], message: str
    ) -> None:
        refused(web, kind, message, lambda: web.gate.bind(text, web.token()))

    def test_r13_authorisation_comes_before_availability(self, kernel: FakeKernel) -> None:
        side = Side(kernel, "none", quota=Quota(bindings=0))
        refused(side, DeniedError, "does not cover", lambda: side.gate.bind("net=home", side.token()))
        refused(side, ExhaustedError, "0 bindings", lambda: side.gate.bind("net=lab", side.token()))

    @pytest.mark.parametrize(
        ("quota", "message"),
        [
            (Quota(bindings=1), "1 bindings and 1 more"),
            (Quota(conjuncts=2), "1 conjuncts and 2 more"),
            (Quota(shapes=1), "1 shapes and 1 more"),
        ],
    )
    def test_quotas(self, kernel: FakeKernel, quota: Quota, message: str) -> None:
        side = Side(kernel, "small", quota=quota)
        side.gate.bind("net=lab and port=1", side.token())
        text = "net=lab and port=2 and z=1 or net=lab and port=3 and z=1"
        refused(side, ExhaustedError, message, lambda: side.gate.bind(text, side.token()))

    def test_the_wrong_kind_of_capability_and_port(self, web: Side) -> None:
        for token in (web.token(Resource.WIRE), web.token(Resource.PAGES), b"x"):
            refused(web, DeniedError, "capability", lambda token=token: web.gate.bind("net=lab", token))
        refused(web, DeniedError, "it is for port 0, not 1", lambda: web.gate.bind("net=lab", web.token(), 1))
        refused(web, UsageError, "port 5: the machine has ports", lambda: web.gate.bind("net=lab", web.token(), 5))

    def test_another_s_capability(self, web: Side, dns: Side) -> None:
        refused(web, DeniedError, "belongs to environment", lambda: web.gate.bind("net=lab", dns.token()))

    def test_r04_partial_overlap_is_refused_even_with_consent(self, web: Side, dns: Side) -> None:
        web.gate.bind("net=lab and port=53", web.token())
        shown = web.gate.delegate(web.token(), dns.env.number)
        text = "net=lab and host=a"
        wanted = r"'net=lab and host=a' and binding 0 of environment web .* host=a / net=lab / port=53 .* and not \("
        refused(dns, ConflictError, wanted, lambda: dns.gate.bind(text, dns.token(), shown=[shown]))

    def test_r04_the_same_region_is_refused(self, web: Side, dns: Side) -> None:
        web.gate.bind("net=lab and port=53", web.token())
        for side in (web, dns):
            act = lambda side=side: side.gate.bind("port=53 and net=lab", side.token())  # noqa: E731
            refused(side, ConflictError, "holds the very same frames", act)

    def test_r04_nested_in_another_s_needs_its_capability(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        web.gate.bind("net=lab and port=53", web.token())
        text = "net=lab and port=53 and host=a"
        refused(dns, DeniedError, "show a capability derived from its", lambda: dns.gate.bind(text, dns.token()))
        stranger = Side(kernel, "stranger")
        shown = stranger.gate.delegate(stranger.token(), dns.env.number)
        refused(dns, DeniedError, "takes frames from", lambda: dns.gate.bind(text, dns.token(), shown=[shown]))
        consent = web.gate.delegate(web.gate.narrow(web.token(), region=text), dns.env.number)
        assert dns.gate.bind(text, dns.token(), shown=[consent]) == 1
        assert dns.gate.bind(text + " and x=1", consent) == 2

    def test_r04_wider_than_another_s_needs_none(self, web: Side, dns: Side) -> None:
        web.gate.bind("net=lab and port=53", web.token())
        assert dns.gate.bind("net=lab", dns.token()) == 1

    def test_r04_own_bindings_may_nest(self, web: Side) -> None:
        web.gate.bind("net=lab", web.token())
        web.gate.bind("net=lab and port=1", web.token())

    def test_r06_snoop_needs_its_right_and_conflicts_with_nobody(
        self, kernel: FakeKernel, web: Side, dns: Side
    ) -> None:
        web.gate.bind("net=lab", web.token())
        number = dns.gate.bind("net=lab", dns.token(), snoop=True)
        assert kernel.machine.demux[number] == [dns.env.number, 0, lib.EXO_BIND_SNOOP]
        plain = dns.gate.narrow(dns.token(), rights=["bind"])
        refused(dns, DeniedError, "lacks the right snoop", lambda: dns.gate.bind("net=lab", plain, snoop=True))

    def test_ports_do_not_conflict(self, kernel: FakeKernel, web: Side) -> None:
        kernel.environments.grant(web.env, Resource.FILTER, Right.BIND, Scope(port=1))
        web.gate.bind("net=lab", web.token())
        assert web.gate.bind("net=lab", web.env.tokens[-1], port=1) == 1

    def test_r13_a_full_demux_takes_every_box_back(self) -> None:
        """Also those that narrower bindings would have got so as to win against the new one."""
        wide = "net=lab or net=lab and x=1 and y=1"
        with running_kernel(table_size=3) as kernel:
            web, dns = Side(kernel, "web"), Side(kernel, "dns")
            web.gate.bind("net=lab and a=1", web.token())
            refused(dns, ExhaustedError, "the demux is full", lambda: dns.gate.bind(wide, dns.token()))
            three = "net=lab and a=2 or net=lab and a=3 or net=lab and a=4"
            refused(dns, ExhaustedError, "the demux is full", lambda: dns.gate.bind(three, dns.token()))
            kernel.machine.table_size = 4
            assert dns.gate.bind(wide, dns.token()) == 3
            assert [len(box[1]) for box in kernel.machine.boxes if box[0] == 0] == [2, 4]
            dns.gate.unbind(3)
            kernel.machine.table_size = 5
            dns.gate.bind(wide, dns.token())
            assert [len(box[1]) for box in kernel.machine.boxes if box[0] == 0] == [2, 4]

    def test_r14_revoking_breaks_the_binding(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        shown = web.gate.delegate(web.token(), dns.env.number)
        dns.gate.bind("net=lab and port=1", shown)
        web.gate.bind("net=lab and port=2", web.token())
        web.gate.revoke(shown)
        assert [binding.owner for binding in kernel.bindings.of(web.env.number)] == ["web"]
        assert not kernel.bindings.of(dns.env.number) and list(kernel.machine.demux) == [1]
        refused(dns, DeniedError, "revoked", lambda: dns.gate.bind("net=lab and port=1", shown))

    def test_invariant_6_every_bind_is_checked_by_the_one_function(
        self, web: Side, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With `check` refusing everything, no call that needs a right has any effect."""

        def refuse(*args: object, **options: object) -> None:
            raise DeniedError("refused by the test")

        token = web.token()
        for module in ("binding", "syscalls"):
            monkeypatch.setattr(f"exonet.kernel.{module}.check", refuse)
        gate = web.gate
        for act in (
            lambda: gate.allocate(1),
            lambda: gate.allocate(1, 5),
            lambda: gate.bind("net=lab", token),
            lambda: gate.bind("net=lab", token, snoop=True),
            lambda: gate.subscribe(GROUP),
            lambda: gate.neighbour("10.7.0.1"),
            lambda: gate.narrow(token),
            lambda: gate.delegate(token, web.env.number),
            lambda: gate.revoke(token),
        ):
            refused(web, DeniedError, "refused by the test", act)


class TestWire:
    def test_r11_local_sides_follow_the_capabilities(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        mine = kernel.machine.local_sides
        assert [str(side) for side in mine[web.env.number]] == ["02:00:00:00:01:01 10.7.0.1/32"]
        child = web.gate.delegate(web.token(Resource.WIRE), dns.env.number)
        assert len(mine[dns.env.number]) == 2
        web.gate.revoke(child)
        assert len(mine[dns.env.number]) == 1
        kernel.authority.revoke(kernel.authority.authentic(web.token(Resource.WIRE)).identifier)
        assert mine[web.env.number] == []

    def test_r14_a_side_taken_away_ends_even_where_the_rest_cannot_be_made(
        self, kernel: FakeKernel, web: Side, dns: Side, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        child = web.gate.delegate(web.token(Resource.WIRE), dns.env.number)
        whole = kernel.machine.locals

        def without_memory(env: int, sides: list[LocalSide]) -> None:
            if sides:
                raise ExhaustedError(f"environment {env}: {len(sides)} local sides: no memory")
            whole(env, sides)

        monkeypatch.setattr(kernel.machine, "locals", without_memory)
        with pytest.raises(ExhaustedError):
            web.gate.revoke(child)
        assert kernel.machine.local_sides[dns.env.number] == []

    def test_r11_without_the_right_there_is_no_local_side(self, kernel: FakeKernel, web: Side) -> None:
        env = kernel.environments.open("mute", Mode.INLINE)
        side = LocalSide(mac_bytes("02:00:00:00:00:09"))
        kernel.environments.grant(env, Resource.WIRE, Right.READ, Scope(port=0, locals=(side,)))
        assert kernel.machine.local_sides[env.number] == []

    def test_too_many_local_sides(self, kernel: FakeKernel) -> None:
        env = kernel.environments.open("many", Mode.INLINE)
        sides = tuple(LocalSide(mac_bytes("02:00:00:00:00:09"), ethertype=i + 1) for i in range(65))
        with pytest.raises(UsageError, match="65 local sides: at most 64"):
            kernel.environments.grant(env, Resource.WIRE, Right.TRANSMIT, Scope(port=0, locals=sides))
        assert kernel.authority.held_by(env.number) == [] and env.tokens == []

    def test_subscribe(self, kernel: FakeKernel, web: Side) -> None:
        web.gate.subscribe(GROUP)
        web.gate.subscribe(GROUP)
        web.gate.subscribe(bytes(6))
        assert kernel.machine.groups == {(web.env.number, 0, GROUP), (web.env.number, 0, bytes(6))}
        web.gate.unsubscribe(GROUP)
        refused(web, UsageError, "has not subscribed to it", lambda: web.gate.unsubscribe(GROUP))
        refused(web, UsageError, "must be a group address", lambda: web.gate.subscribe(bytes.fromhex("020000000001")))
        refused(web, DeniedError, "port 0, not 1", lambda: web.gate.subscribe(GROUP, 1))

    def test_subscription_quota(self, kernel: FakeKernel) -> None:
        side = Side(kernel, "small", quota=Quota(subscriptions=1, neighbours=0))
        side.gate.subscribe(GROUP)
        refused(side, ExhaustedError, "1 subscriptions", lambda: side.gate.subscribe(bytes(6)))
        refused(side, ExhaustedError, "0 neighbours", lambda: side.gate.neighbour("10.7.0.1"))

    def test_r03_an_address_has_one_owner(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        web.gate.neighbour("10.7.0.1")
        web.gate.neighbour("10.7.0.1")
        assert kernel.machine.neighbours == {(0, 0, bytes([10, 7, 0, 1])): web.env.number}
        refused(
            dns, DeniedError, "address 10.7.0.1 is in none of its local sides", lambda: dns.gate.neighbour("10.7.0.1")
        )
        web.gate.delegate(web.token(Resource.WIRE), dns.env.number)
        refused(dns, ConflictError, "environment web answers for it", lambda: dns.gate.neighbour("10.7.0.1"))

    def test_r03_an_address_has_one_owner_in_each_vlan(self, kernel: FakeKernel, web: Side) -> None:
        """The VLAN is the one that the operator put the environment on."""
        address, packed = "10.7.0.1", bytes([10, 7, 0, 1])
        five, late = (Side(kernel, name, config={"vlan": 5}) for name in ("five", "late"))
        for side in (five, late):
            web.gate.delegate(web.token(Resource.WIRE), side.env.number)
        for side in (web, five):
            side.gate.neighbour(address)
        assert kernel.machine.neighbours == {(0, 0, packed): web.env.number, (0, 5, packed): five.env.number}
        refused(late, ConflictError, "port 0, VLAN 5: environment five", lambda: late.gate.neighbour(address))
        kernel.environments.end(five.env, "over")
        late.gate.neighbour(address)
        assert kernel.machine.neighbours == {(0, 0, packed): web.env.number, (0, 5, packed): late.env.number}

    @pytest.mark.parametrize("text", ["", "host", "10.7.0.1/24", "10.7.0", "fe80::1%eth0", "1" * 60])
    def test_bad_addresses(self, web: Side, text: str) -> None:
        refused(web, UsageError, "address", lambda: web.gate.neighbour(text))

    def test_r14_subscriptions_and_neighbours_go_with_the_capability(self, kernel: FakeKernel, web: Side) -> None:
        web.gate.subscribe(GROUP)
        web.gate.neighbour("10.7.0.1")
        kernel.authority.revoke(kernel.authority.authentic(web.token(Resource.WIRE)).identifier)
        assert not kernel.machine.groups and not kernel.machine.neighbours
        assert not web.env.subscriptions and not web.env.neighbours


class TestCapabilities:
    def test_narrow(self, kernel: FakeKernel, web: Side) -> None:
        narrow = web.gate.narrow(web.token(), rights=["bind"], region="net=lab and port=1")
        refused(web, DeniedError, "does not cover", lambda: web.gate.bind("net=lab", narrow))
        refused(web, DeniedError, "cannot give the right", lambda: web.gate.narrow(narrow, rights=["snoop"]))
        refused(web, DeniedError, "cannot be widened", lambda: web.gate.narrow(narrow, region="net=lab"))
        refused(web, FilterError, "must be field=value", lambda: web.gate.narrow(web.token(), region="rubbish"))
        refused(web, DeniedError, "right 'fly'", lambda: web.gate.narrow(web.token(), rights=["fly"]))
        wire = web.token(Resource.WIRE)
        refused(web, UsageError, "only a filter capability", lambda: web.gate.narrow(wire, region="net=lab"))

    def test_delegation_needs_the_right_and_a_living_target(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        plain = web.gate.narrow(web.token(), rights=["bind"])
        refused(web, DeniedError, "lacks the right grant", lambda: web.gate.delegate(plain, dns.env.number))
        refused(web, UsageError, "environment 99", lambda: web.gate.delegate(web.token(), 99))
        kernel.environments.end(dns.env, "over")
        refused(web, UsageError, "there is none such alive", lambda: web.gate.delegate(web.token(), dns.env.number))

    def test_quota_of_both_sides(self, kernel: FakeKernel, web: Side) -> None:
        small = Side(kernel, "small", quota=Quota(capabilities=3))
        refused(web, ExhaustedError, "environment small", lambda: web.gate.delegate(web.token(), small.env.number))
        refused(small, ExhaustedError, "environment small", lambda: small.gate.narrow(small.token()))

    def test_only_the_holder_or_who_gave_it_may_revoke(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        child = web.gate.delegate(web.token(), dns.env.number)
        stranger = Side(kernel, "stranger")
        refused(stranger, DeniedError, "belongs to environment", lambda: stranger.gate.revoke(child))
        refused(dns, DeniedError, "belongs to environment", lambda: dns.gate.revoke(web.token()))
        dns.gate.revoke(child)
        refused(web, DeniedError, "revoked", lambda: web.gate.revoke(child))

    def test_r14_death_of_the_giver_breaks_what_it_gave(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        shown = web.gate.delegate(web.token(), dns.env.number)
        dns.gate.bind("net=lab and port=1", shown)
        kernel.environments.end(web.env, "over")
        assert not kernel.machine.demux and kernel.authority.count(dns.env.number) == 3

    def test_describe(self, web: Side) -> None:
        web.gate.bind("net=lab", web.token())
        web.gate.allocate(2)
        web.gate.subscribe(GROUP)
        found = web.gate.describe()
        assert (found["name"], found["mode"], found["pages"]) == ("web", "inline", 2)
        assert found["subscriptions"] == ["01:00:5e:00:00:01 on port 0"]
        assert [row["resource"] for row in found["capabilities"]] == ["pages", "filter", "wire", "pages"]


class TestEnvironments:
    def test_invariant_8_death_gives_everything_back(self, kernel: FakeKernel, web: Side, dns: Side) -> None:
        extent = web.gate.allocate(5)
        web.gate.pin(0, 5)
        web.gate.bind("net=lab", web.token())
        web.gate.subscribe(GROUP)
        web.gate.neighbour("10.7.0.1")
        web.gate.delegate(extent.capability, dns.env.number)
        others = kernel.authority.held_by(dns.env.number)[:3]
        kernel.environments.end(web.env, "over")
        kernel.environments.end(web.env, "twice")
        assert web.env.end_reason == "over"
        machine = kernel.machine
        assert not machine.demux and not machine.groups and not machine.neighbours and kernel.pages.free_count == 64
        assert kernel.authority.held_by(dns.env.number) == others
        assert not web.env.tokens and not web.env.subscriptions and not web.env.neighbours

    def test_a_name_can_be_used_again_after_death(self, kernel: FakeKernel, web: Side) -> None:
        with pytest.raises(ConflictError, match="there is one of that name"):
            kernel.open("web")
        kernel.environments.end(web.env, "over")
        assert kernel.open("web").number != web.env.number

    @pytest.mark.parametrize(("rings", "kind"), [(Rings(fill=9), UsageError), (Rings(receive=65536), ExhaustedError)])
    def test_bad_rings_leave_nothing(self, kernel: FakeKernel, rings: Rings, kind: type[Exception]) -> None:
        for mode in Mode:
            with pytest.raises(kind):
                kernel.environments.open("bad", mode, rings=rings)
        assert not kernel.machine.envs

    def test_describe_all(self, kernel: FakeKernel, web: Side) -> None:
        (row,) = kernel.environments.describe()
        assert row["name"] == "web" and row["protection"] == "none"
