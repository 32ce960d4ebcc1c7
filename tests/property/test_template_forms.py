# SPDX-License-Identifier: MIT
"""Templates of everyday forms, on values of every kind: whatever they are, the fast way says what a walk says.

Each form is met with several values in a row. These are any number, the ends of a field, and what lies close to the
value before: equal, a neighbour, one bit away.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import tries
from tests.property.test_templates import as_walked

#: h: a host, n: a network of 24 bits, m: one of 12, p: a port, e: an Ethernet address,
#: r: a range of ports.
FORMS = (
    *("host {h}", "src host {h}", "net {n}", "src net {m}", "host {h} and host {h}", "src host {h} or src host {h}"),
    *("host {h} or host {h}", "src host {h} and dst host {h}", "net {n} or net {n}", "net {n} and not host {h}"),
    *("tcp and (port {p} or port {p})", "tcp dst port {p} or tcp dst port {p}", "port {p} or port {p}"),
    *("tcp dst port {p} or udp dst port {p}", "tcp dst port {p} or tcp dst port {p} or tcp dst port {p}"),
    *("host {h} and (tcp port {p} or udp port {p})", "ip dst host {h} and tcp and (dst port {p} or dst port {p})"),
    *(
        "tcp and not port {p}",
        "not host {h}",
        "not net {n}",
        "ip and not net {m}",
        "tcp dst port {p} and not src port {p}",
    ),
    *("host {h} and not port {p}", "tcp and not (dst port {p} or dst port {p})", "not (host {h} or host {h})"),
    *("ether host {e} or ether host {e}", "ether src {e} and not host {h}", "ip src host {h} and not dst net {n}"),
    *(
        "tcp dst port {p} or (tcp dst port {p} and src host {h})",
        "ip src net {n} or (ip src host {h} and udp port {p})",
    ),
    *("udp dst portrange {r}", "tcp portrange {r}", "ip and udp src portrange {r}", "vlan and tcp dst portrange {r}"),
    *("tcp dst portrange {r} and dst host {h}", "ip src host {h} and tcp and dst portrange {r} and not src port {p}"),
    *("tcp dst portrange {r} or udp dst port {p}", "tcp dst portrange {r} or tcp dst port {p}"),
    *("tcp src portrange {r} and dst portrange {r}", "ip[2:2] >= {p} and ip[2:2] <= {p}", "not tcp dst portrange {r}"),
    *("ip and (tcp dst portrange {r} or tcp dst portrange {r})", "ip6 and udp dst portrange {r} and not src port {p}"),
)
ONE_OF = {"h": 32, "n": 24, "m": 12, "p": 16, "r": 32, "e": 48}


def written(kind: str, value: int) -> str:
    if kind == "p":
        return str(value)
    if kind == "r":
        return f"{value >> 16}-{value & 65535}"
    if kind == "e":
        return value.to_bytes(6, "big").hex(":")
    width = ONE_OF[kind]
    address = ".".join(map(str, (value << 32 - width).to_bytes(4, "big")))
    return address if kind == "h" else f"{address}/{width}"


@st.composite
def ranges(draw: st.DrawFn, last: int) -> int:
    """Of any size, small, or a prefix; or with an end of the last one; now and then with the greater end first."""
    low = draw(st.one_of(values("p", last >> 16), st.sampled_from((256, 1024, 4096, 32768))))
    size = draw(st.one_of(st.integers(0, 5), st.sampled_from((8, 256, 4096, 32768)), st.integers(1, 65535)))
    high = draw(st.sampled_from((min(low + size, 65535), min(low + size - 1, 65535), last & 65535)))
    return low << 16 | max(high, 0)


def values(kind: str, last: int) -> st.SearchStrategy[int]:
    """Numbers of that kind, some of them close to the last one."""
    if kind == "r":
        return st.one_of(ranges(last), ranges(last), st.integers(0, (1 << 32) - 1))
    most = (1 << ONE_OF[kind]) - 1
    near = st.one_of(
        st.integers(0, ONE_OF[kind] - 1).map(lambda bit: last ^ 1 << bit),
        st.integers(-4, 4).map(lambda by: (last + by) % (most + 1)),
    )
    return st.one_of(st.integers(0, most), st.integers(0, most), near, st.sampled_from((0, 1, 2, most - 1, most)))


@st.composite
def texts(draw: st.DrawFn, form: str) -> list[str]:
    found, last = [], dict[str, int]()
    for _ in range(5):
        text = form
        while "{" in text:
            at = text.index("{")
            kind = text[at + 1]
            last[kind] = draw(values(kind, last.get(kind, 80)))
            text = text[:at] + written(kind, last[kind]) + text[at + 3 :]
        found.append(text)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_template_says_what_a_walk_says(form: str) -> None:
    """Conjuncts, their order and breadth; and claims, native boxes and shapes of what the kernel prepares."""

    @settings(max_examples=tries(3))
    @given(texts(form))
    def check(drawn: list[str]) -> None:
        as_walked(drawn)

    check()
