# SPDX-License-Identifier: MIT
"""A run from a plan: wires, machine, tenants, traffic, ledger. Nothing else of lab and cli runs a machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from exonet.abi import lib
from exonet.clock import NS_PER_S, Clock, Stopwatch, wall_offset_ns
from exonet.errors import FilterError, RunError, UsageError
from exonet.filters.compile import compile_filter
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.region import Kind, conflict, relation, remedy
from exonet.filters.syntax import to_pcap
from exonet.gate.protocol import MAX_TEXT
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.boot import Machine
from exonet.kernel.capability import Quota
from exonet.kernel.launcher import UNPRIVILEGED
from exonet.kernel.regions import unicast
from exonet.kernel.schedule import CostModel, InterruptMode, Slice
from exonet.kernel.spec import LibOSSpec, MachineConfig
from exonet.lab.plan import SIDES, Plan, Settings, TapSource, Tenant, TraceSource
from exonet.lab.progress import Progress
from exonet.lab.results import Result, Timing, host
from exonet.ledger import Ledger, count_tap, drops_of
from exonet.trace import Counters, EventLog, RunBegins, RunEnded, WireEnded
from exonet.wire.capture import Trace
from exonet.wire.impair import Impair, Impairments
from exonet.wire.link import Wire
from exonet.wire.pcap import PcapWire, split
from exonet.wire.rewrite import Rewrite
from exonet.wire.speed import Speed, SpeedKind
from exonet.wire.tap import Snapshot, TapWire, balance
from exonet.wire.tee import Tee
from exonet.wire.wrapper import Wrapper
from exonet.wording import counted

MOST_PORTS = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Wires ready to be attached, how many frames they will offer (None: nobody knows), and what a person must know."""

    wires: tuple[Wire, ...]
    total: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pointers:
    """A libpcap program as the pcap wire wants it; keeps it alive."""

    program: Program

    @property
    def bpf_filter(self) -> int:
        return self.program.addresses[0]

    @property
    def instructions(self) -> int:
        return self.program.addresses[1]


def run(
    plan: Plan,
    *,
    trace: Trace | None = None,
    progress: Progress | None = None,
    starting: Callable[[], None] | None = None,
) -> Result:
    """Runs `plan` to its end, its deadline or an interrupt, and returns what became of every frame.

    trace: the capture where it is loaded already, for a sweep. starting: called when everything is ready. Raises
    UsageError where the plan cannot be, RunError where the run failed, ConservationError where its ledger does not
    balance.
    """
    check_tenants(plan.tenants)
    specs = [libos_spec(tenant, plan) for tenant in plan.tenants]
    config = machine_config(plan.settings, [tenant.name for tenant in plan.tenants])
    result: Result | None = None
    try:
        with ExitStack() as stack:
            result = _in(stack, plan, specs, config, trace, progress, starting)
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
) -> Result:
    """Builds the machine, whose parts `stack` closes, and runs it."""
    source = open_source(plan, stack, trace)
    events = stack.enter_context(EventLog(plan.settings.trace))
    machine = stack.enter_context(Machine(config, events))
    events.write(RunBegins(plan.command, config.clock.value, config.seed))
    replayed = isinstance(plan.source, TraceSource)
    ports = [machine.attach(wire, nic_config(plan), subscribe_all=replayed) for wire in source.wires]
    sides = [sides_of(tenant, plan.source, ports) for tenant in plan.tenants]
    environments = [machine.spawn(spec, side) for spec, side in zip(specs, sides, strict=True)]
    _name_in_tees(source.wires, {environment.number: environment.name for environment in environments})
    if plan.settings.fates is not None:
        machine.record_fates(plan.settings.fates)
    note = _show(machine, plan)
    if starting is not None:
        starting()
    return _go(machine, plan, replace(source, notes=(*source.notes, *note)), progress)


def _show(machine: Machine, plan: Plan) -> tuple[str, ...]:
    """Lets `exonet show` look at the run. A note where it cannot: the run is as good without."""
    if plan.settings.clock is Clock.VIRTUAL:
        return ()
    try:
        machine.show(plan.command)
    except RunError as error:
        return (str(error),)
    return ()


def _go(machine: Machine, plan: Plan, source: Source, progress: Progress | None) -> Result:
    """Lets everything move, and says what came of it."""
    replayed = isinstance(plan.source, TraceSource)
    if progress is not None:
        progress.total = source.total
    taps = [(tap, tap.snapshot()) for wire in source.wires if isinstance(tap := innermost(wire), TapWire)]
    watch, begin = Stopwatch(), machine.now()
    limit = plan.settings.duration_ns
    until = None if limit is None or replayed else begin + limit  # a pcap wire ends by itself
    finished = machine.run(until, on_progress=_Report(progress, begin))
    wall_s, machine_s = watch.seconds, (machine.now() - begin) / NS_PER_S
    ledger = machine.settle(drained=lambda: _count_taps(machine, taps))
    names = [tenant.name for tenant in plan.tenants]
    reports = sorted(machine.reports(), key=lambda each: names.index(each["name"]))
    _trace_end(machine, ledger, interrupted=not finished)
    return Result(
        run=_described(plan, source),
        ledger=ledger,
        environments=tuple(reports),
        timing=_timing(plan, source, ledger.delivered, wall_s, machine_s),
        notes=(*source.notes, *_warnings(reports)),
        failed=any(not report["alive"] or _hangs(report) for report in reports),
        interrupted=not finished,
    )


def _count_taps(machine: Machine, before: list[tuple[TapWire, Snapshot]]) -> None:
    """The stage TAP of the ledger, from the devices' own counters: after the traffic has stopped and drained (R21)."""
    for tap, first in before:
        found = balance(first, tap.snapshot())
        native = lib.exo_machine_ledger(machine.native)
        count_tap(native, found.offered, found.read, found.read_errors, found.dropped, found.unaccounted)


@dataclass(slots=True)
class _Report:
    """What is said while a machine runs: to a person on a terminal, and once a second to the trace of a live one."""

    progress: Progress | None
    traced: int

    def __call__(self, machine: Machine) -> None:
        native = lib.exo_machine_ledger(machine.native)
        if self.progress is not None:
            entered = getattr(native, "in")
            packets = entered[lib.EXO_S_SOURCE] + entered[lib.EXO_S_TRANSMIT]
            self.progress.update(packets, sum(drops_of(native).values()))
        if machine.config.clock is Clock.MONOTONIC and machine.now() - self.traced >= NS_PER_S:
            self.traced = machine.now()
            machine.events.write(_counters(machine.ledger()))


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


def innermost(wire: Wire) -> Wire:
    """The wire inside all wrappers."""
    while isinstance(wire, Wrapper):
        wire = wire.inner
    return wire


def check_tenants(tenants: Sequence[Tenant]) -> None:
    """Refuses a LibOS that is not installed, and what is no filter, before a process is made that would fail on it."""
    known = sorted(entry.name for entry in metadata.entry_points(group="exonet.libos"))
    for tenant in tenants:
        if known and tenant.stack not in known and ":" not in tenant.stack:
            raise UsageError(
                f'{tenant.name}: there is no LibOS "{tenant.stack}"; there are {", ".join(known)}, or module:Class'
            )
        for binding in tenant.bindings:
            if len(binding) > MAX_TEXT:
                raise UsageError(
                    f'{tenant.name}: filter "{binding[:40]}..." has {len(binding):,} characters; at most {MAX_TEXT:,}'
                )
            compile_filter(binding)
    for number, tenant in enumerate(tenants):
        for other in tenants[:number]:
            if None in (tenant.side, other.side) or tenant.side == other.side:
                check_pair(tenant, other)


def check_pair(tenant: Tenant, other: Tenant) -> None:
    """UsageError where two tenants' filters are neither disjoint nor nested (R4)."""
    mine, theirs = (compile_filter(each) for pair in (tenant, other) for each in one_binding(pair))
    example = conflict(unicast(mine.conjuncts), unicast(theirs.conjuncts))
    if example is None:
        return
    both = f"binding {tenant.name} ({mine.source!r}) and binding {other.name} ({theirs.source!r})"
    if relation(unicast(mine.conjuncts), unicast(theirs.conjuncts)).kind is Kind.EQUAL:
        raise UsageError(f"{both} claim the very same frames; for example {example.scapy}")
    raise UsageError(
        f"{both} overlap and neither is inside the other; for example {example.scapy} is in both; this would do: "
        f"{tenant.name}={remedy(mine.text, theirs.text)!r}"
    )


def machine_config(settings: Settings, names: Sequence[str]) -> MachineConfig:
    """The machine's own configuration; slices are checked against the tenants' names."""
    slices = Slice.parse_vector(settings.slices)
    for item in slices:
        if item.environment is not None and item.environment not in names:
            raise UsageError(f'slice "{item.environment}": no LibOS has this name; there are {", ".join(names)}, and -')
    return MachineConfig(
        clock=settings.clock,
        pages=settings.pages,
        seed=settings.seed,
        spin_ns=settings.spin_ns,
        core=settings.core,
        costs=CostModel.named(settings.costs),
        interrupt_mode=InterruptMode.EACH if settings.interrupt == "each" else InterruptMode.BUDGET,
        budget=settings.budget,
        slices=slices,
    )


def libos_spec(tenant: Tenant, plan: Plan) -> LibOSSpec:
    """A replay's tenant takes any address and every group unless it is a station of its own; a TAP's is one (R9).

    In a replay nothing leaves the machine but into --pcap-out, so a LibOS that answers may do so as whoever was asked;
    addresses narrow that.
    """
    replayed = isinstance(plan.source, TraceSource)
    unsaid = "own" if tenant.addresses else "any" if replayed and tenant.stack != "sink" else "none"
    buffers = plan.settings.buffers_of(tenant)
    return LibOSSpec(
        name=tenant.name,
        libos=tenant.stack,
        bindings=one_binding(tenant),
        addresses=tenant.addresses,
        mac=tenant.mac,
        local=tenant.local or unsaid,
        any_address=replayed and not (tenant.addresses and tenant.mac),
        groups="all" if replayed else "stack",
        mtu=plan.source.mtu if isinstance(plan.source, TapSource) else 1500,
        process=plan.settings.is_process(tenant),
        entries=plan.settings.rings,
        receive_buffers=buffers,
        transmit_buffers=max(256, min(plan.settings.rings, 4096)),
        options={"port": list(tenant.ports)} if tenant.ports else {},
        serves=() if tenant.ports else served_ports(tenant),
        quota=Quota(pages=Quota().pages + buffers),  # what the operator asks for, the LibOS may have
    )


def one_binding(tenant: Tenant) -> tuple[str, ...]:
    """Its filters as one, so that they may overlap each other (R4: the conjuncts of one binding may)."""
    if len(tenant.bindings) == 1:
        return tenant.bindings
    return (" or ".join(f"({compile_filter(text).text})" for text in tenant.bindings),)


def served_ports(tenant: Tenant) -> tuple[int, ...]:
    """The UDP destination ports that its filters name one by one: what its LibOS, if it serves UDP, is asked on."""
    found = {port for text in tenant.bindings for port in compile_filter(text).values_of("udp.dport") if port}
    return tuple(sorted(found))[:MOST_PORTS]


def sides_of(tenant: Tenant, source: TraceSource | TapSource, ports: Sequence[int]) -> Sequence[int]:
    """The ports that a tenant is bound on: every one, or that of its side of a two-sided replay."""
    if tenant.side is None:
        return ports
    if not isinstance(source, TraceSource) or not source.two_sided:
        raise UsageError(f"{tenant.name}: side={tenant.side}: only a two-sided replay has sides; add --two-sided")
    return [ports[SIDES.index(tenant.side)]]


def nic_config(plan: Plan) -> NicConfig:
    settings = plan.settings
    mode = settings.nic_mode
    if mode == "auto":
        fast = isinstance(plan.source, TraceSource) and Speed.parse(plan.source.speed).kind is SpeedKind.MAX
        mode = "backpressure" if fast else "drop"
    return NicConfig(
        queues=settings.queues,
        descriptors=settings.descriptors,
        fifo_bytes=settings.fifo_bytes,
        mode=NicMode.BACKPRESSURE if mode == "backpressure" else NicMode.DROP,
        promiscuous=isinstance(plan.source, TraceSource),
        seed=settings.seed,
    )


def open_source(plan: Plan, stack: ExitStack, trace: Trace | None = None) -> Source:
    """The plan's wires, closed by `stack`.

    What the tee writes is dated by real time; on the virtual clock, which begins at 0, by the capture's beginning.
    """
    impairments = Impairments.parse(plan.settings.impair) if plan.settings.impair else None
    epoch = wall_offset_ns()
    if isinstance(plan.source, TapSource):
        source = Source((stack.enter_context(tap_wire(plan.source)),))
    else:
        trace = trace or stack.enter_context(Trace.load(plan.source.path, memory_limit=plan.source.memory))
        source = trace_source(plan.source, plan.settings, stack, trace)
        if plan.settings.clock is Clock.VIRTUAL:
            epoch = 0 if trace.streamed else trace.first_timestamp
    wires = []
    for number, wire in enumerate(source.wires):
        if impairments is not None:
            wire = stack.enter_context(Impair(wire, impairments, plan.settings.seed + number))
        if plan.settings.pcap_out is not None:
            path = plan.settings.pcap_out
            name = path if number == 0 else path.with_stem(f"{path.stem}-{number}")
            wire = stack.enter_context(Tee(wire, name, epoch=epoch))
        wires.append(wire)
    return Source(tuple(wires), source.total, source.notes)


def tap_wire(source: TapSource) -> TapWire:
    return TapWire(source.name, mtu=source.mtu, host_address=source.hosts, namespace=source.namespace, ipv6=source.ipv6)


def trace_source(source: TraceSource, settings: Settings, stack: ExitStack, trace: Trace) -> Source:
    """One pcap wire, or two for a two-sided replay."""
    options: dict[str, Any] = {
        "speed": Speed.parse(source.speed),
        "loop": source.loop,
        "shift": source.shift,
        "limit": source.limit,
        "duration": settings.duration_ns,
        "include": pointers("--include", source.include),
        "exclude": pointers("--exclude", source.exclude),
        "rewrite": Rewrite.parse(source.rewrite) if source.rewrite else None,
        "fix_checksums": source.fix_checksums,
    }
    notes = trace_notes(trace)
    wires = split(trace, clients=source.clients, **options) if source.two_sided else (PcapWire(trace, **options),)
    for wire in wires:
        stack.enter_context(wire)
    total = None if trace.streamed or source.loop == 0 else trace.count * source.loop
    if source.limit is not None and total is not None:
        total = min(total, source.limit)
    return Source(wires, total, notes)


def pointers(option: str, text: str | None) -> Pointers | None:
    """The program of a filter in either language, which need not decompose. FilterError names the option."""
    if not text:
        return None
    try:
        return Pointers(Libpcap().compile(to_pcap(text)))
    except FilterError as error:
        raise FilterError(f"{option}: {error}") from None


def trace_notes(trace: Trace) -> tuple[str, ...]:
    """What a person must know of a capture before the numbers. Does not read a streamed one on."""
    if trace.streamed:
        return ()
    notes = []
    if trace.broken:
        notes.append(f"{trace.broken}; {counted(trace.count, 'record')} before that can be replayed")
    if trace.count == 0:
        raise UsageError(f"capture {trace.path}: it holds no packets; there is nothing to replay")
    if trace.snapped:
        notes.append(
            f"{trace.path}: the snaplen cut {trace.snapped:,} of {counted(trace.count, 'packet')}; what is left is "
            "replayed as captured"
        )
    return tuple(notes)


def _name_in_tees(wires: tuple[Wire, ...], names: dict[int, str]) -> None:
    for wire in wires:
        if isinstance(wire, Tee):
            for number, name in names.items():
                wire.name_environment(number, name)


def _timing(plan: Plan, source: Source, delivered: int, wall_s: float, machine_s: float) -> Timing:
    virtual_s = machine_s if plan.settings.clock is Clock.VIRTUAL else None
    pps = delivered / machine_s if machine_s else 0.0
    pacing: dict[str, int | None] = {"p50": None, "p99": None, "max": None}
    pcap = innermost(source.wires[0])
    if isinstance(pcap, PcapWire) and (error := pcap.pacing_error()).count:
        pacing = {"p50": error.p50, "p99": error.p99, "max": error.max}
    return Timing(wall_s, pps, pacing, virtual_s)


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
