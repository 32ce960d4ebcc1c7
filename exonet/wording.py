# SPDX-License-Identifier: MIT
"""How a count of things reads: "1 packet", "1,849 packets"."""

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """noun: in the singular; its plural ends in -s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
