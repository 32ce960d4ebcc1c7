# SPDX-License-Identifier: MIT
"""A scapy SuperSocket over any wire, so that scapy's `sr1`, `sniff` and `AnsweringMachine` work on it.

This is the only module that imports scapy's sockets. A wire without a descriptor (a cable) is polled.
"""

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.supersocket import SuperSocket

from exonet.clock import NS_PER_S, monotonic_ns
from exonet.errors import RunError
from exonet.wire import burst
from exonet.wire.burst import Received
from exonet.wire.link import Wire

_POLL_S = 0.001


class WireSocket(SuperSocket):
    """Sends and receives Ethernet frames on `wire`, which stays the caller's and is not closed by `close`.

    `drive` is called whenever scapy waits: it lets whatever is behind the wire work, in this same thread, such as one
    step of a machine whose end of a cable is the other one. Without it the other end needs a thread of its own.
    `clock` gives ns and is the wire's time; the default is the monotonic clock, whose times scapy sees as time of
    day. Raises RunError where the wire has failed.
    """

    desc = "frames of an exonet wire"

    def __init__(
        self, wire: Wire, *, clock: Callable[[], int] | None = None, drive: Callable[[], object] | None = None
    ) -> None:
        self.wire = wire
        self.closed = False
        self.ins = self.outs = None  # type: ignore[assignment]  # there is no socket
        self.promisc = True
        self.iface = wire.name
        self._clock = clock or monotonic_ns
        self._epoch = 0 if clock else time.time_ns() - monotonic_ns()  # scapy's own times are of day
        self._drive = drive
        self._waiting: deque[Received] = deque()
        self._ended = False

    def send(self, x: Packet) -> int:
        """Returns the frame's length. Raises RunError where the wire is full or gone."""
        data = bytes(x)
        now = self._clock()
        if burst.send(self.wire, [data], now) != 1:
            raise RunError(f"wire {self.wire.name}: it is full: the other end does not take frames")
        if isinstance(x, Packet):
            x.sent_time = (now + self._epoch) / NS_PER_S
        return len(data)

    def recv_raw(self, x: int = burst.BURST) -> tuple[Any, bytes | None, float | None]:
        """(Ether, frame, seconds); (None, None, None) where nothing waits. Raises EOFError when the wire has ended."""
        if not self._waiting:
            self._pull()
        if not self._waiting:
            if self._ended:
                raise EOFError(f"wire {self.wire.name}: it has ended")
            return None, None, None
        frame = self._waiting.popleft()
        return Ether, frame.data, (frame.ts + self._epoch) / NS_PER_S

    def fileno(self) -> int:
        """The wire's descriptor; -1 where it has none. Frames that wait here do not show in it: use `select`."""
        number: int = self.wire.native.fd
        return number

    def close(self) -> None:
        self.closed = True

    def _pull(self) -> None:
        frames = None if self._ended else burst.receive(self.wire, self._clock())
        if frames is None:
            self._ended = True
        else:
            self._waiting.extend(frames)

    def _ready(self) -> bool:
        if not self._waiting and not self.closed:
            if self._drive:
                self._drive()
            self._pull()
        return bool(self._waiting) or self._ended or self.closed

    def _patience(self) -> float:
        """Seconds until the wire is to be looked at again without its descriptor saying so."""
        if self._drive or self.wire.native.fd < 0:
            return _POLL_S
        due = burst.next_due(self.wire, self._clock())
        return max(0.0, (due - self._clock()) / NS_PER_S) if due is not None else _POLL_S * 1000

    @staticmethod
    def select(sockets: list[Any], remain: float | None = None) -> list[Any]:
        """Those of `sockets` that have something, waiting up to `remain` seconds (None: as long as it takes)."""
        deadline = None if remain is None else monotonic_ns() + int(remain * NS_PER_S)
        wires = [socket for socket in sockets if isinstance(socket, WireSocket)]
        others = [socket for socket in sockets if not isinstance(socket, WireSocket)]
        while True:
            ready = [socket for socket in wires if socket._ready()]
            wait = min([socket._patience() for socket in wires], default=_POLL_S)
            if deadline is not None:
                wait = min(wait, (deadline - monotonic_ns()) / NS_PER_S)
            watched = others + [socket for socket in wires if socket.fileno() >= 0]
            readable, _, _ = select.select(watched, [], [], 0 if ready else max(0.0, wait))
            ready += [socket for socket in others if socket in readable]
            if ready or (deadline is not None and monotonic_ns() >= deadline):
                return ready
