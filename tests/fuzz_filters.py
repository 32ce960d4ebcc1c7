# SPDX-License-Identifier: MIT
"""Random filters on random frames: native = table = reference = libpcap, one by one and many in one demux.

python -m tests.fuzz_filters --seconds 600 [--seed N]: says how many evaluations there were, and stops at the first
disagreement with the filter, the frame and the seed of its round. One evaluation is one frame and one filter, asked of
all that answer; the reference (slow) is asked about every so-many-th frame. Frames lie against memory nobody may read.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from exonet.errors import ExonetError, FilterError
from exonet.filters.compile import CompiledFilter, compile_filter, conjuncts_of
from exonet.filters.libpcap import Libpcap, Program
from exonet.filters.native import available
from exonet.filters.reference import Reference
from exonet.filters.template import Templates
from tests.demux_box import Demux, Frame, mutate, sample_frames
from tests.guarded import Arena, Codes
from tests.header_frames import cut, header_frames

LONGEST = 2000
KEPT_CODES = 3000
PORTS = (0, 1, 7, 25, 53, 67, 68, 80, 1023, 1024, 5672, 6081, 65535)
HOSTS = ("10.20.30.40", "10.20.30.41", "10.9.0.1", "10.9.0.2", "0.0.0.0", "255.255.255.255")
SIX = ("fd00:a1b2:c3d4::1020:3040:5060:7080", "fd09::1", "fd09::2", "ff02::1")
PROTOCOLS = ("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "ah", "esp", "vrrp", "llc",
             "llc s", "llc u", "iso", "isis", "stp", "ipx", "atalk", "aarp", "decnet", "netbeui", "multicast",
             "broadcast", "ip multicast", "ip6 multicast", "pppoed")  # fmt: skip
BEFORE = ("vlan", "vlan 10", "vlan and vlan", "vlan 100 and vlan 4095", "mpls", "mpls 100", "mpls and mpls", "pppoes",
          "pppoes 1234", "vlan and pppoes", "geneve 12345")  # fmt: skip


class Disagreement(Exception):
    """Which two, on what."""


def primitive(chosen: random.Random) -> str:
    """One condition; its numbers are such as frames here have, or near them."""
    way = chosen.choice(("", "src ", "dst ", "src and dst "))
    number = (chosen.choice(PORTS) + chosen.choice((0, 0, 0, 1, -1))) & 0xFFFF
    other = chosen.choice(PORTS)
    kind = chosen.choice(("", "tcp ", "udp ", "sctp "))
    host, six = chosen.choice(HOSTS), chosen.choice(SIX)
    width = chosen.randint(0, 32)
    network = int.from_bytes(bytes(map(int, host.split("."))), "big") >> 32 - width << 32 - width if width else 0
    relation = chosen.choice(("=", "!=", "<", ">", "<=", ">="))
    header = chosen.choice(("ether", "ip", "ip6", "tcp", "udp", "icmp", "arp", "sctp"))
    size = chosen.choice((1, 2, 4))
    at = chosen.randrange(0, 24)
    mask = chosen.choice(("", "", f" & {chosen.getrandbits(8 * size):#x}", f" >> {chosen.randint(1, 7)}",
                          f" & {chosen.choice((0x0F, 0xF0, 0xFF, 1)):#x}", f" << {chosen.randint(1, 3)}",
                          f" - {chosen.randint(0, 9)}", f" + {chosen.randint(0, 9)}"))  # fmt: skip
    value = chosen.choice((0, 1, 4, 5, 6, 8, 17, 0x45, 64, number, chosen.getrandbits(8 * size)))
    return chosen.choice((
        lambda: chosen.choice(PROTOCOLS),
        lambda: f"{kind}{way.replace('and', 'or')}port {number}",
        lambda: f"{kind}{way.replace('and', 'or')}portrange {number}-{other}",
        lambda: f"{way}host {host}",
        lambda: f"{way}host {six}",
        lambda: f"{way}net {'.'.join(map(str, network.to_bytes(4, 'big')))}/{width}",
        lambda: f"{way}net {six.partition(':')[0]}::/16",
        lambda: f"ip proto {value & 255}",
        lambda: f"ip6 proto {value & 255}",
        lambda: f"ether proto {number}",
        lambda: f"{header}[{at}:{size}]{mask} {relation} {value}",
        lambda: f"{header}[{at}:{size}]{mask} {relation} {value}",
        lambda: f"len {relation} {chosen.choice((14, 34, 60, 64, 100, 1500))}",
        lambda: chosen.choice(("ip[6:2] & 0x1fff = 0", "ip[6:2] & 0x3fff != 0", "ip[0] & 15 > 5", "tcp[13] & 3 != 0")),
    ))()  # fmt: skip


def random_filter(chosen: random.Random) -> str:
    """Up to four conditions, some negated, perhaps behind tags."""
    text = primitive(chosen)
    for _ in range(chosen.choice((0, 0, 1, 1, 2, 3))):
        text = f"({text}) {chosen.choice(('and', 'or'))} {chosen.choice(('', '', 'not '))}({primitive(chosen)})"
    if chosen.random() < 0.2:
        text = f"{chosen.choice(BEFORE)} and ({text})"
    return f"not ({text})" if chosen.random() < 0.1 else text


class FrameSource:
    """Frames of captures and of every header, mutated, cut, or random from some header on."""

    def __init__(self, per_capture: int) -> None:
        plain = header_frames(thin=3)
        plain += [(data[:LONGEST], wire_len) for data, wire_len in sample_frames(per_capture)]
        self._pool = plain + cut(plain)

    def take(self, chosen: random.Random, count: int) -> list[Frame]:
        return [self._one(chosen) for _ in range(count)]

    def _one(self, chosen: random.Random) -> Frame:
        frame = chosen.choice(self._pool)
        how = chosen.random()
        if how < 0.25:
            return frame
        if how < 0.8:
            return mutate(frame, chosen)
        keep = chosen.choice((0, 12, 14, 15, 24, 34, 54))
        data = frame[0][:keep] + chosen.randbytes(chosen.randint(0, 120))
        return data, len(data) + chosen.choice((0, 0, chosen.randint(0, 65535 - len(data))))


class Fuzz:
    """Counts what it has compared. Raises Disagreement."""

    def __init__(self, *, frames: int, per_capture: int, every: int) -> None:
        self.counts: Counter[str] = Counter()
        self._source = FrameSource(per_capture)
        self._every = every
        self._arena = Arena([(bytes(LONGEST), LONGEST)] * frames)
        self._codes = Codes()
        self._templates = Templates(conjuncts_of)

    def round(self, seed: int, filters: int) -> None:
        """Other frames, so many filters one by one, and then all of them at once."""
        chosen = random.Random(seed)
        self._arena.fill(self._source.take(chosen, len(self._arena.frames)))
        bound = []
        for _ in range(filters):
            compiled = self._compiled(random_filter(chosen))
            if compiled:
                wanted = self._alone(*compiled)
                if wanted is not None:
                    bound.append((compiled[0], wanted))
        self._together(bound)
        if len(self._codes) > KEPT_CODES:
            self._codes.clear()

    def _compiled(self, text: str) -> tuple[CompiledFilter, Program] | None:
        try:
            program = Libpcap().compile(text)
        except FilterError:
            self.counts["refused by libpcap"] += 1
            return None
        try:
            return compile_filter(text, self._templates), program
        except FilterError as reason:
            empty = "it takes nothing" in str(reason)
            self.counts["take no frame" if empty else "do not decompose"] += 1
            return None

    def _alone(self, compiled: CompiledFilter, program: Program) -> list[bool] | None:
        frames, demux = self._arena.frames, Demux()
        try:
            demux.bind(0, compiled.conjuncts)
        except ExonetError:
            self.counts["over a limit of the demux"] += 1
            return None
        wanted = [program.matches(*frame) for frame in frames]
        self._same(compiled.text, "table", wanted, [owner == 0 for owner in self._arena.classify(demux)])
        self._same(compiled.text, "reference", wanted[:: self._every],
                   [compiled.matches(*frame) for frame in frames[:: self._every]], self._every)  # fmt: skip
        if available():
            self._codes.install(demux)
            self._same(compiled.text, "native", wanted, [owner == 0 for owner in self._arena.classify(demux)])
        self.counts["filters"] += 1
        self.counts["evaluations"] += len(frames)
        self.counts["of them taken"] += sum(wanted)
        self.counts["of them asked of the reference"] += len(wanted[:: self._every])
        return wanted

    def _same(self, text: str, who: str, wanted: Sequence[object], found: Sequence[object], step: int = 1) -> None:
        if found == wanted:
            return
        place = next(i for i, (one, other) in enumerate(zip(wanted, found, strict=True)) if one != other)
        data, wire_len = self._arena.frames[place * step]
        raise Disagreement(
            f"{who} says {found[place]} for filter {text!r}, not {wanted[place]}: frame {data.hex()}, {wire_len} bytes "
            "on the wire"
        )

    def _together(self, bound: Sequence[tuple[CompiledFilter, list[bool]]]) -> None:
        """All in one demux: the owner is one that takes the frame and of the best rank, and all takers are found."""
        demux, reference, held = Demux(), Reference(), set[int]()
        for binding, (compiled, _) in enumerate(bound):
            codes = [demux.insert(binding, conjunct) for conjunct in compiled.conjuncts]
            if any(codes):
                demux.remove(binding)
                continue
            held.add(binding)
            for conjunct in compiled.conjuncts:
                reference.insert(binding, conjunct)
        table = self._arena.classify(demux)
        for place in range(0, len(table), self._every):
            frame, takers = self._arena.frames[place], {b for b in held if bound[b][1][place]}
            found, wanted = self._arena.match_all(demux, place), reference.classify(*frame)
            ranks = [min((c.rank[:2] for c in bound[b][0].conjuncts if c.matches(*frame)), default=None)
                     for b in (table[place], wanted) if b is not None]  # fmt: skip
            if found != takers or (wanted is None) != (table[place] is None) or len(set(ranks)) > 1:
                raise Disagreement(
                    f"{len(held)} bindings: owner {table[place]}, takers {found}; not {wanted}, {takers}: frame "
                    f"{frame[0].hex()}, {frame[1]} bytes on the wire"
                )
        if available():
            self._codes.install(demux)
            self._same(f"of {len(held)} bindings", "native", table, self._arena.classify(demux))
        self.counts["demuxes of many"] += 1
        self.counts["bindings in them"] += len(held)
        self.counts["frames asked of them"] += len(table)


def run(fuzz: Fuzz, seed: int, seconds: float, say: Callable[[str], object]) -> int:
    """Returns how many disagreements there were: 0 or 1."""
    start, told = time.monotonic(), time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            fuzz.round(seed, 25)
        except Disagreement as found:
            say(f"seed {seed}: {found}")
            return 1
        seed += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(f"{told - start:.0f} s, {fuzz.counts['evaluations']:,} evaluations")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares every classifier with libpcap on random filters and frames.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next")
    parser.add_argument("--frames", type=int, default=2000, help="frames of a round (default 2000)")
    given = parser.parse_args()
    fuzz = Fuzz(frames=given.frames, per_capture=200, every=10)
    wrong = run(fuzz, given.seed, given.seconds, lambda line: print(line, flush=True))
    for what, count in sorted(fuzz.counts.items()):
        print(f"{count:>14,}  {what}")
    print(f"{wrong:>14,}  disagreements")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
