# SPDX-License-Identifier: MIT
"""LibOSes that race with the kernel from processes of their own: holes under the copy, scribbled rings, closed
sockets.
"""

import contextlib
import ctypes
import os
import random
import threading
import time

from exonet.abi import ffi
from exonet.errors import ExonetError

LIBC = ctypes.CDLL(None, use_errno=True)
MADV_REMOVE, MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT = 9, 4, 8, 20, 21


def libc(name, *arguments):
    """A libc call for its effect, whatever it answers."""
    getattr(LIBC, name)(*(ctypes.c_long(value) for value in arguments))


def address(area):
    return int(ffi.cast("uintptr_t", ffi.from_buffer(area))), len(area)


class Racer:
    """A sink with a thread that does `race` for ever."""

    def __init__(self, environment, options):
        self.environment = environment
        self.pick = random.Random(options.get("seed", 1))
        welcome = environment.gate.welcome()
        self.pages = [address(extent.memory) for extent, _ in environment._extents]
        self.libos = address(welcome.libos_area)
        self.fds = [environment.gate.wake_fd, environment.gate._control.fileno()]
        threading.Thread(target=self.races, daemon=True).start()

    def races(self):
        while True:
            self.race()

    def step(self):
        return self.environment.sink(64) >= 64

    def deadline(self):
        return None


class Puncher(Racer):
    """Holes into its pages while the kernel copies into them, and what else the system has for memory and files."""

    def race(self):
        start, size = self.pick.choice(self.pages)
        libc("madvise", start, size, self.pick.choice([MADV_REMOVE, MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT]))
        libc("fallocate", self.fds[0], 3, 0, 1 << 20)
        libc("ftruncate", self.fds[0], 0)
        libc("madvise", start + 4096 * self.pick.randrange(size // 4096), 4096, MADV_REMOVE)


class RingPuncher(Racer):
    """Holes into the area with its rings."""

    def race(self):
        time.sleep(self.pick.random() / 500)
        libc("madvise", *self.libos, MADV_REMOVE)


class Unmapper(Racer):
    """Its own mappings go: its own fault."""

    def race(self):
        time.sleep(self.pick.random() / 50)
        start, size = self.pick.choice([*self.pages, self.libos])
        libc("munmap", start, size)


class Scribbler(Racer):
    """Random bytes into rings and pages, as fast as it can."""

    def race(self):
        start, size = self.pick.choice([*self.pages, self.libos, self.libos])
        count = self.pick.choice([1, 4, 64, 4096])
        ctypes.memmove(start + self.pick.randrange(0, size - count) // 4 * 4, self.pick.randbytes(count), count)


class Closer(Racer):
    """Closes or shuts its sockets in the middle, or leaves."""

    def __init__(self, environment, options):
        self.how = options["how"]
        super().__init__(environment, options)

    def race(self):
        while not self.environment.gate._ready:  # before that it would be a start that failed
            time.sleep(0.001)
        time.sleep(0.005 + self.pick.random() / 50)
        if self.how == "leave":
            os._exit(7)
        libc("shutdown", self.fds[self.how == "control"], 2)
        if self.how == "both":
            libc("close", self.fds[0])
            libc("close", self.fds[1])
        time.sleep(60)


class Binder:
    """Binds the same text at every step, whatever the kernel says to it."""

    OPTIONS = ("text",)

    def __init__(self, environment, options):
        self.environment = environment
        self.text = options["text"]
        welcome = environment.gate.welcome()
        self.token = next(grant.token for grant in welcome.capabilities if grant.resource == "filter")

    def step(self):
        self.environment.sink(64)
        with contextlib.suppress(ExonetError):
            self.environment.gate.bind(self.text, self.token)
        return True

    def deadline(self):
        return 0
