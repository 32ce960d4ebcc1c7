# SPDX-License-Identifier: MIT
"""The remedy: the text of a filter that would do where two overlap in part (R4)."""

import re

from exonet.errors import ExonetError
from exonet.filters.compile import compile_filter
from exonet.filters.region import Region, overlap
from exonet.filters.syntax import to_pcap

__all__ = ["remedy"]

#: What follows one of these in a text looks deeper into the frame.
_MOVES = re.compile(r"\b(?:vlan|mpls|pppoes|geneve)\b")
#: What stands before the part that looks behind a tag.
_BEFORE = re.compile(r"(?:(?:vlan|pppoes|mpls)(?: \d+)? and )+")
LONGEST = 300
#: Steps of the solver for one text.
TRIED = 5_000


def remedy(refused: str, holder: str) -> str:
    """What `refused` takes and the holder's filter does not; "" where two texts cannot be joined to say so.

    In pcap-filter, since one of the two may be, and that is where both languages end. It has been tried: it may take
    nothing, or be more than there is room for. `vlan` moves what stands to the right of it, be it in parentheses: so
    the order matters then.
    """
    try:
        mine, theirs = to_pcap(refused), to_pcap(holder)
    except ExonetError:
        return ""
    if len(mine) + len(theirs) > LONGEST:
        return ""
    texts = [f"({mine}) and not ({theirs})"]
    moves = _MOVES.search(f"{mine} {theirs}") is not None
    if moves:
        texts.append(f"not ({theirs}) and ({mine})")
        texts.append(f"({mine}) and not ({_BEFORE.sub('', theirs, count=1)})")
    return next((text for text in texts if _does(text, mine, theirs, moves)), "")


def _does(text: str, mine: str, theirs: str, moves: bool) -> bool:
    """Does it compile, and take nothing but what is mine, and nothing of theirs? libpcap's `and not` sees to the latter
    but where the text moves, or where a program is known by its box alone.
    """
    try:
        found = compile_filter(text).conjuncts
        if not moves and not any(conjunct.programs for conjunct in found):
            return True
        own, other = (compile_filter(each).conjuncts for each in (mine, theirs))
        return Region(own).covers(found, TRIED) and overlap(found, other, TRIED) is None
    except ExonetError:
        return False
