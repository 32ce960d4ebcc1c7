# SPDX-License-Identifier: MIT
"""Frames put behind VLAN tags (802.1Q, 802.1ad) and into PPPoE sessions (RFC 2516), as bytes."""

CUSTOMER, PROVIDER = 0x8100, 0x88A8
PPP = {b"\x08\x00": b"\x00\x21", b"\x86\xdd": b"\x00\x57"}


def tagged(frame: bytes, *vlans: int, kind: int = CUSTOMER) -> bytes:
    """`kind`: of the outermost tag; the others are customers'."""
    tags = b"".join(
        (CUSTOMER if i else kind).to_bytes(2, "big") + vlan.to_bytes(2, "big") for i, vlan in enumerate(vlans)
    )
    return frame[:12] + tags + frame[12:]


def session(frame: bytes, number: int = 1) -> bytes:
    """An untagged frame in a session; what PPP has no number for here gets that of its link control."""
    inner = PPP.get(frame[12:14], b"\xc0\x21") + frame[14:]
    return frame[:12] + b"\x88\x64\x11\x00" + number.to_bytes(2, "big") + len(inner).to_bytes(2, "big") + inner
