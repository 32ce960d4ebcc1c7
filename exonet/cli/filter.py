# SPDX-License-Identifier: MIT
"""`exonet filter`: what a filter means to the demux, and what it takes from a capture."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from exonet.cli import common, match
from exonet.errors import ExonetError, FilterError, MissingError, RunError
from exonet.wording import quoted

EPILOG = """\
examples:
  exonet filter explain 'tcp port 80 and host 10.0.0.1'
  exonet filter explain 'Udp.dport == 53 and Ip.src in "10.0.0.0/8"' --json
  exonet filter match 'udp port 53' trace.pcapng
"""

EXPLAIN = """\
A packet is taken where one conjunct of the filter holds: all of its comparisons do. Conjuncts that differ in values
only share a shape: one table and one piece of machine code. "By destination": where many shapes compete, frames sent
elsewhere are not asked of it. Bits are how much a conjunct fixes; where bindings are
nested, the one with more bits wins. A filter that cannot be bound on an empty port by a LibOS with the usual quota is
refused with the reason, and exit code 2. What other bindings cause shows at the bind alone: a clash with one of them,
and the conjuncts and shapes that nested filters need beside their own, which count against the quota too.
"""

EXPLAIN_EPILOG = """\
examples:
  exonet filter explain 'tcp port 80 and host 10.0.0.1'
  exonet filter explain 'ip6 and not udp'
  exonet filter explain 'Udp.dport == 53 and Ip.src in "10.0.0.0/8"'
  exonet filter explain 'dst port 53' --ir       the LLVM text of each shape's probe
  exonet filter explain 'dst port 53' --asm      its machine code on this computer
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "filter",
        help="explain a filter, or match it against captures",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain",
        help="its conjuncts, shapes and code",
        description=EXPLAIN,
        epilog=EXPLAIN_EPILOG,
        takes_filter=True,
    )
    explain.set_defaults(run=run)
    explain.add_argument("text", metavar="FILTER", help="pcap-filter syntax, or an expression over header fields")
    explain.add_argument("--ir", action="store_true", help="print the LLVM text of each shape's probe")
    explain.add_argument("--asm", action="store_true", help="print the machine code of each shape's probe")
    explain.add_argument("--json", action="store_true", help="as JSON on standard output")
    match.add(actions)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    from exonet.filters.compile import compile_filter  # late: help needs no compiler
    from exonet.filters.explain import Explanation

    try:
        explanation = Explanation.of(compile_filter(arguments.text))
    except FilterError as error:
        if arguments.json:
            print(json.dumps(no_filter(arguments.text, str(error)), indent=2))
        raise
    refused = list(refusals(explanation))
    code = [
        {**({"ir": ir(form)} if arguments.ir else {}), **({"asm": asm(form)} if arguments.asm else {})}
        for form in explanation.forms
    ]
    if arguments.json:
        print(json.dumps(to_json(explanation, refused, code), indent=2))
    else:
        print("\n".join(lines(explanation, code)))
    for reason in refused:
        common.say(f"refused: {reason}")
    return 2 if refused else 0


def refusals(explanation: Any) -> Iterator[str]:
    """Why the kernel would not bind the filter for a LibOS with the usual quota."""
    from exonet.kernel.capability import Quota
    from exonet.kernel.names import refuse_names

    counts = {"conjuncts": len(explanation.conjuncts), "shapes": len(explanation.shapes)}
    branches = Counter(form.branch for form in explanation.forms if not form.destined)
    counts["loose_shapes"] = max(branches.values(), default=0)
    said = f"filter {quoted(explanation.filter.source)}"
    for number, each in enumerate(explanation.conjuncts, 1):
        if each.refused:
            yield f"{said}: conjunct {number}: {each.refused}"
    try:
        refuse_names(explanation.filter.source)
    except ExonetError as error:
        yield str(error)
    for what, count in counts.items():
        most: int = getattr(Quota(), what)
        if count > most:
            yield f"{said}: it needs {count:,} {what.replace('_', ' ')}; a LibOS may have {most:,}"


def ir(form: Any) -> str:
    from exonet.filters.emit import emit

    return emit(form)


def asm(form: Any) -> str:
    """RunError where llvmlite is missing: nothing is wrong with what was asked."""
    from exonet.filters.native import compile_form

    try:
        return compile_form(form).assembly()
    except MissingError as error:
        raise RunError(str(error)) from None


def no_filter(text: str, why: str) -> dict[str, Any]:
    """The JSON of a text that does not compile."""
    from exonet.filters.native import available

    known: dict[str, Any] = {"filter": text, "pcap_filter": None, "conjuncts": [], "shapes": [], "program": None}
    return {**known, "compiles": 0, "native": available(), "refused": [why]}


def to_json(explanation: Any, refused: list[str], code: list[dict[str, str]]) -> dict[str, Any]:
    """Conjuncts and shapes are numbered from 1, as in the text."""
    from exonet.filters.native import available

    return {
        "filter": explanation.filter.source,
        "pcap_filter": explanation.filter.text,
        "conjuncts": [
            {
                "number": number,
                "region": each.region,
                "bits": each.specificity,
                "shape": None if each.shape is None else each.shape + 1,
                "refused": each.refused or None,
            }
            for number, each in enumerate(explanation.conjuncts, 1)
        ],
        "shapes": [
            {
                "number": place + 1,
                **shape.to_json(),
                "conjuncts": [each + 1 for each in explanation.of_shape(place)],
                **code[place],
            }
            for place, shape in enumerate(explanation.shapes)
        ],
        "program": list(explanation.program) or None,
        "compiles": len(explanation.shapes) if available() else 0,
        "native": available(),
        "refused": refused,
    }


def lines(explanation: Any, code: list[dict[str, str]]) -> Iterator[str]:
    filter = explanation.filter
    yield filter.source or "everything"
    if filter.source != filter.text:
        yield f"  as pcap-filter: {filter.text}"
    conjuncts, shapes = len(explanation.conjuncts), len(explanation.shapes)
    yield f"  {counted(conjuncts, 'conjunct')} in {counted(shapes, 'shape')}"
    yield f"  {compiling(shapes)}"
    for number, each in enumerate(explanation.conjuncts, 1):
        where = f"shape {each.shape + 1}" if each.shape is not None else "refused"
        yield f"  conjunct {number:<3} {where:<9} {each.specificity:>5.4g} bits  {each.region}"
    yield f"  region: {'that conjunct' if conjuncts == 1 else 'all of these'}; a capability must cover it"
    for number, shape in enumerate(explanation.shapes):
        yield from shape_lines(number, shape, explanation.of_shape(number))
        for text in code[number].values():
            yield ""
            yield text.rstrip()
    if explanation.program and any(code):
        asking = [str(number) for number, each in enumerate(explanation.conjuncts, 1) if each.conjunct.programs]
        yield ""
        yield f"  program, which must take a frame of conjunct {', '.join(asking)} too, as tcpdump -d prints it"
        yield from explanation.program


def shape_lines(number: int, shape: Any, conjuncts: list[int]) -> Iterator[str]:
    names = ", ".join(shape.key) or "nothing: one entry, or a list of those that exclude something"
    loads = f" ({counted(len(shape.loads), 'load')}: {', '.join(shape.loads)})" if shape.loads else ""
    yield ""
    yield f"  shape {number + 1}: {shape.dispatch}"
    yield f"    key        {names}{loads}"
    if shape.interval:
        yield f"    interval   {shape.interval}"
    if shape.excluded:
        yield f"    excludes   values of {', '.join(shape.excluded)}"
    yield f"    guards     {'; '.join(shape.guards) or 'none'}"
    yield f"    conjuncts  {', '.join(str(place + 1) for place in conjuncts)}"


def compiling(shapes: int) -> str:
    """Does binding it compile anything?"""
    from exonet.filters.native import available

    if not available():
        return "binding it compiles nothing: llvmlite is not installed, the shapes are answered from tables"
    return (
        f"the first bind on a machine compiles {counted(shapes, 'shape')}, off the packet path; "
        "where shapes are known a bind compiles nothing"
    )


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
