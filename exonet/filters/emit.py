# SPDX-License-Identifier: MIT
"""The pass from a shape to LLVM's intermediate language: one probe function (csrc/demux.h, `exo_probe`).

What the table-driven probe (csrc/demux_probe.c) reads from the form is written out here: guards, loads, masks, the
number of lanes. Values and hash multipliers stay in the table, so a bind with a known shape compiles nothing.

A frame's way has three steps: guards, key and hash; the bucket, of which all tags are compared at once; the entry,
whose key is compared. Whether the key is there decides no branch: its binding is stored or what was there is stored
again. Only a bucket that overflowed, or a tag that lied, goes the rarer way. A large table takes the steps burst by
burst, so that the cache misses of many frames overlap; in a small one each frame takes all three.
"""

from exonet.abi import ffi, lib
from exonet.filters.form import Form, Lane

__all__ = ["SYMBOL", "emit"]

SYMBOL = "probe"
BURST: int = lib.EXO_PROBE_BURST
NONE = -1
ENTRY_HEAD = 16
BUCKET_SHIFT = 6
BUCKET_ENTRY: int = ffi.offsetof("struct exo_bucket", "entry")
BUCKET_OVERFLOW: int = BUCKET_ENTRY - 4


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


def _guard(lines: _Lines, condition: str, passed: str, loop: str) -> None:
    lines.do(f"br i1 {condition}, label %{passed}{loop}, label %next{loop}, !prof !0")
    lines.label(f"{passed}{loop}")


def _guards(lines: _Lines, form: Form, data: str, length: str, loop: str) -> str:
    """Leaves for the next frame where one does not hold. Returns where the IPv4 header ends ("": nobody asks)."""
    if form.frame_bytes:
        _guard(lines, lines(f"icmp uge i32 {length}, {form.frame_bytes}"), "long_enough", loop)
    if form.unfragmented:
        word = lines.load("i16", lines.at(data, 20))
        offset = lines(f"and i16 {word}, {0xFF1F - 0x10000}")
        _guard(lines, lines(f"icmp eq i16 {offset}, 0"), "whole", loop)
    if not form.ip4_at:
        return ""
    first = lines(f"zext i8 {lines.load('i8', lines.at(data, form.ip4_at))} to i64")
    header = lines(f"shl nuw nsw i64 {lines(f'and i64 {first}, 15')}, 2")
    end = lines(f"add nuw nsw i64 {header}, {form.ip4_at}")
    wanted = lines(f"add nuw nsw i64 {end}, {form.ip4_bytes}")
    _guard(lines, lines(f"icmp uge i64 {lines(f'zext i32 {length} to i64')}, {wanted}"), "header_there", loop)
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


def _key(lines: _Lines, form: Form, i: str, name: str) -> tuple[str, list[str], str]:
    """Frame i's place in the burst, its lanes and its hash; a frame that the guards keep out goes to next<name>."""
    which = lines(f"zext i16 {lines.load('i16', _slot(lines, '%which', 'i16', i), 2)} to i64")
    frame = lines.at("%frames", lines(f"mul nuw nsw i64 {which}, {ffi.sizeof('struct exo_frame')}"))
    data = lines.load("ptr", lines.at(frame, _frame("data")), 8)
    length = lines.load("i32", lines.at(frame, _frame("len")), 4)
    lines.do(f"store i32 {NONE}, ptr {_slot(lines, '%found', 'i32', i)}, align 4")
    end = _guards(lines, form, data, length, name)
    values = [_lane(lines, lane, frame, data, end) for lane in form.lanes]
    total = "0"
    for number, value in enumerate(values):
        total = lines(f"add i64 {total}, {lines(f'mul i64 {value}, %multiplier{number}')}")
    return which, values, total


def _home(lines: _Lines, hashed: str) -> tuple[str, str]:
    """The bucket's address, and the tag."""
    home = lines(f"shl i64 {lines(f'lshr i64 {hashed}, %shift')}, {BUCKET_SHIFT}")
    tag = lines(f"or i32 {lines(f'trunc i64 {lines(f"lshr i64 {hashed}, 32")} to i32')}, 1")
    return lines.at("%index", home), tag


def _tagged(lines: _Lines, bucket: str, tag: str) -> tuple[str, str]:
    """The entry of the first key in the bucket with that tag (0 where there is none), and whether there is one."""
    tags = lines(f"load <8 x i32>, ptr {bucket}, align 32")
    first = lines(f"insertelement <8 x i32> poison, i32 {tag}, i64 0")
    spread = lines(f"shufflevector <8 x i32> {first}, <8 x i32> poison, <8 x i32> zeroinitializer")
    equal = lines(f"bitcast <8 x i1> {lines(f'icmp eq <8 x i32> {tags}, {spread}')} to i8")
    keys = lines(f"and i8 {equal}, 127")
    there = lines(f"icmp ne i8 {keys}, 0")
    place = lines(f"zext i8 {lines(f'call i8 @llvm.cttz.i8(i8 {lines(f"or i8 {keys}, -128")}, i1 true)')} to i64")
    number = lines.load("i32", _slot(lines, lines.at(bucket, BUCKET_ENTRY), "i32", place), 4)
    return lines(f"select i1 {there}, i32 {number}, i32 0"), there


def _entry(lines: _Lines, number: str) -> str:
    return lines.at("%entries", lines(f"mul i64 {lines(f'zext i32 {number} to i64')}, %stride"))


def _same(lines: _Lines, entry: str, values: list[str]) -> str:
    """Is it the entry of that key? An i1."""
    differ = "0"
    for number, value in enumerate(values):
        held = lines.load("i64", lines.at(entry, ENTRY_HEAD + 8 * number), 8)
        differ = lines(f"or i64 {differ}, {lines(f'xor i64 {value}, {held}')}")
    return lines(f"icmp eq i64 {differ}, 0")


def _answer(lines: _Lines, i: str, which: str, values: list[str], bucket: str, found: tuple[str, str], name: str) -> None:
    """Compares the key and stores what follows. Where another bucket or another tag may have it: the rarer way."""
    number, there = found
    entry = _entry(lines, number)
    hit = lines(f"and i1 {there}, {_same(lines, entry, values)}")
    overflowed = lines(f"icmp ne i32 {lines.load('i32', lines.at(bucket, BUCKET_OVERFLOW), 4)}, 0")
    doubt = lines(f"and i1 {lines(f'or i1 {there}, {overflowed}')}, {lines(f'xor i1 {hit}, true')}")
    owner = _slot(lines, "%owners", "i32", which)
    before = lines.load("i32", owner, 4)
    binding = lines.load("i32", entry, 4)
    lines.do(f"store i32 {lines(f'select i1 {hit}, i32 {binding}, i32 {before}')}, ptr {owner}, align 4")
    place = _slot(lines, "%found", "i32", i)
    lines.do(f"store i32 {lines(f'select i1 {hit}, i32 {number}, i32 {NONE}')}, ptr {place}, align 4")
    lines.do(f"br i1 {doubt}, label %doubt{name}, label %next{name}, !prof !1")
    lines.label(f"doubt{name}")
    for lane, value in enumerate(values):
        lines.do(f"store i64 {value}, ptr {_slot(lines, '%asked', 'i64', str(lane))}, align 8")
    arguments = f"ptr %table, ptr {bucket}, ptr %asked, ptr {place}, ptr {owner}"
    lines.do(f"call void @search({arguments})")


def _small(lines: _Lines, form: Form) -> None:
    i = _loop(lines, "S", "%count")
    which, values, hashed = _key(lines, form, i, "S")
    bucket, tag = _home(lines, hashed)
    _answer(lines, i, which, values, bucket, _tagged(lines, bucket, tag), "S")
    _close(lines, "S")


def _large(lines: _Lines, form: Form) -> None:
    """%live lists the frames that passed the guards, %lives counts them."""
    i = _loop(lines, "1", "%count")
    _, values, hashed = _key(lines, form, i, "1")
    for lane, value in enumerate(values):
        lines.do(f"store i64 {value}, ptr {_kept(lines, lane, i)}, align 8")
    lines.do(f"store i64 {hashed}, ptr {_slot(lines, '%hash', 'i64', i)}, align 8")
    _prefetch(lines, _home(lines, hashed)[0])
    lives = lines.load("i64", "%lives", 8)
    lines.do(f"store i64 {i}, ptr {_slot(lines, '%live', 'i64', lives)}, align 8")
    lines.do(f"store i64 {lines(f'add nuw nsw i64 {lives}, 1')}, ptr %lives, align 8")
    _close(lines, "1")
    lines.do("%alive = load i64, ptr %lives, align 8")
    lines.do("br label %before2")
    lines.label("before2")
    j = _loop(lines, "2", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    number, there = _tagged(lines, *_home(lines, lines.load("i64", _slot(lines, "%hash", "i64", i), 8)))
    lines.do(f"store i32 {number}, ptr {_slot(lines, '%first', 'i32', i)}, align 4")
    lines.do(f"store i1 {there}, ptr {_slot(lines, '%tagged', 'i8', i)}, align 1")
    _prefetch(lines, _entry(lines, number))
    _close(lines, "2")
    lines.do("br label %before3")
    lines.label("before3")
    j = _loop(lines, "3", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    which = lines(f"zext i16 {lines.load('i16', _slot(lines, '%which', 'i16', i), 2)} to i64")
    bucket, _ = _home(lines, lines.load("i64", _slot(lines, "%hash", "i64", i), 8))
    values = [lines.load("i64", _kept(lines, lane, i), 8) for lane in range(len(form.lanes))]
    found = lines.load("i32", _slot(lines, "%first", "i32", i), 4), lines.load("i1", _slot(lines, "%tagged", "i8", i))
    _answer(lines, i, which, values, bucket, found, "3")
    _close(lines, "3")


def _kept(lines: _Lines, lane: int, i: str) -> str:
    return lines(f"getelementptr [{BURST} x i64], ptr %key, i64 {lane}, i64 {i}")


def emit(form: Form) -> str:
    """The module's text: the function SYMBOL, and @search, the rarer way, which csrc has."""
    lines = _Lines()
    lines.do("%count = zext i32 %n to i64")
    lanes = max(len(form.lanes), 1)
    for name, size, kind in (
        ("key", lanes * BURST, "i64"),
        ("hash", BURST, "i64"),
        ("live", BURST, "i64"),
        ("first", BURST, "i32"),
        ("tagged", BURST, "i8"),
        ("asked", lanes, "i64"),
    ):
        lines.do(f"%{name} = alloca [{size} x {kind}], align 64")
    lines.do("%lives = alloca i64, align 8")
    lines.do("store i64 0, ptr %lives, align 8")
    for name in ("index", "entries"):
        lines.do(f"%{name} = load ptr, ptr {lines.at('%table', _table(name))}, align 8")
    for name in ("shift", "stride"):
        lines.do(f"%{name} = zext i32 {lines.load('i32', lines.at('%table', _table(name)), 4)} to i64")
    for i in range(len(form.lanes)):
        lines.do(f"%multiplier{i} = load i64, ptr {lines.at('%table', _table('multiplier') + 8 * i)}, align 8")
    large = lines(f"icmp ne i32 {lines.load('i32', lines.at('%table', _table('large')), 4)}, 0")
    lines.do(f"br i1 {large}, label %before1, label %beforeS")
    lines.label("beforeS")
    _small(lines, form)
    lines.do("ret void")
    lines.label("before1")
    _large(lines, form)
    lines.do("ret void")
    body = "\n".join(lines.lines)
    return (
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
        "declare i8 @llvm.cttz.i8(i8, i1)\n"
        "declare void @search(ptr, ptr, ptr, ptr, ptr)\n"
        f"define void @{SYMBOL}(ptr noalias nocapture readonly %table, ptr noalias nocapture readonly %frames, "
        "ptr noalias nocapture readonly %which, i32 %n, ptr noalias %found, ptr noalias %owners) nounwind {\n"
        f"start:\n{body}\n}}\n"
        '!0 = !{!"branch_weights", i32 1000, i32 1}\n'
        '!1 = !{!"branch_weights", i32 1, i32 1000}\n'
    )
