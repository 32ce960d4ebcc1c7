# SPDX-License-Identifier: MIT
"""Whatever a bind is refused for, the refusal names the filter, the conjunct where it is about one, and the reason."""

import re
from collections.abc import Callable, Iterator

import pytest

from exonet.clock import Clock
from exonet.errors import ConflictError, DeniedError, ExhaustedError, ExonetError, FilterError, UsageError
from exonet.filters.compile import compile_filter
from exonet.filters.region import Kind, Region, relation
from exonet.filters.remedy import remedy
from exonet.hardware.nic import NicConfig
from exonet.kernel import binding as binding_module
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Mode
from exonet.lab.plan import Tenant
from exonet.lab.tenancy import check_tenants
from exonet.wire.cable import cable

Bind = Callable[..., object]
Grant = Callable[[str, str], object]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """bind(name, filter, region=None, quota=Quota()): as an environment of that name, with that region. On the virtual
    clock nothing is compiled.
    """
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=256, clock=Clock.VIRTUAL)) as machine:
        machine.attach(here, NicConfig(promiscuous=True))
        opened = {}

        def as_environment(name: str, text: str, region: str | None = None, quota: Quota | None = None) -> object:
            environments = machine.environments
            if name not in opened:
                env = environments.open(name, Mode.INLINE, quota=quota or Quota())
                scope = Scope(port=0, region=region)
                opened[name] = env, environments.grant(env, Resource.FILTER, Right.BIND, scope, shared=True)
            return environments.bindings.bind(opened[name][0], text, opened[name][1])

        yield as_environment


@pytest.fixture
def grant() -> Iterator[Grant]:
    """grant(name, region): a region for that environment alone."""
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=256, clock=Clock.VIRTUAL)) as machine:
        machine.attach(here, NicConfig(promiscuous=True))
        environments = machine.environments
        yield lambda name, region: environments.grant(
            environments.open(name, Mode.INLINE), Resource.FILTER, Right.BIND, Scope(port=0, region=region)
        )


def refused(kind: type[ExonetError], bind: Bind, *given: object, **more: object) -> str:
    with pytest.raises(kind) as refusal:
        bind(*given, **more)
    return str(refusal.value)


@pytest.mark.parametrize(("text", "why"), (
    ("tcp prt 80", "'prt' is a name"),
    ("tcp port port 80", "syntax error"),
    ("ip protochain 6", "instruction 19 loops"),
    ("protochain 17", "instruction 19 loops"),
    ("ip[8] % 3 = 1 and ip[9] % 3 = 1", "it takes more than 30000 steps to decompose"),
    ("inbound", "it takes nothing"),
    (" and ".join(f"ether[{4 * i}] = 1" for i in range(30)), "it compares 30 words of a frame; at most 24"),
    (" or ".join(f"(ip[{i}] = 1 and ip[{i + 1}] = 2)" for i in range(40)), "it takes more than 30000 steps"),
    ("Udp.dport + 1 == 7", "Udp.dport + 1"),
), ids=lambda part: part[:30])  # fmt: skip
@pytest.mark.slow
def test_a_filter_that_does_not_compile(bind: Bind, text: str, why: str) -> None:
    said = refused(FilterError, bind, "one", text)
    assert text[:100] in said and why in said


BOTH_WORDS = " and ".join(f"ether[{40 + 4 * i}:4] = 0x{i + 1:08x}" for i in range(22))

#: What one has bound, then what another may bind in, what it binds, and what it is told: all of it in a line.
BINDS = (
    ((), "udp", "udp dst port 53 or tcp dst port 99", DeniedError,
     ("its region 'udp' does not cover", "conjunct 2 (eth.type == 0x800", "tcp.dport == 99", "example Ether(")),
    ((), "udp", "", DeniedError, ("filter ''", "conjunct 1 (everything) takes more, for example Ether(")),
    ((), "udp", "Tcp.dport == 99", DeniedError, ("filter 'Tcp.dport == 99'", "conjunct 1 (", "Ether(")),
    ((), "less 500", "udp and greater 400", DeniedError, ("conjunct 1 (", "length 400..", "Ether(")),
    ((), " or ".join(f"udp port {i}" for i in range(20)), "ip and " + BOTH_WORDS, DeniedError, ("conjunct 1 (", "…")),
    (("tcp port 80",), None, "ip host 10.0.0.1", ConflictError,
     ("binding 0 of environment one ('tcp port 80')", "conjunct 1 (eth.type",
      "this would do: '(ip host 10.0.0.1) and not")),
    (("tcp port 80",), None, "Ip.src == '10.0.0.1'", ConflictError,
     ('filter "Ip.src == \'10.0.0.1\'" and binding', "not (tcp port 80)'")),
    (("vlan 5 and tcp port 80",), None, "vlan 5 and ip host 10.0.0.1", ConflictError,
     ("vlan.id == 5", "this would do: '(vlan 5 and ip host 10.0.0.1) and not (tcp port 80)'")),
    (("tcp port 80",), None, "tcp port 80", ConflictError, ("the very same frames", "in conjunct 1 (")),
    (("tcp dst port 80",), None, "tcp dst port 80 and ip", DeniedError, ("its conjunct 1 (", "derived from its 1")),
    (("ip and " + BOTH_WORDS,), None, "ip host 10.0.0.1", ConflictError, ("conjunct 1 (", "…", "Ether(")),
)  # fmt: skip


@pytest.mark.parametrize(("before", "region", "text", "kind", "says"), BINDS)
def test_a_bind_is_refused(
    bind: Bind, before: tuple[str, ...], region: str | None, text: str, kind: type[ExonetError], says: tuple[str, ...]
) -> None:
    for each in before:
        bind("one", each)
    said = refused(kind, bind, "two", text, region)
    assert said.startswith("filter ") and repr(text[:60])[1:-1] in said and all(part in said for part in says), said
    assert said.isprintable() and len(said) <= 2000


@pytest.mark.parametrize("text", (
    "vlan 5 and tcp port 80", "not vlan 5 and tcp port 80", "Vlan.id == 5 and Ip.src == '10.0.0.1'", "tcp port 80",
    "vlan and vlan 7", "pppoes and tcp port 80", "Udp.dport == 53", "vlan", "ip host 10.0.0.1",
))  # fmt: skip
@pytest.mark.parametrize("other", ("vlan 5 and ip host 10.0.0.1", "ip host 10.0.0.9", "vlan 7", "Tcp.flags & 2 == 2"))
@pytest.mark.slow
def test_r04_what_would_do_does(text: str, other: str) -> None:
    """In whichever language the two were written, and whatever they do to the offsets of what follows."""
    found = remedy(text, other)
    mine, theirs = compile_filter(text).conjuncts, compile_filter(other).conjuncts
    if found:
        wanted = compile_filter(found).conjuncts
        assert relation(wanted, theirs).kind is Kind.DISJOINT and Region(mine).covers(wanted), found


@pytest.mark.parametrize(("one", "other", "says"), (
    ("tcp port 80", "ip host 10.0.0.1",
     ("region 'ip host 10.0.0.1' of environment two", "neither is inside", "Ether(")),
    ("tcp port 80", "tcp port 80", ("region 'tcp port 80' of environment one", "very same frames")),
    ("udp", "ip proto 17 or ip6 proto 17 or tcp prt 80", ("'prt' is a name",)),
))  # fmt: skip
def test_a_region_is_not_granted(grant: Grant, one: str, other: str, says: tuple[str, ...]) -> None:
    grant("one", one)
    with pytest.raises((ConflictError, FilterError)) as refusal:
        grant("two", other)
    said = str(refusal.value)
    assert all(part in said for part in says) and ("conjunct 1 (" in said or "is a name" in said)


def test_no_room_in_the_demux(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a port's 256 shapes none is left, for an environment that may have any number."""
    monkeypatch.setattr(binding_module, "CROWDED", 1000)
    many = Quota(bindings=1000, conjuncts=5000, shapes=1000, loose_shapes=1000)
    for i in range(256):
        bind("one", f"ether[0:2] = 256 and ether[50:2] = {i} and ether[{60 + 4 * i}:4] = 7", None, many)
    said = refused(ExhaustedError, bind, "one", "ether[50:2] = 999 and udp dst port 7", None, many)
    assert said.startswith("filter 'ether[50:2] = 999 and udp dst port 7': conjunct 1 (")
    assert "port 0 holds 256 of 256 shapes" in said


def test_outside_of_the_region(bind: Bind) -> None:
    text = "udp dst port 53 or tcp dst port 99"
    said = refused(DeniedError, bind, "one", text, "udp")
    assert repr(text) in said and "its region 'udp' does not cover" in said


def test_in_conflict(bind: Bind) -> None:
    bind("one", "tcp port 80")
    said = refused(ConflictError, bind, "two", "ip host 10.0.0.1")
    conjuncts = [str(c) for c in compile_filter("ip host 10.0.0.1").conjuncts]
    assert "ip host 10.0.0.1" in said and "'tcp port 80'" in said and "neither is inside" in said
    assert any(conjunct in said for conjunct in conjuncts) and "Ether(" in said
    said = refused(ConflictError, bind, "two", "tcp port 80")
    assert "'tcp port 80'" in said and "very same frames" in said


def test_inside_of_anothers(bind: Bind) -> None:
    bind("one", "tcp dst port 80")
    said = refused(DeniedError, bind, "two", "tcp dst port 80 and ip src host 10.0.0.1")
    conjunct = str(compile_filter("tcp dst port 80 and ip src host 10.0.0.1").conjuncts[0])
    assert "'tcp dst port 80 and ip src host 10.0.0.1'" in said and conjunct in said and "'tcp dst port 80'" in said


@pytest.mark.parametrize(("quota", "what"), (
    (Quota(bindings=0), "bindings"), (Quota(conjuncts=3), "conjuncts"), (Quota(shapes=2), "shapes"),
), ids=lambda part: str(part)[:30])  # fmt: skip
def test_over_a_quota(bind: Bind, quota: Quota, what: str) -> None:
    said = refused(ExhaustedError, bind, "one", "udp port 53", None, quota)
    assert "'udp port 53'" in said and what in said and "its quota is" in said and "environment one" in said
    assert ("the first of a new shape is conjunct 1 (" in said) == (what == "shapes")


def test_the_last_shapes_of_a_port(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_module, "CROWDED", 10)
    said = refused(ExhaustedError, bind, "one", "port 53")
    assert "'port 53'" in said and "shapes" in said


def refused_tenants(*words: str) -> str:
    tenants = [Tenant.parse_binding(word) for word in words]
    with pytest.raises(UsageError) as refused:
        check_tenants(tenants)
    return str(refused.value)


def test_r04_a_replays_refusal_names_the_conjuncts_as_a_bind_does() -> None:
    said = refused_tenants("a=host 10.0.0.1", "b=udp port 53")
    assert re.match(
        r"binding b \('udp port 53'\) and binding a \('host 10.0.0.1'\) overlap and neither is inside the other: "
        r"conjunct \d+ \(.*\) and conjunct \d+ \(.*\); for example Ether\(.* is in both; this would do: "
        r"b='\(udp port 53\) and not \(host 10.0.0.1\)'$",
        said,
    )
    assert refused_tenants("a=ip", "b=ip").startswith(
        "binding b ('ip'): binding a ('ip') holds the very same frames; for example Ether("
    )


def test_r04_a_remedy_that_takes_nothing_is_not_proposed() -> None:
    wide, narrow = "udp port 53 or host 10.9.0.1", "host 10.9.0.1"
    assert remedy(narrow, wide) == ""
    said = refused_tenants(f"n0={wide}", f"n1={narrow}")
    assert "this would do" not in said and said.endswith(" in n1 alone")
    example = bytes.fromhex(re.findall(r'fromhex\("(\w+)"\)', said)[-1])
    assert compile_filter(narrow).matches(example) and not compile_filter(wide).matches(example)


def test_r04_a_remedy_must_be_apart_as_far_as_a_bind_can_see() -> None:
    """What asks a program may meet whatever meets its box."""
    assert remedy("tcp port 80", "ip[12:4] = ip[16:4]") == ""
