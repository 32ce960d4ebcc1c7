# SPDX-License-Identifier: MIT
"""What a run says of packets that are longer than a frame of its NIC: how many were cut, what would keep others."""

from collections.abc import Iterator, Sequence

from exonet.abi import lib
from exonet.kernel.boot import Machine
from exonet.lab.plan import MTU_MAX, Plan, TraceSource
from exonet.ledger import Ledger
from exonet.wire.link import Wire
from exonet.wire.resegment import Resegment, ResegmentCounters
from exonet.wire.wrapper import Wrapper

__all__ = ["cut", "hints"]


def cut(wires: Sequence[Wire]) -> ResegmentCounters | None:
    """Of all wires together; None where nothing was to be cut."""
    found = [each.counters() for wire in wires for each in _around(wire) if isinstance(each, Resegment)]
    if not found:
        return None
    return ResegmentCounters(
        sum(each.packets for each in found), sum(each.segments for each in found), sum(each.snapped for each in found)
    )


def hints(machine: Machine, plan: Plan, ledger: Ledger) -> Iterator[str]:
    """A line each: what was cut, and which option would keep what is lost for its length."""
    if not isinstance(plan.source, TraceSource):
        return
    done = cut(machine.wires)
    if done is not None and done.packets:
        yield f"{_packets(done.packets, 'was', 'were')} cut into {done.segments:,} segments (--resegment)"
    if done is not None and done.snapped:
        yield f"{_packets(done.snapped, 'is', 'are')} too long, and not cut: the snaplen left a part of them"
    if lost := ledger.dropped.get("nic.rx_long", 0):
        yield _lost(lost, _longest(machine), plan.source)
    if lost := ledger.dropped.get("source.oversize", 0):
        yield f"{_packets(lost, 'is', 'are')} longer than {lib.EXO_MAX_FRAME:,} bytes: no option takes them"


def _lost(lost: int, longest: int, source: TraceSource) -> str:
    limit = "the NIC takes (frames of 9,728 bytes)" if source.mtu is None else f"the MTU {source.mtu}"
    cuts = "it if it is TCP or UDP" if lost == 1 else "those of TCP and UDP"
    options = [] if source.resegment else [f"--resegment cuts {cuts}"]
    options.append(f"--mtu {min(longest - 14, MTU_MAX)} takes {'it' if lost == 1 else 'them all'}")
    return f"{_packets(lost, 'is', 'are')} longer than {limit}: {', '.join(options)}"


def _packets(count: int, one: str, many: str) -> str:
    return f"1 packet {one}" if count == 1 else f"{count:,} packets {many}"


def _longest(machine: Machine) -> int:
    """Bytes of the longest frame that a NIC did not take for its length."""
    ports = range(len(machine.wires))
    return max(machine.nic(port).counters.rx_longest for port in ports)


def _around(wire: Wire) -> Iterator[Wire]:
    """A wire and those inside it."""
    yield wire
    while isinstance(wire, Wrapper):
        wire = wire.inner
        yield wire
