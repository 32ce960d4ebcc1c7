# SPDX-License-Identifier: MIT
"""The pcap wire: a trace replayed at a speed, from one side or from two."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from exonet.abi import check, ffi, lib
from exonet.delays import Delays
from exonet.errors import ExhaustedError, UsageError
from exonet.wire.capture import Trace
from exonet.wire.link import Wire
from exonet.wire.rewrite import Network, Rewrite, parse_prefix
from exonet.wire.speed import Speed

__all__ = ["BpfProgram", "PcapWire", "split"]

_MOST = 2**64 - 1
_COUNTERS = (
    "records", "loops", "backward", "snapped", "converted", "excluded", "link_type", "oversize", "other_side",
    "rewritten",
)  # fmt: skip


class BpfProgram(Protocol):
    """A compiled pcap filter, as libpcap makes them: what `--include` and `--exclude` become.

    bpf_filter: address of libpcap's function of that name. instructions: address of the program's `struct bpf_insn`
    array, which lives as long as this object.
    """

    @property
    def bpf_filter(self) -> int: ...

    @property
    def instructions(self) -> int: ...


class PcapWire(Wire):
    """A trace as a wire. Frames that are sent to it are counted and gone.

    loop: how often, 0 for ever. shift: loop k adds k to every unicast IP address, checksums follow. limit: frames
    offered in all. duration: ns from the start; what is due later is never offered. max_gap: ns of capture time, before
    the speed's factor: a gap of the timestamps that is longer is that long (xN only). include, exclude: records they
    leave out are `source.excluded`. fix_checksums: checksums that the capture has wrong (offload) are computed anew.
    Raises CaptureError, UsageError.
    """

    def __init__(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        speed: Speed | str = "x1",
        loop: int = 1,
        shift: bool = False,
        limit: int | None = None,
        duration: int | None = None,
        max_gap: int | None = None,
        include: BpfProgram | None = None,
        exclude: BpfProgram | None = None,
        rewrite: Rewrite | None = None,
        fix_checksums: bool = False,
        name: str | None = None,
        _side: "_Side | None" = None,
    ) -> None:
        self.trace = trace if isinstance(trace, Trace) else Trace.load(trace)
        self.speed = speed if isinstance(speed, Speed) else Speed.parse(speed)
        self.loop = loop
        self._alive = (include, exclude)
        config = ffi.new("struct exo_replay_config *")
        _set_speed(config, self.speed)
        config.loops = _count("loop", loop, 0)
        config.shift = shift
        config.limit = _MOST if limit is None else _count("limit", limit, 0)
        config.duration = _MOST if duration is None else _count("duration", duration, 0)
        config.max_gap = 0 if max_gap is None else _count("max_gap", max_gap, 1)
        _set_filters(config, include, exclude)
        (rewrite or Rewrite()).fill(config.rewrite, fix_checksums=fix_checksums)
        if _side is not None:
            _side.fill(config)
        error = ffi.new("int32_t *")
        native = lib.exo_replay_new(self.trace.native, config, error)
        if native == ffi.NULL:
            if error[0] == lib.EXO_E_MEMORY:
                raise ExhaustedError(f"{self.trace.path}: out of memory")
            check(error[0], f"replay of {self.trace.path} at {self.speed}")
        super().__init__(native, name or f"pcap:{self.trace.path.name}")

    def start(self, now: int) -> Self:
        """Begins (again) at `now`, ns of the machine's clock. A wire not started starts when first asked for frames."""
        check(lib.exo_replay_start(self.native, now), f"replay of {self.trace.path}")
        return self

    def next_due(self, now: int) -> int:
        """When the next frame is due, exact once one was asked for that is not due yet, else `now`; 2^64 - 1: never."""
        return int(self.native.next_due(self.native, now))

    def counters(self) -> dict[str, int]:
        """Loops, backward timestamps (R7), frames cut by the snaplen, records left out by reason."""
        native = lib.exo_replay_counters(self.native)
        return {name: getattr(native, name) for name in _COUNTERS}

    def pacing_error(self) -> Delays:
        """How late frames were handed over, against their due times. Nothing is recorded at speed `max`."""
        return Delays.read(lib.exo_replay_delays(self.native))

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "kind": "pcap",
            "speed": str(self.speed),
            "loop": self.loop,
            "trace": self.trace.describe(),
            **self.counters(),
        }


@dataclass(frozen=True, slots=True)
class _Side:
    """Which half of a split trace a wire replays."""

    number: int
    prefixes: tuple[Network, ...]

    def fill(self, config: Any) -> None:
        config.split = lib.EXO_SPLIT_PREFIX if self.prefixes else lib.EXO_SPLIT_MAC
        config.side = self.number
        config.prefixes = len(self.prefixes)
        for row, network in zip(config.prefix, self.prefixes, strict=False):
            row.family = network.version
            row.bits = network.prefixlen
            ffi.memmove(row.address, network.network_address.packed, network.max_prefixlen // 8)


def split(
    trace: Trace | str | os.PathLike[str], *, clients: Sequence[str | Network] = (), **options: Any
) -> tuple[PcapWire, PcapWire]:
    """One trace's two directions on two wires: (what the clients sent, what the servers sent), on one time line.

    Without `clients`, a MAC address that speaks first is a client and the one it addresses a server. With prefixes
    (`10.0.0.0/8`), frames from an address in one of them are the clients'. `options` are PcapWire's; `limit` counts
    both wires' frames, and records that are left out count on the first wire. They begin at the same time.
    """
    networks = tuple(parse_prefix(item) if isinstance(item, str) else item for item in clients)
    if len(networks) > 16:
        raise UsageError(f"{len(networks)} client prefixes: 16 are the most")
    loaded = trace if isinstance(trace, Trace) else Trace.load(trace)
    name = options.pop("name", f"pcap:{loaded.path.name}")
    first = PcapWire(loaded, name=f"{name}:client", _side=_Side(0, networks), **options)
    try:
        second = PcapWire(loaded, name=f"{name}:server", _side=_Side(1, networks), **options)
    except BaseException:
        first.close()
        raise
    lib.exo_replay_pair(first.native, second.native)
    return first, second


def _count(name: str, value: int, least: int) -> int:
    if not least <= value <= _MOST:
        raise UsageError(f"{name} {value}: must be at least {least}")
    return value


def _set_speed(config: Any, speed: Speed) -> None:
    scale = speed.ns_per_unit
    config.mode = int(speed.kind)
    config.multiply, config.divide = scale.numerator, scale.denominator


def _set_filters(config: Any, include: BpfProgram | None, exclude: BpfProgram | None) -> None:
    for program in (include, exclude):
        if program is not None:
            config.bpf_filter = program.bpf_filter
    config.include = include.instructions if include is not None else 0
    config.exclude = exclude.instructions if exclude is not None else 0
