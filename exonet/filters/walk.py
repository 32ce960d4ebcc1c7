# SPDX-License-Identifier: MIT
"""The pass from classic BPF to paths: a symbolic walk over A, X and M[], path by path.

A path is what a frame must satisfy for the program to take that way to an accepting return: known bits, excluded
terms, ranges of fields, and the captured bytes that its loads need (a load beyond them makes a BPF program return 0,
so every load on the path adds to the guards). Ways that cannot be taken are pruned. `Walk.accepts_all` asks the
program itself whether every frame of a path is accepted; simplify.py uses it to drop what a path does not need.

What does not decompose raises `Undecomposable` with the reason: loops, too many ways. Where two fields are compared
or combined, or an offset depends on many values, the path ends with the program's own verdict as one more bit.
"""

import struct
from collections.abc import Callable, Iterator, Sequence

from exonet.abi import lib
from exonet.filters.conjunct import FRAME, LENGTH, Term
from exonet.filters.lane import lane_of
from exonet.filters.libpcap import Instruction
from exonet.filters.path import NOTHING, Range, State
from exonet.filters.span import program_space
from exonet.filters.steps import MAX_QUESTION_STEPS, Steps, Undecomposable
from exonet.filters.uses import Uses
from exonet.filters.value import WORD, Value, constant, difference, operate

MAX_PATHS = 4096
MAX_SPLIT = 5  # bits of a field that two fields combine by
MAX_OFFSET = 5  # bits of a field that says an offset: each of its values is a shape
MAX_TRIED = 8  # bits of a field whose values are tried one by one
MAX_FRAME = 65535
MAX_PROGRAM: int = lib.EXO_MAX_PROGRAM

_CLASS = ("ld", "ldx", "st", "stx", "alu", "jmp", "ret", "misc")
_ALU = ("add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor")
_JUMP = ("ja", "jeq", "jgt", "jge", "jset")
_SIZE = {0x00: 4, 0x08: 2, 0x10: 1}
#: What is computed of too many bits to be followed. It may be carried along; who asks for it entangles the path.
_MANY = Value(space=1 << 64, size=64, mask=(1 << 512) - 1)


class _Entangled(Undecomposable):
    """What follows is no comparison of a field with a number: the program itself has to be asked."""


Guards = tuple[int, tuple[int, int] | None]


def _ip4_header(value: Value) -> int | None:
    """Where the IPv4 header begins whose length in bytes this value is; None: it is something else."""
    fits = value.space == FRAME and value.size == 1 and value.mask == 0x0F and value.shift == 2
    return value.offset if fits and not value.flip and not value.const else None


def _intervals(low: int, high: int, addend: int) -> Iterator[Range]:
    """Where `field + addend` (modulo 2**32) lies in low..high, as intervals of the field."""
    if low > high:
        return
    start, end = (low - addend) & WORD, (high - addend) & WORD
    if start <= end:
        yield start, end
    else:
        yield 0, end
        yield start, WORD


class Walk:
    """A program to be walked: first all of `paths`, the accepting ways, disjoint; then questions about them."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        self._program = program
        self.steps = Steps()  # of the whole decomposition
        self._questions = Steps(MAX_QUESTION_STEPS, self.steps)
        self._accepting = _accepting(program)
        self.uses = Uses()
        self._verdict = program_space(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
        for i, instruction in enumerate(program):
            if instruction.code == 0x05 and instruction.k >= 1 << 31:
                raise Undecomposable(f"instruction {i} loops: how deep it looks into a frame is not bounded")

    def paths(self) -> Iterator[State]:
        found = 0
        for state, accepted in self._leaves(State(), None, self.steps):
            if accepted:
                found += 1
                if found > MAX_PATHS:
                    raise Undecomposable(f"more than {MAX_PATHS} ways lead to a match")
                self.uses.accept(state.made, state.bits, state.ip4)
                yield state

    def ways(self, steps: Steps) -> Iterator[State]:
        """The ways to a return, accepting or not."""
        for state, _ in self._leaves(State(), None, steps):
            yield state

    def accepts_all(self, start: State) -> bool:
        """Is every frame of `start` accepted, without a load beyond its guards? False also where that is not known,
        or where too much has been asked.
        """
        guards = start.frame_bytes, start.ip4
        try:
            return all(accepted for _, accepted in self._leaves(start.constraints(), guards, self._questions))
        except Undecomposable:
            return False

    def _leaves(self, start: State, guards: Guards | None, steps: Steps) -> Iterator[tuple[State, bool]]:
        """Every return that can be reached. With `guards`, a load beyond them counts as a refusing return."""
        pending = [start]
        while pending:
            state = pending.pop()
            accepted: bool | None = None
            while accepted is None:
                steps.take()
                more = self._followed(state, asking=guards is not None)
                if isinstance(more, bool):
                    accepted = more
                    break
                if not more:
                    break
                steps.take(len(more) - 1)
                state = more[0]
                pending.extend(more[1:])
                if guards and (state.frame_bytes > guards[0] or (state.ip4 and state.ip4 != guards[1])):
                    accepted = False
            if accepted is not None:
                yield state, accepted

    def _followed(self, state: State, *, asking: bool) -> list[State] | bool:
        """One instruction. Where its outcome cannot be said of fields one by one, the way ends here: of the frames that
        come so far those match that the program takes. Asked about all of them, that is a no, unless they are those.
        """
        try:
            return self._step(state, self._program[state.pc])
        except _Entangled:
            if len(self._program) > MAX_PROGRAM:
                raise
            return self._verdict in state.bits if asking else state.fix((self._verdict, 1, 1))

    def _step(self, state: State, instruction: Instruction) -> list[State] | bool:
        """One instruction: the states after it, or the verdict of a return."""
        kind = _CLASS[instruction.code & 7]
        if kind in ("st", "stx", "misc"):
            self.uses.work(state.x if kind == "stx" or instruction.code & 0x80 else state.a)
        if kind in ("ld", "ldx"):
            return self._load(state, instruction, kind)
        if kind == "alu":
            return self._alu(state, instruction)
        if kind == "jmp":
            return self._jump(state, instruction)
        if kind == "ret":
            return self._return(state, instruction)
        if kind == "st":
            state.memory[instruction.k] = state.a
        elif kind == "stx":
            state.memory[instruction.k] = state.x
        elif instruction.code & 0x80:
            state.a = state.x
        else:
            state.x = state.a
        state.pc += 1
        return [state]

    def _return(self, state: State, instruction: Instruction) -> list[State] | bool:
        if instruction.code & 0x18 == 0x10:
            self.uses.work(state.a)
            value = state.a.under(state.bits)
            if not value.is_constant:
                raise Undecomposable("it returns a computed number")
            return value.const != 0
        return instruction.k != 0

    # -- loads --

    def _load(self, state: State, instruction: Instruction, kind: str) -> list[State] | bool:
        mode, size = instruction.code & 0xE0, _SIZE.get(instruction.code & 0x18, 4)
        k = instruction.k
        if mode == 0xA0:
            return self._at(state, k, 1, lambda loaded: _msh(state, loaded))
        if mode == 0x00:
            value = constant(k)
        elif mode == 0x60:
            value = state.memory.get(k, NOTHING)
        elif mode == 0x80:
            value = Value(space=LENGTH, size=4, mask=WORD)
        elif mode == 0x20:
            return self._at(state, k, size, lambda loaded: _put_a(state, loaded))
        else:
            return self._indirect(state, k, size)
        if kind == "ld":
            state.a = value
        else:
            state.x = value
        state.pc += 1
        return [state]

    def _at(self, state: State, offset: int, size: int, put: Callable[[Value], None]) -> list[State] | bool:
        """A load at a fixed offset of the frame."""
        if offset + size > MAX_FRAME:
            return False
        state.frame_bytes = max(state.frame_bytes, offset + size)
        put(Value(FRAME, offset, size, (1 << 8 * size) - 1))
        state.pc += 1
        return [state]

    def _indirect(self, state: State, k: int, size: int) -> list[State] | bool:
        index = state.x.under(state.bits)
        if index.is_constant:
            self.uses.work(state.x)
            offset = (index.const + index.addend & WORD) + k  # which does not wrap
            return self._at(state, offset, size, lambda loaded: _put_a(state, loaded))
        at = _ip4_header(state.x._replace(addend=0))
        if at is not None and max(k, state.x.addend) <= MAX_FRAME and (state.ip4 is None or state.ip4[0] == at):
            offset = state.x.addend + k - at
            if offset >= 0 and offset + size <= MAX_FRAME:
                state.ip4 = (at, max(offset + size, state.ip4[1] if state.ip4 else 0))
                _put_a(state, Value(at, offset, size, (1 << 8 * size) - 1))
                state.pc += 1
                return [state]
        self.uses.work(state.x)
        return self._split(state, index, f"it looks at an offset that depends on {_name(index)}", MAX_OFFSET)

    def _split(self, state: State, value: Value, why: str, most: int = MAX_SPLIT) -> list[State]:
        """One state for each value of a field of at most so many bits, all at the same instruction."""
        if value.width > most:
            raise _Entangled(f"{why}, which has 2**{value.width} values")
        states = []
        for term in value.points():
            branch = state.copy()
            if branch.fix(term):
                states.append(branch)
        return states

    # -- arithmetic --

    def _alu(self, state: State, instruction: Instruction) -> list[State] | bool:
        operation = _ALU[instruction.code >> 4]
        by_x = bool(instruction.code & 0x08)
        if state.a == _MANY or (by_x and state.x == _MANY):
            return self._lost(state, operation, by_x)
        a = state.a.under(state.bits)
        if instruction.code & 0x08:
            self.uses.work(state.x)
        if instruction.code & 0x08 or operation != "and" or a.is_constant or lane_of(state.a) is None:
            self.uses.work(state.a)
        x = state.x.under(state.bits) if instruction.code & 0x08 else constant(instruction.k)
        if operation == "neg":
            if not a.is_constant:
                return self._split(state, a, f"it negates {_name(a)}", MAX_TRIED)
            state.a = constant(-(a.const + a.addend))
            state.pc += 1
            return [state]
        left, right = (a, x) if a.is_constant else (state.a, x)  # unresolved: an IPv4 header length stays recognisable
        if a.is_constant and not x.is_constant and operation in ("add", "and", "or", "xor", "mul"):
            left, right = state.x, a
        if not right.is_constant:
            narrow, *_, wide = sorted((v if not v.is_constant else x for v in (a, x)), key=lambda v: v.width)
            behind = _ip4_header(narrow._replace(addend=0)) is not None and MAX_OFFSET < wide.width <= MAX_TRIED
            if narrow.width > MAX_SPLIT or behind:  # behind options: a shape for each pair of lengths
                return self._lost(state, operation, by_x)
            return self._split(state, narrow, f"it combines {_name(a)} with {_name(x)}")
        number = right.const + right.addend & WORD
        if operation in ("div", "mod") and not number:
            return False
        result = operate(operation, left, number)
        if result is None and left.under(state.bits).width > MAX_TRIED:
            return self._lost(state, operation, by_x)
        if result is None:
            why = f"it computes {operation} {number} on {_name(left)}"
            return self._split(state, left.under(state.bits), why, MAX_TRIED)
        state.a = result
        state.pc += 1
        return [state]

    def _lost(self, state: State, operation: str, by_x: bool) -> list[State]:
        """A becomes what is not followed."""
        self.uses.work(state.a)
        self.uses.work(state.x)
        if operation in ("div", "mod") and by_x:
            raise _Entangled(f"it divides by {_name(state.x)}")  # which refuses the frame where that is zero
        state.a = _MANY
        state.pc += 1
        return [state]

    # -- jumps --

    def _jump(self, state: State, instruction: Instruction) -> list[State] | bool:
        operation = _JUMP[instruction.code >> 4]
        if operation == "ja":
            state.pc += 1 + instruction.k
            return [state]
        yes, no = state.pc + 1 + instruction.jt, state.pc + 1 + instruction.jf
        if yes == no:
            state.pc = yes
            return [state]
        if _MANY in (state.a, state.x if instruction.code & 0x08 else None):
            raise _Entangled("it compares what it computed of several fields")
        x = state.x.under(state.bits) if instruction.code & 0x08 else constant(instruction.k)
        a = state.a.under(state.bits)
        if instruction.code & 0x08:
            self.uses.work(state.x)
        if operation != "jeq" or instruction.code & 0x08:
            self.uses.work(state.a)
        else:
            state.made = self.uses.compare(state.a, state.pc, state.made)
        if not x.is_constant:
            return self._against(state, operation, (a, x), yes, no)
        number = x.const + x.addend & WORD
        if a.is_constant:
            state.pc = yes if _decide(operation, a.const + a.addend & WORD, number) else no
            return [state]
        return self._compare(state, state.a, operation, number, yes, no)

    def _against(self, state: State, operation: str, sides: tuple[Value, Value], yes: int, no: int) -> list[State]:
        """A jump that compares A with an X that is no constant: turned round where A is, or both from one load."""
        a, x = sides
        if a.is_constant:
            number = a.const + a.addend & WORD
            if operation in ("jgt", "jge"):
                return self._compare(state, state.x, "jge" if operation == "jgt" else "jgt", number, no, yes)
            return self._compare(state, state.x, operation, number, yes, no)
        if a == x and operation != "jset":
            state.pc = no if operation == "jgt" else yes
            return [state]
        differing = difference(a, x)
        if operation == "jeq" and differing is not None:
            if differing.is_constant:
                state.pc = no if differing.const else yes
                return [state]
            return self._compare(state, differing, "jeq", 0, yes, no)
        narrow = min(sides, key=lambda v: v.width)
        same = a[:3] == x[:3]
        return self._split(state, narrow, f"it compares {_name(a)} with {_name(x)}", MAX_TRIED if same else MAX_SPLIT)

    def _compare(self, state: State, value: Value, operation: str, number: int, yes: int, no: int) -> list[State]:
        """Both ways of a value's comparison with a number."""
        if operation == "jeq":
            return self._equal(state, value, number, yes, no)
        if operation == "jset":
            return self._set(state, value, number, yes, no)
        return self._greater(state, value, number + (operation == "jgt"), yes, no)

    def _equal(self, state: State, value: Value, number: int, yes: int, no: int) -> list[State]:
        low, high = state.bounds(value)
        wanted = (number - value.addend) & WORD
        term = value._replace(addend=0).term(WORD, wanted) if low <= wanted <= high else None
        if term is None:
            state.pc = no
            return [state]
        return self._fork(state, yes, no, term)

    def _fork(self, state: State, holds: int, fails: int, term: Term) -> list[State]:
        """Both ways of a masked equality, as far as they can be taken."""
        other = state.copy()
        state.pc, other.pc = holds, fails
        states = [state] if state.fix(term) else []
        if other.exclude(term, self._accepting[holds]):
            states.append(other)
        return states

    def _set(self, state: State, value: Value, number: int, yes: int, no: int) -> list[State]:
        if value.addend:
            why = f"it tests bits of a sum with {_name(value)}"
            return self._split(state, value.under(state.bits), why, MAX_TRIED)
        term = value.term(number, 0)
        if term is None:
            state.pc = yes
            return [state]
        return self._fork(state, no, yes, term)

    def _greater(self, state: State, value: Value, number: int, yes: int, no: int) -> list[State]:
        """value >= number."""
        states = []
        for pc, low, high in ((yes, number, WORD), (no, 0, number - 1)):
            for interval in _intervals(low, high, value.addend):
                branch = state.copy()
                branch.pc = pc
                if branch.confine(value, *interval):
                    states.append(branch)
        return states


def _msh(state: State, loaded: Value) -> None:
    state.x = loaded._replace(mask=0x0F, shift=2)


def _put_a(state: State, loaded: Value) -> None:
    state.a = loaded


def _decide(operation: str, a: int, k: int) -> bool:
    return {"jeq": a == k, "jgt": a > k, "jge": a >= k, "jset": a & k != 0}[operation]


def _accepting(program: Sequence[Instruction]) -> list[bool]:
    """By instruction: is it a return that accepts, or a jump to one?"""
    found = [False] * len(program)
    for pc in range(len(program) - 1, -1, -1):
        code, _, _, k = program[pc]
        found[pc] = bool(k) if code == 0x06 else code == 0x05 and pc + 1 + k < len(program) and found[pc + 1 + k]
    return found


def _name(value: Value) -> str:
    if value.is_constant:
        return f"the number {value.const}"
    if value == _MANY:
        return "what it computed of several fields"
    if value.space == LENGTH:
        return "the frame's length"
    where = f"[{value.offset}:{value.size}]"
    place = f"frame{where}" if value.space == FRAME else f"{where} after the IPv4 header"
    full = (1 << 8 * value.size) - 1
    return place if value.mask == full else f"{place} & {value.mask:#x}"
