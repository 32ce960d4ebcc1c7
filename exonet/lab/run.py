# SPDX-License-Identifier: MIT
"""A run from a plan: wires, machine, tenants, traffic, ledger. Nothing else of lab and cli runs a machine."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from exonet.abi import lib
from exonet.clock import NS_PER_S, Clock, Stopwatch, format_duration
from exonet.errors import RunError
from exonet.kernel.boot import Machine
from exonet.kernel.launcher import UNPRIVILEGED
from exonet.kernel.spec import LibOSSpec, MachineConfig
from exonet.lab.figures import with_rates
from exonet.lab.hostload import HostLoad, HostWatch
from exonet.lab.load import MARGIN_NS, TapLoad
from exonet.lab.longer import cut, hints
from exonet.lab.notes import trace_notes
from exonet.lab.plan import Plan, TraceSource
from exonet.lab.progress import Progress
from exonet.lab.results import Result, Timing, host
from exonet.lab.source import Source, innermost, name_in_tees, open_source
from exonet.lab.tenancy import check_tenants, libos_spec, machine_config, nic_config, sides_of
from exonet.ledger import Ledger, count_tap, drops_of
from exonet.trace import Counters, EventLog, RunBegins, RunEnded, WireEnded
from exonet.wire.capture import Trace
from exonet.wire.link import Wire
from exonet.wire.pcap import PcapWire
from exonet.wire.tap import Snapshot, TapWire, balance
from exonet.wording import counted

NEVER = (1 << 64) - 1
LONG_WAIT_NS = 60 * NS_PER_S
#: A replay's wire has ended so long after its duration; whoever is still busy then is waited for as at every end.
REPLAY_ENDS_NS = 100_000_000


def run(
    plan: Plan,
    *,
    trace: Trace | None = None,
    progress: Progress | None = None,
    starting: Callable[[], None] | None = None,
    load: TapLoad | None = None,
) -> Result:
    """Runs `plan` to its end, its deadline or an interrupt, and returns what became of every frame.

    trace: the capture where it is loaded already, for a sweep. starting: called when everything is ready. load: sends
    from then on, and the run goes on while it does. Raises UsageError where the plan cannot be, RunError where the run
    failed, ConservationError where its ledger does not balance.
    """
    check_tenants(plan.tenants)
    specs = [libos_spec(tenant, plan) for tenant in plan.tenants]
    config = machine_config(plan.settings, [tenant.name for tenant in plan.tenants])
    result: Result | None = None
    try:
        with ExitStack() as stack:
            result = _in(stack, plan, specs, config, trace, progress, starting, load)
    except RunError as error:
        if result is None:
            raise
        return replace(result, notes=(*result.notes, str(error)), failed=True)  # a file of the run is not whole
    return result


def _in(
    stack: ExitStack,
    plan: Plan,
    specs: Sequence[LibOSSpec],
    config: MachineConfig,
    trace: Trace | None,
    progress: Progress | None,
    starting: Callable[[], None] | None,
    load: TapLoad | None,
) -> Result:
    """Builds the machine, whose parts `stack` closes, and runs it."""
    source = open_source(plan, stack, trace, None if progress is None else lambda n: progress.update(n, 0))
    events = stack.enter_context(EventLog(plan.settings.trace))
    machine = stack.enter_context(Machine(config, events))
    events.write(RunBegins(plan.command, config.clock.value, config.seed))
    replayed = isinstance(plan.source, TraceSource)
    ports = [machine.attach(wire, nic_config(plan), subscribe_all=replayed) for wire in source.wires]
    sides = [sides_of(tenant, plan.source, ports) for tenant in plan.tenants]
    environments = [machine.spawn(spec, side) for spec, side in zip(specs, sides, strict=True)]
    name_in_tees(source.wires, {environment.number: environment.name for environment in environments})
    if plan.settings.fates is not None:
        machine.record_fates(plan.settings.fates)
    note = _show(machine, plan)
    if starting is not None:
        starting()
    return _go(machine, plan, replace(source, notes=(*source.notes, *note)), progress, load)


def _show(machine: Machine, plan: Plan) -> tuple[str, ...]:
    """Lets `exonet show` look at the run. A note where it cannot: the run is as good without."""
    if plan.settings.clock is Clock.VIRTUAL:
        return ()
    try:
        machine.show(plan.command)
    except RunError as error:
        return (str(error),)
    return ()


def _go(machine: Machine, plan: Plan, source: Source, progress: Progress | None, load: TapLoad | None) -> Result:
    """Lets everything move, and says what came of it."""
    replayed = isinstance(plan.source, TraceSource)
    if progress is not None:
        progress.total = source.total
    taps = [(tap, tap.snapshot()) for wire in source.wires if isinstance(tap := innermost(wire), TapWire)]
    if load is not None:
        load.start()
    watch, begin = Stopwatch(), machine.now()
    host_watch = None if plan.settings.clock is Clock.VIRTUAL else HostWatch(_cpu_of(machine, load))
    report = _Report(progress, begin)
    if load is not None:
        finished = _while_it_lasts(machine, load, report)
    else:
        limit = plan.settings.duration_ns
        until = None if limit is None else begin + limit
        if until is not None and replayed:  # a pcap wire ends by itself, and virtual time costs nobody anything
            until = None if plan.settings.clock is Clock.VIRTUAL else until + REPLAY_ENDS_NS
        finished = machine.run(until, on_progress=report)
    host_load = None if host_watch is None else host_watch.end(_cpu_of(machine, load))
    wall_s, machine_s = watch.seconds, (machine.now() - begin) / NS_PER_S
    ledger = machine.settle(drained=lambda: _count_taps(machine, taps))
    names = [tenant.name for tenant in plan.tenants]
    reports = [with_rates(each, machine_s) for each in machine.reports()]
    reports.sort(key=lambda each: names.index(each["name"]))
    _trace_end(machine, ledger, interrupted=not finished)
    return Result(
        run=_described(plan, source),
        ledger=ledger,
        environments=tuple(reports),
        timing=_timing(plan, source, ledger.delivered, wall_s, machine_s, host_load),
        notes=(*source.notes, *trace_notes(source.trace), *_uncalibrated(machine, plan), *_warnings(reports)),
        hints=tuple(hints(machine, plan, ledger)),
        cut=cut(machine.wires),
        failed=any(not report["alive"] or _hangs(report) for report in reports) or _met_break(source),
        interrupted=not finished,
    )


def _uncalibrated(machine: Machine, plan: Plan) -> Iterator[str]:
    """Which kinds of LibOS the cost model has no figures for."""
    costs = machine.config.costs
    unknown = dict.fromkeys(tenant.stack for tenant in plan.tenants if costs.lacks(tenant.stack))
    if plan.settings.clock is Clock.VIRTUAL and unknown:
        yield (
            f"cost model {plan.settings.costs} has no figures for {', '.join(unknown)}: charged {costs.consume:,} ns "
            "a packet, as any LibOS; exonet calibrate --libos measures it"
        )


def _while_it_lasts(machine: Machine, load: TapLoad, report: "_Report") -> bool:
    """Until the load has been sent and has had time to arrive; False where Ctrl-C ended it."""
    latest = machine.now() + round(load.longest_s * NS_PER_S)
    while load.lasts() and machine.now() < latest:
        if not machine.run(machine.now() + MARGIN_NS, on_progress=report):
            return False
    return machine.run(machine.now() + MARGIN_NS, on_progress=report)


def _cpu_of(machine: Machine, load: TapLoad | None) -> dict[int, int]:
    """The CPU time of the run's processes beside this one, ns by pid."""
    processes = [env.process for env in machine.environments if env.process is not None]
    return {process.pid: process.cpu_ns for process in processes} | ({} if load is None else load.cpu_ns)


def _count_taps(machine: Machine, before: list[tuple[TapWire, Snapshot]]) -> None:
    """The stage TAP of the ledger, from the devices' own counters: after the traffic has stopped and drained (R21)."""
    for tap, first in before:
        found = balance(first, tap.snapshot())
        native = lib.exo_machine_ledger(machine.native)
        count_tap(native, found.offered, found.read, found.read_errors, found.dropped, found.unaccounted)


def _replays(wires: Iterable[Wire]) -> Iterator[PcapWire]:
    """The pcap wires inside all wrappers."""
    for wire in wires:
        if isinstance(inner := innermost(wire), PcapWire):
            yield inner


def _met_break(source: Source) -> bool:
    """Did the replay come to where its capture breaks? A limit or a duration may have ended it before."""
    broken = source.trace is not None and source.trace.broken is not None
    return broken and any(wire.counters()["loops"] for wire in _replays(source.wires))


@dataclass(slots=True)
class _Report:
    """What is said while a machine runs: to a person, and once a second to the trace of a live one."""

    progress: Progress | None
    traced: int
    announced: int = 0

    def __call__(self, machine: Machine) -> None:
        if self.progress is not None and machine.config.clock is Clock.MONOTONIC:
            self._announce(machine, self.progress)
        native = lib.exo_machine_ledger(machine.native)
        if self.progress is not None:
            entered = getattr(native, "in")
            packets = entered[lib.EXO_S_SOURCE] + entered[lib.EXO_S_TRANSMIT]
            self.progress.update(packets, sum(drops_of(native).values()))
        if machine.config.clock is Clock.MONOTONIC and machine.now() - self.traced >= NS_PER_S:
            self.traced = machine.now()
            machine.events.write(_counters(machine.ledger()))

    def _announce(self, machine: Machine, progress: Progress) -> None:
        """A long wait for the capture's next packet, once, when it begins."""
        now = machine.now()
        due = min((wire.next_due(now) for wire in _replays(machine.wires)), default=now)
        if now + LONG_WAIT_NS < due < NEVER and due != self.announced:
            self.announced = due
            progress.say(
                f"the next packet is due in {format_duration(due - now)}; --max-gap cuts gaps between timestamps"
            )


def _counters(ledger: Ledger) -> Counters:
    return Counters(ledger.offered, ledger.delivered, ledger.dropped)


def _trace_end(machine: Machine, ledger: Ledger, *, interrupted: bool) -> None:
    """The last lines of the trace but for the ends of environments."""
    machine.events.write(_counters(ledger))
    for port, wire in enumerate(machine.wires):
        native = wire.native
        passed = (native.rx_frames, native.rx_bytes, native.tx_frames, native.tx_bytes)
        machine.events.write(WireEnded(port, wire.name, *passed))
    machine.events.write(RunEnded(interrupted))


def _warnings(reports: list[dict[str, Any]]) -> Iterator[str]:
    """What the numbers do not say of the environments."""
    bare = [report["name"] for report in reports if report["mode"] == "process" and report["protection"] == "none"]
    if bare:
        yield f"no protection is claimed for {', '.join(bare)}: {UNPRIVILEGED}"
    for report in reports:
        if not report["alive"]:
            yield f"LibOS {report['name']} ended before the run did: {report['end_reason']}; its packets are counted"
        elif _hangs(report):
            left = report["placed"] - report["consumed"]
            kept = counted(left, "packet")
            yield f"LibOS {report['name']} hangs: it leaves {kept} in its ring, counted as in flight"


def _hangs(report: dict[str, Any]) -> bool:
    """Does it, a process of its own, leave packets untaken although it was waited for?"""
    waits: bool = report["alive"] and report["mode"] == "process" and report["consumed"] < report["placed"]
    return waits


def _timing(
    plan: Plan, source: Source, delivered: int, wall_s: float, machine_s: float, host_load: HostLoad | None
) -> Timing:
    virtual_s = machine_s if plan.settings.clock is Clock.VIRTUAL else None
    pps = delivered / machine_s if machine_s else 0.0
    pacing: dict[str, int | None] = {"p50": None, "p99": None, "max": None}
    pcap = innermost(source.wires[0])
    if isinstance(pcap, PcapWire) and (error := pcap.pacing_error()).count:
        pacing = {"p50": error.p50, "p99": error.p99, "max": error.max}
    backward = sum(wire.counters()["backward"] for wire in _replays(source.wires))
    return Timing(wall_s, pps, pacing, virtual_s, host_load, backward)


def _described(plan: Plan, source: Source) -> dict[str, Any]:
    """The `run` object of the JSON: enough to run it again."""
    settings = plan.settings
    return {
        **host(),
        "command": list(plan.command),
        "clock": settings.clock.value,
        "seed": settings.seed,
        "rings": settings.rings,
        "descriptors": settings.descriptors,
        "nic_mode": nic_config(plan).mode.name.lower(),
        "costs": settings.costs if settings.clock is Clock.VIRTUAL else None,
        "slices": settings.slices,
        "tenants": [
            {
                "name": tenant.name,
                "stack": tenant.stack,
                "bindings": list(tenant.bindings),
                "addresses": list(tenant.addresses),
            }
            for tenant in plan.tenants
        ],
        "wires": [wire.describe() for wire in source.wires],
    }
