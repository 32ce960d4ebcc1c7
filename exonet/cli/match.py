# SPDX-License-Identifier: MIT
"""`exonet filter match`: which frames of captures a filter takes, to be compared with `tcpdump -r CAPTURE FILTER`."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exonet.cli import common
from exonet.cli.outputs import check_outputs, check_suffix
from exonet.clock import NS_PER_S
from exonet.errors import ExhaustedError, FilterError, MissingError, UndecomposableError, UsageError
from exonet.wording import counted

FIRST = 20
#: What looks like a word of a filter, and not like the name of a file.
_BARE = re.compile(r"(?!.*\.(?:p?cap(?:ng)?|gz|dmp)$)[^/]+")
KINDS = ("native", "table", "reference", "libpcap", "unoptimised")

DESCRIPTION = """\
Lists the frames of captures that a filter takes, as `tcpdump -r CAPTURE FILTER` does, and counts them. Frames are
numbered from 1 in each capture; times are UTC; the two lengths are what was captured and what was on the wire. Frames
that are not Ethernet, or longer than 65535 bytes, are counted and never taken. A capture that is broken is read as far
as it goes; that is said, and the exit code is 1.
"""

EPILOG = """\
classifiers:
  native       the demux with machine code (needs llvmlite, else the table answers)
  table        the demux without
  reference    the filter's conjuncts in Python, slowly
  libpcap      what tcpdump runs (without the optimiser where that is wrong); also of a filter that does not decompose
  unoptimised  what tcpdump -O runs

examples:
  exonet filter match 'udp port 53' trace.pcapng
  exonet filter match 'tcp port 80' a.pcap b.pcap.gz --count
  exonet filter match 'ip6 and not tcp' trace.pcap --all --out ip6.pcapng
  exonet filter match 'vlan 5 and icmp' trace.pcap --check         exit code 1 where the classifiers disagree
"""


def add(actions: Any) -> None:
    parser = actions.add_parser(
        "match",
        help="the frames of captures that it takes",
        description=DESCRIPTION,
        epilog=EPILOG,
        takes_filter=True,
    )
    parser.set_defaults(run=run)
    parser.add_argument("text", metavar="FILTER", help="pcap-filter syntax, or an expression over header fields")
    parser.add_argument(
        "captures",
        nargs="+",
        type=common.capture,
        metavar="CAPTURE",
        help="pcap or pcapng, gzip or not; - is standard input",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--count", action="store_true", help="print how many there are in all captures, nothing else")
    how.add_argument("--all", action="store_true", help=f"list every frame (default: the first {FIRST})")
    how.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--classifier", choices=KINDS, help="who says what matches (default native)")
    parser.add_argument("--check", action="store_true", help="ask all five, and stop at the first disagreement")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the frames that match, as pcapng")


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    from exonet.filters.compile import compile_filter  # late: help needs no compiler
    from exonet.filters.match import Matched

    check_paths(arguments)
    counts = [Matched(path) for path in arguments.captures]
    try:
        if arguments.check:
            agreed = check(compile_filter(arguments.text), counts)
        else:
            agreed = listed(one_classifier(arguments.text, arguments.classifier), counts, arguments)
    except (UndecomposableError, ExhaustedError) as error:
        raise FilterError(f"{error}; --classifier libpcap would do, it needs no conjuncts") from None
    show(counts, arguments)
    return 0 if agreed and not any(count.broken for count in counts) else 1


def check_paths(arguments: argparse.Namespace) -> None:
    """What would be found out late, or would destroy a capture."""
    if arguments.check and (arguments.classifier or arguments.all or arguments.out):
        raise UsageError("--check asks every classifier and lists nothing: leave --classifier, --all and --out out")
    first = arguments.captures[0]
    if not first.exists() and _BARE.fullmatch(str(first)):
        raise UsageError(f"capture {first}: there is no such file; {common.QUOTE}")
    if arguments.out is None:
        return
    from exonet.filters.match import open_capture

    for path in arguments.captures:
        if not path.exists() or path.is_file():  # what is read from a pipe is gone
            open_capture(path).close()
    check_outputs([("--out", arguments.out)], arguments.captures)
    check_suffix("--out", arguments.out, (".pcapng",))


def listed(classifier: Any, counts: Sequence[Any], arguments: argparse.Namespace) -> bool:
    """Reads the captures; prints and writes what matches as asked. A frame that is only counted costs no Python."""
    from exonet.filters.match import matching, open_capture
    from exonet.wire.pcapng import PcapngFile

    left: float = math.inf if arguments.all else 0 if arguments.count or arguments.json else FIRST
    with ExitStack() as stack:
        out = stack.enter_context(PcapngFile(arguments.out)) if arguments.out else None
        for count in counts:
            with open_capture(count.path) as trace:
                if len(counts) > 1 and left:
                    print(f"{count.path}:")
                for burst, places in matching(trace, classifier, count):
                    for place in places if left or out else ():
                        frame = burst[place]
                        if left:
                            print(line_of(frame))
                            left -= 1
                        if out:
                            out.write(frame)
                        elif not left:
                            break
                say_broken(trace, count)
    return True


def one_classifier(text: str, asked: str | None) -> Any:
    """The one that was asked for; without a word the native one, or the table where llvmlite is not installed."""
    from exonet.filters.classifier import Kind, LibpcapClassifier, classifier
    from exonet.filters.compile import compile_filter, program_of

    if asked == Kind.LIBPCAP.value:
        return LibpcapClassifier(program_of(text))
    if asked == Kind.UNOPTIMISED.value:
        return LibpcapClassifier(program_of(text, optimise=False))
    compiled = compile_filter(text)
    try:
        return classifier(Kind(asked or "native"), compiled)
    except MissingError as error:
        if asked not in (None, "native"):
            raise
        common.say(f"{error}; the table answers")
        return classifier(Kind.TABLE, compiled)


def check(compiled: Any, counts: Sequence[Any]) -> bool:
    """Do all classifiers say the same of every frame? Says of the first where they do not."""
    from exonet.filters.classifier import Kind, classifier
    from exonet.filters.match import disagreement, open_capture

    classifiers = []
    for kind in (Kind.LIBPCAP, Kind.UNOPTIMISED, Kind.REFERENCE, Kind.TABLE, Kind.NATIVE):
        try:
            classifiers.append((kind, classifier(kind, compiled)))
        except MissingError as error:
            common.say(f"{kind.value} is not asked: {error}")
    for count in counts:
        with open_capture(count.path) as trace:
            found = disagreement(trace, classifiers, count)
            say_broken(trace, count)
        if found is not None:
            takes, leaves = (
                " and ".join(kind.value for kind, taken in found.said.items() if taken is wanted)
                for wanted in (True, False)
            )
            common.say(f"{count.path}: they disagree: {takes} would take, {leaves} would not: {line_of(found.frame)}")
            return False
    return True


def say_broken(trace: Any, count: Any) -> None:
    count.broken = trace.broken
    if trace.broken:
        common.say(f"{trace.broken}; what comes before that was read")


def line_of(frame: Any) -> str:
    """A frame for a person: number, time, captured and original length, what it is."""
    from exonet.wire.summary import summary

    lengths = f"{len(frame.data)}/{frame.wire_len}"
    return f"{frame.number + 1:>7}  {time_of(frame.stamp)}  {lengths:>11}  {summary(frame.data)}"


def time_of(stamp: int) -> str:
    """To the microsecond, and to the nanosecond where the capture has those."""
    if stamp == 0:
        return "-".center(26)
    seconds, ns = divmod(stamp, NS_PER_S)
    fraction = f"{ns:09}" if ns % 1000 else f"{ns // 1000:06}"
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{fraction}"
    except (ValueError, OverflowError):  # beyond the year 9999
        return f"{seconds}.{fraction}"


def show(counts: Sequence[Any], arguments: argparse.Namespace) -> None:
    matched, total = sum(count.matched for count in counts), sum(count.total for count in counts)
    if arguments.count:
        print(matched)
    elif arguments.json:
        rows = [{"capture": str(c.path), "matched": c.matched, "frames": c.total, "broken": c.broken} for c in counts]
        print(json.dumps({"filter": arguments.text, "matched": matched, "frames": total, "captures": rows}, indent=2))
    else:
        for count in counts:
            print(f"{count.path}: {share(count.matched, count.total)}")
        if len(counts) > 1:
            print(f"all: {share(matched, total)}")


def share(matched: int, total: int) -> str:
    percent = f" ({100 * matched / total:.2f} %)" if total else ""
    return f"{matched:,} of {counted(total, 'frame')} match{'es' if total == 1 else ''}{percent}"
