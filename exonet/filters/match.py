# SPDX-License-Identifier: MIT
"""A filter over captures: how many frames it takes, which, and whether all classifiers say the same.

Captures are streamed: memory stays the same whatever their size, and a burst of records is classified by one call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exonet.filters.classifier import MOST, Classifier, Kind
from exonet.wire.capture import Burst, Frame, Trace

__all__ = ["Disagreement", "Matched", "disagreement", "matching", "open_capture"]


@dataclass(slots=True)
class Matched:
    """Of one capture, as far as it has been read: records that the filter takes, and all of them. broken: why its end
    was not read.
    """

    path: Path
    matched: int = 0
    total: int = 0
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The first record on which classifiers differ, and what each says."""

    frame: Frame
    said: dict[Kind, bool]


def open_capture(path: Path) -> Trace:
    """CaptureError where it is none. A pipe cannot be streamed: it is read into memory."""
    return Trace.load(path, memory_limit=0) if path.is_file() else Trace.load(path)


def matching(trace: Trace, classifier: Classifier, count: Matched) -> Iterator[tuple[Burst, Any]]:
    """Every burst with the places in it of the records that are taken; counts them in `count`."""
    for burst in trace.bursts(MOST):
        places = classifier.takes(burst).nonzero()[0]
        count.matched += len(places)
        count.total += burst.count
        yield burst, places


def disagreement(trace: Trace, classifiers: Sequence[tuple[Kind, Classifier]], count: Matched) -> Disagreement | None:
    """Asks all of them about every record; `count` is what the first of them says."""
    for burst in trace.bursts(MOST):
        said = [(kind, classifier.takes(burst)) for kind, classifier in classifiers]
        first = said[0][1]
        wrong = [int((first != other).argmax()) for _, other in said[1:] if (first != other).any()]
        if wrong:
            place = min(wrong)
            count.total += place
            count.matched += int(first[:place].sum())
            return Disagreement(burst[place], {kind: bool(takes[place]) for kind, takes in said})
        count.matched += int(first.sum())
        count.total += burst.count
    return None
