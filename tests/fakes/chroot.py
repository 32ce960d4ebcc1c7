# SPDX-License-Identifier: MIT
"""Programs in a chroot of binds, in a mount namespace of its own, as any user: whose home may be closed to others."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
NEEDED = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/run", sys.prefix, sys.base_prefix, str(PROJECT))
MOUNTS = "cut -d' ' -f3- /proc/self/mountinfo >"


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def run_in_chroot(root: Path, commands: Sequence[Sequence[str]], *, user: int = 0, first: str = "") -> list[Done]:
    """What became of each command, run one after the other with `root`, an empty directory, as its root directory.

    first: shell for the namespace before anything is bound. AssertionError where a mount is left behind in it.
    """
    root.chmod(0o755)
    lines = ["set -e", "mount --make-rprivate /", first, *(_bind(root, Path(path)) for path in dict.fromkeys(NEEDED))]
    lines += [f"mkdir -p {root}/sys {root}/tmp", f"chmod 1777 {root}/tmp", f"{MOUNTS} {root}/before", "set +e"]
    where = f"chroot --userspec={user}:{user} --groups= {root} env -u EXONET_RUN_DIR HOME=/tmp PYTHONPATH={PROJECT}"
    for number, command in enumerate(commands):
        lines += [
            f"{where} {shlex.join(command)} > {root}/{number}.out 2> {root}/{number}.err < /dev/null",
            f"echo $? > {root}/{number}.code",
        ]
    lines += [f"{MOUNTS} {root}/after"]
    subprocess.run(["unshare", "--mount", "sh", "-c", "\n".join(lines)], check=True, timeout=60)
    assert (root / "before").read_text() == (root / "after").read_text()
    texts = [[(root / f"{i}.{what}").read_text() for what in ("code", "out", "err")] for i in range(len(commands))]
    return [Done(int(code), out, err) for code, out, err in texts]


def _bind(root: Path, source: Path) -> str:
    """Shell that makes `source` appear in the root, if it exists at all."""
    if not source.exists():
        return ":"
    if source.is_symlink():
        return f"ln -s {source.readlink()} {root}{source}"
    return f"mkdir -p {root}{source} && mount --rbind {source} {root}{source}"
