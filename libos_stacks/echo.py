# SPDX-License-Identifier: MIT
"""The smallest LibOS: it sends every UDP datagram back to where it came from (RFC 862), on port 7 or those it is told.

The stack engine below answers ARP, neighbour solicitations and ping by itself; all that is left for a LibOS is what
makes it this LibOS and no other. Run it with `exonet attach exo0 --libos echo@10.7.0.2`, then `ping 10.7.0.2` and `nc
-u 10.7.0.2 7`.

A LibOS is a class made with its environment (rings, pages and a stack, all its own) and its options, and two methods.
`step()` does one burst, run to completion: frames in, work, frames out. It never waits, and no lock and no system
call is in it. `deadline()` says when to step again though nothing came.
"""

from collections.abc import Mapping
from typing import Any

from libos_stacks.environment import BURST, Environment

ECHO_PORT = 7


class Echo:
    """Answers UDP datagrams with themselves. Option `port`: the port or ports to serve, 7 unless told otherwise."""

    OPTIONS = ("port",)

    def __init__(self, environment: Environment, options: Mapping[str, Any]) -> None:
        self.environment = environment
        ports = options.get("port", ECHO_PORT)
        self.sockets = [environment.udp(int(port)) for port in (ports if isinstance(ports, list) else [ports])]
        self.unanswered = 0

    def step(self) -> bool:
        """Takes a burst of frames from the kernel, answers what reached the socket, hands the answers over.

        True: there may be more at once.
        """
        frames = self.environment.pump()
        for socket in self.sockets:
            for data, peer in socket.datagrams():
                try:
                    socket.sendto(data, peer)
                except OSError:  # no route back, or no buffer free: UDP may lose it, and we count it
                    self.unanswered += 1
        self.environment.flush()
        return frames == BURST

    def deadline(self) -> int | None:
        """When the stack's next timer is due (a neighbour to ask again, a reassembly to give up)."""
        deadline = self.environment.poll()
        self.environment.flush()
        return deadline
