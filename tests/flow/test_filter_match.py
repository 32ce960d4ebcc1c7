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


@needs_tcpdump
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: getattr(path, "name", None))
def test_the_count_is_tcpdumps(path: Path) -> None:
    try:
        open_capture(path).close()
    except CaptureError as error:
        pytest.skip(f"no capture of Ethernet: {error}")
    with open_capture(path) as trace:
        mixed = trace.not_ethernet or trace.oversize
    if mixed or compare(path, FILTERS) == 0:
        pytest.skip("tcpdump does not read it, or it is not all Ethernet")


@needs_tcpdump
def test_every_filter_of_the_list_counts_as_tcpdump() -> None:
    assert compare(ROOT / "captures" / "web-dns.pcapng", DECOMPOSE) > 0.95 * len(DECOMPOSE)
