# SPDX-License-Identifier: MIT
"""The pass from prefixes to intervals: `portrange 1000-2000` is one conjunct, and not one for each prefix of it.

Conjuncts that differ in one field only, of which each takes a prefix, are a group; the values that any of them takes
are runs, and a group becomes one conjunct per run where that adds neither conjuncts nor shapes. Fields of which people
give ranges and prefixes (ports, addresses, the length) become intervals wherever they can, so that networks of all
prefix lengths share a shape; others only where that saves something. A conjunct has one interval: the field that
saves the most comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exonet.filters.conjunct import FRAME, LENGTH, Conjunct, Term
from exonet.filters.names import named_fields
from exonet.filters.span import LENGTH_FIELD, Field, Interval

#: How many single values an interval must stand for: theirs is a shape that other filters have too.
ENOUGH = 4

Run = tuple[int, int]


@dataclass(slots=True)
class _Group:
    """Conjuncts that agree in everything but a field, and which values of it they take."""

    members: list[Conjunct] = field(default_factory=list)
    masks: set[tuple[int, tuple[Term, ...]]] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)


@dataclass(slots=True)
class _Attempt:
    """What intervals of one field would make of the conjuncts."""

    made: list[Conjunct]
    rest: list[Conjunct]
    saved: int


def with_intervals(conjuncts: Sequence[Conjunct]) -> list[Conjunct]:
    """The same frames by fewer conjuncts, with intervals."""
    made: list[Conjunct] = []
    rest = list(conjuncts)
    while rest:
        best: _Attempt | None = None
        for wanted, usual in _candidates(rest).items():
            attempt = _attempt(rest, wanted, usual)
            if attempt.made and (best is None or attempt.saved > best.saved):
                best = attempt
        if best is None:
            break
        made += best.made
        rest = best.rest
    return made + rest


def _candidates(conjuncts: Sequence[Conjunct]) -> dict[Field, bool]:
    """The fields that may lie in an interval, the usual ones first, and whether they are usual."""
    usual: dict[Field, bool] = {}
    others: dict[Field, bool] = {}
    for conjunct in conjuncts:
        spaces = (FRAME, conjunct.ip4_at) if conjunct.ip4_bytes else (FRAME,)
        if any(space == LENGTH for space, _, _ in (*conjunct.box, *conjunct.excluded)):
            usual[LENGTH_FIELD] = True
        for space in spaces:
            for found, is_usual in named_fields(conjunct.bits, space):
                (usual if is_usual else others).setdefault(found, is_usual)
        for found in _unnamed(conjunct):
            others.setdefault(found, False)
    return {**usual, **{wanted: False for wanted in others if wanted not in usual}}


def _unnamed(conjunct: Conjunct) -> Iterator[Field]:
    """Words and bytes with a byte that is compared in part: there a prefix may end."""
    for space, mask, _ in (*conjunct.box, *conjunct.excluded):
        for offset in range((mask.bit_length() + 7) // 8 if space != LENGTH else 0):
            if mask >> 8 * offset & 0xFF not in (0, 0xFF):
                yield from (Field(space, offset & ~1, 2), Field(space, offset & ~3, 4), Field(space, offset, 1))
                yield Field(space, (offset & ~1) - 2 if offset & 2 == 0 and offset >= 2 else offset & ~1, 4)


def _attempt(conjuncts: Sequence[Conjunct], wanted: Field, usual: bool) -> _Attempt:
    groups: dict[tuple[object, ...], _Group] = {}
    attempt = _Attempt([], [], 0)
    for conjunct in conjuncts:
        key = _join(groups, conjunct, wanted)
        if key is None:
            attempt.rest.append(conjunct)
    for group in groups.values():
        runs = _merged(group.runs)
        if not _gains(group, runs, wanted, usual):
            attempt.rest += group.members
            continue
        attempt.saved += len(group.members) - len(runs)
        for run in runs:
            found = _confined(group.members[0], wanted, run)
            if found is not None:
                (attempt.made if found.interval else attempt.rest).append(found)
    return attempt


def _join(groups: dict[tuple[object, ...], _Group], conjunct: Conjunct, wanted: Field) -> _Group | None:
    """Puts a conjunct into its group. None: what it says about the field is no prefix, or its guards do not reach."""
    reaches = conjunct.frame_bytes if wanted.space == FRAME else conjunct.ip4_bytes
    behind = wanted.space not in (FRAME, LENGTH)
    if wanted.space != LENGTH and (reaches < wanted.end or (behind and conjunct.ip4_at != wanted.space)):
        return None
    parts = _without(conjunct, wanted)
    if parts is None:
        return None
    mask, box, apart_from, runs = parts
    key = (box, apart_from, conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at)
    group = groups.setdefault(key, _Group())
    group.members.append(conjunct)
    group.masks.add((mask, tuple(term for term in conjunct.excluded if term not in apart_from)))
    group.runs += runs
    return group


def _without(conjunct: Conjunct, wanted: Field) -> tuple[int, tuple[Term, ...], tuple[Term, ...], list[Run]] | None:
    """The mask of the field, box and exclusions without it, and the values that it may have; None: no prefix."""
    known = conjunct.bits.get(wanted.space, (0, 0))
    mask, value = (wanted.part(bits) for bits in known)
    reach = wanted.reach(mask, value)
    if reach is None:
        return None
    _, covered, _ = wanted.term(wanted.most, 0)
    box = tuple(
        (s, m & ~covered, v & ~covered) if s == wanted.space else (s, m, v)
        for s, m, v in conjunct.box
        if s != wanted.space or m & ~covered
    )
    runs, left = [reach], []
    for term in conjunct.excluded:
        hole = None
        if term[0] == wanted.space and not term[1] & ~covered:
            hole = wanted.reach(wanted.part(term[1]) | mask, wanted.part(term[2]) | value)
        if hole is None:
            left.append(term)
        else:
            runs = [piece for run in runs for piece in _minus(run, hole)]
    return mask, box, tuple(left), runs


def _minus(run: Run, hole: Run) -> Iterator[Run]:
    if run[0] < hole[0]:
        yield run[0], min(run[1], hole[0] - 1)
    if hole[1] < run[1]:
        yield max(run[0], hole[1] + 1), run[1]


def _merged(runs: Sequence[Run]) -> list[Run]:
    """As few as may be: neighbours become one."""
    merged: list[Run] = []
    for low, high in sorted(runs):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _gains(group: _Group, runs: Sequence[Run], wanted: Field, usual: bool) -> bool:
    """Is there an interval, without more conjuncts or shapes than there are without it?"""
    single = sum(low == high for low, high in runs)
    whole = sum((low, high) == (0, wanted.most) for low, high in runs)
    shapes = (single > 0) + (whole > 0) + (len(runs) > single + whole)
    if len(runs) == single or len(runs) > len(group.members) or shapes > len(group.masks):
        return False
    if group.masks == {(wanted.most, ())}:
        return len(group.members) >= ENOUGH * len(runs)
    excludes = any(excluded for _, excluded in group.masks)
    return usual or excludes or len(runs) < len(group.members)


def _confined(member: Conjunct, wanted: Field, run: Run) -> Conjunct | None:
    """The group's conjunct for a run of values."""
    parts = _without(member, wanted)
    assert parts is not None  # it is a member
    _, box, excluded, _ = parts
    return Conjunct.of(
        {space: (mask, value) for space, mask, value in box},
        excluded,
        interval=Interval(wanted, *run),
        frame_bytes=member.frame_bytes,
        ip4_bytes=member.ip4_bytes,
        ip4_at=member.ip4_at,
    )
