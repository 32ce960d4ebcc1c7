# SPDX-License-Identifier: MIT
"""What a filter becomes in the demux, in words: its conjuncts, and the shapes they fall in.

A shape is named by what its form alone says (csrc/demux.h, `struct exo_form`): the ethertype and protocol that the
dispatch decides on, the fields in the key and the loads that fetch them, what is excluded, the guards on length, and
the field of its interval. Conjuncts of one shape differ in values only.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from exonet.abi import lib
from exonet.errors import ExonetError
from exonet.filters.compile import CompiledFilter
from exonet.filters.conjunct import FRAME, LENGTH, Bits, Conjunct, meet
from exonet.filters.form import Form, Lane
from exonet.filters.libpcap import Libpcap
from exonet.filters.names import describe_term

__all__ = ["ExplainedConjunct", "Explanation", "ShapeWords"]

ETHERTYPES = {
    0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8100: "802.1Q tag", 0x88A8: "802.1ad tag", 0x9100: "QinQ tag",
    0x8863: "PPPoE discovery", 0x8864: "PPPoE session",
}  # fmt: skip
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
IN_THE_KEY = 1
BIT = 1 << 16  # of a specificity
_VALUE = re.compile(r" (?:==|in) [^/]*(/\d+)?$")


@dataclass(frozen=True, slots=True)
class ShapeWords:
    """One shape in words. key, excluded: names of fields. loads: the lanes of the key."""

    dispatch: str
    key: tuple[str, ...]
    loads: tuple[str, ...]
    excluded: tuple[str, ...]
    guards: tuple[str, ...]
    interval: str
    program: bool

    @classmethod
    def of(cls, form: Form, bits: Bits | None = None) -> Self:
        """bits: the box of a conjunct of the shape, which may name more of its fields than the form alone does."""
        known = meet(dispatched(form), bits or {})
        return cls(
            dispatch=_dispatch(form),
            key=_fields(form, form.lanes, known),
            loads=tuple(map(str, form.lanes)),
            excluded=_fields(form, form.excluded, known),
            guards=tuple(_guards(form)),
            interval=_interval(form, known),
            program=any(lane.base == lib.EXO_BASE_PROGRAM for lane in form.excluded),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "dispatch": self.dispatch,
            "key": list(self.key),
            "loads": list(self.loads),
            "excluded": list(self.excluded),
            "guards": list(self.guards),
            "interval": self.interval or None,
            "program": self.program,
        }

    def __str__(self) -> str:
        parts = [self.dispatch, f"key {', '.join(self.key) or 'empty'}"]
        if self.interval:
            parts.append(f"interval of {self.interval}")
        if self.program:
            parts.append("its program takes the frame")
        if self.excluded:
            parts.append(f"but for values of {', '.join(self.excluded)}")
        return "; ".join(parts)


def dispatched(form: Form) -> dict[int, tuple[int, int]]:
    """The box of what the dispatch decides on."""
    frame = bytearray(24)
    mask = bytearray(24)
    if form.ethertype > IN_THE_KEY:
        frame[12:14], mask[12:14] = form.ethertype.to_bytes(2, "big"), b"\xff\xff"
    if form.protocol != lib.EXO_ANY_PROTOCOL:
        at = 23 if form.ethertype == 0x800 else 20
        frame[at], mask[at] = form.protocol, 0xFF
    return {FRAME: (int.from_bytes(mask, "little"), int.from_bytes(frame, "little"))} if any(mask) else {}


def _dispatch(form: Form) -> str:
    if form.ethertype == 0:
        return "every ethertype"
    if form.ethertype == IN_THE_KEY:
        return "an ethertype that is in the key"
    parts = [ETHERTYPES.get(form.ethertype, f"ethertype {form.ethertype:#06x}")]
    if form.protocol != lib.EXO_ANY_PROTOCOL:
        parts.append(PROTOCOLS.get(form.protocol, f"protocol {form.protocol}"))
    if form.unfragmented:
        parts.append("no later fragment")
    if form.destined:
        parts.append("by destination")
    return ", ".join(parts)


def _space(form: Form, base: int) -> int:
    if base == lib.EXO_BASE_LENGTH:
        return LENGTH
    return form.ip4_at if base == lib.EXO_BASE_IP4 else FRAME


def _fields(form: Form, lanes: Sequence[Lane], bits: Bits) -> tuple[str, ...]:
    """The names of the fields that the lanes compare."""
    masks: dict[int, int] = {}
    for lane in lanes:
        if lane.base == lib.EXO_BASE_PROGRAM:
            continue
        mask = lane.mask << 8 * lane.offset if lane.offset >= 0 else lane.mask >> -8 * lane.offset
        space = _space(form, lane.base)
        masks[space] = masks.get(space, 0) | mask
    names = (_VALUE.sub(r"\1", text) for space, mask in masks.items() for text in describe_term(bits, space, mask, 0))
    return tuple(dict.fromkeys(names))


def _guards(form: Form) -> Iterable[str]:
    if form.frame_bytes:
        yield f"{form.frame_bytes} bytes"
    if form.ip4_at:
        yield f"{form.ip4_bytes} bytes after the IPv4 header at {form.ip4_at}"


def _interval(form: Form, bits: Bits) -> str:
    base, offset, size = form.interval
    if not size:
        return ""
    if base == lib.EXO_BASE_LENGTH:
        return "length"
    mask = (1 << 8 * size) - 1 << 8 * offset
    return ", ".join(_VALUE.sub(r"\1", text) for text in describe_term(bits, _space(form, base), mask, 0))


@dataclass(frozen=True, slots=True)
class ExplainedConjunct:
    """region: its comparisons, which must all hold. shape: its place in Explanation.shapes; None: it is refused.

    specificity: the bits that it fixes. Of conjuncts that take a frame the one with the most wins (R4).
    """

    conjunct: Conjunct
    region: str
    specificity: float
    shape: int | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A compiled filter, and what each of its conjuncts is to the demux. forms and shapes run in parallel."""

    filter: CompiledFilter
    conjuncts: tuple[ExplainedConjunct, ...]
    forms: tuple[Form, ...]
    shapes: tuple[ShapeWords, ...]

    @classmethod
    def of(cls, filter: CompiledFilter) -> Self:
        forms: dict[Form, int] = {}
        shapes: list[ShapeWords] = []
        found = []
        for conjunct in filter.conjuncts:
            shape, refused = None, ""
            try:
                form = Form.of_conjunct(conjunct)
            except ExonetError as error:
                refused = str(error)
            else:
                shape = forms.setdefault(form, len(forms))
                if shape == len(shapes):
                    shapes.append(ShapeWords.of(form, conjunct.bits))
            found.append(ExplainedConjunct(conjunct, str(conjunct), conjunct.specificity / BIT, shape, refused))
        return cls(filter, tuple(found), tuple(forms), tuple(shapes))

    @property
    def program(self) -> tuple[str, ...]:
        """What conjuncts ask besides their boxes, as `tcpdump -d` prints it: all of a filter ask the same."""
        codes = {code for each in self.conjuncts for code in each.conjunct.programs}
        return Libpcap().listing(codes.pop()) if codes else ()

    def of_shape(self, shape: int) -> list[int]:
        """The conjuncts that fall in a shape, by their places."""
        return [place for place, each in enumerate(self.conjuncts) if each.shape == shape]
