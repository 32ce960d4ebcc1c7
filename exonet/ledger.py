# SPDX-License-Identifier: MIT
"""The ledger of a run: what entered each stage, what left it, what was dropped there and why, what is still inside.

A frame is offered once, when it enters the machine (read from a wire, counted by a TAP device before anybody read it,
or submitted by a LibOS), and meets one end: consumed by a LibOS, sent on a wire, dropped for one reason, or in flight
when the run stopped. A frame switched between environments is offered when submitted and consumed by its receiver.

    offered + copies = delivered (consumed + sent) + dropped + in flight        for the whole (R20), and
    in + copies      = out + dropped + in flight                                for every stage, and
    out of a stage   = in of the next

The first holds as well for what wires offered and for what LibOSes sent, each by itself (`Account`): a loss is of the
former.

Every term is counted where it happens; `Ledger.check()` compares them and computes none from the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

from exonet.abi import ffi, lib, reason_name, stage_name
from exonet.errors import ConservationError

STAGES: tuple[str, ...] = tuple(stage_name(number) for number in range(lib.EXO_STAGES))

# Which stage hands its frames to which. What is switched locally goes from transmit to mac and is counted apart.
_NEIGHBOURS = (("mac", "nic"), ("nic", "demux"), ("demux", "handler"), ("handler", "ring"), ("ring", "stack"))


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage's row: frames in, copies made there, out, drops by reason (without the stage's name), in flight."""

    name: str
    entered: int
    copies: int
    left: int
    drops: Mapping[str, int]
    in_flight: int

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())

    @property
    def touched(self) -> bool:
        return bool(self.entered or self.copies or self.left or self.drops or self.in_flight)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "in": self.entered,
            "copies": self.copies,
            "out": self.left,
            "dropped": dict(self.drops),
            "in_flight": self.in_flight,
        }


@dataclass(frozen=True, slots=True)
class Account:
    """The frames of one origin, and what became of them and of their copies. dropped: by "stage.reason"."""

    offered: int
    copies: int
    consumed: int
    sent: int
    dropped: Mapping[str, int]
    in_flight: int

    @classmethod
    def read(cls, native: Any, offered: int, in_flight: int) -> Self:
        """From a `struct exo_account`."""
        delivered, sent = native.drop[lib.EXO_R_DELIVERED], native.drop[lib.EXO_R_SENT]
        return cls(offered, native.copies, delivered, sent, drops_of(native), in_flight)

    def to_json(self) -> dict[str, Any]:
        return {
            "offered": self.offered,
            "copies": self.copies,
            "delivered_to": {"environments": self.consumed, "wires": self.sent},
            "dropped": dict(self.dropped),
            "in_flight": self.in_flight,
        }

    def balance(self) -> tuple[int, int]:
        """What came in, copies included, and what was found of it: the same number twice."""
        return self.offered + self.copies, self.consumed + self.sent + sum(self.dropped.values()) + self.in_flight


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every frame of a run. `of_wires`, `of_liboses`: by who offered it. `switched`: frames that the NICs turned round
    between environments of a port. `converted`: of the offered frames, those made from packets of another link type; a
    term of no equation.
    """

    stages: tuple[Stage, ...]
    consumed: int
    sent: int
    of_wires: Account
    of_liboses: Account
    switched: int = 0
    converted: int = 0

    @classmethod
    def read(
        cls, native: Any, in_flight: Sequence[int], in_flight_of_liboses: Sequence[int] = (), *, switched: int = 0
    ) -> "Ledger":
        """From a `struct exo_ledger *` and the walk of `exo_machine_in_flight`: what is in flight of what wires offered
        and of what LibOSes sent, a number per stage each; (): nothing.

        switched: the sum of the NICs' own `switched` counters.
        """
        drops: dict[str, dict[str, int]] = {name: {} for name in STAGES}
        for name, count in drops_of(native).items():
            stage, _, reason = name.partition(".")
            drops[stage][reason] = count
        entered = getattr(native, "in")
        inside = [sum(each) for each in zip_longest(in_flight, in_flight_of_liboses, fillvalue=0)]
        stages = tuple(
            Stage(name, entered[i], native.copies[i], native.out[i], drops[name], inside[i])
            for i, name in enumerate(STAGES)
        )
        by_wires = entered[lib.EXO_S_SOURCE] + _unread(stages[lib.EXO_S_TAP])
        of_wires = Account.read(native.of[lib.EXO_O_WIRE], by_wires, sum(in_flight))
        submitted = entered[lib.EXO_S_TRANSMIT]
        of_liboses = Account.read(native.of[lib.EXO_O_LIBOS], submitted, sum(in_flight_of_liboses))
        delivered, sent = native.drop[lib.EXO_R_DELIVERED], native.drop[lib.EXO_R_SENT]
        return cls(stages, delivered, sent, of_wires, of_liboses, switched, native.converted)

    def stage(self, name: str) -> Stage:
        return self.stages[STAGES.index(name)]

    @property
    def offered(self) -> int:
        """Frames that entered the machine."""
        return self.of_wires.offered + self.of_liboses.offered

    @property
    def copies(self) -> int:
        return sum(stage.copies for stage in self.stages if stage.name != "tap")

    @property
    def delivered(self) -> int:
        """Frames that reached where they were going: consumed by a LibOS, or sent on a wire."""
        return self.consumed + self.sent

    @property
    def dropped(self) -> dict[str, int]:
        """Count by "stage.reason", in the order of the stages; only what happened."""
        return {f"{stage.name}.{reason}": n for stage in self.stages for reason, n in stage.drops.items()}

    @property
    def in_flight(self) -> int:
        return sum(stage.in_flight for stage in self.stages)

    def check(self) -> Self:
        """Raises ConservationError, naming place and numbers, unless every stage, link and the total balance."""
        faults = list(self.imbalances())
        if faults:
            raise ConservationError("the ledger does not balance: " + "; ".join(faults))
        return self

    def imbalances(self) -> Iterator[str]:
        """What does not add up, a sentence each; nothing where the ledger balances."""
        for stage in self.stages:
            given, found = stage.entered + stage.copies, stage.left + stage.dropped + stage.in_flight
            if given != found:
                yield (
                    f"stage {stage.name}: in {stage.entered} + copies {stage.copies} = {given}, but out {stage.left}"
                    f" + dropped {stage.dropped} + in flight {stage.in_flight} = {found}"
                )
        yield from self._broken_links()
        for whose, account in (("wires", self.of_wires), ("LibOSes", self.of_liboses)):
            given, found = account.balance()
            if given != found:
                yield f"offered by {whose}: with copies {given}, but {found} of them were found"
        given, found = self.offered + self.copies, self.delivered + sum(self.dropped.values()) + self.in_flight
        if given != found:
            yield (
                f"total: offered {self.offered} + copies {self.copies} = {given}, but delivered {self.delivered}"
                f" + dropped {sum(self.dropped.values())} + in flight {self.in_flight} = {found}"
            )

    def _broken_links(self) -> Iterator[str]:
        links = [(f"{a} out", self.stage(a).left, f"{b} in", self.stage(b).entered) for a, b in _NEIGHBOURS]
        source, transmit = self.stage("source"), self.stage("transmit")
        links.append(("source out + switched", source.left + self.switched, "mac in", self.stage("mac").entered))
        links.append(("stack out", self.stage("stack").left, "consumed by LibOSes", self.consumed))
        links.append(("transmit out", transmit.left, "sent on wires + switched", self.sent + self.switched))
        for before, left, after, entered in links:
            if left != entered:
                yield f"{before} {left}, but {after} {entered}"
        if self.stage("tap").left > source.entered:
            yield f"tap out {self.stage('tap').left}, but source in {source.entered}"

    def to_json(self) -> dict[str, Any]:
        """The `ledger` object of a run's JSON, schema 1. delivered = delivered_to.environments + delivered_to.wires."""
        return {
            "offered": self.offered,
            "copies": self.copies,
            "delivered": self.delivered,
            "delivered_to": {"environments": self.consumed, "wires": self.sent},
            "dropped": self.dropped,
            "in_flight": self.in_flight,
            "converted": self.converted,
            "of_wires": self.of_wires.to_json(),
            "of_liboses": self.of_liboses.to_json(),
            "stages": [stage.to_json() for stage in self.stages],
        }

    def table(
        self, width: int = 80, environments: Sequence[Mapping[str, Any]] = (), *, ascii_only: bool = False
    ) -> str:
        """Text for a person: rows that are not zero, percent of what was offered, a bar, what each drop means.

        environments: what `describe()` of each said; its `name` and `delivered` make a row.
        """
        rows = [Row("offered", self.offered)]
        rows.append(Row("converted to Ethernet", self.converted, 1, "from another link type"))
        if self.copies:
            duplicates = self.stage("source").copies
            rows.append(Row("copies of group frames", self.copies - duplicates, 1))
            rows.append(Row("duplicated by --impair", duplicates, 1))
        rows += [Row(f"delivered to {env['name']}", int(env["delivered"]), 1) for env in environments]
        others = self.consumed - sum(int(env["delivered"]) for env in environments)
        rows.append(Row("delivered to others" if environments else "delivered to LibOSes", others, 1))
        rows.append(Row("sent on a wire", self.sent, 1))
        rows.append(Row("in flight", self.in_flight, 1))
        rows.append(Row("dropped", sum(self.dropped.values()), 1))
        rows += [
            Row(name, n, 2, reason_text(name)) for name, n in sorted(self.dropped.items(), key=lambda item: -item[1])
        ]
        lines = draw([row for row in rows if row.count or row.depth == 0], self.offered, width, ascii_only)
        return "\n".join([*lines, "", self.equation()])

    def equation(self) -> str:
        """The balance in one line."""
        verdict = "balanced" if next(self.imbalances(), None) is None else "NOT BALANCED"
        return (
            f"{self.offered:,} offered + {self.copies:,} copies = {self.delivered:,} delivered"
            f" + {sum(self.dropped.values()):,} dropped + {self.in_flight:,} in flight: {verdict}"
        )


def _unread(tap: Stage) -> int:
    """What a TAP device counted and nobody came to read: offered as much as what was read."""
    return tap.entered + tap.copies - tap.left


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what, how many, how far indented, and a remark."""

    label: str
    count: int
    depth: int = 0
    remark: str = ""


def draw(rows: Sequence[Row], whole: int, width: int, ascii_only: bool) -> list[str]:
    """The rows as aligned lines of at most `width` characters: label, count, percent of `whole`, bar, remark."""
    labels = max(len(row.label) + 2 * row.depth for row in rows)
    counts = max(len(f"{row.count:,}") for row in rows)
    room = max(0, width - labels - counts - 12)
    remark = max((len(row.remark) for row in rows), default=0)
    bar = min(20, room, max(8, room - remark - 1)) if room >= 4 else 0
    lines = []
    for row in rows:
        share = row.count / whole if whole else 0.0
        line = f"{'  ' * row.depth + row.label:<{labels}}  {row.count:>{counts},}  {percent(share):>7}"
        if bar:
            line += f" {bar_of(min(share, 1.0), bar, ascii_only):<{bar}}"
        if row.remark and len(line) + 1 + len(row.remark) <= width:
            line += f" {row.remark}"
        lines.append(line.rstrip())
    return lines


def percent(share: float) -> str:
    """ "8.3 %"; what is there but too small to show is "<0.1 %"."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def bar_of(share: float, width: int, ascii_only: bool) -> str:
    """A bar in eighths of a character, or in whole #; anything above zero shows."""
    if share <= 0:
        return ""
    if ascii_only:
        return "#" * max(1, round(share * width))
    full, part = divmod(max(1, round(share * width * 8)), 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[part - 1] if part else "")


def count_tap(native: Any, offered: int, read: int, read_errors: int, dropped: int, unaccounted: int) -> None:
    """Enters the balance of a TAP device between two snapshots (R21) as the stage TAP of a native ledger.

    The reader has counted its errors itself. Where the device claims less than was read, what was read counts.
    """
    entered, left = getattr(native, "in"), native.out
    entered[lib.EXO_S_TAP] += max(offered, read + read_errors + dropped) - read_errors
    left[lib.EXO_S_TAP] += read
    lib.exo_ledger_count(native, lib.EXO_O_WIRE, lib.EXO_R_TAP_TX_DROPPED, dropped)
    lib.exo_ledger_count(native, lib.EXO_O_WIRE, lib.EXO_R_TAP_UNACCOUNTED, max(0, unaccounted))


def drops_of(native: Any) -> dict[str, int]:
    """Drops by "stage.reason" of a `struct exo_ledger *` or `exo_account`, without delivered and sent.

    Cheap: for a progress line.
    """
    first = lib.EXO_R_SOURCE_FIRST
    return {reason_name(i): native.drop[i] for i in range(first, lib.EXO_REASONS) if native.drop[i]}


def reason_text(name: str) -> str:
    """What "stage.reason" means, in a few words; ValueError where there is none such."""
    for number in range(lib.EXO_REASONS):
        if reason_name(number) == name:
            return str(ffi.string(lib.exo_reason_text(number)).decode())
    raise ValueError(f"reason {name}: there is none such")
