# SPDX-License-Identifier: MIT
"""A LibOS that binds and unbinds inside its own region all the time, and consumes what it gets meanwhile.

Option `rounds`: how often. Each round binds `live` filters of `kinds` and unbinds them all. In the end it binds DONE.
`turn` calls are made in a step, `pause_ns` lie between such steps, `wait_ns` before the first. `fresh`: each round
binds others than the last.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from exonet.errors import ConflictError
from libos_stacks.environment import Environment
from libos_stacks.sink import Sink

__all__ = ["DONE", "KINDS", "REGION", "Churner", "done", "flow", "payload"]

REGION = "udp and dst net 10.7.1.0/24"
DONE = "udp and dst host 10.7.1.255"
#: Taken between two turns, at most.
BURSTS = 16


def flow(number: int, host: str = "10.7.1.1") -> str:
    """The 4-tuple of a connected socket."""
    source = f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return f"udp and src host {source} and dst host {host} and src port {1024 + number % 50_000} and dst port 53"


def payload(number: int, host: str = "10.7.1.3") -> str:
    """A filter with a shape of its own: bits of a byte of the payload that few other numbers look at."""
    mask = 1 + number // 16 % 15 * 16
    return f"udp and dst host {host} and dst port {1000 + number} and ether[{44 + number % 16}] & {mask} = {mask & 1}"


#: By name; what they take is disjoint, for a host is each kind's own.
KINDS: dict[str, Callable[[int], str]] = {
    "flow": flow,
    # Another shape, all of it: it goes with the last of them.
    "host": lambda number: f"udp and src host 10.9.{number >> 8 & 255}.{number & 255} and dst host 10.7.1.2",
    "payload": payload,
    # Many intervals under one key.
    "range": lambda number: f"udp and dst host 10.7.1.4 and dst portrange {5 * number}-{5 * number + 3}",
}


def done(bindings: Iterable[Any]) -> bool:
    """Has the churner that has these done all its rounds?"""
    return any(binding.text == DONE for binding in bindings)


class Churner(Sink):
    """See the module."""

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        super().__init__(environment, options)
        self.kinds = [KINDS[name] for name in options.get("kinds", tuple(KINDS))]
        self.rounds = int(options["rounds"])
        self.live = int(options["live"])
        self.pause = int(options.get("pause_ns", 0))
        self.turn = int(options.get("turn", 1))
        self.fresh = bool(options.get("fresh", False))
        self.gate = environment.gate
        self.capability = self.gate.welcome().capability("filter", "bind")
        environment.patience = 0  # where nothing is to be consumed there is something else to do
        self.held: list[int] = []
        self.next = self.round = 0
        self.due = self.gate.now() + int(options.get("wait_ns", 0))

    def step(self) -> bool:
        more = True
        for _ in range(BURSTS):
            more = more and super().step()
        now = self.gate.now()
        if self.round > self.rounds or now < self.due:
            return more
        self.due = now + self.pause
        for _ in range(self.turn):
            self._churn()
        return more or (self.pause == 0 and self.round <= self.rounds)

    def deadline(self) -> int | None:
        return None if self.round > self.rounds else self.due

    def _churn(self) -> None:
        """One system call; at the end of a bind phase, one more that is refused."""
        if self.round > self.rounds:
            return
        if self.round == self.rounds:
            self.gate.bind(DONE, self.capability)
            self.round += 1
        elif self.next < self.live:
            self.held.append(self.gate.bind(self._text(), self.capability))
            self.next += 1
            if self.next == self.live:
                self._refused()
        elif self.held:
            self.gate.unbind(self.held.pop())
        else:
            self.next = 0
            self.round += 1

    def _text(self) -> str:
        """Half of a round is of all kinds, the other of the first kind, so that one table grows."""
        base = self.round * self.live if self.fresh else 0
        if 2 * self.next >= self.live:
            return self.kinds[0](base + self.next)
        return self.kinds[self.next % len(self.kinds)](base + self.next // len(self.kinds))

    def _refused(self) -> None:
        """What is held already cannot be bound again, and nothing comes of trying."""
        text = self.kinds[0](self.round * self.live if self.fresh else 0)
        try:
            self.gate.bind(text, self.capability)
        except ConflictError:
            return
        raise AssertionError(f"{text}: bound twice")
