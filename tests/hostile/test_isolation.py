# SPDX-License-Identifier: MIT
# ruff: noqa: PTH115, PTH123, PTH208 (the attacks are system calls, and are spelled as such)
"""Isolation, line by line: a hostile LibOS process tries each thing that its environment must make impossible."""

import ctypes
import errno
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from exonet.abi import lib
from exonet.errors import LibOSError, UsageError
from exonet.kernel.environment import Environment, Mode, Protection
from exonet.kernel.launcher import UNPRIVILEGED, Launcher, Uids
from tests.conftest import SANITIZED
from tests.fakes.dispatcher import running_kernel
from tests.hostile.conftest import HERE, Lab, last_line

LIBC = ctypes.CDLL(None, use_errno=True)
DEADLY = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "mount", "unshare", "setns", "bpf", "io_uring"),
    *("userfaultfd", "keyctl", "pidfd_getfd", "x32"),
)


unsanitized = pytest.mark.skipif(SANITIZED, reason="AddressSanitizer's shadow takes 20 TiB of address space")


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def pid_of(env: Environment) -> int:
    assert env.process is not None
    return env.process.pid


def as_user(uid: int, action: Callable[[], object]) -> str:
    """Runs an action in a child of that uid: the errno name it fails with, or "done"."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action()
            os.write(write_end, b"done")
        except OSError as error:
            os.write(write_end, errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    answer = os.read(read_end, 64).decode()
    os.close(read_end)
    return answer


def call(name: str, *arguments: int) -> None:
    """A libc function; OSError where it fails."""
    if getattr(LIBC, name)(*(ctypes.c_long(value) for value in arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def read_memory(pid: int, address: int) -> None:
    """process_vm_readv of 16 bytes; OSError where it is refused."""
    here = ctypes.create_string_buffer(16)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 16)
    remote = (ctypes.c_uint64 * 2)(address, 16)
    call("process_vm_readv", pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)


class TestProcess:
    def test_own_uid_no_groups_no_capability_no_new_privileges_seccomp(self, lab: Lab) -> None:
        first, second = lab.start("quiet", "first"), lab.start("quiet", "second")
        lab.said(first), lab.said(second)
        rows = [status(pid_of(env)) for env in (first, second)]
        uids = [row["Uid"].split() for row in rows]
        assert all(len(set(uid)) == 1 and int(uid[0]) > 61000 for uid in uids)
        assert uids[0] != uids[1]
        for row, uid in zip(rows, uids, strict=True):
            assert row["Gid"].split() == uid
            assert row["Groups"] == ""
            assert {row[name].strip("0") for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")} == {""}
            assert (row["NoNewPrivs"], row["Seccomp"]) == ("1", "2")

    def test_namespaces_are_its_own_and_the_network_is_empty(self, lab: Lab) -> None:
        env = lab.start("quiet")
        lab.said(env)
        for kind in ("net", "mnt", "ipc", "uts"):
            assert os.readlink(f"/proc/{pid_of(env)}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        devices = Path(f"/proc/{pid_of(env)}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]

    def test_every_mount_is_read_only_and_without_set_uid(self, lab: Lab) -> None:
        env = lab.start("quiet")
        lab.said(env)
        for line in Path(f"/proc/{pid_of(env)}/mountinfo").read_text().splitlines():
            options = line.split()[5].split(",")
            assert "ro" in options and "nosuid" in options, line

    def test_every_other_descriptor_is_closed(self, lab: Lab) -> None:
        with open("/etc/hostname") as secret:
            os.set_inheritable(secret.fileno(), True)
            env = lab.run("identity")
        found = last_line(env)
        assert len(found["fds"]) == 5 and found["fds"][:3] == [0, 1, 2]

    def test_environment_variables_and_root_hold_nothing_of_the_host(self, lab: Lab) -> None:
        os.environ["EXONET_TEST_SECRET"] = "1"
        try:
            found = last_line(lab.run("identity"))
        finally:
            del os.environ["EXONET_TEST_SECRET"]
        assert "EXONET_TEST_SECRET" not in found["environment"]
        bound = {Path(path).parts[1] for path in (HERE, sys.prefix, sys.base_prefix)}
        assert not {"proc", "sys", "tmp", "run", "var", "home"}.difference(bound) & set(found["root"])
        assert found["dumpable"] == "ENOENT"

    def test_files_of_the_host_cannot_be_read_or_written(self, lab: Lab) -> None:
        found = last_line(lab.run("files"))
        assert found["passwords"] == "ENOENT"
        assert found["proc"] == found["sys"] == found["disk"] == "ENOENT"
        assert {found[name] for name in ("tmp", "own", "root")} <= {"EPERM", "EROFS", "ENOENT", "EACCES"}
        assert found["remount"] == ["null", "urandom"]

    def test_no_socket_to_anywhere(self, lab: Lab) -> None:
        assert set(last_line(lab.run("network")).values()) == {"EPERM"}

    def test_no_fork_no_exec_no_privilege_regained(self, lab: Lab) -> None:
        found = last_line(lab.run("processes"))
        assert found.pop("clone3") == "ENOSYS"
        assert "not allowed" in found.pop("raise_limits")
        assert set(found.values()) == {"EPERM"}, found

    def test_nothing_is_told_of_another_process_nor_done_to_it(self, lab: Lab) -> None:
        """A process that lives and one that does not give the same answer. It is of the kernel's session, in which
        SIGCONT would need no permission.
        """
        found = last_line(lab.run("others"))
        assert found["refused"].pop("affinity") == ["ENOSYS"]
        assert all(said == ["EPERM"] for said in found["refused"].values()), found["refused"]
        assert found["mine"] == {name: True if value is True else 0 for name, value in found["mine"].items()}

    def test_it_is_of_the_kernels_session_and_of_a_group_of_its_own(self, lab: Lab) -> None:
        first, second = lab.start("quiet", "first"), lab.start("quiet", "second")
        lab.said(first), lab.said(second)
        pids = [pid_of(env) for env in (first, second)]
        assert {os.getsid(pid) for pid in pids} == {os.getsid(0)}
        assert [os.getpgid(pid) for pid in pids] == pids

    @pytest.mark.parametrize("privileged", [True, False])
    def test_a_terminals_signals_are_not_for_it_and_it_has_no_terminal(self, privileged: bool) -> None:
        script = (
            f"import sys, os, signal; sys.path[:0] = [{str(Path(HERE).parents[1])!r}];"
            "signal.pthread_sigmask(signal.SIG_BLOCK, wanted := {signal.SIGINT, signal.SIGTSTP, signal.SIGQUIT});"
            "from tests.hostile.conftest import Lab; from tests.fakes.dispatcher import make_kernel;"
            "from exonet.kernel.launcher import Launcher;"
            f"lab = Lab(make_kernel(), Launcher(privileged={privileged})); env = lab.start('quiet'); lab.said(env);"
            "pid = env.process.pid; stat = lambda: open(f'/proc/{pid}/stat').read().rpartition(')')[2].split();"
            "print('ready', stat()[4], flush=True);"
            "got = sorted(signal.sigwait(wanted) for _ in range(3));"
            "print('got', *map(int, got), stat()[0], env.process.poll(), flush=True); lab.close()"
        )
        child, terminal = pty.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-c", script])
        try:
            with open(terminal, "rb", buffering=0) as screen:
                assert words(screen, b"ready") == ["ready", "0"], "the number of its terminal"
                screen_fd = screen.fileno()
                for key in (b"\x03", b"\x1a", b"\x1c"):
                    os.write(screen_fd, key)
                said = words(screen, b"got")
                assert said[1:4] == ["2", "3", "20"] and said[4] in "SR" and said[5] == "None"
        finally:
            os.waitpid(child, 0)

    def test_thread_bomb_ends_at_the_limit(self, lab: Lab) -> None:
        assert 1 <= last_line(lab.run("thread_bomb"))["started"] < 64

    @unsanitized
    def test_memory_bomb_ends_at_the_limit(self, lab: Lab) -> None:
        assert last_line(lab.run("memory_bomb"))["size"] == 0

    @pytest.mark.parametrize("name", DEADLY)
    def test_a_call_that_only_an_attack_makes_kills(self, lab: Lab, name: str) -> None:
        env = lab.run(f"deadly_{name}")
        assert env.end_reason == "killed by signal 31"
        assert last_line(env) == {"survived": False}

    def test_cannot_be_read_by_another_environment_s_user_nor_by_its_own(self, lab: Lab) -> None:
        env = lab.start("hostage")
        lab.said(env)
        pid = pid_of(env)
        own = int(status(pid)["Uid"].split()[0])
        target = int(Path(f"/proc/{pid}/maps").read_text().split("-")[0], 16)
        read_memory(pid, target)
        for uid in (own, own + 1):
            assert as_user(uid, lambda: open(f"/proc/{pid}/mem", "rb").close()) == "EACCES"
            assert as_user(uid, lambda: os.listdir(f"/proc/{pid}/fd")) == "EACCES"
            assert as_user(uid, lambda: os.listdir(f"/proc/{pid}/map_files")) in ("EACCES", "EPERM")
            assert as_user(uid, lambda: read_memory(pid, target)) == "EPERM"
            assert as_user(uid, lambda: call("ptrace", 16, pid, 0, 0)) == "EPERM"

    @unsanitized
    def test_the_capability_key_is_not_in_its_memory(self, lab: Lab) -> None:
        lab.kernel.authority._key = os.urandom(32)
        env = lab.start("hostage")
        lab.said(env)
        assert not in_memory(pid_of(env), lab.kernel.authority._key)
        assert in_memory(pid_of(env), b"a secret of mine")

    def test_dies_with_its_kernel(self, lab: Lab) -> None:
        script = (
            f"import sys, os, signal; sys.path[:0] = [{str(Path(HERE).parents[1])!r}];"
            "from tests.hostile.conftest import Lab; from tests.fakes.dispatcher import make_kernel;"
            "from exonet.kernel.launcher import UNPRIVILEGED, Launcher;"
            "lab = Lab(make_kernel(), Launcher()); env = lab.start('hang'); lab.said(env);"
            "print(env.process.pid, flush=True); sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)"
        )
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as kernel:
            assert kernel.stdout is not None and kernel.stdin is not None
            pidfd = os.pidfd_open(int(kernel.stdout.readline()))
            kernel.stdin.close()
            try:
                assert select.select([pidfd], [], [], 10)[0]
            finally:
                os.close(pidfd)


def words(screen: BinaryIO, first: bytes) -> list[str]:
    """The line on a terminal in which `first` stands, from it on."""
    line = b""
    while not (first in line and line.endswith(b"\n")):
        line += screen.read(1)
    return line[line.index(first) :].decode().split()


def in_memory(pid: int, needle: bytes) -> bool:
    """Is `needle` anywhere in the readable memory of a process?"""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            low, high = (int(part, 16) for part in span.split("-"))
            if rights[0] != "r" or "[v" in line:
                continue
            memory.seek(low)
            if needle in memory.read(high - low):
                return True
    return False


class TestMemory:
    def test_kernel_area_and_owner_table_cannot_be_written_and_nothing_can_be_resized_or_sealed(self, lab: Lab) -> None:
        found = last_line(lab.run("seals"))
        for name in ("kernel", "owners"):
            assert found[name]["map_writable"] == "EPERM"
            assert found[name]["write"] == "EPERM"
            assert found[name]["punch"] in ("EPERM", "EACCES")
        assert found["libos"]["map_writable"] is True
        for row in found.values():
            assert {row[name] for name in ("shrink", "grow", "seal")} == {"EPERM"}
            assert row["reopen"] in ("ENOENT", "EPERM")

    def test_its_own_pages_cannot_be_resized_or_sealed(self, lab: Lab) -> None:
        """A page that shrank, or that the kernel could not write, would be a fault of the kernel's."""
        found = last_line(lab.run("page_seals"))
        assert set(found.pop("sealed").values()) == {"EPERM"}
        assert found.pop("size") == 8192
        assert set(found.values()) <= {"EPERM"}, found

    def test_mprotect_of_the_kernel_area_is_refused(self, lab: Lab) -> None:
        assert last_line(lab.run("protect")) == {"errno": "EACCES", "result": -1, "same": True}

    def test_writing_the_kernel_area_is_a_fault_of_the_libos_alone(self, lab: Lab) -> None:
        env = lab.run("poke")
        assert env.end_reason == ("killed by signal 6" if SANITIZED else "killed by signal 11")

    def test_holes_in_pages_and_areas_read_as_zeroes(self, lab: Lab) -> None:
        env = lab.start("punch")
        first = lab.said(env)["first"]
        assert last_line(env)["after"] == bytes(8).hex()
        pages = lab.kernel.pages.native
        for i in range(first, first + 4):
            assert bytes(lib_bytes(pages.page[i].address, 4096)) == bytes(4096)
        assert env.native.libos.fill_put.value == 0
        assert env.alive

    def test_invariant_4_old_contents_are_not_readable_by_the_next_owner(self, lab: Lab) -> None:
        victim = lab.start("hostage")
        first = lab.said(victim)["first"]
        lab.kernel.environments.end(victim, "the test ends it")
        other = lab.kernel.open("next")
        extent = lab.kernel.gate(other).allocate(1, first)
        assert extent.first == first and extent.memory[:] == bytes(4096)


def lib_bytes(address: object, size: int) -> bytes:
    from exonet.abi import ffi

    return bytes(ffi.buffer(address, size))


class TestDeath:
    def test_crash_is_noticed_and_everything_is_given_back(self, lab: Lab) -> None:
        env = lab.run("crash")
        assert env.end_reason == "killed by signal 6" and env.exit_status == -6
        assert lab.dead == [env]
        assert lab.kernel.pages.free_count == lab.kernel.pages.total
        assert not lab.kernel.authority.count()

    def test_a_libos_that_raises_leaves_its_traceback(self, lab: Lab) -> None:
        env = lab.run("raise_error")
        assert env.end_reason == "exit status 1: RuntimeError: the LibOS is broken"
        assert b"RuntimeError: the LibOS is broken" in env.output

    def test_a_libos_that_leaves_gives_its_status(self, lab: Lab) -> None:
        env = lab.run("leave")
        assert (env.end_reason, env.exit_status) == ("exit status 3", 3)

    def test_an_entry_that_is_not_there(self, lab: Lab) -> None:
        env = lab.kernel.open("missing", Mode.PROCESS)
        lab.server.add(env, lab.launcher.start(env, "no_such_libos:main"))
        lab.until(lambda: not env.alive, "its end")
        assert b"ModuleNotFoundError" in env.output and env.exit_status == 1

    def test_hang_with_every_signal_blocked_neither_stops_the_kernel_nor_survives_it(self, lab: Lab) -> None:
        stuck = lab.start("hang")
        lab.said(stuck)
        assert lab.run("leave").exit_status == 3
        lab.kernel.environments.end(stuck, "it hangs")
        assert stuck.exit_status == -9
        assert lab.kernel.pages.free_count == lab.kernel.pages.total

    def test_invariant_8_a_hundred_lives_leave_nothing(self, lab: Lab) -> None:
        for i in range(20):
            lab.run("crash" if i % 2 else "leave", name=f"life {i}")
        assert lab.kernel.pages.free_count == lab.kernel.pages.total
        assert not lab.kernel.authority.count() and not lab.kernel.machine.envs


ALL_STEPS = """
import ctypes, sys
from exonet.abi import lib
libc = ctypes.CDLL(None)
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
for step, arguments in {
    "namespaces": (), "root_begin": (b"/sys",), "bind": (b"/usr", b"/sys", 0), "root_enter": (b"/sys",),
    "identity": (61001, 61001), "seccomp": (),
}.items():
    print(step, getattr(lib, f"exo_isolate_{step}")(*arguments))
"""


def test_a_step_of_the_isolation_that_fails_is_told() -> None:
    """Without a capability none of them takes effect, and each says so: no LibOS's code would run after it."""
    if os.geteuid() != 0:
        pytest.skip("not root: there is no capability to give up")
    root = Path(HERE).parents[1]
    done = subprocess.run([sys.executable, "-c", ALL_STEPS], cwd=root, capture_output=True, text=True, check=True)
    said = dict(line.split() for line in done.stdout.splitlines())
    assert len(said) == 6 and set(said.values()) == {str(lib.EXO_E_SYSTEM)}, said


class TestLauncher:
    def test_without_privilege_it_says_so_plainly(self) -> None:
        with running_kernel() as kernel:
            env = kernel.open("web", Mode.PROCESS)
            launcher = Launcher(privileged=False)
            launcher.start(env, "hostile_libos:leave", path=[HERE])
            assert env.protection is Protection.NONE
            assert env.protection_note == f"environment web runs without protection: {UNPRIVILEGED}"
            launcher.close()

    def test_inline_is_refused_and_a_second_start_too(self) -> None:
        with running_kernel() as kernel:
            launcher = Launcher(privileged=False)
            with pytest.raises(UsageError, match="must be in process mode"):
                launcher.start(kernel.open("inline"), "x:y")
            launcher.close()

    def test_an_interpreter_that_cannot_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/nonexistent")
        with running_kernel() as kernel:
            launcher = Launcher(privileged=False)
            with pytest.raises(LibOSError, match="cannot be started"):
                launcher.start(kernel.open("web", Mode.PROCESS), "x:y")
            launcher.close()

    def test_two_kernels_never_share_a_uid(self, tmp_path: Path) -> None:
        one, two = Uids(70000, tmp_path / "lock"), Uids(70000, tmp_path / "lock")
        assert [one.take(), two.take(), one.take()] == [70001, 70002, 70003]
        one.give(70001)
        assert two.take() == 70001
        one.close()
        assert two.take() == 70003
        two.close()


def test_owner_table_is_readable_and_current(lab: Lab) -> None:
    env = lab.start("hostage")
    first = lab.said(env)["first"]
    other = lab.kernel.open("other")
    owners = lab.kernel.gate(other).welcome().owners
    assert int.from_bytes(owners[8 * first : 8 * first + 4], "little") == env.number
    assert int.from_bytes(owners[8 * first + 8 : 8 * first + 12], "little") == lib.EXO_NO_ENV
