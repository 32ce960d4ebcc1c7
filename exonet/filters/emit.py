# SPDX-License-Identifier: MIT
"""The pass from a shape to LLVM's intermediate language: its two functions, `exo_probe` and `exo_glance` of
csrc/demux.h.

What the table-driven probe (csrc/demux_probe.c) reads from the form is written out here: guards, loads, masks, the
number of lanes. Values and hash multipliers stay in the table, so a bind with a known shape compiles nothing.

A frame's way has three steps: guards, key and hash; the bucket, of which all tags are compared at once; the entry,
whose key is compared. Whether the key is there decides no branch. An IPv4 header with options, a bucket that
overflowed, or a tag that lied goes the rarer way. The probe takes the steps burst by burst, so that the cache misses
of many frames overlap; the glance, for small tables, takes a frame through all three, and the dispatch's own tests
(ethertype, protocol) with them.
"""

from exonet.abi import ffi, lib
from exonet.filters.form import Form, Lane
from exonet.filters.ir import Lines

__all__ = ["ASK", "GLANCE", "PROBE", "emit"]

PROBE = "probe"
GLANCE = "glance"
ASK = "exo_demux_ask"
IP4_HEADER = 20
BURST: int = lib.EXO_PROBE_BURST
NONE = -1
ENTRY_HEAD = 16
BUCKET_SHIFT = 6
BUCKET_ENTRY: int = ffi.offsetof("struct exo_bucket", "entry")
PLACE: int = ffi.offsetof("struct exo_places", "place")
#: Where an IP packet's protocol is, by ethertype.
PROTOCOL_AT = {0x0800: 23, 0x86DD: 20}

#: At a byte of the frame, masked, a value.
Check = tuple[int, int, int]


def _table(field: str) -> int:
    return int(ffi.offsetof("struct exo_table", field))


def _asked(field: str) -> int:
    """Of `struct exo_asked`; for data, len and wire_len also of `struct exo_frame`, which begins alike."""
    return int(ffi.offsetof("struct exo_asked", field))


# ---- a frame's guards and key ----


def _lane(lines: Lines, lane: Lane, form: Form, frame: str, data: str) -> str:
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


def _header_checks(form: Form) -> list[Check]:
    """What the dispatch leaves to the shape: an IPv4 header without options, not a later fragment."""
    checks = [(form.ip4_at, 0x0F, IP4_HEADER // 4)] if form.ip4_at else []
    return checks + ([(20, 0x1F, 0), (21, 0xFF, 0)] if form.unfragmented else [])


def _dispatch_checks(form: Form) -> list[Check]:
    """What the dispatch has seen to before a probe."""
    checks = [] if form.ethertype < 2 else [(12, 0xFF, form.ethertype >> 8), (13, 0xFF, form.ethertype & 0xFF)]
    if form.protocol != lib.EXO_ANY_PROTOCOL:
        checks.append((PROTOCOL_AT[form.ethertype], 0xFF, form.protocol))
    return checks


def _windows(checks: list[Check]) -> list[list[Check]]:
    """Checks that one load of eight bytes sees, by offset."""
    windows: list[list[Check]] = []
    for check in sorted(checks):
        if windows and check[0] - windows[-1][0][0] < 8:
            windows[-1].append(check)
        else:
            windows.append([check])
    return windows


def _guards(lines: Lines, form: Form, checks: list[Check], frame: str, data: str, name: str, other: str) -> None:
    """Goes to label `other` where a check does not hold or the frame is too short for checks or key."""
    wanted = max(form.frame_bytes, form.ip4_at + IP4_HEADER + form.ip4_bytes if form.ip4_at else 0)
    wanted = max([wanted, *(at + 1 for at, _, _ in checks)])
    if wanted:
        length = lines.load("i32", lines.at(frame, _asked("len")), 4)
        lines.do(f"br i1 {lines(f'icmp uge i32 {length}, {wanted}')}, label %long{name}, label %{other}, !prof !0")
        lines.label(f"long{name}")
    for number, window in enumerate(_windows(checks)):
        first, last = window[0][0], window[-1][0]
        size = 1 if first == last else 8
        start = max(last + 1 - size, 0)
        mask = sum(bits << 8 * (at - start) for at, bits, _ in window)
        value = sum(wants << 8 * (at - start) for at, _, wants in window)
        seen = lines(f"and i{8 * size} {lines.load(f'i{8 * size}', lines.at(data, start))}, {mask}")
        fits = lines(f"icmp eq i{8 * size} {seen}, {value}")
        lines.do(f"br i1 {fits}, label %fit{name}{number}, label %{other}, !prof !0")
        lines.label(f"fit{name}{number}")


def _key(lines: Lines, form: Form, frame: str, data: str) -> tuple[list[str], str]:
    """A frame's lanes and their hash."""
    values = [_lane(lines, lane, form, frame, data) for lane in form.lanes]
    total = "0"
    for number, value in enumerate(values):
        total = lines(f"add i64 {total}, {lines(f'mul i64 {value}, %multiplier{number}')}")
    return values, total


# ---- the table ----


def _open_table(lines: Lines, form: Form) -> None:
    for name in ("index", "entries"):
        lines.do(f"%{name} = load ptr, ptr {lines.at('%table', _table(name))}, align 8")
    lines.do(f"%shift = zext i32 {lines.load('i32', lines.at('%table', _table('shift')), 4)} to i64")
    for i in range(len(form.lanes)):
        lines.do(f"%multiplier{i} = load i64, ptr {lines.at('%table', _table('multiplier') + 8 * i)}, align 8")


def _home(lines: Lines, hashed: str) -> tuple[str, str]:
    """The bucket's address, and the tag."""
    home = lines(f"shl i64 {lines(f'lshr i64 {hashed}, %shift')}, {BUCKET_SHIFT}")
    upper = lines(f"lshr i64 {hashed}, 32")
    tag = lines(f"or i32 {lines(f'trunc i64 {upper} to i32')}, 1")
    return lines.at("%index", home), tag


def _tagged(lines: Lines, bucket: str, tag: str) -> str:
    """The entry of the first key in the bucket with that tag; else the bucket's reserved one."""
    tags = lines(f"load <8 x i32>, ptr {bucket}, align 32")
    first = lines(f"insertelement <8 x i32> poison, i32 {tag}, i64 0")
    spread = lines(f"shufflevector <8 x i32> {first}, <8 x i32> poison, <8 x i32> zeroinitializer")
    equal = lines(f"bitcast <8 x i1> {lines(f'icmp eq <8 x i32> {tags}, {spread}')} to i8")
    stopped = lines(f"or i32 {lines(f'zext i8 {equal} to i32')}, 128")
    place = lines(f"zext i32 {lines(f'call i32 @llvm.cttz.i32(i32 {stopped}, i1 true)')} to i64")
    return lines.load("i32", lines.slot(lines.at(bucket, BUCKET_ENTRY), "i32", place), 4)


def _entry(lines: Lines, form: Form, number: str) -> str:
    return lines.at("%entries", lines(f"mul i64 {lines(f'zext i32 {number} to i64')}, {form.stride}"))


def _same(lines: Lines, entry: str, values: list[str]) -> str:
    """Is it the entry of that key? An i1."""
    differ = "0"
    for number, value in enumerate(values):
        held = lines.load("i64", lines.at(entry, ENTRY_HEAD + 8 * number), 8)
        differ = lines(f"or i64 {differ}, {lines(f'xor i64 {value}, {held}')}")
    return lines(f"icmp eq i64 {differ}, 0")


# ---- exo_probe ----


def _frame(lines: Lines, i: str) -> str:
    """The address of asked[i]."""
    return lines.at("%asked", lines(f"mul nuw nsw i64 {i}, {ffi.sizeof('struct exo_asked')}"))


def _owner(lines: Lines, frame: str) -> str:
    """The address of the frame's owner."""
    return lines.slot("%owners", "i32", lines.widened("i32", lines.at(frame, _asked("place")), 4))


def _kept(lines: Lines, lane: int, i: str) -> str:
    return lines(f"getelementptr [{BURST} x i64], ptr %key, i64 {lane}, i64 {i}")


def _by_table(lines: Lines, label: str, i: str, after: str) -> None:
    """The rarer way: the table is asked for asked[i], in C."""
    lines.label(label)
    frame = _frame(lines, i)
    found, owner = lines.slot("%found", "i32", i), _owner(lines, frame)
    lines.do(f"call void @{ASK}(ptr %table, ptr {frame}, ptr {found}, ptr {owner})")
    lines.do(f"br label %{after}")


def _hash_all(lines: Lines, form: Form) -> None:
    """%live lists the frames that passed the guards, %lives counts them."""
    i = lines.loop("1", "%count")
    frame = _frame(lines, i)
    data = lines.load("ptr", lines.at(frame, _asked("data")), 8)
    lines.store("i32", NONE, lines.slot("%found", "i32", i), 4)
    _guards(lines, form, _header_checks(form), frame, data, "1", "table1" if form.ip4_at else "next1")
    values, hashed = _key(lines, form, frame, data)
    for lane, value in enumerate(values):
        lines.store("i64", value, _kept(lines, lane, i), 8)
    lines.store("i64", hashed, lines.slot("%hash", "i64", i), 8)
    lines.prefetch(_home(lines, hashed)[0])
    lives = lines.load("i64", "%lives", 8)
    lines.store("i64", i, lines.slot("%live", "i64", lives), 8)
    lines.store("i64", lines(f"add nuw nsw i64 {lives}, 1"), "%lives", 8)
    lines.do("br label %next1")
    if form.ip4_at:
        _by_table(lines, "table1", i, "next1")
    lines.close("1")


def _find_all(lines: Lines, form: Form) -> None:
    j = lines.loop("2", "%alive")
    i = lines.load("i64", lines.slot("%live", "i64", j), 8)
    number = _tagged(lines, *_home(lines, lines.load("i64", lines.slot("%hash", "i64", i), 8)))
    lines.store("i32", number, lines.slot("%first", "i32", i), 4)
    lines.prefetch(_entry(lines, form, number))
    lines.do("br label %next2")
    lines.close("2")


def _compare_all(lines: Lines, form: Form) -> None:
    """Stores the entry and its binding, or what was there again. Another bucket or tag may have the key: the table."""
    j = lines.loop("3", "%alive")
    i = lines.load("i64", lines.slot("%live", "i64", j), 8)
    values = [lines.load("i64", _kept(lines, lane, i), 8) for lane in range(len(form.lanes))]
    number = lines.load("i32", lines.slot("%first", "i32", i), 4)
    entry = _entry(lines, form, number)
    is_key = lines(f"icmp uge i32 {number}, {lib.EXO_ENTRY_FIRST}")
    hit = lines(f"and i1 {is_key}, {_same(lines, entry, values)}")
    owner = _owner(lines, _frame(lines, i))
    before, binding = lines.load("i32", owner, 4), lines.load("i32", entry, 4)
    lines.store("i32", lines(f"select i1 {hit}, i32 {binding}, i32 {before}"), owner, 4)
    found = lines(f"select i1 {hit}, i32 {number}, i32 {NONE}")
    lines.store("i32", found, lines.slot("%found", "i32", i), 4)
    perhaps = lines(f"select i1 {hit}, i32 {lib.EXO_ENTRY_NOBODY}, i32 {number}")
    doubt = lines(f"icmp ne i32 {perhaps}, {lib.EXO_ENTRY_NOBODY}")
    lines.do(f"br i1 {doubt}, label %table3, label %next3, !prof !1")
    _by_table(lines, "table3", i, "next3")
    lines.close("3")


def _probe(form: Form) -> Lines:
    lines = Lines()
    lines.do("%count = zext i32 %n to i64")
    lanes = max(len(form.lanes), 1)
    for name, size, kind in (
        ("key", lanes * BURST, "i64"),
        ("hash", BURST, "i64"),
        ("live", BURST, "i64"),
        ("first", BURST, "i32"),
    ):
        lines.do(f"%{name} = alloca [{size} x {kind}], align 64")
    lines.do("%lives = alloca i64, align 8")
    lines.store("i64", 0, "%lives", 8)
    _open_table(lines, form)
    _hash_all(lines, form)
    lines.do("%alive = load i64, ptr %lives, align 8")
    _find_all(lines, form)
    _compare_all(lines, form)
    lines.do("ret void")
    return lines


# ---- exo_glance ----


def _append(lines: Lines, places: str, count: str, i: str, kept: str) -> None:
    """Notes the frame in a list of places, which counts it where `kept` (i64) is 1; the next one overwrites it else."""
    n = lines.load("i64", count, 8)
    lines.store("i8", lines(f"trunc i64 {i} to i8"), lines.slot(lines.at(places, PLACE), "i8", n), 1)
    lines.store("i64", lines(f"add nuw nsw i64 {n}, {kept}"), count, 8)


def _glance(form: Form) -> Lines:
    """Whether an entry matches decides no branch: its number is chosen, that of the entry that owns nobody where it
    does not. (A choice between what is loaded from there LLVM makes a branch again.)
    """
    lines = Lines()
    lists = (("%missed", "%misses"), ("%aside", "%asides"))
    for _, count in lists:
        lines.do(f"{count} = alloca i64, align 8")
        lines.store("i64", 0, count, 8)
    _open_table(lines, form)
    lines.do("%count = zext i32 %n to i64")
    i = lines.loop("F", "%count")
    frame = lines.at("%frames", lines(f"mul nuw nsw i64 {i}, {ffi.sizeof('struct exo_frame')}"))
    data = lines.load("ptr", lines.at(frame, _asked("data")), 8)
    _guards(lines, form, _dispatch_checks(form) + _header_checks(form), frame, data, "F", "note_aside")
    values, hashed = _key(lines, form, frame, data)
    number = _tagged(lines, *_home(lines, hashed))
    is_key = lines(f"icmp uge i32 {number}, {lib.EXO_ENTRY_FIRST}")
    hit = lines(f"and i1 {is_key}, {_same(lines, _entry(lines, form, number), values)}")
    perhaps = lines(f"select i1 {hit}, i32 {lib.EXO_ENTRY_NOBODY}, i32 {number}")
    doubt = lines(f"icmp ne i32 {perhaps}, {lib.EXO_ENTRY_NOBODY}")
    lines.do(f"br i1 {doubt}, label %note_aside, label %sure, !prof !1")
    lines.label("sure")
    chosen = lines(f"select i1 {hit}, i32 {number}, i32 {lib.EXO_ENTRY_NOBODY}")
    owner = lines.load("i32", _entry(lines, form, chosen), 4)
    lines.store("i32", owner, lines.slot("%owners", "i32", i), 4)
    _append(lines, *lists[0], i, lines(f"zext i1 {lines(f'xor i1 {hit}, true')} to i64"))
    lines.do("br label %nextF")
    lines.label("note_aside")
    _append(lines, *lists[1], i, "1")
    lines.do("br label %nextF")
    lines.close("F")
    for places, count in lists:
        lines.store("i32", lines(f"trunc i64 {lines.load('i64', count, 8)} to i32"), places, 4)
    lines.do("ret void")
    return lines


def emit(form: Form) -> str:
    """The module's text: the functions PROBE and GLANCE; the first calls ASK of csrc."""
    table = "ptr noalias nocapture readonly %table"
    return (
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
        "declare i32 @llvm.cttz.i32(i32, i1)\n"
        f"declare void @{ASK}(ptr, ptr, ptr, ptr) nounwind cold\n"
        f"define void @{PROBE}({table}, ptr noalias nocapture readonly %asked, i32 %n, ptr noalias %found, "
        f"ptr noalias %owners) nounwind {{\nstart:\n{_probe(form)}\n}}\n"
        f"define void @{GLANCE}({table}, ptr noalias nocapture readonly %frames, i32 %n, ptr noalias %missed, "
        f"ptr noalias %aside, ptr noalias %owners) nounwind {{\nstart:\n{_glance(form)}\n}}\n"
        '!0 = !{!"branch_weights", i32 1000, i32 1}\n'
        '!1 = !{!"branch_weights", i32 1, i32 1000}\n'
    )
