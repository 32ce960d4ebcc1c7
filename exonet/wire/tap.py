# SPDX-License-Identifier: MIT
"""The TAP wire: frames of a kernel network device, made or attached here, and given back as it was."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from exonet.abi import ffi, lib
from exonet.errors import InterfaceError
from exonet.wire import device
from exonet.wire.device import Changes, DeviceCounters, DeviceOptions
from exonet.wire.link import Wire
from exonet.wire.namespace import Namespace, call_in


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The device's counters and what this wire has read of it, at one moment."""

    device: DeviceCounters
    read: int
    read_errors: int


@dataclass(frozen=True, slots=True)
class TapBalance:
    """Stage TAP of the ledger between two snapshots (R21): offered = read + read_errors + dropped + unaccounted.

    `unaccounted` are frames that the device says it handed over and this wire neither saw nor lost; it is negative
    where the device was read by somebody else's count. Frames still in the device's queue are in no term: drain
    before the second snapshot.
    """

    offered: int
    read: int
    read_errors: int
    dropped: int
    unaccounted: int


def balance(before: Snapshot, after: Snapshot) -> TapBalance:
    """What became of the frames that the device was given between the two snapshots. Each term is a counter's own
    difference; only `unaccounted` compares the device's counters with ours.
    """
    handed = after.device.tx_packets - before.device.tx_packets
    dropped = after.device.tx_dropped - before.device.tx_dropped + after.device.qdisc_drops - before.device.qdisc_drops
    read, errors = after.read - before.read, after.read_errors - before.read_errors
    return TapBalance(handed + errors + dropped, read, errors, dropped, handed - read)


class TapWire(Wire):
    """A TAP device as a wire.

    The device is made if there is none of that name, and then disappears with `close` (or with the process) unless
    `persist`; a persistent one that existed is attached, changed only where the arguments say so, and put back as it
    was. `host_address` (ADDRESS/PREFIX, or several) and `mac` are the host's side. `mtu` and `txqueuelen` None: as
    the device has them, 1500 and 1000 for a new one. `ipv6=False` switches IPv6 off on the device, which also
    silences the kernel's own router solicitations and MLD reports.

    `namespace` is the network namespace the device lives in, by name or as a Namespace; with `create_namespace` a
    missing one is made and removed by `close`. The calling thread never changes its own namespace.

    Names that begin with "tap" confuse tcpreplay, which takes them for something else: prefer exo0.

    Raises InterfaceError: a name that is impossible or taken, a bad address, MTU or MAC, no such namespace, no
    permission, no /dev/net/tun. Nothing is left behind then.
    """

    def __init__(
        self,
        name: str,
        *,
        mtu: int | None = None,
        host_address: str | Iterable[str] = (),
        mac: str | None = None,
        namespace: str | Namespace | None = None,
        create_namespace: bool = False,
        ipv6: bool = True,
        txqueuelen: int | None = None,
        persist: bool = False,
    ) -> None:
        device.check_name(name)
        texts = (host_address,) if isinstance(host_address, str) else tuple(host_address)
        addresses = tuple(device.check_address(text) for text in texts)
        self._options = DeviceOptions(mtu, addresses, mac, ipv6, txqueuelen)
        device.check_options(name, self._options)
        if persist and create_namespace:
            raise InterfaceError(f"interface {name}: persist needs a namespace that stays; make it with: ip netns add")
        self.native = ffi.NULL
        self.name = name
        self._changes = Changes()
        self._outlives = False
        self._owned_namespace: Namespace | None = None
        self._namespace = self._enter(namespace, create_namespace)
        try:
            super().__init__(self._open(persist), name)
        except BaseException:
            self._release()
            raise

    def _enter(self, namespace: str | Namespace | None, create: bool) -> Namespace | None:
        if not isinstance(namespace, str):
            return namespace
        if not create:
            return Namespace.open(namespace)
        self._owned_namespace = Namespace.create(namespace, existing=True)
        return self._owned_namespace

    def _open(self, persist: bool) -> Any:
        existed = call_in(self._namespace, device.exists, self.name)
        fd = call_in(self._namespace, device.open_tap, self.name, persist)
        self._outlives = existed
        try:
            self.mtu = call_in(self._namespace, device.configure, self.name, self._options, self._changes)
            native = lib.exo_tap_new(fd, self.mtu)
        except BaseException:
            if persist and not existed:
                device.unpersist(fd)
            os.close(fd)
            raise
        if native == ffi.NULL:
            os.close(fd)
        return native

    def device_counters(self) -> DeviceCounters:
        """The device's own counters now; DeviceCounters says what they mean. Raises InterfaceError where it is gone."""
        return call_in(self._namespace, device.counters, self.name)

    def snapshot(self) -> Snapshot:
        """Taken before the traffic and, once it has stopped and `receive` gives nothing more, after it: see
        `balance`.
        """
        errors = lib.exo_tap_counters(self.native).read_errors
        return Snapshot(self.device_counters(), self.native.rx_frames, errors)

    def _device_now(self) -> dict[str, int] | None:
        try:
            return asdict(self.device_counters())
        except InterfaceError:
            return None  # somebody has taken it away: what was counted here is still worth showing

    def describe(self) -> dict[str, Any]:
        native = lib.exo_tap_counters(self.native)
        return {
            **super().describe(),
            "kind": "tap",
            "namespace": self._namespace.name if self._namespace else None,
            "host_addresses": [str(address) for address in self._options.addresses],
            **call_in(self._namespace, device.facts, self.name),
            "reader": {field: getattr(native, field) for field in dir(native)},
            "device": self._device_now(),
        }

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._release()

    def _release(self) -> None:
        """Puts a device that outlives us back as it was, and removes a namespace that we made."""
        changes, self._changes = self._changes, Changes()
        owned, self._owned_namespace = self._owned_namespace, None
        try:
            if self._outlives and changes != Changes():
                call_in(self._namespace, device.restore, self.name, changes)
        finally:
            if owned:
                owned.close()
