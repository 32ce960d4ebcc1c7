# SPDX-License-Identifier: MIT
"""What a plan asks of the kernel: the machine, its NICs, and for each tenant a LibOS and what it is granted."""

from collections.abc import Sequence
from importlib import metadata

from exonet.abi import lib
from exonet.errors import ExhaustedError, UsageError
from exonet.filters.compile import CompiledFilter, compile_filter
from exonet.filters.region import Kind, conflict, difference, relation
from exonet.filters.remedy import remedy
from exonet.gate.protocol import MAX_TEXT
from exonet.hardware.nic import NicConfig, NicMode
from exonet.kernel.capability import Quota
from exonet.kernel.regions import taker, unicast
from exonet.kernel.schedule import CostModel, InterruptMode, Slice
from exonet.kernel.spec import LibOSSpec, MachineConfig
from exonet.kernel.standing import clash
from exonet.lab.plan import DEFAULT_MTU, SIDES, Plan, Settings, TapSource, Tenant, TraceSource
from exonet.wire.speed import Speed, SpeedKind
from exonet.wording import quoted

MOST_PORTS = 64
ETHERNET_OVERHEAD = 14 + 2 * 4  # a header and two VLAN tags


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
    first, second = unicast(mine.conjuncts), unicast(theirs.conjuncts)
    example = conflict(first, second)
    if example is None:
        return
    takers = (taker(mine.conjuncts, example), taker(theirs.conjuncts, example))
    same = relation(first, second).kind is Kind.EQUAL
    instead = "" if same else what_would_do(tenant.name, mine, theirs)
    said, held = (
        f"binding {each.name} ({quoted(text)})" for each, text in ((tenant, mine.source), (other, theirs.source))
    )
    raise UsageError(clash(said, held, takers, example.scapy, same=same, instead=instead))


def what_would_do(name: str, mine: CompiledFilter, theirs: CompiledFilter) -> str:
    """The rest of a refusal: a filter for `name` that has been tried; where there is none, a frame by which `mine` is
    not inside `theirs`.
    """
    does = remedy(mine.text, theirs.text)
    if does:
        return f"; this would do: {name}={does!r}"
    try:
        alone = difference(unicast(mine.conjuncts), unicast(theirs.conjuncts))
    except ExhaustedError:
        alone = None
    return f", and {alone.scapy} in {name} alone" if alone else ""


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
        mtu=plan.source.mtu or DEFAULT_MTU,
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
        max_frame=max_frame(plan.source),
        promiscuous=isinstance(plan.source, TraceSource),
        seed=settings.seed,
    )


def max_frame(source: TraceSource | TapSource) -> int:
    """Bytes of the longest frame of the source's MTU, with two VLAN tags, as Linux drivers count it."""
    least = NicConfig().max_frame if isinstance(source, TapSource) or source.mtu is None else 0
    longest: int = lib.EXO_MAX_FRAME
    return max(least, min((source.mtu or 0) + ETHERNET_OVERHEAD, longest))
