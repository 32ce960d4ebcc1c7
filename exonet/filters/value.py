# SPDX-License-Identifier: MIT
"""Symbolic values of the BPF machine: a field of the frame, masked, shifted, with constant bits, plus a constant.

    value = (((load & mask) ^ flip) shifted by `shift`) | const) + addend        (modulo 2**32)

where `load` is a big-endian load of `size` bytes at `offset` of a space (conjunct.py) and `const` has no bit in common
with the shifted mask. That is closed under what filters do to a field (and, or, xor, shifts, adding constants); what
leaves the form makes the operation return None, and the walk then splits on the field's values or refuses.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from exonet.filters.span import FRAME, gather, scatter

WORD = 0xFFFFFFFF


class Value(NamedTuple):
    """See the head of this file. A constant has an empty mask."""

    space: int = FRAME
    offset: int = 0
    size: int = 1
    mask: int = 0
    shift: int = 0
    flip: int = 0
    const: int = 0
    addend: int = 0

    @property
    def is_constant(self) -> bool:
        return not self.mask

    @property
    def live(self) -> int:
        """Which bits of the value are the frame's."""
        return self.mask << self.shift if self.shift >= 0 else self.mask >> -self.shift

    @property
    def width(self) -> int:
        """How many bits of the frame it depends on."""
        return self.mask.bit_count()

    def to_load(self, bits: int) -> int:
        """Bits of the value, as bits of the load."""
        load = bits >> self.shift if self.shift >= 0 else bits << -self.shift
        return load & (1 << 8 * self.size) - 1

    def term(self, bits: int, wanted: int) -> tuple[int, int, int] | None:
        """The term that says `value & bits == wanted`, without an addend; None where constant bits contradict it."""
        if (self.const ^ wanted) & bits & ~self.live & WORD:
            return None
        mask = self.to_load(bits & self.live)
        value = (self.to_load(wanted & bits & self.live) ^ self.flip) & mask
        place = (self.space, self.offset, self.size)
        return (self.space, scatter(*place, mask), scatter(*place, value))

    def under(self, bits: Mapping[int, tuple[int, int]]) -> "Value":
        """The value where those bits of the frame are known."""
        if not self.mask or self.space not in bits:
            return self
        mask, value = (gather(self.space, self.offset, self.size, b) for b in bits[self.space])
        known = mask & self.mask
        if not known:
            return self
        fixed = (value ^ self.flip) & known
        fixed = fixed << self.shift if self.shift >= 0 else fixed >> -self.shift
        return self._replace(mask=self.mask & ~known, flip=self.flip & ~known, const=self.const | fixed)._folded()

    def _folded(self) -> "Value":
        """Without an addend, where adding it carries into no bit of the frame's."""
        total = (self.const + self.addend) & WORD
        return self if total & self.live else self._replace(const=total, addend=0)

    def points(self) -> Iterator[tuple[int, int, int]]:
        """A term for each value of the frame's bits."""
        chosen = 0
        while True:
            place = (self.space, self.offset, self.size)
            yield (self.space, scatter(*place, self.mask), scatter(*place, chosen))
            chosen = (chosen - self.mask) & self.mask
            if not chosen:
                return


def constant(number: int) -> Value:
    return Value(const=number & WORD)


def _and(a: Value, k: int) -> Value:
    kept = a.to_load(k) & a.mask
    return a._replace(mask=kept, flip=a.flip & kept, const=a.const & k)


def _or(a: Value, k: int) -> Value:
    kept = a.mask & ~a.to_load(k)
    return a._replace(mask=kept, flip=a.flip & kept, const=a.const | k)


def _xor(a: Value, k: int) -> Value:
    return a._replace(flip=a.flip ^ (a.to_load(k) & a.mask), const=(a.const ^ k) & ~a.live & WORD)


def _shifted(a: Value, by: int) -> Value:
    """Left for by > 0; bits that leave the word are gone."""
    kept = WORD >> by if by >= 0 else WORD << -by & WORD
    moved = _and(a, kept)
    const = moved.const << by if by >= 0 else moved.const >> -by
    return moved._replace(shift=moved.shift + by, const=const)


def difference(a: Value, b: Value) -> Value | None:
    """a ^ b, where both are made of one load without an addend; None where that is no Value."""
    if (a.space, a.offset, a.size, a.shift) != (b.space, b.offset, b.size, b.shift) or a.addend or b.addend:
        return None
    flip, both = a.flip ^ b.flip, a.mask & b.mask
    const = (flip & both) << a.shift if a.shift >= 0 else (flip & both) >> -a.shift
    return _xor(a._replace(mask=a.mask ^ b.mask, flip=flip & ~both, const=const), a.const ^ b.const)


def _power(k: int) -> int | None:
    return k.bit_length() - 1 if k and not k & k - 1 else None


_CONSTANT: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "lsh": lambda a, b: a << b if b < 32 else 0,
    "rsh": lambda a, b: a >> b if b < 32 else 0,
    "div": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}


def operate(name: str, a: Value, k: int) -> Value | None:
    """`a name k` for a constant k; None where the result is no Value. k is not zero for div and mod."""
    if a.is_constant:
        return constant(_CONSTANT[name](a.const + a.addend & WORD, k))
    if name in ("add", "sub"):
        return a._replace(addend=(a.addend + (k if name == "add" else -k)) & WORD)._folded()
    if a.addend:
        return None
    if name in ("mul", "div", "mod"):
        power = _power(k)
        if power is None:
            return None
        name, k = {"mul": ("lsh", power), "div": ("rsh", power), "mod": ("and", k - 1)}[name]
    if name in ("lsh", "rsh") and k >= 32:
        return constant(0)
    simple: dict[str, Callable[[Value, int], Value]] = {
        "and": _and,
        "or": _or,
        "xor": _xor,
        "lsh": _shifted,
        "rsh": lambda v, by: _shifted(v, -by),
    }
    return simple[name](a, k)
