# SPDX-License-Identifier: MIT
"""Templates on values that collide: whatever a text's constants, the fast way says what a walk of that text says.

Texts are drawn from a grammar of the usual forms. Several of one form meet the templates that the first one made; their
values are zero, all ones, equal to each other, and numbers that the programs themselves compare with.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import tries
from tests.property.test_templates import as_walked

PORTS = ("0", "1", "6", "80", "81", "1536", "2048", "65535")
HOSTS = ("0.0.0.0", "255.255.255.255", "10.0.0.1", "10.0.0.2", "0.6.0.6", "8.0.134.221")
HOSTS6 = ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1", "2001:db8::1", "2001:db8:2001:db8:2001:db8:2001:db8")
ETHERS = ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", "02:00:02:00:02:00", "08:00:08:00:08:00")
VALUES = {
    "p": PORTS,
    "h": HOSTS,
    "H": HOSTS6,
    "e": ETHERS,
    "v": ("0", "1", "6", "2048", "4095"),
    "n": ("0.0.0.0/8", "10.0.0.0/8", "255.0.0.0/8", "6.0.0.0/8"),
    "m": ("0.0.0.0/12", "10.16.0.0/12", "255.240.0.0/12"),
    "N": ("::/48", "2001:db8::/48", "2001:db8:2001::/48", "ffff:ffff:ffff::/48"),
    "w": ("0", "6", "2048", "33024", "34525", "65535"),
    "b": ("0", "1", "6", "17", "44", "69", "255"),
}
#: Conditions; a letter in braces is a value.
PARTS = (
    *("src host {h}", "dst host {h}", "host {h}", "ip host {h}", "ip src host {h}", "arp host {h}"),
    *("src host {H}", "dst host {H}", "host {H}", "ip6 src host {H}", "ip6 dst host {H}"),
    *("src port {p}", "dst port {p}", "port {p}", "tcp", "udp", "icmp", "ip", "ip6", "tcp dst port {p}"),
    *("udp port {p}", "src net {n}", "ip dst net {m}", "net {n}", "ip6 dst net {N}", "ip6 src net {N}"),
    *("ether src {e}", "ether dst {e}", "ether host {e}", "tcp dst portrange 80-{p}", "ip proto {b}"),
    *("ether[12:2] = {w}", "ether[26:2] = {w}", "ether[30] = {b}", "ip[12:2] = {w}", "ip[14:2] = {w}", "ip[15] = {b}"),
    *("ip[0] = {b}", "ether[34:2] = {w}", "ip6[14:2] = {w}", "ip6[6] = {b}", "ip[8] & 0xf0 = {b}", "ip[8] = {b}"),
)
#: Forms that are asked for by themselves, too.
WHOLE = (
    "ip6 and tcp and src host {H} and dst host {H} and src port {p} and dst port {p}",
    "tcp and src host {h} and dst host {h} and src port {p} and dst port {p}",
    "host {h} and port {p}",
    "host {H} and port {p}",
    "(tcp port {p} and ip host {h}) or (udp port {p} and ip6 host {H})",
    "tcp dst port {p} or udp dst port {p}",
    "ip host {h} or arp host {h}",
    "host {h} or ip6 host {H}",
    "tcp and not dst port {p}",
    "ip[12:2] = {w} and not ip[14:2] = {w}",
    "ip[12:2] = {w} and ip[14] = {b} and not ip[15] = {b}",
    "ether[12:2] = {w} and ether[26:2] = {w} and ether[30] = {b}",
    "vlan {v} and tcp and src host {h} and dst host {h} and src port {p} and dst port {p}",
    "tcp[0:2] = {w} and (ip[8] = 1 or tcp[0:2] = {w})",
    "(ip[8] = {b} and tcp[0:2] = {w}) or (ip[1] = {b} and tcp[0:2] = {w})",
    "(ip proto 16 and ip[12:2] = {w}) or (ip proto 17 and ip[12:2] = {w})",
    "(ip proto 16 and ip src host {h}) or (ip proto 17 and ip[14:2] = {w})",
    "ether[40:2] = {w} and (ether[50] = {b} or ether[40:2] = {w} or ether[52] = {b})",
)


@st.composite
def forms(draw: st.DrawFn) -> str:
    """A form; perhaps behind a tag, perhaps with something negated."""
    if draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(WHOLE))
    parts = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))
    text = parts[0]
    for part in parts[1:]:
        text += draw(st.sampled_from((" and ", " and ", " and ", " or ", " and not "))) + part
    return draw(st.sampled_from(("", "", "", "vlan {v} and ", "ether[54] = {b} and "))) + text


@st.composite
def alike(draw: st.DrawFn) -> list[str]:
    """Several texts of one form. Often a value is the one drawn before it of its kind."""
    form = draw(forms())
    texts = []
    for _ in range(draw(st.integers(3, 5))):
        text, last = form, dict[str, str]()
        while "{" in text:
            at = text.index("{")
            kind = text[at + 1]
            if kind not in last or draw(st.booleans()):
                last[kind] = draw(st.sampled_from(VALUES[kind]))
            text = text[:at] + last[kind] + text[at + 3 :]
        texts.append(text)
    return texts


@settings(max_examples=tries(50))
@given(alike())
def test_whatever_the_values_a_template_says_what_a_walk_says(texts: list[str]) -> None:
    """Conjuncts, their order and breadth; and claims, native boxes and shapes of what the kernel prepares."""
    as_walked(texts)
