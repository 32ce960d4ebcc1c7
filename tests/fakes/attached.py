# SPDX-License-Identifier: MIT
"""`exonet attach` as a child process on a TAP in a namespace of the test's own, and Linux sockets on its other side."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exonet.clock import monotonic_ns
from exonet.wire.device import TUN
from exonet.wire.namespace import Namespace

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_NS = 20_000_000_000
DEVICE = "exo0"
HOST, ONE, TWO = "10.7.0.1", "10.7.0.2", "10.7.0.3"
HOST6, ONE6, TWO6 = "fd00::1", "fd00::2", "fd00::3"

#: Some systems let everybody open the device, and then no one but root have an interface of it; some do not.
NOT_PERMITTED = (
    "making or attaching it is not permitted: run as root, or give CAP_NET_ADMIN"
    if not TUN.exists() or TUN.stat().st_mode & 0o006 == 0o006
    else f"{TUN}: Permission denied; run as root"
)


class Attached:
    """A running attach. `end()` stops it once and gives its JSON; leaving the context ends it whatever happened."""

    def __init__(self, space: Namespace, directory: Path, *words: str) -> None:
        self.space = space
        self.json, self.out, self.err = (directory / name for name in ("out.json", "stdout", "stderr"))
        command = [sys.executable, "-m", "exonet.cli.main", "attach", DEVICE, "--namespace", space.name]
        command += ["--host", f"{HOST}/24", *words, "--json", str(self.json)]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)

    def children(self) -> list[int]:
        """The LibOS processes, in the order in which they were started."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def udp(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A UDP socket inside the namespace that waits a second at most."""

        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.settimeout(1)
            return made

        return self.space.call(make)

    def echoed(self, data: bytes, address: str, family: socket.AddressFamily = socket.AF_INET) -> bytes | None:
        """What comes back from the echo port; None: nothing, within a second."""
        with self.udp(family) as client:
            try:
                client.sendto(data, (address, 7))
                return client.recv(65536)
            except OSError:
                return None

    def await_answers(self, *addresses: str) -> None:
        """Asks each address until it answers: then everything is up. An event, not a guess."""
        end = monotonic_ns() + PATIENCE_NS
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            while self.process.poll() is None and self.echoed(b"?", address, family) != b"?":
                assert monotonic_ns() < end, f"{address} never answered: {self.said()}"
            assert self.process.poll() is None, self.said()

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program inside the namespace."""
        line = ["ip", "netns", "exec", self.space.name, *command]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    def ping(self, address: str, *words: str) -> str:
        """What ping says at its end; it must have lost nothing.

        Once anything has come back, ping waits for the last answer the longest round trip twice or its interval,
        whatever -W says: on a busy machine the interval must not be a few milliseconds.
        """
        done = self.inside("ping", "-n", "-q", "-W", "5", *words, address)
        assert done.returncode == 0 and " 0% packet loss" in done.stdout, done.stdout + done.stderr
        return done.stdout

    def ping_burst(self, address: str, count: int, *words: str) -> str:
        """So many pings at once (-l), and five seconds for all answers: the interval, see `ping`. It ends with the
        last answer.
        """
        return self.ping(address, "-c", str(count), "-l", str(count), "-i", "5", *words)

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def end(self, number: signal.Signals | None = signal.SIGINT, code: int = 130) -> dict[str, Any]:
        """Ends the run (None: waits for its own end), checks the exit code and the balance, and gives the JSON."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.wait(30) == code, self.said()
        assert "Traceback" not in self.said()
        told: dict[str, Any] = json.loads(self.json.read_text())
        ledger = told["ledger"]
        ends = ledger["delivered"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
        assert ledger["offered"] + ledger["copies"] == ends and "balanced" in self.said()
        return told

    def gone(self) -> bool:
        """Is the device gone from the namespace?"""
        return DEVICE not in self.inside("ip", "-o", "link", "show").stdout


@contextmanager
def attached(space: Namespace, directory: Path, *words: str) -> Iterator[Attached]:
    run = Attached(space, directory, *words)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()


def unique_name(what: str) -> str:
    return f"exo{what}-{os.getpid()}"
