# SPDX-License-Identifier: MIT
"""Copies (R2, R6) are per environment: however many bindings another has, nobody's copy is lost."""

from collections.abc import Iterator

import pytest

from exonet.abi import lib
from tests.fakes.frames import udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

MANY = 300
GROUP = "01:00:5e:01:01:01"


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(pages=512)
    yield made
    made.close()


def group() -> bytes:
    return bytes.fromhex(GROUP.replace(":", "")) + udp(sport=15000, dport=5000)[6:]


def crowd(libos: FakeLibOS, text: str, **how: bool) -> None:
    """Bindings that all overlap, and are all narrower than the text alone; each wider than those before it."""
    for i in range(MANY):
        libos.bind(f"{text} and src portrange {10000 + i}-{21000 + 5 * i}", **how)


@pytest.mark.parametrize("victim_first", [True, False])
def test_r02_another_with_many_bindings_takes_no_copy_of_a_group_frame_away(bench: Bench, victim_first: bool) -> None:
    bench.attach(ScriptWire([(0, group())]))
    victim, other = FakeLibOS(bench), FakeLibOS(bench)
    text = "udp dst port 5000"
    if victim_first:
        own = victim.bind(text)
    crowd(other, text)
    if not victim_first:
        own = victim.bind(text)
    narrowest = other.bind(f"{text} and src port 15000")
    victim.subscribe()
    other.subscribe()
    bench.run()
    assert [frame.binding for frame in victim.receive()] == [own]
    assert [frame.binding for frame in other.receive()] == [narrowest]
    assert bench.ledger.copies[lib.EXO_S_DEMUX] == 1


@pytest.mark.parametrize("data", [udp(sport=15000, dport=5000), group()], ids=["unicast", "group"])
def test_r06_another_with_many_bindings_takes_no_snooped_frame_away(bench: Bench, data: bytes) -> None:
    bench.attach(ScriptWire([(0, data)]))
    victim, other = FakeLibOS(bench), FakeLibOS(bench)
    own = victim.bind("udp", snoop=True)
    crowd(other, "udp", snoop=True)
    narrowest = other.bind("udp and src port 15000", snoop=True)
    bench.run()
    for libos, binding in ((victim, own), (other, narrowest)):
        (frame,) = libos.receive()
        assert (frame.data[: len(data)], frame.binding, frame.flags & lib.EXO_F_SNOOP) == (
            data, binding, lib.EXO_F_SNOOP,
        )  # fmt: skip
    assert bench.ledger.copies[lib.EXO_S_DEMUX] == 2


def test_r02_an_announcement_is_one_copy_each_whatever_takes_it(bench: Bench) -> None:
    bench.attach(ScriptWire([(0, group()[:36] + (5353).to_bytes(2, "big") + group()[38:])]))
    first, second, deaf = (FakeLibOS(bench) for _ in range(3))
    oldest = first.bind("tcp")
    first.bind("udp dst port 5353")
    own = second.bind("udp")
    deaf.bind("udp dst port 5353 and src port 15000")
    first.subscribe()
    second.subscribe()
    bench.run()
    assert [[frame.binding for frame in libos.receive()] for libos in (first, second, deaf)] == [[oldest], [own], []]
