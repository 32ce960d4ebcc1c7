# SPDX-License-Identifier: MIT
"""What the kernel asks of the filter compiler: what a text claims, whether a region covers it, how two claims lie.

Over `exonet.filters`. The conjuncts that are checked here are the objects that become the demux's boxes, so what is
authorised and what is installed cannot disagree.

One thread asks, the kernel's; what takes long is found by `studies`, perhaps in another thread. What both touch are
dictionaries, one operation at a time, or under a lock.
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from exonet.abi import ffi, lib
from exonet.errors import ExhaustedError, FilterError
from exonet.filters.compile import conjuncts_of, fill, of_source
from exonet.filters.conjunct import FRAME, LENGTH, Conjunct, apart
from exonet.filters.fields import Expression
from exonet.filters.form import shape_of
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.mould import groups_only
from exonet.filters.optimiser import compile_checked, may_be_wrong
from exonet.filters.region import Example, Nesting, Region, Relation, difference, nesting, relation, separate
from exonet.filters.remedy import remedy
from exonet.filters.syntax import joins, to_pcap
from exonet.filters.template import Templates
from exonet.kernel.claim import Claim, Kind
from exonet.kernel.names import Names
from exonet.kernel.pattern import Patterns
from exonet.kernel.prepared import Box, Prepared
from exonet.kernel.studies import Studies
from exonet.wording import shown

__all__ = ["Regions"]

REMEMBERED = 512
#: So many pairs of claims are compared without a study.
COVERED_AT_ONCE = 512
#: Characters of a text, and how often it joins conditions (syntax.py), that libpcap compiles within some milliseconds
#: whatever it says; its optimiser is more than quadratic.
QUICK_TEXT = 128
QUICK_JOINS = 8
DESTINATION = sum(255 << 8 * at for at in (12, 13, 20, 23, *range(30, 34), *range(38, 54)))
IP6_FRAGMENT = 44
IP4_HEADERS = (14, 18, 22)  # where an IPv4 header may begin: untagged, behind a tag, behind two or PPPoE


class ShapeName:
    """A shape that is compared by identity: there is one for equal ones.

    branch: the ethertype and protocol that the demux tells it by. destined: it fixes the IP destination.
    """

    __slots__ = ("__weakref__", "branch", "destined", "shape")

    def __init__(self, shape: bytes) -> None:
        self.shape = shape
        native = ffi.new("struct exo_form *")
        ffi.memmove(native, shape, len(shape))
        self.branch = int(lib.exo_form_branch(native))
        self.destined = lib.exo_form_destination(native) != 0

    def __bytes__(self) -> bytes:
        """As filters/form.py names it."""
        return self.shape


class Regions:
    """`kernel.binding.Filters` by the real compiler; remembers the templates of the forms that it has met, and what is
    prepared as long as anybody holds it. studies: what it has found out of late.
    """

    def __init__(self) -> None:
        self.studies = Studies()
        self._libpcap = threading.local()  # .opened
        self._names = Names()
        self._templates = Templates(conjuncts_of)
        self._patterns = Patterns(self._claim)
        self._prepared: WeakValueDictionary[str, Prepared] = WeakValueDictionary()
        self._kinds: WeakValueDictionary[Any, Kind] = WeakValueDictionary()
        self._shapes: WeakValueDictionary[bytes, ShapeName] = WeakValueDictionary()
        self._recent: deque[Prepared] = deque(maxlen=REMEMBERED)
        self._making = threading.Lock()  # of what is compared by identity
        self._whole: dict[str, bool] = {}
        self._everything = self._prepare("everything", tuple(Region.everything().conjuncts))

    def prepare(self, source: str | Expression | None) -> Prepared:
        """A filter that is ready to be bound; None: everything. FilterError where it does not parse or decompose."""
        if source is None:
            return self._everything
        text = str(source)
        found = self._prepared.get(text)
        if found is None:
            found = self._known(source, text) if _is_quick(text) else None
            if found is None:
                found = self.studies.find(("filter", text), partial(self._made, source), weigh=_weight)
            else:
                self._recent.append(found)
            self._prepared[text] = found
        return found

    def _known(self, source: str | Expression, text: str) -> Prepared | None:
        """The filter, where template and pattern of it are known."""
        filled = self._templates.known(self._program(source))
        return self._patterns.known(text, filled) if filled else None

    def _made(self, source: str | Expression) -> Prepared:
        """The filter, whatever it takes: in any thread."""
        program, text = self._program(source), str(source)
        try:
            filled = fill(program, self._templates)
        except FilterError as error:
            raise of_source(error, source, program.text) from None
        made = self._patterns.prepared(text, filled) or self._prepare(text, filled.conjuncts)
        with contextlib.suppress(FilterError):  # one that does not fit is refused when it is bound
            made.boxes()
        return made

    def _program(self, source: str | Expression) -> Program:
        text = to_pcap(source)
        library = getattr(self._libpcap, "opened", None)
        if library is None:
            library = self._libpcap.opened = Libpcap()
        try:
            self._names.refuse(text)
            compiled = compile_checked(library, text)
        except FilterError as error:
            raise of_source(error, source, text) from None
        return compiled

    def _prepare(self, text: str, conjuncts: tuple[Conjunct, ...]) -> Prepared:
        claims = [self._claim(conjunct) for conjunct in conjuncts]
        single = [claim for claim in claims if not groups_only(claim.conjunct)]
        return Prepared(text, conjuncts, single, tuple(dict.fromkeys(claim.shape for claim in claims)), _box)

    def _claim(self, conjunct: Conjunct) -> Claim:
        masks = tuple([(space, mask) for space, mask, _ in conjunct.box])
        interval = conjunct.interval
        guards = (conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at)
        known = (masks, guards, not conjunct.excluded, interval.field if interval else None)
        with self._making:
            kind = self._kinds.get(known)
            if kind is None:
                kind = self._kinds[known] = Kind(*known)
        low, high = volume(conjunct)
        values = tuple([value for _, _, value in conjunct.box])
        shape, span = self._shape(conjunct), interval[1:] if interval else None
        rank, excluded = conjunct.rank[0], conjunct.excluded
        return Claim(conjunct, kind, values, shape, excluded=excluded, low=low, high=high, rank=rank, span=span)

    def _shape(self, conjunct: Conjunct) -> ShapeName:
        shape = shape_of(conjunct)
        with self._making:
            found = self._shapes.get(shape)
            if found is None:
                found = self._shapes[shape] = ShapeName(shape)
            return found

    def shapes(self, conjuncts: Sequence[Conjunct]) -> tuple[ShapeName, ...]:
        return tuple(dict.fromkeys(map(self._shape, conjuncts)))

    def covers(self, outer: Prepared, inner: Prepared) -> bool:
        """Does every frame of `inner` match `outer`? By masks and values for most, else by box subtraction within a
        quota (ExhaustedError).
        """
        if outer is inner:
            return True
        few = len(outer.claims) * len(inner.claims) <= COVERED_AT_ONCE
        if few and _seen_to_cover(outer, inner):
            return True
        return self.studies.find(("covers", outer.text, inner.text), partial(_covers, outer, inner))

    def text_covers(self, outer: str, inner: str) -> bool:
        """Does every frame of `inner` match `outer`? For `capability.Authority`."""
        return self.covers(self.prepare(outer), self.prepare(inner))

    def whole(self, region: str | None) -> bool:
        """Is a region made of whole destinations, so that who holds it shares no address with another owner?"""
        if region is None:
            return True
        found = self._whole.get(region)
        if found is None:
            if len(self._whole) >= REMEMBERED:
                self._whole.clear()
            found = self._whole[region] = all(map(_is_whole, self.prepare(region).conjuncts))
        return found

    def outside(self, outer: str, inner: str | None) -> str:
        """Which conjunct of `inner` takes what frame that `outer` does not, for people; "" where it is not known."""
        work = partial(_outside, self.prepare(outer), self.prepare(inner))
        return self.studies.find(("outside", outer, inner), work)

    def relation(self, a: Sequence[Conjunct], b: Sequence[Conjunct]) -> Relation:
        return relation(a, b)

    def nesting(self, a: Sequence[Conjunct], b: Sequence[Conjunct]) -> Nesting:
        return nesting(a, b)

    def breadth(self, conjuncts: Sequence[Conjunct]) -> int:
        """Of the filter that they are."""
        return conjuncts[0].breadth if conjuncts else 0

    def of_breadth(self, conjuncts: Sequence[Conjunct], breadth: int) -> tuple[Conjunct, ...]:
        return tuple(replace(conjunct, breadth=breadth) for conjunct in conjuncts)

    def tied(self, inner: Sequence[Conjunct], outer: Sequence[Conjunct]) -> bool:
        """Is there an inner one that fixes as many bits as an outer one that it overlaps?"""
        return any(a.specificity == b.specificity and not apart(a, b) for a in inner for b in outer)

    def separate(self, inner: Sequence[Conjunct], outer: Sequence[Conjunct]) -> list[Conjunct]:
        """What `inner` needs beside its own conjuncts to win everywhere."""
        own = {conjunct: conjunct.breadth for conjunct in inner}
        return [more for more in separate(inner, outer) if more.breadth < own.get(more, more.breadth + 1)]

    def taker(self, conjuncts: Sequence[Conjunct], example: Example) -> str:
        return taker(conjuncts, example)

    def remedy(self, refused: str, holder: str) -> str:
        return self.studies.find(("remedy", refused, holder), partial(remedy, refused, holder))

    def box(self, conjunct: Conjunct) -> Box:
        return _box(conjunct)

    def stamp(self, box: Box, binding: int) -> Any:
        """Equal boxes of group frames have several owners: their breadth, which is of no use where every match gets a
        copy, tells them apart.
        """
        native, groups = box
        native.binding = binding
        if groups:
            native.breadth = binding + 1
        return native


def _is_quick(text: str) -> bool:
    """Does libpcap compile it at once, whatever it says? What only says `and`, it does."""
    if len(text) > QUICK_TEXT or may_be_wrong(text):
        return False
    joined = (
        "|" in text or "!" in text or "&" in text or "not" in text or " or" in text or ")or" in text or "]or" in text
    )
    return not joined or joins(text) <= QUICK_JOINS


def _weight(prepared: Prepared) -> int:
    return prepared.count


def _seen_to_cover(outer: Prepared, inner: Prepared) -> bool:
    """By masks and values: is each claim of the one within one of the other's?"""
    if len(inner.claims) != inner.count:
        return False
    for claim in inner.claims:
        if outer.likely is not None and outer.likely.contains(claim):
            continue
        for own in outer.claims:
            if own.contains(claim):
                outer.likely = own
                break
        else:
            return False
    return True


def _covers(outer: Prepared, inner: Prepared) -> bool:
    return _seen_to_cover(outer, inner) or Region(outer.conjuncts).covers(inner.conjuncts)


def _outside(region: Prepared, wanted: Prepared) -> str:
    try:
        conjunct = Region(region.conjuncts).uncovered(wanted.conjuncts)
        example = difference((conjunct,), region.conjuncts) if conjunct else None
    except ExhaustedError:
        return ""
    if conjunct is None or example is None:
        return ""
    return f"{numbered(wanted.conjuncts, conjunct)} takes more, for example {example.scapy}"


def taker(conjuncts: Sequence[Conjunct], example: Example) -> str:
    """The conjunct that takes the example, with its number, for people."""
    frame, length = example.frame, example.wire_len
    found = next((c for asking in (True, False) for c in conjuncts if c.matches(frame, length, asking=asking)), None)
    return "no conjunct" if found is None else numbered(conjuncts, found)


def numbered(conjuncts: Sequence[Conjunct], conjunct: Conjunct) -> str:
    """`conjunct 2 (…)`: its number and form as `exonet filter explain` prints them."""
    return f"conjunct {list(conjuncts).index(conjunct) + 1} ({shown(str(conjunct))})"


def _box(conjunct: Conjunct) -> Box:
    return conjunct.to_native(0), groups_only(conjunct)


def _pieces(conjunct: Conjunct) -> tuple[Conjunct, ...]:
    """The boxes without an interval that a conjunct with one is the union of; () where it has none."""
    return conjunct.plain() if conjunct.interval else ()


def _is_whole(conjunct: Conjunct) -> bool:
    """Does it look at nothing but ethertype, IP protocol (also behind IPv6's fragment header) and IP destination?"""
    for piece in _pieces(conjunct) or (conjunct,):
        for space, mask, value in (*piece.box, *piece.excluded):
            fragment = value >> 8 * 20 & 255 == IP6_FRAGMENT
            if space != FRAME or mask & ~(DESTINATION | 255 << 8 * 54 if fragment else DESTINATION):
                return False
    return True


def volume(conjunct: Conjunct) -> tuple[float, float]:
    """Bounds of its share of long frames whose IPv4 headers have 20 bytes, whatever their length on the wire.

    (0, infinity) where absolute offsets may be the same bytes as those after an IPv4 header.
    """
    pieces = _pieces(conjunct)
    if pieces:
        lows, highs = zip(*map(volume, pieces), strict=True)
        return sum(lows), sum(highs)
    seen = {space: mask for space, mask, _ in conjunct.box}
    touched = seen.get(FRAME, 0)
    for space, mask, _ in conjunct.excluded:
        touched |= mask if space == FRAME else 0
    relative = conjunct.ip4_bytes or any(space > 0 for space in seen)
    if relative and (conjunct.ip4_at not in IP4_HEADERS or touched >> 8 * (conjunct.ip4_at + 20)):
        return 0.0, math.inf
    bits = sum(mask.bit_count() for space, mask in seen.items() if space > LENGTH)  # a program may take them all
    headers = sum((seen.get(FRAME, 0) >> 8 * at & 15).bit_count() for at in IP4_HEADERS)
    high = 2.0 ** (headers - bits)
    if headers or min(seen, default=FRAME) < FRAME or any(touched >> 8 * at & 15 for at in IP4_HEADERS):
        return 0.0, high
    if any(space == LENGTH for space, _, _ in conjunct.excluded):
        return 0.0, high
    left = 1.0 - sum(2.0 ** -mask.bit_count() for _, mask, _ in conjunct.excluded)
    return max(0.0, high * left), high


def unicast(conjuncts: Sequence[Conjunct]) -> tuple[Conjunct, ...]:
    """Those that can take a unicast frame: groups are shared by subscription (R2), so R4 is about these alone."""
    return tuple(conjunct for conjunct in conjuncts if not groups_only(conjunct))
