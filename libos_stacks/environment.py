# SPDX-License-Identifier: MIT
"""What a LibOS stands on: its rings, pages and buffers, over a Gate, with one stack engine on top.

Ring and page policy live here: how many buffers, how large, when to give up waiting. The same class serves a LibOS in
a process of its own and one inline in the kernel's thread; only the Gate differs. Order of use in a burst: `pump()`,
sockets, `flush()`. Everything handed to C is kept alive here until `close()`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, Protocol

from exonet import errors
from exonet.abi import check
from exonet.closing import Closing
from exonet.gate.client import Extent, Gate, Grant, Welcome
from libos_stacks.abi import ffi, lib
from libos_stacks.settings import Settings
from libos_stacks.sockets import UdpSocket

__all__ = ["Environment", "LibOS"]

BURST: Final = 64
NEVER: Final = (1 << 64) - 1
EVERY_GROUP: Final = bytes(6)
# A frame of this many bytes fits a 2 KiB buffer wherever its stagger begins. Longer ones want whole pages, or chains
# would grow too long.
SMALL_FRAME: Final = 1600
FRAME_OVERHEAD: Final = 18  # Ethernet header and one VLAN tag


class LibOS(Protocol):
    """What a LibOS class offers. It is made with (environment, options)."""

    def step(self) -> bool:
        """One burst, run to completion. Says whether there is, or may be, more to do at once."""

    def deadline(self) -> int | None:
        """When to step again though nothing arrived, ns of the environment's clock."""


class Environment(Closing):
    """The rings, buffers and stack of one LibOS.

    Raises UsageError for a bad configuration and what the gate raises where the kernel refuses pages or bindings.
    `patience` is how often a sink looks at an empty ring before it gives the thread back: 0 inline, set by `launch`
    in a process.
    """

    def __init__(self, gate: Gate) -> None:
        welcome = gate.welcome()
        self.gate = gate
        self.number: int = welcome.env
        self.name: str = welcome.name
        self.settings = Settings.of(welcome.config)
        self.ports = _port_numbers(welcome.ports)
        self.patience = 0
        self.now: Callable[[], int] = gate.now
        self._extents: list[tuple[Extent, Any]] = []
        self._sockets: list[UdpSocket] = []
        self._stack: Any = ffi.NULL
        self._rings: Any = ffi.NULL
        self._areas = (_pointer(welcome.kernel_area), _pointer(welcome.libos_area))
        self._inbox = ffi.new("struct stk_inbox *")
        try:
            self._rings = _open_rings(self._areas)
            self._make_buffers()
            self._stack = self._make_stack(ffi.cast("struct exo_kernel_area *", self._areas[0]).seed)
            self._bind(welcome)
            self._announce()
        except BaseException:
            self.close()
            raise

    # Bind time

    def _make_buffers(self) -> None:
        settings = self.settings
        size = lib.EXO_BUFFER_SIZE
        pages = _pages(settings.receive_buffers, size)
        extent = self._allocate(pages)
        code = lib.stk_rings_receive_buffers(self._rings, extent.first, pages, size, settings.receive_buffers)
        check(code, f"{settings.receive_buffers} receive buffers")
        if settings.transmit_buffers == 0:
            return
        if settings.mtu + FRAME_OVERHEAD > SMALL_FRAME:
            size = lib.EXO_PAGE_SIZE
        pages = _pages(settings.transmit_buffers, size)
        extent = self._allocate(pages)
        code = lib.stk_rings_transmit_buffers(self._rings, extent.first, pages, size)
        check(code, f"{settings.transmit_buffers} transmit buffers")

    def _allocate(self, pages: int) -> Extent:
        extent = self.gate.allocate(pages)
        memory = _pointer(extent.memory)
        self._extents.append((extent, memory))
        self.gate.pin(extent.first, extent.count)
        code = lib.stk_rings_extent(self._rings, extent.first, extent.count, ffi.cast("uint8_t *", memory))
        check(code, f"pages {extent.first}..{extent.first + extent.count - 1}")
        return extent

    def _make_stack(self, seed: int) -> Any:
        output = ffi.new("struct stk_output *")
        lib.stk_rings_output(self._rings, self.ports[0], output)
        try:
            config = self.settings.stack(seed).native()
        except errors.UsageError as error:
            raise errors.UsageError(f"environment {self.name}: {error}") from None
        stack = lib.stk_new(config, output)
        if stack == ffi.NULL:
            raise errors.ExhaustedError(f"environment {self.name}: no memory for its stack")
        for port in self.ports:
            lib.stk_rings_output(self._rings, port, output)
            lib.stk_output_on(stack, port, output)
        return stack

    def _bind(self, welcome: Welcome) -> None:
        """The configured bindings on every granted port."""
        for port in self.ports:
            for text in self.settings.bindings:
                self._bind_one(text, port, _granted(welcome, port))

    def _bind_one(self, text: str, port: int, granted: Sequence[Grant]) -> None:
        """With the first of the granted capabilities whose region takes it."""
        denied = errors.DeniedError(f'binding "{text}": environment {self.name} was granted no right to bind')
        for grant in granted:
            try:
                self.gate.bind(text, grant.token, port)
                return
            except errors.DeniedError as error:
                denied = error
        raise denied

    def _announce(self) -> None:
        """Groups and addresses. Of an address that several environments share, the first owns ARP, ND and echo (R3)."""
        for port in self.ports:
            for mac in self._groups():
                self.gate.subscribe(mac, port)
            for address in self.settings.addresses:
                with suppress(errors.ConflictError):
                    self.gate.neighbour(str(address.ip), port)

    def _groups(self) -> list[bytes]:
        if self.settings.groups == "all":
            return [EVERY_GROUP]
        macs = ffi.new("uint8_t[64][6]")
        count = lib.stk_groups(self._stack, macs, len(macs))
        return [bytes(macs[i]) for i in range(min(count, len(macs)))]

    # Use time

    def pump(self, frames: int = BURST) -> int:
        """Feeds at most `frames` received frames to the stack and runs its timers.

        Returns how many frames there were.
        """
        count: int = lib.stk_rings_pump(self._rings, self._stack, frames, self.now())
        return count

    def sink(self, frames: int = BURST) -> int:
        """Counts and digests received frames instead of feeding them to the stack.

        With `patience`, stays as long as they keep coming.
        """
        if self.patience:
            frames = 1 << 20
        count: int = lib.stk_rings_sink_loop(self._rings, frames, self.patience)
        return count

    def flush(self) -> None:
        """Lets the kernel have what was sent since the last flush, and wakes it where it sleeps."""
        if lib.stk_rings_flush(self._rings):
            self.gate.wake()

    def poll(self) -> int | None:
        """Runs the stack's timers. Returns its next deadline, ns, or None. Flush afterwards: timers send."""
        deadline: int = lib.stk_rings_poll(self._rings, self._stack, self.now())
        return None if deadline == NEVER else deadline

    def spin(self, looks: int) -> bool:
        """Watches the rings without the GIL for `looks` rounds. True as soon as there is something to do."""
        return bool(lib.stk_rings_spin(self._rings, looks))

    def sleep(self, deadline: int | None) -> None:
        """Sleeps until the kernel has something for us or the deadline comes; not at all where there is work."""
        if lib.stk_rings_prepare_sleep(self._rings):
            return
        try:
            self.gate.sleep(deadline)
        finally:
            lib.stk_rings_awake(self._rings)

    @property
    def stopped(self) -> bool:
        """The kernel asks this environment to leave."""
        return bool(lib.stk_rings_stopped(self._rings))

    def udp(self, port: int, address: str | None = None) -> UdpSocket:
        """A UDP socket on `port` (0: an ephemeral one), of one local address or of all, in each IP version spoken.

        Raises UsageError for a bad port or address, ConflictError where the port is taken, ExhaustedError where the
        stack has no room.
        """
        if not 0 <= port <= 65535:
            raise errors.UsageError(f"udp port {port}: must be 0..65535")
        sockets: dict[int, int] = {}
        families, packed = _families(self.settings, address)
        try:
            for family in families:
                code = lib.stk_udp_open(self._stack, family, packed, port)
                sockets[family] = check(code, f"udp port {port} of environment {self.name}")
                port = lib.stk_udp_port(self._stack, code)
        except errors.ExonetError:
            for number in sockets.values():
                lib.stk_udp_close(self._stack, number)
            raise
        self._sockets.append(UdpSocket(self._rings, self._stack, self._inbox, sockets))
        return self._sockets[-1]

    def describe(self) -> dict[str, Any]:
        """Where the buffers are, and the stack's non-zero counters."""
        status = ffi.new("struct stk_rings_status *")
        lib.stk_rings_status(self._rings, status)
        rings = {name: getattr(status, name) for name, _ in ffi.typeof("struct stk_rings_status").fields}
        counters = lib.stk_counters(self._stack)
        stack = {
            name: getattr(counters, name)
            for name, _ in ffi.typeof("struct stk_counters").fields
            if name != "drop" and getattr(counters, name)
        }
        return {"env": self.number, "name": self.name, "rings": rings, "stack": stack}

    def close(self) -> None:
        """Frees sockets, stack, rings and pages, in that order; idempotent."""
        while self._sockets:
            self._sockets.pop().close()
        if self._stack != ffi.NULL:
            lib.stk_free(self._stack)
            self._stack = ffi.NULL
        if self._rings != ffi.NULL:
            lib.stk_rings_free(self._rings)
            self._rings = ffi.NULL
        self._areas = (ffi.NULL, ffi.NULL)
        while self._extents:
            extent, _ = self._extents.pop()
            with suppress(errors.ExonetError):  # the kernel is gone, or has taken them: no page is ours any more
                self.gate.unpin(extent.first, extent.count)
                self.gate.free(extent.first, extent.count)


# The seams to C


def _pointer(area: Any) -> Any:
    """A shared area as `void *`: it comes as cdata inline, as an mmap from a process's gate."""
    if isinstance(area, ffi.CData) and ffi.typeof(area).kind == "pointer":
        return ffi.cast("void *", area)
    return ffi.from_buffer(area)


def _open_rings(areas: tuple[Any, Any]) -> Any:
    rings = lib.stk_rings_new(*areas)
    if rings == ffi.NULL:
        version = ffi.cast("struct exo_kernel_area *", areas[0]).abi_version
        raise errors.LibOSError(
            f"kernel area of ABI version {version}: must be {lib.EXO_ABI_VERSION}, with sound rings"
        )
    return rings


def _pages(buffers: int, size: int) -> int:
    each: int = lib.EXO_PAGE_SIZE // size
    return -(-buffers // each)


def _families(settings: Settings, address: str | None) -> tuple[tuple[int, ...], Any]:
    """The IP versions of a socket and its local address in the engine's form (NULL: any)."""
    if address is None:
        if not settings.families:
            raise errors.UsageError("udp socket: the stack has no address: give it one, as in 10.7.0.2/24")
        return settings.families, ffi.NULL
    try:
        host = ip_address(address)
    except ValueError:
        raise errors.UsageError(f"local address {address!r}: must be an IP address, as in 10.7.0.2") from None
    return (host.version,), ffi.from_buffer("uint8_t[]", host.packed.ljust(16, b"\0"))


def _port_numbers(ports: Sequence[Any]) -> list[int]:
    """The NIC ports that were granted; an answer leaves where the question came in."""
    if not ports:
        raise errors.LibOSError("the environment was given no port")
    return [int(row["port"]) for row in ports]


def _granted(welcome: Welcome, port: int) -> list[Grant]:
    """The capabilities to bind filters on a port."""
    return [
        grant
        for grant in welcome.capabilities
        if grant.resource == "filter" and "bind" in grant.rights and grant.description.get("port") in (None, port)
    ]
