# SPDX-License-Identifier: MIT
"""Captures of offloading hosts, replayed: long packets are cut or taken whole, and no output changes a count."""

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap, wrpcapng

from exonet.cli.main import main

PAYLOAD = random.Random(1).randbytes(200_000)
LINK = Ether(src="02:00:00:00:00:99", dst="02:00:00:00:00:01")


def segment(seq: int, payload: bytes, flags: str = "PA", **more: Any) -> Packet:
    return (
        LINK / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=7, dport=80, seq=seq, flags=flags, **more) / Raw(payload)
    )


@pytest.fixture(scope="module")
def offload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A connection of one direction: SYN, then five super-segments; a long datagram and a long ping."""
    packets: list[Packet] = [segment(0, b"", "S", options=[("MSS", 1400)])]
    packets += [segment(1 + at, PAYLOAD[at : at + 40_000]) for at in range(0, 200_000, 40_000)]
    packets += [LINK / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=53) / Raw(PAYLOAD[:20_000])]
    packets += [LINK / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP() / Raw(PAYLOAD[:12_000])]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 1000
    path = tmp_path_factory.mktemp("offload") / "offload.pcapng"
    wrpcapng(str(path), packets)
    return str(path)


def replayed(tmp_path: Path, *words: str) -> dict[str, Any]:
    path = tmp_path / "out.json"
    assert main(["replay", *words, "--clock", "virtual", "--json", str(path)]) == 0
    told: dict[str, Any] = json.loads(path.read_text())
    return told


ALL = ("--bind", "all=ip or not ip")


def test_without_an_option_they_are_lost_and_the_page_names_one(
    offload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = replayed(tmp_path, offload, *ALL)
    assert told["ledger"]["dropped"] == {"nic.rx_long": 7}
    said = "7 packets are longer than the NIC takes (frames of 9,728 bytes): --resegment cuts those of TCP and UDP, "
    assert said + "--mtu 40040 takes them all" in capsys.readouterr().out
    told = replayed(tmp_path, offload, *ALL, "--mtu", "40039")
    assert told["ledger"]["dropped"] == {}, "an untagged frame may use the room for tags"
    told = replayed(tmp_path, offload, *ALL, "--mtu", "9000")
    assert "7 packets are longer than the MTU 9000: " in capsys.readouterr().out


def test_resegmented_the_stream_is_byte_for_byte_the_sender_s(
    offload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, fates = tmp_path / "cut.pcapng", tmp_path / "fates.parquet"
    told = replayed(tmp_path, offload, *ALL, "--resegment", "--pcap-out", str(out), "--fates", str(fates))
    each = (40_000 + 1399) // 1400
    assert told["ledger"]["dropped"] == {"nic.rx_long": 1}, "the ping"
    assert told["ledger"]["offered"] == 1 + 5 * each + 14 + 1
    assert (told["ledger"]["resegmented"], told["ledger"]["segments"]) == (6, 5 * each + 14)
    text = capsys.readouterr().out
    assert f"6 packets were cut into {5 * each + 14} segments" in text
    assert "1 packet is longer than the NIC takes (frames of 9,728 bytes): --mtu 12028 takes it" in text
    stream = bytearray(len(PAYLOAD))
    for packet in rdpcap(str(out)):
        if TCP in packet and packet[TCP].payload:
            data = bytes(packet[TCP].payload)
            assert len(data) <= 1400
            stream[packet[TCP].seq - 1 : packet[TCP].seq - 1 + len(data)] = data
    assert bytes(stream) == PAYLOAD
    rows = [row for row in parquet.read_table(fates).to_pylist() if row["index"] == 1]
    assert sorted(row["segment"] for row in rows) == list(range(each))
    assert {row["timestamp_ns"] for row in rows} == {1_700_000_000_001_000_000}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_nothing_wrong_in_what_was_cut(offload: str, tmp_path: Path) -> None:
    out = tmp_path / "cut.pcapng"
    replayed(tmp_path, offload, *ALL, "--resegment", "--exclude", "icmp", "--pcap-out", str(out))
    checks = [word for each in ("ip", "tcp", "udp") for word in ("-o", f"{each}.check_checksum:TRUE")]
    wrong = "_ws.malformed or ip.checksum.status==0 or tcp.checksum.status==0 or udp.checksum.status==0"
    done = subprocess.run(["tshark", "-r", str(out), *checks, "-Y", wrong], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    whole = ["tshark", "-r", str(out), "-Y", "udp.length==20008 and udp.checksum.status==1", *checks]
    assert len(subprocess.run(whole, capture_output=True, text=True, check=True).stdout.splitlines()) == 1


def test_the_longest_frames_arrive_whole_and_come_back(tmp_path: Path) -> None:
    """65,535 bytes, in as many buffers as they take: a sink's digest and an echo's answer."""
    frame = LINK / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=7) / Raw(PAYLOAD[: 65_521 - 28])
    tagged = LINK / Dot1Q(vlan=3) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=7) / Raw(PAYLOAD[:8972])
    path, out = tmp_path / "long.pcapng", tmp_path / "back.pcapng"
    wrpcapng(str(path), [Ether(bytes(frame)), Ether(bytes(tagged))])
    told = replayed(tmp_path, str(path), *ALL, "--mtu", "65521")
    assert told["ledger"]["dropped"] == {} and told["environments"][0]["bytes"] == 65_535 + 9018
    told = replayed(tmp_path, str(path), *ALL, "--mtu", "9000")
    assert told["ledger"]["dropped"] == {"nic.rx_long": 1} and told["environments"][0]["bytes"] == 9018
    echo = ("--bind", "echo=udp dst port 7,stack=echo", "--include", "not vlan", "--pcap-out", str(out))
    told = replayed(tmp_path, str(path), *echo, "--mtu", "65521")
    assert told["ledger"]["delivered_to"] == {"environments": 1, "wires": 1}
    answer = rdpcap(str(out))[-1]
    assert bytes(answer[UDP].payload) == bytes(frame[UDP].payload)


def test_no_output_changes_a_counter(offload: str, tmp_path: Path) -> None:
    """One packet is cut by the snaplen, one is short, some are lost."""
    packets = [LINK / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=7) / Raw(b"x" * 56), LINK]
    packets[0] = Ether(bytes(packets[0])[:60])
    packets[0].wirelen = 98
    mixed = tmp_path / "mixed.pcapng"
    wrpcapng(str(mixed), [*packets, *rdpcap(offload)])
    words = (str(mixed), "--bind", "dns=udp,stack=echo", "--resegment", "--mtu", "3000")
    kinds = {"--pcap-out": "t.pcapng", "--fates": "f.parquet", "--trace": "e.jsonl"}
    plain = replayed(tmp_path, *words)
    wire = counters(plain["run"]["wires"][0])
    for options in [[option] for option in kinds] + [list(kinds)]:
        told = replayed(
            tmp_path, *words, *(word for option in options for word in (option, str(tmp_path / kinds[option])))
        )
        assert told["ledger"] == plain["ledger"] and told["environments"] == plain["environments"], options
        assert told["timing"]["virtual_s"] == plain["timing"]["virtual_s"]
        assert counters(told["run"]["wires"][0]) == wire, options
    assert wire["rx_bytes"] > 0 and counters(told["run"]["wires"][0]["inner"]) == wire


def counters(wire: dict[str, Any]) -> dict[str, int]:
    return {name: wire[name] for name in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes")}
