# SPDX-License-Identifier: MIT
"""Of the Ethernet expressions that libpcap compiles at least 97 in 100 bind, and mean what libpcap says they mean."""

import random
import re
from collections.abc import Iterable

import pytest

from exonet.errors import ExonetError, FilterError
from exonet.filters.compile import CompiledFilter
from exonet.filters.libpcap import Libpcap
from exonet.filters.native import available
from exonet.filters.region import overlap
from exonet.kernel.capability import Quota
from exonet.kernel.regions import Regions
from tests.conftest import ROOT
from tests.demux_box import Demux, mutate, sample_frames
from tests.expressions import every
from tests.filter_list import DECOMPOSE, REFUSE
from tests.guarded import Arena, Codes
from tests.header_frames import cut, header_frames

#: What a refusal has to say, by the expression. Each is what a LibOS with the usual quota is told.
REFUSED = {
    "geneve and geneve": "depends on frame[22:1]",
    "protochain 17": "loops",
    "iso proto 256": "takes nothing",
    "link proto 1500": "takes nothing",
    "link proto 65536": "takes nothing",
    "inbound": "takes nothing",
    "outbound": "takes nothing",
    "ifindex 10": "takes nothing",
}


def compiled_by_libpcap(texts: Iterable[str]) -> list[str]:
    found = []
    for text in texts:
        try:
            Libpcap().compile(text)
        except FilterError:
            continue
        found.append(text)
    return found


def bind(text: str) -> tuple[CompiledFilter, Demux]:
    """As a LibOS would with its usual quota, on a port that is empty."""
    compiled, demux, quota = Regions().compile(text), Demux(), Quota()
    demux.bind(0, compiled.conjuncts)
    quota.charge("conjuncts", 0, len(compiled.conjuncts), "libos")
    quota.charge("shapes", 0, demux.shapes, "libos")
    return compiled, demux


@pytest.mark.parametrize("texts", (every(), (*DECOMPOSE, *(text for text, _ in REFUSE))), ids=("libpcap", "manual"))
def test_of_what_libpcap_compiles_97_in_100_bind(texts: tuple[str, ...]) -> None:
    known, refused = compiled_by_libpcap(texts), {}
    for text in known:
        try:
            bind(text)
        except ExonetError as reason:
            refused[text] = str(reason)
    assert len(known) > 0.98 * len(texts)
    assert len(known) - len(refused) >= 0.97 * len(known), refused
    reasons = REFUSED | dict(REFUSE)
    for text, reason in refused.items():
        assert f'"{text}"' in reason and reasons[text] in reason


def test_the_document_counts_them_right() -> None:
    known = len(every())
    told = re.search(r"Of the (\d+) Ethernet expressions .*? (\d+) bind", (ROOT / "FILTERS.md").read_text(), re.DOTALL)
    assert told and told.groups() == (str(known), str(known - len(REFUSED)))


@pytest.fixture(scope="module")
def arena() -> Arena:
    """Every header there is, frames of the captures, all of them cut and mutated too."""
    chosen = random.Random(29)
    plain = header_frames(thin=25)
    found = plain + sample_frames(3)
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
        assert [compiled.matches(*frame) for frame in arena.frames[::13]] == wanted[::13], text
        if available():
            assert codes.install(demux) == demux.shapes
            assert [owner == 0 for owner in arena.classify(demux)] == wanted, text
        for conjunct in compiled.conjuncts:
            example = overlap((conjunct,), (conjunct,))
            assert example and program.matches(example.frame, example.wire_len), (text, conjunct)
        taken += 0 < sum(wanted) < len(wanted)
    assert taken > 0.85 * len(every()) / 8


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
