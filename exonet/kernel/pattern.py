# SPDX-License-Identifier: MIT
"""The pattern: what filters of one template have in common as the kernel sees them, so that one more of them is
prepared by copying its values into place.

A template (filters/template.py) and its moulds (filters/mould.py) know conjuncts and native boxes; a pattern adds the
claims: kind, shape, volume and rank depend on masks alone, so they are those of the conjunct it was made from.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from exonet.filters.mould import Mould, pins
from exonet.filters.outline import Hole
from exonet.filters.span import log2_fixed
from exonet.filters.template import Filled, Template
from exonet.kernel.claim import Claim
from exonet.kernel.prepared import Box, Prepared

__all__ = ["Patterns"]

KEPT_TEMPLATES = 1024
KEPT_CHOICES = 16

#: Which of a claim's values, how far up; how to take numbers from a program, and to write them as they are in a frame.
_Put = tuple[int, int, Callable[[bytes], tuple[int, ...]], Callable[..., bytes]]
LETTERS = {1: "B", 2: "H", 4: "I"}


class Cast(Prepared):
    """A filter by its pattern. Its conjuncts are made when somebody asks for them."""

    __slots__ = ("_filled", "_pattern")

    def __init__(self, text: str, filled: Filled, pattern: "Pattern", claims: tuple[Claim, ...], high: float) -> None:
        self.text = text
        self.claims = claims
        self.count = len(pattern.moulds)
        self.shapes = pattern.shapes
        self.high = high
        self.likely = None
        self._boxes = None
        self._filled = filled
        self._pattern = pattern

    @property
    def conjuncts(self) -> tuple[Any, ...]:
        return self._filled.conjuncts

    def boxes(self) -> tuple[Box, ...]:
        if self._boxes is None:
            source = self._pattern.source(self._filled.code)
            self._boxes = tuple([(mould.cast(source), mould.groups) for mould in self._pattern.moulds])
        return self._boxes


class Pattern:
    """models: the claims of one filter of the template, by which those of others are made."""

    __slots__ = ("_bits", "_excludes", "_parts", "_range", "_units", "high", "moulds", "shapes", "source")

    def __init__(self, template: Template, moulds: Sequence[Mould], models: Sequence[Claim]) -> None:
        self.moulds = tuple(moulds)
        self.shapes = tuple(dict.fromkeys(claim.shape for claim in models))
        self.source = template.source
        self._bits = template.bits
        single = [place for place, mould in enumerate(moulds) if not mould.groups]
        self.high = sum(models[place].high for place in single)
        parts = []
        for place in single:
            outline = template.outlines[place]
            exclusions = outline.exclusions if any(inside for _, inside in outline.excluded) else None
            parts.append((place, models[place], *_values(template, place, models[place]), exclusions))
        self._parts = tuple(parts)
        self._excludes = any(exclusions for *_, exclusions in parts)
        self._range = template.range
        self._units = [_unit(models[place]) for place in single] if template.range else []

    def prepared(self, text: str, filled: Filled) -> Prepared:
        code = filled.code
        if self._range is None:
            return Cast(text, filled, self, tuple(self._claims(filled, None)), self.high)
        low, high = self._range.ends(code)
        claims, size, width = self._claims(filled, (low, high)), high - low + 1, log2_fixed(high - low + 1)
        for claim, (least, most, rank) in zip(claims, self._units, strict=True):
            claim.low, claim.high, claim.rank = least * size, most * size, rank + width
        return Cast(text, filled, self, tuple(claims), sum(claim.high for claim in claims))

    def _claims(self, filled: Filled, span: tuple[int, int] | None) -> list[Claim]:
        """span: the range's; None: each has its own."""
        code, claims = filled.code, []
        bits = self._bits(code) if self._excludes else ()
        for place, model, known, puts, exclusions in self._parts:
            values = list(known)
            for which, shift, unpack, pack in puts:
                values[which] |= int.from_bytes(pack(*unpack(code)), "little") << shift
            own = span
            if own is None:
                prefix = self.moulds[place].prefix
                own = prefix.span(code) if prefix is not None else model.span
            excluded = exclusions(bits) if exclusions else model.excluded
            claims.append(model.like(tuple(values), own, excluded, (filled, place)))
        return claims


def _unit(model: Claim) -> tuple[float, float, int]:
    """The bounds of a claim's volume for each value of its span, powers of two, and its rank for one value."""
    low, high = model.span or (0, 0)
    size = high - low + 1
    return model.low / size, model.high / size, model.rank - log2_fixed(size)


def _values(template: Template, place: int, model: Claim) -> tuple[tuple[int, ...], tuple[_Put, ...]]:
    """What is the same in all, and how each takes the rest from its program, a space at a time."""
    outline, pinned = template.outlines[place], pins(template)
    known = list(model.values)
    inside = {hole for _, holes in outline.box for hole in holes}
    puts = []
    for which, (space, _) in enumerate(model.kind.masks):
        holes = [template.holes[each] for each in inside if template.holes[each].lane.space == space]
        holes = [hole for hole in holes if (hole.at, hole.end) not in pinned]
        for hole in holes:
            known[which] &= ~hole.bits
        if holes:
            puts.append(_put(which, holes, template.length))
    return tuple(known), tuple(puts)


def _put(which: int, holes: Sequence[Hole], length: int) -> _Put:
    """A constant has its lowest byte first, a field its highest."""
    ordered = sorted(holes, key=lambda hole: hole.lane.offset)
    taken = sorted(holes, key=lambda hole: hole.at)
    start = ordered[0].lane.offset
    unpack = struct.Struct("<" + _layout([(hole.at, hole.lane.size) for hole in taken], 0, length)).unpack
    end = ordered[-1].lane.end
    pack = struct.Struct(">" + _layout([(hole.lane.offset, hole.lane.size) for hole in ordered], start, end)).pack
    if taken == ordered:
        return which, 8 * start, unpack, pack
    pick = itemgetter(*(taken.index(hole) for hole in ordered))
    return which, 8 * start, lambda code: pick(unpack(code)), pack


def _layout(pieces: Sequence[tuple[int, int]], start: int, end: int) -> str:
    """For `struct`: numbers where the pieces are, (first byte, bytes), of what reaches from start to end."""
    layout = ""
    for at, size in pieces:
        layout += f"{at - start}x{LETTERS[size]}"
        start = at + size
    return f"{layout}{end - start}x"


class _Choices:
    """The patterns of a template, by what its programs have where it is pinned; None: not by one."""

    __slots__ = ("found", "pins")

    def __init__(self, template: Template) -> None:
        self.pins = pins(template)
        self.found: dict[bytes, Pattern | None] = {}

    def chosen(self, code: bytes) -> bytes:
        return b"".join([code[at:end] for at, end in self.pins])


class Patterns:
    """Those met so far. `claim`: of a conjunct, the slow way."""

    def __init__(self, claim: Callable[[Any], Claim]) -> None:
        self._claim = claim
        self._known: dict[Template, _Choices] = {}

    def known(self, text: str, filled: Filled) -> Prepared | None:
        """The filter, where a pattern is known that has it."""
        choices = self._known.get(filled.template) if filled.template else None
        pattern = choices.found.get(choices.chosen(filled.code)) if choices else None
        return pattern.prepared(text, filled) if pattern else None

    def prepared(self, text: str, filled: Filled) -> Prepared | None:
        """The filter, where a pattern has it, which is made where there is none yet."""
        template = filled.template
        if template is None:
            return None
        choices = self._known.get(template)
        if choices is None:
            if len(self._known) >= KEPT_TEMPLATES:
                self._known.clear()
            choices = self._known[template] = _Choices(template)
        chosen = choices.chosen(filled.code)
        pattern = choices.found.get(chosen)
        if pattern is None:
            if chosen in choices.found:
                return None
            if len(choices.found) >= KEPT_CHOICES:
                choices.found.clear()
            pattern = choices.found[chosen] = self._made(template, filled)
        return pattern.prepared(text, filled) if pattern else None

    def _made(self, template: Template, filled: Filled) -> Pattern | None:
        moulds = Mould.all_of(template, filled.code)
        if moulds is None or (template.range is not None and template.range.excluded):
            return None
        return Pattern(template, moulds, [self._claim(conjunct) for conjunct in template.fill(filled.code)])
