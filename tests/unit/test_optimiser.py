# SPDX-License-Identifier: MIT
"""Texts that libpcap's optimiser gets wrong mean what `tcpdump -O` says (R5)."""

import pytest

from exonet.cli.main import main
from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.libpcap import Libpcap
from exonet.filters.optimiser import compile_checked, may_be_wrong
from exonet.lab.source import pointers
from tests.conftest import ROOT
from tests.expressions import every
from tests.filter_list import DECOMPOSE

WEB = str(ROOT / "captures" / "web-dns.pcapng")
ZERO, ONES = bytes(60), b"\xff" * 60
#: Each with what it says of a frame of zeroes and one of ones. Debian 12's libpcap, 1.10.3, gets all of them wrong.
WRONG = [
    ("1/2=1/3&&1>4/5&&1>6/7", True, True),
    ("(1 = 0) || (2147483648 / 4294967295 = 0) and (0 & 4294967295 = 0)", True, True),
    ("len >= 2147483648 & 2147483648 or len < 0 | 2147483648", True, True),
    ("link[0:1] & 0xffffffff != 0", False, True),
    ("link[0:1] & 0xffffffff = 0", True, False),
    ("not link[12:2] & 0xffffffff != 0", True, False),
]


@pytest.mark.parametrize(("text", "zero", "ones"), WRONG)
def test_r05_what_the_optimiser_gets_wrong_means_what_it_says(text: str, zero: bool, ones: bool) -> None:
    plain = Libpcap().compile(text, optimize=False)
    assert compile_checked(Libpcap(), text).code == plain.code
    compiled = compile_filter(text)
    for frame, wanted in ((ZERO, zero), (ONES, ones)):
        assert plain.matches(frame) is wanted
        assert compiled.matches(frame) is wanted


def test_an_offset_before_a_header_is_one() -> None:
    """Ten bytes before UDP's is the IPv4 header's protocol, which says that it is UDP."""
    frame = bytes.fromhex("020000000002020000000001080045000020000100004011000a0a0000010a000002") + bytes(26)
    for text, wanted in (("udp[-11] = 17", True), ("udp[-11] = 6", False), ("udp[-12] = 64", True)):
        assert compile_filter(text).matches(frame) is wanted


def test_what_takes_nothing_is_still_refused() -> None:
    for text in ("len > 4 and len < 3", "ip[0] & 0xffffffff = 1000"):
        with pytest.raises(FilterError, match=r"takes nothing|rejects all"):
            compile_filter(text)


def test_what_the_optimiser_gets_right_stays_optimised() -> None:
    library, asked = Libpcap(), 0
    for text in (*every(), *DECOMPOSE):
        try:
            optimised = library.compile(text)
        except FilterError:
            continue
        asked += may_be_wrong(text)
        assert compile_checked(library, text).code == optimised.code, text
    assert asked > 100


def test_check_has_the_unoptimised_program_as_a_judge(capsys: pytest.CaptureFixture[str]) -> None:
    text, packets = WRONG[0][0], 1849
    assert main(["filter", "match", text, WEB, "--check"]) == 0
    assert f"{packets:,} of {packets:,} frames match" in capsys.readouterr().out
    for kind in ("native", "libpcap", "unoptimised"):
        assert main(["filter", "match", text, WEB, "--count", "--classifier", kind]) == 0
        assert capsys.readouterr().out == f"{packets}\n"


def test_include_means_the_same() -> None:
    program = pointers("--include", WRONG[0][0])
    assert program is not None
    assert program.program.matches(ZERO)
