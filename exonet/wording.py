# SPDX-License-Identifier: MIT
"""How things read in messages: counts ("1 packet", "1,849 packets"), and text that somebody else wrote.

What a LibOS, a capture or a command line says may be long, and may hold what would move a terminal's cursor.
"""

__all__ = ["LONGEST", "counted", "printable", "quoted", "shown"]

#: Characters of a filter that a message repeats.
LONGEST = 300


def counted(count: int, noun: str) -> str:
    """noun: in the singular; its plural ends in -s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    """With what is not printable as escapes: newlines, terminal controls, bytes that are no UTF-8."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown(text: str, most: int = LONGEST) -> str:
    """Printable, and cut with an ellipsis after so many characters."""
    return printable(text if len(text) <= most else f"{text[:most]}…")


def quoted(text: str, most: int = LONGEST) -> str:
    """As `shown`, as a Python literal."""
    return repr(text if len(text) <= most else f"{text[:most]}…")
