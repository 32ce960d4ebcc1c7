# SPDX-License-Identifier: MIT
"""The pass from a shape to LLVM's intermediate language: one probe function (csrc/demux.h, `exo_probe`).

What the table-driven probe (csrc/demux_probe.c) reads from the form is written out here: guards, loads, masks, the
number of lanes. Values and hash multipliers stay in the table, so a bind with a known shape compiles nothing.

A frame's way has three steps: guards, key and hash; the bucket, of which all tags are compared at once; the entry,
whose key is compared. Whether the key is there decides no branch: its binding is stored or what was there is stored
again. An IPv4 header with options, a bucket that overflowed, or a tag that lied goes the rarer way, by the table. A
large table takes the steps burst by burst, so that the cache misses of many frames overlap; in a small one each frame
takes all three.
"""

from exonet.abi import ffi, lib
from exonet.filters.form import Form, Lane

__all__ = ["ASK", "SYMBOL", "emit"]

SYMBOL = "probe"
ASK = "exo_demux_ask"
IP4_HEADER = 20
BURST: int = lib.EXO_PROBE_BURST
NONE = -1
ENTRY_HEAD = 16
BUCKET_SHIFT = 6
BUCKET_ENTRY: int = ffi.offsetof("struct exo_bucket", "entry")
BUCKET_OVERFLOW: int = BUCKET_ENTRY - 4


def _table(field: str) -> int:
    return int(ffi.offsetof("struct exo_table", field))


def _asked(field: str) -> int:
    return int(ffi.offsetof("struct exo_asked", field))


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


def _lane(lines: _Lines, lane: Lane, form: Form, frame: str, data: str) -> str:
    """The masked value of a lane, as the name of an i64. The IPv4 header is 20 bytes long."""
    bits = 8 * lane.bytes
    if lane.base == lib.EXO_BASE_LENGTH:
        loaded, bits = lines.load("i32", lines.at(frame, _asked("wire_len")), 4), 32
    else:
        base = form.ip4_at + IP4_HEADER if lane.base == lib.EXO_BASE_IP4 else 0
        loaded = lines.load(f"i{bits}", lines.at(data, base + lane.offset))
    if lane.mask != (1 << bits) - 1:
        loaded = lines(f"and i{bits} {loaded}, {lane.mask}")
    return loaded if bits == 64 else lines(f"zext i{bits} {loaded} to i64")


def _guards(lines: _Lines, form: Form, data: str, length: str, loop: str) -> None:
    """Leaves for the next frame where one does not hold; for the rarer way where that depends on a longer header."""
    other = f"rarer{loop}" if form.ip4_at else f"next{loop}"
    wanted = max(form.frame_bytes, form.ip4_at + IP4_HEADER + form.ip4_bytes if form.ip4_at else 0)
    if wanted:
        enough = lines(f"icmp uge i32 {length}, {wanted}")
        lines.do(f"br i1 {enough}, label %whole{loop}, label %{other}, !prof !0")
        lines.label(f"whole{loop}")
    checks = [(form.ip4_at, 0x0F, IP4_HEADER // 4)] if form.ip4_at else []
    checks += [(20, 0x1F, 0), (21, 0xFF, 0)] if form.unfragmented else []
    if not checks:
        return
    first, last = checks[0][0], checks[-1][0]
    size = 1 if first == last else 8
    start = max(last + 1 - size, 0)
    mask = sum(bits << 8 * (at - start) for at, bits, _ in checks)
    value = sum(number << 8 * (at - start) for at, _, number in checks)
    seen = lines(f"and i{8 * size} {lines.load(f'i{8 * size}', lines.at(data, start))}, {mask}")
    lines.do(f"br i1 {lines(f'icmp eq i{8 * size} {seen}, {value}')}, label %fit{loop}, label %{other}, !prof !0")
    lines.label(f"fit{loop}")


def _loop(lines: _Lines, name: str, count: str) -> str:
    """Opens a loop of `count` (i64) turns that lines at label next<name> end; returns its counter."""
    lines.do(f"br label %head{name}")
    lines.label(f"head{name}")
    lines.lines.append(f"  %i{name} = phi i64 [ 0, %before{name} ], [ %i{name}.more, %next{name} ]")
    lines.do(f"%done{name} = icmp eq i64 %i{name}, {count}")
    lines.do(f"br i1 %done{name}, label %after{name}, label %body{name}")
    lines.label(f"body{name}")
    return f"%i{name}"


def _close(lines: _Lines, name: str, rarer: bool = False) -> None:
    """rarer: label rarer<name> asks the table for the frame, in C."""
    lines.do(f"br label %next{name}")
    if rarer:
        lines.label(f"rarer{name}")
        i = f"%i{name}"
        if name == "3":
            i = lines.load("i64", _slot(lines, "%live", "i64", i), 8)
        frame = _frame(lines, i)
        found, owner = _slot(lines, "%found", "i32", i), _owner(lines, frame)
        lines.do(f"call void @{ASK}(ptr %table, ptr {frame}, ptr {found}, ptr {owner})")
        lines.do(f"br label %next{name}")
    lines.label(f"next{name}")
    lines.do(f"%i{name}.more = add nuw nsw i64 %i{name}, 1")
    lines.do(f"br label %head{name}")
    lines.label(f"after{name}")


def _prefetch(lines: _Lines, pointer: str) -> None:
    lines.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")


def _frame(lines: _Lines, i: str) -> str:
    """The address of asked[i]."""
    return lines.at("%asked", lines(f"mul nuw nsw i64 {i}, {ffi.sizeof('struct exo_asked')}"))


def _owner(lines: _Lines, frame: str) -> str:
    """The address of the frame's owner."""
    place = lines(f"zext i32 {lines.load('i32', lines.at(frame, _asked('place')), 4)} to i64")
    return _slot(lines, "%owners", "i32", place)


def _key(lines: _Lines, form: Form, i: str, name: str) -> tuple[str, list[str], str]:
    """Frame i, its lanes and its hash; a frame that the guards keep out goes to next<name>."""
    frame = _frame(lines, i)
    data = lines.load("ptr", lines.at(frame, _asked("data")), 8)
    length = lines.load("i32", lines.at(frame, _asked("len")), 4)
    lines.do(f"store i32 {NONE}, ptr {_slot(lines, '%found', 'i32', i)}, align 4")
    _guards(lines, form, data, length, name)
    values = [_lane(lines, lane, form, frame, data) for lane in form.lanes]
    total = "0"
    for number, value in enumerate(values):
        total = lines(f"add i64 {total}, {lines(f'mul i64 {value}, %multiplier{number}')}")
    return frame, values, total


def _home(lines: _Lines, hashed: str) -> tuple[str, str]:
    """The bucket's address, and the tag."""
    home = lines(f"shl i64 {lines(f'lshr i64 {hashed}, %shift')}, {BUCKET_SHIFT}")
    upper = lines(f"lshr i64 {hashed}, 32")
    tag = lines(f"or i32 {lines(f'trunc i64 {upper} to i32')}, 1")
    return lines.at("%index", home), tag


def _tagged(lines: _Lines, bucket: str, tag: str) -> tuple[str, str]:
    """The entry of the first key in the bucket with that tag, and whether there is one; else some entry."""
    tags = lines(f"load <8 x i32>, ptr {bucket}, align 32")
    first = lines(f"insertelement <8 x i32> poison, i32 {tag}, i64 0")
    spread = lines(f"shufflevector <8 x i32> {first}, <8 x i32> poison, <8 x i32> zeroinitializer")
    equal = lines(f"bitcast <8 x i1> {lines(f'icmp eq <8 x i32> {tags}, {spread}')} to i8")
    wide = lines(f"zext i8 {equal} to i32")
    there = lines(f"icmp ne i32 {lines(f'and i32 {wide}, 127')}, 0")
    stopped = lines(f"or i32 {wide}, 128")
    place = lines(f"zext i32 {lines(f'call i32 @llvm.cttz.i32(i32 {stopped}, i1 true)')} to i64")
    return lines.load("i32", _slot(lines, lines.at(bucket, BUCKET_ENTRY), "i32", place), 4), there


def _entry(lines: _Lines, form: Form, number: str) -> str:
    return lines.at("%entries", lines(f"mul i64 {lines(f'zext i32 {number} to i64')}, {form.stride}"))


def _same(lines: _Lines, entry: str, values: list[str]) -> str:
    """Is it the entry of that key? An i1."""
    differ = "0"
    for number, value in enumerate(values):
        held = lines.load("i64", lines.at(entry, ENTRY_HEAD + 8 * number), 8)
        differ = lines(f"or i64 {differ}, {lines(f'xor i64 {value}, {held}')}")
    return lines(f"icmp eq i64 {differ}, 0")


def _answer(
    lines: _Lines, form: Form, i: str, frame: str, values: list[str], bucket: str, found: tuple[str, str], name: str
) -> None:
    """Compares the key and stores what follows. Where another bucket or another tag may have it: the rarer way."""
    number, there = found
    entry = _entry(lines, form, number)
    hit = lines(f"and i1 {there}, {_same(lines, entry, values)}")
    overflowed = lines.load("i32", lines.at(bucket, BUCKET_OVERFLOW), 4)
    perhaps = lines(f"or i32 {lines(f'zext i1 {there} to i32')}, {overflowed}")
    doubt = lines(f"icmp ne i32 {lines(f'select i1 {hit}, i32 0, i32 {perhaps}')}, 0")
    owner = _owner(lines, frame)
    before = lines.load("i32", owner, 4)
    binding = lines.load("i32", entry, 4)
    lines.do(f"store i32 {lines(f'select i1 {hit}, i32 {binding}, i32 {before}')}, ptr {owner}, align 4")
    place = _slot(lines, "%found", "i32", i)
    lines.do(f"store i32 {lines(f'select i1 {hit}, i32 {number}, i32 {NONE}')}, ptr {place}, align 4")
    lines.do(f"br i1 {doubt}, label %rarer{name}, label %sure{name}, !prof !1")
    lines.label(f"sure{name}")


def _small(lines: _Lines, form: Form) -> None:
    i = _loop(lines, "S", "%count")
    frame, values, hashed = _key(lines, form, i, "S")
    bucket, tag = _home(lines, hashed)
    _answer(lines, form, i, frame, values, bucket, _tagged(lines, bucket, tag), "S")
    _close(lines, "S", rarer=True)


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
    _close(lines, "1", rarer=bool(form.ip4_at))
    lines.do("%alive = load i64, ptr %lives, align 8")
    lines.do("br label %before2")
    lines.label("before2")
    j = _loop(lines, "2", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    number, there = _tagged(lines, *_home(lines, lines.load("i64", _slot(lines, "%hash", "i64", i), 8)))
    lines.do(f"store i32 {number}, ptr {_slot(lines, '%first', 'i32', i)}, align 4")
    lines.do(f"store i1 {there}, ptr {_slot(lines, '%tagged', 'i8', i)}, align 1")
    _prefetch(lines, _entry(lines, form, number))
    _close(lines, "2")
    lines.do("br label %before3")
    lines.label("before3")
    j = _loop(lines, "3", "%alive")
    i = lines.load("i64", _slot(lines, "%live", "i64", j), 8)
    frame = _frame(lines, i)
    bucket, _ = _home(lines, lines.load("i64", _slot(lines, "%hash", "i64", i), 8))
    values = [lines.load("i64", _kept(lines, lane, i), 8) for lane in range(len(form.lanes))]
    found = lines.load("i32", _slot(lines, "%first", "i32", i), 4), lines.load("i1", _slot(lines, "%tagged", "i8", i))
    _answer(lines, form, i, frame, values, bucket, found, "3")
    _close(lines, "3", rarer=True)


def _kept(lines: _Lines, lane: int, i: str) -> str:
    return lines(f"getelementptr [{BURST} x i64], ptr %key, i64 {lane}, i64 {i}")


def emit(form: Form) -> str:
    """The module's text: the function SYMBOL, which calls ASK of csrc."""
    lines = _Lines()
    lines.do("%count = zext i32 %n to i64")
    lanes = max(len(form.lanes), 1)
    for name, size, kind in (
        ("key", lanes * BURST, "i64"),
        ("hash", BURST, "i64"),
        ("live", BURST, "i64"),
        ("first", BURST, "i32"),
        ("tagged", BURST, "i8"),
    ):
        lines.do(f"%{name} = alloca [{size} x {kind}], align 64")
    lines.do("%lives = alloca i64, align 8")
    lines.do("store i64 0, ptr %lives, align 8")
    for name in ("index", "entries"):
        lines.do(f"%{name} = load ptr, ptr {lines.at('%table', _table(name))}, align 8")
    lines.do(f"%shift = zext i32 {lines.load('i32', lines.at('%table', _table('shift')), 4)} to i64")
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
        "declare i32 @llvm.cttz.i32(i32, i1)\n"
        f"declare void @{ASK}(ptr, ptr, ptr, ptr) nounwind cold\n"
        f"define void @{SYMBOL}(ptr noalias nocapture readonly %table, ptr noalias nocapture readonly %asked, i32 %n, "
        "ptr noalias %found, ptr noalias %owners) nounwind {\n"
        f"start:\n{body}\n}}\n"
        '!0 = !{!"branch_weights", i32 1000, i32 1}\n'
        '!1 = !{!"branch_weights", i32 1, i32 1000}\n'
    )
