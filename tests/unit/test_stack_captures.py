# SPDX-License-Identifier: MIT
"""Real traces through an engine that takes every address.

No crash, one fate for every frame, and the same verdicts with the kernel's checksum as without.
"""

from array import array
from pathlib import Path

import pytest
from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader

from libos_stacks.abi import lib
from tests.conftest import every_capture
from tests.stack_frames import MAC, SECOND, Engine, StackConfig, conserve, frame_sum

LIMIT = 1500


def frames(path: Path) -> list[tuple[bytes, int]]:
    """(captured bytes, wire length) of the first frames; what scapy cannot read is no business of the stack."""
    found: list[tuple[bytes, int]] = []
    try:
        with RawPcapReader(str(path)) as reader:
            for data, meta in reader:
                found.append((data, max(meta.wirelen or 0, len(data))))
                if len(found) == LIMIT:
                    break
    except (Scapy_Exception, EOFError, OSError):
        pass
    return found


@pytest.mark.parametrize("path", every_capture(), ids=lambda path: path.name)
def test_real_traces_balance(path):
    def run(with_sum: bool):
        with Engine(StackConfig.make(MAC, any_address=True), memory=1 << 16) as stack:
            socket = stack.udp(53)
            stack.udp(53, family=6)
            verdicts = []
            for at, (data, wire) in enumerate(captured):
                snapped = lib.EXO_F_SNAPPED if wire > len(data) else 0
                csum = frame_sum(data) if with_sum else None
                verdicts.append(stack.input(memoryview(array("B", data)), at * SECOND // 100, snapped, wire, csum))
                conserve(stack)
                if socket.receive() is not None:
                    stack.poll(at * SECOND // 100)
                stack.output()
            stack.poll(10**6 * SECOND)
            assert stack.held == 0
            conserve(stack)
            return verdicts, stack.counters, stack.drops

    captured = [(data, wire) for data, wire in frames(path) if len(data) < 65536]
    assert run(True) == run(False)
