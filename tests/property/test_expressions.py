# SPDX-License-Identifier: MIT
"""Of the Ethernet expressions that libpcap compiles at least 97 in 100 bind, and mean what libpcap says they mean."""

import random
import re

import pytest

from exonet.errors import ExonetError, FilterError
from exonet.filters.libpcap import Libpcap
from exonet.filters.native import available
from exonet.filters.region import overlap
from exonet.kernel.capability import Quota
from exonet.kernel.prepared import Prepared
from exonet.kernel.regions import Regions
from tests.asked_frames import asked_frames
from tests.demux_box import Demux, mutate, sample_frames
from tests.expressions import every
from tests.filter_list import REFUSE
from tests.guarded import Arena, Codes
from tests.header_frames import cut, header_frames
from tests.manual import POPULATIONS, counted
from tests.odd_expressions import ODD

#: What a refusal has to say, by the expression. Each is what a LibOS with the usual quota is told.
REFUSED = {
    "protochain 17": "loops",
    "iso proto 256": "takes nothing",
    "link proto 1500": "takes nothing",
    "link proto 65536": "takes nothing",
    "inbound": "takes nothing",
    "outbound": "takes nothing",
    "ifindex 10": "takes nothing",
}


def takes(prepared: Prepared, frame: bytes, wire_len: int) -> bool:
    return any(conjunct.matches(frame, wire_len) for conjunct in prepared.conjuncts)


def bind(text: str) -> tuple[Prepared, Demux]:
    """As a LibOS would with its usual quota, on a port that is empty."""
    compiled, demux, quota = Regions().prepare(text), Demux(), Quota()
    demux.bind(0, compiled.conjuncts)
    quota.charge("conjuncts", 0, len(compiled.conjuncts), "libos")
    quota.charge("shapes", 0, demux.shapes, "libos")
    return compiled, demux


@pytest.mark.parametrize("name", POPULATIONS)
def test_of_what_libpcap_compiles_97_in_100_bind(name: str) -> None:
    count = counted(name)
    assert count.compile > 0.8 * len(POPULATIONS[name])
    assert 100 * count.bind >= 97 * count.asked, count.refused
    reasons = REFUSED | dict(REFUSE)
    for text, reason in count.refused.items():
        assert f'"{text}"' in reason and reasons.get(text, "loops") in reason
    for text in count.nothing:
        assert not any(Libpcap().compile(text).matches(*frame) for frame in sample_frames(3)), text


def test_what_is_counted_apart_is_few() -> None:
    """Not a way out: what takes nothing, and names that would have to be asked of a name server."""
    counts = list(map(counted, POPULATIONS))
    assert sum(len(count.names) for count in counts) == 1
    assert sum(len(count.nothing) for count in counts) <= 18


@pytest.fixture(scope="module")
def arena() -> Arena:
    """Every header there is, frames of the captures, all of them cut and mutated too."""
    chosen = random.Random(29)
    plain = header_frames(thin=25)
    found = plain + asked_frames() + sample_frames(3)
    found += chosen.sample(cut(found), 100)
    return Arena(found + [mutate(chosen.choice(found), chosen) for _ in range(80)])


@pytest.fixture(scope="module")
def codes() -> Codes:
    return Codes()


@pytest.mark.parametrize("part", range(8))
def test_r05_every_expression_of_libpcaps_tests_means_what_it_means(part: int, arena: Arena, codes: Codes) -> None:
    """table = native = libpcap on every frame; the reference on some of them."""
    taken = 0
    for text in (text for text in every()[part::8] if text not in REFUSED):
        program = Libpcap().compile(text)
        wanted = [program.matches(*frame) for frame in arena.frames]
        compiled, demux = bind(text)
        assert [owner == 0 for owner in arena.classify(demux)] == wanted, text
        assert [takes(compiled, *frame) for frame in arena.frames[::13]] == wanted[::13], text
        if available():
            assert codes.install(demux) == demux.shapes
            assert [owner == 0 for owner in arena.classify(demux)] == wanted, text
        for conjunct in (one for one in compiled.conjuncts if not one.programs):
            example = overlap((conjunct,), (conjunct,))
            assert example and program.matches(example.frame, example.wire_len), (text, conjunct)
        taken += 0 < sum(wanted) < len(wanted)
    assert taken > 0.85 * len(every()) / 8


@pytest.mark.parametrize("part", range(4))
def test_r05_odd_expressions_mean_what_they_mean(part: int, arena: Arena) -> None:
    """table = libpcap on every frame, the reference on some."""
    taken = 0
    for text in ODD[part::4]:
        program = Libpcap().compile(text)
        wanted = [program.matches(*frame) for frame in arena.frames]
        try:
            compiled, demux = bind(text)
        except ExonetError:
            assert not any(wanted) or "protochain" in text or "localhost" in text
            continue
        assert [owner == 0 for owner in arena.classify(demux)] == wanted, text
        assert [takes(compiled, *frame) for frame in arena.frames[::37]] == wanted[::37], text
        taken += any(wanted)
    assert taken > 0.9 * len(ODD[part::4])


@pytest.mark.parametrize(
    "text",
    ("host i", "llc and host ui", "port ftp or host foo", "port ftp or foo.example.com", "port http and src foo",
     "ip6 host fe80::1%eth0", "host 1.2.3.4 or foo", "abcdef000003.de"),
)  # fmt: skip
def test_a_name_that_would_be_resolved_is_refused(text: str) -> None:
    with pytest.raises(FilterError, match=f"{re.escape(text)}.*is a name"):
        bind(text)


@pytest.mark.parametrize("text", sorted(REFUSED))
def test_what_is_refused_says_which_filter_and_why(text: str) -> None:
    with pytest.raises(ExonetError) as refusal:
        bind(text)
    assert f'"{text}"' in str(refusal.value)
    assert REFUSED[text] in str(refusal.value)
