# SPDX-License-Identifier: MIT
"""Where root finds the machines of other users, and how it asks them.

What lies there is another user's, and may mean harm. So nothing is opened through a link: the directory must be the
user's whose number it has in its name, and nobody else's to write; the socket must be that user's; it is connected to
as the file that was looked at; and the kernel must say that this user's process, of the number in the socket's name,
listens there. What is not so is not shown.
"""

import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from exonet.kernel.statesocket import MACHINES, TEMPORARY

__all__ = ["connect", "directories_of_others", "names_in"]

SESSIONS = Path("/run/user")
_CREDENTIALS = struct.Struct("iII")
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def directories_of_others() -> Iterator[tuple[int, Path]]:
    """Users' numbers, and where machines of theirs would have their sockets. Names only: nothing is checked yet."""
    for name in _entries(SESSIONS):
        if re.fullmatch(r"[1-9][0-9]{0,9}", name):
            yield int(name), SESSIONS / name / "exonet"
    for name in _entries(TEMPORARY):
        if match := re.fullmatch(r"exonet-([1-9][0-9]{0,9})", name):
            yield int(match[1]), TEMPORARY / name


def names_in(directory: Path, user: int) -> list[str]:
    """The first names in a directory of the user's. OSError where it is not."""
    with _directory(directory, user, os.O_RDONLY) as place, os.scandir(place) as entries:
        return sorted(entry.name for entry in islice(entries, 4 * MACHINES))


def connect(asked: socket.socket, path: Path, user: int, pid: int) -> None:
    """Connects to a process of the user's. OSError where another one, or another user's, listens."""
    with _directory(path.parent, user, os.O_PATH) as place:
        fd = os.open(path.name, _LOOK, dir_fd=place)
    try:
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != user:
            raise PermissionError(f"{path}: it is no socket of user {user}")
        asked.connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    peer = _CREDENTIALS.unpack(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if peer[:2] != (pid, user):
        raise PermissionError(f"{path}: process {peer[0]} of user {peer[1]} listens there")


@contextmanager
def _directory(path: Path, user: int, flags: int) -> Iterator[int]:
    """A descriptor of a directory that is the user's, and nobody else's to write. OSError where it is not."""
    fd = os.open(path, flags | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid != user or found.st_mode & 0o022:
            raise PermissionError(f"{path}: it is not user {user}'s alone")
        yield fd
    finally:
        os.close(fd)


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []
