# SPDX-License-Identifier: MIT
"""The kernel's side of a TAP: opening the device, configuring it by netlink, putting it back as it was, its counters.

Every function that touches the device works in the calling thread's network namespace: `namespace.call_in` brings it
there. Reference: Linux Documentation/networking/tuntap.rst; rtnetlink(7).
"""

import errno
import fcntl
import ipaddress
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from exonet.errors import InterfaceError

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

TUN = Path("/dev/net/tun")
MTU_RANGE = range(68, 65522)
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_TYPE_TAP = 2
_IFF_UP = 1
_IFA_F_NODAD = 2
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}", re.ASCII)
_PRIVILEGE = "run as root, or give CAP_NET_ADMIN"


@dataclass(frozen=True, slots=True)
class DeviceCounters:
    """A TAP device's own counters since it was made (rtnl_link_stats64 and its root qdisc's), seen from the host.

    What they mean on a live device (Linux 6.18, single queue): tx is towards the TAP's reader. `tx_packets` rises
    when a frame is *read*, not when it is queued; `tx_dropped` when one finds the queue of txqueuelen frames full (or
    the device refuses it). A frame that waits in the queue is in neither, so a run drains before it takes its second
    snapshot; one that waits when the device goes away is in neither for ever. `qdisc_drops` are frames that never got
    as far as the device. rx is what the TAP's owner wrote: `rx_dropped` are writes that the kernel would not have, as
    while the device was down.
    """

    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    rx_errors: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    tx_errors: int
    qdisc_drops: int
    qdisc_backlog: int


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """How the device shall be; None: as it is. `ipv6` False: no IPv6 on it, so the kernel sends nothing of its own."""

    mtu: int | None = None
    addresses: tuple[Address, ...] = ()
    mac: str | None = None
    ipv6: bool = True
    txqueuelen: int | None = None


@dataclass(slots=True)
class Changes:
    """What was changed on a device that outlives us, as the link settings and addresses that undo it."""

    link: dict[str, Any] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    disable_ipv6: str | None = None


def check_name(name: str) -> str:
    """The name, if Linux takes it for a device. Raises InterfaceError."""
    why = None
    if not 1 <= len(name.encode(errors="surrogateescape")) <= 15:
        why = f"has {len(name.encode(errors='surrogateescape'))} bytes: 1..15 are possible"
    elif name in (".", "..", "all", "default"):
        why = "is reserved: take another"
    elif re.search(r"[/:%\s]|[^!-~]", name):
        why = "has a character that is impossible: use letters, digits, '-', '_' and '.'"
    if why:
        raise InterfaceError(f"interface name {name!r} {why}, as in exo0")
    return name


def check_address(text: str) -> Address:
    """ADDRESS/PREFIX of a host. Raises InterfaceError."""
    try:
        address = ipaddress.ip_interface(text) if "/" in text else None
    except ValueError:
        address = None
    if address is None:
        raise InterfaceError(f"host address {text!r}: want ADDRESS/PREFIX, as in 10.7.0.1/24 or fd07::1/64")
    if "%" in text:
        raise InterfaceError(f"host address {text!r}: must have no zone")
    host = address.ip
    if host.is_multicast or host.is_unspecified or str(host) == "255.255.255.255":
        raise InterfaceError(f"host address {text}: it is not the address of one host; want one as in 10.7.0.1/24")
    return address


def check_options(name: str, options: DeviceOptions) -> None:
    """Refuses what no device can be. Raises InterfaceError."""
    mtu, six = options.mtu, any(address.version == 6 for address in options.addresses)
    if mtu is not None and mtu not in MTU_RANGE:
        raise InterfaceError(f"interface {name}: MTU {mtu}: must be {MTU_RANGE.start}..{MTU_RANGE.stop - 1}")
    if six and mtu is not None and mtu < 1280:
        raise InterfaceError(f"interface {name}: MTU {mtu}: an IPv6 address needs 1280 or more")
    if six and not options.ipv6:
        raise InterfaceError(f"interface {name}: an IPv6 address and IPv6 switched off exclude each other")
    if options.mac is not None and (not _MAC.fullmatch(options.mac) or int(options.mac[:2], 16) & 1):
        raise InterfaceError(f"interface {name}: MAC {options.mac!r}: want a unicast one, as in 02:00:00:00:00:01")
    if options.txqueuelen is not None and not 1 <= options.txqueuelen <= 1_000_000:
        raise InterfaceError(f"interface {name}: txqueuelen {options.txqueuelen}: must be 1..1000000")


@contextmanager
def _netlink(name: str, what: str) -> Iterator[IPRoute]:
    """A netlink socket; its errors become InterfaceErrors that say what was being done to the device."""
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            raise InterfaceError(f"interface {name}: {what} is not permitted: {_PRIVILEGE}") from error
        raise InterfaceError(f"interface {name}: {what}: {os.strerror(error.code)}") from error


def _link(route: IPRoute, name: str) -> Any:
    """The link message of the device, or None."""
    found = route.link_lookup(ifname=name)
    return route.get_links(found[0])[0] if found else None


def exists(name: str) -> bool:
    """Is there a TAP of that name? Raises InterfaceError where there is something else of that name."""
    with _netlink(name, "looking it up") as route:
        link = _link(route, name)
    if link is None:
        return False
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else "real device"
    if kind != "tun":
        raise InterfaceError(f"interface {name}: it exists and is a {kind}, not a TAP; take another name")
    data = info.get_attr("IFLA_INFO_DATA")
    if data is not None and data.get_attr("IFLA_TUN_TYPE") not in (None, _TYPE_TAP):
        raise InterfaceError(f"interface {name}: it exists and is a TUN, not a TAP; take another name")
    return True


def open_tap(name: str, persist: bool) -> int:
    """A non-blocking descriptor attached to the TAP, which is made if it is not there. Raises InterfaceError."""
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "run as root" if isinstance(error, PermissionError) else "load the kernel module: modprobe tun"
        raise InterfaceError(f"interface {name}: {TUN}: {error.strerror}; {hint}") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        if persist:
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(fd)
        raise InterfaceError(f"interface {name}: {_open_failure(error)}") from error
    return fd


def unpersist(fd: int) -> None:
    """The device goes away with its descriptor after all."""
    fcntl.ioctl(fd, _TUNSETPERSIST, 0)


def _open_failure(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "taken: a program is attached to it; take another name, or end that program"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"making or attaching it is not permitted: {_PRIVILEGE}"
    if error.errno == errno.EINVAL:
        return "it exists and is no TAP that can be attached (another kind, or multi-queue); take another name"
    return f"cannot be made: {error.strerror}"


def _ipv6_switch(name: str) -> Path:
    return Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"


def _switch_ipv6(name: str, disable: str, changes: Changes) -> None:
    switch = _ipv6_switch(name)
    if not switch.exists():
        return
    try:
        before = switch.read_text().strip()
        if before != disable:
            switch.write_text(disable)
            changes.disable_ipv6 = before
    except OSError as error:
        raise InterfaceError(f"interface {name}: {switch}: {error.strerror}") from error


def _wanted(options: DeviceOptions) -> dict[str, Any]:
    wanted = {"mtu": options.mtu, "address": options.mac, "txqlen": options.txqueuelen}
    return {key: value for key, value in wanted.items() if value is not None}


def _set_link(route: IPRoute, link: Any, options: DeviceOptions, changes: Changes) -> None:
    attributes = {"mtu": "IFLA_MTU", "address": "IFLA_ADDRESS", "txqlen": "IFLA_TXQLEN"}
    for key, value in _wanted(options).items():
        before = link.get_attr(attributes[key])
        if str(before).lower() != str(value).lower():
            route.link("set", index=link["index"], **{key: value})
            changes.link[key] = before
    if not link["flags"] & _IFF_UP:
        route.link("set", index=link["index"], state="up")
        changes.link["state"] = "down"


def _add_addresses(route: IPRoute, link: Any, options: DeviceOptions, changes: Changes) -> None:
    present = {
        ipaddress.ip_interface(
            f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        )
        for message in route.get_addr(index=link["index"])
    }
    for address in options.addresses:
        if address in present:
            continue
        extra = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
        route.addr("add", index=link["index"], address=str(address.ip), prefixlen=address.network.prefixlen, **extra)
        changes.addresses.append(address)


def configure(name: str, options: DeviceOptions, changes: Changes) -> int:
    """Makes the device as `options` say and brings it up, changing only what differs; `changes` fills as it goes, so
    that a failure half-way can be undone. Returns the MTU. Raises InterfaceError.
    """
    with _netlink(name, "configuring it") as route:
        link = _link(route, name)
        if link is None:
            raise InterfaceError(f"interface {name}: it is gone")
        if not options.ipv6:
            _switch_ipv6(name, "1", changes)
        elif any(address.version == 6 for address in options.addresses):
            _switch_ipv6(name, "0", changes)
        _set_link(route, link, options, changes)
        _add_addresses(route, link, options, changes)
        return int(_link(route, name).get_attr("IFLA_MTU"))


def restore(name: str, changes: Changes) -> None:
    """Undoes the changes, as far as the device is still there. Raises InterfaceError."""
    with _netlink(name, "putting it back as it was") as route:
        link = _link(route, name)
        if link is None:
            return
        for address in changes.addresses:
            _forgive(
                route.addr, "del", index=link["index"], address=str(address.ip), prefixlen=address.network.prefixlen
            )
        for key, value in changes.link.items():
            _forgive(route.link, "set", index=link["index"], **{key: value})
    if changes.disable_ipv6 is not None and _ipv6_switch(name).exists():
        _ipv6_switch(name).write_text(changes.disable_ipv6)


def _forgive(act: Any, *arguments: Any, **named: Any) -> None:
    """Netlink's "it is not there" is what undoing wants."""
    try:
        act(*arguments, **named)
    except NetlinkError as error:
        if error.code not in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENOENT):
            raise


def counters(name: str) -> DeviceCounters:
    """The device's counters now. Raises InterfaceError where it is gone."""
    with _netlink(name, "reading its counters") as route:
        link = _link(route, name)
        if link is None:
            raise InterfaceError(f"interface {name}: it is gone")
        stats = link.get_attr("IFLA_STATS64")
        drops, backlog = 0, 0
        for qdisc in route.get_qdiscs(index=link["index"]):
            measured = qdisc.get_attr("TCA_STATS2")
            queue = measured.get_attr("TCA_STATS_QUEUE") if measured else None
            if queue:
                drops, backlog = drops + queue["drops"], backlog + queue["qlen"]
    names = ("rx_packets", "rx_bytes", "rx_dropped", "rx_errors", "tx_packets", "tx_bytes", "tx_dropped", "tx_errors")
    return DeviceCounters(**{key: int(stats[key]) for key in names}, qdisc_drops=drops, qdisc_backlog=backlog)


def facts(name: str) -> dict[str, Any]:
    """What belongs beside every result measured on the device: queue length, qdisc, MAC, kernel."""
    with _netlink(name, "reading it") as route:
        link = _link(route, name)
        if link is None:
            return {"kernel": os.uname().release}
        return {
            "mac": link.get_attr("IFLA_ADDRESS"),
            "mtu": link.get_attr("IFLA_MTU"),
            "txqueuelen": link.get_attr("IFLA_TXQLEN"),
            "qdisc": link.get_attr("IFLA_QDISC"),
            "kernel": os.uname().release,
        }
