# SPDX-License-Identifier: MIT
"""The abort protocol, of which there is so far the taking itself: pages by force, from an environment that lives.

What is guaranteed is refused (R15); what the environment has posted from a pinned page leaves first; then
every binding of the pages is broken: pins, posted buffers, the capability. The repossession vector comes with the
dialogue that ends here (`revocation.py`). Reference: Engler, Kaashoek, O'Toole, "Exokernel", SOSP'95, 3.4.
"""

from exonet.errors import DeniedError
from exonet.kernel.environment import Environment, Environments

__all__ = ["take"]


def take(environments: Environments, env: Environment, first: int, count: int) -> None:
    """Pages first..first+count-1 of `env`, all or none. DeniedError (one is guaranteed), UsageError (one is not its
    own).
    """
    pages = environments.pages
    kept = [page for page in pages.guaranteed(env.number) if first <= page < first + count]
    if kept:
        raise DeniedError(f"environment {env.name}: pages {kept} are guaranteed: not taken while it lives")
    environments.machine.drain(env.number, first, count)
    for extent in pages.seize(env.number, env.name, first, count):
        environments.authority.revoke(extent.capability)
