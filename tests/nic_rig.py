# SPDX-License-Identifier: MIT
"""A NIC on a bench: frames in by hand, descriptors out by hand, a ledger of its own, a wire that is a Python list."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from exonet.abi import ffi, lib
from exonet.hardware.nic import Nic, NicConfig, parse_mac

OWN = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("0200000000ff")
GROUP = bytes.fromhex("01005e0000fb")
BROADCAST = b"\xff" * 6
NEVER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame as the driver got it: `padded` is what lies in the DMA buffer, 60 bytes at least."""

    id: int
    data: bytes
    padded: bytes
    wire_len: int
    flags: int
    queue: int
    rss_hash: int
    ts: int
    stamp: int
    port: int


def ethernet(to: bytes = OWN, size: int = 60, ethertype: int = 0x0800, fill: int = 0) -> bytes:
    """A frame of `size` bytes."""
    header = to + OTHER + ethertype.to_bytes(2, "big")
    body = bytes((fill + i) & 0xFF for i in range(max(0, size - 14)))
    return (header + body)[:size]


def ip4(source: str, target: str, protocol: int = 17, sport: int = 1, dport: int = 2, fragment: int = 0) -> bytes:
    """Ethernet, IPv4 and the first eight bytes behind it."""
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, target))
    ip = b"\x45\x00\x00\x1c\x00\x00" + fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0]) + addresses
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(4)
    return ethernet(size=14) + ip + ports


class Rig:
    """Everything a test of the NIC needs; close() or use it as a context manager."""

    def __init__(self, port: int = 3, **config: Any) -> None:
        self.config = NicConfig(**{"descriptors": 8, "fifo_bytes": 256, "max_frame": 1514} | config)
        self.ledger = ffi.new("struct exo_ledger *")
        self.nic = Nic.alone(self.config, self.ledger, port)
        self.next_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        lib.exo_ledger_record(self.ledger, 0)
        self.nic.close()

    def frames(
        self, datas: Iterable[bytes], wire_len: int | None = None, flags: int = 0, now: int = 0
    ) -> tuple[Any, list[Any]]:
        """A `struct exo_frame[]` over copies of `datas`, numbered on, and what keeps them alive."""
        datas = list(datas)
        keep = [ffi.new("uint8_t[]", data or b"\0") for data in datas]
        array = ffi.new("struct exo_frame[]", len(datas))
        for i, data in enumerate(datas):
            array[i].data = keep[i]
            array[i].len = len(data)
            array[i].wire_len = len(data) if wire_len is None else wire_len
            array[i].ts = now
            array[i].stamp = 1000 + self.next_id + i
            array[i].id = self.next_id + i
            array[i].flags = flags
        return array, keep

    def receive(self, *datas: bytes, wire_len: int | None = None, flags: int = 0, now: int = 0) -> int:
        """A burst from the wire; how many the NIC took. Numbers go on after those taken."""
        array, _keep = self.frames(datas, wire_len, flags, now)
        taken = lib.exo_nic_receive(self.nic.native, array, len(datas), now)
        self.next_id += taken
        return int(taken)

    def take(self, maximum: int = 64, queue: int = 0) -> list[Taken]:
        """Done descriptors of a queue."""
        out = ffi.new("struct exo_frame[]", max(maximum, 1))
        n = lib.exo_nic_take(self.nic.native, queue, out, maximum)
        return [self._taken(out[i]) for i in range(n)]

    @staticmethod
    def _taken(frame: Any) -> Taken:
        data, padded = (bytes(ffi.buffer(frame.data, n)) for n in (frame.len, max(frame.len, 60)))
        return Taken(
            id=frame.id,
            data=data,
            padded=padded,
            wire_len=frame.wire_len,
            flags=frame.flags,
            queue=frame.queue,
            rss_hash=frame.rss_hash,
            ts=frame.ts,
            stamp=frame.stamp,
            port=frame.port,
        )

    def refill(self, queue: int = 0, now: int = 0) -> None:
        """Gives the taken descriptors back."""
        lib.exo_nic_refill(self.nic.native, queue, now)

    def untake(self, n: int, queue: int = 0) -> None:
        """The last n taken are done again."""
        lib.exo_nic_untake(self.nic.native, queue, n)

    def ids(self, queue: int = 0) -> list[int]:
        """Takes everything that is done and returns the numbers, without giving the descriptors back."""
        return [frame.id for frame in self.take(1 << 16, queue)]

    def join(self, mac: bytes | str) -> int:
        """Adds an address to the filter."""
        return int(lib.exo_nic_filter_add(self.nic.native, parse_mac(mac) if isinstance(mac, str) else mac))

    def leave(self, mac: bytes) -> int:
        """Takes an address away."""
        return int(lib.exo_nic_filter_remove(self.nic.native, mac))

    def in_flight(self) -> int:
        """Frames inside, walked."""
        return int(lib.exo_nic_in_flight(self.nic.native))

    def due(self) -> int:
        """When the interrupt fires; NEVER."""
        return int(lib.exo_nic_interrupt_due(self.nic.native))

    def drops(self) -> dict[str, int]:
        """What the ledger says was lost, by reason."""
        names = [name for name in dir(lib) if name.startswith("EXO_R_") and not name.endswith("_FIRST")]
        values = {name: self.ledger.drop[getattr(lib, name)] for name in names}
        return {name[6:].lower(): value for name, value in values.items() if value}

    def conserved(self) -> None:
        """Invariant 1 at both stages: in = out + dropped + in flight."""
        ledger = self.ledger
        filtered = ledger.drop[lib.EXO_R_MAC_FILTERED]
        lost = sum(ledger.drop[reason] for reason in range(lib.EXO_R_NIC_FIRST, lib.EXO_R_NIC_RX_FIFO + 1))
        assert getattr(ledger, "in")[lib.EXO_S_MAC] == ledger.out[lib.EXO_S_MAC] + filtered
        assert getattr(ledger, "in")[lib.EXO_S_NIC] == ledger.out[lib.EXO_S_NIC] + lost + self.in_flight()
        assert ledger.out[lib.EXO_S_MAC] == getattr(ledger, "in")[lib.EXO_S_NIC]


class ListWire:
    """A `struct exo_wire *` whose send appends to a list and takes at most `room` frames (negative: an error code)."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.sent: list[bytes] = []
        self.room = room
        self.native = ffi.new("struct exo_wire *")
        self._send = ffi.callback(
            "int32_t(struct exo_wire *, const struct exo_frame *, uint32_t, uint64_t)", self._take
        )
        self.native.send = self._send

    def _take(self, _wire: Any, frames: Any, n: int, _now: int) -> int:
        if self.room < 0:
            return self.room
        taken = min(n, self.room)
        self.sent += [bytes(ffi.buffer(frames[i].data, frames[i].len)) for i in range(taken)]
        return taken
