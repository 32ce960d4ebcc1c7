# SPDX-License-Identifier: MIT
"""`exonet show`: what a machine that runs now holds: its bindings, environments, shapes, capabilities."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exonet.clock import format_duration
from exonet.errors import RunError, UsageError
from exonet.wording import counted

DESCRIPTION = """\
Asks a running attach or replay for its state, and prints it. The machine answers between two bursts of frames and is
not slowed down. Runs on the virtual clock cannot be asked. A user is shown what that user runs; root is shown what
everybody runs (whose XDG_RUNTIME_DIR is /run/user/UID, or is not set).
"""

EPILOG = """\
topics:
  bindings      who has bound which filter, in how many conjuncts and shapes, how many of those are machine code
  machine       what runs, for how long, pages, the ledger so far, each port
  environments  each LibOS: its process, what it was delivered, sent and lost
  shapes        the demux's shapes: dispatch, key, guards, machine code or table
  capabilities  what each LibOS may do (the tokens themselves are never shown)

examples:
  sudo exonet show bindings
  sudo exonet show environments --pid 4711
  exonet show machine --json
"""

Row = dict[str, Any]
Columns = tuple[tuple[str, Callable[[Row], Any]], ...]


def _get(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def _number(name: str) -> Callable[[Row], str]:
    """A number that names something: it is not counted with."""
    return lambda row: "" if row.get(name) is None else str(row[name])


def _latency(row: Row) -> str:
    told = row.get("latency_ns")
    return "" if told is None else f"{format_duration(told['p50'])}, {format_duration(told['p99'])}"


def _native(row: Row) -> str:
    if row["native"] in (row["shapes"], 0):
        return "machine code" if row["native"] else "table"
    return f"{row['native']} machine code"


COLUMNS: dict[str, Columns] = {
    "bindings": (
        ("binding", _number("binding")),
        ("owner", lambda row: f"{row['owner']} ({row['env']})"),
        ("port", _number("port")),
        ("conjuncts", _get("conjuncts")),
        ("shapes", _get("shapes")),
        ("answered by", _native),
        ("capability", _number("capability")),
        ("LibOS had", _get("delivered")),
        ("latency p50, p99", _latency),
        ("filter", lambda row: row["filter"] + (" (snoop)" if row["snoop"] else "")),
    ),
    "environments": (
        ("number", _number("number")),
        ("name", _get("name")),
        ("mode", _get("mode")),
        ("pid", _number("pid")),
        ("delivered", _get("delivered")),
        ("sent", _get("sent")),
        ("dropped", lambda row: sum(row["dropped"].values())),
        ("pages", _get("pages")),
        ("CPU", lambda row: format_duration(row["cpu_ns"])),
        ("latency p50, p99", _latency),
        ("state", lambda row: "runs" if row["alive"] else row["end_reason"]),
    ),
    "shapes": (
        ("port", _number("port")),
        ("snoop", lambda row: "yes" if row["snoop"] else "no"),
        ("answered by", lambda row: "machine code" if row["native"] else "table"),
        ("dispatch", _get("dispatch")),
        ("key", lambda row: ", ".join(row["key"]) or "empty"),
        ("interval", _get("interval")),
        ("excludes", lambda row: ", ".join(row["excluded"])),
        ("guards", lambda row: "; ".join(row["guards"])),
    ),
    "capabilities": (
        ("capability", _number("identifier")),
        ("parent", _number("parent")),
        ("holder", lambda row: f"{row['owner']} ({row['env']})"),
        ("resource", _get("resource")),
        ("rights", lambda row: "|".join(row["rights"])),
        ("port", _number("port")),
        ("limits", lambda row: "; ".join(_limits(row))),
    ),
}
TOPICS = ("bindings", "machine", "environments", "shapes", "capabilities")


def _limits(row: Row) -> Iterator[str]:
    if row.get("region") is not None:
        yield row["region"]
    if row.get("pages"):
        yield f"pages {row['pages'][0]} and {row['pages'][1] - 1} more"
    yield from row.get("locals", ())


def add(commands: Any) -> None:
    parser = commands.add_parser("show", help="what a running machine holds", description=DESCRIPTION, epilog=EPILOG)
    parser.set_defaults(run=run)
    parser.add_argument("topic", choices=TOPICS, metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument(
        "--pid", metavar="PID", help="of which machine, where several run (a second one of a process is PID-2)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    from exonet.lab.machines import running  # late: help needs no kernel

    machine = choose(*running(), arguments.pid)
    state = machine.ask(arguments.topic)
    if arguments.json:
        told = {"pid": state.pid, "machine": machine.name, arguments.topic: list(state.rows)}
        print(json.dumps(told, indent=2))
        return 0
    try:
        text = "\n".join(lines(machine.name, arguments.topic, state.rows))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise RunError(f"machine {machine.name}: no reply of a machine") from None
    print(text)
    return 0


def lines(name: str, topic: str, rows: Sequence[Row]) -> Iterator[str]:
    """What is printed of a topic. LookupError, TypeError, ValueError or AttributeError where it is not of that form."""
    if topic == "machine":
        yield from map(printable, machine_lines(name, rows[0]))
    elif rows:
        yield from table(COLUMNS[topic], rows)
    else:
        yield f"no {topic}"


def choose(machines: Sequence[Any], closed: Sequence[str], wanted: str | None) -> Any:
    """The one machine that is meant. UsageError."""
    hint = f" that we may see; {', '.join(closed)} is not ours to read: try sudo" if closed else ""
    names = ", ".join(machine.name for machine in machines)
    if not machines:
        raise UsageError(f"no machine runs{hint or '; start one with exonet attach or exonet replay'}")
    if wanted is None:
        if len(machines) > 1:
            raise UsageError(f"{len(machines)} machines run: choose one with --pid: {names}")
        return machines[0]
    for machine in machines:
        if machine.name == wanted:
            return machine
    raise UsageError(f"--pid {wanted}: no such machine runs{hint}; there are {names}")


def printable(value: Any) -> str:
    """A cell. What a LibOS has named cannot move the cursor."""
    text = f"{value:,}" if isinstance(value, int) else "-" if value is None or value == "" else str(value)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def table(columns: Columns, rows: Sequence[Row]) -> Iterator[str]:
    """Aligned columns; the last one is as long as it is."""
    names = [name for name, _ in columns]
    cells = [[printable(of(row)) for _, of in columns] for row in rows]
    widths = [max(len(line[i]) for line in (names, *cells)) for i in range(len(names) - 1)]
    numbers = [all(isinstance(of(row), int) for row in rows) for _, of in columns]
    for line in (names, *cells):
        aligned = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, numbers, strict=False)
        ]
        yield "  ".join([*aligned, line[-1]]).rstrip()


def machine_lines(name: str, row: Row) -> Iterator[str]:
    yield f"machine {name}: {printable(' '.join(row['command']))}"
    slept = counted(row["sleeps"], "time")
    yield f"  running    {format_duration(row['running_ns'])}, {row['clock']} clock; slept {slept}"
    yield f"  holds      {counted(row['environments'], 'environment')}, {counted(row['bindings'], 'binding')}"
    yield f"  pages      {row['pages']['free']:,} of {row['pages']['total']:,} are free"
    yield (
        f"  frames     {row['offered']:,} offered, {row['delivered']:,} delivered, "
        f"{sum(row['dropped'].values()):,} dropped, {row['in_flight']:,} in flight"
    )
    for reason, count in sorted(row["dropped"].items(), key=lambda item: -item[1]):
        yield f"             {count:,} {reason}"
    for port in row["ports"]:
        wire = port["wire"]
        yield (
            f"  port {port['port']:<5} {printable(wire['name'])} {port['nic']['mac']}: "
            f"{counted(wire['rx_frames'], 'frame')} in, {wire['tx_frames']:,} out"
        )
