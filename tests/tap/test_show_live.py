# SPDX-License-Identifier: MIT
"""`exonet show` of an attach in a namespace: what is shown is what answers."""

import json
import os
from pathlib import Path

import pytest

from exonet.cli.main import main
from exonet.kernel.statesocket import OVERRIDE
from exonet.wire import device
from exonet.wire.namespace import Namespace
from tests.fakes.attached import ONE, TWO, attached, unique_name

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not device.TUN.exists(), reason="needs root and /dev/net/tun: it makes TAP devices"
)


def test_an_attach_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "run"))
    with (
        Namespace.create(unique_name("show")) as space,
        attached(space, tmp_path, "--libos", f"echo@{ONE}", "--libos", f"echo@{TWO}", "--no-ipv6") as run,
    ):
        run.await_answers(ONE, TWO)
        found = {}
        for topic in ("bindings", "environments", "machine"):
            assert main(["show", topic, "--json", "--pid", str(run.process.pid)]) == 0
            found[topic] = json.loads(capsys.readouterr().out)[topic]
        assert [row["filter"] for row in found["bindings"]] == [f"dst host {ONE}", f"dst host {TWO}"]
        assert all(row["delivered"] > 0 for row in found["bindings"])
        assert sorted(row["pid"] for row in found["environments"]) == sorted(run.children())
        (port,) = found["machine"][0]["ports"]
        assert port["wire"]["rx_frames"] > 0 and port["nic"]["mac"] == "02:00:00:00:00:01"
        run.ping(ONE, "-c", "3", "-i", "0.01")
        run.end()
    assert list((tmp_path / "run").iterdir()) == []
