# SPDX-License-Identifier: MIT
"""Structured mutations of valid frames: every truncation, every octet and pair of octets at its extreme values.

None may crash, and the account must balance after each (docs/rules.md, invariants 1 and 5). `feed` checks the account.
"""

import pytest

from libos_stacks.abi import lib
from tests.stack_frames import (
    SECOND,
    Reason,
    conserve,
    engine,
    feed,
    frame_sum,
)
from tests.stack_mutations import FRAMES, fix_ip4, resum


@pytest.fixture(scope="module", params=["plain", "any_address"])
def stack(request):
    with engine(any_address=request.param == "any_address") as stack:
        stack.udp(7)
        stack.udp(7, family=6)
        yield stack
        stack.poll(1000 * SECOND)
        assert stack.held == 0
        conserve(stack)


@pytest.mark.parametrize("name", FRAMES)
def test_invariant_5_every_truncation(stack, name):
    frame = FRAMES[name]
    for length in range(len(frame)):
        reason = feed(stack, frame[:length])
        assert reason != Reason.DELIVERED or name in ("arp",)
        assert feed(stack, frame[:length], flags=lib.EXO_F_SNAPPED, wire_len=len(frame)) != Reason.TOO_SHORT
    stack.output()


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.slow
def test_invariant_5_every_octet_at_its_extremes(stack, name):
    frame = FRAMES[name]
    for at in range(len(frame)):
        for value in (0, 1, 0x7F, 0x80, 0xFF, frame[at] ^ 1, (frame[at] + 1) & 255, (frame[at] - 1) & 255):
            bad = bytearray(frame)
            bad[at] = value
            for each in (bytes(bad), fix_ip4(bytes(bad))):
                feed(stack, each)
                feed(stack, each, csum=frame_sum(each))
        stack.output()


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.slow
def test_invariant_5_every_pair_of_octets_at_all_ones_and_zeros(stack, name):
    """Length fields are two octets: each pair at 0, 1, 0xffff, 0xfff8, and the header checksum made right again."""
    frame = FRAMES[name]
    for at in range(12, len(frame) - 1):
        for value in (b"\0\0", b"\0\1", b"\xff\xff", b"\xff\xf8", b"\x1f\xff", b"\x3f\xff"):
            bad = bytearray(frame)
            bad[at : at + 2] = value
            feed(stack, fix_ip4(bytes(bad)), at * SECOND)
        stack.output()


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in ("arp", "vlan")])
def test_invariant_5_truncated_with_the_length_field_made_to_fit(stack, name):
    """The packet itself ends early, not only the frame: each layer must find out for itself."""
    frame = FRAMES[name]
    start = 34 if frame[12:14] == b"\x08\x00" else 54
    for length in range(start, len(frame)):
        cut = bytearray(frame[:length])
        if start == 34:
            cut[16:18] = (length - 14).to_bytes(2, "big")
        else:
            cut[18:20] = (length - 54).to_bytes(2, "big")
        feed(stack, fix_ip4(bytes(cut)))
    stack.output()


@pytest.mark.parametrize(
    "name", ["ping4", "unreachable4", "too_big4", "ping6", "ns", "na", "ra", "unreachable6", "too_big6"]
)
def test_invariant_5_messages_with_right_checksums_and_wrong_fields(stack, name):
    frame = FRAMES[name]
    start = 34 if frame[12:14] == b"\x08\x00" else 54
    for at in range(start, len(frame)):
        for value in (0, 1, 2, 0x3F, 0x40, 0x7F, 0x80, 0xFE, 0xFF):
            bad = bytearray(frame)
            bad[at] = value
            feed(stack, resum(bytes(bad)))
        stack.output()
    for length in range(start, len(frame)):
        cut = bytearray(frame[:length])
        if start == 34:
            cut[16:18] = (length - 14).to_bytes(2, "big")
        else:
            cut[18:20] = (length - 54).to_bytes(2, "big")
        if length >= start + 4:
            feed(stack, resum(fix_ip4(bytes(cut))))
    stack.output()
