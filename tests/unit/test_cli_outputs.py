# SPDX-License-Identifier: MIT
"""No output destroys what is read or what another option writes, whatever it is called by. No machine runs."""

import os
import shutil
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.cli.outputs import check_outputs
from exonet.errors import UsageError
from exonet.wire.capture import Trace
from tests.conftest import ROOT

UDP = ROOT / "captures" / "udp-64.pcap"
REPLAY = ("--bind", "a=ip,inline", "--speed", "max")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return Path(shutil.copy(UDP, tmp_path / "trace.pcap"))


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("exonet: error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("exonet: error: ").rstrip()


def named(capture: Path, how: str) -> Path:
    """The capture by another name."""
    other = capture.with_name("other.pcap")
    if how == "symbolic link":
        other.symlink_to(capture.name)
    elif how == "hard link":
        other.hardlink_to(capture)
    else:
        return capture if how == "itself" else capture.parent / ".." / capture.parent.name / capture.name
    return other


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "another path"])
@pytest.mark.parametrize("option", ["--json", "--fates", "--pcap-out", "--trace"])
def test_a_replay_does_not_write_over_its_capture(
    option: str, how: str, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = named(capture, how)
    said = refused(capsys, "replay", capture, *REPLAY, option, out)
    assert said == f"{option} {out}: it is one of the captures that are read"
    assert capture.read_bytes() == UDP.read_bytes()


def test_nor_with_the_file_of_the_second_port(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = capture.rename(capture.with_name("trace-1.pcap"))
    said = refused(capsys, "replay", second, *REPLAY, "--two-sided", "--pcap-out", capture)
    assert said == f"--pcap-out {second}: it is one of the captures that are read"
    assert second.read_bytes() == UDP.read_bytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trace-2M-64-0.pcap", ["--pcap-out", "trace.pcap"]),
        ("trace-2M-64-0.pcap", ["--trace", "trace.pcap"]),
        ("drops.csv", ["--out", "."]),
        ("drops.png", ["--out", "."]),
    ],
)
def test_nor_a_sweep_with_the_files_that_it_names_itself(
    name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(UDP, name)
    said = refused(capsys, "drops", name, "--rates", "1M,2M", "--rings", "64", *words)
    assert said == f"{words[0]} {name}: it is one of the captures that are read"
    assert Path(name).read_bytes() == UDP.read_bytes()


def test_files_of_a_sweep_that_cannot_be_written_are_said_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no directory /no/such" in refused(capsys, "drops", UDP, "--pcap-out", "/no/such/x.pcap")


@pytest.mark.parametrize("first", ["--json", "--pcap-out"])
@pytest.mark.parametrize("exists", [False, True])
def test_two_outputs_are_two_files(
    first: str, exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "out", tmp_path / "link"
    if exists:
        one.touch()
    other.symlink_to(one.name)
    said = refused(capsys, "replay", UDP, *REPLAY, first, one, "--fates", other)
    option, path, own = ("--fates", other, first) if first == "--json" else (first, one, "--fates")
    assert said == f"{option} {path}: it is the file of {own}"
    attach = ("attach", "exo0", "--host", "10.7.0.1/24", "--libos", "echo@10.7.0.2")
    assert refused(capsys, *attach, first, one, "--fates", other) == said
    assert one.exists() is exists


def test_a_cost_model_that_is_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("costs.json", "host"):
        Path(name).touch()
    with pytest.raises(UsageError, match=r"^--json costs\.json: it is the file of --costs$"):
        check_outputs([("--json", "costs.json")], costs="costs.json")
    check_outputs([("--json", "host")], costs="host")


def test_what_is_no_file_may_be_given_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for twice in ("/dev/null", pipe):
        check_outputs([("--json", twice), ("--trace", twice)], [Path(twice)])


@pytest.mark.parametrize("option", ["--fates", "--pcap-out", "--trace", "--out"])
def test_only_the_json_goes_to_standard_output(option: str) -> None:
    check_outputs([("--json", "-")])
    with pytest.raises(UsageError, match=f"^{option} -: it does not go to standard output: name a file$"):
        check_outputs([(option, Path("-"))])


def test_an_output_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    check_outputs([("--json", tmp_path / "out.json"), ("--fates", None)])
    with pytest.raises(UsageError, match="cannot be written there"):
        check_outputs([("--json", tmp_path)])


def test_links_that_lead_nowhere_are_no_traceback(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop.name)
    with pytest.raises(UsageError, match="the file of --json"):
        check_outputs([("--json", loop), ("--trace", loop)])


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--fates", "x.txt", '".txt" is not known; end it with .parquet or .csv'),
        ("--fates", "x", "it says no format; end it with .parquet or .csv"),
        ("--fates", "x.csv.gz", "end it with .parquet or .csv, and compress it afterwards"),
        ("--pcap-out", "x.cap", '".cap" is not known; end it with .pcapng or .pcap'),
        ("--pcap-out", "x.pcap.gz", "and compress it afterwards"),
    ],
)
def test_a_suffix_that_nobody_knows_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str, told: str
) -> None:
    assert told in refused(capsys, "replay", UDP, *REPLAY, option, tmp_path / name)
    if option == "--pcap-out":
        assert told in refused(capsys, "drops", UDP, "--rates", "1M", option, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_matches_go_to_pcapng(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "end it with .pcapng" in refused(capsys, "filter", "match", "udp", UDP, "--out", tmp_path / "x.pcap")


def test_what_a_file_is_called_is_what_it_is(tmp_path: Path) -> None:
    heads = {"--fates": {"a.parquet": b"PAR1", "a.csv": b'"index"'}}
    heads["--pcap-out"] = {"a.pcapng": b"\x0a\x0d\x0d\x0a", "a.pcap": b"\x4d\x3c\xb2\xa1"}
    for first, second in (("a.parquet", "a.pcapng"), ("a.csv", "a.pcap")):
        words = ["replay", str(UDP), "--bind", "a=udp,inline", "--clock", "virtual", "--limit", "5"]
        assert main([*words, "--fates", str(tmp_path / first), "--pcap-out", str(tmp_path / second)]) == 0
    for files in heads.values():
        for name, head in files.items():
            assert (tmp_path / name).read_bytes().startswith(head)
    pairs = [list(Trace.load(tmp_path / name)) for name in ("a.pcapng", "a.pcap")]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 5
