# SPDX-License-Identifier: MIT
"""Segments that an environment has freed. The kernel cannot take a mapping away from a process, which may fill what it
freed again; so such a segment stays charged to it, and is handed back to it before it gets a new one.

Never to anybody else (invariant 4), and not to it either where others were given the segment too: that stays charged
until it ends. Owner of the descriptors here: `Freed`.
"""

import os
from dataclasses import dataclass, field

__all__ = ["Freed"]


@dataclass(slots=True)
class Freed:
    """Of one environment. `segments`: (pages, memfd) of those that may be handed back; `lost`: pages of those not."""

    segments: list[tuple[int, int]] = field(default_factory=list)
    lost: int = 0

    @property
    def pages(self) -> int:
        return self.lost + sum(size for size, _ in self.segments)

    def keep(self, size: int, fd: int, *, shared: bool) -> None:
        if shared:
            os.close(fd)
            self.lost += size
        else:
            self.segments.append((size, fd))

    def exact(self, count: int) -> tuple[int, int] | None:
        return next((each for each in self.segments if each[0] == count), None)

    def roomy(self, count: int) -> tuple[int, int] | None:
        """The smallest that has room for `count` pages."""
        return min((each for each in self.segments if each[0] >= count), default=None)

    def close(self) -> None:
        while self.segments:
            os.close(self.segments.pop()[1])
