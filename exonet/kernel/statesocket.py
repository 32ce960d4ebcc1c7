# SPDX-License-Identifier: MIT
"""A running machine's state on a Unix stream socket, for whoever may read it: `exonet show`.

    where     DIRECTORY/PID.sock, mode 0600, in the first of `directories()` that can be had; PID-2.sock is the second
              machine of a process. It goes with its listening socket, however that ends; one that a killed machine
              left refuses, and the next machine removes it.
    request   one line of at most 256 bytes: a topic, as "bindings"
    reply     JSON, an object a line: {"exonet": 1, "topic": ..., "pid": ...}, the rows, {"rows": how many}; or one
              {"error": ...}. Then the socket is closed. A reply without its last line is not whole.

Nothing that is sent changes anything. The kernel's thread serves it between two bursts and never waits: a step makes
rows for STEP_NS, all steps together SHARE_NS of each WINDOW_NS; then `resting` asks not to be watched. A client that
is silent, does not read, or asks nonsense is dropped; beyond CLIENTS the oldest that has asked nothing is.
"""

import contextlib
import json
import os
import select
import socket
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exonet.clock import NS_PER_S, monotonic_ns
from exonet.closing import Closing
from exonet.errors import RunError

__all__ = ["OVERRIDE", "Row", "StateSocket", "Topics", "directories", "is_alive", "is_trusted"]

OVERRIDE = "EXONET_RUN_DIR"
TEMPORARY = Path("/tmp")
VERSION = 1
REQUEST = 256
CLIENTS = 8
ACCEPTS = 4
CHUNK = 16384
STEP_NS = 200_000
WINDOW_NS = 100_000_000
SHARE_NS = 20_000_000
SILENCE_NS = 2 * NS_PER_S
LONGEST_NS = 120 * NS_PER_S
MACHINES = 64

#: A row of a reply, or None: work was done and there is no row yet.
Row = dict[str, Any] | None
Topics = Mapping[str, Callable[[], Iterator[Row]]]


def directories() -> tuple[Path, ...]:
    """Where sockets are: of the system, of the user's session, of the user."""
    if OVERRIDE in os.environ:
        return (Path(os.environ[OVERRIDE]),)
    session = os.environ.get("XDG_RUNTIME_DIR")
    own = (Path(session) / "exonet",) if session else ()
    return (Path("/run/exonet"), *own, TEMPORARY / f"exonet-{os.geteuid()}")


def is_trusted(directory: Path) -> bool:
    """Is it a directory that is ours or root's, in which nobody else can put anything?"""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def is_alive(path: Path) -> bool:
    """Does somebody listen? False for what a killed machine left, and for what is no socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it is full, or not for us
            return True
    return True


@dataclass(slots=True, eq=False)
class _Client:
    socket: socket.socket
    since: int
    heard: int
    request: bytes = b""
    rows: Iterator[Row] | None = None
    out: bytearray = field(default_factory=bytearray)
    ended: bool = False


class StateSocket(Closing):
    """The listening side. RunError where no directory can be had. `fileno()` is readable when there is work."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.path, self._listener, self._remover = _listen()
        self._inode = self.path.lstat().st_ino
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._window = 0
        self._spent = 0
        self.resting = False

    def fileno(self) -> int:
        return self._epoll.fileno()

    def serve(self) -> None:
        """A step of what there is to do. To be called now and then also where nothing is readable."""
        begin = monotonic_ns()
        if begin - self._window >= WINDOW_NS:
            self._window, self._spent = begin, 0
            self._drop_silent(begin)
        self.resting = self._spent >= SHARE_NS
        if self.resting:
            return
        end = begin + STEP_NS
        while monotonic_ns() < end and (ready := self._epoll.poll(0, 1)):  # one by one they come in turn
            fd = ready[0][0]
            if fd == self._listener.fileno():
                self._accept(begin)
            else:
                self._step(self._clients[fd], end)
        self._spent += monotonic_ns() - begin

    def _accept(self, now: int) -> None:
        for _ in range(ACCEPTS):
            try:
                made, _ = self._listener.accept()
            except OSError:  # nobody is there any more, or we have no descriptor left
                return
            made.setblocking(False)
            if len(self._clients) >= CLIENTS:
                silent = [client for client in self._clients.values() if client.rows is None]
                if not silent:
                    made.close()
                    continue
                self._drop(min(silent, key=lambda client: client.since))
            self._clients[made.fileno()] = _Client(made, now, now)
            self._epoll.register(made, select.EPOLLIN)

    def _step(self, client: _Client, end: int) -> None:
        try:
            if client.rows is None:
                self._hear(client)
            else:
                self._tell(client, end)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _hear(self, client: _Client) -> None:
        got = client.socket.recv(REQUEST + 1)
        client.request += got
        topic, newline, _ = client.request.partition(b"\n")
        if newline and len(topic) <= REQUEST:
            client.rows = self._reply(topic.decode("utf-8", "replace").strip())
        elif len(client.request) > REQUEST:
            client.rows = iter([{"error": f"a request is one line of at most {REQUEST} bytes"}])
        elif not got:
            self._drop(client)
            return
        if client.rows is not None:
            client.heard = monotonic_ns()
            self._epoll.modify(client.socket, select.EPOLLOUT)

    def _reply(self, topic: str) -> Iterator[Row]:
        if topic not in self._topics:
            yield {"error": f"topic {topic!a}: there is none such; there are {', '.join(self._topics)}"}
            return
        yield {"exonet": VERSION, "topic": topic, "pid": os.getpid()}
        count = 0
        for row in self._topics[topic]():
            count += row is not None
            yield row
        yield {"rows": count}

    def _tell(self, client: _Client, end: int) -> None:
        """Makes rows until `end` and sends what the socket takes."""
        while not client.ended and len(client.out) < CHUNK and monotonic_ns() < end:
            self._row(client)
        if client.out:
            sent = client.socket.send(client.out, socket.MSG_NOSIGNAL)
            del client.out[:sent]
        client.heard = monotonic_ns()
        if client.ended and not client.out:
            self._drop(client)

    def _row(self, client: _Client) -> None:
        """One more of a reply. What cannot be told ends the reply, never the machine."""
        assert client.rows is not None
        try:
            row = next(client.rows)
            told = b"" if row is None else json.dumps(row).encode() + b"\n"
        except StopIteration:
            client.ended, told = True, b""
        except Exception as error:
            client.ended, told = True, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n"
        client.out += told

    def _drop_silent(self, now: int) -> None:
        for client in list(self._clients.values()):
            if now - client.heard > SILENCE_NS or now - client.since > LONGEST_NS:
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._epoll.unregister(client.socket)
        client.socket.close()

    def describe(self) -> dict[str, Any]:
        return {"path": str(self.path), "clients": len(self._clients), "topics": list(self._topics)}

    def close(self) -> None:
        """Removes the socket, if it is still ours. Idempotent."""
        if self._listener.fileno() < 0:
            return
        _remove(self.path, self._inode)
        self._remover.detach()
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()
        self._epoll.close()


#: A listening socket, its name, and what removes that when the socket is dropped.
_Listening = tuple[Path, socket.socket, "weakref.finalize[[Path, int], socket.socket]"]


def _listen() -> _Listening:
    """In the first directory that will do."""
    refused: list[str] = []
    for directory in directories():
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if not is_trusted(directory):
                raise PermissionError(f"{directory}: others may write there")
            _remove_stale(directory)
            return _bind(directory)
        except OSError as error:
            refused.append(f"{directory}: {error.strerror or error}")
    raise RunError(f"no socket for exonet show: {'; '.join(refused)}")


def _remove_stale(directory: Path) -> None:
    for path in sorted(directory.glob("*.sock"))[:MACHINES]:
        if not is_alive(path):
            path.unlink(missing_ok=True)


def _bind(directory: Path) -> _Listening:
    """It gets its name when it listens, so whoever finds it is answered; and 0600 before it has any.

    Ctrl-C may come between any two lines, so what removes a name is there before the name.
    """
    pid = os.getpid()
    names = [f"{pid}.sock", *(f"{pid}-{number}.sock" for number in range(2, MACHINES))]
    path = next((directory / name for name in names if not (directory / name).exists()), None)
    if path is None:
        raise OSError(f"{MACHINES - 1} machines of this process are there")
    early = path.with_name(f".{path.stem}")
    early.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    remove_early = weakref.finalize(listener, early.unlink, missing_ok=True)
    try:
        listener.setblocking(False)
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(early))
        listener.listen(CLIENTS)
        remove = weakref.finalize(listener, _remove, path, early.lstat().st_ino)
        early.rename(path)
        remove_early.detach()
    except BaseException:
        listener.close()
        raise
    return path, listener, remove


def _remove(path: Path, inode: int) -> None:
    """Unlinks `path` if it is still the file that it was."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()
