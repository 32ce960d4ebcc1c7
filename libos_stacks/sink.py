# SPDX-License-Identifier: MIT
"""The LibOS that load is measured with: counts every frame, adds up a digest of its bytes, and answers nothing.

The work is one C call per burst (csrc/sink.c); the counts are in the LibOS area, where the kernel compares them with
what it placed.
"""

from collections.abc import Mapping
from typing import Any

from libos_stacks.environment import Environment


class Sink:
    """Counts and digests every frame, and answers nothing.

    Option `burst`: frames per step where the environment has no patience (inline).
    """

    OPTIONS = ("burst",)

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        self.environment = environment
        self.burst = int(options.get("burst", 64))

    def step(self) -> bool:
        return self.environment.sink(self.burst) >= self.burst

    def deadline(self) -> int | None:
        return None
