# SPDX-License-Identifier: MIT
"""Frames with every header that a filter may have to look behind: tags, PPPoE sessions, MPLS, LLC and SNAP, IPv4
options and fragments, IPv6 extension headers, tunnels. Made by hand, and the same ones cut short at every header.
"""

from itertools import product

from tests.demux_box import Frame

ETHER = bytes.fromhex("020000000002020000000001")
FOUR = bytes((10, 20, 30, 40)), bytes((10, 20, 30, 41))
SIX = bytes.fromhex("fd00a1b2c3d400001020304050607080"), bytes.fromhex("fd00a1b2c3d400001020304050607081")
#: Ethernet's two, for filters that name them or bytes of them.
ADDRESSES = (
    "abcdef000001abcdef000002", "abcdef000003abcdef000001", "0200000000120234567812345678",
    "aa0004000108020000000001", "02000000000202123402000012345678",
)  # fmt: skip
PORTS = ((7, 1023), (53, 53), (25, 67), (68, 5672), (1024, 6081), (80, 1))


def ip4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0, ihl: int | None = None) -> bytes:
    """ihl: what the header says of its length, where that is a lie."""
    words = 5 + len(options) // 4 if ihl is None else ihl
    length = (20 + len(options) + len(payload)).to_bytes(2, "big")
    head = bytes((0x40 | words, 0)) + length + b"\0\1" + fragment.to_bytes(2, "big") + bytes((64, protocol, 0, 0))
    return head + b"".join(FOUR) + options + payload


def ip6(following: int, payload: bytes) -> bytes:
    return b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((following, 64)) + b"".join(SIX) + payload


def transports() -> list[tuple[int, bytes]]:
    """(protocol, header and a little payload)"""
    found = []
    for source, target in PORTS:
        both = source.to_bytes(2, "big") + target.to_bytes(2, "big")
        found.append((6, both + bytes(8) + b"\x50\x12" + bytes(6) + b"GET /"))
        found.append((17, both + b"\0\x10\0\0" + bytes(12)))
        found.append((132, both + bytes(12)))
    found += [(1, bytes((8, 0)) + bytes(12)), (2, bytes(8)), (9, bytes(8)), (112, bytes(8)), (50, bytes(12))]
    return [*found, (51, b"\x06\4" + bytes(22) + found[0][1]), (47, bytes(4) + ip4(*found[1])), (4, ip4(*found[0]))]


def extended(following: int, payload: bytes) -> list[tuple[int, bytes]]:
    """The payload behind IPv6 extension headers: hop by hop, routing, destination options, AH, fragments, a chain."""
    ah = bytes((following, 4)) + bytes(22) + payload
    found = [(kind, bytes((following, 0)) + bytes(6) + payload) for kind in (0, 43, 60)]
    found += [(44, bytes((following, 0)) + offset.to_bytes(2, "big") + bytes(4) + payload) for offset in (1, 0xB9)]
    return [
        *found,
        (51, ah),
        (0, bytes((43, 0)) + bytes(6) + bytes((51, 1)) + bytes(14) + ah),
        (0, b"\0\xff" + payload),
    ]


def link_payloads() -> list[tuple[int, bytes]]:
    """(ethertype or length, what follows): everything above Ethernet that is no tag."""
    four = [ip4(*transport) for transport in transports()]
    for protocol, payload in transports()[:3]:
        four += [ip4(protocol, payload, options=bytes(size)) for size in (4, 40)]
        four += [ip4(protocol, payload, fragment=word) for word in (0x4000, 0x2000, 0x20B9, 0xB9)]
        four += [ip4(protocol, payload, ihl=words) for words in (0, 4, 6, 15)]
    six = [ip6(*transport) for transport in (*transports(), (58, bytes((128, 0)) + bytes(6)), (59, b""))]
    six += [ip6(*header) for protocol, payload in transports()[:3] for header in extended(protocol, payload)]
    found = [(0x0800, packet) for packet in four] + [(0x86DD, packet) for packet in six]
    arp = bytes.fromhex("0001080006040001") + ETHER[6:] + FOUR[0] + bytes(6) + FOUR[1]
    found += [(kind, arp) for kind in (0x0806, 0x8035)]
    other = (0x6003, 0x6004, 0x6007, 0x6001, 0x6002, 0x809B, 0x80F3, 0x8137, 0x88CC, 0x9000, 6, 255, 1500, 1501, 0xFFFF)
    found += [(kind, bytes(40)) for kind in other]
    found += [
        (0x6003, b"\x10\0\x02" + bytes(5) + b"\xfc\xca\x32" + bytes(20)),
        (0x6003, b"\x81\x26" + b"\xca\x32" * 20),
    ]
    four_long, six_long = (ip(protocol, b"\xcd" * 200) for ip, protocol in ((ip4, 6), (ip6, 17)))
    found += [(0x0800, four_long), (0x86DD, six_long), (0x86DD, ip6(58, b"\xcd" * 200)), (0x0806, b"\xcd" * 200)]
    found += [(0x0800, ip4(protocol, b"\xcd" * 200)) for protocol in (17, 132, 112, 88)]
    saps = (b"\x42\x42\x03", b"\xf0\xf0\x03", b"\xe0\xe0\x03", b"\xff\xff\0", b"\xfe\xfe\x03\x83\0\0\0\x0f",
            b"\xfe\xfe\x03\x83\0\0\0\x1b", b"\xfe\xfe\x03\x81", b"\xfe\xfe\x03\x82",
            b"\xfe\xfe\x03\x83\0\0\0\x12", b"\xfe\xfe\x03\x83\0\0\0\x18", b"\xaa\xaa\x03\x08\0\x07\x80\x9b",
            b"\xaa\xaa\x03\0\0\0\x80\xf3", b"\xaa\xaa\x03\0\0\0\x08\0" + four[0])  # fmt: skip
    found += [(len(sap) + 30, sap + bytes(30)) for sap in saps]
    controls = (0x00, 0x01, 0x05, 0x09, 0x03, 0x63, 0x43, 0x0F, 0x6F, 0xE3, 0xAF, 0x87)
    return found + [(50, bytes((0x06, 0x06, control)) + bytes(47)) for control in controls]


def _ppp(kind: int, packet: bytes) -> bytes:
    protocol = {0x0800: 0x0021, 0x86DD: 0x0057}.get(kind, 0xC021)
    return b"\x11\0\x04\xd2" + (len(packet) + 2).to_bytes(2, "big") + protocol.to_bytes(2, "big") + packet


def header_frames(*, thin: int = 1) -> list[Frame]:
    """thin: of the plain frames every so-many-th is put behind each tag, too."""
    payloads = link_payloads()
    made = [kind.to_bytes(2, "big") + payload for kind, payload in payloads]
    for kind, payload in payloads[::thin]:
        plain = kind.to_bytes(2, "big") + payload
        made += [tag.to_bytes(2, "big") + b"\0\x0a" + plain for tag in (0x8100, 0x88A8, 0x9100)]
        made.append(b"\x88\xa8\x00\x64\x81\x00\x2f\xff" + plain)
        made.append(b"\x81\x00\x00\x0a\x81\x00\x00\x0a" + plain)
        made.append(b"\x88\x64" + _ppp(kind, payload))
        made += [mpls + payload for mpls in (b"\x88\x47\0\x06\x41\x40", b"\x88\x47\0\x06\x40\x40\0\x40\x01\x40")]
        made.append(b"\x81\x00\0\x0a\x88\x64" + _ppp(kind, payload))
    made += [b"\x88\x63" + bytes(30), b"\x08\0" + _geneve(0x0800, ip4(*transports()[0])),
             b"\x08\0" + _geneve(0x6558, ETHER + b"\x08\0" + ip4(*transports()[1])),
             b"\x08\0" + _geneve(0x0800, ip4(*transports()[2]), bytes(8))]  # fmt: skip
    frames = [ETHER + rest for rest in made]
    frames += [target + frame[6:] for frame, target in product(frames[:3], (b"\xff" * 6, b"\x01\0\x5e\0\0\x01"))]
    frames += [bytes.fromhex(addresses) + frames[0][12:] for addresses in ADDRESSES]
    frames += [
        _turned(frame) for frame in frames[:90] if frame[12:14] in (b"\x08\0", b"\x86\xdd", b"\x08\6", b"\x80\x35")
    ]
    frames += [frame.replace(FOUR[1], FOUR[0]).replace(SIX[1], SIX[0]) for frame in (frames[0], frames[60])]
    return [(frame, len(frame)) for frame in frames]


def _turned(frame: bytes) -> bytes:
    """With its addresses, and its ports where these follow a header without options, in the other order."""
    frame = frame.replace(FOUR[0], b"<4>").replace(FOUR[1], FOUR[0]).replace(b"<4>", FOUR[1])
    frame = frame.replace(SIX[0], b"<6>").replace(SIX[1], SIX[0]).replace(b"<6>", SIX[1])
    at = 34 if frame[12] == 8 else 54
    return frame[:at] + frame[at + 2 : at + 4] + frame[at : at + 2] + frame[at + 4 :]


def _geneve(kind: int, inner: bytes, options: bytes = b"") -> bytes:
    head = bytes((len(options) // 4, 0)) + kind.to_bytes(2, "big") + (12345).to_bytes(3, "big") + b"\0" + options
    return ip4(17, b"\x30\x39\x17\xc1" + (len(head + inner) + 8).to_bytes(2, "big") + b"\0\0" + head + inner)


def cut(frames: list[Frame]) -> list[Frame]:
    """Frames cut at or beside the places where headers end: some as a snaplen cuts them, some as they came."""
    ends = (
        0,
        1,
        12,
        13,
        14,
        15,
        17,
        18,
        19,
        22,
        23,
        24,
        26,
        33,
        34,
        35,
        36,
        37,
        38,
        42,
        47,
        53,
        54,
        55,
        56,
        57,
        58,
        62,
    )
    found = []
    for place, (data, wire_len) in enumerate(frames):
        for end in ends[place % 4 :: 4]:
            if end < len(data):
                found.append((data[:end], wire_len if place & 1 else end))
    return found
