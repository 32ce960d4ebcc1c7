# SPDX-License-Identifier: MIT
"""The emulated NIC seen from Python: configuration, counters, registers. Frames move in C (`csrc/nic*.c`)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import Any, Self

from exonet.abi import ffi, lib
from exonet.errors import ExhaustedError, UsageError

__all__ = ["REGISTERS", "Nic", "NicConfig", "NicCounters", "NicMode", "format_mac", "parse_mac"]


class NicMode(IntEnum):
    """What a full FIFO does: `DROP` loses the frame (rx_missed), `BACKPRESSURE` leaves it on the wire."""

    DROP = lib.EXO_NIC_DROP
    BACKPRESSURE = lib.EXO_NIC_BACKPRESSURE


def parse_mac(text: str) -> bytes:
    """Six bytes of "02:00:00:00:00:01" (colons or dashes). UsageError."""
    parts = text.replace("-", ":").split(":")
    try:
        octets = [int(part, 16) for part in parts]
    except ValueError:
        octets = []
    if len(octets) != 6 or any(len(part) > 2 for part in parts) or any(octet not in range(256) for octet in octets):
        raise UsageError(f'MAC address "{text}": six hexadecimal bytes like 02:00:00:00:00:01 are needed')
    return bytes(octets)


def format_mac(mac: bytes) -> str:
    """ "02:00:00:00:00:01" of six bytes."""
    return mac.hex(":")


@dataclass(frozen=True, slots=True)
class NicConfig:
    """One port's NIC. Every value is checked when the object is made; UsageError names what is wrong.

    mac: the port's own station address. queues: receive queues, 1..8, chosen by RSS when more than one.
    descriptors: per queue, a power of two in 8..32768; one is always unused. fifo_bytes: the byte FIFO that all
    queues share. max_frame: bytes without the frame check sequence; longer frames are `rx_long`. mode: what a full FIFO
    does. promiscuous: take every address. drop_enable: a queue without descriptors loses its frame (`rx_no_buffer`)
    instead of blocking the FIFO. itr_ns: at least this long between interrupts. seed: of the RSS key; 0 is Microsoft's
    verification key.
    """

    mac: str = "02:00:00:00:00:01"
    queues: int = 1
    descriptors: int = 1024
    fifo_bytes: int = 65536
    max_frame: int = 9728
    mode: NicMode = NicMode.DROP
    promiscuous: bool = False
    drop_enable: bool = False
    itr_ns: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if parse_mac(self.mac)[0] & 1:
            raise UsageError(
                f"NIC address {self.mac}: it is a group address; the lowest bit of its first byte must be 0"
            )
        _in_range("queues", self.queues, 1, lib.EXO_NIC_MAX_QUEUES)
        _in_range("descriptors", self.descriptors, 8, 32768)
        if self.descriptors & (self.descriptors - 1):
            raise UsageError(f"NIC descriptors {self.descriptors}: must be a power of two in 8..32768")
        _in_range("fifo_bytes", self.fifo_bytes, 0, 1 << 28)
        _in_range("max_frame", self.max_frame, lib.EXO_MIN_FRAME, lib.EXO_MAX_FRAME)
        _in_range("itr_ns", self.itr_ns, 0, 0xFFFFFFFF)
        _in_range("seed", self.seed, 0, 0xFFFFFFFFFFFFFFFF)
        if self.mode not in tuple(NicMode):
            raise UsageError(f"NIC mode {self.mode!r}: must be NicMode.DROP or NicMode.BACKPRESSURE")
        if self.drop_enable and self.mode is NicMode.BACKPRESSURE:
            raise UsageError(
                "NIC drop_enable with mode backpressure: it drops what backpressure holds back; choose one"
            )

    def native(self) -> Any:
        """A new `struct exo_nic_config *` with these values."""
        native = ffi.new("struct exo_nic_config *")
        for field in fields(self):
            if field.name != "mac":
                setattr(native, field.name, int(getattr(self, field.name)))
        native.mac = list(parse_mac(self.mac))
        return native


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"NIC {name} {value!r}: must be a whole number in {low}..{high}")


@dataclass(frozen=True, slots=True)
class NicCounters:
    """A snapshot of `struct exo_nic_counters`, in ethtool's spelling. `rx_missed` is in no other counter."""

    rx_packets: int
    rx_bytes: int
    rx_multicast: int
    rx_broadcast: int
    rx_filtered: int
    rx_missed: int
    rx_no_buffer: int
    rx_short: int
    rx_long: int
    rx_crc: int
    rx_fifo: int
    rx_descriptors: int
    rx_waited: int
    tx_packets: int
    tx_bytes: int
    tx_descriptors: int
    interrupts: int
    rx_longest: int
    switched: int


def _queue_registers() -> dict[str, int]:
    offsets = {"RDBAL": 0x00, "RDBAH": 0x04, "RDLEN": 0x08, "SRRCTL": 0x0C, "RDH": 0x10, "RDT": 0x18}
    offsets |= {"RXDCTL": 0x28, "RQDPC": 0x30}
    table = {
        f"{name}{n}": 0xC000 + 0x40 * n + at for n in range(lib.EXO_NIC_MAX_QUEUES) for name, at in offsets.items()
    }
    transmit = {"TDLEN": 0x08, "TDH": 0x10, "TDT": 0x18, "TXDCTL": 0x28}
    return table | {f"{name}0": 0xE000 + at for name, at in transmit.items()}


def _tables() -> dict[str, int]:
    table = {f"MTA{n}": 0x5200 + 4 * n for n in range(128)}
    table |= {f"RAL{n}": 0x5400 + 8 * n for n in range(16)} | {f"RAH{n}": 0x5404 + 8 * n for n in range(16)}
    return table | {f"RETA{n}": 0x5C00 + 4 * n for n in range(32)} | {f"RSSRK{n}": 0x5C80 + 4 * n for n in range(10)}


_GENERAL = {"CTRL": 0x0, "STATUS": 0x8, "VET": 0x38, "RCTL": 0x100, "ICR": 0x1500, "ICS": 0x1504, "IMS": 0x1508}
_GENERAL |= {"IMC": 0x150C, "EITR0": 0x1680, "RLPML": 0x5004, "MRQC": 0x5818}

_STATISTICS = {"CRCERRS": 0x4000, "MPC": 0x4010, "GPRC": 0x4074, "BPRC": 0x4078, "MPRC": 0x407C, "GPTC": 0x4080}
_STATISTICS |= {"GORCL": 0x4088, "GORCH": 0x408C, "GOTCL": 0x4090, "GOTCH": 0x4094, "RNBC": 0x40A0, "RUC": 0x40A4}
_STATISTICS |= {"ROC": 0x40AC, "TORL": 0x40C0, "TORH": 0x40C4, "TOTL": 0x40C8, "TOTH": 0x40CC, "TPR": 0x40D0}
_STATISTICS |= {"TPT": 0x40D4, "MPTC": 0x40F0, "BPTC": 0x40F4, "IAC": 0x4100}

REGISTERS: dict[str, int] = _GENERAL | _STATISTICS | _queue_registers() | _tables()
"""Byte offset of every register by its name in the 82576 datasheet; those of a queue or table carry its index."""


class Nic:
    """A face over `struct exo_nic *`.

    The NIC of a port belongs to its machine (`Nic(lib.exo_machine_nic(machine, port))`); `Nic.alone` makes one that
    belongs to the caller, who then calls `close()`.
    """

    __slots__ = ("_release", "native")

    def __init__(self, native: Any, release: Callable[[Any], None] | None = None) -> None:
        self.native = native
        self._release = release

    @classmethod
    def alone(cls, config: NicConfig, ledger: Any, port: int = 0) -> Self:
        """A NIC without a machine that counts into `ledger` (`struct exo_ledger *`, kept alive by the caller)."""
        native = lib.exo_nic_new(config.native(), ledger, port)
        if native == ffi.NULL:
            raise ExhaustedError(
                f"NIC with {config.queues} x {config.descriptors} slots of {config.max_frame} bytes: no memory"
            )
        return cls(native, lib.exo_nic_free)

    def close(self) -> None:
        """Gives the NIC back if it is the caller's own; idempotent."""
        if self._release is not None and self.native != ffi.NULL:
            self._release(self.native)
        self.native = ffi.NULL

    @property
    def counters(self) -> NicCounters:
        """The counters now."""
        counters = lib.exo_nic_counters(self.native)
        return NicCounters(**{field.name: int(getattr(counters, field.name)) for field in fields(NicCounters)})

    def register(self, name: str) -> int:
        """The register's value now; reading changes nothing. `name` as in REGISTERS ("RDH0"). UsageError."""
        return int(lib.exo_nic_read(self.native, _offset(name)))

    def write(self, name: str, value: int) -> None:
        """Writes a register, with the effect that the datasheet gives it. UsageError."""
        _in_range(f"register {name}:", value, 0, 0xFFFFFFFF)
        lib.exo_nic_write(self.native, _offset(name), value)

    def describe(self) -> dict[str, Any]:
        """Counters, rings, address and interrupt state, for `exonet show` and the JSON of a run."""
        names = {"head": "RDH", "tail": "RDT", "drops": "RQDPC"}
        present = [n for n in range(lib.EXO_NIC_MAX_QUEUES) if self.register(f"RDLEN{n}")]
        mac = self.register("RAL0").to_bytes(4, "little") + (self.register("RAH0") & 0xFFFF).to_bytes(2, "little")
        return {
            "mac": format_mac(mac),
            "promiscuous": bool(self.register("RCTL") & 8),
            "descriptors": self.register("RDLEN0") // 16,
            "max_frame": self.register("RLPML"),
            "counters": asdict(self.counters),
            "in_flight": int(lib.exo_nic_in_flight(self.native)),
            "queues": [{key: self.register(f"{name}{n}") for key, name in names.items()} for n in present],
            "interrupt": {name.lower(): self.register(name) for name in ("ICR", "IMS", "EITR0")},
        }


def _offset(name: str) -> int:
    try:
        return REGISTERS[name]
    except KeyError:
        raise UsageError(f'NIC register "{name}": there is none such; try RCTL, MPC, RDH0, RETA3') from None
