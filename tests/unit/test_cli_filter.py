# SPDX-License-Identifier: MIT
"""`exonet filter explain` and `match`: what they print, who answers, and what they say of bad input."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dpkt
import pytest

from exonet.cli.filter import lines, refusals
from exonet.cli.main import main
from exonet.errors import MissingError, UsageError
from exonet.filters import classifier as classifiers
from exonet.filters import native
from exonet.filters.classifier import Kind, classifier
from exonet.filters.compile import compile_filter
from exonet.filters.explain import Explanation
from exonet.filters.libpcap import Libpcap
from exonet.filters.match import Matched, disagreement, matching, open_capture
from exonet.filters.native import available
from exonet.wire.capture import Trace
from exonet.wire.pcapng import PcapngFile
from exonet.wire.summary import summary
from tests.conftest import ROOT

WEB = ROOT / "captures" / "web-dns.pcapng"
VLAN = ROOT / "captures" / "vlan.pcap.gz"
needs_llvmlite = pytest.mark.skipif(not available(), reason="needs llvmlite")


@pytest.fixture
def no_llvmlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    native._llvm.cache_clear()
    for name in ("llvmlite", "llvmlite.binding"):
        monkeypatch.setitem(sys.modules, name, None)
    yield
    native._llvm.cache_clear()


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["filter", *words]) == code
    return capsys.readouterr().out


def told_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(capsys, *words, "--json"))
    return found


# explain


def test_explain_names_conjuncts_and_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "explain", "dst host 10.0.0.1 and tcp dst port 80")
    assert "1 conjunct in 1 shape" in out
    assert "85 bits" in out and "ip.dst == 10.0.0.1, tcp.dport == 80" in out
    assert "shape 1: IPv4, TCP, no later fragment" in out
    assert "key        ip.dst, tcp.dport (2 loads: frame[30:4], payload[2:2])" in out
    assert "guards     34 bytes; 4 bytes after the IPv4 header at 14" in out


def test_explain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = told_json(capsys, "explain", "udp port 53 or udp port 67")
    assert found["pcap_filter"] == "udp port 53 or udp port 67" and found["refused"] == []
    assert [len(shape["conjuncts"]) for shape in found["shapes"]] == [2, 2, 2, 2], "values only: the same shapes"
    assert {row["shape"] for row in found["conjuncts"]} == {1, 2, 3, 4}
    assert [row["number"] for row in found["conjuncts"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [shape["number"] for shape in found["shapes"]] == [1, 2, 3, 4], "as in the text"
    for shape in found["shapes"]:
        assert all(found["conjuncts"][each - 1]["shape"] == shape["number"] for each in shape["conjuncts"])
    assert {shape["dispatch"] for shape in found["shapes"]} == {"IPv4, UDP, no later fragment", "IPv6, UDP"}
    assert found["compiles"] == (4 if available() else 0)


@needs_llvmlite
@pytest.mark.parametrize(
    ("text", "count"), [("arp", "1 shape"), ("ip or arp", "2 shapes"), ("udp port 53", "4 shapes")]
)
def test_what_a_bind_compiles_is_said_and_is_what_the_json_says(
    text: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [line for line in told(capsys, "explain", text).splitlines() if "compiles" in line]
    assert said == [
        f"  the first bind on a machine compiles {count}, off the packet path; "
        "where shapes are known a bind compiles nothing"
    ]
    found = told_json(capsys, "explain", text)
    assert f"{found['compiles']} shape" in said[0] and found["compiles"] == len(found["shapes"])


def test_explain_of_an_expression_shows_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "explain", "Udp.dport == 53")
    assert out.startswith("Udp.dport == 53\n  as pcap-filter: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arp", "ARP; key empty"),
        ("net 10.0.0.0/8 and ip", "IPv4; key empty; interval of ip.dst"),
        ("ether dst 02:00:00:00:00:01", "every ethertype; key eth.dst"),
        ("vlan 5", "802.1Q tag; key vlan.id"),
        ("ether proto 0x88cc", "an ethertype that is in the key; key eth.type"),
        ("ip and not udp", "IPv4; key empty; but for values of ip.proto"),
        ("len = 100", "every ethertype; key length"),
    ],
)
def test_a_shape_in_words(text: str, words: str) -> None:
    assert words in [str(shape) for shape in Explanation.of(compile_filter(text)).shapes]


def test_explain_shows_the_llvm_text(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "explain", "udp dst port 53", "--ir")
    assert out.count("define void @probe(") == 2  # IPv4 and IPv6


def test_explain_shows_the_program_that_conjuncts_ask(capsys: pytest.CaptureFixture[str]) -> None:
    """libpcap's own, so that it can be held against `tcpdump -d`."""
    text = "ip[12:4] = ip[16:4] or udp port 53"
    out = told(capsys, "explain", text, "--ir")
    program = Libpcap().compile(text).instructions
    assert re.search(r"program, which must take a frame of conjunct [\d, ]+ too", out)
    assert [int(number) for number in re.findall(r"^\((\d{3})\) ", out, re.MULTILINE)] == list(range(len(program)))
    assert "(000) ldh      [12]" in out and "program, which" not in told(capsys, "explain", text)
    assert len(told_json(capsys, "explain", text)["program"]) == len(program)
    assert told_json(capsys, "explain", "udp port 53")["program"] is None
    assert "program, which" not in told(capsys, "explain", "udp port 53", "--ir")


@needs_llvmlite
def test_explain_shows_the_machine_code(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "explain", "udp dst port 53", "--asm")
    assert out.count("probe:") == 2 and "prefetch" in out
    assert "probe:" in told_json(capsys, "explain", "arp", "--asm")["shapes"][0]["asm"]


@pytest.mark.usefixtures("no_llvmlite")
def test_machine_code_without_llvmlite_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "explain", "arp", "--asm"]) == 1
    said = capsys.readouterr()
    assert (
        said.out == "" and said.err.startswith("exonet: error: llvmlite: not installed") and said.err.count("\n") == 1
    )
    assert "binding it compiles nothing: llvmlite is not installed" in told(capsys, "explain", "arp")
    found = told_json(capsys, "explain", "arp")
    assert (found["compiles"], len(found["shapes"])) == (0, 1)


def test_what_the_kernel_would_refuse_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """localhost is an address that libpcap looks up; the kernel would not wait for that."""
    assert main(["filter", "explain", "ip host localhost"]) == 2
    said = capsys.readouterr()
    assert "conjunct 1" in said.out
    assert said.err.startswith("exonet: refused: filter 'ip host localhost': 'localhost' is a name: addresses must be")
    assert said.err.count("\n") == 1


def test_more_than_the_usual_quota_is_said() -> None:
    explanation = Explanation.of(compile_filter("arp"))
    many = replace(
        explanation,
        conjuncts=explanation.conjuncts * 5000,
        shapes=explanation.shapes * 65,
        forms=explanation.forms * 17,
    )
    assert list(refusals(many)) == [
        "filter 'arp': it needs 5,000 conjuncts; a LibOS may have 4,096",
        "filter 'arp': it needs 65 shapes; a LibOS may have 64",
        "filter 'arp': it needs 17 loose shapes; a LibOS may have 16",
    ]


@pytest.mark.parametrize(
    ("text", "destined"),
    [("ip dst host 10.0.0.1", True), ("ip6 dst host fd00::1", True), ("ip src host 10.0.0.1", False)],
)
def test_a_shape_says_whether_it_is_dispatched_on_by_destination(
    text: str, destined: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", "explain", text]) == 0
    said = capsys.readouterr().out
    assert ("by destination" in said) is destined
    assert "region: that conjunct; a capability must cover it" in said


def test_a_conjunct_that_fits_no_shape_is_said() -> None:
    explanation = Explanation.of(compile_filter("arp"))
    (conjunct,) = explanation.conjuncts
    wide = replace(explanation, conjuncts=(replace(conjunct, shape=None, refused="too many words"),))
    assert list(refusals(wide)) == ["filter 'arp': conjunct 1: too many words"]
    assert any("conjunct 1   refused" in line for line in lines(wide, [{}]))


def test_a_filter_that_takes_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("explain", "outbound"), ("match", "outbound", str(WEB), "--count")):
        assert main(["filter", *words]) == 2
        assert "it takes nothing" in capsys.readouterr().err


# match


def test_match_lists_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "match", "tcp port 80", str(WEB)).splitlines()
    assert len(said) == 21
    assert " ".join(said[0].split()) == "3 2026-11-22 10:27:42.806250 74/74 10.9.0.1:37590 > 10.9.0.2:80 tcp [S]"
    assert said[-1] == f"{WEB}: 546 of 1,849 frames match (29.53 %)"
    assert len(told(capsys, "match", "tcp port 80", str(WEB), "--all").splitlines()) == 547
    assert told(capsys, "match", "tcp port 80", str(WEB), "--count") == "546\n"


def test_match_over_several_captures(capsys: pytest.CaptureFixture[str]) -> None:
    found = told_json(capsys, "match", "ip", str(WEB), str(VLAN))
    assert [row["frames"] for row in found["captures"]] == [1849, 70]
    assert found["matched"] == sum(row["matched"] for row in found["captures"])
    said = told(capsys, "match", "vlan", str(WEB), str(VLAN)).splitlines()
    assert said[:2] == [f"{WEB}:", f"{VLAN}:"] and said[-1].startswith("all: ")
    assert told(capsys, "match", "ip or vlan", str(WEB), str(VLAN), "--count").count("\n") == 1


@pytest.mark.parametrize("kind", [kind.value for kind in Kind])
def test_every_classifier_answers(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "native" and not available():
        pytest.skip("needs llvmlite")
    assert told(capsys, "match", "udp port 53", str(WEB), "--count", "--classifier", kind) == "1080\n"


@pytest.mark.usefixtures("no_llvmlite")
def test_without_llvmlite_the_table_answers_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "match", "udp port 53", str(WEB), "--count"]) == 0
    said = capsys.readouterr()
    assert said.out == "1080\n"
    assert said.err.startswith("exonet: llvmlite: not installed") and said.err.endswith("; the table answers\n")
    assert main(["filter", "match", "udp port 53", str(WEB), "--check", "--count"]) == 0
    assert "native is not asked" in capsys.readouterr().err


def test_check_asks_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        told(capsys, "match", "not ip and not arp", str(WEB), str(VLAN), "--check").splitlines()[-1].startswith("all:")
    )


def test_check_names_the_first_frame_on_which_they_disagree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reference that is wrong about one source port."""

    def wrong(kind: Kind, filter: Any) -> Any:
        return classifier(
            kind, compile_filter("tcp port 80 and not tcp src port 37604") if kind is Kind.REFERENCE else filter
        )

    monkeypatch.setattr(classifiers, "classifier", wrong)
    assert main(["filter", "match", "tcp port 80", str(WEB), "--check"]) == 1
    said = capsys.readouterr()
    assert "reference would not:" in said.err and "libpcap" in said.err
    assert " 102 " in said.err and "10.9.0.1:37604 > 10.9.0.2:80 tcp [S]" in said.err
    assert said.out == f"{WEB}: 19 of 101 frames match (18.81 %)\n"


def test_a_disagreement_within_a_burst_is_the_first_of_any_pair() -> None:
    with open_capture(WEB) as trace:
        filters = ("udp port 53", "udp port 53 and not src port 53", "not udp")
        asked = [
            (kind, classifier(Kind.TABLE, compile_filter(text))) for kind, text in zip(Kind, filters, strict=False)
        ]
        count = Matched(WEB)
        found = disagreement(trace, asked, count)
    assert found is not None and found.frame.number == count.total == 0
    assert found.said == {Kind.NATIVE: False, Kind.TABLE: False, Kind.REFERENCE: True}


def test_out_keeps_bytes_lengths_and_nanoseconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.pcapng"
    for name in ("nanosecond.pcap", "snapped.pcap"):
        source = ROOT / "captures" / name
        assert told(capsys, "match", "ip", str(source), "--count", "--out", str(out)).strip() != "0"
        with Trace.load(out) as written, Trace.load(source) as read:
            kept = [(f.data, f.wire_len, f.stamp) for f in read if compile_filter("ip").matches(f.data, f.wire_len)]
            assert [(f.data, f.wire_len, f.stamp) for f in written] == kept
            assert written.broken is None
    with out.open("rb") as file:
        assert len(list(dpkt.pcapng.Reader(file))) == len(kept)


def test_out_holds_all_that_match_however_few_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.pcapng"
    assert len(told(capsys, "match", "tcp port 80", str(WEB), "--out", str(out)).splitlines()) == 21
    with Trace.load(out) as written:
        assert written.count == 546


@pytest.mark.parametrize(
    "text", ["tcp and (", "tcp port 70000", "host no.such.host.invalid", "tcp and udp", "x.y == 3"]
)
def test_a_refusal_is_json_too(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "explain", text, "--json"]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["filter"] == text and found["conjuncts"] == found["shapes"] == []
    assert [f"exonet: error: {why}\n" for why in found["refused"]] == [said.err]


@pytest.mark.parametrize(
    "text", ["tcp and (", "tcp port 70000", "host no.such.host.invalid", "tcp and udp", "x.y == 3"]
)
@pytest.mark.parametrize("words", [("explain",), ("match", str(WEB))])
def test_a_bad_filter_is_one_line_and_exit_code_2(
    text: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", words[0], text, *words[1:]]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("exonet: error: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tcp"], "CAPTURE"),
        (["tcp", "/no/such.pcap"], "/no/such.pcap"),
        (["tcp", str(ROOT / "pyproject.toml")], "not a capture"),
        (["tcp", str(WEB), "--count", "--all"], "not allowed with"),
        (["tcp", str(WEB), "--classifier", "oracle"], "invalid choice"),
        (["tcp", str(WEB), "--check", "--classifier", "table"], "leave --classifier"),
        (["tcp", str(WEB), "--out", "/no/such/out.pcapng"], "no directory /no/such"),
        (["tcp", "/no/such.pcap", "--out", "/tmp/never-made.pcapng"], "/no/such.pcap"),
    ],
)
def test_other_bad_input_of_match(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "match", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert not Path("/tmp/never-made.pcapng").exists()


def test_a_capture_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "trace.pcap"
    source.write_bytes((ROOT / "captures" / "udp-64.pcap").read_bytes())
    assert main(["filter", "match", "udp", str(source), "--out", str(source)]) == 2
    assert "it is one of the captures" in capsys.readouterr().err
    assert source.read_bytes() == (ROOT / "captures" / "udp-64.pcap").read_bytes()


def test_a_broken_capture_is_read_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((ROOT / "captures" / "udp-64.pcap").read_bytes()[:-10])
    assert main(["filter", "match", "udp", str(cut), "--count"]) == 1, "as tcpdump's"
    said = capsys.readouterr()
    assert said.out == "3001\n" and "breaks at byte" in said.err
    whole = str(ROOT / "captures" / "udp-64.pcap")
    rows = json.loads(told(capsys, "match", "udp", str(cut), whole, "--json", code=1))["captures"]
    assert "breaks at byte" in rows[0]["broken"] and rows[0]["matched"] == 3001 and rows[1]["broken"] is None
    assert "3,001 of 3,001" in told(capsys, "match", "udp", str(cut), "--check", code=1)


@pytest.mark.parametrize("name", ["/dev/stdin", "-"])
@pytest.mark.parametrize("more", [(), ("--out",)])
@pytest.mark.slow
def test_a_pipe_is_read_once(more: tuple[str, ...], name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "exonet.cli.main", "filter", "match", "udp port 53", name, "--count"]
    words += [word for flag in more for word in (flag, str(tmp_path / "out.pcapng"))]
    with subprocess.Popen(["cat", str(WEB)], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(words, stdin=cat.stdout, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1080\n", "")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    assert main(["filter", "match", "udp", str(WEB), "--count", "--out", "/dev/full"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("exonet: error: capture /dev/full: No space left") and said.err.count("\n") == 1


def test_what_is_no_frame_is_taken_by_nobody() -> None:
    """A record of a capture that is not Ethernet, or is too long, matches nothing; not even everything."""
    for kind in (Kind.TABLE, Kind.REFERENCE, Kind.LIBPCAP):
        asked = classifier(kind, compile_filter("less 70000"))
        with open_capture(WEB) as trace:
            bursts = trace.bursts(4)  # its memory goes with it
            burst = next(bursts)
            burst.reasons[2] = 1
            assert asked.takes(burst).tolist() == [True, True, False, True], kind


def test_counting_needs_no_frame_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """--count is one call for a burst: no record becomes a Python object."""

    def copied(*arguments: object) -> None:
        raise AssertionError("a record was copied")

    monkeypatch.setattr("exonet.wire.capture._frame", copied)
    count = Matched(WEB)
    with open_capture(WEB) as trace:
        for _ in matching(trace, classifier(Kind.TABLE, compile_filter("udp port 53")), count):
            pass
    assert (count.matched, count.total) == (1080, 1849)


# A frame in one line


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (b"", "0 bytes: less than an Ethernet header"),
        (bytes(6) + bytes.fromhex("020000000001 88cc"), "02:00:00:00:00:01 > 00:00:00:00:00:00 ethertype 0x88cc"),
        (bytes(12) + b"\x00\x26", "00:00:00:00:00:00 > 00:00:00:00:00:00 802.3 length 38"),
        (bytes(12) + b"\x08\x00" + b"\x45", "00:00:00:00:00:00 > 00:00:00:00:00:00 ethertype 0x0800"),
        (
            bytes(12) + bytes.fromhex("8100 a005 0806 0001 0800 0604 0001") + bytes(6) + bytes([10, 0, 0, 1])
            + bytes(6) + bytes([10, 0, 0, 2]),
            "vlan 5 arp who-has 10.0.0.2 tell 10.0.0.1",
        ),
    ],
)  # fmt: skip
def test_frames_in_words(frame: bytes, line: str) -> None:
    assert summary(frame) == line


def test_a_frame_cut_anywhere_has_a_line() -> None:
    for name in ("web-dns.pcapng", "ipv6.pcap", "vlan.pcap", "frag.pcap"):
        with Trace.load(ROOT / "captures" / name) as trace:
            for frame in list(trace)[:40]:
                lines = {summary(frame.data[:cut]) for cut in range(min(len(frame.data), 90))}
                assert all(line and "\n" not in line for line in lines)


def test_a_pcapng_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: Is a directory"):
        PcapngFile(tmp_path)


def test_a_missing_library_is_not_hidden(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(kind: Kind, filter: Any) -> Any:
        raise MissingError(f"{kind.value}: not there")

    monkeypatch.setattr(classifiers, "classifier", missing)
    assert main(["filter", "match", "udp", str(WEB), "--classifier", "table"]) == 2
    assert capsys.readouterr().err == "exonet: error: table: not there\n"
