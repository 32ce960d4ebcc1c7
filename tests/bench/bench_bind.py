# SPDX-License-Identifier: MIT
"""Binding: what one more filter costs while ten thousand are live, prepared or from text, and what a hundred thousand
hold.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from exonet.abi import check, ffi, lib
from exonet.errors import RunError
from exonet.filters.fields import Expression, Ip, Tcp
from exonet.filters.libpcap import Libpcap
from exonet.hardware.nic import NicConfig
from exonet.kernel.binding import Bindings
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Mode
from exonet.kernel.prepared import Prepared
from exonet.lab.bench import Context, Figure, Target
from exonet.wire.cable import cable

LIVE = 10_000
HELD = 100_000
REGION = "tcp and dst host 10.0.0.1"
WHERE = ((lib.EXO_BASE_FRAME, 24), (lib.EXO_BASE_IP4, 0))  # the words with a part of the source address, and the ports
QUOTA = Quota(bindings=1 << 20, conjuncts=1 << 20)


@dataclass(slots=True)
class Desk:
    """A machine without traffic, one environment and its capability over `REGION`."""

    machine: Machine
    env: Environment
    token: bytes

    @property
    def bindings(self) -> Bindings:
        return self.machine.environments.bindings


def connected(number: int) -> str:
    """The filter of the connected socket of that number: a 4-tuple."""
    source = f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return f"tcp and src host {source} and dst host 10.0.0.1 and src port {1024 + number % 50_000} and dst port 80"


def listener(number: int) -> str:
    """A UDP listener of that number."""
    return f"udp and dst host 10.0.{1 + (number >> 15)}.1 and dst port {1024 + number % 32768}"


def connected6(number: int) -> str:
    """The 4-tuple of that number over IPv6."""
    source = f"2001:db8::{1 + (number >> 16):x}:{number & 0xFFFF:x}"
    return f"tcp and src host {source} and dst host 2001:db8::1 and src port {1024 + number % 50_000} and dst port 80"


def either_way(number: int) -> str:
    """A host and a port, whichever end they are: 12 conjuncts. Two such filters overlap, so only one can be bound."""
    return f"host 172.16.{number >> 8 & 255}.{number & 255} and port {1024 + number % 50_000}"


def source_host(number: int) -> str:
    """Whichever protocol it sends by: IPv4, ARP and RARP."""
    return f"src host 172.16.{number >> 8 & 255}.{number & 255}"


def two_ports(number: int) -> str:
    return f"tcp dst port {1024 + number % 30_000} or tcp dst port {35_000 + number % 30_000}"


def any_range(number: int) -> str:
    """A ragged range of UDP ports."""
    return f"udp dst portrange {1024 + number % 30_000}-{35_000 + number % 30_000}"


def port_range(number: int) -> str:
    """A ragged range of six ports; they are used up after 10,900."""
    return f"ip and udp dst portrange {6 * number + 1}-{6 * number + 5}"


def network(number: int) -> str:
    return f"ip src net {10 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


#: Filters with an interval that are bound prepared, all of them under one key: name, text by number.
INTERVALS = (("port range", port_range), ("source network", network))


def of_host(number: int, host: int) -> Expression:
    """A connected socket of an environment's own address, as a Python expression."""
    source = f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    target = f"10.0.1.{host}"
    return (Ip.src == source) & (Ip.dst == target) & (Tcp.sport == 1024 + number % 50_000) & (Tcp.dport == 80)


#: Filters that are bound from text: name, text by number, whether it has a target.
TEXTS = (
    ("TCP IPv4 4-tuple", connected, True),
    ("UDP listener", listener, True),
    ("TCP IPv6 4-tuple", connected6, True),
)


#: Filters that are made ready to be bound from text. They overlap, or take more than the desk's region.
READY = (
    ("host and port", either_way),
    ("source host", source_host),
    ("two ports", two_ports),
    ("port range", any_range),
)


def hold(desk: Desk, count: int) -> int:
    """`count` connected sockets in the C core alone. Returns the bytes that it holds for them."""
    native = desk.machine.native
    demux = lib.exo_machine_demux(native, 0, 0)
    model = desk.bindings.prepare(connected(0)).conjuncts[0].to_native(0)
    box = ffi.new("struct exo_conjunct *")
    ffi.memmove(box, model, ffi.sizeof("struct exo_conjunct"))
    for number in range(count):
        box.binding = check(lib.exo_machine_binding(native, desk.env.number, 0, 0), f"binding {number}")
        for i in range(box.atoms):
            if (box.atom[i].base, box.atom[i].offset) in WHERE:
                box.atom[i].value = model.atom[i].value ^ (number & box.atom[i].mask)
        check(lib.exo_demux_insert(demux, box), f"conjunct {number}")
    if lib.exo_demux_conjuncts(demux) != count:
        raise RunError(f"{lib.exo_demux_conjuncts(demux)} of {count} conjuncts are held")
    return int(lib.exo_demux_bytes(demux)) + int(lib.exo_machine_binding_bytes(native))


def with_desk(use: Callable[[Desk], Iterator[Figure]], region: str | None = REGION) -> Iterator[Figure]:
    here, there = cable()
    with here, there, Machine(MachineConfig(pages=64)) as machine:
        port = machine.attach(here, NicConfig(promiscuous=True))
        env = machine.environments.open("web", Mode.INLINE, quota=QUOTA)
        scope = Scope(port=port, region=region)
        token = machine.environments.grant(env, Resource.FILTER, Right.BIND | Right.GRANT, scope)
        yield from use(Desk(machine, env, token))


def _desks(desk: Desk) -> list[Desk]:
    """Eight environments of the desk's machine, each with an address of its own as its region."""
    environments, desks = desk.machine.environments, []
    for host in range(8):
        env = environments.open(f"web{host}", Mode.INLINE, quota=QUOTA)
        scope = Scope(port=0, region=f"tcp and dst host 10.0.1.{host}")
        desks.append(Desk(desk.machine, env, environments.grant(env, Resource.FILTER, Right.BIND, scope)))
    return desks


def bind(context: Context) -> Iterator[Figure]:
    """A filter of a known shape, prepared or as text, bound and unbound, 10,000 live; bytes in C of 100,000 bindings"""

    def timed(desk: Desk) -> Iterator[Figure]:
        live = context.size(LIVE, 50)
        rounds = context.size(2_000, 20)
        desk.bindings.bind(desk.env, "tcp dst port 80 and dst host 10.0.0.1", desk.token)
        for number in range(live):
            desk.bindings.bind(desk.env, connected(number), desk.token)
        fresh = [desk.bindings.prepare(connected(number)) for number in range(live, live + rounds)]
        for each in fresh:
            each.boxes()
        made: list[float] = []
        ended: list[float] = []
        for _ in context.repeat():
            first, second = churn(desk, fresh)
            made.append(first)
            ended.append(second)
        details = {"live": len(desk.bindings), "region": REGION, "filter": connected(1)}
        yield Figure("prepared bind", "us", tuple(made), Target(20, at_most=True), details)
        yield Figure("unbind", "us", tuple(ended))

    def intervals(desk: Desk) -> Iterator[Figure]:
        live, rounds = context.size(LIVE, 50), context.size(500, 20)
        for name, text in INTERVALS:
            held = [desk.bindings.bind(desk.env, text(number), desk.token) for number in range(live)]
            fresh = [desk.bindings.prepare(text(number)) for number in range(live, live + rounds)]
            for each in fresh:
                each.boxes()
            taken = [churn(desk, fresh) for _ in context.repeat()]
            details = {"live": len(desk.bindings), "filter": text(live)}
            made, ended = zip(*taken, strict=True)
            yield Figure(f"prepared bind, {name}", "us", made, Target(20, at_most=True), details)
            yield Figure(f"unbind, {name}", "us", ended)
            for binding in held:
                desk.bindings.unbind(desk.env, binding.number)

    def held(desk: Desk) -> Iterator[Figure]:
        count = context.size(HELD, 200)
        target = None if context.toy else Target(200, at_most=True)
        yield Figure("C memory per binding", "bytes", (hold(desk, count) / count,), target, {"bindings": count})

    def texts(desk: Desk) -> Iterator[Figure]:
        live, rounds = context.size(LIVE, 50), context.size(1_000, 20)
        for number in range(live):
            desk.bindings.bind(desk.env, connected(number), desk.token)
        for name, text, aimed in TEXTS:
            desk.bindings.bind(desk.env, text(live), desk.token)
            whole, own = [], []
            for turn, _ in enumerate(context.repeat()):
                written = [text(live + 1 + turn * rounds + number) for number in range(rounds)]
                whole.append(churn(desk, written)[0])
                own.append(compiled(written))
            more = tuple(a - b for a, b in zip(whole, own, strict=True))
            details = {"live": len(desk.bindings), "filter": text(live)}
            yield Figure(f"bind from text, {name}", "us", tuple(whole), None, details)
            yield Figure(f"libpcap's compile, {name}", "us", tuple(own))
            target = Target(20, at_most=True) if aimed else None
            yield Figure(f"bind from text beyond libpcap's compile, {name}", "us", more, target)
        yield from ready(desk, rounds)

    def ready(desk: Desk, rounds: int) -> Iterator[Figure]:
        for name, text in READY:
            more = []
            for turn, _ in enumerate(context.repeat()):
                written = [text(turn * rounds + number) for number in range(rounds)]
                more.append(prepared(desk, written) - compiled(written))
            yield Figure(f"ready from text beyond libpcap's compile, {name}", "us", tuple(more))

    def several(desk: Desk) -> Iterator[Figure]:
        desks, rounds = _desks(desk), context.size(2_000, 24)
        for number in range(context.size(LIVE, 48)):
            each = desks[number % len(desks)]
            each.bindings.bind(each.env, of_host(number, number % len(desks)), each.token)
        live = len(desk.bindings)
        fresh = [[desk.bindings.prepare(of_host(live + n, host)) for n in range(rounds // 8)] for host in range(8)]
        for prepared_ones in fresh:
            for one in prepared_ones:
                one.boxes()
        made = []
        for _ in context.repeat():
            made.append(statistics.median(churn(d, some)[0] for d, some in zip(desks, fresh, strict=True)))
        details = {"live": live, "environments": len(desks)}
        target = Target(20, at_most=True)
        yield Figure("prepared bind, Python expression, 8 environments", "us", tuple(made), target, details)

    yield from with_desk(timed)
    yield from with_desk(intervals, "ip")
    yield from with_desk(several)
    yield from with_desk(texts, "udp or tcp")
    yield from with_desk(held)


def compiled(texts: list[str]) -> float:
    """libpcap's own compile of each, by a handle that stays open: the median in us."""
    library, taken = Libpcap(), []
    clock = time.perf_counter_ns
    for each in texts:
        start = clock()
        library.compile(each)
        taken.append(clock() - start)
    return sorted(taken)[len(taken) // 2] / 1000


def prepared(desk: Desk, texts: list[str]) -> float:
    """Each made ready to be bound: the median in us."""
    taken, clock = [], time.perf_counter_ns
    for each in texts:
        start = clock()
        desk.bindings.prepare(each).boxes()
        taken.append(clock() - start)
    return sorted(taken)[len(taken) // 2] / 1000


def churn(desk: Desk, fresh: Sequence[Prepared | str]) -> tuple[float, float]:
    """Binds each and unbinds all: medians in us."""
    made, ended, numbers = [], [], []
    bindings, env, token = desk.bindings, desk.env, desk.token
    clock = time.perf_counter_ns
    for each in fresh:
        start = clock()
        binding = bindings.bind(env, each, token)
        made.append(clock() - start)
        numbers.append(binding.number)
    for number in numbers:
        start = clock()
        bindings.unbind(env, number)
        ended.append(clock() - start)
    return sorted(made)[len(made) // 2] / 1000, sorted(ended)[len(ended) // 2] / 1000
