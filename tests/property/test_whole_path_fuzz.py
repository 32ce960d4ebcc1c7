# SPDX-License-Identifier: MIT
"""Mutated real frames through the whole path: capture, reader, NIC, demux, rings, stack, LibOS, and what is answered.

Whatever is in a capture: nothing crashes, the ledger balances (invariant 1), virtual runs repeat to the byte (7).
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import dpkt
import pytest

from exonet.cli.main import main
from tests.conftest import own_captures
from tests.effort import tries
from tests.fakes.captures import pcap, record
from tests.stack_frames import IP4, IP6, MAC
from tests.stack_mutations import FRAMES, fix_ip4, resum

COUNT = tries(1500)
REASONS = 3
SEEDS = (1, 2)
EACH = 40
EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 20, 27, 28, 40, 44, 58, 59, 60, 64, 127, 128, 254, 255)
#: Where headers keep lengths, types, flags, offsets and ports, with and without a VLAN tag.
FIELDS = (
    0,
    6,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    34,
    35,
    36,
    37,
    38,
    39,
    40,
    41,
    42,
    46,
    50,
    54,
    55,
)
SINK, ECHO = "stack=sink", "stack=echo,port=7"
EVERYTHING = "ip or ip6 or arp"
TENANTS = {
    "echo to anybody": ("--bind", f"all={EVERYTHING},{ECHO}"),
    "echo as one station": ("--bind", f"all={EVERYTHING},{ECHO},mac={MAC},local={IP4}/24,local={IP6}/64"),
    "sink": ("--bind", f"all=ether[0] >= 0,{SINK}"),
    "nested": (
        "--bind",
        f"all={EVERYTHING},{ECHO}",
        "--bind",
        f"udp=udp port 7,{ECHO}",
        "--bind",
        f"web=tcp port 80,{SINK}",
    ),
}


@lru_cache
def real_frames() -> tuple[bytes, ...]:
    """Some of every capture of the project, and one of each kind that the stack knows."""
    found = [*FRAMES.values()]
    for path in own_captures():
        if path.suffix == ".gz":
            continue
        try:
            with path.open("rb") as file:
                frames = [data for _, data in dpkt.pcap.UniversalReader(file)]
        except (ValueError, dpkt.Error):
            continue
        found += frames[:: max(1, len(frames) // EACH)][:EACH]
    return tuple(frames for frames in found if frames)


def mutations(pick: random.Random) -> list[Callable[[bytearray], None]]:
    """What is done to a frame, in place."""

    def field(frame: bytearray) -> None:
        at = pick.choice(FIELDS)
        if at < len(frame):
            frame[at] = pick.choice(EDGES)

    def flip(frame: bytearray) -> None:
        if frame:
            frame[pick.randrange(len(frame))] ^= 1 << pick.randrange(8)

    def cut(frame: bytearray) -> None:
        del frame[pick.randrange(len(frame) + 1) :]

    def cut_head(frame: bytearray) -> None:
        del frame[12 : 12 + pick.choice([1, 2, 4, 20])]

    def grow(frame: bytearray) -> None:
        frame += pick.randbytes(pick.choice([1, 18, 60, 1500, 9000]))

    def splice(frame: bytearray) -> None:
        other = pick.choice(real_frames())
        at = pick.choice([12, 14, 18, 34, 54])
        frame[at:] = other[pick.choice([0, 12, 14, 34]) :]

    def tags(frame: bytearray) -> None:
        frame[12:12] = pick.choice([b"\x81\x00\x00\x00", b"\x88\xa8\x0f\xff", b"\x81\x00\xe0\x01"]) * pick.choice(
            [1, 2, 40]
        )

    def address(frame: bytearray) -> None:
        frame[:6] = pick.choice([bytes.fromhex(MAC.replace(":", "")), b"\xff" * 6, b"\x33\x33\0\0\0\1", bytes(6)])

    return [field, field, field, field, flip, flip, cut, cut_head, grow, splice, tags, address, address]


def mutated(seed: int) -> Iterator[bytes]:
    pick = random.Random(seed)
    ways = mutations(pick)
    for _ in range(COUNT):
        frame = bytearray(pick.choice(real_frames() if pick.random() < 0.6 else [*FRAMES.values()]))
        for way in pick.choices(ways, k=pick.choice([0, 1, 1, 2, 3, 8])):
            way(frame)
        data = bytes(frame[:65535])
        yield resum(fix_ip4(data)) if len(data) > 60 and pick.random() < 0.5 else data


@pytest.fixture(scope="module", params=SEEDS)
def capture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of mutated frames, some of which claim another length on the wire, or come from the past."""
    seed: int = request.param
    pick = random.Random(seed)
    out, now = pcap([]), 0
    for frame in mutated(seed):
        now += pick.choice([0, 0, 300, 1000, 20_000, 3_000_000])
        length = pick.choice([len(frame)] * 20 + [0, 1, 65535, len(frame) + 1, 0xFFFFFFFF])
        out += record("<", max(0, now - pick.choice([0] * 50 + [10_000_000])), frame, wire_len=length)
    path = tmp_path_factory.mktemp("fuzz") / f"mutated-{seed}.pcap"
    path.write_bytes(out)
    return path


def replayed(directory: Path, capture: Path, *words: str) -> dict[str, Any]:
    path = directory / "out.json"
    assert main(["replay", str(capture), *words, "--json", str(path)]) == 0
    told: dict[str, Any] = json.loads(path.read_text())
    ledger = told["ledger"]
    ends = ledger["delivered"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    assert ledger["offered"] + ledger["copies"] == ends
    assert not any(environment["lies"] for environment in told["environments"])
    assert all(environment["alive"] for environment in told["environments"])
    return told


@pytest.mark.parametrize("tenants", TENANTS.values(), ids=TENANTS)
def test_invariants_1_5_and_7_virtual_runs_of_mutated_frames_balance_and_repeat_to_the_byte(
    tmp_path: Path, capture: Path, tenants: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, files = [], []
    for number in range(2):
        outputs = [tmp_path / f"{number}.{name}" for name in ("parquet", "pcapng")]
        words = ("--clock", "virtual", "--fates", str(outputs[0]), "--pcap-out", str(outputs[1]))
        told = replayed(tmp_path, capture, *tenants, *words)
        runs.append([told["ledger"], told["environments"], told["timing"]["virtual_s"]])
        files.append([path.read_bytes() for path in outputs])
    assert runs[0] == runs[1] and files[0] == files[1]
    assert runs[0][0]["delivered"] > COUNT // 30 and len(runs[0][0]["dropped"]) >= REASONS
    assert capsys.readouterr().err.count("\n") <= 2


def live_run_balances(directory: Path, capture: Path, tenants: tuple[str, ...], where: str) -> None:
    words = [f"{word},{where}" if "stack=" in word else word for word in tenants]
    told = replayed(directory, capture, *words, "--speed", "max")
    assert told["ledger"]["delivered"] > COUNT // 30 and told["ledger"]["in_flight"] == 0


@pytest.mark.parametrize("tenants", TENANTS.values(), ids=TENANTS)
def test_invariants_1_and_5_live_runs_of_mutated_frames_balance(
    tmp_path: Path, capture: Path, tenants: tuple[str, ...]
) -> None:
    live_run_balances(tmp_path, capture, tenants, "inline")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no environment can be isolated")
@pytest.mark.parametrize("capture", SEEDS[:1], indirect=True)
@pytest.mark.parametrize("tenants", TENANTS.values(), ids=TENANTS)
def test_invariants_1_and_5_mutated_frames_into_processes_balance(
    preload: None, tmp_path: Path, capture: Path, tenants: tuple[str, ...]
) -> None:
    live_run_balances(tmp_path, capture, tenants, "process")
