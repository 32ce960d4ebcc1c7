# SPDX-License-Identifier: MIT
"""`exonet attach` against the Linux kernel: ping, UDP, fragments, two LibOSes, deaths and ends, in a namespace."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exonet.wire import device
from exonet.wire.namespace import Namespace
from tests.fakes.attached import HOST, HOST6, ONE, ONE6, PATIENCE_NS, TWO, TWO6, Attached, attached, unique_name

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not device.TUN.exists(), reason="needs root and /dev/net/tun: it makes TAP devices"
)
PAIR = ("--libos", f"echo@{ONE}", "--libos", f"echo@{TWO}")
BOTH = ("--host", f"{HOST6}/64", "--libos", f"echo@{ONE}+{ONE6}", "--libos", f"echo@{TWO}+{TWO6}")
# One datagram, several fragments, the largest that IPv4 carries.
SIZES = [1, 1472, 1473, 3000, 20000, 65507]


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace.create(unique_name("live")) as made:
        yield made


@pytest.fixture(scope="module", params=["process", "inline"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attached]:
    """One run that several tests share; the ledger of all they did is looked at when it ends."""
    directory = tmp_path_factory.mktemp("attach")
    more = ("--inline",) if request.param == "inline" else ()
    with (
        Namespace.create(unique_name(request.param)) as space,
        attached(space, directory, *BOTH, *more) as run,
    ):
        run.await_answers(ONE, TWO, ONE6, TWO6)
        yield run
        told = run.end()
        assert told["run"]["interrupted"] and not told["run"]["failed"]
        assert {row["mode"] for row in told["environments"]} == {request.param}
        # the kernel's own multicast, and the datagrams to a closed port
        known = {"mac.filtered", "demux.no_subscriber", "demux.no_match", "stack.no_socket"}
        assert set(told["ledger"]["dropped"]) <= known
        assert run.gone()


def pattern(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.parametrize("address", [ONE, TWO, ONE6, TWO6])
def test_ping(running: Attached, address: str) -> None:
    running.ping_burst(address, 20)


@pytest.mark.parametrize("address", [ONE, ONE6])
@pytest.mark.parametrize("size", [1472, 8000, 60000])
def test_ping_in_fragments(running: Attached, address: str, size: int) -> None:
    running.ping_burst(address, 5, "-s", str(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("address", [ONE, ONE6])
def test_udp_comes_back_whole(running: Attached, address: str, size: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert running.echoed(pattern(size), address, family) == pattern(size)


def test_ping_sees_the_recorded_route_and_times(running: Attached) -> None:
    """RFC 1122 3.2.2.6; a host notes itself once, on the way back too, as Linux does."""
    route = running.inside("ping", "-n", "-R", "-c", "1", "-W", "5", ONE).stdout.split()
    assert route[route.index("RR:") + 1 :][:3] == [HOST, ONE, HOST]
    times = running.inside("ping", "-n", "-T", "tsandaddr", "-c", "1", "-W", "5", ONE).stdout
    assert [line.split()[0] for line in times.partition("TS:")[2].strip().splitlines()[:3]] == [HOST, ONE, HOST], times


@pytest.mark.alone
def test_ping_flood_loses_nothing(running: Attached) -> None:
    assert "2000 received" in running.ping(ONE, "-f", "-c", "2000")


def test_a_closed_port_is_refused_by_icmp(running: Attached) -> None:
    """Linux makes ECONNREFUSED of the LibOS's port unreachable."""
    for family, address in ((socket.AF_INET, ONE), (socket.AF_INET6, ONE6)):
        with running.udp(family) as client:
            client.connect((address, 9))
            client.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)


def test_shared_and_own_mac(space: Namespace, tmp_path: Path) -> None:
    found = {}
    for kind in ("shared", "own"):
        directory = tmp_path / kind
        directory.mkdir()
        with attached(space, directory, *PAIR, "--mac", kind, "--inline") as run:
            run.await_answers(ONE, TWO)
            table = json.loads(run.inside("ip", "-j", "neigh", "show", "dev", "exo0").stdout)
            found[kind] = {row["dst"]: row["lladdr"] for row in table if row["dst"] in (ONE, TWO)}
            run.end()
    assert len(set(found["shared"].values())) == 1 and len(found["shared"]) == 2
    assert found["own"] == {ONE: "02:00:00:00:00:02", TWO: "02:00:00:00:00:03"}


def test_r09_a_tap_port_filters_by_mac(space: Namespace, tmp_path: Path) -> None:
    """A frame for a station that nobody is: dropped in the MAC, not offered to any filter."""
    with attached(space, tmp_path, *PAIR, "--no-ipv6", "--inline") as run:
        run.await_answers(ONE, TWO)
        stranger = ("lladdr", "02:00:00:00:00:77", "dev", "exo0")
        assert run.inside("ip", "neigh", "replace", ONE, *stranger).returncode == 0
        with run.udp() as client:
            for _ in range(25):
                client.sendto(b"for another", (ONE, 7))
        run.await_answers(TWO)
        assert run.end()["ledger"]["dropped"] == {"mac.filtered": 25}


def test_no_ipv6_keeps_the_kernel_silent(space: Namespace, tmp_path: Path) -> None:
    """Nothing of the kernel's own is offered: the ledger holds our frames and ARP, all of them delivered."""
    with attached(space, tmp_path, *PAIR, "--no-ipv6") as run:
        run.await_answers(ONE, TWO)
        ledger = run.end()["ledger"]
    assert ledger["dropped"] == {} and ledger["in_flight"] == 0
    assert ledger["delivered_to"]["environments"] == ledger["delivered_to"]["wires"]


def test_a_killed_libos_costs_its_own_packets_and_nobody_elses(space: Namespace, tmp_path: Path) -> None:
    with attached(space, tmp_path, *PAIR, "--no-ipv6") as run:
        run.await_answers(ONE, TWO)
        victim, survivor = run.children()
        os.kill(victim, signal.SIGKILL)
        with run.udp() as client:
            for _ in range(50):
                client.sendto(b"are you there?", (ONE, 7))
            with pytest.raises(TimeoutError):
                client.recv(100)
        assert run.echoed(pattern(3000), TWO) == pattern(3000)
        run.ping_burst(TWO, 20)
        assert run.children() == [survivor]
        told = run.end(code=1)
    dead, alive = told["environments"]
    assert (dead["alive"], alive["alive"]) == (False, True)
    # whichever of its descriptors the kernel saw first
    assert dead["end_reason"] in ("killed by signal 9", "it closed its control socket or was killed")
    assert set(told["ledger"]["dropped"]) <= {"ring.env_dead", "demux.no_match", "demux.no_neighbour"}
    assert sum(told["ledger"]["dropped"].values()) >= 50
    assert told["run"]["failed"] and dead["name"] in told["run"]["notes"][0]
    assert run.gone()


def test_a_stopped_libos_fills_its_own_ring_only(space: Namespace, tmp_path: Path) -> None:
    """SIGSTOP: it hangs and does not die. Its ring fills; the other one answers."""
    with attached(space, tmp_path, *PAIR, "--no-ipv6", "--rings", "64", "--nic-mode", "drop") as run:
        run.await_answers(ONE, TWO)
        os.kill(run.children()[0], signal.SIGSTOP)
        with run.udp() as client:
            for _ in range(500):
                client.sendto(b"wake up", (ONE, 7))
        assert run.echoed(b"you?", TWO) == b"you?"
        os.kill(run.children()[0], signal.SIGCONT)
        run.await_answers(ONE)
        dropped = run.end()["ledger"]["dropped"]
    assert set(dropped) <= {"ring.no_buffer", "ring.full"} and sum(dropped.values()) >= 400, dropped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [(), ("--inline",)], ids=["process", "inline"])
def test_a_signal_ends_the_run_with_its_ledger(
    space: Namespace, tmp_path: Path, number: signal.Signals, mode: tuple[str, ...]
) -> None:
    with attached(space, tmp_path, *PAIR, "--no-ipv6", *mode) as run:
        run.await_answers(ONE, TWO)
        children = run.children()
        told = run.end(number)
        assert told["run"]["interrupted"] and told["ledger"]["in_flight"] == 0
        assert run.gone()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_duration_ends_the_run_by_itself(space: Namespace, tmp_path: Path) -> None:
    with attached(space, tmp_path, *PAIR, "--no-ipv6", "--inline", "--duration", "1500ms") as run:
        run.await_answers(ONE, TWO)
        told = run.end(None, code=0)
    assert not told["run"]["interrupted"] and 1.5 <= told["timing"]["wall_s"] < 3
    assert run.gone()


def test_what_a_live_run_writes(space: Namespace, tmp_path: Path) -> None:
    """JSON, fates and tee of an attach: the wire, the device's own counters, and a fate for every frame."""
    from pyarrow import parquet

    fates, tee = tmp_path / "fates.parquet", tmp_path / "tee.pcapng"
    words = (*PAIR, "--no-ipv6", "--inline", "--fates", str(fates), "--pcap-out", str(tee))
    with attached(space, tmp_path, *words) as run:
        run.await_answers(ONE, TWO)
        told = run.end()
    wire = told["run"]["wires"][0]
    inner = wire.get("inner", wire)
    assert (inner["kind"], inner["namespace"], inner["mtu"]) == ("tap", space.name, 1500)
    assert inner["device"]["tx_packets"] == inner["rx_frames"]
    stages = {row["stage"]: row for row in told["ledger"]["stages"]}
    assert stages["tap"]["out"] == stages["source"]["in"] == inner["rx_frames"]
    rows = parquet.read_table(fates).to_pylist()
    assert len(rows) == told["ledger"]["offered"] + told["ledger"]["copies"]
    assert tee.stat().st_size > 0


def flood(space: Namespace, count: int) -> None:
    """Sends as fast as a socket can, from inside."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((ONE, 9))
            for _ in range(count):
                try:
                    client.send(bytes(18))
                except (ConnectionRefusedError, BlockingIOError, OSError):
                    continue

    space.call(send)


def test_r21_what_the_device_dropped_is_a_stage_of_the_ledger(space: Namespace, tmp_path: Path) -> None:
    """The reader is stopped: the device's queue fills, and its own counter says what it lost."""
    with attached(space, tmp_path, "--libos", f"sink@{ONE}", "--libos", f"echo@{TWO}", "--no-ipv6", "--inline") as run:
        run.await_answers(TWO)
        assert run.inside("ip", "link", "set", "exo0", "txqueuelen", "20").returncode == 0
        run.inside("ip", "neigh", "replace", ONE, "lladdr", "02:00:00:00:00:77", "dev", "exo0")
        run.process.send_signal(signal.SIGSTOP)
        flood(space, 500)
        run.process.send_signal(signal.SIGCONT)
        run.await_answers(TWO)
        told = run.end()
    dropped, stages = told["ledger"]["dropped"], {row["stage"]: row for row in told["ledger"]["stages"]}
    device = told["run"]["wires"][0]["device"]
    flooded = dropped["tap.tx_dropped"] + dropped["mac.filtered"]
    assert 500 <= flooded <= 510, "the flood, and a ping or a request of ours that met the full queue"
    assert dropped["tap.tx_dropped"] > 300
    assert dropped["tap.tx_dropped"] == device["tx_dropped"] + device["qdisc_drops"]
    assert "tap.unaccounted" not in dropped
    assert stages["tap"]["in"] == stages["tap"]["out"] + dropped["tap.tx_dropped"]


def test_r08_two_liboses_of_one_tap_reach_each_other(space: Namespace, tmp_path: Path) -> None:
    """A datagram from the one's echo port to the other's bounces between them and never reaches the device."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    with attached(space, tmp_path, *PAIR, "--no-ipv6", "--mac", "own") as run:
        run.await_answers(ONE, TWO)
        before = device_packets(run)
        spoofed = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:02") / IP(src=TWO, dst=ONE) / UDP(sport=7, dport=7)
        run.space.call(send_raw, bytes(spoofed / b"to and fro"))
        run.ping(ONE, "-c", "3", "-i", "1")  # two seconds: on a busy machine each turn takes a scheduler's slice
        told = run.end()
    one, two = told["environments"]
    seen = f"{told['ledger']} {one} {two}"
    assert device_packets_told(told) - before < 90, seen
    assert min(one["sent"], two["sent"]) > 50, f"the two did not go on talking without the host: {seen}"


def send_raw(frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("exo0", 0))
        raw.send(frame)


def device_packets(run: Attached) -> int:
    return int(json.loads(run.inside("ip", "-j", "-s", "link", "show", "exo0").stdout)[0]["stats64"]["rx"]["packets"])


def device_packets_told(told: dict[str, Any]) -> int:
    return int(told["run"]["wires"][0]["tx_frames"])


def test_an_end_while_it_starts_leaves_nothing(space: Namespace, tmp_path: Path) -> None:
    with attached(space, tmp_path, *PAIR) as run:
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE_NS / 1e9) != 0
        assert run.gone()


def test_a_taken_device_is_one_line(space: Namespace, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    with attached(space, first, *PAIR, "--inline") as run:
        run.await_answers(ONE)
        with attached(space, second, *PAIR, "--inline") as other:
            assert other.process.wait(30) == 2
        (line,) = [line for line in other.err.read_text().splitlines() if "error" in line]
        assert line.startswith("exonet: error: interface exo0: taken: a program is attached to it")
        assert run.echoed(b"still here", ONE) == b"still here"
        run.end()
