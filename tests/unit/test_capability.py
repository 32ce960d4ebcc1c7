# SPDX-License-Identifier: MIT
"""Capabilities: authentic or not, narrowed never widened, delegated, revoked with all derived; quotas; local sides."""

import random
from itertools import pairwise

import pytest

from exonet.abi import ffi
from exonet.errors import DeniedError, ExhaustedError, UsageError
from exonet.kernel.capability import Authority, Capability, Quota, Resource, Right, Scope, check
from exonet.kernel.localside import LocalSide, mac_bytes
from tests.fakes.machine import FakeFilters

ALL = Right.READ | Right.WRITE | Right.BIND | Right.TRANSMIT | Right.SNOOP | Right.GRANT
MAC = mac_bytes("02:00:00:00:00:01")
OTHER = mac_bytes("02:00:00:00:00:02")


@pytest.fixture
def authority() -> Authority:
    return Authority(FakeFilters().text_covers)


def filter_token(authority: Authority, holder: int = 1, rights: Right = ALL, region: str | None = "net=lab") -> bytes:
    return authority.grant(holder, Resource.FILTER, rights, Scope(port=0, region=region))


def use(authority: Authority, token: bytes, **changes: object) -> Capability:
    asked = {
        "holder": 1,
        "resource": Resource.FILTER,
        "right": Right.BIND,
        "scope": Scope(port=0, region="net=lab and port=53"),
    }
    return check(authority, token, **(asked | changes))  # type: ignore[arg-type]


class TestTokens:
    def test_what_was_granted_is_what_is_checked(self, authority: Authority) -> None:
        capability = use(authority, filter_token(authority))
        assert capability == Capability(1, 0, 1, 1, Resource.FILTER, ALL, Scope(port=0, region="net=lab"))

    def test_every_field_survives_the_token(self, authority: Authority) -> None:
        sides = (LocalSide(MAC, 1, address="fe80::1", prefix=64, protocol=17, port_low=5, port_high=9),)
        scope = Scope(port=1, pages=(3, 9), region="a=b", locals=sides, env=4)
        token = authority.grant(9, Resource.WIRE, Right.SNOOP, scope)
        assert authority.authentic(token).scope == scope

    def test_every_flipped_bit_is_found(self, authority: Authority) -> None:
        token = filter_token(authority)
        for bit in range(8 * len(token)):
            bent = bytearray(token)
            bent[bit // 8] ^= 1 << bit % 8
            with pytest.raises(DeniedError, match="not one that this kernel granted"):
                use(authority, bytes(bent))

    def test_every_cut_and_every_addition_is_found(self, authority: Authority) -> None:
        token = filter_token(authority)
        for bad in [*(token[:n] for n in range(len(token))), token + b" ", b" " + token, token[32:], token + token]:
            with pytest.raises(DeniedError, match="not one that this kernel granted"):
                use(authority, bad)

    def test_invariant_5_random_bytes_are_denied(self, authority: Authority) -> None:
        source = random.Random(1)
        for _ in range(500):
            with pytest.raises(DeniedError):
                use(authority, source.randbytes(source.randrange(300)))

    def test_another_kernel_s_token_is_denied(self, authority: Authority) -> None:
        other = Authority(FakeFilters().text_covers)
        with pytest.raises(DeniedError, match="not one that this kernel granted"):
            use(authority, filter_token(other))

    def test_invariant_7_tokens_repeat_with_the_seed(self) -> None:
        make = FakeFilters().text_covers
        one, same, other = (Authority.of_seed(make, seed) for seed in (1, 1, 2))
        assert filter_token(one) == filter_token(same) != filter_token(other)

    def test_the_key_is_in_no_token_and_no_repr(self, authority: Authority) -> None:
        token = filter_token(authority)
        assert authority._key not in token and authority._key.hex() not in repr(authority)


class TestCheck:
    @pytest.mark.parametrize(
        ("changes", "missing"),
        [
            ({"holder": 2}, "belongs to environment 1, not 2"),
            ({"resource": Resource.PAGES}, "is over filter, not pages"),
            ({"right": Right.BIND | Right.WRITE}, "lacks the right write"),
            ({"scope": Scope(port=1, region="net=lab")}, "it is for port 0, not 1"),
            ({"scope": Scope(region="net=lab")}, "it is for port 0, not every port"),
            ({"scope": Scope(port=0, region="net=home")}, "its region 'net=lab' does not cover 'net=home'"),
            ({"scope": Scope(port=0)}, "its region 'net=lab' does not cover 'every frame'"),
        ],
    )
    def test_r13_a_denial_names_what_was_missing(
        self, authority: Authority, changes: dict[str, object], missing: str
    ) -> None:
        token = filter_token(authority, rights=Right.BIND | Right.GRANT)
        with pytest.raises(DeniedError) as denied:
            use(authority, token, **changes)
        assert str(denied.value).startswith("capability 1 (filter: bind|grant, port 0, region net=lab): ")
        assert missing in str(denied.value)

    @pytest.mark.parametrize(
        ("held", "wanted", "covered"),
        [
            (None, None, True),
            (None, (0, 9), True),
            ((4, 4), (4, 4), True),
            ((4, 4), (5, 2), True),
            ((4, 4), (3, 2), False),
            ((4, 4), (7, 2), False),
            ((4, 4), None, False),
        ],
    )
    def test_page_ranges(self, authority: Authority, held: object, wanted: object, covered: bool) -> None:
        lacking = authority.missing(Scope(pages=held), Scope(pages=wanted))  # type: ignore[arg-type]
        assert (lacking == "") is covered

    def test_addresses_of_local_sides(self, authority: Authority) -> None:
        held = Scope(
            port=0, locals=(LocalSide(MAC, 0, address="10.7.0.2"), LocalSide(MAC, 0, address="fe80::", prefix=64))
        )
        for address, port, good in (
            ("10.7.0.2", 0, True),
            ("10.7.0.3", 0, False),
            ("fe80::5", 0, True),
            ("10.7.0.2", 1, False),
        ):
            assert (authority.missing(held, Scope(port=port, address=address)) == "") is good
        everything = Scope(port=0, locals=(LocalSide(MAC, 0, any=True),))
        assert authority.missing(everything, Scope(port=0, address="1.2.3.4")) == ""


class TestDerive:
    def test_narrowing_takes_away(self, authority: Authority) -> None:
        parent = authority.authentic(filter_token(authority))
        token = authority.derive(parent, 1, Right.BIND, Scope(port=0, region="net=lab and port=53"))
        child = use(authority, token)
        assert child.parent == parent.identifier and child.rights == Right.BIND
        with pytest.raises(DeniedError, match="does not cover 'net=lab'"):
            use(authority, token, scope=Scope(port=0, region="net=lab"))

    @pytest.mark.parametrize(
        ("rights", "scope", "missing"),
        [
            (ALL, Scope(port=0, region="net=lab"), "cannot give the right"),
            (None, Scope(port=1, region="net=lab"), "cannot be widened: it is for port 0"),
            (None, Scope(port=0, region="net=home"), "cannot be widened: its region"),
            (None, Scope(port=0), "cannot be widened"),
            (None, Scope(port=0, region="net=lab", locals=(LocalSide(MAC),)), "is in none of its own (none)"),
        ],
    )
    def test_it_never_widens(self, authority: Authority, rights: Right | None, scope: Scope, missing: str) -> None:
        parent = authority.authentic(filter_token(authority, rights=Right.BIND))
        with pytest.raises(DeniedError) as denied:
            authority.derive(parent, 1, rights, scope)
        assert missing in str(denied.value)
        assert authority.count() == 1

    def test_a_chain_of_random_narrowings_never_gains(self, authority: Authority) -> None:
        source = random.Random(5)
        capability = authority.authentic(filter_token(authority))
        for step in range(40):
            wanted = Right(source.randrange(ALL.value + 1))
            scope = Scope(
                port=source.choice([0, 1, None]), region=source.choice(["net=lab", f"net=lab and x={step}", None])
            )
            try:
                child = authority.authentic(authority.derive(capability, 1, wanted, scope))
            except DeniedError:
                continue
            assert not child.rights & ~capability.rights
            assert authority.missing(capability.scope, child.scope) == ""


class TestRevoke:
    def make_tree(self, authority: Authority) -> list[Capability]:
        """1 -> 2 -> 3, 1 -> 4, and 5 apart, each of its own holder."""
        capabilities = [authority.authentic(filter_token(authority))]
        for parent, holder in ((0, 2), (1, 3), (0, 4)):
            token = authority.derive(capabilities[parent], holder, None, capabilities[parent].scope)
            capabilities.append(authority.authentic(token))
        return [*capabilities, authority.authentic(filter_token(authority, 5))]

    def test_r14_everything_derived_breaks_at_once(self, authority: Authority) -> None:
        tree = self.make_tree(authority)
        broken: list[int] = []
        for each in tree:
            authority.attach(each, lambda each=each: broken.append(each.identifier))
        gone = authority.revoke(tree[1].identifier)
        assert [each.identifier for each in gone] == [2, 3] and sorted(broken) == [2, 3]
        for each in tree[1:3]:
            with pytest.raises(DeniedError, match="revoked"):
                authority.authentic(authority.token(each))
        for each in (tree[0], tree[3], tree[4]):
            assert authority.authentic(authority.token(each)) == each
        assert authority.revoke(tree[1].identifier) == []
        authority.revoke(tree[0].identifier)
        assert sorted(broken) == [1, 2, 3, 4] and authority.count() == 1

    def test_a_breaker_sees_the_tree_as_it_will_be(self, authority: Authority) -> None:
        tree = self.make_tree(authority)
        seen: list[int] = []
        authority.attach(tree[2], lambda: seen.append(authority.count()))
        authority.revoke(tree[0].identifier)
        assert seen == [1]

    def test_a_detached_breaker_is_not_called(self, authority: Authority) -> None:
        tree = self.make_tree(authority)
        handle = authority.attach(tree[0], lambda: pytest.fail("called"))
        authority.detach(tree[0], handle)
        authority.revoke(tree[0].identifier)
        authority.detach(tree[0], handle)

    def test_ancestors(self, authority: Authority) -> None:
        tree = self.make_tree(authority)
        assert authority.descends(tree[2], 1) and authority.descends(tree[2], 3)
        assert not authority.descends(tree[2], 4) and not authority.descends(tree[0], 2)
        assert authority.holds_above(tree[2], 2) and authority.holds_above(tree[2], 1)
        assert not authority.holds_above(tree[2], 3) and not authority.holds_above(tree[2], 4)
        token = authority.token(tree[2])
        asked = {"resource": Resource.FILTER, "right": Right(0)}
        assert check(authority, token, holder=1, above=True, **asked) == tree[2]  # type: ignore[arg-type]
        with pytest.raises(DeniedError, match="belongs to environment 3, not 4"):
            check(authority, token, holder=4, above=True, **asked)  # type: ignore[arg-type]

    def test_an_old_token_does_not_come_back_with_a_new_epoch(self, authority: Authority) -> None:
        old = filter_token(authority)
        authority.revoke(1)
        new = filter_token(authority)
        assert authority.authentic(new).epoch > 1 and authority.authentic(new).identifier == 2
        with pytest.raises(DeniedError, match="revoked"):
            authority.authentic(old)


class TestRights:
    def test_by_name(self) -> None:
        assert Right.parse(["bind", "SNOOP"]) == Right.BIND | Right.SNOOP
        assert Right.names(Right.BIND | Right.GRANT) == ["bind", "grant"]
        with pytest.raises(DeniedError, match="right 'fly': must be one of read, write, bind"):
            Right.parse(["fly"])


class TestQuota:
    def test_the_message_names_who_what_and_how_many(self) -> None:
        Quota(pages=5).charge("pages", 4, 1, "web")
        with pytest.raises(ExhaustedError, match="environment web: 4 pages and 2 more: its quota is 5"):
            Quota(pages=5).charge("pages", 4, 2, "web")


class TestLocalSide:
    WIDE_FIRST = (
        LocalSide(MAC, any=True),
        LocalSide(MAC),
        LocalSide(MAC, address="10.0.0.0", prefix=8),
        LocalSide(MAC, address="10.7.0.0", prefix=16, protocol=17),
        LocalSide(MAC, address="10.7.0.2", protocol=17),
        LocalSide(MAC, address="10.7.0.2", protocol=17, port_low=100, port_high=200),
        LocalSide(MAC, address="10.7.0.2", protocol=17, port_low=150, port_high=150),
    )

    def test_covers_is_an_order(self) -> None:
        for wide, narrow in pairwise(self.WIDE_FIRST):
            assert wide.covers(narrow) and not narrow.covers(wide)
        assert all(side.covers(side) for side in self.WIDE_FIRST)

    @pytest.mark.parametrize(
        ("held", "wanted"),
        [
            (LocalSide(MAC), LocalSide(OTHER)),
            (LocalSide(MAC, 0, any=True), LocalSide(MAC, 1, any=True)),
            (LocalSide(MAC, ethertype=0x806), LocalSide(MAC)),
            (LocalSide(MAC, ethertype=0x806), LocalSide(MAC, ethertype=0x800)),
            (LocalSide(MAC, ethertype=0x806), LocalSide(MAC, address="10.0.0.1")),
            (LocalSide(MAC, address="10.0.0.1"), LocalSide(MAC)),
            (LocalSide(MAC, address="10.0.0.1"), LocalSide(MAC, address="::1")),
            (LocalSide(MAC, address="10.0.0.1", protocol=6), LocalSide(MAC, address="10.0.0.1")),
        ],
    )
    def test_does_not_cover(self, held: LocalSide, wanted: LocalSide) -> None:
        assert not held.covers(wanted)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"mac": b"12345"}, "must be 6 bytes"),
            ({"port_low": 5, "port_high": 4}, "must rise within"),
            ({"port_high": 65536}, "must rise within"),
            ({"protocol": 256}, "out of range"),
            ({"ethertype": -1}, "out of range"),
            ({"address": "10.0.0"}, "must be an IPv4 or IPv6 address"),
            ({"address": "10.0.0.1", "prefix": 33}, "prefix 33: must be 0..32"),
        ],
    )
    def test_impossible(self, fields: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            LocalSide(**({"mac": MAC} | fields))  # type: ignore[arg-type]

    def test_as_the_kernel_reads_it(self) -> None:
        row = ffi.new("struct exo_local *")
        LocalSide(MAC, 3, address="10.7.0.2", prefix=24, protocol=17, port_low=5, port_high=6).fill(row)
        assert bytes(row.mac) == MAC and bytes(row.address)[:5] == bytes([10, 7, 0, 0, 0])
        assert (row.family, row.prefix, row.protocol, row.port_low, row.port_high, row.port) == (4, 24, 17, 5, 6, 3)
        LocalSide(MAC, any=True).fill(row)
        assert (row.any, row.family, row.prefix, row.port_high, row.port) == (1, 0, 0, 65535, 0)

    @pytest.mark.parametrize("text", ["", "02:00", "02:00:00:00:00:zz", "02:00:00:00:00:001", "0200.0000.0001"])
    def test_bad_mac(self, text: str) -> None:
        with pytest.raises(UsageError, match="must be six bytes"):
            mac_bytes(text)
