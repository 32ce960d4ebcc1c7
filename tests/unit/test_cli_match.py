# SPDX-License-Identifier: MIT
"""`exonet filter match` where the demux is no help, and where the command is not what was meant."""

import pytest

from exonet.cli.common import QUOTE
from exonet.cli.main import main
from exonet.filters.libpcap import Libpcap
from exonet.filters.match import open_capture
from tests.conftest import ROOT

WEB = str(ROOT / "captures" / "web-dns.pcapng")
WORDS = " and ".join(f"ether[{4 * i}] = 1" for i in range(30))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["filter", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("exonet: error: ") and said.err.count("\n") == 1
    return said.err.rstrip()


@pytest.mark.parametrize(
    ("text", "why"), [(f"udp port 53 or ({WORDS})", "compares 30 words"), ("ip protochain 17", "loops")]
)
def test_libpcap_needs_no_conjuncts(text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not decompose is refused with that advice, and it holds."""
    for words in ((), ("--classifier", "table"), ("--check",)):
        said = refused(capsys, "match", text, WEB, *words)
        assert why in said and said.endswith("; --classifier libpcap would do, it needs no conjuncts")
    assert main(["filter", "match", text, WEB, "--count", "--classifier", "libpcap"]) == 0
    program = Libpcap().compile(text)
    with open_capture(ROOT / "captures" / "web-dns.pcapng") as trace:
        taken = sum(program.matches(frame.data, frame.wire_len) for frame in trace)
    assert int(capsys.readouterr().out) == taken > 0


@pytest.mark.parametrize("text", ["tcp and (", "Udp.dport == 70000", "Foo.bar == 5"])
def test_what_libpcap_does_not_know_either_is_refused_as_ever(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "match", text, WEB)
    assert "would do" not in said
    assert refused(capsys, "match", text, WEB, "--classifier", "libpcap") == said


@pytest.mark.parametrize("words", [("tcp", "port", "80", WEB), ("host", "10.0.0.1", WEB), ("tcp", "port", "80")])
def test_a_filter_that_is_not_quoted_is_seen(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "match", *words)
    assert said == f"exonet: error: capture {words[1]}: there is no such file; {QUOTE}"
    assert QUOTE in refused(capsys, "explain", *words[:3])


@pytest.mark.parametrize("name", ["no/such", "trace.pcap", "trace.pcapng", "trace.cap.gz", "/no"])
def test_a_capture_that_is_missing_is_no_word_of_a_filter(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert QUOTE not in refused(capsys, "match", "udp", name, WEB)
