# SPDX-License-Identifier: MIT
"""The TAP wire against the Linux kernel, in namespaces of the test's own."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from exonet.abi import ffi, lib
from exonet.errors import InterfaceError, RunError
from exonet.wire import burst, device
from exonet.wire.namespace import Namespace
from exonet.wire.scapysocket import WireSocket
from exonet.wire.tap import TapWire, balance
from tests.fakes.attached import NOT_PERMITTED

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not device.TUN.exists(), reason="needs root and /dev/net/tun: it makes TAP devices"
)
PEER_MAC = "02:00:00:00:00:02"


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    with Namespace.create(f"exowire-{os.getpid()}") as space:
        yield space


def ip(space: Namespace, *arguments: str) -> str:
    command = ["ip", "-n", space.name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def udp_socket(space: Namespace, address: str) -> socket.socket:
    """A UDP socket inside the namespace: it stays there whatever thread uses it."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 0))
        return made

    return space.call(make)


def readable(wire: TapWire) -> bool:
    return bool(select.select([wire.native.fd], [], [], 5)[0])


def drain(wire: TapWire) -> list[burst.Received]:
    """All there is, however the wire divides it into bursts."""
    frames: list[burst.Received] = []
    empty = 0
    while empty < 2:
        got = burst.receive(wire, time.monotonic_ns())
        assert got is not None
        frames += got
        empty = 0 if got else empty + 1
    return frames


def quiet(space: Namespace, name: str = "exo0", **more: object) -> TapWire:
    """A TAP on which the kernel says nothing by itself, with a neighbour it need not ask for."""
    wire = TapWire(name, host_address="10.7.0.1/24", namespace=space, ipv6=False, **more)  # type: ignore[arg-type]
    ip(space, "neigh", "add", "10.7.0.2", "lladdr", PEER_MAC, "dev", name)
    return wire


def test_device_is_made_configured_and_gone_after_close(namespace: Namespace) -> None:
    wire = TapWire(
        "exo0",
        mtu=9000,
        host_address=["10.7.0.1/24", "fd07::1/64"],
        mac="02:00:00:00:00:01",
        namespace=namespace.name,
        txqueuelen=77,
    )
    shown = ip(namespace, "addr", "show", "exo0")
    for word in ("mtu 9000", "qlen 77", "02:00:00:00:00:01", "10.7.0.1/24", "fd07::1/64", ",UP"):
        assert word in shown
    described = wire.describe()
    assert described["txqueuelen"] == 77 and described["mtu"] == 9000 and described["qdisc"]
    assert described["kernel"] == os.uname().release and described["namespace"] == namespace.name
    assert not Path("/sys/class/net/exo0").exists(), "the main thread never left its namespace"
    wire.close()
    wire.close()
    assert "exo0" not in ip(namespace, "link", "show")


def test_frames_from_a_udp_socket_and_back(namespace: Namespace) -> None:
    with quiet(namespace) as wire, udp_socket(namespace, "10.7.0.1") as client:
        ledger = ffi.new("struct exo_ledger *")
        wire.native.ledger = ledger
        client.settimeout(5)
        client.sendto(b"hello", ("10.7.0.2", 7))
        (frame,) = drain(wire)
        ethernet, header, port = frame.data[:14], bytearray(frame.data[14:34]), frame.data[34:36]
        assert frame.data[42:] == b"hello" and frame.id == 0 and frame.wire_len == len(frame.data)
        reply = (
            ethernet[6:12]
            + ethernet[:6]
            + b"\x08\x00"
            + bytes(header[:12])
            + bytes(header[16:20])
            + bytes(header[12:16])
        )
        reply += b"\x00\x07" + port + b"\x00\x0d\x00\x00world"
        assert burst.send(wire, [reply], 0) == 1
        assert client.recv(100) == b"world"
        assert getattr(ledger, "in")[lib.EXO_S_SOURCE] == 1 and ledger.out[lib.EXO_S_SOURCE] == 0
        assert (wire.native.rx_frames, wire.native.tx_frames) == (1, 1)


def test_r07_arp_keeps_its_original_42_bytes(namespace: Namespace) -> None:
    with (
        TapWire("exo0", host_address="10.7.0.1/24", namespace=namespace, ipv6=False) as wire,
        udp_socket(namespace, "10.7.0.1") as client,
    ):
        client.sendto(b"x", ("10.7.0.9", 7))
        assert readable(wire)
        frame = drain(wire)[0]
        assert frame.data[12:14] == b"\x08\x06" and len(frame.data) == frame.wire_len == 42


def test_ping_reaches_the_wire(namespace: Namespace) -> None:
    with quiet(namespace) as wire:
        command = ["ip", "netns", "exec", namespace.name, "ping", "-c", "1", "-W", "1", "10.7.0.2"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as ping:
            assert readable(wire)
            request = drain(wire)[0].data
            reply = bytearray(request[6:12] + request[:6] + request[12:])
            reply[26:30], reply[30:34] = request[30:34], request[26:30]
            reply[34] = 0
            checksum = int.from_bytes(request[36:38], "big") + 0x0800
            reply[36:38] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
            burst.send(wire, [bytes(reply)], 0)
            assert ping.wait(5) == 0


def test_scapy_pings_the_kernel_through_the_wire(namespace: Namespace) -> None:
    with quiet(namespace, mac="02:00:00:00:00:01") as wire:
        ether = Ether(src=PEER_MAC, dst="02:00:00:00:00:01")
        answer = WireSocket(wire).sr1(ether / IP(src="10.7.0.2", dst="10.7.0.1") / ICMP(id=9), timeout=5, verbose=0)
        assert answer is not None and (answer[IP].src, answer[ICMP].type, answer[ICMP].id) == ("10.7.0.1", 0, 9)


def test_a_new_namespace_has_its_loopback_up(namespace: Namespace) -> None:
    assert ",UP" in ip(namespace, "link", "show", "lo")


@pytest.mark.parametrize("pattern", [[1, 1, 1], [5, 1, 200, 3], [64, 64], [63, 65, 1, 130]])
def test_every_frame_is_given_once_in_order(namespace: Namespace, pattern: list[int]) -> None:
    with quiet(namespace) as wire, udp_socket(namespace, "10.7.0.1") as client:
        sent = 0
        for count in pattern:
            for number in range(sent, sent + count):
                client.sendto(number.to_bytes(2, "big"), ("10.7.0.2", 7))
            frames = drain(wire)
            assert [int.from_bytes(frame.data[42:44], "big") for frame in frames] == list(range(sent, sent + count))
            assert [frame.id for frame in frames] == list(range(sent, sent + count))
            sent += count


def test_one_frame_a_time_costs_one_read_a_frame_before_the_answer(namespace: Namespace) -> None:
    """Ping-pong: once frames come singly, a frame is handed over before the wire asks for another."""
    with quiet(namespace) as wire, udp_socket(namespace, "10.7.0.1") as client:
        counters = lib.exo_tap_counters(wire.native)
        for number in range(5):
            client.sendto(b"x", ("10.7.0.2", 7))
            before = counters.empty_reads
            assert len(burst.receive(wire, 0) or []) == 1
            assert counters.empty_reads - before == (1 if number == 0 else 0)
            assert burst.receive(wire, 0) == []


def test_r21_device_counters_balance(namespace: Namespace) -> None:
    """tx_packets counts frames read, tx_dropped those that found the queue full; waiting ones are in neither."""
    with quiet(namespace, txqueuelen=10) as wire, udp_socket(namespace, "10.7.0.1") as client:
        before = wire.snapshot()
        for _ in range(25):
            client.sendto(b"x", ("10.7.0.2", 7))
        waiting = balance(before, wire.snapshot())
        assert (waiting.offered, waiting.read, waiting.dropped, waiting.unaccounted) == (15, 0, 15, 0)
        assert len(drain(wire)) == 10
        after = balance(before, wire.snapshot())
        assert (after.offered, after.read, after.read_errors, after.dropped, after.unaccounted) == (25, 10, 0, 15, 0)


def test_interface_down_is_quiet_and_gone_is_an_error(namespace: Namespace) -> None:
    with quiet(namespace) as wire:
        frame = b"\x02" * 60
        ip(namespace, "link", "set", "exo0", "down")
        assert burst.receive(wire, 0) == [] and burst.send(wire, [frame, frame], 0) == 0
        assert lib.exo_tap_counters(wire.native).write_errors == 1
        ip(namespace, "link", "set", "exo0", "up")
        assert burst.send(wire, [frame, b"short", frame], 0) == 3, "a frame the kernel refuses does not stop the others"
        assert wire.native.tx_frames == 2
        ip(namespace, "link", "del", "exo0")
        with pytest.raises(RunError, match=r"wire exo0: receive: .*File descriptor in bad state"):
            burst.receive(wire, 0)
        with pytest.raises(RunError, match="wire exo0: send"):
            burst.send(wire, [frame], 0)
        with pytest.raises(InterfaceError, match="exo0: it is gone"):
            wire.snapshot()
        assert wire.describe()["device"] is None and wire.describe()["tx_frames"] == 2


def test_a_frame_longer_than_the_mtu_known_is_flagged(namespace: Namespace) -> None:
    with quiet(namespace, mtu=600) as wire, udp_socket(namespace, "10.7.0.1") as client:
        ip(namespace, "link", "set", "exo0", "mtu", "1500")
        client.sendto(bytes(1000), ("10.7.0.2", 7))
        (frame,) = drain(wire)
        assert frame.flags & lib.EXO_F_SNAPPED and lib.exo_tap_counters(wire.native).truncated == 1


def shown_without_qdisc(space: Namespace) -> str:
    """A device that was up once keeps the qdisc that it got then."""
    return re.sub(r"qdisc \w+", "", ip(space, "addr", "show", "exo0"))


def test_attached_persistent_tap_is_left_as_found(namespace: Namespace) -> None:
    ip(namespace, "tuntap", "add", "exo0", "mode", "tap")
    ip(namespace, "link", "set", "exo0", "mtu", "1400", "txqueuelen", "55", "address", "02:00:00:00:00:07")
    ip(namespace, "addr", "add", "10.8.0.1/24", "dev", "exo0")
    before = shown_without_qdisc(namespace)
    switch = ["ip", "netns", "exec", namespace.name, "cat", "/proc/sys/net/ipv6/conf/exo0/disable_ipv6"]
    wire = TapWire(
        "exo0",
        mtu=1300,
        host_address=["10.8.0.1/24", "10.7.0.1/24"],
        namespace=namespace,
        ipv6=False,
        mac="02:00:00:00:00:08",
    )
    during = ip(namespace, "addr", "show", "exo0")
    assert "mtu 1300" in during and "10.7.0.1/24" in during and "02:00:00:00:00:08" in during and wire.mtu == 1300
    assert subprocess.check_output(switch).strip() == b"1"
    wire.close()
    assert shown_without_qdisc(namespace) == before
    assert subprocess.check_output(switch).strip() == b"0"


def test_a_failure_half_way_leaves_nothing(namespace: Namespace) -> None:
    ip(namespace, "tuntap", "add", "exo0", "mode", "tap")
    before = ip(namespace, "addr", "show", "exo0")
    with pytest.raises(InterfaceError, match="interface exo0: configuring it: "):
        TapWire(
            "exo0", mtu=1300, host_address=["10.7.0.1/24", "0.0.0.9/8"], mac="00:00:00:00:00:00", namespace=namespace
        )
    assert ip(namespace, "addr", "show", "exo0") == before
    with pytest.raises(InterfaceError):
        TapWire("exo1", mac="00:00:00:00:00:00", namespace=namespace, persist=True)
    assert "exo1" not in ip(namespace, "link", "show")


def test_persist_leaves_the_device(namespace: Namespace) -> None:
    TapWire("exo0", host_address="10.7.0.1/24", namespace=namespace, persist=True).close()
    assert "10.7.0.1/24" in ip(namespace, "addr", "show", "exo0")


def test_namespace_that_we_made_is_removed_and_one_that_existed_is_left(namespace: Namespace) -> None:
    name = f"exowire-made-{os.getpid()}"
    with TapWire("exo0", namespace=name, create_namespace=True):
        assert Namespace(name).path.exists()
    assert not Namespace(name).path.exists()
    TapWire("exo0", namespace=namespace.name, create_namespace=True).close()
    assert namespace.path.exists()
    with pytest.raises(InterfaceError):
        TapWire("exo0", namespace=name, create_namespace=True, mac="00:00:00:00:00:00")
    assert not Namespace(name).path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_device_is_gone_after_a_signal(namespace: Namespace, number: signal.Signals) -> None:
    made = f"exowire-sig-{os.getpid()}"
    program = f"""
        import signal, sys
        from exonet.wire.tap import TapWire
        def stop(number, frame): raise SystemExit(3)
        signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)
        with TapWire("exo0", host_address="10.7.0.1/24", namespace="{made}", create_namespace=True):
            print("up", flush=True)
            signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        assert "exo0" in ip(Namespace(made), "link", "show")
        child.send_signal(number)
        assert child.wait(10) == 3
    assert not Namespace(made).path.exists()


def test_no_descriptor_and_no_thread_is_left(namespace: Namespace) -> None:
    quiet(namespace).close()

    def alive() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    before = alive()
    for _ in range(3):
        with quiet(namespace) as wire:
            wire.describe()
    for arguments in ({"mtu": 1}, {"host_address": "10.7.0.1/99"}, {"namespace": "no-such-namespace"}):
        with pytest.raises(InterfaceError):
            TapWire("exo0", **arguments)  # type: ignore[arg-type]
    assert alive() == before


def test_taken_names(namespace: Namespace) -> None:
    taken = r"^interface exo0: taken: a program is attached to it"
    with quiet(namespace), pytest.raises(InterfaceError, match=taken):
        TapWire("exo0", namespace=namespace)
    with pytest.raises(InterfaceError, match=r"^interface lo: it exists and is a .*, not a TAP"):
        TapWire("lo", namespace=namespace)
    ip(namespace, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    with pytest.raises(InterfaceError, match=r"^interface v0: it exists and is a veth, not a TAP"):
        TapWire("v0", namespace=namespace)
    ip(namespace, "tuntap", "add", "tun7", "mode", "tun")
    with pytest.raises(InterfaceError, match=r"^interface tun7: it exists and is a TUN, not a TAP"):
        TapWire("tun7", namespace=namespace)


@pytest.mark.parametrize(
    "name", ["", "x" * 16, "é" * 8, "a/b", "a b", "a\tb", ".", "..", "all", "tap%d", "a:b", "a\0b", "exo\udcff"]
)
def test_impossible_names(name: str) -> None:
    with pytest.raises(InterfaceError, match=r"^interface name .*, as in exo0$"):
        TapWire(name)


@pytest.mark.parametrize(
    "address", ["", "10.7.0.1", "10.7.0.1/33", "10.7.0.256/24", "fd07::1/129", "x/24", "224.0.0.1/4", "::/64"]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(InterfaceError, match=r"^host address .*as in 10\.7\.0\.1/24"):
        TapWire("exo0", host_address=address)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mtu": 67}, "MTU 67: must be 68..65521"),
        ({"mtu": 65522}, "MTU 65522: must be 68..65521"),
        ({"mtu": 1000, "host_address": "fd07::1/64"}, "an IPv6 address needs 1280 or more"),
        ({"ipv6": False, "host_address": "fd07::1/64"}, "exclude each other"),
        ({"mac": "01:00:00:00:00:01"}, "want a unicast one"),
        ({"mac": "02-00-00-00-00-01"}, "want a unicast one"),
        ({"txqueuelen": 0}, "txqueuelen 0: must be 1"),
        ({"persist": True, "namespace": "n", "create_namespace": True}, "persist needs a namespace that stays"),
    ],
)
def test_bad_options(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InterfaceError, match=f"^interface exo0: .*{message}"):
        TapWire("exo0", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["no-such-namespace", "", "..", "a/b"])
def test_missing_namespace(name: str) -> None:
    with pytest.raises(InterfaceError, match=r"^namespace .*(ip netns add|a name has)"):
        TapWire("exo0", namespace=name)


def test_namespace_that_exists_and_one_that_is_no_namespace(namespace: Namespace) -> None:
    with pytest.raises(InterfaceError, match=r"it exists; take another name"):
        Namespace.create(namespace.name)
    broken = Namespace(f"exowire-broken-{os.getpid()}")
    broken.path.write_text("")
    try:
        with pytest.raises(InterfaceError, match=r"cannot be entered: Invalid argument"):
            TapWire("exo0", namespace=broken)
    finally:
        broken.path.unlink()


def test_no_permission_and_no_device_say_what_to_do(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
        import os
        from exonet.errors import InterfaceError
        from exonet.wire.tap import TapWire
        try: TapWire("lo")  # imports all there is to import while it can
        except InterfaceError: pass
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try: TapWire("exo0")
        except InterfaceError as error: print(error)
        try: TapWire("exo0", namespace="%s")
        except InterfaceError as error: print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program % namespace.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"interface exo0: {NOT_PERMITTED}",
        f"namespace {namespace.name}: entering it needs root; run as root",
    ], done.stderr
    monkeypatch.setattr(device, "TUN", device.TUN.with_name("no-such-tun"))
    with pytest.raises(InterfaceError, match="No such file or directory; load the kernel module: modprobe tun"):
        TapWire("exo0", namespace=namespace)
