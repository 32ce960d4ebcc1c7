# SPDX-License-Identifier: MIT
"""Rules seen from outside, through the command line: who got what (invariant 2, R9), what a sweep says (R22)."""

from pathlib import Path

import pytest

from exonet.filters.libpcap import Libpcap
from exonet.lab.points import Point, Points
from exonet.ledger import Account
from tests.flow.golden_ledgers import CAPTURES, captures, told
from tests.unit.test_tee import read_back

FILTERS = {"web": "tcp port 80", "dns": "udp port 53", "spot": "icmp or icmp6"}


@pytest.mark.parametrize("capture", captures(), ids=lambda path: path.name)
def test_invariant_2_a_frame_reaches_only_who_is_bound_to_it(capture: Path, tmp_path: Path) -> None:
    """Each unicast frame that was delivered is asked of libpcap again; what follows another frame (R3, R5) is not."""
    out = tmp_path / "out.pcapng"
    told(capture, "captured", tmp_path, "--pcap-out", str(out))
    programs = {name: Libpcap().compile(text) for name, text in FILTERS.items()}
    follows = Libpcap().compile("ether multicast or ip[6:2] & 0x3fff != 0 or icmp or icmp6 or ip6[6] = 44")
    checked = 0
    for data, comment, _, _ in read_back(out):
        name = comment.removeprefix("delivered to ")
        if name in programs and not follows.matches(data):
            checked += 1
            assert programs[name].matches(data), (comment, data.hex())
        elif comment.startswith("demux.no_match") and not follows.matches(data):
            assert not any(program.matches(data) for program in programs.values()), data.hex()
    others = ("backwards.pcap", "frag.pcap", "udp-64.pcap", "vlan.pcap", "vlan.pcap.gz")  # none of theirs is bound
    assert checked or capture.name in others


def test_r09_replay_is_promiscuous_and_subscribed_to_every_group(tmp_path: Path) -> None:
    """No frame is filtered by its MAC, and a LibOS gets multicast that its stack never joined."""
    more = ("--bind", "mdns=udp dst port 5353 and not port 53")
    ledger = (result := told(CAPTURES / "web-dns.pcapng", "captured", tmp_path, *more))["ledger"]
    assert "mac.filtered" not in ledger["dropped"]
    assert next(row for row in result["environments"] if row["name"] == "mdns")["delivered"] > 0


def point(requested: float, achieved: float) -> Point:
    nothing = Account(0, copies=0, consumed=0, sent=0, dropped={}, in_flight=0)
    return Point(
        f"{requested / 1e6:g} M/s", 64, 1, requested, 1.0, 100, achieved, 100, 90, 0.9 * achieved, 1.0, 10, 0.1, {}, {},
        nothing,
    )  # fmt: skip


def test_r22_a_load_that_was_not_achieved_is_said() -> None:
    points = Points(("1 M/s", "8 M/s"), (64,), {}, [point(1e6, 0.99e6), point(8e6, 3e6)])
    assert [row.short for row in points.rows] == [False, True]
    text = points.table()
    assert text.count("*") == 1 and "*" in text.splitlines()[-1]
    (note,) = [line for line in points.notes() if line.startswith("*")]
    assert "8 M/s (down to 3.00 M/s)" in note and "1 M/s (" not in note.replace("8 M/s (", "")
