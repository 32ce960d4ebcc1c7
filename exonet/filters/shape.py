# SPDX-License-Identifier: MIT
"""The shape of a conjunct: everything but its values. Conjuncts of one shape live in one table of the demux."""

from dataclasses import dataclass

from exonet.filters.conjunct import Base, Conjunct

Mask = tuple[Base, int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """Which bits are compared and excluded, and the length guards. A bind with a known shape compiles nothing."""

    masks: tuple[Mask, ...]
    excluded: tuple[Mask, ...]
    frame_bytes: int
    ip4_bytes: int
    ip4_at: int

    @classmethod
    def of(cls, conjunct: Conjunct) -> "Shape":
        return cls(
            tuple((atom.base, atom.offset, atom.mask) for atom in conjunct.atoms),
            tuple((atom.base, atom.offset, atom.mask) for atom in conjunct.excluded_atoms),
            conjunct.frame_bytes,
            conjunct.ip4_bytes,
            conjunct.ip4_at,
        )

    @property
    def specificity(self) -> int:
        """How many bits it fixes: shapes with more are asked first."""
        return sum(mask.bit_count() for _, _, mask in self.masks)

    def __str__(self) -> str:
        parts = [f"{base.name.lower()}[{offset}:4] & {mask:#010x}" for base, offset, mask in self.masks]
        parts += [f"not {base.name.lower()}[{offset}:4] & {mask:#010x}" for base, offset, mask in self.excluded]
        parts.append(f"{self.frame_bytes} bytes")
        if self.ip4_bytes:
            parts.append(f"{self.ip4_bytes} after the IPv4 header at {self.ip4_at}")
        return ", ".join(parts)


def key(conjunct: Conjunct) -> tuple[int, ...]:
    """The values that the conjunct has in its shape's table."""
    return tuple(atom.value for atom in conjunct.atoms)
