# SPDX-License-Identifier: MIT
"""R4 by comparing a filter with every live one, exactly: the oracle of the kernel's claim index."""

from dataclasses import dataclass, field
from typing import Any

from exonet.filters.region import nesting, relation
from exonet.kernel.regions import Regions, unicast


@dataclass
class Held:
    number: int
    env: int
    text: str


@dataclass
class Pairwise:
    """bind() says "bound", or the error's class and the binding it is about. No capability is ever shown."""

    regions: Regions
    live: dict[int, Held] = field(default_factory=dict)

    def verdict(self, env: int, text: str) -> tuple[str, int]:
        mine = unicast(self.regions.prepare(text).conjuncts)
        for other in self.live.values():
            theirs = unicast(self.regions.prepare(other.text).conjuncts)
            found = relation(mine, theirs)
            wins = found.kind.value == "inside"
            if found.kind.value == "equal":
                return "ConflictError", other.number
            if found.kind.value == "partial":
                pairs = nesting(mine, theirs)
                if pairs.clash is not None:
                    return "ConflictError", other.number
                wins = bool(pairs.inside)
            if wins and env != other.env:
                return "DeniedError", other.number
        return "bound", -1

    def bound(self, number: int, env: int, text: str) -> None:
        self.live[number] = Held(number, env, text)


def pick(rng: Any) -> str:
    """A filter of a small world, in which many are nested, equal or cut each other."""
    host = lambda: f"10.{rng.randrange(2)}.0.{rng.randrange(1, 3)}"  # noqa: E731
    port = lambda: str(rng.choice((80, 81, 1024)))  # noqa: E731
    return str(
        rng.choice(
            (
                lambda: rng.choice(("ip", "tcp", "udp", "ip6", "arp", "icmp", "not ip", "ip proto 50")),
                lambda: f"{rng.choice(('tcp', 'udp'))} {rng.choice(('dst', 'src'))} port {port()}",
                lambda: f"{rng.choice(('tcp', 'udp'))} port {port()}",
                lambda: f"port {port()}",
                lambda: f"dst host {host()}",
                lambda: f"net 10.{rng.randrange(2)}.0.0/{rng.choice((16, 24, 31))}",
                lambda: f"dst net 10.0.0.0/{rng.choice((8, 15))}",
                lambda: f"tcp and dst host {host()} and dst port {port()}",
                lambda: f"tcp and src host {host()} and dst host {host()} and src port {port()} and dst port {port()}",
                lambda: f"tcp dst port {port()} and not src host {host()}",
                lambda: f"(dst host {host()}) and not (tcp dst port {port()})",
                lambda: f"udp dst portrange {rng.randrange(76, 82)}-{rng.randrange(82, 90)}",
                lambda: f"(dst net 10.0.0.0/16 or dst net 10.1.0.0/16) and tcp dst port {port()}",
                lambda: f"ether[36:2] = {port()}",
                lambda: f"ip[0] = 0x45 and ip proto 6 and ether[36:2] = {port()}",
                lambda: f"udp and greater {rng.choice((60, 100))}",
                lambda: f"ether dst 02:00:00:00:00:0{rng.randrange(2)}",
                lambda: f"vlan {rng.randrange(2)} and tcp dst port {port()}",
                lambda: "ether broadcast",
                lambda: f"ether[14] & {rng.choice((1, 3, 7))} = {rng.randrange(2)}",
            )
        )()
    )
