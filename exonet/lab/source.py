# SPDX-License-Identifier: MIT
"""The wires of a run: a capture as it is to be replayed, or TAP devices, with what a person must know of them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from exonet.clock import Clock, wall_offset_ns
from exonet.errors import FilterError
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.optimiser import compile_checked
from exonet.filters.syntax import to_pcap
from exonet.lab.files import of_wire
from exonet.lab.notes import check_trace
from exonet.lab.plan import DEFAULT_MTU, Plan, Settings, TapSource, TraceSource
from exonet.wire.capture import Trace
from exonet.wire.impair import Impair, Impairments
from exonet.wire.link import Wire
from exonet.wire.pcap import PcapWire, split
from exonet.wire.resegment import Resegment
from exonet.wire.rewrite import Rewrite
from exonet.wire.speed import Speed
from exonet.wire.tap import TapWire
from exonet.wire.tee import Tee
from exonet.wire.wrapper import Wrapper


@dataclass(frozen=True, slots=True)
class Source:
    """Wires ready to be attached, how many frames they will offer (None: nobody knows), what a person must know; and
    the capture that they replay.
    """

    wires: tuple[Wire, ...]
    total: int | None = None
    notes: tuple[str, ...] = ()
    trace: Trace | None = None


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


def innermost(wire: Wire) -> Wire:
    """The wire inside all wrappers."""
    while isinstance(wire, Wrapper):
        wire = wire.inner
    return wire


def open_source(
    plan: Plan, stack: ExitStack, trace: Trace | None = None, on_scan: Callable[[int], None] | None = None
) -> Source:
    """The plan's wires, closed by `stack`. A streamed capture is read through first: what is said is of all of it.

    on_scan: called now and then with the records that were read.
    What the tee writes is dated by real time; on the virtual clock, which begins at 0, by the capture's beginning.
    """
    impairments = Impairments.parse(plan.settings.impair) if plan.settings.impair else None
    epoch = wall_offset_ns()
    if isinstance(plan.source, TapSource):
        source = Source((stack.enter_context(tap_wire(plan.source)),))
    else:
        if trace is None:
            trace = stack.enter_context(Trace.load(plan.source.path, memory_limit=plan.source.memory))
        trace.scan(on_scan)
        source = trace_source(plan.source, plan.settings, stack, trace)
        if plan.settings.clock is Clock.VIRTUAL:
            epoch = trace.first_timestamp
    wires = []
    for number, wire in enumerate(source.wires):
        if impairments is not None:
            wire = stack.enter_context(Impair(wire, impairments, plan.settings.seed + number))
        if plan.settings.pcap_out is not None:
            wire = stack.enter_context(Tee(wire, of_wire(plan.settings.pcap_out, number), epoch=epoch))
        wires.append(wire)
    return replace(source, wires=tuple(wires))


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
        "max_gap": source.max_gap_ns,
        "include": pointers("--include", source.include),
        "exclude": pointers("--exclude", source.exclude),
        "rewrite": Rewrite.parse(source.rewrite) if source.rewrite else None,
        "fix_checksums": source.fix_checksums,
    }
    check_trace(trace)
    wires: tuple[Wire, ...] = (
        split(trace, clients=source.clients, **options) if source.two_sided else (PcapWire(trace, **options),)
    )
    for wire in wires:
        stack.enter_context(wire)
    if source.resegment:
        wires = resegmented(wires, source.mtu or DEFAULT_MTU, settings.seed, stack)
    total = None if source.loop == 0 else trace.count * source.loop
    if source.limit is not None and total is not None:
        total = min(total, source.limit)
    return Source(wires, total, trace=trace)


def resegmented(wires: Sequence[Wire], mtu: int, seed: int, stack: ExitStack) -> tuple[Wire, ...]:
    """Wires around these that cut what is longer; they learn of the connections together."""
    around: list[Resegment] = []
    for wire in wires:
        beside = around[0] if around else None
        around.append(stack.enter_context(Resegment(wire, mtu=mtu, seed=seed, beside=beside)))
    return tuple(around)


def pointers(option: str, text: str | None) -> Pointers | None:
    """The program of a filter in either language, which need not decompose. FilterError names the option."""
    if not text:
        return None
    try:
        return Pointers(compile_checked(Libpcap(), to_pcap(text)))
    except FilterError as error:
        raise FilterError(f"{option}: {error}") from None


def name_in_tees(wires: tuple[Wire, ...], names: dict[int, str]) -> None:
    for wire in wires:
        if isinstance(wire, Tee):
            for number, name in names.items():
                wire.name_environment(number, name)
