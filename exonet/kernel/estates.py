# SPDX-License-Identifier: MIT
"""Estates: the regions of header space that the machine's owner granted to bind in, as root capabilities.

Regions of different owners are disjoint, or nested where the operator means the narrower one to win (R4), or he has
asked for sharing. That is settled here, when a region is granted, so a bind inside its own region is in nobody else's.
"""

from dataclasses import dataclass

from exonet.errors import ConflictError
from exonet.kernel.capability import Authority, Capability, Right
from exonet.kernel.prepared import Prepared
from exonet.kernel.standing import Filters, Standing, stand
from exonet.wording import quoted

__all__ = ["Estates"]


@dataclass(frozen=True, slots=True)
class Estate:
    """What one root capability grants."""

    capability: Capability
    owner: str
    filter: Prepared
    shared: bool

    def __str__(self) -> str:
        region = self.capability.scope.region
        return f"region {'everything' if region is None else quoted(region)} of {self.owner}"


class Estates:
    """Every live one of a machine."""

    def __init__(self, authority: Authority, filters: Filters) -> None:
        self._authority = authority
        self._filters = filters
        self._live: dict[int, Estate] = {}

    def grant(self, granted: Capability, owner: str, *, shared: bool = False) -> None:
        """The operator has granted a region. Where it lies within one granted before, or around it, he means the
        narrower one to win, and no LibOS has to consent.

        ConflictError: it overlaps another owner's otherwise, and neither of the two is shared. FilterError,
        ExhaustedError (it takes too long to say).
        """
        if Right.BIND not in granted.rights:
            return
        mine = Estate(granted, owner, self._filters.prepare(granted.scope.region), shared)
        standings = [(other, self._stand(mine, other)) for other in self._live.values() if _meet(granted, other)]
        for other, found in standings:
            if found.inside:
                self._authority.consent(wide=other.capability, narrow=granted)
            if found.around:
                self._authority.consent(wide=granted, narrow=other.capability)
        self._live[granted.identifier] = mine
        self._authority.attach(granted, lambda: self._drop(granted.identifier))

    def _drop(self, identifier: int) -> None:
        self._live.pop(identifier, None)

    def _stand(self, mine: Estate, other: Estate) -> Standing:
        found = stand(self._filters, mine.filter, other.filter)
        if found.example is None or mine.shared or other.shared:
            return found
        how = "are the very same frames" if found.same else "overlap and neither is inside the other"
        ours, theirs = (self._filters.taker(each.filter.conjuncts, found.example) for each in (mine, other))
        raise ConflictError(
            f"{mine} and {other} {how}: {ours} and {theirs}; for example {found.example.scapy}: grant disjoint or "
            "nested regions, or ask for sharing"
        )


def _meet(granted: Capability, other: Estate) -> bool:
    """Different owners, and a port in common?"""
    theirs = other.capability
    ports = (granted.scope.port, theirs.scope.port)
    return granted.holder != theirs.holder and (None in ports or ports[0] == ports[1])
