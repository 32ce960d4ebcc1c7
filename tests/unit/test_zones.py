# SPDX-License-Identifier: MIT
"""A zone names a device of one host: no address that a wire carries has one, so none is dropped silently."""

from collections.abc import Callable

import pytest

from exonet.cli.main import main
from exonet.errors import ExonetError
from exonet.filters.compile import compile_filter
from exonet.filters.fields import Ip6
from exonet.kernel.localside import EVERY_STATION, LocalSide
from exonet.kernel.spec import LibOSSpec
from exonet.wire.device import check_address
from exonet.wire.rewrite import PrefixMap, parse_prefix

ATTACH = ("attach", "exo0", "--duration", "1ms", "--host")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("replay", "t.pcap", "--bind", "a=ip6,local=fe80::1%eth0"), "write fe80::1"),
        (("replay", "t.pcap", "--bind", "a=ip6,local=fe80::1%eth0/64"), "write fe80::1/64"),
        ((*ATTACH, "fe80::1%lo/64", "--libos", "echo@fe80::2"), '--host: "fe80::1%lo/64": an address has no zone here'),
        ((*ATTACH, "fe80::1/64", "--libos", "echo@fe80::2%exo0"), 'LibOS address: "fe80::2%exo0": an address has no'),
    ],
)
def test_on_the_command_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("exonet: error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "made",
    [
        lambda: LibOSSpec("web", addresses=("fe80::1%eth0/64",)),
        lambda: LocalSide(EVERY_STATION, address="fe80::1%eth0"),
        lambda: check_address("fe80::1%eth0/64"),
        lambda: parse_prefix("fe80::%eth0/64"),
        lambda: PrefixMap.parse("[fe80::%eth0/64]:[fd00::/64]"),
        lambda: compile_filter("Ip6.src == 'fe80::1%eth0'"),
        lambda: compile_filter("Ip6.src in 'fe80::%eth0/64'"),
        lambda: Ip6.src == "fe80::1%eth0",
        lambda: Ip6.src.within("fe80::%eth0/64"),
    ],
)
def test_elsewhere(made: Callable[[], object]) -> None:
    with pytest.raises(ExonetError, match="must have no zone"):
        made()
