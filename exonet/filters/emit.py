# SPDX-License-Identifier: MIT
"""The pass from a shape to LLVM's intermediate language: one probe function (csrc/demux.h, `exo_probe`).

What the table-driven probe (csrc/demux_probe.c) reads from the form is written out here: guards, loads, masks, the
number of lanes. Values and hash multipliers stay in the table, so a bind with a known shape compiles nothing. Three
loops over the burst, so that the cache misses of many frames overlap: guards, key and hash (asks for the index word);
the index (asks for the entry); the entry's key.
"""

from exonet.abi import ffi, lib
from exonet.filters.form import Form, Lane

__all__ = ["SYMBOL", "emit"]

SYMBOL = "probe"
BURST: int = lib.EXO_PROBE_BURST
NONE = -1
ENTRY_HEAD = 16


def _table(field: str) -> int:
    return int(ffi.offsetof("struct exo_table", field))


def _frame(field: str) -> int:
    return int(ffi.offsetof("struct exo_frame", field))


class _Lines:
    """Instructions under way, with fresh names for their results."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names = 0

    def __call__(self, instruction: str) -> str:
        """Adds an instruction that gives a result; returns its name."""
        self._names += 1
        name = f"%t{self._names}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self.lines.append(f"  {instruction}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def at(self, pointer: str, offset: int | str) -> str:
        """pointer + offset bytes; a string is an i64 name."""
        return self(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def load(self, kind: str, pointer: str, align: int = 1) -> str:
        return self(f"load {kind}, ptr {pointer}, align {align}")


def _slot(lines: _Lines, array: str, kind: str, index: str) -> str:
    return lines(f"getelementptr {kind}, ptr {array}, i64 {index}")


def _lane(lines: _Lines, lane: Lane, frame: str, data: str, end: str) -> str:
    """The masked value of a lane, as the name of an i64."""
    bits = 8 * lane.bytes
    if lane.base == lib.EXO_BASE_LENGTH:
        loaded, bits = lines.load("i32", lines.at(frame, _frame("wire_len")), 4), 32
    else:
        start = lines.at(data, end) if lane.base == lib.EXO_BASE_IP4 else data
        loaded = lines.load(f"i{bits}", lines.at(start, lane.offset))
    if lane.mask != (1 << bits) - 1:
        loaded = lines(f"and i{bits} {loaded}, {lane.mask}")
    return loaded if bits == 64 else lines(f"zext i{bits} {loaded} to i64")


def _guard(lines: _Lines, condition: str, passed: str) -> None:
    lines.do(f"br i1 {condition}, label %{passed}, label %next1, !prof !0")
    lines.label(passed)


def _guards(lines: _Lines, form: Form, data: str, length: str) -> str:
    """Leaves for the next frame where one does not hold. Returns where the IPv4 header ends ("": nobody asks)."""
    if form.frame_bytes:
        _guard(lines, lines(f"icmp uge i32 {length}, {form.frame_bytes}"), "long_enough")
    if form.unfragmented:
        word = lines.load("i16", lines.at(data, 20))
        offset = lines(f"and i16 {word}, {0xFF1F - 0x10000}")
        _guard(lines, lines(f"icmp eq i16 {offset}, 0"), "whole")
    if not form.ip4_at:
        return ""
    first = lines(f"zext i8 {lines.load('i8', lines.at(data, form.ip4_at))} to i64")
    header = lines(f"shl nuw nsw i64 {lines(f'and i64 {first}, 15')}, 2")
    end = lines(f"add nuw nsw i64 {header}, {form.ip4_at}")
    wanted = lines(f"add nuw nsw i64 {end}, {form.ip4_bytes}")
    _guard(lines, lines(f"icmp uge i64 {lines(f'zext i32 {length} to i64')}, {wanted}"), "header_there")
    return end


def _loop(lines: _Lines, name: str, count: str) -> str:
    """Opens a loop of `count` (i64) turns that lines at label next<name> end; returns its counter."""
    lines.do(f"br label %head{name}")
    lines.label(f"head{name}")
    lines.lines.append(f"  %i{name} = phi i64 [ 0, %before{name} ], [ %i{name}.more, %next{name} ]")
    lines.do(f"%done{name} = icmp eq i64 %i{name}, {count}")
    lines.do(f"br i1 %done{name}, label %after{name}, label %body{name}")
    lines.label(f"body{name}")
    return f"%i{name}"


def _close(lines: _Lines, name: str) -> None:
    lines.do(f"br label %next{name}")
    lines.label(f"next{name}")
    lines.do(f"%i{name}.more = add nuw nsw i64 %i{name}, 1")
    lines.do(f"br label %head{name}")
    lines.label(f"after{name}")


def _prefetch(lines: _Lines, pointer: str) -> None:
    lines.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")


def _hash_pass(lines: _Lines, form: Form, multipliers: list[str]) -> None:
    """Guards, key, hash; the frames that pass go into %live, and %lives counts them."""
    i = _loop(lines, "1", "%count")
    which = lines(f"zext i16 {lines.load('i16', _slot(lines, '%which', 'i16', i), 2)} to i64")
    frame = lines.at("%frames", lines(f"mul nuw nsw i64 {which}, {ffi.sizeof('struct exo_frame')}"))
    data = lines.load("ptr", lines.at(frame, _frame("data")), 8)
    length = lines.load("i32", lines.at(frame, _frame("len")), 4)
    lines.do(f"store i32 {NONE}, ptr {_slot(lines, '%found', 'i32', i)}, align 4")
    end = _guards(lines, form, data, length)
    total = "0"
    for number, lane in enumerate(form.lanes):
        value = _lane(lines, lane, frame, data, end)
        key = lines(f"getelementptr [{BURST} x i64], ptr %key, i64 {number}, i64 {i}")
        lines.do(f"store i64 {value}, ptr {key}, align 8")
        total = lines(f"add i64 {total}, {lines(f'mul i64 {value}, {multipliers[number]}')}")
    lines.do(f"store i64 {total}, ptr {_slot(lines, '%hash', 'i64', i)}, align 8")
    home = lines(f"lshr i64 {total}, %shift")
    _prefetch(lines, _slot(lines, "%index", "i64", home))
    lives = lines.load("i64", "%lives", 8)
    lines.do(f"store i64 {i}, ptr {_slot(lines, '%live', 'i64', lives)}, align 8")
    lines.do(f"store i64 {lines(f'add nuw nsw i64 {lives}, 1')}, ptr %lives, align 8")
    _close(lines, "1")


def _walk(lines: _Lines, name: str, start: str, before: str, tag: str) -> tuple[str, str]:
    """The first index word from `start` on that is empty or has the tag. Returns its place and the word."""
    lines.do(f"br label %walk{name}")
    lines.label(f"walk{name}")
    at = f"%at{name}"
    lines.lines.append(f"  {at} = phi i64 [ {start}, %{before} ], [ {at}.more, %on{name} ]")
    word = lines.load("i64", _slot(lines, "%index", "i64", at), 8)
    empty = lines(f"icmp eq i64 {word}, 0")
    tagged = lines(f"icmp eq i64 {lines(f'lshr i64 {word}, 32')}, {tag}")
    lines.do(f"br i1 {lines(f'or i1 {empty}, {tagged}')}, label %stop{name}, label %on{name}, !prof !0")
    lines.label(f"on{name}")
    lines.do(f"{at}.step = add i64 {at}, 1")
    lines.do(f"{at}.more = and i64 {at}.step, %mask")
    lines.do(f"br label %walk{name}")
    lines.label(f"stop{name}")
    return at, word


def _entry(lines: _Lines, word: str) -> tuple[str, str]:
    """The entry's number (i32; -1 where the word is empty) and its address."""
    number = lines(f"sub i32 {lines(f'trunc i64 {word} to i32')}, 1")
    wide = lines(f"zext i32 {number} to i64")
    return number, lines.at("%entries", lines(f"mul i64 {wide}, %stride"))


def _index_pass(lines: _Lines) -> None:
    j = _loop(lines, "2", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    hashed = lines.load("i64", _slot(lines, "%hash", "i64", i), 8)
    home, tag = lines(f"lshr i64 {hashed}, %shift"), lines(f"lshr i64 {hashed}, 32")
    at, word = _walk(lines, "a", home, "body2", tag)
    number, entry = _entry(lines, word)
    lines.do(f"store i64 {at}, ptr {_slot(lines, '%place', 'i64', i)}, align 8")
    lines.do(f"store i32 {number}, ptr {_slot(lines, '%found', 'i32', i)}, align 4")
    _prefetch(lines, entry)
    _close(lines, "2")


def _same_key(lines: _Lines, form: Form, entry: str, i: str) -> str:
    """Is the entry's key that of frame i? An i1."""
    differ = "0"
    for number in range(len(form.lanes)):
        key = lines.load("i64", lines(f"getelementptr [{BURST} x i64], ptr %key, i64 {number}, i64 {i}"), 8)
        held = lines.load("i64", lines.at(entry, ENTRY_HEAD + 8 * number), 8)
        differ = lines(f"or i64 {differ}, {lines(f'xor i64 {key}, {held}')}")
    return lines(f"icmp eq i64 {differ}, 0")


def _compare_pass(lines: _Lines, form: Form) -> None:
    """Where the tag lied the search goes on; that is rare."""
    j = _loop(lines, "3", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    found = _slot(lines, "%found", "i32", i)
    number = lines.load("i32", found, 4)
    lines.do(f"br i1 {lines(f'icmp eq i32 {number}, {NONE}')}, label %next3, label %compare")
    lines.label("compare")
    entry = lines.at("%entries", lines(f"mul i64 {lines(f'zext i32 {number} to i64')}, %stride"))
    lines.do(f"br i1 {_same_key(lines, form, entry, i)}, label %next3, label %search, !prof !0")
    lines.label("search")
    tag = lines(f"lshr i64 {lines.load('i64', _slot(lines, '%hash', 'i64', i), 8)}, 32")
    first = lines.load("i64", _slot(lines, "%place", "i64", i), 8)
    lines.do("br label %again")
    lines.label("again")
    lines.lines.append(f"  %last = phi i64 [ {first}, %search ], [ %atb, %other ]")
    start = lines(f"and i64 {lines('add i64 %last, 1')}, %mask")
    _, word = _walk(lines, "b", start, "again", tag)
    number, entry = _entry(lines, word)
    lines.do(f"store i32 {number}, ptr {found}, align 4")
    lines.do(f"br i1 {lines(f'icmp eq i64 {word}, 0')}, label %next3, label %other_key")
    lines.label("other_key")
    lines.do(f"br i1 {_same_key(lines, form, entry, i)}, label %next3, label %other")
    lines.label("other")
    lines.do("br label %again")
    lines.label("next3")
    lines.do("%i3.more = add nuw nsw i64 %i3, 1")
    lines.do("br label %head3")
    lines.label("after3")


def emit(form: Form) -> str:
    """The module's text, with one function SYMBOL."""
    lines = _Lines()
    lines.do("%count = zext i32 %n to i64")
    for name, size in (("key", max(len(form.lanes), 1) * BURST), ("hash", BURST), ("place", BURST), ("live", BURST)):
        lines.do(f"%{name} = alloca [{size} x i64], align 64")
    lines.do("%lives = alloca i64, align 8")
    lines.do("store i64 0, ptr %lives, align 8")
    for name in ("index", "entries"):
        lines.do(f"%{name} = load ptr, ptr {lines.at('%table', _table(name))}, align 8")
    for name in ("shift", "stride"):
        lines.do(f"%{name} = zext i32 {lines.load('i32', lines.at('%table', _table(name)), 4)} to i64")
    lines.do("%mask = lshr i64 -1, %shift")
    first = _table("multiplier")
    multipliers = [lines.load("i64", lines.at("%table", first + 8 * i), 8) for i in range(len(form.lanes))]
    lines.do("br label %before1")
    lines.label("before1")
    _hash_pass(lines, form, multipliers)
    lines.do("%alive = load i64, ptr %lives, align 8")
    lines.do("br label %before2")
    lines.label("before2")
    _index_pass(lines)
    lines.do("br label %before3")
    lines.label("before3")
    _compare_pass(lines, form)
    lines.do("ret void")
    body = "\n".join(lines.lines)
    return (
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
        f"define void @{SYMBOL}(ptr noalias nocapture readonly %table, ptr noalias nocapture readonly %frames, "
        "ptr noalias nocapture readonly %which, i32 %n, ptr noalias nocapture %found) nounwind {\n"
        f"start:\n{body}\n}}\n"
        '!0 = !{!"branch_weights", i32 1000, i32 1}\n'
    )
