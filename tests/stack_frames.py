# SPDX-License-Identifier: MIT
"""What the tests of the stack engine share: one engine's addresses, a peer's, and scapy as the independent oracle."""

from array import array
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from libos_stacks.engine import Engine, Reason, StackConfig

MAC, PEER_MAC, BROADCAST = "02:00:00:00:00:01", "02:00:00:00:00:09", "ff:ff:ff:ff:ff:ff"
IP4, PEER4 = "10.7.0.2", "10.7.0.9"
IP6, PEER6 = "fd07::2", "fd07::9"
SECOND = 10**9


def engine(*addresses: str, **options: Any) -> Engine:
    """An engine at 10.7.0.2/24 and fd07::2/64 unless told otherwise."""
    return Engine(StackConfig.make(MAC, *(addresses or (f"{IP4}/24", f"{IP6}/64")), **options))


def ether(dst: str = MAC, src: str = PEER_MAC, **fields: Any) -> Packet:
    return Ether(dst=dst, src=src, **fields)


def ip4(dst: str = IP4, src: str = PEER4, **fields: Any) -> Packet:
    return ether() / IP(src=src, dst=dst, **fields)


def ip6(dst: str = IP6, src: str = PEER6, **fields: Any) -> Packet:
    return ether() / IPv6(src=src, dst=dst, **fields)


def conserve(stack: Engine) -> None:
    """Invariant 1 within the stack: every frame has exactly one fate, or is held."""
    counters = stack.counters
    assert counters["in_frames"] == counters["delivered"] + sum(stack.drops.values()) + stack.held


def frame_sum(frame: bytes) -> int:
    """The kernel's csum: ones-complement sum of the bytes from 14 on, in host order as checksum.h keeps it."""
    data = frame[14:] + b"\0" * (len(frame) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def feed(stack: Engine, packet: Packet | bytes, now: int = 0, **options: Any) -> Reason:
    """One frame in, with the account checked: exactly one term rises, by the reason that is returned."""
    before, drops, held = stack.counters, stack.drops, stack.held
    # In memory of exactly its size, so that a read beyond it is seen under ASan with PYTHONMALLOC=malloc.
    reason = stack.input(memoryview(array("B", bytes(packet))), now, **options)
    conserve(stack)
    assert stack.counters["in_frames"] == before["in_frames"] + 1
    if reason:
        name = f"stack.{reason.name.lower()}"
        assert stack.drops.get(name, 0) > drops.get(name, 0)
    else:
        assert stack.counters["delivered"] + stack.held > before["delivered"] + held or stack.drops != drops
    return reason


def verify(frame: bytes) -> Packet:
    """Dissects a frame of the engine's; every length and checksum must be what scapy computes."""
    packet = Ether(frame)
    again = Ether(frame)
    ip = again.getlayer(IP) or again.getlayer(IPv6)
    if ip is None:
        assert bytes(packet) == frame
        return packet
    for layer in (IP, IPv6):
        if layer in again:
            for name in ("len", "chksum", "plen"):
                if name in again[layer].fields:
                    del again[layer].fields[name]
    fragment = (IP in again and (again[IP].frag or again[IP].flags.MF)) or (IPv6 in again and again[IPv6].nh == 44)
    if not fragment:
        upper = ip.payload
        for name in ("chksum", "cksum", "len"):
            if (name in upper.fields and isinstance(upper, (UDP, ICMP, TCP))) or name == "cksum":
                upper.fields.pop(name, None)
    assert bytes(again) == frame, f"scapy computes otherwise:\n{packet.show(dump=True)}"
    return packet


def sent(stack: Engine) -> list[Packet]:
    """The frames the engine sent, each verified."""
    return [verify(frame) for frame in stack.output()]


def answers(stack: Engine) -> list[Packet]:
    """The frames the engine sent but for its own questions about neighbours."""
    from scapy.layers.inet6 import ICMPv6ND_NS

    return [p for p in sent(stack) if not (ARP in p and p.op == 1) and ICMPv6ND_NS not in p]


def one(stack: Engine) -> Packet:
    frames = sent(stack)
    assert len(frames) == 1, frames
    return frames[0]


def introduce(stack: Engine, now: int = 0) -> None:
    """The peer asks for both addresses, so that the engine knows it; the answers are thrown away."""
    from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr

    if any(i.version == 4 for i in stack.config.addresses):
        feed(stack, ether(BROADCAST) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER4, pdst=IP4), now)
    if any(i.version == 6 for i in stack.config.addresses):
        solicitation = ICMPv6ND_NS(tgt=IP6) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        feed(stack, ether() / IPv6(src=PEER6, dst=IP6, hlim=255) / solicitation, now)
    stack.output()


def ping4(data: bytes = b"ping", **fields: Any) -> Packet:
    return ip4(**fields) / ICMP(id=7, seq=9) / data


def ping6(data: bytes = b"ping", **fields: Any) -> Packet:
    return ip6(**fields) / ICMPv6EchoRequest(id=7, seq=9, data=data)


__all__ = [
    "ARP",
    "BROADCAST",
    "ICMP",
    "IP",
    "IP4",
    "IP6",
    "MAC",
    "PEER4",
    "PEER6",
    "PEER_MAC",
    "SECOND",
    "TCP",
    "UDP",
    "Engine",
    "Ether",
    "ICMPv6EchoReply",
    "ICMPv6EchoRequest",
    "IPv6",
    "Packet",
    "Reason",
    "StackConfig",
    "answers",
    "conserve",
    "engine",
    "ether",
    "feed",
    "frame_sum",
    "introduce",
    "ip4",
    "ip6",
    "one",
    "ping4",
    "ping6",
    "sent",
    "verify",
]
