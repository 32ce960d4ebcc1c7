# SPDX-License-Identifier: MIT
"""exonet in a chroot whose root is no mount point: LibOS processes are shut in there too, and no mount leaks out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/run", sys.prefix, sys.base_prefix, str(ROOT))
#: In a mount namespace of its own: a root put together of binds in a plain directory, and exonet run inside it.
SCRIPT = """
set -e
mount --make-rprivate /
{first}
{binds}
mkdir -p {root}/sys {root}/tmp
cut -d' ' -f3- /proc/self/mountinfo > {root}/before
set +e
chroot {root} {python} {program} > {root}/out 2> {root}/err
echo $? > {root}/code
cut -d' ' -f3- /proc/self/mountinfo > {root}/after
"""
PROGRAM = """
import json, sys
sys.path.insert(0, {project!r})
from exonet.clock import Clock
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire.pcap import PcapWire
with PcapWire({capture!r}, speed="max") as wire, Machine(MachineConfig(pages=4096)) as machine:
    machine.attach(wire, NicConfig(promiscuous=True), subscribe_all=True)
    env = machine.spawn(LibOSSpec("all", bindings=("ip",), local="none", process=True))
    pid = env.process.pid
    mounts = open(f"/proc/{{pid}}/mountinfo").read().splitlines()
    machine.run()
    ledger = machine.settle()
    print(json.dumps({{"mounts": mounts, "delivered": ledger.delivered, "protection": env.protection.value}}))
"""

KINDS = {
    "private": "",
    "shared": "mount --make-rshared /",
    "shared mount point": "mount --bind {root} {root}; mount --make-rshared /",
}


def bind(root: Path, source: str) -> str:
    if Path(source).is_symlink():
        return f"ln -s {Path(source).readlink()} {root}{source}"
    return f"mkdir -p {root}{source}; mount --rbind {source} {root}{source}"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no mount can be made")
@pytest.mark.parametrize("kind", KINDS)
def test_a_libos_process_is_shut_in_inside_a_chroot_too(preload: None, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "program").write_text(PROGRAM.format(project=str(ROOT), capture=str(ROOT / "captures" / "udp-64.pcap")))
    script = SCRIPT.format(
        first=KINDS[kind].format(root=root),
        binds="\n".join(bind(root, path) for path in dict.fromkeys(NEEDED) if Path(path).exists()),
        root=root,
        python=sys.executable,
        program="/program",
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, timeout=60)
    assert (root / "code").read_text() == "0\n", (root / "err").read_text()
    found = json.loads((root / "out").read_text())
    assert found["protection"] == "full" and found["delivered"] > 0
    for line in found["mounts"]:
        _, _, _, _, where, options, *_ = line.split()
        assert "ro" in options.split(",") and not where.startswith(str(tmp_path)), "nothing of the host's tree is left"
    assert (root / "before").read_text() == (root / "after").read_text(), "no mount leaks out of its namespace"
