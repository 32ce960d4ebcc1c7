# SPDX-License-Identifier: MIT
"""The innermost of nested bindings wins whatever the order of the binds, however little they differ (R4)."""

from collections.abc import Iterator
from itertools import permutations

import pytest

from exonet.abi import NO_OWNER, ffi, lib
from exonet.errors import ExhaustedError
from exonet.kernel.nesting import APART, breadth_between
from tests.demux_box import Frame, burst, made_frames, sample_frames
from tests.fakes.desk import Desk, open_desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    with open_desk() as opened:
        yield opened


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    found = [frame for frame in made_frames() + sample_frames(10) if frame[0] and not frame[0][0] & 1]
    plain = next(bytearray(data) for data, _ in found if data[12:15] == b"\x08\x00\x45")
    for source in (0, 1, 2, 3, 9, 0x0A000000, 0x0A090807, 0x0A090909, 0x0B000001):
        plain[26:30] = source.to_bytes(4, "big")
        found.append((bytes(plain), len(plain)))
    return found


def owners(desk: Desk, frames: list[Frame]) -> list[int | None]:
    found: list[int | None] = []
    for start in range(0, len(frames), 64):
        native, _keep = burst(frames[start : start + 64])
        answer = ffi.new("uint32_t[64]")
        lib.exo_demux_classify(desk.demux, native, len(frames[start : start + 64]), answer)
        found += [None if answer[i] == NO_OWNER else int(answer[i]) for i in range(len(frames[start : start + 64]))]
    return found


#: From the outermost to the innermost.
CHAINS = (
    ("ip[12:4] >= 1", "ip[12:4] >= 2", "ip[12:4] >= 3"),
    ("ip", "ip[12:4] >= 1", "ip[12:4] >= 2", "ip[12:4] >= 0x0a000000"),
    ("tcp dst port 80 or icmp", "tcp dst port 80"),
    ("port 53", "port 53 and ip6"),
    ("tcp or udp port 53", "tcp"),
    ("ip or tcp port 80", "ip"),
    ("arp or tcp dst port 80", "arp"),
    ("ip src net 10.0.0.0/8 or ip src host 11.0.0.1", "ip src net 10.0.0.0/8"),
    ("ip or arp", "ip", "ip and not net 10.9.9.0/24", "ip and not net 10.9.9.0/24 and not host 10.9.8.7"),
)


@pytest.mark.parametrize("chain", CHAINS)
def test_r04_the_innermost_wins_in_every_order(chain: tuple[str, ...], desk: Desk, frames: list[Frame]) -> None:
    taken = [[desk.bindings.prepare(text).conjuncts, text] for text in chain]
    wanted = []
    for data, wire in frames:
        holds = [place for place, (conjuncts, _) in enumerate(taken) if any(c.matches(data, wire) for c in conjuncts)]
        wanted.append(max(holds, default=None))
    assert len({place for place in wanted if place is not None}) > 1
    desk.open("all", None)
    for order in list(permutations(range(len(chain))))[:: 1 if len(chain) < 5 else 37]:
        bound = {place: desk.bind("all", chain[place]) for place in order}
        found = owners(desk, frames)
        assert found == [None if place is None else bound[place].number for place in wanted], order
        for binding in bound.values():
            desk.bindings.unbind(desk.envs["all"], binding.number)
        assert desk.conjuncts == 0


def test_a_breadth_of_its_own_stays() -> None:
    assert breadth_between(5, [1, 4], [6, 9]) == 5
    assert breadth_between(5, [], []) == 5


def test_a_breadth_comes_between_its_neighbours() -> None:
    assert breadth_between(5, [5], []) == 5 + APART
    assert breadth_between(500, [], [500]) == 500 - APART
    assert breadth_between(5, [100], [200]) == 150
    assert breadth_between(5, [], [3]) == 0


def test_no_room_is_said() -> None:
    for inside, around in (([5], [6]), ([6], [6]), ([7], [6]), ([], [0])):
        with pytest.raises(ExhaustedError, match="no room is left in the order"):
            breadth_between(5, inside, around)
