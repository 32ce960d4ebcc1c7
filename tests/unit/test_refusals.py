# SPDX-License-Identifier: MIT
"""Whatever a bind is refused for, the refusal names the filter, the conjunct where it is about one, and the reason."""

from collections.abc import Callable, Iterator

import pytest

from exonet.errors import ConflictError, DeniedError, ExhaustedError, ExonetError, FilterError
from exonet.filters.compile import compile_filter
from exonet.hardware.nic import NicConfig
from exonet.kernel import binding as binding_module
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Mode
from exonet.wire.cable import cable

Bind = Callable[..., object]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """bind(name, filter, region=None, quota=Quota()): as an environment of that name, with that region."""
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=256)) as machine:
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


def refused(kind: type[ExonetError], bind: Bind, *given: object, **more: object) -> str:
    with pytest.raises(kind) as refusal:
        bind(*given, **more)
    return str(refusal.value)


@pytest.mark.parametrize(("text", "why"), (
    ("tcp prt 80", "'prt' is a name"),
    ("tcp port port 80", "syntax error"),
    ("ip protochain 6", "instruction 19 loops"),
    ("ip[2:2] = ip[4:2]", "it compares frame[16:2] with frame[18:2]"),
    ("ip[2:2] % 3 = 0", "it computes mod 3 on frame[16:2]"),
    ("geneve 0xb and ip", "an offset that depends on frame[22:1] & 0x3f"),
    ("inbound", "it takes nothing"),
    (" and ".join(f"ether[{4 * i}] = 1" for i in range(30)), "it compares 30 words of a frame; at most 24"),
    (" or ".join(f"(ip[{i}] = 1 and ip[{i + 1}] = 2)" for i in range(40)), "more than 4096 ways lead to a match"),
    ("Udp.dport + 1 == 7", "Udp.dport + 1"),
), ids=lambda part: part[:30])  # fmt: skip
def test_a_filter_that_does_not_compile(bind: Bind, text: str, why: str) -> None:
    said = refused(FilterError, bind, "one", text)
    assert text[:100] in said and why in said


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


def test_the_last_shapes_of_a_port(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_module, "CROWDED", 10)
    said = refused(ExhaustedError, bind, "one", "port 53")
    assert "'port 53'" in said and "shapes" in said
