# SPDX-License-Identifier: MIT
"""The conjunct: one box of header space, in the one canonical form that is checked, compiled and printed.

A *space* is what offsets are counted from: the frame (0), the end of the IPv4 header that begins at byte n (n), or the
length on the wire (-1), below that a program's verdict (span.py). A *term* (space, mask, value) says which bits of
that space have which value. The bits of a space are one integer, byte b at bits 8b..8b+7, so `int.from_bytes(frame,
"little") & mask == value` is the whole test; the length is a plain 32-bit integer. A conjunct is a box (one term per
space), at most one interval of a field (span.py), the terms it excludes, and how many captured bytes must be there.
`Conjunct.of` makes the canonical one: it reduces exclusions by the box, takes bits that the interval fixes anyhow out
of the box, raises the guards over all bytes it looks at, and turns offsets after an IPv4 header whose length the box
fixes into offsets of the frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Self

from exonet.abi import check, ffi, lib
from exonet.errors import FilterError
from exonet.filters.box import Bits, byte_length, clash, header_length, meet, settle, shift_space, strip, within
from exonet.filters.names import describe_interval, describe_term
from exonet.filters.span import FRAME, LENGTH, Field, Interval, Term, program_of, program_space
from exonet.wording import shown

__all__ = [
    "ETHERNET_IP4",
    "FRAME",
    "LENGTH",
    "MAX_ATOMS",
    "Atom",
    "Base",
    "Bits",
    "Conjunct",
    "Term",
    "apart",
    "byte_length",
    "clash",
    "excluded_atom",
    "header_length",
    "meet",
    "shift_space",
    "within",
]

ETHERNET_IP4 = 14
MAX_ATOMS: int = lib.EXO_MAX_ATOMS
INSTRUCTION: int = ffi.sizeof("struct exo_instruction")


class Base(IntEnum):
    """What an atom's offset is counted from: `enum exo_base`."""

    FRAME = lib.EXO_BASE_FRAME
    IP4 = lib.EXO_BASE_IP4
    LENGTH = lib.EXO_BASE_LENGTH


class Atom(NamedTuple):
    """`(32-bit big-endian word at base + offset) & mask == value`, as in csrc/demux.h."""

    base: Base
    offset: int
    mask: int
    value: int


def _swap(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "little"), "big")


def _atom(space: int, offset: int, mask: int, value: int) -> Atom:
    """The word at byte `offset` of a space as an atom."""
    if space == LENGTH:
        return Atom(Base.LENGTH, 0, mask, value)
    low = 8 * offset
    base = Base.IP4 if space else Base.FRAME
    return Atom(base, offset, _swap(mask >> low & 0xFFFFFFFF), _swap(value >> low & 0xFFFFFFFF))


def _words(space: int, mask: int, value: int) -> Iterator[Atom]:
    """A term as atoms at offsets that are multiples of four."""
    if space == LENGTH:
        yield _atom(space, 0, mask, value)
    if space < FRAME:
        return
    for offset in range(0, byte_length(mask), 4):
        if mask >> 8 * offset & 0xFFFFFFFF:
            yield _atom(space, offset, mask, value)


def excluded_atom(space: int, mask: int, value: int) -> Atom:
    """A term that must not hold: a word from its first masked byte on."""
    first = 0 if space == LENGTH else ((mask & -mask).bit_length() - 1) // 8
    return _atom(space, first, mask, value)


def _takes(code: bytes, frame: bytes, wire_len: int) -> bool:
    """Does the program take the frame? By csrc/demux_program.c."""
    program = ffi.from_buffer("struct exo_instruction[]", code)
    data = ffi.from_buffer("uint8_t[]", frame)
    return bool(check(lib.exo_program_takes(program, len(program), data, len(frame), wire_len), "program"))


@dataclass(frozen=True, slots=True)
class Conjunct:
    """A box, the terms it excludes, its length guards, its interval. Made by `of`; compared without its breadth."""

    box: tuple[Term, ...]
    excluded: tuple[Term, ...]
    frame_bytes: int
    ip4_bytes: int
    ip4_at: int
    interval: Interval | None = None
    breadth: int = field(default=0, compare=False)

    @classmethod
    def of(
        cls,
        bits: Bits,
        excluded: Iterable[Term] = (),
        *,
        interval: Interval | None = None,
        frame_bytes: int = 0,
        ip4_bytes: int = 0,
        ip4_at: int = ETHERNET_IP4,
        breadth: int = 0,
        resolve: bool = True,
    ) -> Self | None:
        """The canonical conjunct of a box; None where no frame is in it. Without `resolve` offsets stay where they
        count from: then it compares at least the bits that `bits` has (region.separate).
        """
        box = {space: known for space, known in bits.items() if known[0]}
        if interval and interval.field.space == FRAME:
            frame_bytes = max(frame_bytes, interval.field.end)
        elif interval and interval.field.space != LENGTH:
            ip4_bytes = max(ip4_bytes, interval.field.end)
        settled = settle(box, excluded, interval)
        if settled is None:
            return None
        left, interval = settled
        uses_ip4 = ip4_bytes > 0 or ip4_at in box or any(space == ip4_at for space, _, _ in left)
        header = header_length(box, ip4_at) if uses_ip4 and resolve else None
        if header is not None:
            end = ip4_at + header
            if not shift_space(box, ip4_at, end):
                return None
            moved = [(FRAME, m << 8 * end, v << 8 * end) if s == ip4_at else (s, m, v) for s, m, v in left]
            if interval and interval.field.space == ip4_at:
                interval = interval._replace(field=Field(FRAME, end + interval.field.offset, interval.field.size))
            return cls.of(box, moved, interval=interval, frame_bytes=max(frame_bytes, end + ip4_bytes), breadth=breadth)
        for space, mask, _ in (*((s, m, v) for s, (m, v) in box.items()), *left):
            if space == FRAME:
                frame_bytes = max(frame_bytes, byte_length(mask))
            elif space > FRAME:
                ip4_bytes = max(ip4_bytes, byte_length(mask))
        if uses_ip4:
            frame_bytes = max(frame_bytes, ip4_at + 1)
        else:
            ip4_at = ETHERNET_IP4
        if interval:
            strip(box, interval)
        terms = tuple(sorted((space, mask, value) for space, (mask, value) in box.items()))
        return cls(terms, tuple(sorted(left)), frame_bytes, ip4_bytes, ip4_at, interval, breadth)

    def with_values(
        self, box: tuple[Term, ...], excluded: tuple[Term, ...], interval: Interval | None, breadth: int
    ) -> "Conjunct":
        """The conjunct with the same masks and other values; `excluded` is sorted."""
        return Conjunct(box, excluded, self.frame_bytes, self.ip4_bytes, self.ip4_at, interval, breadth)

    @property
    def bits(self) -> dict[int, tuple[int, int]]:
        """The box as a mapping from space to (mask, value)."""
        return {space: (mask, value) for space, mask, value in self.box}

    @property
    def known(self) -> dict[int, tuple[int, int]]:
        """The box with the bits on which all values of the interval agree: all bits that a frame of it must have."""
        if self.interval is None:
            return self.bits
        space, mask, value = self.interval.field.term(*self.interval.common)
        return meet(self.bits, {space: (mask, value)})

    def bounds(self, field: Field) -> tuple[int, int]:
        """Between which values a field lies for every frame of the conjunct, as far as box and interval say."""
        mask, value = (field.part(known) for known in self.known.get(field.space, (0, 0)))
        low, high = value, value | field.most & ~mask
        if self.interval is None or self.interval.field != field:
            return low, high
        return max(low, self.interval.low), min(high, self.interval.high)

    def plain(self) -> tuple["Conjunct", ...]:
        """Disjoint conjuncts without intervals whose union it is; itself where it has none."""
        if self.interval is None:
            return (self,)
        pieces = (self._under(term) for term in self.interval.prefixes())
        return tuple(piece for piece in pieces if piece)

    def ends(self) -> tuple["Conjunct", ...]:
        """Where the interval's field has its least and its greatest value; itself where there is none."""
        if self.interval is None:
            return (self,)
        field, low, high = self.interval
        pieces = (self._under(field.term(field.most, value)) for value in (low, high))
        return tuple(piece for piece in pieces if piece)

    def _under(self, term: Term) -> "Conjunct | None":
        """Where the term holds instead of the interval."""
        space, mask, value = term
        extra = {space: (mask, value)}
        if clash(self.bits, extra):
            return None
        return Conjunct.of(
            meet(self.bits, extra),
            self.excluded,
            frame_bytes=self.frame_bytes,
            ip4_bytes=self.ip4_bytes,
            ip4_at=self.ip4_at,
            breadth=self.breadth,
        )

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """The box in the form of csrc/demux.h, sorted by base and offset."""
        return tuple(sorted(atom for term in self.box for atom in _words(*term)))

    @property
    def excluded_atoms(self) -> tuple[Atom, ...]:
        """The words that must not be: each begins at its first masked byte, so it need not be aligned."""
        return tuple(sorted(excluded_atom(*term) for term in self.excluded))

    @property
    def fixed_bits(self) -> int:
        """How many bits the box fixes."""
        return sum(mask.bit_count() for _, mask, _ in self.box)

    @property
    def programs(self) -> tuple[bytes, ...]:
        """The programs that must take a frame besides."""
        return tuple(code for space, _, _ in self.box if (code := program_of(space)))

    @property
    def specificity(self) -> int:
        """How many bits it fixes, in 16.16: those of the box, and an interval's by its size."""
        return (self.fixed_bits << 16) + (self.interval.specificity if self.interval else 0)

    @property
    def rank(self) -> tuple[int, int, int, int, int, int]:
        """Sorts the conjunct that wins first: the order of csrc/demux.h."""
        size = self.interval.size if self.interval else 0
        return (
            -self.specificity,
            self.breadth,
            size,
            -len(self.excluded) - len(self.programs),
            -self.frame_bytes,
            -self.ip4_bytes,
        )

    def matches(self, frame: bytes, wire_len: int | None = None, *, asking: bool = True) -> bool:
        """Does the conjunct hold for the captured bytes of a frame, `wire_len` long on the wire? Not asking: if its
        programs take it.
        """
        if len(frame) < self.frame_bytes:
            return False
        spaces = {FRAME: int.from_bytes(frame[: self.frame_bytes], "little")}
        spaces[LENGTH] = len(frame) if wire_len is None else wire_len
        if self.ip4_bytes:
            end = self.ip4_at + 4 * (frame[self.ip4_at] & 15)
            if len(frame) < end + self.ip4_bytes:
                return False
            spaces[self.ip4_at] = int.from_bytes(frame[end : end + self.ip4_bytes], "little")
        for code in self.programs:
            spaces[program_space(code)] = int(not asking or _takes(code, frame, spaces[LENGTH]))
        if self.interval:
            field, low, high = self.interval
            if not low <= field.part(spaces[field.space]) <= high:
                return False
        return all(spaces[space] & mask == value for space, mask, value in self.box) and not any(
            spaces[space] & mask == value for space, mask, value in self.excluded
        )

    def contains(self, other: "Conjunct") -> bool:
        """Is every frame of `other` in this one? Sufficient, not necessary: see region.py for the exact test."""
        if other.frame_bytes < self.frame_bytes or (
            self.ip4_bytes and (other.ip4_at != self.ip4_at or other.ip4_bytes < self.ip4_bytes)
        ):
            return False
        if self.interval:
            low, high = other.bounds(self.interval.field)
            if low < self.interval.low or high > self.interval.high:
                return False
        inner = other.known
        return within(inner, self.bits) and all(
            clash(inner, {space: (mask, value)})
            or any(space == s and not m & ~mask and (v ^ value) & m == 0 for s, m, v in other.excluded)
            or (other.interval is not None and other.interval.avoids((space, mask, value)))
            for space, mask, value in self.excluded
        )

    def to_native(self, binding: int) -> Any:
        """A `struct exo_conjunct *` for the demux. FilterError where it needs more than EXO_MAX_ATOMS words."""
        atoms, excluded = self.atoms, self.excluded_atoms
        if len(atoms) + len(excluded) > MAX_ATOMS:
            raise FilterError(
                f"{shown(str(self))}: compares {len(atoms) + len(excluded)} words of a frame; at most {MAX_ATOMS}"
            )
        programs = self.programs
        if len(programs) > 1:
            raise FilterError(f"{shown(str(self))}: asks {len(programs)} programs; one is possible")
        code = programs[0] if programs else b""
        instructions = len(code) // INSTRUCTION
        native = ffi.new("struct exo_conjunct *", {"instructions": instructions, "program": instructions})
        ffi.memmove(native.program, code, len(code))
        native.binding = binding
        native.atoms = len(atoms) + len(excluded)
        native.ip4_at = self.ip4_at
        native.frame_bytes = self.frame_bytes
        native.ip4_bytes = self.ip4_bytes
        native.breadth = self.breadth
        for i, atom in enumerate((*atoms, *excluded)):
            base = atom.base if i < len(atoms) else atom.base | lib.EXO_BASE_NOT
            native.atom[i] = (base, atom.offset, atom.mask, atom.value)
        if self.interval:
            (space, offset, size), low, high = self.interval
            base = Base.LENGTH if space == LENGTH else Base.IP4 if space else Base.FRAME
            native.interval = (base, offset, size, low, high)
        return native

    def __str__(self) -> str:
        bits, box, parts = self.known, self.bits, []
        if self.interval:
            shown = describe_interval(bits, self.interval)
            if shown is None:
                box = meet(box, {space: (mask, value) for space, mask, value in self.interval.prefixes()})
            else:
                parts.append(shown)
        terms = sorted((space, mask, value) for space, (mask, value) in box.items())
        parts = [text for term in terms for text in describe_term(bits, *term)] + parts
        for space, mask, value in self.excluded:
            parts.append("not (" + " and ".join(describe_term(bits, space, mask, value)) + ")")
        if not parts:
            parts.append("everything" if not self.frame_bytes else f"at least {self.frame_bytes} bytes")
        return ", ".join(parts)


def apart(a: Conjunct, b: Conjunct) -> bool:
    """Do boxes or intervals show that no frame is in both? Sufficient: see region.py for the exact test."""
    if a.interval is None and b.interval is None:
        return clash(a.bits, b.bits)
    if clash(a.known, b.known):
        return True
    for one, other in ((a, b), (b, a)):
        if one.interval and one.interval.within(*other.bounds(one.interval.field)) is None:
            return True
    return False
