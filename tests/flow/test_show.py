# SPDX-License-Identifier: MIT
"""`exonet show` and a machine that runs: a replay that never ends, as a child process, and clients of every kind."""

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

import pytest

from exonet.cli.main import main
from exonet.cli.show import COLUMNS, TOPICS, printable
from exonet.clock import Clock, monotonic_ns
from exonet.errors import RunError, UsageError
from exonet.filters.native import available
from exonet.kernel.boot import Machine, MachineConfig
from exonet.kernel.statesocket import OVERRIDE
from exonet.lab import machines
from exonet.lab.machines import running
from tests.conftest import ROOT

PATIENCE_NS = 20_000_000_000
BINDINGS = ("--bind", "web=tcp port 80", "--bind", "dns=udp port 53")


class Replay:
    """A replay of the shipped trace at its own speed, again and again."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.json = directory.parent / "out.json"
        self.err = directory.parent / "err"
        command = [sys.executable, "-m", "exonet.cli.main", "replay", str(ROOT / "captures" / "web-dns.pcapng")]
        command += [*BINDINGS, "--loop", "0", "--speed", "x1", "--json", str(self.json), *words]
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=err)
        self.path = directory / f"{self.process.pid}.sock"
        end = monotonic_ns() + PATIENCE_NS
        while not self.path.exists():
            assert monotonic_ns() < end and self.process.poll() is None, self.err.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM, code: int = 130) -> dict[str, Any]:
        self.process.send_signal(number)
        assert self.process.wait(30) == code, self.err.read_text()
        told: dict[str, Any] = json.loads(self.json.read_text()) if self.json.exists() else {}
        return told


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "run"))
    return tmp_path / "run"


@contextmanager
def replayed(directory: Path, *words: str) -> Iterator[Replay]:
    run = Replay(directory, *words)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["show", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def rows(capsys: pytest.CaptureFixture[str], topic: str, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shown(capsys, topic, "--json", *words))[topic]
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(["show", *words]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("exonet: error: ") and said.err.count("\n") == 1
    return said.err


def test_every_topic_of_a_running_machine(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with replayed(directory) as run:
        web, dns = rows(capsys, "bindings")
        assert (web["owner"], web["filter"], web["conjuncts"], web["port"]) == ("web", "tcp port 80", 4, 0)
        assert (dns["owner"], dns["filter"], dns["shapes"], dns["snoop"]) == ("dns", "udp port 53", 4, False)
        assert web["capability"] != dns["capability"] and web["delivered"] is not None
        end = monotonic_ns() + PATIENCE_NS
        while available() and any(row["native"] < row["shapes"] for row in rows(capsys, "bindings")):
            assert monotonic_ns() < end, "the shapes were never compiled"
        assert len(rows(capsys, "shapes")) == 8
        assert {row["name"] for row in rows(capsys, "environments")} == {"web", "dns"}
        assert all("token" not in row for row in rows(capsys, "capabilities"))
        (machine,) = rows(capsys, "machine")
        assert machine["bindings"] == 2 and machine["command"][1] == "replay" and machine["running_ns"] > 0
        for topic in TOPICS:
            text = shown(capsys, topic)
            assert text and "None" not in text, topic
        header, *lines = shown(capsys, "bindings").splitlines()
        assert header.split()[:2] == ["binding", "owner"] and len(lines) == 2
        assert lines[0].endswith("tcp port 80")
        told = run.end()
    assert told["run"]["interrupted"] and not told["run"]["failed"]
    assert list(directory.iterdir()) == []
    assert "no machine runs" in refused(capsys, "bindings")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_removes_the_socket(number: signal.Signals, directory: Path) -> None:
    with replayed(directory) as run:
        run.end(number)
        assert list(directory.iterdir()) == []


def test_what_a_kill_leaves_is_not_shown_and_the_next_one_removes_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with replayed(directory) as run:
        run.end(signal.SIGKILL, -signal.SIGKILL)
        assert run.path.exists()
        assert "no machine runs" in refused(capsys, "machine")
    with replayed(directory) as second:
        assert not run.path.exists()
        assert rows(capsys, "machine")
        second.end()


def test_one_of_two_is_chosen(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with replayed(directory) as one, replayed(directory) as two:
        pids = sorted((one.process.pid, two.process.pid))
        assert refused(capsys, "bindings").endswith(f"choose one with --pid: {pids[0]}, {pids[1]}\n")
        assert json.loads(shown(capsys, "machine", "--json", "--pid", str(pids[1])))["pid"] == pids[1]
        assert "--pid 1: no such machine runs" in refused(capsys, "bindings", "--pid", "1")


def test_hostile_clients_harm_neither_the_run_nor_another_client(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence, garbage, floods, readers that do not read, early ends: the run loses nothing, and show is answered."""
    with replayed(directory) as run:
        kept = []
        for round_ in range(30):
            for sent in (b"", b"\xff" * 200, b"x" * 100_000, b"bindings\n", b"bindings\n" * 50, b"\0\n"):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                client.settimeout(10)
                try:
                    client.connect(os.fspath(run.path))
                    client.send(sent)
                except (BrokenPipeError, ConnectionResetError):
                    client.close()
                    continue
                if round_ % 2:
                    client.close()
                else:
                    kept.append(client)
            assert len(rows(capsys, "bindings")) == 2, round_
        for client in kept:
            client.close()
        told = run.end()
    ledger = told["ledger"]
    assert not told["run"]["failed"]
    nobodys = {"demux.no_match", "demux.no_subscriber", "demux.no_neighbour"}
    assert set(ledger["dropped"]) <= nobodys, "nothing was lost"
    ends = ledger["delivered"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    assert ledger["offered"] + ledger["copies"] == ends


def test_a_run_without_a_directory_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "no" / "such"))
    command = [sys.executable, "-m", "exonet.cli.main", "replay", str(ROOT / "captures" / "udp-64.pcap"), "--bind"]
    done = subprocess.run([*command, "a=ip", "--speed", "max"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "balanced" in done.stdout
    assert "no socket for exonet show" in done.stderr


def test_a_virtual_machine_is_not_shown(directory: Path) -> None:
    with (
        Machine(MachineConfig(clock=Clock.VIRTUAL)) as machine,
        pytest.raises(UsageError, match="virtual clock cannot be shown"),
    ):
        machine.show()
    command = [sys.executable, "-m", "exonet.cli.main", "replay", str(ROOT / "captures" / "udp-64.pcap"), "--bind"]
    subprocess.run([*command, "a=ip", "--clock", "virtual"], cwd=ROOT, capture_output=True, check=True)
    assert not directory.exists()


def test_a_machine_that_does_not_answer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something listens and says nothing, or no JSON, or half an answer."""
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(machines, "PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(directory / "99.sock"))
        listener.listen(8)
        ((machine,), _) = running()
        with pytest.raises(RunError, match="machine 99: no answer within"):
            machine.ask("bindings")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "does not answer"),
        (b"hello\n", "does not answer"),
        (b"[1]\n", "no reply of a machine"),
        (b'{"exonet": 1}\n{"binding": 1}\n', "it ended before its answer did"),
        (b'{"exonet": 1}\n{"binding": 1}\n{"rows": 7}\n', "it ended before its answer did"),
        (b'{"error": "no"}\n', "machine 99: no"),
    ],
)
def test_answers_that_are_none(reply: bytes, message: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()

    class Connected:
        """A socket that is connected to the other end of a pair, whatever path it is given."""

        def __init__(self, *arguments: int) -> None:
            theirs.sendall(reply)
            theirs.shutdown(socket.SHUT_WR)

        def __enter__(self) -> "Connected":
            return self

        def __exit__(self, *arguments: object) -> None:
            ours.close()
            theirs.close()

        def connect(self, path: str) -> None: ...

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

    monkeypatch.setattr(machines.socket, "socket", Connected)
    with pytest.raises(RunError, match=message):
        machines.Machine("99", 99, directory / "99.sock").ask("bindings")


def test_what_a_libos_names_cannot_move_the_cursor() -> None:
    assert printable("web\x1b[2J\n") == "web\\x1b[2J\\x0a"
    assert printable(1234567) == "1,234,567" and printable(None) == "-"
    assert set(COLUMNS) | {"machine"} == set(TOPICS)


@pytest.mark.parametrize("words", [(), ("everything",), ("bindings", "more"), ("bindings", "--pid")])
def test_bad_words(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, *words)
