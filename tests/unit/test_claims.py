# SPDX-License-Identifier: MIT
"""What the claim index costs whom, by counted work: asks by many claims, changes beside many projections, the first ask
by a new kind of claim, and what is left when owners go.
"""

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from exonet.kernel import claims as claims_module
from exonet.kernel import projection as projection_module
from exonet.kernel import studies as studies_module
from exonet.kernel.claim import Claim
from exonet.kernel.claims import Claims
from exonet.kernel.projection import LEAST, Projection
from exonet.kernel.regions import Regions
from exonet.kernel.studies import Needed, Unready
from exonet.kernel.waste import Waste
from tests.fakes.desk import Desk, open_desk

REGIONS = Regions()
TCP = "tcp and src host 10.0.{} and dst host 10.9.0.1 and src port 7 and dst port 80"


class Counted(tuple[int, ...]):
    """Values of a claim; counts how often any of them is read."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        Counted.reads += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[int]:
        Counted.reads += 1
        return super().__iter__()


class Owner:
    """Of the claims of some filters."""

    def __init__(self, *texts: str) -> None:
        found = [(each, place) for text in texts for each in [REGIONS.prepare(text)] for place in range(each.count)]
        self.claims: Sequence[Claim] = [
            claim.like(Counted(claim.values), claim.span, claim.excluded, (prepared, place))
            for prepared, place in found
            for claim in [prepared.claims[place]]
        ]
        self.high = sum(claim.high for claim in self.claims)


def sockets(count: int, first: int = 0) -> list[Owner]:
    return [Owner(TCP.format(f"{i >> 8}.{i & 255}")) for i in range(first, first + count)]


def kinds(count: int, host: str) -> list[Owner]:
    """Each with masks that no other has."""
    return [
        Owner(f"dst host {host} and tcp dst port {100 + i} and tcp[{4 + i // 8}] & {1 << i % 8} != 0")
        for i in range(count)
    ]


def product(rows: int) -> Owner:
    sources, destinations = (" or ".join(str(first + 37 * i) for i in range(rows)) for first in (1000, 2000))
    return Owner(f"dst host 10.0.0.1 and (src port {sources}) and (dst port {destinations})")


def filled(*owners: Owner) -> Claims:
    index = Claims()
    for owner in owners:
        index.add(owner)
    return index


def reads(work: Callable[[], object]) -> int:
    Counted.reads = 0
    work()
    return Counted.reads


def asked(index: Claims, owner: Owner, between: Callable[[], object] = lambda: None) -> tuple[dict[Any, bool], int]:
    """By one who has no time, again and again; and how often."""
    for tries in range(1, 10_000):
        try:
            return index.near(owner.claims, lambda: True), tries
        except Unready as unready:
            unready.work()
            between()
    raise AssertionError


@pytest.mark.parametrize("host", ["10.0.0.1", "10.0.0.2"])
def test_hundreds_of_claims_beside_hundreds_of_kinds(host: str) -> None:
    """Each claim would ask each kind: 867 times 90."""
    many, others = product(17), kinds(90, host)
    assert len(many.claims) == 867
    index = filled(*others)
    index.near(many.claims)
    assert reads(lambda: index.near(many.claims)) < 20 * 867
    index.add(cutting := Owner("dst host 10.0.0.1 and tcp src port 1037 and tcp[20] = 1"))
    assert index.near(many.claims) == {cutting: False}


def test_a_change_costs_the_same_beside_many_projections() -> None:
    many, others, live = product(8), kinds(60, "10.0.0.1"), product(9)

    def change(index: Claims) -> int:
        return reads(lambda: (index.add(many), index.remove(many)))

    alone, beside = filled(live), filled(live, *others)
    for other in others:
        beside.near(other.claims)
    assert change(beside) == change(alone) <= 8 * len(many.claims)


def test_changes_that_cancel_out_cost_who_asks_nothing() -> None:
    index, asker = filled(*sockets(300)), Owner("tcp[13] & 2 != 0")
    index.near(asker.claims)
    fresh = sockets(80, first=1000)
    for owner in fresh:
        index.add(owner)
    for owner in fresh:
        index.remove(owner)
    assert reads(lambda: index.near(asker.claims)) <= 2 * 300  # each that it finds is judged
    index.add(fresh[0])
    assert len(index.near(asker.claims)) == 301


def test_what_all_of_a_group_have_otherwise_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    index, one = filled(*sockets(500)), Owner("udp dst port 5")
    monkeypatch.setattr(Projection, "put", lambda *_: pytest.fail("made a projection"))
    for asker in (one, Owner("tcp src port 8"), Owner("dst host 10.77.0.1 and ip[8] < 5"), product(4)):
        assert index.near(asker.claims) == {}
    for owner in sockets(500):
        index.add(owner)


def test_what_is_left_of_a_group_agrees_on_less() -> None:
    index = filled(*sockets(20))
    index.add(other := Owner("tcp and src host 10.0.0.1 and dst host 10.9.0.2 and src port 7 and dst port 80"))
    assert index.near(Owner("dst host 10.9.0.2 and tcp[13] & 2 != 0").claims) == {other: False}


def test_a_new_kind_s_first_ask_goes_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    index, asker = filled(*sockets(5000)), Owner("dst host 10.9.0.1 and tcp[13] & 2 != 0")
    puts, most = [0], [0]
    put = Projection.put

    def counted(*arguments: Any) -> None:
        puts[0] += 1
        put(*arguments)

    def between() -> None:
        most[0] = max(most[0], puts[0])
        puts[0] = 0

    monkeypatch.setattr(Projection, "put", counted)
    found, tries = asked(index, asker, between)
    assert len(found) == 5000 and most[0] <= LEAST and tries == -(-5000 // LEAST) + (not 5000 % LEAST)
    assert asked(index, asker)[1] == 1


@pytest.mark.parametrize("churn", [100, 1000, 8000])
@pytest.mark.slow
def test_whoever_asks_gets_there_however_much_others_bind(churn: int) -> None:
    """Owners that come and go between any two tries, and kinds that push each other out of the index."""
    index, asker = filled(*sockets(5000)), Owner("dst host 10.9.0.1 and tcp[13] & 2 != 0")
    fresh, strange = sockets(churn, first=10_000), kinds(100, "10.0.0.1")
    held: list[Owner] = []

    def between() -> None:
        for owner in held:
            index.remove(owner)
        held[:] = [owner for owner in fresh if owner not in held] if not held else []
        for owner in held:
            index.add(owner)
        for owner in strange:
            index.near(owner.claims)
            index.add(owner)
        for owner in strange:
            index.remove(owner)

    found, tries = asked(index, asker, between)
    assert len(found) == 5000 + len(held)
    assert tries <= 40


def test_patience_is_not_asked_to_come_again() -> None:
    index, asker = filled(*sockets(2000)), Owner("dst host 10.9.0.1 and tcp[13] & 2 != 0")
    assert len(index.near(asker.claims)) == 2000


def test_a_filter_of_more_kinds_than_are_kept_idle_finds_all_of_them() -> None:
    texts = [f"tcp[{4 + i // 8}] & {1 << i % 8} != 0 and tcp dst port {i}" for i in range(90)]
    many = Owner(*texts, *texts)
    others = [Owner(f"ip and dst host 10.0.0.1 and tcp dst port {i}") for i in range(90)]
    index = filled(*others)
    assert len({claim.kind for claim in many.claims}) > claims_module.MOST_IDLE
    for _ in range(2):
        assert asked(index, many)[0] == dict.fromkeys(others, False)
    index.add(many)
    index.remove(many)
    index.near(others[0].claims)
    assert len(index._groups) <= claims_module.MOST_IDLE + len(index._live)


def test_who_has_gone_is_not_held() -> None:
    index, askers = filled(*sockets(10)), [*kinds(20, "10.9.0.1"), Owner("tcp[13] & 2 != 0")]
    alive: list[weakref.ref[Owner]] = []
    for asker in askers:
        index.near(asker.claims)
    for i in range(2000):
        (owner,) = sockets(1, first=100 + i)
        alive.append(weakref.ref(owner))
        index.add(owner)
        index.near(askers[i % 3].claims)
        index.remove(owner)
        del owner
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 3 * (projection_module.MOST_BEHIND + 10)


def test_memory_goes_back_with_the_owners() -> None:
    many, askers = sockets(3000), [*kinds(5, "10.9.0.1"), Owner("tcp[13] & 2 != 0")]
    index = filled(*many)
    for asker in askers:
        index.near(asker.claims)
    with pytest.raises(Unready):
        index.near(Owner("ip[8] = 5").claims, lambda: True)
    for owner in many:
        index.remove(owner)
    for _ in range(20):
        index.add(many[0])
        index.remove(many[0])
    assert not index._waste and not index._live
    for group in index._groups.values():
        assert not group.table and not group.projections.followed and not group.projections._log
        for projection in group.projections._all.values():
            assert not projection.buckets and not projection.rest and not projection.pending


def test_waste_goes_a_little_at_a_time() -> None:
    owners = [Owner("tcp") for _ in range(30)]
    alive = [weakref.ref(owner) for owner in owners]
    waste = Waste()
    waste.add([(owner, True) for owner in owners[:10]])
    waste.add({1: dict.fromkeys(owners[10:25]), 2: {owners[25]: None}, 3: dict.fromkeys(owners[26:])})
    owners.clear()
    counts = []
    while waste:
        waste.free(5)
        counts.append(sum(ref() is not None for ref in alive))
    assert counts[-1] == 0 and max(a - b for a, b in zip([30, *counts], counts, strict=False)) <= 5


@pytest.fixture
def desk() -> Iterator[Desk]:
    with open_desk() as opened:
        yield opened


def test_a_bind_without_time_is_made_again_and_changes_nothing_until_then(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open("web", None)
    for i in range(1500):
        desk.bind("web", TCP.format(f"{i >> 8}.{i & 255}"))
    monkeypatch.setattr(studies_module, "ALLOWANCE_NS", 0)
    text = "dst host 10.9.0.1 and ip proto 6 and ip[8] & 1 = 1 and ip src net 11.0.0.0/8"
    desk.bindings.prepare(text)
    studies = REGIONS.studies if desk.bindings._filters is REGIONS else desk.bindings._filters.studies
    needed: Needed = {}
    tries = 0
    while True:
        try:
            with studies.impatient(needed):
                desk.bind("web", text)
            break
        except Unready as unready:
            assert len(desk.bindings) == 1500
            tries += 1
            unready.work()
    assert len(desk.bindings) == 1501 and tries >= 1
