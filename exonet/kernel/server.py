# SPDX-License-Identifier: MIT
"""Serves the control sockets of the environments that are processes, and notices their death.

`fileno()` is one descriptor for the machine's loop to watch: readable when `serve()` has something to do. serve()
never blocks and its work is bounded: at most REQUESTS system calls per environment and call, one each where PASS_NS
are over (frames wait meanwhile), and a budget, of calls and of the time that they take, beyond which the environment is
not listened to for a while. What a call needs and takes long to find out (studies.py) is found in a workshop, and the
call made again; what the environment asks meanwhile waits in its socket.
A LibOS that does not read its replies, or sends what is no request, is at fault; MAX_FAULTS faults end it.
"""

import os
import select
import signal
import socket
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from exonet.abi import check, lib
from exonet.errors import ExonetError
from exonet.gate.protocol import (
    MAX_MESSAGE,
    Op,
    ProtocolError,
    Reply,
    Request,
    Status,
    decode_request,
    encode_reply,
    error_reply,
)
from exonet.kernel.cores import Cores
from exonet.kernel.environment import Environment, Event
from exonet.kernel.launcher import LibOSProcess
from exonet.kernel.studies import Needed, Studies, Unready, again
from exonet.kernel.syscalls import Answer, Dispatcher
from exonet.kernel.workshop import Turn, Workshop

__all__ = ["Server"]

REQUESTS = 8
PASS_NS = 500_000
MAX_FAULTS = 16
BURST = 512
PER_SECOND = 2000
#: A call costs one token, and one more for each of these: so calls take a fifth of the kernel's time at most.
TOKEN_NS = 100_000
OUTPUT_READ = 4096
OUTPUT_KEPT = 8192
SAID = 200
FAILED = "exit status"
SECOND_NS = 1_000_000_000


@dataclass(slots=True, eq=False)
class _Client:
    env: Environment
    control: socket.socket
    process: LibOSProcess | None
    tokens: float
    refilled: int
    resting: bool = False
    busy: bool = False
    heard: bool = True
    pending: Request | None = None
    needed: Needed = field(default_factory=dict)
    turn: Turn = field(default_factory=Turn)
    fds: list[int] = field(default_factory=list)
    reason: Callable[[int | None], str] | None = None

    @property
    def mute(self) -> bool:
        """Nothing is asked by it now: it has used up its budget, its call is under way, or it is dying."""
        return self.resting or self.busy or self.reason is not None or not self.env.alive


class Server:
    """The control side of one machine. `on_death(env)` is called after the teardown, with env.end_reason and
    env.exit_status set.

    now: the machine's monotonic clock, ns. studies: those that the calls use.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        now: Callable[[], int],
        on_death: Callable[[Environment], None] | None = None,
        studies: Studies | None = None,
        cores: Cores | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._now = now
        self._on_death = on_death
        self._clients: dict[int, _Client] = {}
        self._until = 0
        self._again: list[tuple[_Client, Request]] = []
        self._epoll = select.epoll()
        self._timer = check(lib.exo_timer_open(), "the server's timer")
        self._studies = studies or Studies()
        self._workshop = Workshop("exonet-filters", (cores or Cores(None)).others)
        for each in (self._timer, self._workshop.fileno()):
            self._epoll.register(each, select.EPOLLIN)

    def fileno(self) -> int:
        """To be watched (`exo_machine_watch`)."""
        return self._epoll.fileno()

    def add(self, env: Environment, process: LibOSProcess | None = None) -> None:
        """Listens to an environment in process mode from now on."""
        if env.control is None:
            raise ValueError(f"environment {env.name}: has no control socket")
        client = _Client(env, env.control, process, BURST, self._now())
        client.fds = [env.control.fileno()]
        if process is not None:
            client.fds += [process.pidfd, process.output_fd]
        for fd in client.fds:
            self._clients[fd] = client
            self._epoll.register(fd, select.EPOLLIN)

    def serve(self, timeout: float = 0) -> None:
        """Does what is there to do, bounded. timeout: seconds to wait for the first thing; the machine's loop
        passes 0.
        """
        ready = dict(self._epoll.poll(timeout))
        self._until = self._now() + PASS_NS
        if ready.pop(self._timer, 0):
            self._wake_resting()
        if ready.pop(self._workshop.fileno(), 0):
            self._workshop.collect()
            put_off, self._again = self._again, []
            for asking, request in put_off:
                self._take_up(asking, request)
        for fd in sorted(ready):
            client = self._clients.get(fd)
            if client is not None:
                self._serve_one(client, fd)
        for env in self._dispatcher.environments:
            if env.inbox and env.control is not None and env.alive:
                self._flush(env)

    def _serve_one(self, client: _Client, fd: int) -> None:
        if fd == client.control.fileno():
            self._requests(client)
        elif client.process is not None and fd == client.process.output_fd:
            self._output(client)
        else:
            self._died(client)

    # Requests

    def _requests(self, client: _Client) -> None:
        for _ in range(REQUESTS):
            self._resume(client)
            if client.mute or client.pending or not self._afford(client):
                return
            try:
                message, _, flags, _ = client.control.recvmsg(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(client, f"its control socket broke: {error.strerror}")
                return
            if not message and not flags:
                self._gone(client)
                return
            self._request(client, message, flags)
            if self._now() >= self._until:
                return

    def _request(self, client: _Client, message: bytes, flags: int) -> None:
        """One message. Descriptors sent with it were closed by the system: there was no room for any (MSG_CTRUNC)."""
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ProtocolError("a message with descriptors, or longer than 65536 bytes: neither is taken")
            request = decode_request(message)
        except ProtocolError as error:
            self._fault(client, str(error))
            self._reply(client, encode_reply(error_reply(Op.EVENT, 0, error)))
            return
        client.needed = {}
        self._handle(client, request)

    def _handle(self, client: _Client, request: Request) -> None:
        op, sequence = request.op, request.sequence
        answer, begin = Answer(), self._now()
        try:
            with self._studies.impatient(client.needed):
                answer = self._dispatcher.handle(client.env, request)
            packed = encode_reply(Reply(op, sequence, Status.OK, answer.fields))
        except ExonetError as error:  # an answer that is too long is no fault of who asks
            answer, packed = Answer(), encode_reply(error_reply(op, sequence, error))
        except Unready as unready:
            self._put_off(client, request, unready.work)
            return
        finally:
            client.tokens -= (self._now() - begin) / TOKEN_NS
        client.needed = {}
        if self._reply(client, packed, answer.fds) and op is Op.EXIT:
            self._end(client, _death(client.env.exit_status))

    def _reply(self, client: _Client, packed: bytes, fds: tuple[int, ...] = ()) -> bool:
        """Was it sent?"""
        if client.reason is not None or not client.env.alive:
            return False
        sent = self._send(client.env, packed, fds)
        if not sent:
            self._fault(client, "it does not read its replies")
        return sent

    def _put_off(self, client: _Client, request: Request, work: Callable[[], object]) -> None:
        """Until `work` is done, the environment is not listened to; then the call is made again."""
        client.busy = True
        self._heed(client)
        if work is again:
            self._again.append((client, request))
            self._workshop.ring()
        else:
            self._workshop.do(work, lambda _: self._take_up(client, request), client.turn)

    def _take_up(self, client: _Client, request: Request) -> None:
        client.pending = request
        client.busy = False
        self._heed(client)
        self._resume(client)

    def _resume(self, client: _Client) -> None:
        """The call that is to be made again, once it can be paid for."""
        request = client.pending
        if request is not None and not client.mute and self._afford(client):
            client.pending = None
            self._handle(client, request)

    def _heed(self, client: _Client) -> None:
        """Listens to its control socket, or not: a socket that is closed is ready whatever is asked of it."""
        heard = not client.mute
        if heard != client.heard:
            client.heard = heard
            if heard:
                self._epoll.register(client.control, select.EPOLLIN)
            else:
                self._epoll.unregister(client.control)

    def _send(self, env: Environment, packed: bytes, fds: tuple[int, ...] = ()) -> bool:
        """False where the LibOS's side is full or gone. Never blocks."""
        if env.control is None:
            return False
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            env.control.sendmsg([packed], extra, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def _flush(self, env: Environment) -> None:
        """Sends what the environment is to be told; what does not fit now is tried again at the next serve."""
        while env.inbox:
            event: Event = env.inbox[0]
            packed = encode_reply(Reply(Op.EVENT, 0, Status.EVENT, event.fields))
            if not self._send(env, packed, tuple(event.fds)):
                return
            env.inbox.popleft().close()

    def _fault(self, client: _Client, what: str) -> None:
        client.env.faults += 1
        if client.env.faults >= MAX_FAULTS:
            self._end(client, f"{MAX_FAULTS} faults, the last: {what}")

    # The budget

    def _afford(self, client: _Client) -> bool:
        """A token of the environment's budget; without one it is not listened to until there is."""
        now = self._now()
        client.tokens = min(BURST, client.tokens + (now - client.refilled) * PER_SECOND / SECOND_NS)
        client.refilled = now
        if client.tokens >= 1:
            client.tokens -= 1
            return True
        client.resting = True
        self._heed(client)
        check(lib.exo_timer_set(self._timer, SECOND_NS * REQUESTS // PER_SECOND), "the server's timer")
        return False

    def _wake_resting(self) -> None:
        check(lib.exo_timer_set(self._timer, 0), "the server's timer")
        for client in {id(client): client for client in self._clients.values() if client.resting}.values():
            client.resting = False
            self._heed(client)
            self._resume(client)

    # Output and death

    def _output(self, client: _Client) -> None:
        """What it prints: the last of it is kept, for the message when it dies."""
        assert client.process is not None
        try:
            read = os.read(client.process.output_fd, OUTPUT_READ)
        except BlockingIOError:
            return
        client.env.output = (client.env.output + read)[-OUTPUT_KEPT:]
        if not read:
            self._forget(client, client.process.output_fd)

    def _died(self, client: _Client) -> None:
        """Its pidfd is readable: tear down."""
        assert client.process is not None
        self._stop_listening(client)
        self._ended(client, (client.reason or _death)(client.process.poll()))

    def _gone(self, client: _Client) -> None:
        """Its end of the control socket is closed: by itself, or because it is dying; its status tells, once reaped."""
        said = "it closed its control socket"

        def reason(status: int | None) -> str:
            # By our signal, or by the same one of somebody else's: the status cannot tell.
            return f"{said} or was killed" if status == -signal.SIGKILL else _death(status)

        self._kill(client, reason if client.process is not None else lambda _: said)

    def _end(self, client: _Client, reason: str) -> None:
        self._kill(client, lambda _: reason)

    def _kill(self, client: _Client, reason: Callable[[int | None], str]) -> None:
        """Its end begins: nothing is heard from it any more, and no frame is for it. A process with much memory takes
        long to die, so what it can still write into is given back when it is dead.
        """
        if client.reason is not None:
            return
        client.reason = reason
        status = None if client.process is None else client.process.poll()
        if client.process is None or status is not None:
            self._stop_listening(client)
            self._ended(client, reason(status))
            return
        self._heed(client)
        client.process.signal()
        self._dispatcher.environments.bindings.end_of(client.env.number)

    def _ended(self, client: _Client, reason: str) -> None:
        said = client.env.output.decode(errors="replace").strip().splitlines()
        if reason.startswith(FAILED) and said:
            reason = f"{reason}: {said[-1][:SAID]}"
        self._dispatcher.environments.end(client.env, reason)
        if self._on_death is not None:
            self._on_death(client.env)

    def _stop_listening(self, client: _Client) -> None:
        if client.process is not None and client.process.output_fd in client.fds:
            self._output(client)
        while client.fds:
            self._forget(client, client.fds[-1])

    def _forget(self, client: _Client, fd: int) -> None:
        if fd != client.control.fileno() or client.heard:
            self._epoll.unregister(fd)
        client.heard = client.heard and fd != client.control.fileno()
        self._clients.pop(fd, None)
        client.fds.remove(fd)

    def close(self) -> None:
        """Stops listening; environments are not ended by it."""
        self._workshop.close()
        self._epoll.close()
        os.close(self._timer)
        self._clients.clear()


def _death(status: int | None) -> str:
    if status is None:
        return "it hangs at its end"
    if status == 0:
        return "it left"
    return f"killed by signal {-status}" if status < 0 else f"{FAILED} {status}"
