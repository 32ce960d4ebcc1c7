# SPDX-License-Identifier: MIT
"""Whatever a filter is refused for before anybody binds it: one printable line of bounded length that says what was
written, what of it is wrong, and what would be right.
"""

from collections.abc import Callable

import pytest

from exonet.cli.main import main
from exonet.errors import FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.fields import Ip, Ip6, Tcp, Udp, Vlan
from exonet.filters.syntax import to_pcap
from exonet.gate.protocol import Op, ProtocolError, decode_request, encode_request
from exonet.kernel.regions import Regions

LONGEST = 1000
LAYERS = "there is no such layer; there are Eth, Vlan, Arp, Ip"
WORDS = " and ".join(f"ether[{4 * i}] = 1" for i in range(30))

TEXTS = (
    ("Udp.dport == 70000", ("Udp.dport 70000: must be 0..65535",)),
    ("Udp.dport in [1, 70000] or Ip.ttl == 3", ("Udp.dport 70000: must be 0..65535",)),
    ("Ip.src == '10.0.0.300'", ("Ip.src '10.0.0.300': must be an IPv4 address such as",)),
    ("Vlan.id != 5", ("Vlan.id: has == only",)),
    ("Foo.bar == 5", ("Foo.bar: ", LAYERS)),
    ("Udp.dport == 5 and Foo.bar == 5", ("Foo.bar: ", LAYERS)),
    ("udp.dport == 5", ("udp.dport: ", LAYERS, "did you mean Udp.dport?")),
    ("udp.dport in [5]", ("udp.dport: ", "did you mean Udp.dport?")),
    ("Udp.Dport == 5", ("Udp.Dport: there is no such field; Udp has sport, dport; did you mean Udp.dport?",)),
    ("Udp.dprot == 5", ("Udp.dprot: there is no such field; Udp has sport, dport; did you mean", "Udp.dport?")),
    ("Tcp == 5", ("Tcp: is no field; Tcp has sport, dport, flags",)),
    ("tcp port 70000", ("illegal port number 70000 > 65535",)),
    ("ether[5000000000] = 1", ("number 5000000000 overflows 32 bits",)),
    ("ether[0] = 99999999999", ("number 99999999999 overflows 32 bits",)),
    ("tcp port -5", ("syntax error",)),
    ("vlan 5000", ("VLAN tag 5000 greater than maximum 4095",)),
    ("inbound", ("takes nothing",)),
    ("ip protochain 6", ("instruction 19 loops",)),
    (WORDS, ("it compares 30 words of a frame; at most 24",)),
    ("Udp.dport ==", ("invalid syntax",)),
    ("Udp.dport == 0x" + "f" * 10000, ("a number of 40000 bits: must be 0..65535",)),
    ("Udp.dport == " + "9" * 10000, ("4300 digits",)),
    ("Ip.src in '" + "1" * 10000 + "'", ("Ip.src.within(",)),
    ("Udp." + "x" * 60000 + " == 5", ("there is no such field",)),
    ("tcp port 80 or " * 300 + "foo", ("unknown port 'foo'",)),
    ("Udp.dport == 80 or " * 3000 + "Udp.dport == 99999", ("Udp.dport 99999: must be",)),
    ("x" * 70000, ("70000 characters; at most 65536",)),
    ("tcp\0", ("NUL",)),
    ("Udp.dport == 5\0", ("null bytes",)),
    ("tcp\nprt 80", ("syntax error",)),
    ("tcp \x1b[31m", ("syntax error",)),
    ("Udp.dport == '\x1b[31m'", ("must be a number",)),
    ("Udp.dport == 70000 \u202e", ("U+202E",)),
    ("tcp \udcff", ("character 5 is no UTF-8",)),
    ("Udp.dport == '\udcff'", ("is no UTF-8",)),
)  # fmt: skip
COMPILERS: tuple[Callable[[str], object], ...] = (compile_filter, Regions().prepare)


def written(text: str) -> str:
    """As a message has it, or the beginning of it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:80])


@pytest.mark.parametrize("compiler", COMPILERS, ids=("library", "kernel"))
@pytest.mark.parametrize(("text", "says"), TEXTS, ids=lambda part: ascii(part)[:30])
def test_a_text_is_refused(compiler: Callable[[str], object], text: str, says: tuple[str, ...]) -> None:
    with pytest.raises(FilterError) as refusal:
        compiler(text)
    said = str(refusal.value)
    names = compiler is not compile_filter and "is a name: addresses must be given" in said
    assert said.isprintable() and len(said) <= LONGEST
    assert said.startswith("filter ") and (written(text) in said or ascii(text)[1:40] in said)
    assert names or all(part in said for part in says)


@pytest.mark.parametrize(("text", "says"), TEXTS, ids=lambda part: ascii(part)[:30])
def test_the_command_line_says_it_in_a_line(
    capsys: pytest.CaptureFixture[str], text: str, says: tuple[str, ...]
) -> None:
    assert main(["filter", "explain", text]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and told.err[:-1].isprintable()
    assert all(part in told.err for part in says)


EXPRESSIONS = (
    (lambda: Udp.dport == 70000, 'filter "Udp.dport == 70000": Udp.dport 70000: must be 0..65535'),
    (lambda: Udp.dport != "x", """filter "Udp.dport != 'x'": Udp.dport 'x': must be a number 0..65535"""),
    (lambda: Udp.dport < -1, 'filter "Udp.dport < -1": Udp.dport -1: must be 0..65535'),
    (lambda: Ip.ttl >= 1 << 20000, 'filter "Ip.ttl >= a number of 20001 bits": Ip.ttl a number of 20001 bits: must'),
    (lambda: Udp.dport.between(5, 70000), 'filter "Udp.dport.between(5, 70000)": Udp.dport 70000: must be'),
    (lambda: Udp.dport.one_of([1, 2, -3]), 'filter "Udp.dport.one_of([1, 2, -3])": Udp.dport -3: must be'),
    (lambda: Tcp.flags.has(256), 'filter "Tcp.flags.has(256)": Tcp.flags 256: must be 0..255'),
    (lambda: (Tcp.flags & 2) == 999, 'filter "Tcp.flags & 0x2 == 999": Tcp.flags 999: must be 0..255'),
    (lambda: (Tcp.flags & 300) == 2, 'filter "Tcp.flags & 300": Tcp.flags 300: must be 0..255'),
    (lambda: Ip.src.within("10.0.0.0/99"), """filter "Ip.src.within('10.0.0.0/99')": """),
    (lambda: Ip.src == "\x1b[31m", """filter "Ip.src == '\\x1b[31m'": Ip.src '\\x1b[31m': must be an IPv4 address"""),
    (lambda: Ip6.src == "x" * 9999, """filter "Ip6.src == 'xxx"""),
    (lambda: Vlan.id > 5, 'filter "Vlan.id > 5": Vlan.id: has == only'),
    (lambda: (Udp.dport == 5) & 7, "filter: 7 is not a comparison; put parentheses"),
    (lambda: compile_filter(5), "filter 5: must be text or an expression"),  # type: ignore[arg-type]
    (lambda: compile_filter(b"ip"), "filter b'ip': must be text or an expression"),  # type: ignore[arg-type]
    (lambda: Regions().prepare(["ip"]), "filter ['ip']: must be text or an expression"),  # type: ignore[arg-type]
)  # fmt: skip


@pytest.mark.parametrize(("made", "says"), EXPRESSIONS, ids=lambda part: part[:40] if isinstance(part, str) else "")
def test_an_expression_is_refused(made: Callable[[], object], says: str) -> None:
    with pytest.raises(FilterError) as refusal:
        made()
    said = str(refusal.value)
    assert said.startswith(says) and said.isprintable() and len(said) <= LONGEST


@pytest.mark.parametrize("value", (
    5, -1, 10**400, 1.5, None, True, [], {"a": 1}, "tcp\0", "tcp\nport 80", "tcp \x1b[31m", "\ud800", "x" * 5000,
), ids=lambda part: ascii(part)[:20])  # fmt: skip
def test_a_bind_request_of_a_hostile_libos(value: object) -> None:
    """Before any of it reaches the filter compiler: one printable line, which the server counts as a fault."""
    fields = {"filter": value, "capability": "00", "shown": [], "port": 0, "snoop": 0}
    with pytest.raises(ProtocolError) as refusal:
        decode_request(encode_request(Op.BIND, 1, fields))
    said = str(refusal.value)
    assert said.startswith("bind: filter ") and "must be printable text of at most 1024" in said
    assert said.isprintable() and len(said) <= LONGEST


@pytest.mark.parametrize(("text", "hint"), (
    ("Udp.dport = 53", "write == to compare"),
    ("Ip.src == 10.0.0.1", 'an address is a text: Ip.src == "10.0.0.1"'),
    ("Ip6.src == 2001:db8::1", "an address is a text"),
    ("Ip.src in 10.0.0.0/8", 'a network is a text, beside `in`: Ip.src in "10.0.0.0/8"'),
    ("Udp.dport == 53 && Tcp.dport == 1", "write and, or, not"),
    ("Udp.dport == 53 and host 10.0.0.1", "pcap-filter's words cannot stand there"),
    ("tcp and Udp.dport == 53", "pcap-filter's words cannot stand there"),
    ('Ip.src.within("10.0.0.0/8")', "in text write `in`"),
    ("Udp.dport.one_of([53])", "in text write `in`"),
    ("Udp.dport.between(1, 2)", "write 1000 <= Udp.dport <= 2000"),
))  # fmt: skip
def test_an_expression_that_is_none_has_a_hint(text: str, hint: str) -> None:
    with pytest.raises(FilterError) as refused:
        to_pcap(text)
    said = str(refused.value)
    assert said.startswith(f'filter "{text}": ') and hint in said
