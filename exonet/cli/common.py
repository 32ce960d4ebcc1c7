# SPDX-License-Identifier: MIT
"""What the commands share: one-line errors, option groups, the way a result is shown, the shipped trace."""

import argparse
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from exonet.clock import SPIN_NS, Clock, parse_duration
from exonet.errors import INTERRUPTED, ExonetError, MissingError, UsageError
from exonet.gate.naming import find
from exonet.lab.plan import MTU_MAX, MTU_MIN, Settings, Tenant, parse_count, parse_ring
from exonet.lab.results import Result
from exonet.wording import printable

T = TypeVar("T")

QUOTE = "a filter of several words has to be quoted, as in 'tcp port 80'"
DEMO = "web-dns.pcapng"
VIRTUAL_ONLY = {"costs": "host", "slices": "", "interrupt": "poll", "budget": 64}
SPINS = {"polling": (1 << 64) - 1, "sleeping": 0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as UsageError. takes_filter: words too many may be of a filter."""

    def __init__(self, *arguments: object, takes_filter: bool = False, **named: object) -> None:
        self.takes_filter = takes_filter
        named.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        named.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # argparse's own keywords, passed through

    def parse_known_args(  # type: ignore[override]  # the overloads of argparse say no more
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What a command does not know is refused by that command, so that its own help is named."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            words = self.takes_filter and not any(word.startswith("-") for word in unknown)
            hint = f"; {QUOTE}" if words else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def typed(parse: Callable[[str], T], name: str = "value") -> Callable[[str], T]:
    """A parser of ours as argparse's `type`: its message is kept."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ExonetError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    convert.__name__ = name
    return convert


def count(low: int, high: int) -> Callable[[str], int]:
    return typed(lambda text: parse_count(text, "value", low, high))


def ring(text: str) -> int:
    return typed(lambda value: parse_ring(value, "ring"))(text)


def size(text: str) -> int:
    """Bytes of "1GiB", "512M", "64k", "65536"."""
    match = _SIZE.fullmatch(text.strip())
    factor = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[match[2].upper()] if match else 0
    if not match or float(match[1]) * factor < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write e.g. 65536, 64K or 1GiB')
    return int(float(match[1]) * factor)


duration = typed(parse_duration, "duration")


def spin(text: str) -> int:
    """ns of `polling` (for ever), `sleeping` (at once), or of how long to poll without work."""
    return SPINS[text] if text in SPINS else duration(text)


def add_machine(parser: argparse.ArgumentParser, *, clocks: bool = True, rings: bool = True) -> None:
    """The machine's own options, the same for every command that runs one. rings: whether it has one ring size."""
    group = parser.add_argument_group("the machine")
    if clocks:
        _add_clocks(group)
    group.add_argument(
        "--seed", type=count(0, 2**63 - 1), default=1, metavar="N", help="of all that is random (default 1)"
    )
    group.add_argument(
        "--pages", type=count(64, 1 << 24), default=65536, metavar="N", help="physical pages of 4 KiB (default 65536)"
    )
    if rings:
        group.add_argument(
            "--rings",
            type=ring,
            default=1024,
            metavar="N",
            help="entries of each LibOS ring, a power of two (default 1024)",
        )
        group.add_argument(
            "--buffers",
            type=count(1, 32768),
            metavar="N",
            help="receive buffers each LibOS posts (default: as many as its ring has entries)",
        )
    group.add_argument(
        "--descriptors",
        type=ring,
        default=1024,
        metavar="N",
        help="receive descriptors per NIC queue, a power of two (default 1024)",
    )
    group.add_argument("--fifo", type=size, default=65536, metavar="BYTES", help="the NIC's byte FIFO (default 64K)")
    group.add_argument(
        "--queues", type=count(1, 8), default=1, metavar="N", help="receive queues, chosen by RSS (default 1)"
    )
    group.add_argument(
        "--nic-mode",
        choices=("auto", "drop", "backpressure"),
        default="auto",
        help="what a full NIC does: drop the frame, or leave it on the wire "
        "(default auto: backpressure at --speed max, else drop)",
    )
    group.add_argument(
        "--spin",
        type=spin,
        default=SPIN_NS,
        metavar="TIME|polling|sleeping",
        help="poll so long without work before sleeping (default 2ms): longer is quicker to answer and costs CPU; "
        "polling: never sleep, sleeping: at once",
    )
    group.add_argument(
        "--core",
        type=count(0, 4095),
        metavar="N",
        help="the kernel has this core to itself, LibOS processes share the others: worth much where more LibOSes than "
        "cores receive at full rate (default: wherever the scheduler puts them)",
    )


def _add_clocks(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--clock",
        choices=[clock.value for clock in Clock],
        default=Clock.MONOTONIC.value,
        help="monotonic: real time, each LibOS a process (the default). virtual: a simulated CPU whose costs and "
        "slices decide what is lost, LibOSes inline; repeats to the byte",
    )
    group.add_argument(
        "--costs",
        default="host",
        metavar="MODEL",
        help="virtual clock: cost model: host, dec5000, free, or a JSON file of `exonet calibrate` (default host)",
    )
    group.add_argument(
        "--slices",
        default="",
        metavar="NAME:TIME,…",
        help="virtual clock: the CPU's slice vector, as web:100us,dns:50us,-:1ms (- idles)",
    )
    group.add_argument(
        "--interrupt",
        choices=("poll", "each"),
        default="poll",
        help="virtual clock: budgeted polling, or an interrupt per packet (default poll)",
    )
    group.add_argument(
        "--budget",
        type=count(1, 4096),
        default=64,
        metavar="N",
        help="virtual clock: packets polled before the LibOSes get a turn (default 64)",
    )


def add_memory(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--memory",
        type=size,
        default=1 << 30,
        metavar="SIZE",
        help="stream captures larger than this (default 1GiB)",
    )


def add_mtu(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--mtu",
        type=count(MTU_MIN, MTU_MAX),
        metavar="N",
        help="the NIC takes IP packets of up to N bytes, 68 to 65521 (default: frames of up to 9728 bytes)",
    )
    parser.add_argument(
        "--resegment",
        action="store_true",
        help="cut packets longer than the MTU (default 1500) as the sender's NIC did after the capture: TCP at the "
        "connection's MSS, UDP into IP fragments, checksums right; an IP length of 0 is the captured length",
    )


def add_max_gap(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-gap",
        type=duration,
        metavar="TIME",
        help="at xN: a gap between two timestamps that is longer counts as so long, of capture time: at x10 a "
        "--max-gap of 1s waits 0.1 s",
    )


def capture(text: str) -> Path:
    """A capture's path; "-" is standard input."""
    return Path("/dev/stdin" if text == "-" else text)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--json", metavar="FILE", help='the result as JSON, schema 1; "-": on standard output instead of the table'
    )
    group.add_argument(
        "--fates",
        type=Path,
        metavar="FILE",
        help="the fate of every packet, as Parquet or (FILE.csv) CSV: "
        "index, timestamp_ns, stage, reason, environment, port, latency_ns",
    )
    add_pcap_out(group)
    add_trace(group)


def add_pcap_out(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--pcap-out",
        type=Path,
        metavar="FILE",
        help="what passed the wire: FILE.pcapng has a comment with its fate on each packet, FILE.pcap has none",
    )


def add_trace(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--trace",
        dest="event_log",
        type=Path,
        metavar="FILE",
        help="what the kernel granted, bound and refused, and who began and ended, as a JSON line each",
    )


def add_impair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--impair",
        metavar="WHAT",
        help="harm what is received: any of loss=1%%,delay=2ms,jitter=1ms,reorder=5%%,duplicate=1%%,corrupt=0.1%%",
    )


def settings(arguments: argparse.Namespace) -> Settings:
    """Settings of the options that add_machine, add_outputs and add_impair defined."""
    values = vars(arguments)
    clock = Clock(values.get("clock", Clock.MONOTONIC.value))
    if clock is not Clock.VIRTUAL:
        for name, unsaid in VIRTUAL_ONLY.items():
            if values.get(name, unsaid) != unsaid:
                raise UsageError(f"--{name} {values[name]}: it is for the virtual clock; add --clock virtual")
    return Settings(
        clock=clock,
        seed=arguments.seed,
        pages=arguments.pages,
        rings=values["rings"] if isinstance(values["rings"], int) else 1024,
        buffers=values.get("buffers"),
        descriptors=arguments.descriptors,
        fifo_bytes=arguments.fifo,
        queues=arguments.queues,
        nic_mode=arguments.nic_mode,
        spin_ns=arguments.spin,
        core=arguments.core,
        costs=values.get("costs", "host"),
        slices=values.get("slices", ""),
        interrupt=values.get("interrupt", "poll"),
        budget=values.get("budget", 64),
        duration_ns=values.get("duration"),
        impair=values.get("impair"),
        pcap_out=values.get("pcap_out"),
        fates=values.get("fates"),
        trace=values.get("event_log"),
    )


def find_modules(tenants: Sequence[Tenant]) -> None:
    """A LibOS given as module:Class may lie in the working directory, as for `python -m`."""
    for tenant in tenants:
        find(tenant.stack, Path.cwd())


def show(result: Result, json_path: str | None) -> int:
    """Prints the notes and the table, writes the JSON, and returns the exit code."""
    for note in result.notes:
        say(note)
    if json_path != "-":
        print(result.text(width(), ascii_only=not draws_blocks()))
    if json_path is not None:
        result.write_json(json_path)
    return exit_code(failed=result.failed, interrupted=result.interrupted)


def exit_code(*, failed: bool, interrupted: bool) -> int:
    if failed:
        return 1
    return INTERRUPTED if interrupted else 0


def say(text: str) -> None:
    """A line for the person, beside the result."""
    print(f"exonet: {printable(text)}", file=sys.stderr)


def width() -> int:
    """Columns for a table: the terminal's, at most 110; 100 where there is none."""
    return min(110, shutil.get_terminal_size((100, 24)).columns)


def draws_blocks() -> bool:
    """Can standard output show block characters?"""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def demo_trace() -> Path:
    """The shipped trace: in the source tree, or where the package installed it."""
    places = (
        Path(__file__).resolve().parents[2] / "captures" / DEMO,
        Path(sysconfig.get_path("data")) / "share" / "exonet" / DEMO,
    )
    for place in places:
        if place.is_file():
            return place
    raise MissingError(
        f"the shipped trace {DEMO} is in neither {places[0].parent} nor {places[1].parent}; "
        "name a capture of your own: exonet replay FILE"
    )


def command_line(arguments: Sequence[str]) -> tuple[str, ...]:
    return ("exonet", *arguments)
