# SPDX-License-Identifier: MIT
"""The reader against dpkt, scapy, libpcap (tcpdump) and tshark on real captures; streamed == loaded, gzip == plain."""

import gzip
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import dpkt
import pytest
from scapy.utils import PcapNgReader, PcapReader, RawPcapNgReader, RawPcapReader

from exonet.errors import CaptureError
from exonet.wire.capture import Trace
from tests.conftest import ROOT, every_capture

NS = 10**9
LATEST = 2**63 - 1
"""Stamps beyond it (a conformance file has some, of the year 586524) are clamped."""
CAPTURES = every_capture()
HAS_OLD_BLOCKS = ("test010", "test011", "test012", "test016", "test018")
"""dpkt knows neither simple nor obsolete packet blocks, which these conformance files have."""
HAS_SIMPLE_BLOCKS = ("test010", "test011", "test016", "test018")
"""scapy takes their snaplen of 0 for no bytes at all."""
HAS_NO_INTERFACE = ("test002", "test017")
BEYOND_SNAPLEN = ("hlt_udp_inc_dec_len_9k",)
"""Its packets are longer than its snaplen: libpcap cuts them to it, and so do we; these oracles do not."""
HAS_TWO_RESOLUTIONS = ("interfaces.pcapng",)
"""dpkt reads every timestamp in the first interface's resolution."""


def name(path: Path) -> str:
    return path.name


def without(parts: tuple[str, ...]) -> list[Any]:
    """The captures that an oracle can read."""
    return [each for each in CAPTURES if not any(part in getattr(each, "values", (each,))[0].name for part in parts)]


def opened(path: Path) -> "gzip.GzipFile | object":
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def plain(path: Path, tmp_path: Path) -> Path:
    """The path, or that of an uncompressed copy."""
    if path.suffix != ".gz":
        return path
    (tmp_path / "plain").write_bytes(gzip.decompress(path.read_bytes()))
    return tmp_path / "plain"


@pytest.mark.parametrize(
    "path", without(HAS_OLD_BLOCKS + HAS_NO_INTERFACE + HAS_TWO_RESOLUTIONS + BEYOND_SNAPLEN), ids=name
)
def test_dpkt_agrees(path: Path) -> None:
    with opened(path) as file:
        theirs = [(min(round(Decimal(stamp) * NS), LATEST), data) for stamp, data in dpkt.pcap.UniversalReader(file)]
    ours = list(Trace.load(path))
    assert all(f.converted or f.data == data for f, (_, data) in zip(ours, theirs, strict=True))
    assert all(abs(f.stamp - yours) < 1000 for f, (yours, _) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("path", without(HAS_SIMPLE_BLOCKS + BEYOND_SNAPLEN), ids=name)
def test_scapy_agrees(path: Path, tmp_path: Path) -> None:
    ours = Trace.load(path)
    with plain(path, tmp_path).open("rb") as file:
        is_ng = ours.format.startswith("pcapng")
        reader = RawPcapNgReader(file) if is_ng else RawPcapReader(file)
        theirs = list(reader)
    assert [f.data for f in ours if not f.converted] == [
        data for f, (data, _) in zip(ours, theirs, strict=True) if not f.converted
    ]
    if is_ng or not theirs:
        return
    unit = 1 if reader.nano else 1000
    assert [f.stamp for f in ours] == [meta.sec * NS + meta.usec * unit for _, meta in theirs]
    assert [f.wire_len for f in ours] == [max(meta.wirelen, meta.caplen) for _, meta in theirs]


@pytest.mark.parametrize("path", without(BEYOND_SNAPLEN), ids=name)
@pytest.mark.slow
def test_tshark_agrees_on_times_and_lengths(path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    fields = ["frame.time_epoch", "frame.cap_len", "frame.len", "frame.encap_type"]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *[part for field in fields for part in ("-e", field)]]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [row for line in result.stdout.splitlines() if (row := line.split("\t"))[3]]  # others are not packets
    ours = list(Trace.load(path))
    assert [(len(f.data), f.wire_len) for f in ours if not f.converted] == [
        (int(row[1]), int(row[2])) for f, row in zip(ours, rows, strict=True) if not f.converted
    ]
    stamped = [(f.stamp, row[0]) for f, row in zip(ours, rows, strict=True) if f.stamp and row[0]]
    assert all(stamp == min(int(Decimal(text) * NS), LATEST) for stamp, text in stamped)


@pytest.mark.parametrize("path", without(("test0", "pcapng-example", "interfaces")), ids=name)
def test_libpcap_counts_as_many(path: Path, tmp_path: Path) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    command = ["tcpdump", "--count", "-r", str(plain(path, tmp_path))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout.split()[0]) == Trace.load(path).count


@pytest.mark.parametrize("path", CAPTURES, ids=name)
def test_streamed_equals_loaded(path: Path) -> None:
    loaded, streamed = Trace.load(path), Trace.load(path, memory_limit=1)
    assert streamed.streamed and streamed.memory < 1 << 20
    assert list(streamed) == list(loaded)
    assert streamed.digest() == loaded.digest()
    for field in (
        "count",
        "bytes",
        "wire_bytes",
        "snapped",
        "interfaces",
        "first_timestamp",
        "last_timestamp",
        "broken",
    ):
        assert getattr(streamed, field) == getattr(loaded, field), field


@pytest.mark.parametrize("path", CAPTURES, ids=name)
def test_gzip_equals_plain(path: Path, tmp_path: Path) -> None:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(data if path.suffix == ".gz" else gzip.compress(data, 1))
    assert list(Trace.load(other)) == list(Trace.load(path))
    assert list(Trace.load(other, memory_limit=1)) == list(Trace.load(path))


def test_editcap_converts_without_a_change(tmp_path: Path) -> None:
    if shutil.which("editcap") is None:
        pytest.skip("editcap is not installed")
    path = ROOT / "captures" / "ipv6.pcap"
    ours = [(f.stamp, f.data) for f in Trace.load(path)]
    for kind in ("pcap", "nsecpcap", "pcapng", "modpcap"):
        subprocess.run(["editcap", "-F", kind, str(path), str(tmp_path / kind)], check=True, capture_output=True)
        assert [(f.stamp, f.data) for f in Trace.load(tmp_path / kind)] == ours, kind


@pytest.mark.parametrize(("path", "reader"), [("ipv6.pcap", PcapReader), ("interfaces.pcapng", PcapNgReader)])
def test_scapy_dissects_what_we_read(path: str, reader: type[PcapReader]) -> None:
    with reader(str(ROOT / "captures" / path)) as packets:
        ours = list(Trace.load(ROOT / "captures" / path))
        for packet, frame in zip(packets, ours, strict=True):
            assert frame.converted or bytes(packet) == frame.data


@pytest.mark.parametrize("path", sorted((ROOT / "captures" / "bad").glob("*")), ids=name)
def test_the_bad_captures_are_refused_or_read_up_to_where_they_break(path: Path) -> None:
    try:
        trace = Trace.load(path)
    except CaptureError as error:
        assert str(error).startswith(f"{path}: ") and "expected" in str(error) and "\n" not in str(error)
        return
    assert list(Trace.load(path, memory_limit=1)) == list(trace)
