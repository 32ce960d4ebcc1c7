# SPDX-License-Identifier: MIT
"""Bad command lines and bad surroundings: one clear line, the right exit code, no traceback, no hang, nothing left."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACE = str(ROOT / "captures" / "udp-64.pcap")
COMMAND = [sys.executable, "-m", "exonet.cli.main"]
REPLAY = ["replay", TRACE, "--speed", "max"]
DEEP = "(" * 10000 + "ip" + ")" * 10000


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([*COMMAND, *arguments], text=True, timeout=40, cwd=ROOT, check=False, **options)


MISTAKES = [
    (["--bind", "a=ip host 10.0.0.1", "--bind", "b=tcp port 80"], "overlap and neither is inside the other"),
    (["--bind", "a=ip", "--bind", "b=ip"], "binding b ('ip'): binding a ('ip') holds the very same frames"),
    (["--bind", f"a={'not ' * 3000}ip"], "has 12,002 characters; at most 1,024"),
    (["--bind", f"a={DEEP}"], "at most 1,024"),
    (["--bind", "a=ip", "--include", DEEP], "parse filter expression"),
    (["--bind", "a=ip", "--include", "foo bar"], "--include: filter"),
    (
        ["--bind", "a=ip", "--exclude", "Tcp.dport == 70000"],
        '--exclude: filter "Tcp.dport == 70000": Tcp.dport 70000: must be 0..65535',
    ),
    (["--bind", "a=inbound"], 'filter "inbound": it takes nothing'),
    (["--bind", "a=ip", "--bind", "a=inbound"], 'filter "inbound": it takes nothing'),
    (["--bind", "a=host localhost"], "'localhost' is a name: addresses must be given as numbers"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_the_callers_mistake_is_one_short_line_and_exit_2(arguments: list[str], says: str) -> None:
    done = run(*REPLAY, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and len(done.stderr) < 1000
    assert says in done.stderr


def test_r04_the_narrower_binding_wins_in_whatever_order_they_are_named() -> None:
    bindings = ["--bind", "narrow=udp dst port 53", "--bind", "wide=udp"]
    for order in (bindings, bindings[2:] + bindings[:2]):
        done = run(*REPLAY, "--clock", "virtual", *order)
        assert done.returncode == 0, done.stderr


def test_include_and_exclude_take_either_language() -> None:
    told = [run(*REPLAY, "--bind", "a=ip", "--clock", "virtual", option, text).stdout.splitlines()[:4]
            for option in ("--include", "--exclude") for text in ("udp dst port 7", "Udp.dport == 7")]  # fmt: skip
    assert told[0] == told[1] != told[2] == told[3]


def close_all() -> None:
    import os

    for number in (0, 1, 2):
        os.close(number)


@pytest.mark.parametrize("close", [None, close_all], ids=["full", "closed"])
def test_standard_output_that_takes_nothing(close: Callable[[], None] | None) -> None:
    if close is not None:
        assert run(*REPLAY, "--bind", "a=ip", preexec_fn=close, stdout=None, stderr=None).returncode == 0
        return
    for extra in ([], ["--json", "-"]):
        with Path("/dev/full").open("w") as full:
            done = run(*REPLAY, "--bind", "a=ip", *extra, stdout=full)
        assert done.returncode == 1
        assert done.stderr == "exonet: error: standard output: No space left on device\n"


def test_sigterm_while_it_starts_is_an_interrupt() -> None:
    """The capture is a FIFO that nobody writes: it has begun and waits."""
    code = "import sys; from exonet.cli.main import main; print('on', flush=True); sys.exit(main(sys.argv[1:]))"
    arguments = ["replay", "/dev/stdin", "--bind", "a=ip"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "on\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert (process.returncode, process.stderr.read()) == (130, "exonet: interrupted\n")


BROKEN = """
class {name}:
    def __init__(self, environment, options):
        self.environment = environment
        {init}
    def step(self):
        {step}
        return False
    def deadline(self):
        return {deadline}
"""
LIBOSES = [
    ("raise ValueError('in\\ninit')", "pass", "None", 1, "ValueError: in init"),
    ("raise SystemExit(5)", "pass", "None", 1, "SystemExit: 5"),
    ("pass", "raise SystemExit(5)", "None", 1, "it raised SystemExit: 5; its packets are counted"),
    ("pass", "pass", "-5", 1, "OverflowError"),
    ("pass", "self.environment.pump()", "0", 0, ""),
    ("pass", "pass", "None", 0, ""),
]


@pytest.mark.parametrize("clock", ["virtual", "monotonic"])
@pytest.mark.parametrize("case", range(len(LIBOSES)))
def test_an_inline_libos_that_is_broken_is_one_line_and_the_run_ends(tmp_path: Path, case: int, clock: str) -> None:
    init, step, deadline, code, says = LIBOSES[case]
    text = BROKEN.format(name="Broken", init=init, step=step, deadline=deadline)
    (tmp_path / "broken_libos.py").write_text(text)
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = run(*REPLAY, "--clock", clock, "--bind", "a=ip,stack=broken_libos:Broken,inline", env=environment)
    lines = [line for line in done.stderr.splitlines() if "cost model host has no figures for" not in line]
    assert (done.returncode, len(lines)) == (code, 1 if says else 0), done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
