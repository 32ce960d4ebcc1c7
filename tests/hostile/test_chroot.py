# SPDX-License-Identifier: MIT
"""exonet in a chroot, whose root need be no mount point: LibOS processes are shut in, no mount leaks out."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.fakes.chroot import PROJECT, run_in_chroot

KINDS = {
    "private": "",
    "shared": "mount --make-rshared /",
    "shared mount point": "mount --bind {root} {root}; mount --make-rshared /",
}
PROGRAM = f"""
import json
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.wire.pcap import PcapWire
with PcapWire({str(PROJECT / "captures" / "udp-64.pcap")!r}, speed="max") as wire:
    with Machine(MachineConfig(pages=4096)) as machine:
        machine.attach(wire, NicConfig(promiscuous=True), subscribe_all=True)
        env = machine.spawn(LibOSSpec("all", bindings=("ip",), local="none", process=True))
        mounts = open(f"/proc/{{env.process.pid}}/mountinfo").read().splitlines()
        machine.run()
        ledger = machine.settle()
        print(json.dumps({{"mounts": mounts, "delivered": ledger.delivered, "protection": env.protection.value}}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no mount can be made")
@pytest.mark.parametrize("kind", KINDS)
def test_a_libos_process_is_shut_in_inside_a_chroot_too(preload: None, tmp_path: Path, kind: str) -> None:
    (done,) = run_in_chroot(tmp_path, [[sys.executable, "-c", PROGRAM]], first=KINDS[kind].format(root=tmp_path))
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["protection"] == "full" and found["delivered"] > 0
    for line in found["mounts"]:
        _, _, _, _, where, options, *_ = line.split()
        assert "ro" in options.split(",") and not where.startswith(str(tmp_path)), "nothing of the host's tree is left"
