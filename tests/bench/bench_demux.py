# SPDX-License-Identifier: MIT
"""Classification alone: whose is each frame of a burst? ns per frame, every owner checked, beside what others do.

A sample is the best of three passes, since what disturbs a pass only makes it slower; contenders take turns.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from exonet.filters.native import available
from exonet.lab.bench import Context, Figure, Skip, Target, ratio
from tests.bench.bench_demux_attack import attack
from tests.bench.bench_demux_cases import (
    TCP,
    UDP,
    Bytes,
    Numbers,
    Table,
    Work,
    flow_text,
    flows,
    ip4_frames,
    ip6_frames,
    networks,
    numbers,
    port_ranges,
    works,
)
from tests.bench.bench_demux_peers import Libpcaps, Ours, RteAcl, rte_acl

TARGETS = {"resident": 8, "uniform": 15, "streaming": 20}
STREAMING_MANY = 35
#: Values of the one shape, and at toy size.
FEW, SOME, MANY = (10, 4), (1000, 20), (100_000, 100)
PASSES = 3
#: Frames that libpcap is given for one sample: with 1,000 filters it needs 20 us for each.
SEQUENCE = 4096
VECTORS = ("avx512x32", "avx512x16", "avx2", "sse")

CONNECTED = "udp and src host 10.1.2.3 and dst host 10.7.0.2 and src port 1000 and dst port 53"
NO_NATIVE = "llvmlite is not installed: pip install llvmlite"
NO_PEER = "measured with fewer values only"

Contender = Callable[[], float]
Samples = Mapping[str, tuple[float, ...]]


def demux(context: Context) -> Iterator[Figure]:
    """Whose is a 64-byte frame: ns each (best of three passes), compiled, from tables, by libpcap and by rte_acl"""
    ours = Ours(context)
    for values in (FEW, SOME, MANY):
        yield from _one_shape(context, ours, context.size(*values), values)
    yield from _four_shapes(context, ours)
    yield from _intervals(context, ours)
    yield from _usual(context, ours)
    yield from attack(context, ours)


def _samples(context: Context, contenders: Mapping[str, Contender]) -> Samples:
    """ns per frame of each, a sample per repetition, all of them in every repetition."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in context.repeat():
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(1 if context.toy else PASSES):
            for name, run in contenders.items():
                best[name] = min(best[name], run())
        for name, value in best.items():
            taken[name].append(value)
    return {name: tuple(values) for name, values in taken.items()}


def _own(ours: Ours, table: Table, work: Work) -> dict[str, Contender]:
    """The demux by its tables and, where llvmlite is, natively."""

    def run(native: bool) -> float:
        table.answer(native=native)
        return ours.nanoseconds(table, work)

    contenders = {"tables": lambda: run(False)}
    return {"native": lambda: run(True)} | contenders if available() else contenders


def _figure(name: str, samples: Samples, key: str, bound: float | None = None, why: str = NO_NATIVE) -> Figure:
    """Skipped, with the reason `why`, where the contender was not there."""
    target = None if bound is None else Target(bound, at_most=True)
    if key not in samples:
        return Figure(name, "ns", target=target, skipped=why)
    return Figure(name, "ns", samples[key], target)


# ---- one shape, and who else does it ----


def _one_shape(context: Context, ours: Ours, count: int, values: tuple[int, int]) -> Iterator[Figure]:
    """`count` connected sockets: exact 5-tuples that differ in all but the protocol."""
    frames = flows(count, context.seed)
    with Table(context.seed) as table, ExitStack() as stack:
        owners = table.bind(CONNECTED, frames)
        libpcap, no_libpcap = _libpcap(context, frames) if values != MANY else (None, NO_PEER)
        acl, no_acl = _acl(context, stack, frames) if values == SOME else (None, NO_PEER)
        for work in works(frames, owners, context.seed, toy=context.toy):
            contenders = _own(ours, table, work)
            if libpcap and work.name == "resident":
                contenders["libpcap"] = _asked(libpcap, work)
            if acl:
                contenders |= {f"rte_acl {method}": _classified(acl, work, method) for method in _methods(acl)}
            samples = _samples(context, contenders)
            name = f"{count} values, {work.name}"
            bound = STREAMING_MANY if (values, work.name) == (MANY, "streaming") else TARGETS[work.name]
            native, tables = _figure(name, samples, "native", bound), _figure(f"{name}: tables", samples, "tables")
            yield from (native, tables, ratio(f"{name}: tables / native", tables, native, Target(1)))
            if values != MANY and work.name == "resident":
                yield from _beside(name, native, _figure(f"{name}: libpcap", samples, "libpcap", why=no_libpcap), 1)
            if values == SOME:
                bound = {"resident": 3, "streaming": 2}.get(work.name, 1)
                yield from _beside(name, native, _best(f"{name}: rte_acl", samples, no_acl), bound)


def _beside(name: str, native: Figure, peer: Figure, bound: float) -> Iterator[Figure]:
    yield from (peer, ratio(f"{peer.name} / native", peer, native, Target(bound)))


def _libpcap(context: Context, frames: Bytes) -> tuple[Libpcaps | None, str]:
    """The peer, or why there is none."""
    try:
        return Libpcaps(context, [flow_text(frame) for frame in frames]), ""
    except Skip as reason:
        return None, str(reason)


def _acl(context: Context, stack: ExitStack, frames: Bytes) -> tuple[RteAcl | None, str]:
    try:
        return stack.enter_context(rte_acl(context, frames)), ""
    except Skip as reason:
        return None, str(reason)


def _methods(acl: RteAcl) -> list[str]:
    """The vector methods that run here; at worst the scalar one."""
    return [method for method in acl.methods if method in VECTORS] or acl.methods


def _asked(libpcap: Libpcaps, work: Work) -> Contender:
    return lambda: libpcap.nanoseconds(work, SEQUENCE)


def _classified(acl: RteAcl, work: Work, method: str) -> Contender:
    return lambda: acl.nanoseconds(work, method)


def _best(name: str, samples: Samples, why: str) -> Figure:
    """rte_acl by the method that is fastest on this working set."""
    medians = {key: statistics.median(values) for key, values in samples.items() if key.startswith("rte_acl ")}
    if not medians:
        return Figure(name, "ns", skipped=why)
    best = min(medians, key=lambda key: medians[key])
    return Figure(name, "ns", samples[best], details={"method": best.split()[1], "medians": medians, "huge": False})


# ---- several shapes ----

#: Four shapes that a UDP packet may fall in, the most specific first.
NESTED = (
    (CONNECTED, 53),
    ("ip and udp and src host 10.1.2.3 and dst host 10.7.0.2 and dst port 54", 54),
    ("ip and udp and dst host 10.7.0.2 and src port 1024 and dst port 55", 55),
    ("ip and udp and dst host 10.7.0.2 and dst port 56", 56),
)
PER_SHAPE = 250


def _four_shapes(context: Context, ours: Ours) -> Iterator[Figure]:
    """1,000 values over four shapes of one leaf: frames of all alike, and of the shape that is asked last."""
    count = context.size(PER_SHAPE, 10)
    with Table(context.seed) as table:
        parts = []
        for text, port in NESTED[:3]:
            parts.append(_bound(table, text, ip4_frames(numbers(count), port=port)))
        text, port = NESTED[3]
        last = [ip4_frames(numbers(1), port=port + step) for step in range(count)]
        parts.append(_bound(table, text, np.concatenate(last)))
        for name, chosen in (("even", parts), ("last asked", parts[3:])):
            yield from _shapes(context, ours, table, f"4 shapes, {name}", chosen, 25)


def _intervals(context: Context, ours: Ours) -> Iterator[Figure]:
    """Intervals under one key: ranges of ports, and networks."""
    cases = (
        ("port ranges", context.size(1000, 20), port_ranges, "ip and udp dst portrange 1001-1999"),
        ("source networks", context.size(10_000, 50), networks, "ip src net 10.1.1.0/24"),
    )
    for name, count, make, text in cases:
        frames, spans = make(count)
        with Table(context.seed) as table:
            part = frames, table.bind(text, frames, spans)
            name = f"{count} {name}"
            yield from _shapes(context, ours, table, name, [part], None, ("resident", "uniform"))


def _usual(context: Context, ours: Ours) -> Iterator[Figure]:
    """Four LibOSes, each with listeners and connected sockets over TCP and UDP, IPv4 and IPv6."""
    with Table(context.seed) as table:
        parts = []
        for host in range(2, 6):
            parts += _sockets(context, table, "ip", ip4_frames, TCP, host)
            parts += _sockets(context, table, "ip", ip4_frames, UDP, host)
            parts += _sockets(context, table, "ip6", ip6_frames, TCP, host)
            parts += _sockets(context, table, "ip6", ip6_frames, UDP, host)
        yield from _shapes(context, ours, table, "usual mix", parts, None, ("resident", "uniform", "streaming"))
        if not available():
            yield Figure("usual mix: probes", "a frame", target=Target(2, at_most=True), skipped=NO_NATIVE)
            return
        (work,) = works(*_joined(parts), context.seed, toy=context.toy, only=("uniform",))
        mean, most = table.probes(work)
        yield Figure("usual mix: probes, mean", "a frame", (mean,))
        yield Figure("usual mix: probes, most", "a frame", (most,), Target(2, at_most=True))


Part = tuple[Bytes, Numbers]


def _bound(table: Table, text: str, frames: Bytes) -> Part:
    return frames, table.bind(text, frames)


def _sockets(
    context: Context, table: Table, family: str, make: Callable[..., Bytes], protocol: int, host: int
) -> list[Part]:
    """Of one LibOS: a listener, with frames from whoever comes to it, and sockets connected to the same port."""
    word = {UDP: "udp", TCP: "tcp"}[protocol]
    address = {"ip": "10.7.0.2", "ip6": "fd00::2"}[family]
    source = {"ip": "10.1.2.3", "ip6": "fd00::9"}[family]
    known = context.size(250, 5)
    connected = make(numbers(known), protocol=protocol, host=host, port=80)
    strangers = make(numbers(2 * known)[known:], protocol=protocol, host=host, port=80)
    listener = table.bind(f"{family} and {word} and dst host {address} and dst port 80", strangers[:1])
    text = f"{word} and src host {source} and dst host {address} and src port 1000 and dst port 80"
    return [_bound(table, text, connected), (strangers, np.repeat(listener, len(strangers)))]


def _joined(parts: Sequence[Part]) -> Part:
    return np.concatenate([frames for frames, _ in parts]), np.concatenate([owners for _, owners in parts])


def _shapes(
    context: Context,
    ours: Ours,
    table: Table,
    name: str,
    parts: Sequence[Part],
    bound: float | None,
    only: Sequence[str] = ("resident",),
) -> Iterator[Figure]:
    for work in works(*_joined(parts), context.seed, toy=context.toy, only=only):
        samples = _samples(context, _own(ours, table, work))
        yield _figure(f"{name}, {work.name}", samples, "native", bound)
        yield _figure(f"{name}, {work.name}: tables", samples, "tables")
