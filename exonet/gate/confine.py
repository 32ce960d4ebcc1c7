# SPDX-License-Identifier: MIT
"""What a LibOS's process does to itself, before any LibOS code is loaded, in the order of `main`.

The launcher starts a fresh interpreter by exec (so nothing of the kernel's memory is here, its key least of all) with
a Plan on its command line. Where the plan is privileged the process takes namespaces, a root of its own and another
user; in any case it closes every descriptor but its own, sets limits, becomes undumpable, gives up new privileges and
installs the seccomp allow-list.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exonet.abi import check, lib
from exonet.errors import ExonetError
from exonet.gate.client import ProcessGate

__all__ = ["ROOT", "Plan", "confine", "main"]

#: Where the new root is put together: a directory that exists everywhere and under which a LibOS needs nothing.
ROOT = "/sys"

Limits = dict[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the process is told. `entry`: "module:function", called with its gate. `parent`: the launcher's
    process.
    """

    name: str
    entry: str
    control_fd: int
    wake_fd: int
    parent: int
    privileged: bool
    uid: int
    gid: int
    binds: tuple[str, ...]
    devices: tuple[str, ...]
    limits: Limits

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        row: dict[str, Any] = json.loads(text)
        return cls(**{**row, "binds": tuple(row["binds"]), "devices": tuple(row["devices"])})


def confine(plan: Plan) -> None:
    """For good. After it the process is the LibOS's."""
    close_others({0, 1, 2, plan.control_fd, plan.wake_fd})
    os.umask(0o022)
    lib.exo_isolate_terminal()
    prefer_for_oom()
    if plan.privileged:
        check(lib.exo_isolate_namespaces(), "new namespaces")
        build_root(plan)
    set_limits(plan.limits)
    if plan.privileged:
        check(lib.exo_isolate_identity(plan.uid, plan.gid), f"user {plan.uid}")
    check(lib.exo_isolate_process(), "no new privileges")
    if os.getppid() != plan.parent:
        sys.exit(0)
    check(lib.exo_isolate_seccomp(), "seccomp filter")


def close_others(keep: set[int]) -> None:
    """Every descriptor that is not in `keep`."""
    low = 0
    for fd in sorted(keep):
        if low < fd:  # an empty range from 0 would close everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def prefer_for_oom() -> None:
    """When memory is short a LibOS goes before its kernel."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def build_root(plan: Plan) -> None:
    """A tmpfs with read-only binds of exactly plan.binds and plan.devices at their own paths becomes the root."""
    check(lib.exo_isolate_root_begin(ROOT.encode()), "a root")
    for device, paths in ((0, plan.binds), (1, plan.devices)):
        for path in paths:
            target = ROOT + path
            make_target(Path(path), Path(target))
            check(lib.exo_isolate_bind(path.encode(), target.encode(), device), f"bind {path}")
    check(lib.exo_isolate_root_enter(ROOT.encode()), "enter the root")


def make_target(source: Path, target: Path) -> None:
    """Something of the source's kind to mount it on."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(mode=0o755, exist_ok=True)
    else:
        target.touch(mode=0o644)


def set_limits(limits: Limits) -> None:
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def load(entry: str) -> Callable[[Any], int | None]:
    """The LibOS's own code: everything from here on is untrusted."""
    module, _, name = entry.partition(":")
    found: Callable[[Any], int | None] = getattr(importlib.import_module(module), name)
    return found


def main(argument: str) -> None:
    """The process's whole life. Its exit status is what the entry returns, 1 where it raises.

    It ends without the interpreter's tidying up: the control socket closes when the process is gone, not before.
    """
    plan = Plan.from_json(argument)
    try:
        confine(plan)
    except ExonetError as error:
        sys.exit(str(error))
    gate = ProcessGate(plan.control_fd, plan.wake_fd)
    status = 1
    try:
        status = (load(plan.entry)(gate) or 0) & 0xFF
        sys.stdout.flush()
        gate.exit(status)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)
