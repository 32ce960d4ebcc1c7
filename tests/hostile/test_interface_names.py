# SPDX-License-Identifier: MIT
"""Interface names that are impossible, and such as others have: one line, exit code 2, nothing made and nothing left.

Everything happens in a network namespace of the test's own.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from exonet.cli.main import main
from exonet.wire import device
from exonet.wire.namespace import Namespace
from tests.fakes.attached import unique_name
from tests.fakes.dispatcher import open_fds

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not device.TUN.exists(), reason="needs root and /dev/net/tun: it makes devices"
)
IMPOSSIBLE = {
    "sixteen-bytes-xx": "has 16 bytes: 1..15 are possible",
    "éééééééé": "has 16 bytes: 1..15 are possible",
    "": "has 0 bytes: 1..15 are possible",
    ".": "is reserved",
    "..": "is reserved",
    "all": "is reserved",
    "a/b": "has a character that is impossible",
    "a%d": "has a character that is impossible",
    "a:1": "has a character that is impossible",
    "two\nlines": "has a character that is impossible",
    "\x1b[2J": "has a character that is impossible",
    "\udcff": "has a character that is impossible",
}
OTHERS = {
    "lo": "it exists and is a real device, not a TAP",
    "v0": "it exists and is a veth, not a TAP",
    "b0": "it exists and is a bridge, not a TAP",
    "tun0": "it exists and is a TUN, not a TAP",
    "busy0": "taken: a program is attached to it",
}


def links() -> list[tuple[str, str, int]]:
    """(name, state, addresses) of every device."""
    with IPRoute() as route:
        rows = {row["index"]: (row.get_attr("IFLA_IFNAME"), row["state"]) for row in route.get_links()}
        counts = [address["index"] for address in route.get_addr()]
    return sorted((name, state, counts.count(index)) for index, (name, state) in rows.items())


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A namespace with devices of other people, and one TAP that a program has open."""
    with Namespace.create(unique_name("names")) as made:

        def furnish() -> int:
            with IPRoute() as route:
                route.link("add", ifname="v0", kind="veth", peer="v1")
                route.link("add", ifname="b0", kind="bridge")
                route.link("add", ifname="tun0", kind="tuntap", mode="tun")
            return device.open_tap("busy0", persist=False)

        busy = made.call(furnish)
        yield made
        os.close(busy)


@pytest.mark.parametrize(("name", "says"), [*IMPOSSIBLE.items(), *OTHERS.items()], ids=ascii)
def test_a_name_that_cannot_be_had_is_one_line_and_exit_2(
    space: Namespace, capfd: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    before, fds = space.call(links), open_fds()
    words = ["--namespace", space.name, "--host", "10.99.0.1/24", "--libos", "echo@10.99.0.2", "--duration", "1s"]
    assert main(["attach", name, *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("exonet: error: interface ") and says in err
    assert err[:-1].isprintable()
    assert space.call(links) == before and open_fds() == fds


@pytest.mark.parametrize("name", ["a/b", "", ".", "x" * 256, "no-such"])
def test_a_namespace_that_cannot_be_had_is_one_line_and_exit_2(capfd: pytest.CaptureFixture[str], name: str) -> None:
    before = set(Path("/run/netns").glob("*"))
    words = ["--namespace", name, "--host", "10.99.0.1/24", "--libos", "echo@10.99.0.2", "--duration", "1s"]
    assert main(["attach", "exo0", *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("exonet: error: namespace ")
    assert not {name} & {path.name for path in set(Path("/run/netns").glob("*")) - before}
