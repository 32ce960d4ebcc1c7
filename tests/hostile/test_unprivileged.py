# SPDX-License-Identifier: MIT
"""Without privilege: another user, and root without what isolation takes. It works and says that it protects nothing,
or it is one clear line.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.attached import NOT_PERMITTED
from tests.fakes.chroot import PROJECT, run_in_chroot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot become somebody else")
EXONET = [sys.executable, "-m", "exonet.cli.main"]
REPLAY = [*EXONET, "replay", str(PROJECT / "captures" / "udp-64.pcap"), "--speed", "max"]
NAME = f"x{os.getpid()}"  # nobody else's
ATTACH = [*EXONET, "attach", NAME, "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2", "--duration", "1s"]
CLAIMS_NOTHING = "exonet: no protection is claimed for a: isolating a LibOS process needs root"


def test_another_user_replays_and_is_told_what_it_is_worth(preload: None, tmp_path: Path) -> None:
    commands = [
        [*REPLAY, "--bind", "a=ip,process"],
        [*REPLAY, "--bind", "a=ip", "--clock", "virtual"],
        ATTACH,
        [*ATTACH, "--namespace", "x"],
        [*REPLAY, "--bind", "a=ip", "--json", "/etc/out.json"],
        [EXONET[0], "-c", "import os; print(os.getresuid())"],
    ]
    process, virtual, attach, namespace, output, user = run_in_chroot(tmp_path, commands, user=12345)
    assert user.out == "(12345, 12345, 12345)\n"
    assert process.code == 0 and process.err.startswith(CLAIMS_NOTHING) and process.err.count("\n") == 1
    assert "3,002 delivered + 0 dropped + 0 in flight: balanced" in process.out
    assert (virtual.code, virtual.err) == (0, "") and "balanced" in virtual.out
    for refused, says in (
        (attach, f"interface {NAME}: {NOT_PERMITTED}"),
        (namespace, "namespace x: there is none"),
        (output, "output file /etc/out.json: it cannot be written there"),
    ):
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"exonet: error: {says}") and refused.err.count("\n") == 1


@pytest.mark.parametrize("lacking", ["sys_admin", "setuid", "setgid", "setpcap", "sys_chroot"])
def test_root_without_what_isolation_takes_replays_and_is_told(preload: None, lacking: str) -> None:
    """As in a container that is not privileged."""
    command = ["setpriv", f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}", *REPLAY, "--bind", "a=ip,process"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=40, cwd=PROJECT)
    assert done.returncode == 0 and done.stderr.startswith(CLAIMS_NOTHING) and done.stderr.count("\n") == 1
    assert "3,002 delivered + 0 dropped + 0 in flight: balanced" in done.stdout
