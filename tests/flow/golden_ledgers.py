# SPDX-License-Identifier: MIT
"""The runs whose whole ledger is a golden file, and how one is made anew: python -m tests.flow.golden_ledgers"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from exonet.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "captures"
GOLDEN = Path(__file__).with_name("golden_ledgers.json")
TENANTS = ("--bind", "web=tcp port 80", "--bind", "dns=udp port 53,buffers=32", "--bind", "spot=icmp or icmp6")
# A slow CPU and few buffers, so that frames are lost in the NIC and in the rings.
TIGHT = ("--speed", "pps=2M", "--rings", "64", "--descriptors", "64", "--fifo", "8K", "--costs", "dec5000")
WAYS: dict[str, tuple[str, ...]] = {
    "captured": (),
    "tight": TIGHT,
    "sliced": (*TIGHT, "--slices", "web:50us,dns:20us,spot:10us,-:20us", "--interrupt", "each"),
    "harmed": ("--impair", "loss=5%,delay=1ms,jitter=500us,reorder=5%,duplicate=5%,corrupt=2%", "--loop", "2"),
    "two sides": ("--two-sided", "--exclude", "arp", "--limit", "400"),
}


def captures() -> list[Path]:
    """Every capture of the project that can be replayed."""
    return sorted(path for path in CAPTURES.iterdir() if path.suffix in (".pcap", ".pcapng", ".gz"))


def told(capture: Path, way: str, directory: Path, *more: str) -> dict[str, Any]:
    """The JSON of one run on the virtual clock."""
    out = directory / "out.json"
    words = ["replay", str(capture), *TENANTS, "--clock", "virtual", "--seed", "7", *WAYS[way], *more]
    code = main([*words, "--json", str(out)])
    assert code == 0, f"{capture.name} {way}: exit code {code}"
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def golden(result: dict[str, Any]) -> dict[str, Any]:
    """What of a run must never change: the whole ledger, and who got what."""
    return {
        "ledger": result["ledger"],
        "environments": {
            row["name"]: {key: row[key] for key in ("delivered", "bytes", "dropped", "digest")}
            for row in result["environments"]
        },
        "virtual_s": result["timing"]["virtual_s"],
    }


def make() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        return {f"{path.name} {way}": golden(told(path, way, Path(directory))) for path in captures() for way in WAYS}


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(make().items())]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stderr.write(f"{GOLDEN}: {len(lines)} runs\n")
