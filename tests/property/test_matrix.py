# SPDX-License-Identifier: MIT
"""The matrix: every filter of the manuals and of our own lists, on every frame of every capture, by all classifiers.

libpcap, native code and the tables see every frame, the reference in Python a sample. The usual run takes every 8th
filter, and fewer on the largest captures; with EXONET_LONG set (to anything but 0) it takes all of them: a minute.
"""

import csv
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

from exonet.errors import FilterError
from exonet.filters import classifier as classifier_module
from exonet.filters.classifier import Classifier, Kind, classifier
from exonet.filters.compile import CompiledFilter, compile_filter
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.match import Matched, disagreement
from exonet.filters.native import available
from exonet.wire.capture import Trace
from tests.conftest import every_capture, own_captures
from tests.demux_box import read_capture
from tests.effort import LONG
from tests.expressions import every
from tests.filter_list import DECOMPOSE
from tests.manual import TABLES, listed, with_numbers

STEP = 1 if LONG else 8
#: Frames of a capture that the reference is asked about, by each filter.
SAMPLE = 40 if LONG else 4
#: Captures of more bytes are asked by one filter in so many.
LARGE, SPARSE = 500_000, 1 if LONG else 4

TEXTS = [*DECOMPOSE, *(with_numbers(text) for table in TABLES.values() for text in listed(table)), *every()]


@dataclass(frozen=True)
class Asked:
    """A filter, and who is asked about it."""

    filter: CompiledFilter
    program: Program
    classifiers: list[tuple[Kind, Classifier]]

    @classmethod
    def of(cls, filter: CompiledFilter) -> "Asked":
        kinds = [Kind.LIBPCAP, Kind.TABLE, *([Kind.NATIVE] if available() else [])]
        return cls(filter, Libpcap().compile(filter.text), [(kind, classifier(kind, filter)) for kind in kinds])


def compiled(texts: list[str]) -> Iterator[CompiledFilter]:
    """Those that bind; which are refused, and why, is the manuals' own test."""
    for text in texts:
        try:
            yield compile_filter(text)
        except FilterError:
            continue


@pytest.fixture(scope="module")
def asked() -> Iterator[list[Asked]]:
    """Many filters share shapes: each shape's code is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_module, "compile_form", functools.cache(classifier_module.compile_form))
        yield [Asked.of(filter) for filter in compiled(list(dict.fromkeys(TEXTS))[::STEP])]


def test_few_filters_of_the_matrix_are_refused(asked: list[Asked]) -> None:
    assert len(asked) > 600 // STEP


@pytest.mark.parametrize("path", every_capture(), ids=lambda path: path.name)
def test_r05_every_filter_on_every_frame_is_as_libpcap_says(path: Path, asked: list[Asked]) -> None:
    sparse = SPARSE if path.stat().st_size > LARGE else 1
    with Trace.load(path) as trace:
        for each in asked[::sparse]:
            count = Matched(path)
            found = disagreement(trace, each.classifiers, count)
            assert found is None, (each.filter.text, found)
            assert count.total == len(trace)


@pytest.mark.parametrize("path", every_capture(), ids=lambda path: path.name)
def test_r05_every_filter_is_what_its_conjuncts_say(path: Path, asked: list[Asked]) -> None:
    frames = read_capture(path)
    for each in asked:
        for data, wire_len in frames[:: max(1, len(frames) // SAMPLE)]:
            wanted = each.program.matches(data, wire_len)
            assert each.filter.matches(data, wire_len) == wanted, (each.filter.text, data.hex(), wire_len)


# ---- the frames themselves ----


@functools.cache
def listed_packets() -> dict[str, int]:
    """How many packets MANIFEST.tsv says that each capture beside it has; nothing where there is none."""
    manifest = Path(os.environ.get("EXONET_CAPTURES", "")) / "MANIFEST.tsv"
    if not manifest.is_file():
        return {}
    with manifest.open() as file:
        return {Path(row["file"]).name: int(row["packets"]) for row in csv.DictReader(file, delimiter="\t")}


@pytest.mark.parametrize("path", every_capture(), ids=lambda path: path.name)
def test_no_frame_of_a_capture_is_left_out(path: Path) -> None:
    """As many as scapy finds and as the list says; nothing but what cannot be Ethernet is left out."""
    with RawPcapReader(str(path)) as reader:
        found = sum(1 for _ in reader)
    with Trace.load(path) as trace:
        assert len(trace) == found == listed_packets().get(path.name, found)
        assert len(read_capture(path)) == found - trace.not_ethernet - trace.oversize


def test_a_frame_that_was_cut_keeps_its_length_on_the_wire() -> None:
    (path,) = own_captures("snapped.pcap")
    assert any(len(data) < wire_len for data, wire_len in read_capture(path))
