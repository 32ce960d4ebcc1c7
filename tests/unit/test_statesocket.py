# SPDX-License-Identifier: MIT
"""The state socket by itself: its protocol, its file, and clients that mean no good. Steps are made by hand."""

import inspect
import itertools
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from exonet.errors import RunError
from exonet.kernel import statesocket
from exonet.kernel.statesocket import (
    CHUNK,
    CLIENTS,
    OVERRIDE,
    REQUEST,
    SHARE_NS,
    SILENCE_NS,
    WINDOW_NS,
    Row,
    StateSocket,
)

ROWS = [{"n": n} for n in range(3)]


class Time:
    """The clock of the module under test: each look at it takes `step` ns."""

    def __init__(self) -> None:
        self.now = 10**12
        self.step = 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(statesocket, "monotonic_ns", made)
    return made


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "run"))
    return tmp_path / "run"


def endless() -> Iterator[Row]:
    return ({"n": n, "text": "x" * 1000} for n in itertools.count())


def failing() -> Iterator[Row]:
    yield {"n": 0}
    raise ValueError("a row that cannot be")


@pytest.fixture
def state(directory: Path, time: Time) -> Iterator[StateSocket]:
    topics = {
        "few": lambda: iter([None, *ROWS, None]),
        "none": lambda: iter(()),
        "endless": endless,
        "failing": failing,
        "breath": lambda: itertools.repeat(None),
    }
    with StateSocket(topics) as made:
        yield made


def connect(state: StateSocket, sent: bytes = b"") -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(os.fspath(state.path))
    client.setblocking(False)
    client.send(sent)
    return client


def steps(state: StateSocket, number: int = 5) -> None:
    for _ in range(number):
        state.serve()


def received(client: socket.socket) -> bytes:
    found = b""
    try:
        while got := client.recv(65536):
            found += got
    except (BlockingIOError, ConnectionResetError):
        pass
    return found


def answer(state: StateSocket, request: bytes) -> list[dict[str, Any]]:
    with connect(state, request) as client:
        steps(state)
        return [json.loads(line) for line in received(client).splitlines()]


def is_dropped(client: socket.socket) -> bool:
    try:
        return client.recv(1 << 20, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def clients(state: StateSocket) -> int:
    return int(state.describe()["clients"])


# Protocol


def test_a_topic_is_answered_row_by_row(state: StateSocket) -> None:
    head = {"exonet": 1, "topic": "few", "pid": os.getpid()}
    assert answer(state, b"few\n") == [head, *ROWS, {"rows": 3}]
    assert answer(state, b"none\r\n")[1:] == [{"rows": 0}]
    assert clients(state) == 0


def test_a_request_in_pieces(state: StateSocket) -> None:
    with connect(state, b"f") as client:
        for piece in (b"e", b"w", b"\n"):
            steps(state)
            client.send(piece)
        steps(state)
        assert received(client).count(b"\n") == 5


def test_nothing_is_readable_when_there_is_nothing_to_do(state: StateSocket) -> None:
    import select

    ready = select.select([state.fileno()], [], [], 0)[0]
    assert ready == []
    with connect(state, b"few\n"):
        assert select.select([state.fileno()], [], [], 0)[0]
        steps(state)
        assert not select.select([state.fileno()], [], [], 0)[0]


# Clients that mean no good


@pytest.mark.parametrize("request_", [b"fly\n", b"\n", b"\xff\xfe\0\n", b'{"show": "few"}\n', b"few few\n", b"../x\n"])
def test_nonsense_gets_one_error(state: StateSocket, request_: bytes) -> None:
    (row,) = answer(state, request_)
    assert "there is none such; there are few, none" in row["error"]
    assert clients(state) == 0


@pytest.mark.parametrize("size", [REQUEST + 1, 100_000])
def test_a_request_without_end_gets_one_error(state: StateSocket, size: int) -> None:
    (row,) = answer(state, b"f" * size)
    assert row == {"error": f"a request is one line of at most {REQUEST} bytes"}
    assert clients(state) == 0


def test_one_that_goes_before_or_after_its_request(state: StateSocket) -> None:
    for sent in (b"", b"fe", b"few\n", b"endless\n"):
        connect(state, sent).close()
        steps(state, 20)
    with connect(state, b"endless\n") as client:
        state.serve()
        client.recv(100)
    steps(state, 20)
    assert clients(state) == 0
    assert len(answer(state, b"few\n")) == 5


def test_one_that_only_closes_its_sending_side_gets_its_answer(state: StateSocket) -> None:
    with connect(state, b"few\n") as client:
        client.shutdown(socket.SHUT_WR)
        steps(state)
        assert received(client).endswith(b'{"rows": 3}\n')


def test_a_silent_one_is_dropped(state: StateSocket, time: Time) -> None:
    with connect(state) as client:
        steps(state)
        assert clients(state) == 1
        time.now += SILENCE_NS + 1
        steps(state)
        assert clients(state) == 0 and is_dropped(client)


def test_one_that_does_not_read_costs_a_bounded_buffer_and_is_dropped(state: StateSocket, time: Time) -> None:
    with connect(state, b"endless\n") as client:
        steps(state, 2000)
        (held,) = state._clients.values()
        assert len(held.out) < CHUNK + 2000
        time.now += SILENCE_NS + 1
        steps(state)
        assert clients(state) == 0
        assert b'"rows"' not in received(client)


def test_one_that_reads_for_ever_is_dropped(state: StateSocket, time: Time) -> None:
    with connect(state, b"endless\n") as client:
        for _ in range(200):
            steps(state)
            received(client)
            time.now += SILENCE_NS // 2
        assert clients(state) == 0


def test_many_silent_ones_do_not_keep_others_out(state: StateSocket) -> None:
    crowd = [connect(state) for _ in range(CLIENTS)]
    steps(state, 10)
    assert clients(state) == CLIENTS
    assert len(answer(state, b"few\n")) == 5
    assert is_dropped(crowd[0]) and not is_dropped(crowd[-1]), "the oldest goes"
    for client in crowd:
        client.close()


def test_many_that_ask_have_their_places(state: StateSocket) -> None:
    crowd = [connect(state, b"endless\n") for _ in range(CLIENTS)]
    steps(state, 30)
    with connect(state, b"few\n") as late:
        steps(state)
        assert is_dropped(late) and clients(state) == CLIENTS
    for client in crowd:
        client.close()


def test_a_row_that_fails_ends_the_answer_and_nothing_else(state: StateSocket) -> None:
    rows = answer(state, b"failing\n")
    assert rows[1:] == [{"n": 0}, {"error": "ValueError: a row that cannot be"}]
    assert len(answer(state, b"few\n")) == 5


def test_a_step_ends_in_time_and_a_window_has_its_share(state: StateSocket, time: Time) -> None:
    """Rows that never come: work for ever, were it not for the clock."""
    time.step = 10_000
    with connect(state, b"breath\n"):
        state.serve()
        for _ in range(SHARE_NS // statesocket.STEP_NS + 10):
            begin = time.now
            state.serve()
            assert time.now - begin < statesocket.STEP_NS + 20 * time.step
            if state.resting:
                break
        assert state.resting
        spent = time.now
        state.serve()
        assert state.resting and time.now - spent < 3 * time.step, "it rests until the window is over"
        time.now += WINDOW_NS
        state.serve()
        assert not state.resting


# The file


def test_the_socket_is_for_its_owner_alone_and_goes_at_the_end(state: StateSocket, directory: Path) -> None:
    assert state.path == directory / f"{os.getpid()}.sock"
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == [state.path]
    state.close()
    state.close()
    assert list(directory.iterdir()) == []


def test_the_umask_cannot_open_it(directory: Path) -> None:
    old = os.umask(0)
    try:
        with StateSocket({}) as state:
            assert stat.S_IMODE(state.path.stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_two_machines_of_a_process(state: StateSocket, directory: Path) -> None:
    with StateSocket({}) as other:
        assert other.path == directory / f"{os.getpid()}-2.sock"
    assert list(directory.iterdir()) == [state.path]


def test_what_a_killed_machine_left_is_removed_and_nothing_else(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    left, file = directory / "4711.sock", directory / "notes.txt"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(left))
    file.write_text("mine")
    with StateSocket({}) as state, StateSocket({}) as other:
        assert not left.exists() and file.exists()
        assert state.path.exists() and other.path.exists(), "a live one stays"


def interrupted(at: int) -> bool:
    """Opens and closes a socket, with Ctrl-C at the `at`-th line that the module comes to. False where it has fewer."""
    lines = itertools.count()
    came = False

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal came
        if frame.f_code.co_filename != statesocket.__file__ or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return None  # what is raised while a generator is closed goes no further
        if event == "line" and next(lines) == at:
            came = True
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        StateSocket({}).close()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return came


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_left_wherever_an_interrupt_comes(directory: Path) -> None:
    """While the socket gets its name, before anybody holds it, and while it goes."""
    at = 0
    while interrupted(at):
        assert not directory.exists() or list(directory.iterdir()) == [], f"line {at}"
        at += 1
    assert at > 40


def test_a_socket_that_took_its_name_is_not_removed(directory: Path) -> None:
    with StateSocket({}) as state:
        state.path.unlink()
        state.path.write_text("somebody else's")
    assert state.path.read_text() == "somebody else's"


@pytest.mark.parametrize("kind", ["writable", "file", "link", "absent", "long"])
def test_a_directory_that_cannot_be_trusted_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("x" * 120 if kind == "long" else "run")
    if kind == "writable":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "file":
        place.write_text("")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "absent":
        place = place / "below"
    monkeypatch.setenv(OVERRIDE, str(place))
    with pytest.raises(RunError, match="no socket for exonet show"):
        StateSocket({})
