# SPDX-License-Identifier: MIT
"""A place for live benchmarks: a namespace with a persistent TAP device, programs compiled on the fly, a machine."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exonet.errors import RunError
from exonet.hardware.nic import NicConfig
from exonet.kernel.boot import LibOSSpec, Machine, MachineConfig
from exonet.lab.bench import Context, Skip
from exonet.wire.tap import TapWire
from tests.bench.bench_build import build

DEVICE = "exo0"
HOST, ADDRESS, PORT = "10.7.0.1", "10.7.0.2", 7
SERVER_MAC = "02:00:00:00:07:02"
SPIN_FOREVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace, and the programs in it."""

    namespace: str
    work: Path

    def inside(self, *command: str) -> list[str]:
        """A command line that runs in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def client(self, seconds: float) -> list[str]:
        """The blocking 1-byte UDP client."""
        return self.inside(str(self.work / "udpping"), ADDRESS, str(PORT), f"{seconds:g}")

    def peer(self, mode: str) -> list[str]:
        """The bare C loop on the same device. `mode`: poll or sleep."""
        return self.inside(str(self.work / "tapswap"), DEVICE, mode)


def needs() -> None:
    """Skip unless TAP devices and namespaces can be made here."""
    if os.geteuid() != 0:
        raise Skip("TAP devices and network namespaces need root; run as root")
    if not Path("/dev/net/tun").exists():
        raise Skip("/dev/net/tun is missing: modprobe tun")
    if shutil.which("ip") is None:
        raise Skip("ip is not installed: apt-get install iproute2")


@contextlib.contextmanager
def place(context: Context) -> Iterator[Place]:
    """A namespace of our own with the device up in it; both are gone afterwards."""
    needs()
    for name in ("udpping", "tapswap"):
        build(context, name)
    here = Place(f"exobench-{os.getpid()}", context.work)
    _ip("netns", "add", here.namespace)
    try:
        inside = ("-n", here.namespace)
        _ip(*inside, "tuntap", "add", "dev", DEVICE, "mode", "tap")
        subprocess.run(here.inside("sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.disable_ipv6=1"), check=False)
        _ip(*inside, "address", "add", f"{HOST}/24", "dev", DEVICE)
        _ip(*inside, "link", "set", DEVICE, "up")
        # The C loop answers no ARP; with this entry it and the LibOS have the same to do.
        _ip(*inside, "neighbour", "replace", ADDRESS, "lladdr", SERVER_MAC, "dev", DEVICE, "nud", "permanent")
        yield here
    finally:
        _ip("netns", "delete", here.namespace)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def echo_machine(here: Place, seed: int, *, process: bool, spin_ns: int) -> Iterator[tuple[Machine, Any]]:
    """A machine on the device with the echo LibOS; gives (machine, environment)."""
    spec = LibOSSpec("echo", libos="echo", addresses=(f"{ADDRESS}/24",), process=process)
    with (
        TapWire(DEVICE, namespace=here.namespace) as wire,
        Machine(MachineConfig(seed=seed, spin_ns=spin_ns)) as machine,
    ):
        port = machine.attach(wire, NicConfig(mac=SERVER_MAC, max_frame=1522))
        yield machine, machine.spawn(spec, port)


def run_beside(machine: Machine, command: list[str]) -> str:
    """Runs the machine as long as `command` runs; what that printed. RunError where it fails."""
    ended = False
    # Into a file: nobody reads a pipe while the machine runs, and a full one would stop the command.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True) as child,
    ):

        def look(*_: object) -> None:
            nonlocal ended
            if child.poll() is not None:
                ended = True
                raise KeyboardInterrupt

        try:
            machine.run(on_progress=look)
        finally:
            child.terminate()
            child.wait()
        if not ended:
            raise KeyboardInterrupt
        said.seek(0)
        out = said.read()
        if child.returncode != 0:
            raise RunError(f"{' '.join(command[4:])}: {_last_line(out) or f'status {child.returncode}'}")
        return out


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def run_alone(server: list[str], command: list[str]) -> str:
    """Runs `command` against a server program; what it printed."""
    with subprocess.Popen(server, stderr=subprocess.PIPE, text=True) as peer:
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        finally:
            peer.terminate()
    if done.returncode != 0:
        raise RunError(f"{' '.join(command[4:])} against {' '.join(server[4:])}: {_last_line(done.stderr)}")
    return done.stdout


def round_trips(text: str) -> dict[str, float]:
    """The client's JSON. RunError where datagrams were lost."""
    result: dict[str, float] = json.loads(text)
    if result["lost"]:
        raise RunError(f"{result['lost']} of {result['round_trips']} round trips were lost")
    return result
