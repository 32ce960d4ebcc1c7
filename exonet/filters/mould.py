# SPDX-License-Identifier: MIT
"""The mould: the native box of a conjunct that a template fills in, without the conjunct.

Equal masks give equal layouts, so of a template's outline the whole `struct exo_conjunct` is known but for bytes that
are copied from the program: a constant's bytes stand in it in the order in which a word of the box has them. The shape
is known too, for one choice of the values that the dispatch decides on: `pins` says where a program has them.
`Mould.all_of` makes none where anything else may depend on a value, and tries each on other values before it trusts
it: byte for byte what `Conjunct.to_native` and `shape_of` say. Each cast is memory of its own.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from exonet.abi import ffi
from exonet.errors import FilterError, UsageError
from exonet.filters.conjunct import FRAME, Atom, Base, Conjunct, Term, excluded_atom
from exonet.filters.form import shape_of
from exonet.filters.outline import Hole, Outline, Unsuited
from exonet.filters.ranged import Range
from exonet.filters.span import Field
from exonet.filters.template import Template

__all__ = ["Mould", "groups_only", "pins"]

#: The bytes of a frame whose values say more than which key it is: the group bit, and what the dispatch decides on.
DECISIVE = (0, 12, 13, 20, 21, 23)
TRIALS = 2
ATOMS: int = ffi.offsetof("struct exo_conjunct", "atom")
ATOM: int = ffi.sizeof("struct exo_atom")
NATIVE = ffi.typeof("struct exo_conjunct *")
VALUE: int = ffi.offsetof("struct exo_atom", "value")
INTERVAL: int = ffi.offsetof("struct exo_conjunct", "interval")
BREADTH_BYTES = 4
BREADTH: int = ffi.offsetof("struct exo_conjunct", "breadth")
LOW: int = INTERVAL + ffi.offsetof("struct exo_interval", "low")
HIGH: int = INTERVAL + ffi.offsetof("struct exo_interval", "high")

#: Of the native box, and of the program: first byte and end.
Copy = tuple[int, int, int, int]


def groups_only(conjunct: Conjunct) -> bool:
    """Does it ask for the group bit, the lowest of the first byte?"""
    return any(space == FRAME and mask & value & 1 for space, mask, value in conjunct.box)


def pins(template: Template) -> tuple[tuple[int, int], ...]:
    """Which bytes of a program its moulds depend on: first and end of each constant."""
    return tuple((hole.at, hole.end) for hole in template.holes if _decisive(hole))


@dataclass(frozen=True, slots=True)
class Prefix:
    """The constant that an interval's values begin with: its bytes in the program, its place in the field, and the
    bits below.
    """

    at: int
    end: int
    shift: int
    below: int
    is_whole: bool  # is its mask one of whole bytes?

    @classmethod
    def of(cls, hole: Hole, field: Field) -> "Prefix":
        shift = 8 * (field.end - hole.lane.end)
        below = field.most & ~(hole.lane.mask << shift)
        return cls(hole.at, hole.end, shift, below, below.bit_length() % 8 == 0)

    def span(self, code: bytes | bytearray) -> tuple[int, int]:
        low = int.from_bytes(code[self.at : self.end], "little") << self.shift
        return low, low | self.below

    def copies(self) -> list[Copy]:
        """Whole bytes of it are copied to both ends of the interval."""
        whole = [at for at in range(self.end - self.at) if not self.below >> self.shift + 8 * at & 0xFF]
        if not whole:
            return []
        first, last, up = whole[0], whole[-1] + 1, self.shift // 8
        return [(to + up + first, to + up + last, self.at + first, self.at + last) for to in (LOW, HIGH)]

    def write(self, native: bytearray, code: bytes | bytearray) -> None:
        low, high = self.span(code)
        native[LOW : LOW + 4] = low.to_bytes(4, "little")
        native[HIGH : HIGH + 4] = high.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Ends:
    """The range that a template has: its ends in the program, and behind that the breadth."""

    range: Range
    breadth: int
    is_whole: bool = True

    def copies(self) -> list[Copy]:
        ends = self.range
        copies = [(to, to + ends.size, at, at + ends.size) for to, at in ((LOW, ends.low), (HIGH, ends.high))]
        return [*copies, (BREADTH, BREADTH + BREADTH_BYTES, self.breadth, self.breadth + BREADTH_BYTES)]

    def span(self, code: bytes | bytearray) -> tuple[int, int]:
        return self.range.ends(code)


@dataclass(frozen=True, slots=True)
class Mould:
    """One outline's. image: the native box as a format, which `taken` from a program fill in: the fastest way to copy
    many small pieces. groups: only group frames are in it.
    """

    image: bytearray
    taken: Callable[[bytes | bytearray], tuple[bytes, ...]]
    shape: bytes
    groups: bool
    prefix: Prefix | Ends | None = None

    def cast(self, code: bytes | bytearray) -> Any:
        """The `struct exo_conjunct *` of a program that fits the template and has the pinned values. code: its source
        (`Template.source`).
        """
        native: bytearray = self.image % self.taken(code)  # type: ignore[assignment]  # it is one: typeshed says bytes
        if isinstance(self.prefix, Prefix) and not self.prefix.is_whole:
            self.prefix.write(native, code)
        return ffi.from_buffer(NATIVE, native)

    @classmethod
    def all_of(cls, template: Template, code: bytes) -> "tuple[Mould, ...] | None":
        """Those of a template's outlines, in their order, for programs that have what `code` has where it is pinned.
        None: not by moulds.
        """
        try:
            pairs = zip(template.outlines, template.fill(code), strict=True)
            found = [cls._of(template, outline, conjunct) for outline, conjunct in pairs]
            return tuple(found) if _tried(template, code, found) else None
        except (FilterError, UsageError, Unsuited):
            return None

    @classmethod
    def _of(cls, template: Template, outline: Outline, conjunct: Conjunct) -> "Mould":
        holes = template.holes
        prefix: Prefix | Ends | None = Ends(template.range, template.length) if template.range else None
        if conjunct.interval is not None and outline.prefix is not None:
            hole = holes[outline.prefix]
            if _decisive(hole):
                raise Unsuited
            prefix = Prefix.of(hole, conjunct.interval.field)
        copies = prefix.copies() if prefix is not None and prefix.is_whole else []
        for _, inside in outline.box:
            for each in inside:
                if not _decisive(holes[each]):
                    copies += _copies(holes[each], _word_of(holes[each], conjunct.atoms))
        for term, inside in outline.excluded:
            for each in inside:
                if not _decisive(holes[each]):
                    copies += _copies(holes[each], _excluded_word(term, holes[each], conjunct))
        image = bytes(ffi.buffer(conjunct.to_native(0)))
        taken = _taken(copies, template.length + (BREADTH_BYTES if template.range else 0))
        return cls(_format(image, copies), taken, shape_of(conjunct), groups_only(conjunct), prefix)


def _format(image: bytes, copies: Sequence[Copy]) -> bytearray:
    """The image with a %b wherever something is copied."""
    made, last = bytearray(), 0
    for at, end, _, _ in sorted(copies):
        made += image[last:at].replace(b"%", b"%%") + b"%b"
        last = end
    return made + image[last:].replace(b"%", b"%%")


def _taken(copies: Sequence[Copy], length: int) -> Callable[[bytes | bytearray], tuple[bytes, ...]]:
    """Takes out of a program of that length what is copied, in the order of the box."""
    layout, end = "", 0
    order = sorted({copy[2:] for copy in copies})
    for first, last in order:
        layout += f"{first - end}x{last - first}s"
        end = last
    unpack = struct.Struct(f"{layout}{length - end}x").unpack
    places = [order.index(copy[2:]) for copy in sorted(copies)]
    if places == list(range(len(order))):
        return unpack
    pick = itemgetter(*places)
    return lambda code: pick(unpack(code))


def _tried(template: Template, code: bytes, moulds: Sequence[Mould]) -> bool:
    """Do they say what the slow way says, for other values too?"""
    chosen = random.Random(len(code))
    for trial in range(TRIALS):
        other = bytearray(template.varied(code, chosen, special=bool(trial)))
        for at, end in pins(template):
            other[at:end] = code[at:end]
        source = template.source(bytes(other))
        for conjunct, mould in zip(template.fill(bytes(other)), moulds, strict=True):
            if (
                ffi.buffer(mould.cast(source))[:] != ffi.buffer(conjunct.to_native(0))[:]
                or mould.shape != shape_of(conjunct)
                or mould.groups != groups_only(conjunct)
            ):
                return False
    return True


def _decisive(hole: Hole) -> bool:
    return hole.lane.space < 0 or (hole.lane.space == FRAME and any(at in DECISIVE for at in _bytes(hole)))


def _bytes(hole: Hole) -> list[int]:
    """Those of its field of which a bit counts."""
    lane = hole.lane
    return [at for at in range(lane.offset, lane.end) if lane.mask >> 8 * (lane.end - 1 - at) & 0xFF]


#: Where in the native box the word is that has a byte of a space, and the first byte of that word.
Word = Callable[[int], tuple[int, int]]


def _word_of(hole: Hole, atoms: Sequence[Atom]) -> Word:
    """Of the box."""
    base = Base.IP4 if hole.lane.space else Base.FRAME
    places = {atom.offset: i for i, atom in enumerate(atoms) if atom.base is base}
    return lambda at: (places[at & ~3], at & ~3)


def _excluded_word(term: Term, hole: Hole, conjunct: Conjunct) -> Word:
    """Of an exclusion, which has a word for itself. Unsuited where its place among the others depends on its value."""
    mask = term[1]
    if mask != hole.bits:
        raise Unsuited
    mine = excluded_atom(*term)[:3]
    places = [i for i, atom in enumerate(conjunct.excluded_atoms) if atom[:3] == mine]
    if len(places) != 1:
        raise Unsuited
    return lambda _: (len(conjunct.atoms) + places[0], mine[1])


def _copies(hole: Hole, word: Word) -> list[Copy]:
    """Which bytes of the native box are which of the constant: a run for each word that the field has a part in. Both
    have a number's lowest byte first, and the field and the word the highest.
    """
    copies: list[Copy] = []
    for at in reversed(_bytes(hole)):
        source = hole.at + hole.lane.end - 1 - at
        place, first = word(at)
        target = ATOMS + ATOM * place + VALUE + 3 - (at - first)
        if copies and copies[-1][1] == target and copies[-1][3] == source:
            copies[-1] = (copies[-1][0], target + 1, copies[-1][2], source + 1)
        else:
            copies.append((target, target + 1, source, source + 1))
    return copies
