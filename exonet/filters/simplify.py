# SPDX-License-Identifier: MIT
"""The pass from paths to few conjuncts: drop what a path does not need, expand ranges, merge, find intervals.

A path to a match carries every test that failed on the way (`not src port 80` before `dst port 80`). Where the program
accepts the path without such a test too, the test goes: the union stays what it was, and 12 boxes stand for `port 53`
instead of hundreds. Ranges become prefixes, so that every path is a set of boxes; the next pass (interval.py) makes
intervals of what can be one. The result may overlap itself, which conjuncts of one binding may
(R4).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from exonet.filters.box import Bits
from exonet.filters.conjunct import ETHERNET_IP4, MAX_ATOMS, Conjunct, Term
from exonet.filters.interval import with_intervals
from exonet.filters.notes import Notes
from exonet.filters.path import State
from exonet.filters.span import Field, Interval
from exonet.filters.steps import Steps, Undecomposable
from exonet.filters.value import WORD, Value
from exonet.filters.walk import Walk

MAX_CONJUNCTS = 4096
SPACE_BITS = 32 * MAX_ATOMS
GREEDY_LIMIT = 64
#: Terms that a path excludes at most because of ranges: the others of a conjunct's atoms are for its box.
MOST_HOLES = MAX_ATOMS - 8
MAX_OUTSIDE = 3
#: Breadths of one volume, and how many exclusions count.
BREADTHS = 4096
MAX_COUNTED = 1023
Masks = tuple[tuple[int, int], ...]
#: Steps (steps.py): of a conjunct that is made; and so many tables are asked, or conjuncts compared, in one.
STEPS_MADE = 6
ASKED = 8


def loosen(walk: Walk, path: State) -> State:
    """The path without the exclusions and ranges that the program does not need to accept it."""
    path = path.constraints()
    path.excluded = tuple(term for term in path.excluded if not _contradicted(path, term))
    if not path.excluded and not path.ranges:
        return path
    bare = path.constraints()
    bare.excluded, bare.ranges = (), {}
    if walk.accepts_all(bare):
        return bare
    if len(path.excluded) + len(path.ranges) > GREEDY_LIMIT:
        return path
    return _loosen_singly(walk, path.constraints())


def _contradicted(path: State, term: Term) -> bool:
    """Can it not hold, by what is known?"""
    space, mask, value = term
    known, bits = path.bits.get(space, (0, 0))
    return bool((bits ^ value) & known & mask)


def _loosen_singly(walk: Walk, path: State) -> State:
    for value in list(path.ranges):
        attempt = path.constraints()
        del attempt.ranges[value]
        if walk.accepts_all(attempt):
            path = attempt
    for term in path.excluded:
        attempt = path.constraints()
        attempt.excluded = tuple(other for other in path.excluded if other != term)
        if walk.accepts_all(attempt):
            path = attempt
    return path


def prefixes(value: Value, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Disjoint masked equalities (mask, wanted) of the value, whose union is low..high: at most 2n-2 for n bits."""

    def cut(const: int, live: int, mask: int, wanted: int) -> Iterator[tuple[int, int]]:
        if const > high or const | live < low:
            return
        if low <= const and const | live <= high:
            yield mask, wanted
            return
        top = 1 << live.bit_length() - 1
        yield from cut(const, live ^ top, mask | top, wanted)
        yield from cut(const | top, live ^ top, mask | top, wanted | top)

    yield from cut(value.const, value.live, 0, 0)


def alternatives(value: Value, low: int, high: int) -> list[tuple[list[Term], list[Term]]]:
    """Disjoint ways to say low <= value <= high, each as terms that hold and terms that do not.

    Either prefixes, or one way that excludes the prefixes outside where those are few (`port > 1023` excludes one).
    """
    inside = [value.term(*prefix) for prefix in prefixes(value, low, high)]
    outside = [value.term(*p) for ends in ((0, low - 1), (high + 1, WORD)) for p in prefixes(value, *ends)]
    if len(outside) <= MAX_OUTSIDE and len(outside) < len(inside):
        return [([], [term for term in outside if term])]
    return [([term], []) for term in inside if term]


def with_holes(paths: Sequence[State]) -> list[State]:
    """The same frames by fewer paths: those that differ only in lying below, between and above ranges become one that
    excludes the prefixes of these. Where several ranges confine a path; of one the next pass finds how it is best said.
    """
    left = list(paths)
    for value in dict.fromkeys(value for path in paths if len(path.ranges) > 1 for value in path.ranges):
        groups: dict[tuple[object, ...], list[State]] = {}
        for path in left:
            groups.setdefault(path.but_for(value), []).append(path)
        left = [path for group in groups.values() for path in _around_holes(group, value) or group]
    return left


def _around_holes(group: Sequence[State], value: Value) -> list[State]:
    """The one that several paths become; [] where they become none."""
    if len(group) < 2 or any(value not in path.ranges for path in group):
        return []
    known = value.under(group[0].bits)
    (least, low), *others = sorted(path.bounds(value) for path in group)
    holes: list[tuple[int, int]] = []
    for start, end in others:
        if low + 1 < start:
            holes += prefixes(known, low + 1, start - 1)
        low = max(low, end)
    terms = {term: None for path in group for term in path.excluding(value)}
    whole = (least, low) == (known.const, known.const | known.live)
    if not whole or any(_may_have(path, value, term) for path in group for term in terms if term not in path.excluded):
        return []
    terms |= {term: None for hole in holes if (term := value.term(*hole))}
    one = group[0].constraints()
    one.excluded = tuple(term for term in one.excluded if term not in terms)
    if len(terms) + len(one.excluded) > MOST_HOLES:
        return []
    one = one.constraints()
    del one.ranges[value]
    for path in group:
        one.made |= path.made
    return [one] if all(one.exclude(term) for term in terms) else []


def _may_have(path: State, value: Value, term: Term) -> bool:
    """May a frame of the path have what the term says of the value?"""
    field = Field(*value[:3])
    reach = field.reach(field.part(term[1]), field.part(term[2])) if value == Value(*field, field.most) else None
    low, high = path.bounds(value)
    return reach is None or (low <= reach[1] and reach[0] <= high)


def whole_range(path: State) -> tuple[State, Interval | None]:
    """The path without the range of the most prefixes, and that one as an interval. Only of several: prefixes of two
    fields are a product, and of one the next pass finds how they are best put together.
    """
    found: list[tuple[int, Value, Interval]] = []
    for value, (low, high) in path.ranges.items() if len(path.ranges) > 1 else ():
        field = Field(*value[:3])
        _, covered, _ = field.term(field.most, 0)
        known, _ = path.bits.get(field.space, (0, 0))
        touched = any(space == field.space and mask & covered for space, mask, _ in path.excluded)
        count = len(alternatives(value, low, high))
        if count > 1 and value == Value(*field, field.most) and not touched and not known & covered:
            found.append((count, value, Interval(field, low, min(high, field.most))))
    if not found:
        return path, None
    _, value, interval = max(found, key=lambda each: each[0])
    rest = path.constraints()
    del rest.ranges[value]
    return rest, interval


def boxes(path: State) -> Iterator[tuple[dict[int, tuple[int, int]], tuple[Term, ...]]]:
    """The boxes of a path's known bits and ranges, with what each excludes."""
    if not path.ranges:
        yield path.bits, path.excluded
        return
    value, (low, high) = next(iter(path.ranges.items()))
    for held, excluded in alternatives(value.under(path.bits), low, high):
        narrowed = path.constraints()
        del narrowed.ranges[value]
        if all(narrowed.fix(term) for term in held) and all(narrowed.exclude(term) for term in excluded):
            yield from boxes(narrowed)


def conjuncts_of(path: State, steps: Steps) -> Iterator[Conjunct]:
    """The conjuncts of one path."""
    at, ip4_bytes = path.ip4 or (ETHERNET_IP4, 0)
    path, interval = whole_range(path)
    for bits, excluded in boxes(path):
        steps.take(STEPS_MADE + len(excluded))
        conjunct = Conjunct.of(
            bits, excluded, interval=interval, frame_bytes=path.frame_bytes, ip4_bytes=ip4_bytes, ip4_at=at
        )
        if conjunct is not None:
            yield from fit(conjunct, steps)


def fit(conjunct: Conjunct, steps: Steps) -> Iterator[Conjunct]:
    """The conjunct, cut bit by bit along exclusions until it fits the atoms of the demux."""
    if len(conjunct.atoms) + len(conjunct.excluded) + len(conjunct.programs) <= MAX_ATOMS:
        yield conjunct
        return
    if not conjunct.excluded or len(conjunct.atoms) > MAX_ATOMS:
        raise Undecomposable(f"it compares {len(conjunct.atoms)} words of a frame; at most {MAX_ATOMS} are possible")
    term = min(conjunct.excluded, key=lambda t: (t[1].bit_count(), t))
    for piece in complement(term):
        steps.take(STEPS_MADE + len(conjunct.excluded))
        cut = narrowed_to(conjunct, piece, without=term)
        if cut is not None:
            yield from fit(cut, steps)


def complement(term: Term) -> Iterator[Term]:
    """Disjoint boxes that are everything but the term: the bits before agree, this one does not."""
    space, mask, value = term
    before = 0
    while mask & ~before:
        bit = mask & ~before & -(mask & ~before)
        yield (space, before | bit, value & before | (value & bit ^ bit))
        before |= bit


def narrowed_to(conjunct: Conjunct, term: Term, without: Term) -> Conjunct | None:
    """The conjunct where a term holds as well, one exclusion less."""
    space, mask, value = term
    bits = conjunct.bits
    known = bits.get(space, (0, 0))
    if (known[1] ^ value) & known[0] & mask:
        return None
    bits[space] = (known[0] | mask, known[1] | value)
    return Conjunct.of(
        bits,
        (other for other in conjunct.excluded if other != without),
        interval=conjunct.interval,
        frame_bytes=conjunct.frame_bytes,
        ip4_bytes=conjunct.ip4_bytes,
        ip4_at=conjunct.ip4_at,
    )


def drop_contained(conjuncts: Iterable[Conjunct], steps: Steps | None = None) -> list[Conjunct]:
    """Without those that lie within another."""
    kept: list[Conjunct] = []
    tables: dict[Masks, dict[tuple[int, ...], list[Conjunct]]] = {}  # those kept, by their masks and values
    for conjunct in sorted(dict.fromkeys(conjuncts), key=lambda c: (c.specificity, *_structure(c))):
        if steps:
            steps.take(1 + len(tables) // ASKED)
        if any(other.contains(conjunct) for other in _around(conjunct.known, tables, steps)):
            continue
        kept.append(conjunct)
        masks = tuple((space, mask) for space, mask, _ in conjunct.box)
        values = tuple(value for _, _, value in conjunct.box)
        tables.setdefault(masks, {}).setdefault(values, []).append(conjunct)
    return kept


def _around(
    known: Bits, tables: dict[Masks, dict[tuple[int, ...], list[Conjunct]]], steps: Steps | None
) -> Iterator[Conjunct]:
    """Those whose boxes hold for every frame of which this is known."""
    for masks, table in tables.items():
        values = []
        for space, mask in masks:
            bits = known.get(space, (0, 0))
            if mask & ~bits[0]:
                break
            values.append(bits[1] & mask)
        else:
            found = table.get(tuple(values), ())
            if steps:
                steps.take(len(found) // ASKED)
            yield from found


def _structure(conjunct: Conjunct) -> tuple[Any, ...]:
    """All but values: whatever follows an order by this does not depend on them, which templates rely on."""
    interval = conjunct.interval
    return (
        len(conjunct.excluded),
        conjunct.frame_bytes,
        conjunct.ip4_bytes,
        [term[:2] for term in conjunct.box],
        interval.field if interval else (),
        [term[:2] for term in conjunct.excluded],
    )


def _form(conjunct: Conjunct) -> tuple[object, ...]:
    masks = tuple((space, mask) for space, mask, _ in conjunct.box)
    return masks, conjunct.excluded, conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at, conjunct.interval


def merge_siblings(
    conjuncts: Sequence[Conjunct], steps: Steps | None = None, notes: Notes | None = None
) -> list[Conjunct]:
    """Halves a set of boxes of one form wherever every one of them has its sibling across a bit.

    Only whole sets are merged: values cost a demux next to nothing, but a set merged in part would add a shape.
    """
    groups: dict[tuple[object, ...], list[Conjunct]] = {}
    for conjunct in conjuncts:
        groups.setdefault(_form(conjunct), []).append(conjunct)
    return [conjunct for group in groups.values() for conjunct in _merge_group(group, steps, notes)]


def _merge_group(group: list[Conjunct], steps: Steps | None, notes: Notes | None) -> list[Conjunct]:
    merged = True
    while merged and len(group) > 1 and len(group) % 2 == 0:
        merged = False
        for space, mask, _ in group[0].box:
            while mask:
                bit = mask & -mask
                mask ^= bit
                if steps:
                    steps.take(1 + len(group) // ASKED)
                half = _merge_across(group, space, bit)
                if half is not None:
                    group, merged = half, True
                    if notes:
                        notes.lose(space, bit)
                    break
            if merged:
                break
    return group


def _merge_across(group: list[Conjunct], space: int, bit: int) -> list[Conjunct] | None:
    boxes_seen = {conjunct.box for conjunct in group}
    half: dict[Conjunct, None] = {}
    for conjunct in group:
        flipped = tuple((s, m, v ^ bit if s == space else v) for s, m, v in conjunct.box)
        if flipped not in boxes_seen:
            return None
        box = tuple((s, m & ~bit, v & ~bit) if s == space else (s, m, v) for s, m, v in conjunct.box)
        half[replace(conjunct, box=tuple(term for term in box if term[1]))] = None
    return list(half)


def volume_of(conjunct: Conjunct, size: int | None = None) -> int:
    """How many of 2**SPACE_BITS headers the conjunct takes, exclusions taken as independent. size: of its interval,
    where that is not as it is.
    """
    interval = conjunct.interval
    open_bits = SPACE_BITS - conjunct.fixed_bits - (interval.field.width if interval else 0)
    volume = (size or interval.size if interval else 1) << max(open_bits, 0)
    for _, mask, _ in conjunct.excluded:
        volume -= volume >> mask.bit_count()
    return volume


def breadth_of(volume: int, excluded: int) -> int:
    """Of a filter of that volume whose conjuncts exclude so many terms."""
    scale = round(1024 * math.log2(volume)) if volume else 0
    return scale * BREADTHS + BREADTHS // 2 - min(excluded, MAX_COUNTED)


def with_breadth(conjuncts: Sequence[Conjunct]) -> tuple[Conjunct, ...]:
    """Every conjunct with the breadth of the whole filter: how many headers it takes, then how few it excludes. There
    are numbers left above and below, for filters that are nested and differ by less (`kernel/nesting.py`). Those that
    are alike but for values stay in the order of the paths that they come from.
    """
    volume = sum(volume_of(conjunct) for conjunct in conjuncts)
    breadth = breadth_of(volume, sum(len(conjunct.excluded) for conjunct in conjuncts))
    ordered = sorted(conjuncts, key=lambda c: (c.rank, *_structure(c)))
    return tuple(replace(conjunct, breadth=breadth) for conjunct in ordered)


def simplify(walk: Walk) -> tuple[Conjunct, ...]:
    """The program's conjuncts, the most specific first. Undecomposable with the reason."""
    steps, notes = walk.steps, walk.uses.notes
    taken: list[State] = []
    for path in list(walk.paths()):
        if path.ranges:
            steps.take(len(taken) // ASKED)
            if any(path.within(other) for other in taken):
                continue
        taken.append(loosen(walk, path))
    found: dict[Conjunct, int] = {}  # and which comparisons its paths have made
    for path in with_holes(taken):
        for conjunct in conjuncts_of(path, steps):
            found[conjunct] = found.get(conjunct, 0) | path.made
            if len(found) > MAX_CONJUNCTS:
                raise Undecomposable(f"it takes more than {MAX_CONJUNCTS} conjuncts")
    notes.form(found)
    few = drop_contained(merge_siblings(drop_contained(found, steps), steps, notes), steps)
    return with_breadth(drop_contained(with_intervals(few, steps, notes), steps))
