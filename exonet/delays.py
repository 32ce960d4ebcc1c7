# SPDX-License-Identifier: MIT
"""How long things took, as a histogram of C has it: `struct exo_delays`, 3.2 % exact as HdrHistogram's are."""

from dataclasses import dataclass
from typing import Any, Self

from exonet.abi import lib


@dataclass(frozen=True, slots=True)
class Delays:
    """All in ns. p999: what 99.9 % do not exceed."""

    count: int
    mean: int
    p50: int
    p99: int
    p999: int
    max: int

    @classmethod
    def read(cls, native: Any) -> Self:
        """From a `struct exo_delays *`."""
        p50, p99, p999 = (lib.exo_delays_quantile(native, parts) for parts in (500_000, 990_000, 999_000))
        mean = native.sum // native.count if native.count else 0
        return cls(native.count, mean, p50, p99, p999, native.max)

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "p50": self.p50, "p99": self.p99, "p999": self.p999, "max": self.max}
