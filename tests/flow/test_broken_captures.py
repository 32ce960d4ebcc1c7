# SPDX-License-Identifier: MIT
"""Broken captures, loaded, streamed, from a pipe: what is whole is replayed, where it breaks is told, exit 1."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exonet.cli.main import main
from tests.fakes.captures import Ng, frame_bytes, pcap, timed

RECORDS, WHOLE = 2000, 1000
BREAK = 24 + 76 * WHOLE
WORDS = f"breaks at byte {BREAK}, after 1,000 records: record 1000 claims 4294967295 captured bytes"
EVERYTHING = ("--bind", "all=ether[0] >= 0,inline", "--clock", "virtual")
EITHER = pytest.mark.parametrize("memory", ["1GiB", "1"], ids=["loaded", "streamed"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """overwritten: record 1000 of 2000 is. first: it is the first. good: nothing is."""
    made = tmp_path_factory.mktemp("captures")
    whole = pcap(timed(RECORDS))
    (made / "good").write_bytes(whole)
    (made / "overwritten").write_bytes(whole[:BREAK] + b"\xff" * 76 + whole[BREAK + 76 :])
    (made / "first").write_bytes(whole[:24] + b"\xff" * 76 + whole[100:])
    (made / "empty").write_bytes(whole[:24])
    return made


def replayed(out: Path, capture: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["replay", str(capture), *EVERYTHING, *words, "--json", str(out)])
    told: dict[str, Any] = json.loads(out.read_text())
    return code, told


@EITHER
@pytest.mark.parametrize(
    ("words", "offered", "failed"),
    [
        ((), WHOLE, True),
        (("--speed", "max"), WHOLE, True),
        (("--speed", "max", "--loop", "3"), 3 * WHOLE, True),
        (("--speed", "x10", "--loop", "2"), 2 * WHOLE, True),
        (("--two-sided",), WHOLE, True),
        (("--include", "ether proto 0x88b5", "--exclude", "less 10"), WHOLE, True),
        (("--exclude", "ether proto 0x88b5", "--speed", "max"), WHOLE, True),
        (("--limit", str(WHOLE - 1)), WHOLE - 1, False),
        (("--limit", str(WHOLE + 1)), WHOLE, True),
        (("--limit", str(WHOLE + 1), "--loop", "2"), WHOLE + 1, True),
        (("--duration", "500us"), 500, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_replay_fails_where_it_comes_to_the_break(
    tmp_path: Path,
    folder: Path,
    memory: str,
    words: tuple[str, ...],
    offered: int,
    failed: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever ends before the break is whole; that the capture breaks is said all the same."""
    code, told = replayed(tmp_path / "out", folder / "overwritten", *words, "--memory", memory)
    assert (code, told["run"]["failed"]) == (int(failed), failed)
    assert told["ledger"]["offered"] == offered
    (note,) = told["run"]["notes"]
    assert WORDS in note and WORDS in capsys.readouterr().err
    described = told["run"]["wires"][0]["trace"]
    assert (described["records"], described["complete"], described["streamed"]) == (WHOLE, True, memory == "1")
    assert WORDS in described["broken"]


@EITHER
def test_a_capture_that_breaks_at_once_is_not_empty(
    tmp_path: Path, folder: Path, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = replayed(tmp_path / "out", folder / "first", "--memory", memory)
    assert (code, told["run"]["failed"], told["ledger"]["offered"]) == (1, True, 0)
    assert "breaks at byte 24, after 0 records" in told["run"]["notes"][0]
    assert main(["replay", str(folder / "empty"), *EVERYTHING, "--memory", memory]) == 2
    assert "holds no packets" in capsys.readouterr().err


@EITHER
@pytest.mark.parametrize("clock", ["virtual", "monotonic"])
def test_an_api_run_says_so_too(folder: Path, memory: str, clock: str) -> None:
    from exonet.clock import Clock
    from exonet.lab.plan import Plan, Settings, Tenant, TraceSource
    from exonet.lab.run import run

    source = TraceSource(path=folder / "overwritten", speed="max", memory=1 if memory == "1" else 1 << 30)
    tenant = Tenant("all", ("ether[0] >= 0",), process=False)
    result = run(Plan(source=source, tenants=(tenant,), settings=Settings(clock=Clock(clock))))
    assert result.failed and WORDS in result.notes[0] and result.ledger.delivered == WHOLE


@EITHER
@pytest.mark.parametrize(("name", "code"), [("good", 0), ("overwritten", 1), ("first", 1), ("empty", 0)])
def test_info_exits_1(folder: Path, memory: str, name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json"]):
        assert main(["info", str(folder / name), "--memory", memory, *more]) == code
        assert ("breaks at byte" in capsys.readouterr().out) == bool(code)


@EITHER
@pytest.mark.parametrize(
    ("name", "packets", "code"),
    [("good", 100, 0), ("overwritten", 100, 0), ("overwritten", 1500, 1), ("first", 100, 1)],
)
def test_drops_exits_1_and_says_it_once(
    folder: Path, memory: str, name: str, packets: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*EVERYTHING, "--rates", "1M", "--rings", "64,128", "--packets", str(packets), "--memory", memory]
    assert main(["drops", str(folder / name), *words]) == code
    assert capsys.readouterr().err.count("breaks at byte") == int(name != "good")


@pytest.mark.parametrize(
    "words", [("--speed", "x1"), ("--speed", "max", "--loop", "2", "--limit", "2500"), ("--two-sided",)]
)
def test_streamed_is_as_loaded(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a capture with all that is told: cut packets, another link type, steps back, times beyond 2262."""
    ng = Ng().section().interface(options=[(9, b"\x09")]).interface(101)
    for i in range(1500):
        ng.packet(10**18 + i - 5 * (i % 7), frame_bytes(i), wire_len=90 if i % 3 == 0 else None)
    ng.packet(2**63 + 5, frame_bytes(1)).packet(10**15 + 9, b"raw", interface=1).simple(frame_bytes(2))
    capture = tmp_path / "capture"
    capture.write_bytes(ng.out)
    told, printed, written = [], [], []
    for memory in ("1GiB", "1"):
        out, tee, fates = tmp_path / "out.pcapng", tmp_path / "tee.pcapng", tmp_path / "fates.parquet"
        code, result = replayed(out, capture, *words, "--memory", memory, "--pcap-out", str(tee), "--fates", str(fates))
        assert code == 0
        printed.append(capsys.readouterr().err)
        written.append((tee.read_bytes(), fates.read_bytes()))
        for wire in result["run"]["wires"]:
            inner = wire["inner"]["trace"] if "inner" in wire else wire["trace"]
            del inner["streamed"], inner["memory"]
        for name in ("command", "started"):
            del result["run"][name]
        for name in ("wall_s", "pps"):
            result["timing"].pop(name)
        told.append(result)
    assert told[0] == told[1]
    assert printed[0] == printed[1]
    assert written[0][1] == written[1][1]
    assert written[0][0] == written[1][0]
    assert "1 time before 1970 or after 2262-04-11" in printed[0] and "the snaplen cut 500 of" in printed[0]


@pytest.mark.parametrize("name", ["good", "overwritten"])
def test_standard_input_is_dash(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    code = int(name != "good")
    for words in (
        ["info", "-"],
        ["replay", "-", *EVERYTHING],
        ["drops", "-", *EVERYTHING, "--rates", "1M", "--rings", "64"],
    ):
        done = subprocess.run(  # our own command
            [sys.executable, "-m", "exonet.cli.main", *words], input=data, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stderr
        assert (b"breaks at byte" in done.stdout + done.stderr) == bool(code)


def test_a_long_wait_is_announced_when_it_begins(tmp_path: Path) -> None:
    capture = tmp_path / "gap"
    capture.write_bytes(pcap([(0, frame_bytes(0)), (3600 * 10**9, frame_bytes(1))]))
    words = ["replay", str(capture), "--bind", "all=ether[0] >= 0,inline"]
    command = [sys.executable, "-m", "exonet.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        first = run.stderr.readline()
        run.send_signal(2)
        _, rest = run.communicate(timeout=30)
    assert first.startswith("exonet: the next packet is due in 3600 s; --max-gap")
    assert run.returncode == 130 and "due in" not in rest
    assert main([*words, "--max-gap", "1ms"]) == 0
