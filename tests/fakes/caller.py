# SPDX-License-Identifier: MIT
"""A LibOS that asks an echo port, each question once the last was answered; a wrong answer is its end."""

from collections.abc import Mapping
from typing import Any

from libos_stacks.environment import BURST, Environment


class Caller:
    """Options: `to` (host), `count`, `size` (bytes of a question)."""

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        self.environment = environment
        self.socket = environment.udp(4000)
        self.to = (options["to"], 7)
        self.count, self.size = int(options["count"]), int(options["size"])
        self.asked = self.answered = 0

    def question(self) -> bytes:
        return self.asked.to_bytes(4, "big") * (self.size // 4)

    def step(self) -> bool:
        frames = self.environment.pump()
        for data, _ in self.socket.datagrams():
            if data != self.question():
                raise ValueError(f"answer {self.answered} is not what was asked")
            self.answered += 1
        if self.answered == self.asked < self.count:
            self.asked += 1
            self.socket.sendto(self.question(), self.to)
        self.environment.flush()
        return frames == BURST

    def deadline(self) -> int | None:
        due = self.environment.poll()
        self.environment.flush()
        return due if self.asked else 0
