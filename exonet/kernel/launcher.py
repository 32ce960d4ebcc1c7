# SPDX-License-Identifier: MIT
"""Starts a LibOS as a process: by exec, with its own uid, two sockets, a pipe for what it prints, and a plan to shut
itself in by.

It has a process group of its own, so Ctrl-C and Ctrl-Z are not for it, and the kernel's session: each session is a
scheduling group (sched(7), autogroup), and sched_yield, by which kernel and LibOSes make way for each other, gives
nothing away between groups. What it does to itself is `gate/confine.py`. A launcher owns the uids it hands out: each is
unique on this machine while in use, by a lock on a byte of a file, so that two kernels side by side never give two
LibOSes one uid.
Reference: ARCHITECTURE.md, Trust.
"""

import fcntl
import importlib.machinery
import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from exonet.abi import lib
from exonet.clock import process_cpu_ns
from exonet.errors import ExhaustedError, LibOSError, UsageError
from exonet.gate.confine import Limits, Plan
from exonet.kernel.environment import Environment, Mode, Protection

__all__ = ["UNPRIVILEGED", "Launcher", "LibOSProcess", "Uids"]

FIRST_UID = 61000
UIDS = 4000
LOCK = Path("/run/exonet.uids")
BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2].split(':'); from exonet.gate.confine import main; main(sys.argv[1])"
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
OURS = ("exonet", "libos_stacks")
DEVICES = ("/dev/null", "/dev/urandom")
#: OpenBLAS and the like would start threads; PYTHONHASHSEED makes runs repeat.
VARIABLES = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"}
KEPT_VARIABLES = ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS")
UNPRIVILEGED = "isolating a LibOS process needs root, with the capability SYS_ADMIN"
LIMITS: Limits = {"CORE": 0, "NOFILE": 64, "NPROC": 64, "AS": 4 << 30, "MEMLOCK": 0, "MSGQUEUE": 0}


class Uids:
    """A pool of uids; a taken one is a locked byte of the file, so it is free again when this process ends,
    however it ends.
    """

    def __init__(self, base: int = FIRST_UID, lock: Path = LOCK) -> None:
        self._base = base
        self._taken: set[int] = set()
        self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> int:
        for uid in range(self._base + 1, self._base + UIDS):
            if uid not in self._taken and self._lock(uid, fcntl.F_WRLCK):
                self._taken.add(uid)
                return uid
        raise ExhaustedError(f"user ids {self._base + 1}..{self._base + UIDS - 1}: all are in use")

    def give(self, uid: int) -> None:
        self._taken.discard(uid)
        self._lock(uid, fcntl.F_UNLCK)

    def _lock(self, uid: int, kind: int) -> bool:
        """An open-file-description lock on one byte; False where another kernel has it."""
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, uid, 1, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def close(self) -> None:
        os.close(self._file)


class LibOSProcess:
    """A LibOS's process: its pid, a pidfd that is readable once it is dead, and the pipe of what it prints."""

    def __init__(self, process: subprocess.Popen[bytes], output_fd: int, uid: int | None, uids: Uids | None) -> None:
        self._process = process
        self._uid, self._uids = uid, uids
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self.output_fd = output_fd
        self._cpu_ns = self._start_ns = 0

    @property
    def cpu_ns(self) -> int:
        """The CPU time it has had since it started; once it is gone, what it had when this was last asked, which poll
        and kill do.
        """
        with suppress(OSError):
            if self._process.returncode is None:  # its pid may be another's afterwards
                self._cpu_ns = process_cpu_ns(self.pid)
        return self._cpu_ns - self._start_ns

    def started(self) -> None:
        """It is ready: what its start has cost, an interpreter's, is no part of its work."""
        self._start_ns += self.cpu_ns

    def poll(self) -> int | None:
        """Exit status, negative the signal; None while it runs."""
        _ = self.cpu_ns
        return self._process.poll()

    def signal(self) -> None:
        """SIGKILL. Its pidfd is readable once it is dead."""
        self._process.kill()

    def kill(self) -> None:
        """SIGKILL, reap, and give back descriptors and uid. Idempotent."""
        if self.pidfd < 0:
            return
        self.signal()
        _ = self.cpu_ns
        self._process.wait(timeout=10)
        os.close(self.pidfd)
        os.close(self.output_fd)
        self.pidfd = self.output_fd = -1
        if self._uid is not None and self._uids is not None:
            self._uids.give(self._uid)


class Launcher:
    """Starts LibOS processes for one machine. `privileged` None: whether we may isolate them."""

    def __init__(self, *, uid_base: int = FIRST_UID, privileged: bool | None = None, lock: Path = LOCK) -> None:
        self.privileged = bool(lib.exo_isolate_possible()) if privileged is None else privileged
        self._uids = Uids(uid_base, lock) if self.privileged else None

    def start(
        self,
        env: Environment,
        entry: str,
        *,
        modules: Iterable[str] = (),
        path: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> LibOSProcess:
        """Starts `entry` ("module:function", called with the gate) as the process of `env`, which gets its ends of
        the sockets.

        modules: what else it will import, wherever that is installed. path: directories searched before sys.path.
        LibOSError where it cannot be started.
        """
        if env.mode is not Mode.PROCESS or env.process is not None:
            raise UsageError(f"environment {env.name}: must be in process mode and not started yet")
        search = [*path, *(item for item in sys.path if item)]
        packages = _packages({*OURS, *(name.partition(".")[0] for name in (*modules, entry.partition(":")[0]))}, search)
        # -S knows nothing of what `pip install --editable` has left in site-packages: their parents are said outright.
        search += sorted({str(Path(package).parent) for package in packages} - set(search))
        uid = self._uids.take() if self._uids else None
        try:
            process, output_fd = self._spawn(env, entry, search, packages, uid, {**LIMITS, **(limits or {})})
        except BaseException:
            if self._uids and uid is not None:
                self._uids.give(uid)
            raise
        for end in env.libos_ends:
            end.close()
        env.libos_ends.clear()
        env.process = handle = LibOSProcess(process, output_fd, uid, self._uids)
        env.protection = Protection.FULL if self.privileged else Protection.NONE
        env.protection_note = (
            "" if self.privileged else f"environment {env.name} runs without protection: {UNPRIVILEGED}"
        )
        return handle

    def _spawn(
        self,
        env: Environment,
        entry: str,
        search: list[str],
        packages: set[str],
        uid: int | None,
        limits: Limits,
    ) -> tuple[subprocess.Popen[bytes], int]:
        control, wake = env.libos_ends
        variables = VARIABLES | {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        if "asan" in variables.get("LD_PRELOAD", ""):
            limits.pop("AS")  # its shadow memory is 20 TiB of address space
        plan = Plan(
            name=env.name,
            entry=entry,
            control_fd=control.fileno(),
            wake_fd=wake.fileno(),
            parent=os.getpid(),
            privileged=self.privileged,
            uid=uid or 0,
            gid=uid or 0,
            binds=_binds(packages) if self.privileged else (),
            devices=tuple(device for device in DEVICES if Path(device).exists()),
            limits=limits,
        )
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", BOOTSTRAP, plan.to_json(), ":".join(search)],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(plan.control_fd, plan.wake_fd),
                process_group=0,
                env=variables,
                cwd="/",
            )
        except OSError as error:
            os.close(read_end)
            raise LibOSError(f"environment {env.name}: cannot be started: {error}") from None
        finally:
            os.close(write_end)
        return process, read_end

    def close(self) -> None:
        if self._uids:
            self._uids.close()


def _binds(packages: set[str]) -> tuple[str, ...]:
    """What the process may read: the system's libraries, the interpreter, and the packages it needs; no path
    inside another.
    """
    kept: list[str] = []
    for path in sorted(path for path in {*SYSTEM, sys.base_prefix, sys.prefix, *packages} if Path(path).exists()):
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in kept):
            kept.append(path)
    return tuple(kept)


def _packages(names: Iterable[str], search: list[str]) -> set[str]:
    """The directories or files of top-level modules: on the search path, or where an import here finds them."""
    found: set[str] = set()
    for name in filter(None, names):
        spec = importlib.machinery.PathFinder.find_spec(name, search) or importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found.update(spec.submodule_search_locations)
        elif spec is not None and spec.has_location and spec.origin is not None:
            found.add(spec.origin)
    return found
