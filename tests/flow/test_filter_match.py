# SPDX-License-Identifier: MIT
"""`exonet filter match --count` against tcpdump, over captures and the whole list of filters."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from exonet.errors import CaptureError
from exonet.filters.classifier import Kind, classifier
from exonet.filters.compile import compile_filter
from exonet.filters.match import Matched, matching, open_capture
from tests.conftest import ROOT, every_capture
from tests.filter_list import DECOMPOSE

FILTERS = (
    "tcp", "udp port 53", "ip and not tcp", "host 10.9.0.1", "not ip", "ip6", "vlan", "vlan and ip",
    "arp or icmp or icmp6",
    "greater 200", "less 70", "portrange 1-1024", "tcp[tcpflags] & tcp-syn != 0", "ip[6:2] & 0x1fff != 0",
    "ether multicast", "net 10.0.0.0/8 and not port 80", "ip proto 17", "len >= 1000 and tcp",
)  # fmt: skip
CAPTURES = every_capture()
needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")


def tcpdump_count(path: Path, text: str) -> int | None:
    """None where tcpdump does not read the whole file."""
    command = ["tcpdump", "-r", "-" if path.suffix == ".gz" else str(path), "--count", text]
    if path.suffix == ".gz":
        unzip = subprocess.run(["gzip", "-dc", str(path)], capture_output=True, check=True)
        done = subprocess.run(command, capture_output=True, input=unzip.stdout, check=False)
    else:
        done = subprocess.run(command, capture_output=True, check=False)
    said = done.stdout.split()
    return int(said[0]) if done.returncode == 0 and said else None


def our_count(path: Path, text: str) -> int:
    count = Matched(path)
    with open_capture(path) as trace:
        for _ in matching(trace, classifier(Kind.TABLE, compile_filter(text)), count):
            pass
    return count.matched


def compare(path: Path, filters: Sequence[str]) -> int:
    compared = 0
    for text in filters:
        theirs = tcpdump_count(path, text)
        if theirs is not None:
            assert our_count(path, text) == theirs, text
            compared += 1
    return compared


def all_ethernet(path: Path) -> bool:
    """As we see it."""
    try:
        with open_capture(path) as trace:
            return not trace.not_ethernet and not trace.oversize
    except CaptureError:
        return False


@needs_tcpdump
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: getattr(path, "name", None))
def test_the_count_is_tcpdumps(path: Path) -> None:
    """Where there is something to compare: what we refuse, or see other links in, tcpdump does not read as Ethernet."""
    if not all_ethernet(path):
        assert tcpdump_count(path, "ether[0] >= 0") is None
    elif compare(path, FILTERS) == 0:
        assert tcpdump_count(path, "") is None


@needs_tcpdump
def test_every_filter_of_the_list_counts_as_tcpdump() -> None:
    assert compare(ROOT / "captures" / "web-dns.pcapng", DECOMPOSE) > 0.95 * len(DECOMPOSE)
