# SPDX-License-Identifier: MIT
# ruff: noqa: PTH101, PTH102, PTH208 (the attacks are system calls, and are spelled as such)
"""A LibOS that attacks: each function is the entry of a process in an environment. What it found out is printed as
one JSON line.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from array import array
from pathlib import Path

from exonet.gate.protocol import HEADER, Op, encode_request

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def say(**found):
    print(json.dumps(found), flush=True)


def attempt(action):
    """The errno name an action fails with, else what it returned."""
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)


def system_call(number, *arguments):
    """The result of a raw system call, or its errno name."""
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def raw(gate):
    """The control socket, beneath the gate."""
    return gate._control


def quiet(gate):
    """Lives until the kernel ends it."""
    gate.welcome()
    say(ready=True)
    while True:
        gate.sleep(None)


def leave(gate):
    gate.welcome()
    return 3


def crash(gate):
    extent = gate.allocate(2)
    gate.pin(extent.first, 2)
    say(first=extent.first)
    os.abort()


def hang(gate):
    gate.allocate(2)
    say(ready=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    while True:
        pass


def raise_error(gate):
    raise RuntimeError("the LibOS is broken")


def identity(gate):
    """Who and where am I?"""
    say(
        uid=os.getresuid(),
        gid=os.getresgid(),
        groups=attempt(lambda: os.getgroups()),
        dumpable=attempt(lambda: Path("/proc/self/status").read_text()),
        fds=sorted(fd for fd in range(1024) if attempt(lambda fd=fd: os.fstat(fd) and "open") == "open"),
        root=sorted(entry.name for entry in Path("/").iterdir()),
        environment=dict(os.environ),
        argv=sys.orig_argv,
    )


def files(gate):
    """What of the machine's files can be read or written?"""
    say(
        passwords=attempt(lambda: Path("/etc/shadow").read_text()),
        home=attempt(lambda: [str(path) for path in Path("/root").iterdir()]),
        proc=attempt(lambda: os.listdir("/proc")),
        sys=attempt(lambda: os.listdir("/sys")),
        tmp=attempt(lambda: Path("/tmp/x").write_text("x")),
        own=attempt(lambda: Path(__file__).write_text("x")),
        root=attempt(lambda: os.mkdir("/new")),
        disk=attempt(lambda: os.listdir("/dev/vda")),
        remount=sorted(os.listdir("/dev")),
    )


def network(gate):
    """Every way to a network."""
    kinds = {"inet": 2, "inet6": 10, "unix": 1, "packet": 17, "netlink": 16, "vsock": 40, "alg": 38}
    found = {
        name: attempt(lambda kind=kind: bool(socket.socket(kind, socket.SOCK_DGRAM))) for name, kind in kinds.items()
    }
    pair = socket.socketpair(socket.AF_UNIX)
    found["connect"] = system_call(42, pair[0].fileno(), 0, 0)
    found["bind"] = system_call(49, pair[0].fileno(), 0, 0)
    found["inet_pair"] = system_call(53, 2, 1, 0, 0)
    say(**found)


def processes(gate):
    """Every way to another program."""
    say(
        fork=attempt(os.fork),
        vfork=system_call(58),
        clone=system_call(56, 17, 0, 0, 0, 0),
        clone_user=system_call(56, 0x10000000 | 0x10000 | 0x100 | 0x800, 0, 0, 0, 0),
        clone3=system_call(435, 0, 0),
        execve=attempt(lambda: os.execv("/usr/bin/su", ["su"])),
        kill_parent=attempt(lambda: os.kill(os.getppid(), 0)),
        setuid=attempt(lambda: os.setuid(0)),
        prctl_dumpable=system_call(157, 4, 1, 0, 0, 0),
        raise_limits=raise_limits(),
        memfd=attempt(lambda: os.memfd_create("x")),
        truncate=attempt(lambda: os.ftruncate(0, 1)),
        chmod=attempt(lambda: os.chmod(__file__, 0o777)),
    )


def others(gate):
    """Calls that take a process or its clock: of another, of the kernel, of oneself."""
    own, thread, kernel, nobody = os.getpid(), threading.get_native_id(), os.getppid(), 4194303
    room = ctypes.create_string_buffer(4096)
    at = ctypes.addressof(room)
    asked = {
        "SIGCONT": lambda pid: system_call(234, pid, pid, signal.SIGCONT),
        "SIGKILL": lambda pid: system_call(234, pid, pid, signal.SIGKILL),
        "signal 0": lambda pid: system_call(234, pid, pid, 0),
        "affinity": lambda pid: system_call(204, pid, 128, at),
        "limits": lambda pid: system_call(302, pid, resource.RLIMIT_NOFILE, 0, at),
        "robust list": lambda pid: system_call(274, pid, at, at),
        "its clock": lambda pid: system_call(228, ~pid << 3 | 2, at),
        "its clock's step": lambda pid: system_call(229, ~pid << 3 | 2, at),
        "its clock's time": lambda pid: system_call(230, ~pid << 3 | 2, 0, at, at),
        "its thread's clock": lambda pid: system_call(228, ~pid << 3 | 6, at),
        "owner": lambda pid: system_call(72, gate._wake.fileno(), 8, pid),
        "owner's kind": lambda pid: system_call(72, gate._wake.fileno(), 15, at),
        "owner's signal": lambda pid: system_call(72, gate._wake.fileno(), 10, signal.SIGKILL),
    }
    refused = {name: sorted({str(ask(pid)) for pid in (kernel, nobody)}) for name, ask in asked.items()}
    word = ctypes.c_uint32()
    for name, operation in (("lock", 6), ("try to lock", 8), ("private lock", 6 | 128), ("lock by a clock", 13)):
        answers = set()
        for pid in (kernel, nobody):
            word.value = pid
            answers.add(str(system_call(202, ctypes.addressof(word), operation, 0, 0, 0, 0)))
        refused[name] = sorted(answers)
    mine = {
        "signal 0": system_call(234, own, thread, 0),
        "affinity": len(os.sched_getaffinity(0)) > 0,
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0,
        "robust list": system_call(274, 0, at, at),
        "clocks": min(time.process_time(), time.thread_time(), time.monotonic(), time.time()) > 0,
        "its clock": system_call(228, -6, at),
        "flags": os.get_blocking(gate._wake.fileno()) in (True, False),
    }
    say(refused=refused, mine=mine)


def raise_limits():
    try:
        return resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000))
    except (ValueError, OSError) as error:
        return str(error)


def thread_bomb(gate):
    """Threads are allowed, an endless number of them is not."""
    import threading

    stop = threading.Event()
    started = 0
    try:
        for _ in range(1000):
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    say(started=started)
    stop.set()


def memory_bomb(gate):
    try:
        size = len(bytearray(8 << 30))
    except MemoryError:
        size = 0
    say(size=size)


def make_deadly(number, *arguments):
    def entry(gate):
        say(survived=False)
        say(survived=system_call(number, *arguments))

    return entry


deadly_ptrace = make_deadly(101, 16, 1, 0, 0)
deadly_process_vm_readv = make_deadly(310, os.getppid(), 0, 0, 0, 0, 0)
deadly_process_vm_writev = make_deadly(311, os.getppid(), 0, 0, 0, 0, 0)
deadly_mount = make_deadly(165, 0, 0, 0, 0, 0)
deadly_unshare = make_deadly(272, 0x10000000)
deadly_setns = make_deadly(308, 0, 0)
deadly_bpf = make_deadly(321, 0, 0, 0)
deadly_io_uring = make_deadly(425, 1, 0)
deadly_userfaultfd = make_deadly(323, 0)
deadly_keyctl = make_deadly(250, 0)
deadly_pidfd_getfd = make_deadly(438, 0, 0, 0)
deadly_x32 = make_deadly(0x40000000 + 39)


def seals(gate):
    """Every way to write, shrink, grow or seal what the kernel shares. The descriptors are asked for beneath the
    gate.
    """
    raw(gate).send(encode_request(Op.HELLO, 1, {"version": 1}))
    message, fds, _, _ = socket.recv_fds(raw(gate), 65536, 3)
    sizes = json.loads(message[HEADER.size :])
    found = {}
    names = ("kernel", "libos", "owners")
    for name, fd, size in zip(
        names, fds, (sizes["kernel_area_size"], sizes["libos_area_size"], 8 * sizes["pages"]), strict=True
    ):
        shared = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        found[name] = {
            "map_writable": attempt(
                lambda fd=fd, size=size: bool(mmap.mmap(fd, size, prot=mmap.PROT_READ | mmap.PROT_WRITE))
            ),
            "write": attempt(lambda fd=fd: os.write(fd, b"x")),
            "pwritev": attempt(lambda fd=fd: os.pwrite(fd, b"x", 0)),
            "shrink": attempt(lambda fd=fd: os.ftruncate(fd, 0)),
            "grow": attempt(lambda fd=fd, size=size: os.ftruncate(fd, size + 4096)),
            "seal": attempt(lambda fd=fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)),
            "reopen": attempt(lambda fd=fd: os.open(f"/proc/self/fd/{fd}", os.O_RDWR)),
            "punch": attempt(lambda shared=shared: shared.madvise(9)),
        }
    say(**found)


def page_seals(gate):
    """Its own pages, by the descriptor that came with them: resized, sealed so that the kernel could not write."""
    gate.welcome()
    raw(gate).send(encode_request(Op.ALLOCATE, 2, {"count": 2, "first": 0xFFFFFFFF}))
    _, (fd,), _, _ = socket.recv_fds(raw(gate), 65536, 3)
    seals = {"seal": 1, "shrink": 2, "grow": 4, "write": 8, "future_write": 16}

    def add(seal):
        return attempt(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal))

    say(
        sealed={name: add(seal) for name, seal in seals.items()},
        shrink=attempt(lambda: os.ftruncate(fd, 0)),
        half=attempt(lambda: os.ftruncate(fd, 4096)),
        grow=attempt(lambda: os.ftruncate(fd, 1 << 30)),
        beyond=attempt(lambda: os.pwrite(fd, b"x", 8192)),
        size=os.fstat(fd).st_size,
    )


def protect(gate):
    """mprotect(PROT_WRITE) over the read-only mapping of the kernel area."""
    area = gate.welcome().kernel_area
    kernel_area = bytes(area[:4])
    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = address_of(gate.welcome().kernel_area)
    result = LIBC.mprotect(start, 4096, 3)
    say(errno=errno.errorcode.get(ctypes.get_errno()), result=result, same=bytes(area[:4]) == kernel_area)


def address_of(area):
    from exonet.abi import ffi

    return int(ffi.cast("uintptr_t", ffi.from_buffer(area)))


def poke(gate):
    """Writes through the read-only mapping."""
    ctypes.memset(address_of(gate.welcome().kernel_area), 1, 4)


def punch(gate):
    """Holes in its own pages and in its LibOS area, again and again."""
    extent = gate.allocate(4)
    gate.pin(extent.first, 4)
    extent.memory[:8] = b"contents"
    extent.memory.madvise(9)
    gate.welcome().libos_area.madvise(9)
    say(first=extent.first, after=bytes(extent.memory[:8]).hex())
    while True:
        extent.memory.madvise(9)
        gate.sleep(gate.now() + 1_000_000)


def fill_sockets(gate):
    """Fills the wake socket and asks without ever reading the replies."""
    wake = socket.socket(fileno=gate.wake_fd)
    sent = 0
    try:
        while True:
            sent += wake.send(b"x" * 1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
    say(sent=sent)
    sequence = 0
    while True:
        sequence += 1
        raw(gate).send(encode_request(Op.DESCRIBE, sequence, {}))


def flood(gate):
    """Asks as fast as it can, and reads the replies."""
    while True:
        gate.describe()


def shut_wake(gate):
    """Shuts down and closes the wake socket."""
    wake = socket.socket(fileno=gate.wake_fd)
    wake.shutdown(socket.SHUT_RDWR)
    wake.close()
    gate._wake.detach()
    say(ready=True)
    while True:
        gate.describe()
        time.sleep(0.05)


def garbage(gate):
    """Messages that are none; the kernel answers each with an error until it has had enough."""
    replies = 0
    bodies = [b"", b"\0", b"x" * 11, b"\xff" * 4096, HEADER.pack(1, 0, 1, 0xFFFFFFFF), HEADER.pack(1, 0, 1, 2) + b"[]"]
    bodies += [HEADER.pack(5, 0, 1, len(deep)) + deep for deep in (b"[" * 60000, b'{"first":' + b"9" * 60000 + b"}")]
    try:
        for body in [body for body in bodies if body] * 10:
            raw(gate).send(body)
            replies += bool(raw(gate).recv(65536))
            say(replies=replies)
    except OSError as error:
        say(replies=replies, error=error.errno)


def huge(gate):
    """A message longer than the limit."""
    raw(gate).send(HEADER.pack(1, 0, 1, 100000) + b"x" * 100000)
    reply = raw(gate).recv(65536)
    say(reply=reply[HEADER.size :].decode())


def send_fds(gate):
    """Descriptors the kernel did not ask for, in bulk."""
    fds = array("i", [0] * 250)
    for _ in range(8):
        message = encode_request(Op.DESCRIBE, 1, {})
        raw(gate).sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        reply = raw(gate).recv(65536)
    say(reply=reply[HEADER.size :].decode())
    gate.sleep(None)


def forge(gate):
    """Capabilities made up, cut, bent, and widened."""
    from exonet.errors import DeniedError

    welcome = gate.welcome()
    token = welcome.capability("filter", "bind")
    bent = bytes([*token[:40], token[40] ^ 1, *token[41:]])
    replaced = token.replace(b'"net=lab"', b"null     ")
    tries = {
        "empty": b"\0",
        "cut": token[:-1],
        "bent": bent,
        "replaced": replaced,
        "mac": bytes(32) + token[32:],
        "long": token + b" ",
    }
    tries |= {"other": bytes.fromhex(welcome.config["stolen"])} if "stolen" in welcome.config else {}
    found = {}
    for name, each in tries.items():
        try:
            found[name] = gate.bind("net=lab and port=53", each)
        except DeniedError as error:
            found[name] = str(error)
    try:
        found["wider"] = gate.bind("net=other", token)
    except DeniedError as error:
        found["wider"] = str(error)
    found["good"] = gate.bind("net=lab and port=53", token)
    say(**found)


def hostage(gate):
    """Holds a secret in memory and in an extent, for others to try to read."""
    extent = gate.allocate(1)
    extent.memory[:16] = b"a secret of mine"
    say(pid=os.getpid(), first=extent.first)
    gate.sleep(None)
    while True:
        gate.sleep(None)


def stuffed(gate):
    """Closes its control socket with memory that takes a while to give back."""
    memory = bytearray(b"x") * (256 << 20)
    raw(gate).shutdown(socket.SHUT_RDWR)
    time.sleep(60)
    say(memory=len(memory))


def close_control(gate):
    """Closes the control socket and lives on."""
    gate.welcome()
    gate._control.close()
    while True:
        time.sleep(1)


def print_endlessly(gate):
    while True:
        os.write(1, b"spam " * 1000)
