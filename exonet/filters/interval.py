# SPDX-License-Identifier: MIT
"""The pass from prefixes to intervals: `portrange 1000-2000` is one conjunct, and not one for each prefix of it.

Conjuncts that differ in one field only, of which each takes a prefix, are a group; the values that any of them takes
are runs, and a group becomes one conjunct per run where that adds neither conjuncts nor shapes. Fields of which people
give ranges and prefixes (ports, addresses, the length) become intervals wherever they can, so that networks of all
prefix lengths share a shape; others only where that saves something. A conjunct has one interval: the field that
saves the most comes first.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from exonet.filters.conjunct import FRAME, LENGTH, Conjunct, Term
from exonet.filters.names import named_fields
from exonet.filters.notes import Notes
from exonet.filters.span import LENGTH_FIELD, Field, Interval
from exonet.filters.steps import Steps

#: How many single values an interval must stand for: theirs is a shape that other filters have too.
ENOUGH = 4

#: So many conjuncts are tried on a field in one step (steps.py).
JOINED = 16

Run = tuple[int, int]


@dataclass(slots=True)
class _Group:
    """Conjuncts that agree in everything but a field, and which values of it they take."""

    wanted: Field
    members: list[Conjunct] = field(default_factory=list)
    masks: set[tuple[int, tuple[Term, ...]]] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    @property
    def saved(self) -> int:
        return len(self.members) - len(self.runs)


def with_intervals(
    conjuncts: Sequence[Conjunct], steps: Steps | None = None, notes: Notes | None = None
) -> list[Conjunct]:
    """The same frames by fewer conjuncts, with intervals; those that have one already stay."""
    made = [conjunct for conjunct in conjuncts if conjunct.interval]
    rest = [conjunct for conjunct in conjuncts if not conjunct.interval]
    again = True
    while again:
        candidates = _candidates(rest)
        if steps:
            steps.take(len(rest) * (1 + len(candidates)) // JOINED)
        found = [group for wanted, usual in candidates.items() for group in _groups(rest, wanted, usual, notes)]
        found.sort(key=lambda group: -group.saved)
        used: set[int] = set()
        again = False
        for group in found:
            if any(id(member) in used for member in group.members):
                again = True
                continue
            used.update(map(id, group.members))
            pieces = [_confined(group.members[0], group.wanted, run) for run in group.runs]
            made += [piece for piece in pieces if piece]
            if notes is not None and not all(piece and piece.interval for piece in pieces):
                space, covered, _ = group.wanted.term(group.wanted.most, 0)
                notes.lose(space, covered)
        before = len(rest)
        rest = [conjunct for conjunct in rest if id(conjunct) not in used]
        rest += [conjunct for conjunct in made if not conjunct.interval]
        again = again and len(rest) < before
        made = [conjunct for conjunct in made if conjunct.interval]
    return made + rest


def _touched(space: int, terms: Sequence[Term]) -> int:
    touched = 0
    for where, mask, _ in terms:
        touched |= mask if where == space else 0
    return touched


def _candidates(conjuncts: Sequence[Conjunct]) -> dict[Field, bool]:
    """The fields that may lie in an interval, the usual ones first, and whether they are usual: those of which one is
    compared in part or excluded, or has many values.
    """
    values: dict[Field, set[int] | None] = {}
    usual: dict[Field, bool] = {}
    for conjunct in conjuncts:
        for space in (FRAME, LENGTH, conjunct.ip4_at) if conjunct.ip4_bytes else (FRAME, LENGTH):
            held, excluded = (_touched(space, terms) for terms in (conjunct.box, conjunct.excluded))
            if not held | excluded:
                continue
            for wanted, is_usual in _fields(conjunct, space, held | excluded):
                usual[wanted] = usual.get(wanted, False) or is_usual
                part = wanted.part(held)
                known = values.setdefault(wanted, set())
                if wanted.part(excluded) or part not in (0, wanted.most):
                    values[wanted] = None
                elif known is not None and part:
                    known.add(wanted.part(conjunct.bits[space][1]))
    chosen = [wanted for wanted, known in values.items() if known is None or len(known) >= ENOUGH]
    return {wanted: usual[wanted] for wanted in sorted(chosen, key=lambda wanted: not usual[wanted])}


def _note(notes: Notes, wanted: Field, groups: Iterable[_Group]) -> None:
    """By which fields conjuncts are grouped, and for which of them values are put side by side."""
    tried = notes.tried.setdefault(wanted, set())
    for group in groups:
        boxes = [member.box for member in group.members]
        tried.update(boxes)
        if len(boxes) > 1 or any(excluded for _, excluded in group.masks):
            notes.joined.setdefault(wanted, set()).update(boxes)


def _fields(conjunct: Conjunct, space: int, touched: int) -> Iterator[tuple[Field, bool]]:
    """The fields with bytes that are touched: named ones, and words and bytes that are compared in part."""
    if space == LENGTH:
        yield LENGTH_FIELD, True
        return
    yield from named_fields(conjunct.bits, space, touched)
    for offset in range((touched.bit_length() + 7) // 8):
        if touched >> 8 * offset & 0xFF not in (0, 0xFF):
            even = offset & ~1
            yield Field(space, even, 2), False
            yield from ((Field(space, start, 4), False) for start in (even, even - 2) if start >= 0)
            yield Field(space, offset, 1), False


def _groups(conjuncts: Sequence[Conjunct], wanted: Field, usual: bool, notes: Notes | None) -> list[_Group]:
    """The groups that intervals of a field make something of."""
    groups: dict[tuple[object, ...], _Group] = {}
    _, covered, _ = wanted.term(wanted.most, 0)
    for conjunct in conjuncts:
        if any(_touched(wanted.space, terms) & covered for terms in (conjunct.box, conjunct.excluded)):
            _join(groups, conjunct, wanted)
    for group in groups.values():
        group.runs = _merged(group.runs)
    if notes is not None and notes.formed is not None:
        _note(notes, wanted, groups.values())
    return [group for group in groups.values() if _gains(group, usual)]


def _join(groups: dict[tuple[object, ...], _Group], conjunct: Conjunct, wanted: Field) -> None:
    """Puts a conjunct into its group, unless what it says about the field is no prefix, or its guards do not reach."""
    if wanted.space != LENGTH:
        reaches = conjunct.frame_bytes if wanted.space == FRAME else conjunct.ip4_bytes
        if reaches < wanted.end or wanted.space not in (FRAME, conjunct.ip4_at):
            return
    parts = _without(conjunct, wanted)
    if parts is None:
        return
    mask, box, left, runs = parts
    key = (box, left, conjunct.frame_bytes, conjunct.ip4_bytes, conjunct.ip4_at)
    group = groups.setdefault(key, _Group(wanted))
    group.members.append(conjunct)
    group.masks.add((mask, tuple(term for term in conjunct.excluded if term not in left)))
    group.runs += runs


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
    """As few as may be: neighbours become one. They stay in the order in which the first of each was met: nothing that
    follows depends on which values are the lower ones, which templates rely on.
    """
    merged: list[Run] = []
    for low, high in sorted(runs):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    if len(merged) < 2:
        return merged
    starts = [low for low, _ in merged]
    return list(dict.fromkeys(merged[bisect_right(starts, low) - 1] for low, _ in runs))


def _gains(group: _Group, usual: bool) -> bool:
    """Is there an interval, without more conjuncts or shapes than there are without it?"""
    runs, most = group.runs, group.wanted.most
    single = sum(low == high for low, high in runs)
    whole = sum((low, high) == (0, most) for low, high in runs)
    shapes = (single > 0) + (whole > 0) + (len(runs) > single + whole)
    if len(runs) == single + whole or group.saved < 0 or shapes > len(group.masks):
        return False
    if group.masks == {(most, ())}:
        return len(group.members) >= ENOUGH * len(runs)
    return usual or group.saved > 0 or any(excluded for _, excluded in group.masks)


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
