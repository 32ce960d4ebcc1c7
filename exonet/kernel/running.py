# SPDX-License-Identifier: MIT
"""Makes a machine go: the loop around the C loops, inline LibOSes, control sockets, signals, draining.

C runs with the GIL released and comes back with reasons; each has its line in `_loop`. Nothing here is per frame but
the step of an inline LibOS, which is why `_loop` looks the way it does.
"""

import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from exonet.abi import check, ffi, lib, reason_name
from exonet.clock import monotonic_ns
from exonet.errors import ExonetError, LibOSError, RunError, UsageError
from exonet.gate.client import InlineGate
from exonet.kernel.compiler import Compiler
from exonet.kernel.environment import Environment, Environments
from exonet.kernel.inline import InlineKernel
from exonet.kernel.server import Server
from exonet.kernel.statesocket import StateSocket
from exonet.kernel.syscalls import Dispatcher
from exonet.trace import EnvironmentReady, WireFailed

__all__ = ["Runner"]

NEVER = (1 << 64) - 1
TICK_NS = 100_000_000
STEPS_A_TICK = 4096
DRAIN_NS = 2_000_000_000
LAST_LOOK_NS = 1_000_000_000
DEVICE_DRAIN_NS = 5_000_000
START_S = 20.0
LEAVE_S = 1.0
NO_FULL_COLLECTION = (1 << 31) - 1
#: How long another thread may keep Python's lock, seconds: an inline LibOS's step waits for it. Usual are 5 ms.
TURN_S = 0.0001


class Runner:
    """Runs one native machine. compiler: gives its shapes native code; None on the virtual clock."""

    def __init__(self, native: Any, compiler: Compiler | None, dispatcher: Dispatcher, server: Server) -> None:
        self._native = native
        self._compiler = compiler
        self._virtual = compiler is None
        self._dispatcher = dispatcher
        self._environments: Environments = dispatcher.environments
        self._server = server
        self._inline: dict[int, Any] = {}
        self._closers: dict[int, Callable[[], None]] = {}
        self.on_fates: Callable[[], object] | None = None
        # A signal makes this readable, which ends the C loop at once.
        self._signal_in, self._signal_out = socket.socketpair()
        for end in (self._signal_in, self._signal_out):
            end.setblocking(False)
        self._state: StateSocket | None = None
        self._watch()

    def _watch(self) -> None:
        """Tells C which descriptors end its loop. A state socket that has had its share of time is not among them."""
        more = (self._compiler, None if self._state is None or self._state.resting else self._state)
        fds = [self._server.fileno(), self._signal_in.fileno(), *(each.fileno() for each in more if each is not None)]
        check(lib.exo_machine_watch(self._native, fds, len(fds)), "watched descriptors")

    def show(self, state: StateSocket) -> None:
        """Serves `state` too while the machine runs."""
        self._state = state
        self._watch()

    # LibOSes

    def add_inline(self, env: Environment, runtime: str) -> None:
        """Builds the LibOS of an inline environment in this process. LibOSError where it raises what is not ours."""
        self._forget_ended()
        bound = None if self._compiler is None else self._compiler.poke
        gate = InlineGate(InlineKernel(self._dispatcher, env, bound))
        try:
            libos, close = importlib.import_module(runtime).build(gate)
            self._inline[env.number] = libos
            self._closers[env.number] = close
            self._environments.events.write(EnvironmentReady(env.number, env.name))
            self._note_deadline(env.number)
        except ExonetError:
            raise
        except (Exception, SystemExit) as error:
            self._inline.pop(env.number, None)
            raise LibOSError(
                f"environment {env.name}: {env.config.get('libos', 'its LibOS')}: {_told(error)}"
            ) from error

    def _forget_ended(self) -> None:
        """Inline LibOSes whose environments have ended give back their memory and mappings."""
        living = {env.number for env in self._environments if env.alive}
        for number in self._closers.keys() - living:
            self._inline.pop(number, None)
            self._closers.pop(number)()

    def await_ready(self, env: Environment) -> None:
        """Serves a LibOS process until it says that it is ready; one that has said so may be gone by then.

        LibOSError where it dies or takes too long, UsageError where it says that what it was asked to be cannot be.
        """
        deadline = monotonic_ns() + int(START_S * 1e9)
        while env.alive and not env.ready:
            if monotonic_ns() > deadline:
                raise LibOSError(f"environment {env.name}: not ready after {START_S:.0f} s")
            self._server.serve(0.5)
        if not env.ready:
            said = env.output.decode(errors="replace").strip().splitlines()
            why = said[-1].removeprefix("libos: ") if said else env.end_reason
            kind = UsageError if env.exit_status == UsageError.exit_code else LibOSError
            who = f"environment {env.name}: "
            raise kind(who + why.removeprefix(who))
        if env.process is not None:
            env.process.started()

    def _step(self, number: int, timer: int) -> bool:
        """One step of one LibOS; what it has sent leaves before the next one runs. Says whether it wants another."""
        libos = self._inline.get(number)
        if libos is None:
            return False
        try:
            again: bool = libos.step()
            if timer:
                self._note_deadline(number)
            return again
        except (Exception, SystemExit) as error:
            self._fault(number, error)
        return False

    def _note_deadline(self, number: int) -> None:
        deadline = self._inline[number].deadline()
        lib.exo_machine_wake_at(self._native, number, NEVER if deadline is None else deadline)

    def _fault(self, number: int, error: BaseException) -> None:
        """An inline LibOS raised: that is its end, and nobody else's."""
        self._inline.pop(number, None)
        self._closers.pop(number, None)
        env = self._environments.at(number)
        self._environments.end(env, f"it raised {_told(error)}")

    # The loop

    def run(self, until_ns: int | None, on_progress: Callable[[], None] | None) -> bool:
        """See `Machine.run`."""
        with self._signals(), nullcontext() if self._virtual else _undisturbed():
            try:
                self._loop(NEVER if until_ns is None else until_ns, on_progress)
            except KeyboardInterrupt:
                for number in self._inline:  # what C had asked for may not have come to be done
                    lib.exo_machine_wake_at(self._native, number, 0)
                return False
        return True

    def _loop(self, until: int, on_progress: Callable[[], None] | None) -> None:
        native, go, virtual, step = self._native, lib.exo_machine_go, self._virtual, self._step
        timer = lib.EXO_RUN_TIMER
        leave = lib.EXO_RUN_DEADLINE | lib.EXO_RUN_CONTROL | lib.EXO_RUN_STOP
        leave |= lib.EXO_RUN_FATES | lib.EXO_RUN_ERROR | lib.EXO_RUN_IDLE
        steps, target, number, again = 0, until, 0, False
        tick = monotonic_ns() + TICK_NS
        try:
            while True:
                if not virtual:
                    target = min(until, tick)
                reasons = go(native, target, number, again)
                number = reasons >> 16
                if number > 0:
                    again = step(number, reasons & timer)
                    steps += 1
                if not reasons & leave and steps < STEPS_A_TICK:
                    continue
                steps = 0
                check(reasons, "run")
                if reasons & lib.EXO_RUN_ERROR:
                    raise self._wire_error()
                if reasons & lib.EXO_RUN_FATES and self.on_fates is not None:
                    self.on_fates()
                if not virtual:
                    self._serve()
                now = monotonic_ns()
                if now >= tick:
                    tick = now + TICK_NS
                    if on_progress is not None:
                        on_progress()
                if reasons & lib.EXO_RUN_IDLE:
                    return
                if reasons & lib.EXO_RUN_DEADLINE and lib.exo_now(native) >= until:
                    return
        except KeyboardInterrupt:
            again = True  # it may have come in the middle of a step
            raise
        finally:
            if number > 0:  # the last step's end is told at the next go, and there may be none
                lib.exo_machine_stepped(native, number, again)

    def _serve(self) -> None:
        """Between two bursts: system calls, what they and the compiler brought, and who asks for the state."""
        self._server.serve()
        if self._compiler is not None:
            self._compiler.collect()
            self._compiler.look()
        if self._state is not None:
            rested = self._state.resting
            self._state.serve()
            if self._state.resting is not rested:
                self._watch()
        try:
            while self._signal_in.recv(64):
                pass
        except BlockingIOError:
            pass

    def _wire_error(self) -> RunError:
        saved = ffi.new("int32_t *")
        port = lib.exo_machine_error(self._native, saved)
        self._environments.events.write(WireFailed(port, os.strerror(saved[0])))
        return RunError(f"port {port}: its wire failed: {os.strerror(saved[0])}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run, cleanly, and only the run."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        old_fd = signal.set_wakeup_fd(self._signal_out.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)

    # The end

    def drain(self) -> None:
        """No more frames in; what is inside moves until it is still, or for two seconds of the machine's clock."""
        if not self._virtual:  # a device's queue: what it has counted is to be read
            self.run(lib.exo_now(self._native) + DEVICE_DRAIN_NS, None)
        lib.exo_machine_halt(self._native)
        self.run(lib.exo_now(self._native) + DRAIN_NS, None)
        deadline = monotonic_ns() + LAST_LOOK_NS
        for env in self._environments:
            if env.alive:
                lib.exo_deliver_settle(self._native, env.native)
                self._last_look(env, deadline)

    def _last_look(self, env: Environment, deadline: int) -> None:
        """Nothing more is put into its ring, so a process that does not hang empties it: two LibOSes that answer each
        other for ever always have a frame on its way.
        """
        native = env.native
        while env.process is not None and native.receive_seen != native.receive_put and monotonic_ns() < deadline:
            os.sched_yield()
            lib.exo_deliver_settle(self._native, native)

    def close(self) -> None:
        """Asks every LibOS to leave, and waits a little for those that are processes."""
        for close in self._closers.values():
            close()
        self._closers.clear()
        self._inline.clear()
        waiting = [env for env in self._environments if env.alive and env.process is not None]
        for env in waiting:
            env.native.kernel.stop.value = 1
            env.wake_up()
        deadline = monotonic_ns() + int(LEAVE_S * 1e9)
        while any(env.alive for env in waiting) and monotonic_ns() < deadline:
            self._server.serve(0.05)
        self._signal_in.close()
        self._signal_out.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Python's collector goes through young objects only: a full collection walks every object of every binding, and
    with 100,000 of them holds up the packets for 0.4 s, in the middle of a bind. Other threads take short turns.
    """
    before, turn = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(*before[:2], NO_FULL_COLLECTION)
    sys.setswitchinterval(min(TURN_S, turn))
    try:
        yield
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(turn)


def _told(error: BaseException) -> str:
    """An exception of somebody else's code, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def report(env: Environment) -> dict[str, Any]:
    """What became of an environment's frames, as the kernel counted them; `digest` is the LibOS's own word."""
    native = env.native
    drops = {reason_name(i): int(native.drop[i]) for i in range(lib.EXO_R_SENT + 1, lib.EXO_REASONS) if native.drop[i]}
    return {
        "name": env.name,
        "number": env.number,
        "mode": env.mode.value,
        "protection": env.protection.value,
        "delivered": int(native.drop[lib.EXO_R_DELIVERED]),
        "bytes": int(native.consumed_bytes),
        "placed": int(native.placed_frames),
        "consumed": int(native.consumed_frames),
        "submitted": int(native.submitted),
        "sent": int(native.sent),
        "dropped": drops,
        "lies": int(native.lies),
        "wakeups": int(native.wakeups),
        "cpu_ns": int(native.cpu_ns) if env.process is None else env.process.cpu_ns,
        "digest": int(native.libos.counters.digest) if env.alive else None,
        "alive": env.alive,
        "end_reason": env.end_reason,
    }
