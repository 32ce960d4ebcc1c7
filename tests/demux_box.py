# SPDX-License-Identifier: MIT
"""What the tests of filters and demux share: the C demux as an object, frames from captures, mutations."""

import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from exonet.abi import NO_OWNER, check, ffi, lib
from exonet.filters.conjunct import Conjunct
from exonet.filters.region import Kind
from exonet.wire.capture import Trace
from tests.conftest import own_captures

Frame = tuple[bytes, int]


class Demux:
    """`struct exo_demux` with the frames in buffers of exactly their length (so ASan sees a read past the end)."""

    def __init__(self, seed: int = 1) -> None:
        self.native = ffi.gc(lib.exo_demux_new(seed), lib.exo_demux_free)

    def insert(self, binding: int, conjunct: Conjunct) -> int:
        return int(lib.exo_demux_insert(self.native, conjunct.to_native(binding)))

    def bind(self, binding: int, conjuncts: Iterable[Conjunct]) -> None:
        for conjunct in conjuncts:
            check(self.insert(binding, conjunct), f"binding {binding}: {conjunct}")

    def remove(self, binding: int) -> int:
        return int(lib.exo_demux_remove(self.native, binding))

    def classify(self, frames: Sequence[Frame]) -> list[int | None]:
        native, _keep = burst(frames)
        owners = ffi.new("uint32_t[]", max(len(frames), 1))
        lib.exo_demux_classify(self.native, native, len(frames), owners)
        return [None if owners[i] == NO_OWNER else owners[i] for i in range(len(frames))]

    def match_all(self, frame: Frame, most: int = 64) -> list[int]:
        native, _keep = burst([frame])
        bindings = ffi.new("uint32_t[]", most)
        found = lib.exo_demux_match_all(self.native, native, bindings, most)
        return [bindings[i] for i in range(min(found, most))]

    def most_specific(self, frame: Frame, places: int) -> tuple[list[int | None], int]:
        """The most specific binding of those that are equal modulo `places`, and how many conjuncts were asked."""
        native, _keep = burst([frame])
        kept = ffi.new("struct exo_taker[]", [{"binding": NO_OWNER}] * places)
        asked = 0

        @ffi.callback("exo_keep")
        def keep(_context: object, binding: int) -> object:
            nonlocal asked
            asked += 1
            return kept + binding % places

        lib.exo_demux_most_specific(self.native, native, keep, ffi.NULL)
        return [None if place.binding == NO_OWNER else place.binding for place in kept], asked

    @property
    def shapes(self) -> int:
        return int(lib.exo_demux_shapes(self.native))

    @property
    def conjuncts(self) -> int:
        return int(lib.exo_demux_conjuncts(self.native))

    @property
    def bytes(self) -> int:
        return int(lib.exo_demux_bytes(self.native))


def kind_of(a: Collection[object], b: Collection[object]) -> Kind:
    """How two sets of frames lie to each other, by their members."""
    first, second = set(a), set(b)
    if not first & second:
        return Kind.DISJOINT
    if first == second:
        return Kind.EQUAL
    return Kind.INSIDE if first < second else Kind.AROUND if first > second else Kind.PARTIAL


def burst(frames: Sequence[Frame]) -> tuple[object, object]:
    """A `struct exo_frame[]` and what keeps its bytes alive."""
    native = ffi.new("struct exo_frame[]", max(len(frames), 1))
    keep = []
    for i, (data, wire_len) in enumerate(frames):
        buffer = ffi.new("uint8_t[]", data)[0 : len(data)] if data else ffi.NULL
        exact = ffi.new("uint8_t[]", len(data))
        ffi.memmove(exact, data, len(data))
        keep.append((buffer, exact))
        native[i].data = exact
        native[i].len = len(data)
        native[i].wire_len = wire_len
    return native, keep


def read_capture(path: Path) -> list[Frame]:
    """Every frame of a capture as (captured bytes, length on the wire); CaptureError where it is none.

    Records that are no Ethernet frames are left out. tests/property/test_matrix.py holds the count.
    """
    with Trace.load(path) as trace:
        return [(frame.data, frame.wire_len) for frame in trace if frame.reason == 0]


def sample_frames(per_capture: int, seed: int = 1) -> list[Frame]:
    """Frames of all captures of the project, the same ones every time."""
    chosen = random.Random(seed)
    frames: list[Frame] = []
    for path in own_captures():
        found = read_capture(path)
        frames += chosen.sample(found, min(per_capture, len(found)))
    return frames


INTERESTING = (0, 1, 2, 5, 6, 8, 17, 20, 53, 58, 80, 0x45, 0x46, 0x4F, 0x60, 0x81, 0x86, 0xDD, 0xFF)


def mutate(frame: Frame, chosen: random.Random) -> Frame:
    """A frame with a few header bytes changed, maybe cut short, maybe by a snaplen."""
    data = bytearray(frame[0])
    for _ in range(chosen.randint(1, 4)):
        if data:
            data[chosen.randrange(min(len(data), 80))] = chosen.choice((*INTERESTING, chosen.randrange(256)))
    wire_len = len(data)
    if chosen.random() < 0.3:
        del data[chosen.randint(0, len(data)) :]
        wire_len = chosen.choice((len(data), wire_len))
    return bytes(data), wire_len


def made_frames() -> list[Frame]:
    """Frames made by hand where no captures are: TCP, UDP, ICMP, ARP, IPv6, VLAN, options, fragments."""
    ether = bytes.fromhex("020000000002020000000001")
    source, target = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))

    def ip4(protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
        first = bytes((0x45 + len(options) // 4, 0)) + (20 + len(options) + len(payload)).to_bytes(2, "big")
        return (
            first
            + b"\0\1"
            + fragment.to_bytes(2, "big")
            + bytes((64, protocol, 0, 0))
            + source
            + target
            + options
            + payload
        )

    def ports(sport: int, dport: int, rest: int = 16) -> bytes:
        return sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(rest)

    def ip6(protocol: int, payload: bytes) -> bytes:
        addresses = bytes.fromhex("20010db800000000000000000000000120010db8000000000000000000000002")
        return b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((protocol, 64)) + addresses + payload

    tcp = [ports(sport, dport) for sport, dport in ((1024, 80), (80, 1024), (1500, 443), (1, 2))]
    udp = [ports(sport, dport, 4) + b"query" for sport, dport in ((1024, 53), (53, 1024), (1000, 2000), (9, 5001))]
    inner = [(0x0800, ip4(6, p)) for p in tcp] + [(0x0800, ip4(17, p)) for p in udp]
    inner += [(0x0800, ip4(6, p, bytes(8))) for p in tcp] + [(0x0800, ip4(17, p, bytes(40))) for p in udp]
    inner += [(0x0800, ip4(17, p, fragment=f)) for p in udp for f in (0x2000, 0x2010, 0x0010, 0x4000)]
    inner += [(0x86DD, ip6(6, p)) for p in tcp] + [(0x86DD, ip6(17, p)) for p in udp]
    inner += [(0x86DD, ip6(58, bytes((128, 0)) + bytes(20))), (0x0800, ip4(1, bytes((8, 0)) + bytes(20)))]
    arp = bytes.fromhex("0001080006040001") + ether[6:] + source + bytes(6) + target
    inner += [(0x0806, arp), (0x8035, arp), (0x8863, bytes(40)), (0x0026, b"\x42\x42\x03" + bytes(40))]
    plain = [ether + kind.to_bytes(2, "big") + payload for kind, payload in inner]
    tagged = [frame[:12] + b"\x81\x00\x00\x0a" + frame[12:] for frame in plain]
    double = [frame[:12] + b"\x81\x00\x00\x64" + frame[12:] for frame in tagged]
    frames = plain + tagged + double + [b"", b"\0", ether, b"\xff" * 60, bytes(60)]
    return [(frame, len(frame)) for frame in frames]
