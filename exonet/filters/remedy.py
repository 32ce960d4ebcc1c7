# SPDX-License-Identifier: MIT
"""The remedy: the text of a filter that would do where two overlap in part (SEMANTICS R4)."""

import re

from exonet.errors import ExonetError
from exonet.filters.compile import compile_filter
from exonet.filters.region import Kind, Region, relation
from exonet.filters.syntax import to_pcap

__all__ = ["remedy"]

#: What follows one of these in a text looks deeper into the frame.
_MOVES = re.compile(r"\b(?:vlan|mpls|pppoes|geneve)\b")
#: What stands before the part that looks behind a tag.
_BEFORE = re.compile(r"(?:(?:vlan|pppoes|mpls)(?: \d+)? and )+")
LONGEST = 300


def remedy(refused: str, holder: str) -> str:
    """What `refused` takes and the holder's filter does not; "" where two texts cannot be joined to say so.

    In pcap-filter, since one of the two may be, and that is where both languages end. `vlan` moves what stands to the
    right of it, be it in parentheses: so the order matters then, and what is right is found by trying.
    """
    try:
        mine, theirs = to_pcap(refused), to_pcap(holder)
    except ExonetError:
        return ""
    if len(mine) + len(theirs) > LONGEST:
        return ""
    texts = (f"({mine}) and not ({theirs})", f"not ({theirs}) and ({mine})")
    if not _MOVES.search(f"{mine} {theirs}"):
        return texts[0]
    behind = f"({mine}) and not ({_BEFORE.sub('', theirs, count=1)})"
    return next((text for text in (*texts, behind) if _does(text, mine, theirs)), "")


def _does(text: str, mine: str, theirs: str) -> bool:
    try:
        found, own, other = (compile_filter(each).conjuncts for each in (text, mine, theirs))
        return Region(own).covers(found) and relation(found, other).kind is Kind.DISJOINT
    except ExonetError:
        return False
