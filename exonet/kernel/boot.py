# SPDX-License-Identifier: MIT
"""Boot: a machine is built here, a step a line, and given its LibOSes. `running.py` makes it go.

with Machine(MachineConfig()) as machine:
    port = machine.attach(wire, NicConfig(promiscuous=True), subscribe_all=True)
    machine.spawn(LibOSSpec("web", libos="sink", bindings=("tcp port 80",)), port)
    machine.run()
    print(machine.settle().table())
"""

import contextlib
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exonet.abi import check, ffi, lib
from exonet.clock import Clock
from exonet.closing import Closing
from exonet.errors import ExhaustedError, UsageError
from exonet.fates import Fates
from exonet.gate.naming import resolve
from exonet.hardware.nic import Nic, NicConfig
from exonet.kernel import latency
from exonet.kernel.binding import Bindings
from exonet.kernel.capability import Authority, Resource, Right, Scope
from exonet.kernel.compiler import Compiler
from exonet.kernel.cores import Cores
from exonet.kernel.environment import Environment, Environments, Mode
from exonet.kernel.launcher import Launcher
from exonet.kernel.localside import mac_bytes
from exonet.kernel.native import NativeMachine
from exonet.kernel.pages import PageTable
from exonet.kernel.regions import Regions
from exonet.kernel.running import Runner, report
from exonet.kernel.schedule import install_slices
from exonet.kernel.server import Server
from exonet.kernel.spec import LibOSSpec, MachineConfig
from exonet.kernel.state import topics
from exonet.kernel.statesocket import StateSocket
from exonet.kernel.syscalls import Dispatcher
from exonet.ledger import Ledger
from exonet.trace import EventLog
from exonet.wire.link import Wire

__all__ = ["LibOSSpec", "Machine", "MachineConfig"]

RUNTIME = "libos_stacks.launch"
NO_FD = -1


class Machine(Closing):
    """One exonet machine. A context manager: leaving it ends every LibOS and gives everything back, the wires apart."""

    def __init__(self, config: MachineConfig, events: EventLog | None = None) -> None:
        self.config = config
        self.events = events or EventLog()
        self.wires: list[Wire] = []
        self.fates: Fates | None = None
        self._state: StateSocket | None = None
        self._cores = Cores(config.core)
        _raise_descriptors()
        # Live, nobody who sends frames can know how they are hashed; a virtual run repeats.
        virtual = config.clock is Clock.VIRTUAL
        self.hash_seed = config.seed if virtual else int.from_bytes(os.urandom(8), "little")
        # The C machine: pages, ports, rings, ledger, clock.
        self.native = lib.exo_machine_new(
            ffi.new(
                "struct exo_machine_config *",
                {
                    "clock": config.clock.native,
                    "pages": config.pages,
                    "seed": self.hash_seed,
                    "spin_ns": config.spin_ns,
                },
            )
        )
        if self.native == ffi.NULL:
            raise ExhaustedError(f"machine of {config.pages} pages: out of memory")
        # What virtual time costs.
        config.costs.install(self.native, config.interrupt_mode, config.budget)
        # The secret key, and what filters mean. Virtual runs repeat their tokens too.
        regions = Regions()
        covers, outside = regions.text_covers, regions.outside
        authority = Authority.of_seed(covers, config.seed, outside) if virtual else Authority(covers, None, outside)
        # Everything that is bound: pages, filters, environments.
        self._ports: list[dict[str, Any]] = []
        machine = NativeMachine(self.native, self._ports)
        pages = PageTable(machine.pages)
        self.events.now = machine.now
        bindings = Bindings(machine, authority, regions, self.events)
        self.environments = Environments(machine, authority, pages, bindings, self.events)
        # The system calls, and who serves them to processes.
        self.dispatcher = Dispatcher(self.environments)
        self.server = Server(self.dispatcher, machine.now, studies=regions.studies, cores=self._cores)
        self.launcher = Launcher()
        # Native code for filters, made on the side. A virtual run has none: its events are the same every time.
        self.compiler = None if virtual else Compiler(self.native, self.events, self._cores)
        self._runner = Runner(self.native, self.compiler, self.dispatcher, self.server)

    def attach(self, wire: Wire, nic: NicConfig, *, subscribe_all: bool = False) -> int:
        """A new port: `wire` behind an emulated NIC. Returns its number.

        subscribe_all: every LibOS that is spawned on it gets every group frame that its filters take (replay, R9).
        """
        code = lib.exo_machine_attach(self.native, wire.native, nic.native())
        port = check(code, f"port for {wire.name}")
        mtu = nic.max_frame - 14
        self._ports.append({"port": port, "mac": nic.mac, "mtu": mtu, "subscribe_all": subscribe_all})
        self.wires.append(wire)
        return port

    def nic(self, port: int) -> Nic:
        """The Python face of a port's NIC: registers, counters."""
        return Nic(lib.exo_machine_nic(self.native, port))

    def spawn(self, spec: LibOSSpec, port: int | Sequence[int] = 0) -> Environment:
        """A new environment with its LibOS, and nothing but what `spec` grants it on `port`, or on each of several.

        It is bound on every one of them; an answer leaves where its question came in. Raises UsageError, FilterError (a
        binding that is no filter), ConflictError (a name or frames that another has).
        """
        ports = [port] if isinstance(port, int) else list(port)
        known = {row["port"]: row for row in self._ports}
        for number in ports:
            if number not in known:
                raise UsageError(f"port {number}: the machine has {len(known)}")
        row = known[ports[0]]
        if spec.process and self.config.clock is Clock.VIRTUAL:
            raise UsageError(f"LibOS {spec.name}: a process cannot run on the virtual clock; make it inline")
        mac = spec.mac or row["mac"]
        target = resolve(spec.libos)
        config = spec.config(mac) | {"libos": target} | ({"groups": "all"} if row["subscribe_all"] else {})
        mode = Mode.PROCESS if spec.process else Mode.INLINE
        env = self.environments.open(spec.name, mode, rings=spec.rings, quota=spec.quota, config=config)
        self.config.costs.charge(env.native, spec.libos)
        try:
            for number in ports:
                self._grant(env, spec, mac, number)
            self.environments.grant(env, Resource.PAGES, Right.READ | Right.WRITE | Right.GRANT)
            if spec.process:
                modules = (target.partition(":")[0],)
                with self._cores.others():
                    process = self.launcher.start(env, f"{RUNTIME}:run", modules=modules)
                self.server.add(env, process)
                self._runner.await_ready(env)
            else:
                self._runner.add_inline(env, RUNTIME)
        except BaseException:
            self.environments.end(env, "it never started")
            raise
        if self._slices_known():
            install_slices(self.native, self.config.slices, self._numbers())
        if self.compiler is not None:
            self.compiler.look()
        return env

    def _grant(self, env: Environment, spec: LibOSSpec, mac: str, port: int) -> None:
        """Its rights on a port: to bind inside the union of its filters, to send from its local sides."""
        if spec.filters:
            scope = Scope(port=port, region=spec.region)
            self.environments.grant(env, Resource.FILTER, Right.BIND | Right.GRANT, scope, shared=spec.shared)
        scope = Scope(port=port, locals=spec.local_sides(mac, port))
        token = self.environments.grant(env, Resource.WIRE, Right.READ | Right.TRANSMIT, scope)
        if spec.mac is not None:
            nic = lib.exo_machine_nic(self.native, port)
            check(lib.exo_nic_filter_add(nic, mac_bytes(mac)), f"station address {mac} on port {port}")
            authority = self.environments.authority
            authority.attach(authority.authentic(token), lambda: lib.exo_nic_filter_remove(nic, mac_bytes(mac)))

    def _numbers(self) -> dict[str, int]:
        return {env.name: env.number for env in self.environments if env.alive}

    def _slices_known(self) -> bool:
        names = self._numbers()
        return bool(self.config.slices) and all(item.environment in (None, *names) for item in self.config.slices)

    def record_fates(self, path: Path | str) -> None:
        """Writes every frame's fate from here on into a Parquet file."""
        ledger = lib.exo_machine_ledger(self.native)
        self.fates = fates = Fates(ledger, path, self.environments.name_of)
        self.environments.on_forget = lambda env: fates.flush()
        self._runner.on_fates = fates.drain

    def show(self, command: tuple[str, ...] = ()) -> StateSocket:
        """Lets `exonet show` look at the machine while it runs. Not on the virtual clock, which nobody watches.

        command: what is run, for people. RunError where there is no directory for the socket.
        """
        if self.config.clock is Clock.VIRTUAL:
            raise UsageError("a machine on the virtual clock cannot be shown: it does not run in anybody's time")
        if self._state is None:
            self._state = StateSocket(topics(self, command))
            self._runner.show(self._state)
        return self._state

    def run(self, until_ns: int | None = None, on_progress: Any = None) -> bool:
        """Runs until every source has ended and drained, `until_ns` of the machine's clock has come, or Ctrl-C.

        on_progress(self) is called about ten times a second. Returns False where Ctrl-C or SIGTERM ended it.
        """
        with self._cores.kernel():
            return self._runner.run(until_ns, None if on_progress is None else lambda: on_progress(self))

    def now(self) -> int:
        return int(lib.exo_now(self.native))

    def settle(self, drained: Callable[[], None] | None = None) -> Ledger:
        """Takes no more frames in, lets those inside drain, and returns the checked ledger.

        drained: called when nothing moves any more: the moment for a device's own counters (R21).
        Raises ConservationError where it does not balance.
        """
        self._runner.drain()
        if drained is not None:
            drained()
        ledger = self.ledger()
        if self.fates is not None:
            self.fates.end()
        ledger.check()
        return ledger

    def ledger(self) -> Ledger:
        """The ledger as it stands, in flight walked now."""
        stages = lib.EXO_STAGES
        found = ffi.new("uint64_t[]", lib.EXO_ORIGINS * stages)
        lib.exo_machine_in_flight(self.native, found)
        switched = sum(self.nic(row["port"]).counters.switched for row in self._ports)
        native = lib.exo_machine_ledger(self.native)
        return Ledger.read(native, found[0:stages], found[stages : 2 * stages], switched=switched)

    def reports(self) -> list[dict[str, Any]]:
        """What became of each environment's frames: for the JSON's `environments` and the table."""
        bindings = self.environments.bindings
        return [
            {
                **report(env),
                "latency_ns": latency.of_environment(self.native, env.number),
                "bindings": latency.by_binding(self.native, bindings.of(env.number)),
            }
            for env in self.environments
        ]

    def close(self) -> None:
        """Ends everything. Idempotent. RunError where the file of fates does not hold all."""
        if self.native == ffi.NULL:
            return
        if self._state is not None:
            self._state.close()
        try:
            if self.fates is not None:
                self.fates.close()
        finally:
            self._runner.close()
            self.environments.close()
            self.server.close()
            self.launcher.close()
            if self.compiler is not None:
                self.compiler.close()
            self.events.now = lambda: 0
            lib.exo_machine_free(self.native)
            self.native = ffi.NULL


def _raise_descriptors() -> None:
    """As many descriptors as this process may have: a LibOS takes some forty (its sockets, areas, extents), and a call
    for which there is none is refused.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
