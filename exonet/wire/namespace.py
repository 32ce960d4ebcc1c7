# SPDX-License-Identifier: MIT
"""Network namespaces by name, as `ip netns` has them. A namespace is a property of a thread: work inside one is done
by a thread made for it, so the caller's own thread never moves.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from pyroute2 import IPRoute, netns

from exonet.closing import Closing
from exonet.errors import InterfaceError

_RUN_DIR = Path("/run/netns")
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def enter(path: str | Path) -> None:
    """Moves the calling thread into the network namespace at `path`. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Calls `function` in a thread of its own, and returns or raises what it does."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function(*arguments))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="exonet-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def check_name(name: str) -> str:
    """The name, if it can name a namespace. Raises InterfaceError."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255:
        raise InterfaceError(f"namespace {name!r}: a name has 1..255 bytes, no '/', and is neither '.' nor '..'")
    return name


def _loopback_up() -> None:
    with IPRoute() as route:
        route.link("set", index=1, state="up")


class Namespace(Closing):
    """A named network namespace. One that `create` made is removed by `close`; one that existed is left."""

    def __init__(self, name: str, *, owned: bool = False) -> None:
        self.name = check_name(name)
        self.owned = owned

    @property
    def path(self) -> Path:
        return _RUN_DIR / self.name

    @classmethod
    def open(cls, name: str) -> Self:
        """The namespace of that name. Raises InterfaceError where there is none."""
        namespace = cls(name)
        if not namespace.path.exists():
            raise InterfaceError(f"namespace {name}: there is none; make it with: ip netns add {name}")
        return namespace

    @classmethod
    def create(cls, name: str, *, existing: bool = False) -> Self:
        """A new namespace, its loopback up; `existing`: or the one there is, which is then not owned. Raises
        InterfaceError.
        """
        namespace = cls(name)
        if namespace.path.exists():
            if existing:
                return namespace
            raise InterfaceError(
                f"namespace {name}: it exists; take another name, or remove it with: ip netns del {name}"
            )
        if os.geteuid() != 0:
            raise InterfaceError(f"namespace {name}: making one needs root; run as root")
        try:
            netns.create(name)
        except OSError as error:
            raise InterfaceError(f"namespace {name}: {error.strerror or error}") from error
        namespace.owned = True
        namespace.call(_loopback_up)
        return namespace

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls `function` inside the namespace, in a thread of its own. Raises InterfaceError where it cannot be
        entered.
        """

        def inside() -> T:
            try:
                enter(self.path)
            except PermissionError as error:
                raise InterfaceError(f"namespace {self.name}: entering it needs root; run as root") from error
            except OSError as error:
                raise InterfaceError(f"namespace {self.name}: cannot be entered: {error.strerror}") from error
            return function(*arguments)

        return in_thread(inside)

    def close(self) -> None:
        if not self.owned:
            return
        self.owned = False
        try:
            netns.remove(self.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InterfaceError(f"namespace {self.name}: cannot be removed: {error.strerror or error}") from error


def call_in(namespace: Namespace | None, function: Callable[..., T], *arguments: Any) -> T:
    """Calls `function` in a thread of its own: inside `namespace`, or where we are."""
    return namespace.call(function, *arguments) if namespace else in_thread(function, *arguments)
