# SPDX-License-Identifier: MIT
"""Visible revocation, of which there is so far the first word: a polite request, "return N pages".

The LibOS chooses which, writes back and frees; a request only counts. What may be counted is decided here
(R15). The imperative with its deadline comes after the request, and force (`abort.py`) after the imperative.
Reference: Engler, Kaashoek, O'Toole, "Exokernel", SOSP'95, 3.3.
"""

from exonet.kernel.environment import Environment, Environments, Event
from exonet.kernel.pages import PageTable

__all__ = ["ask", "askable"]

WANTED = "pages_wanted"


def askable(pages: PageTable, env: int) -> list[int]:
    """The pages that a polite request may count on: those without a pin; pinned ones only where nothing else remains.
    Guaranteed ones never.
    """
    return pages.takeable(env, pinned=False) or pages.takeable(env, pinned=True)


def ask(environments: Environments, env: Environment, count: int) -> int:
    """Asks `env` to return up to `count` pages. Returns how many it was asked for: 0, and nothing said, where it has
    none to give. Who does not read what it is told is asked all the same: its requests wait as one.
    """
    wanted = min(count, len(askable(environments.pages, env.number)))
    if not wanted:
        return 0
    for event in env.inbox:
        if event.fields["event"] == WANTED:
            event.fields["count"] += wanted
            return wanted
    env.inbox.append(Event({"event": WANTED, "count": wanted}))
    return wanted
