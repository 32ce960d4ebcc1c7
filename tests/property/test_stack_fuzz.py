# SPDX-License-Identifier: MIT
"""Random and half-random frames: no crash, and one fate for each (docs/rules.md, invariants 1 and 5).

Bounded, and the same in each run.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import tries
from tests.stack_frames import IP4, IP6, PEER4, PEER6, SECOND, conserve, engine, feed, ip4, ip6, verify
from tests.stack_mutations import FRAMES, fix_ip4, resum

SETTINGS = settings(max_examples=tries(120))

mutations = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6)
frames = st.tuples(
    st.sampled_from(sorted(FRAMES)),
    mutations,
    st.integers(0, 40),
    st.binary(max_size=40),
    st.integers(0, 70),
    st.booleans(),
)


def mutate(name, changes, cut, tail, again):
    frame = bytearray(FRAMES[name])
    for at, value in changes:
        if at < len(frame):
            frame[at] = value
    frame = frame[: max(len(frame) - cut, 0)] + tail
    return resum(fix_ip4(bytes(frame))) if again and len(frame) > 60 else bytes(frame)


@SETTINGS
@given(st.lists(frames, min_size=1, max_size=20), st.booleans(), st.integers(0, 2**32))
def test_invariant_1_and_5_sequences_of_mutated_frames(sequence, any_address, csum):
    """The account balances after each; all that is held ends; what is sent is what scapy would send."""
    with engine(any_address=any_address, reassembly_bytes=20000, neighbours=8, socket_bytes=500) as stack:
        sockets = [stack.udp(7), stack.udp(7, family=6)]
        now = 0
        for name, changes, cut, tail, step, again in sequence:
            feed(stack, mutate(name, changes, cut, tail, again), now)
            now += step * SECOND // 4
            stack.poll(now)
            conserve(stack)
            for socket in sockets:
                if (d := socket.receive()) is not None and d.port:
                    try:
                        socket.send(d.data, d.peer, d.port, now, d.local)
                    except Exception as error:
                        assert "no such thing" in str(error) or "full" in str(error)
        for frame in stack.output():
            verify(frame)
        stack.poll(now + 1000 * SECOND)
        assert stack.held == 0
        conserve(stack)


@SETTINGS
@given(
    st.binary(max_size=120),
    st.sampled_from([b"", b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00\0\0\x08\x00"]),
    st.booleans(),
)
def test_invariant_5_random_bytes_behind_an_ethertype(body, kind, any_address):
    with engine(any_address=any_address) as stack:
        feed(stack, b"\2\0\0\0\0\1\2\0\0\0\0\x09" + kind + body)


@SETTINGS
@given(st.integers(0, 2**32), st.sampled_from([4, 6]), st.integers(1, 30))
def test_random_fragment_sets_join_or_end(seed, family, count):
    """Pieces of one datagram, some overlapping, repeated or missing: it is delivered unchanged or not at all."""
    from scapy.layers.inet6 import IPv6ExtHdrFragment

    from tests.stack_frames import IP, UDP, IPv6

    rng = random.Random(seed)
    data = rng.randbytes(count * 8)
    whole = (
        IP(src=PEER4, dst=IP4, id=1) / UDP(sport=1, dport=7) / data
        if family == 4
        else IPv6(src=PEER6, dst=IP6) / UDP(sport=1, dport=7) / data
    )
    body = bytes(whole)[20 if family == 4 else 40 :]
    pieces = []
    for at in range(0, len(body), 8):
        size = 8 * rng.choice((1, 1, 1, 2))
        pieces.extend([(at, body[at : at + size])] * rng.choice((1, 1, 1, 1, 2, 0)))
    if rng.random() < 0.5:
        pieces = [(at, body[at : at + 16]) for at in range(0, len(body), 16)]
    rng.shuffle(pieces)
    with engine() as stack:
        socket = stack.udp(7, family=family)
        for at, piece in pieces:
            more = at + len(piece) < len(body)
            if family == 4:
                feed(stack, ip4(id=1, frag=at // 8, flags="MF" if more else 0, proto=17) / piece)
            else:
                feed(stack, ip6() / IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(more), id=1) / piece)
        got = socket.receive()
        assert got is None or got.data == data
        stack.poll(100 * SECOND)
        assert stack.held == 0
        conserve(stack)
