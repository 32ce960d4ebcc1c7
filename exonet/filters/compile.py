# SPDX-License-Identifier: MIT
"""The filter compiler's driver: source to text to classic BPF to paths to conjuncts.

    syntax.py    which language it is; Python expressions become pcap-filter text (fields.py)
    libpcap.py   text to a classic BPF program, by the library that everybody's filters are written for
    optimiser.py which of its two programs that is, the optimised one or, where that is wrong, the other
    walk.py      program to paths: what a frame must satisfy to be accepted
    simplify.py  paths to few canonical conjuncts (conjunct.py)
    interval.py  ranges and prefixes among them to intervals (span.py)
    template.py  or, where but values are new, the conjuncts of a program known before with these filled in: uses.py
                 says which values those are, outline.py where they stand, ranged.py what of ranges

So a filter means exactly what libpcap says it means (R5). FilterError: it does not parse, or does not
decompose.
"""

from dataclasses import dataclass

from exonet.errors import FilterError, UndecomposableError
from exonet.filters.conjunct import Conjunct
from exonet.filters.fields import Expression
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.names import fixed_value
from exonet.filters.optimiser import compile_checked
from exonet.filters.simplify import simplify
from exonet.filters.steps import Undecomposable
from exonet.filters.syntax import misspelt, to_pcap
from exonet.filters.template import Filled, Templates
from exonet.filters.walk import Walk
from exonet.wording import shown


@dataclass(frozen=True, slots=True)
class CompiledFilter:
    """A filter: the text libpcap compiled, what was written, and its conjuncts, the most specific first."""

    text: str
    source: str
    conjuncts: tuple[Conjunct, ...]

    def matches(self, frame: bytes, wire_len: int | None = None) -> bool:
        """Does any conjunct hold?"""
        return any(conjunct.matches(frame, wire_len) for conjunct in self.conjuncts)

    def values_of(self, name: str) -> tuple[int, ...]:
        """The values to which its conjuncts fix a field, as "udp.dport", ascending; () where none does."""
        found = {fixed_value(conjunct.bits, name) for conjunct in self.conjuncts}
        return tuple(sorted(value for value in found if value is not None))


def program_of(source: str | Expression, *, optimise: bool = True) -> Program:
    """libpcap's program alone, which needs no conjuncts. FilterError (does not parse), MissingError (no libpcap)."""
    text = to_pcap(source)
    try:
        return compile_checked(Libpcap(), text) if optimise else Libpcap().compile(text, optimize=False)
    except FilterError as error:
        raise of_source(error, source, text) from None


def compile_filter(source: str | Expression, templates: Templates | None = None) -> CompiledFilter:
    """Compiles pcap-filter text, the text of a Python expression, or an expression object.

    templates: what is known from filters compiled before, so that only values are new in most.
    Raises FilterError (does not parse), UndecomposableError, MissingError (no libpcap).
    """
    text = to_pcap(source)
    try:
        conjuncts = decompose(compile_checked(Libpcap(), text), templates)
    except FilterError as error:
        raise of_source(error, source, text) from None
    return CompiledFilter(text, str(source), conjuncts)


def of_source(error: FilterError, source: str | Expression, text: str) -> FilterError:
    """The same error, which names what was written where that is not the text that libpcap had; and where libpcap had
    what was meant as an expression, the name that is wrong in it.
    """
    if str(source) != text:
        return type(error)(f'filter "{shown(str(source))}": {error}')
    wrong = misspelt(text)
    return FilterError(f'filter "{shown(text)}": {wrong}') if wrong else error


def conjuncts_of(walk: Walk) -> tuple[Conjunct, ...]:
    """The passes from a program to its conjuncts."""
    return simplify(walk)


def decompose(program: Program, templates: Templates | None = None) -> tuple[Conjunct, ...]:
    """The conjuncts of a compiled program. UndecomposableError, or FilterError where it takes nothing."""
    if templates:
        return fill(program, templates).conjuncts
    try:
        found = conjuncts_of(Walk(program.instructions))
    except Undecomposable as reason:
        raise _undecomposable(program, reason) from reason
    if not found:
        raise _takes_nothing(program)
    return found


def fill(program: Program, templates: Templates) -> Filled:
    """Its conjuncts, made when they are asked for where a template has them. FilterError where there are none."""
    try:
        filled = templates.filled(program)
    except Undecomposable as reason:
        raise _undecomposable(program, reason) from reason
    if filled.empty:
        raise _takes_nothing(program)
    return filled


def _takes_nothing(program: Program) -> FilterError:
    return FilterError(
        f'filter "{shown(program.text)}": it takes nothing: what it asks for is in no Ethernet frame (a direction, an '
        "interface, a number out of range)"
    )


def _undecomposable(program: Program, reason: Undecomposable) -> UndecomposableError:
    return UndecomposableError(f'filter "{shown(program.text)}": cannot be decomposed into conjuncts: {reason}')
