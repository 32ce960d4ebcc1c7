# SPDX-License-Identifier: MIT
"""A LibOS in a confined process: real launcher, gate, areas and wake socket; the test moves the rings."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from exonet.clock import monotonic_ns
from exonet.kernel.environment import Environment, Mode, Rings
from exonet.kernel.launcher import Launcher
from exonet.kernel.server import Server
from libos_stacks.abi import lib
from tests.fakes.dispatcher import make_kernel
from tests.fakes.kernel import FakeKernel

PEER, SELF = "02:00:00:00:00:99", "02:00:00:00:01:01"
PATIENCE_NS = 20_000_000_000


class Lab:
    """Processes of `libos_stacks.launch:run`."""

    def __init__(self) -> None:
        self.system = make_kernel(page_count=512)
        self.launcher = Launcher()
        self.server = Server(self.system.dispatcher, monotonic_ns, lambda env: None)

    def start(self, **config: Any) -> Environment:
        config = {"mac": SELF, "addresses": ["10.7.0.1/24"], "receive_buffers": 32, "transmit_buffers": 16} | config
        env = self.system.open("test", Mode.PROCESS, config=config, rings=Rings(64, 64, 64, 64))
        self.server.add(env, self.launcher.start(env, "libos_stacks.launch:run"))
        return env

    def until(self, condition: Callable[[], Any], env: Environment) -> Any:
        end = monotonic_ns() + PATIENCE_NS
        while monotonic_ns() < end:
            if found := condition():
                return found
            self.server.serve(0.005)
        raise AssertionError(f"waited in vain: {env.output.decode(errors='replace')}")

    def kernel(self, env: Environment) -> FakeKernel:
        """The kernel's side of its rings, once it sleeps: then everything is bound and posted."""
        native = self.system.machine.env(env.number)
        self.until(lambda: not env.alive or native.libos.need_wakeup.value, env)
        assert env.alive, env.output.decode(errors="replace")
        return FakeKernel.over(native, self.system.machine.pages)

    def wake(self, env: Environment) -> None:
        os.write(self.system.machine.env(env.number).wake_fd, b"\1")

    def close(self) -> None:
        self.system.close()
        self.server.close()
        self.launcher.close()


@pytest.fixture
def lab(preload: None) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("not root: no environment can be isolated")
    made = Lab()
    yield made
    made.close()


def test_echo_sleeps_is_woken_answers_and_leaves_when_asked(lab: Lab) -> None:
    env = lab.start(libos="echo")
    kernel = lab.kernel(env)
    assert kernel.posted == 32
    ask = Ether(src=PEER, dst=SELF) / ARP(op=1, hwsrc=PEER, psrc="10.7.0.9", pdst="10.7.0.1")
    datagram = Ether(src=PEER, dst=SELF) / IP(src="10.7.0.9", dst="10.7.0.1") / UDP(sport=5, dport=7) / Raw(b"hello")
    answers = []
    for packet in (ask, datagram):
        kernel.deliver(bytes(packet).ljust(60, b"\0"), len(packet), lib.EXO_F_PADDED if len(packet) < 60 else 0)
        lab.wake(env)
        answers += lab.until(kernel.take_sent, env)
    assert Ether(answers[0].data)[ARP].hwsrc == SELF
    assert bytes(Ether(answers[1].data)[UDP].payload)[:5] == b"hello"
    assert kernel.libos.counters.delivered == 2
    kernel.kernel.stop.value = 1
    lab.wake(env)
    lab.until(lambda: not env.alive, env)
    assert env.output == b""


def test_a_sink_counts_in_its_own_process(lab: Lab) -> None:
    env = lab.start(libos="sink")
    kernel = lab.kernel(env)
    for _ in range(10):
        assert kernel.deliver(bytes(64))
    lab.wake(env)
    lab.until(lambda: kernel.libos.counters.delivered == 10, env)
    lab.until(lambda: kernel.libos.need_wakeup.value, env)
    assert kernel.unconsumed == 0 and kernel.posted == 32


@pytest.mark.parametrize(
    "config, words",
    [
        ({"libos": "ecco"}, 'libos: libos "ecco": must be module:Class or one of echo, sink'),
        ({"libos": "sink", "mtu": 9}, "libos: mtu 9: must be a number 576..65521"),
        ({"libos": "sink", "receive_buffers": 60000}, "libos: "),
    ],
)
def test_a_libos_that_cannot_start_says_why_in_one_line(lab: Lab, config: dict[str, Any], words: str) -> None:
    env = lab.start(**config)
    lab.until(lambda: not env.alive, env)
    (line,) = env.output.decode().splitlines()
    assert line.startswith(words)
