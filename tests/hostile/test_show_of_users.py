# SPDX-License-Identifier: MIT
"""Root's `exonet show` of other users' machines: it sees them, and what only looks like one does it no harm."""

import json
import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.errors import RunError
from exonet.kernel import statesocket
from exonet.kernel.statesocket import OVERRIDE, StateSocket
from exonet.lab import machines, others
from exonet.lab.machines import running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot become somebody else")
USER, OTHER = 23456, 23457
ROW = {"binding": 7, "owner": "web", "env": 1, "port": 0, "conjuncts": 4, "shapes": 4, "native": 0, "capability": 3,
       "delivered": 5, "filter": "tcp port 80", "snoop": False}  # fmt: skip


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What stands for /tmp: anybody may make names in it."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o1777)
    (made / "user").mkdir()
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setattr(statesocket, "TEMPORARY", made)
    monkeypatch.setattr(others, "TEMPORARY", made)
    monkeypatch.setattr(others, "SESSIONS", made / "user")
    monkeypatch.setattr(machines, "directories", lambda: (made / "own",))
    yield made
    shutil.rmtree(made)


def place_of(temporary: Path, user: int = USER, owner: int = USER, mode: int = 0o700) -> Path:
    made = temporary / f"exonet-{user}"
    made.mkdir()
    os.chown(made, owner, owner)
    made.chmod(mode)
    return made


@contextmanager
def someone(does: Callable[[Callable[[], None]], None], user: int = USER) -> Iterator[str]:
    """A process of the user's, by its number; `does` gets what is to be called when it listens, and then goes on."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            does(lambda: os.close(writing) if os.write(writing, b"!") else None)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"!"
        yield str(pid)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def machine_in(directory: Path) -> Callable[[Callable[[], None]], None]:
    """A whole one: the socket that a run opens."""

    def does(listens: Callable[[], None]) -> None:
        os.environ[OVERRIDE] = str(directory)
        with StateSocket({"bindings": lambda: iter([ROW])}) as state:
            listens()
            while True:
                select.select([state.fileno()], [], [])
                state.serve()

    return does


def saying(directory: Path, reply: bytes = b"", name: str = "") -> Callable[[Callable[[], None]], None]:
    """What answers anything so, by the name that is expected of it or another."""

    def does(listens: Callable[[], None]) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(directory / f"{name or os.getpid()}.sock"))
            listener.listen(8)
            listens()
            while True:
                asked, _ = listener.accept()
                with asked:
                    if asked.recv(100):
                        asked.sendall(reply)

    return does


def seen() -> list[tuple[str, int | None]]:
    return [(machine.name, machine.user) for machine in running()[0]]


@pytest.mark.parametrize("session", [False, True])
def test_root_is_shown_what_users_run(session: bool, temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = place_of(temporary)
    if session:
        (temporary / "user" / str(USER)).mkdir()
        place = place.rename(temporary / "user" / str(USER) / "exonet")
    with someone(machine_in(place)) as name:
        assert seen() == [(name, USER)]
        assert main(["show", "bindings", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"pid": int(name), "machine": name, "bindings": [ROW]}
        assert main(["show", "bindings", "--pid", name]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith("tcp port 80")
    assert seen() == [], "what a killed one left"


def test_users_are_not_shown_what_others_run(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with someone(machine_in(place_of(temporary))):
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
        assert seen() == []


@pytest.mark.parametrize("kind", ["another's", "writable", "link", "file", "pipe"])
def test_a_directory_that_is_not_the_users_alone(kind: str, temporary: Path) -> None:
    place = place_of(temporary)
    with someone(machine_in(place)) as name:
        assert seen() == [(name, USER)]
        if kind == "another's":
            place.rename(temporary / f"exonet-{OTHER}")
        elif kind == "writable":
            place.chmod(0o777)
        else:
            moved = place.rename(temporary / "moved")
            if kind == "link":
                place.symlink_to(moved)
            elif kind == "pipe":
                os.mkfifo(place)
            else:
                place.touch()
        assert seen() == []


@pytest.mark.parametrize("kind", ["link", "file", "another's", "name"])
def test_a_socket_that_is_not_what_its_name_says(kind: str, temporary: Path) -> None:
    place, elsewhere = place_of(temporary), temporary / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    owner = OTHER if kind == "another's" else USER
    with someone(saying(elsewhere, name="1" if kind == "name" else ""), owner) as name:
        made = elsewhere / f"{1 if kind == 'name' else name}.sock"
        if kind == "link":
            (place / made.name).symlink_to(made)
        elif kind == "file":
            (place / made.name).touch()
            os.chown(place / made.name, USER, USER)
        else:
            made.rename(place / made.name)
        assert seen() == []
        if kind == "another's":
            os.chown(place / made.name, USER, USER)
            assert seen() == [], "the kernel knows who listens"


def test_nobody_takes_the_name_of_ours(temporary: Path) -> None:
    own = temporary / "own"
    own.mkdir(mode=0o700)
    with someone(machine_in(place_of(temporary))) as name, socket.socket(socket.AF_UNIX) as ours:
        ours.bind(os.fspath(own / f"{name}.sock"))
        ours.listen(8)
        assert seen() == [(name, None)]


HEAD = b'{"exonet": 1}\n'


@pytest.mark.parametrize(
    ("topic", "reply"),
    [
        ("bindings", b"[" * 100_000 + b"\n"),
        ("bindings", HEAD + b"x" * 10_000),
        ("bindings", HEAD + b'{"a": 1}\n' * 10_000),
        ("bindings", HEAD + b'{"binding": 1}\n{"rows": 1}\n'),
        ("bindings", HEAD + b'{"rows": 0}'),
        ("bindings", b'{"error": "\\u001b[2J"}\n'),
        ("machine", HEAD + b'{"rows": 0}\n'),
        ("machine", HEAD + b'{"command": 5}\n{"rows": 1}\n'),
        ("capabilities", HEAD + b'{"rights": 5}\n{"rows": 1}\n'),
    ],
)
def test_an_answer_that_means_harm_is_one_line(
    topic: str, reply: bytes, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machines, "MOST_BYTES", 50_000)
    monkeypatch.setattr(machines, "MOST_OF_LINE", 5_000)
    with someone(saying(place_of(temporary), reply)) as name:
        assert main(["show", topic]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"exonet: error: machine {name}: ") and said.err.count("\n") == 1
    assert "\x1b" not in said.err


def test_an_answer_without_end_ends_in_time(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "LONGEST_NS", 0)
    with someone(saying(place_of(temporary), HEAD)):
        (machine,) = running()[0]
        with pytest.raises(RunError, match="it takes more than 0 s"):
            machine.ask("bindings")
