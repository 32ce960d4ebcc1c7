# SPDX-License-Identifier: MIT
"""The claim index against the pairwise comparison: the same verdicts on random sets of filters that come and go."""

import random

import pytest

from exonet.errors import ExonetError
from exonet.filters.conjunct import Conjunct
from exonet.filters.region import Kind, relation
from exonet.kernel import projection
from exonet.kernel.binding import Bindings
from exonet.kernel.capability import Authority, Quota, Resource, Right, Scope
from exonet.kernel.claim import Lie, lie
from exonet.kernel.claims import Claims, _ruler
from exonet.kernel.regions import Regions, volume
from exonet.kernel.standing import stand
from exonet.kernel.studies import Unready
from tests.effort import tries
from tests.fakes.machine import FakeMachine
from tests.fakes.pairwise import Pairwise, pick

REGIONS = Regions()


class Machine(FakeMachine):
    def insert(self, port, snoop, conjunct):
        self.boxes.append((conjunct.binding, bytes(conjunct.atoms)))


class Claimant:
    def __init__(self, number):
        self.number, self.name, self.quota = number, f"env{number}", Quota()


def spans(rng):
    """A filter of a world of intervals: nested, equal, across the middle of the ports, single values, two fields."""

    def span():
        low = rng.choice((0, 1, 100, 1000, 32000, 32767, 32768, 65000))
        return f"{low}-{min(low + rng.choice((0, 1, 7, 99, 800, 1000, 33000, 65535)), 65535)}"

    def host():
        return rng.choice(("10.0.0.1", "10.0.1.2", "11.0.0.1"))

    return rng.choice((
        lambda: f"ip and udp dst portrange {span()}",
        lambda: f"udp {rng.choice(('src ', ''))}portrange {span()}",
        lambda: f"ip and udp and dst host {host()} and dst portrange {span()}",
        lambda: f"ip and udp dst port {rng.choice((1, 100, 1000, 32768))}",
        lambda: f"ip and udp and dst host {host()}",
        lambda: f"ip {rng.choice(('src', 'dst'))} net 10.0.0.0/{rng.choice((7, 8, 15, 23, 24, 32))}",
        lambda: f"ip and udp and dst net 10.0.0.0/{rng.choice((8, 24))} and dst port 100",
        lambda: f"ip and udp and dst net 10.0.0.0/23 and dst portrange {span()}",
        lambda: f"ip and udp dst portrange {span()} and not dst host {host()}",
        lambda: f"ip and udp and not dst portrange {rng.choice(('0-99', '1000-1007', '32767-32768'))}",
        lambda: f"ip and len <= {rng.choice((100, 1000, 65535))}",
        lambda: f"ip and udp and udp[2:2] & {rng.choice(('1 = 0', '1 = 1', '0xff00 = 0x100', '0x8000 = 0'))}",
    ))()  # fmt: skip


SEEDS = tries(8)
WORLDS = [(world, seed) for world in (pick, spans) for seed in range(SEEDS)]


@pytest.mark.parametrize(("pick", "seed"), WORLDS)
def test_r04_the_index_says_what_comparing_with_every_binding_says(pick, seed):
    rng = random.Random(seed)
    authority = Authority(REGIONS.text_covers, bytes(32))
    machine = Machine(table_size=10_000)
    bindings, oracle = Bindings(machine, authority, REGIONS), Pairwise(REGIONS)
    envs = [Claimant(number) for number in (1, 2, 3)]
    tokens = [authority.grant(env.number, Resource.FILTER, Right.BIND, Scope(port=0)) for env in envs]
    verdicts = set()
    for _ in range(60):
        if oracle.live and rng.random() < 0.25:
            gone = oracle.live.pop(rng.choice(list(oracle.live)))
            bindings.unbind(envs[gone.env - 1], gone.number)
            continue
        which = rng.choice((0, 0, 0, 1, 2))
        env, text = envs[which], pick(rng)
        said = number = None
        wanted = oracle.verdict(env.number, text)
        try:
            number = bindings.bind(env, text, tokens[which]).number
            said = ("bound", -1)
            oracle.bound(number, env.number, text)
        except ExonetError as error:
            about = str(error).partition(": binding ")[2] or str(error).partition(" and binding ")[2]
            about = about or str(error).partition("frames from binding ")[2]
            said = (type(error).__name__, int(about.split()[0]))
        assert said == wanted, f"{text!r} beside {[held.text for held in oracle.live.values()]}"
        verdicts.add(said[0])
    assert "bound" in verdicts and len(verdicts) > 1
    for held in list(oracle.live.values()):
        bindings.unbind(envs[held.env - 1], held.number)
    assert not any(group.entries or group.table for group in bindings._claims[0]._groups.values())
    assert not bindings._holdings and not machine.boxes
    machine.close()


class Holder:
    def __init__(self, text):
        self.text, self.filter = text, REGIONS.prepare(text)
        self.claims, self.high = self.filter.claims, self.filter.high


@pytest.mark.parametrize(("pick", "seed"), WORLDS[::2])
def test_near_misses_nobody_that_is_not_strictly_inside(pick, seed):
    rng = random.Random(1000 + seed)
    index, held = Claims(), []
    for _ in range(80):
        one = Holder(pick(rng))
        near = index.near(one.claims)
        for other in held:
            if other not in near:
                kind = relation([c.conjunct for c in one.claims], [c.conjunct for c in other.claims]).kind
                assert kind is Kind.DISJOINT or not any(
                    lie(a, b) in (Lie.INSIDE, Lie.UNCLEAR) for a in one.claims for b in other.claims
                ), (one.text, other.text)
                assert kind is not Kind.EQUAL
        if rng.random() < 0.3 and held:
            index.remove(held.pop(rng.randrange(len(held))))
        index.add(one)
        held.append(one)


def many(rng):
    """A filter of dozens of claims, some of several kinds."""

    def values(field):
        chosen = rng.sample((1, 53, 79, 80, 81, 100, 1000, 1024, 1037, 1074, 2000, 32768), rng.choice((1, 2, 5, 7)))
        return f"({field} {' or '.join(map(str, chosen))})"

    return rng.choice((
        lambda: f"{values('src port')} and {values('dst port')}",
        lambda: f"dst host 10.{rng.randrange(2)}.0.1 and {values('src port')} and {values('dst port')}",
        lambda: f"udp and {values('src port')} and dst portrange 70-{rng.choice((75, 90, 1050, 40000))}",
        lambda: f"tcp and {values('dst port')} and not src host 10.0.0.1",
        lambda: f"{values('port')} or (ip and tcp[13] & {rng.choice((1, 2, 3))} = 1)",
    ))()  # fmt: skip


def meets(a, owner, b):
    """Bit by bit and by spans: may claim `a` find `b` of an owner?"""
    mine, theirs = (dict(zip(c.kind.masks, c.values, strict=True)) for c in (a, b))
    mine, theirs = ({space: (mask, value) for (space, mask), value in each.items()} for each in (mine, theirs))
    for space in mine.keys() & theirs.keys():
        if (mine[space][1] ^ theirs[space][1]) & mine[space][0] & theirs[space][0]:
            return False
    field = _ruler(a.kind, b.kind)
    if field is not None and (a.bounds(field)[1] < b.bounds(field)[0] or b.bounds(field)[1] < a.bounds(field)[0]):
        return False
    around = all(space in theirs and not mask & ~theirs[space][0] for space, (mask, _) in mine.items())
    around = around and a.kind.plain and a.kind.admits(b.kind)
    return not (around and b.rank < a.rank and a.low > owner.high and a.spans(b))


def nearest(claims, held):
    """Everybody is asked about every claim."""
    return {other for other in held if any(meets(a, other, b) for a in claims for b in other.claims)}


@pytest.mark.parametrize("seed", range(tries(3)))
@pytest.mark.parametrize("hurried", [False, True], ids=["at once", "in slices"])
def test_near_names_whom_asking_everybody_names(monkeypatch, seed, hurried):
    """In slices, others come and go in between."""
    for name, small in (("SLICE", 1), ("READ", 2), ("LEAST", 4), ("FEW", 1), ("TURN", 5), ("MOST_BEHIND", 4)):
        monkeypatch.setattr(projection, name, small)
    monkeypatch.setattr(projection, "MOST_MAKING", 2)
    rng = random.Random(3000 + seed)
    index, held = Claims(), []
    put_off = named = 0

    def change():
        if len(held) > 24 or (held and rng.random() < 0.4):
            index.remove(held.pop(rng.randrange(len(held))))
        else:
            held.append(Holder(rng.choice((pick, pick, spans, many))(rng)))
            index.add(held[-1])

    for _ in range(30):
        for _ in range(rng.choice((0, 1, 2, 6))):
            change()
        asking = Holder(rng.choice((pick, spans, many, many))(rng))
        while True:
            try:
                near = index.near(asking.claims, lambda: hurried)
                break
            except Unready:
                put_off += 1
                change()
        wanted = nearest(asking.claims, held)
        assert near.keys() == wanted, asking.text
        named += len(near)
        for other, inside in near.items():
            if inside:
                kind = relation([c.conjunct for c in asking.claims], [c.conjunct for c in other.claims]).kind
                assert kind is Kind.INSIDE
    assert named and bool(put_off) == hurried
    for holder in held:
        index.remove(holder)
    assert not index._live


@pytest.mark.parametrize(("pick", "seed"), WORLDS[::2])
def test_what_is_seen_at_once_is_what_the_exact_test_says(pick, seed):
    rng = random.Random(2000 + seed)
    exact = {Lie.APART: {Kind.DISJOINT}, Lie.INSIDE: {Kind.INSIDE}, Lie.AROUND: {Kind.AROUND}}
    seen = set()
    for _ in range(tries(200)):
        a, b = (rng.choice(REGIONS.prepare(pick(rng)).claims or [None]) for _ in range(2))
        if a is None or b is None:
            continue
        found = lie(a, b)
        seen.add(found)
        if found is not Lie.UNCLEAR:
            assert relation((a.conjunct,), (b.conjunct,)).kind in exact[found], (str(a.conjunct), str(b.conjunct))
    assert len(seen) > 2


def made(*boxes):
    """A filter of boxes (mask, value) over the second byte, which no compiler has merged."""
    conjuncts = tuple(Conjunct.of({0: (mask << 8, value << 8)}) for mask, value in boxes)
    return REGIONS._prepare(f"{boxes}", conjuncts)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([(3, 0), (3, 2)], [(1, 0)], True),  # two halves are the whole, though each lies within it
        ([(3, 0), (7, 2), (7, 6)], [(1, 0)], True),
        ([(3, 0), (7, 2)], [(1, 0)], False),
    ],
)
def test_r04_a_union_may_be_all_of_what_each_of_its_parts_is_within(one, other, same):
    narrow, wide = made(*one), made(*other)
    assert stand(REGIONS, narrow, wide).same == stand(REGIONS, wide, narrow).same == same
    index = Claims()
    holder = Holder("arp")
    holder.claims, holder.high = narrow.claims, narrow.high
    index.add(holder)
    assert (holder in index.near(wide.claims)) == same


@pytest.mark.parametrize("text", ["udp and greater 100", "ip[0] & 15 = 6 and ip[8] = 1", "udp and not greater 100"])
def test_no_lower_bound_where_lengths_take_part(text):
    """A length on the wire and a header's length are not bits that frames have independently of all others."""
    assert all(volume(conjunct)[0] == 0.0 for conjunct in REGIONS.prepare(text).conjuncts)
