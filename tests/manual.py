# SPDX-License-Identifier: MIT
"""The examples of pcap-filter(7) and tcpdump(8), and what becomes of each: the tables of FILTERS.md.

python -m tests.manual: writes the tables anew, between their marks. Names of hosts and networks that the pages
invent are replaced by numbers (`NAMES`), so nothing is resolved; what they leave open (an address, a number) is filled
in.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exonet.errors import ExonetError, FilterError
from exonet.filters.compile import compile_filter
from exonet.filters.form import Form
from exonet.filters.libpcap import Libpcap
from exonet.kernel.capability import Quota
from exonet.kernel.regions import Regions
from tests.conftest import ROOT
from tests.expressions import every
from tests.filter_list import DECOMPOSE, REFUSE
from tests.odd_expressions import ODD

PATH = ROOT / "FILTERS.md"
BEGIN, END = "<!-- {}: written by python -m tests.manual -->", "<!-- end of {} -->"

#: What stands for the pages' invented names, all from the ranges for documentation.
NAMES = {
    "sundown": "192.0.2.1", "helios": "192.0.2.2", "hot": "192.0.2.3", "ace": "192.0.2.4", "vs": "192.0.2.5",
    "foo": "192.0.2.6", "ucb-ether": "198.51.100.0/24", "localnet": "203.0.113.0/24", "bar": "198.51.100.0/24",
}  # fmt: skip

TCPDUMP = """
host sundown; host helios and (hot or ace); ip host ace and not helios; net ucb-ether
gateway snup and (port ftp or ftp-data); ip and not net localnet
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net localnet
tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack)
tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0); gateway snup and ip[2:2] > 576
ether[0] & 1 = 0 and ip[16] >= 224; icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply; tcp[13] == 2
tcp[13] & 2 == 2; tcp[tcpflags] & tcp-push != 0
"""
EXAMPLES = """
host foo; net 128.3; port 20; portrange 6000-6008; src host foo; dst net 128.3; src or dst port ftp-data
ether src 0:2:3:4:5:6; arp net 128.3; tcp port 21; udp portrange 7000-7009; wlan addr2 0:2:3:4:5:6; net bar; port 53
host foo and not port ftp and not port ftp-data; tcp dst port ftp or ftp-data or domain
tcp dst port ftp or tcp dst port ftp-data or tcp dst port domain; ip host 192.0.2.1
ether proto \\ip and host 192.0.2.1; ether host 00:00:5e:00:53:01 and not host 192.0.2.1; dst port 513; port domain
ip6 protochain 6; ip6 protochain 44; ether[0] & 1 != 0; fddi proto \\arp; tr proto \\arp; wlan proto \\arp
vlan 100 && vlan 200; vlan && vlan 300 && ip; mpls 100000 && mpls 1024; mpls && mpls 1024 && host 192.9.200.1
pppoes 0x27 && ip; geneve 0xb && ip; ip[0] & 0xf != 5; ip[6:2] & 0x1fff = 0; tcp[0] = 0; not host vs and ace
not host vs and host ace; not (host vs or ace)
icmp6[icmp6type] != icmp6-echo and icmp6[icmp6type] != icmp6-echoreply
"""
PRIMITIVES = """
dst host 192.0.2.1; src host 192.0.2.1; host 192.0.2.1; host 2001:db8::1; arp host 192.0.2.1; rarp host 192.0.2.1
ip6 host 2001:db8::1; ether dst 00:00:5e:00:53:01; ether src 00:00:5e:00:53:01; ether host 00:00:5e:00:53:01
gateway snup; dst net 192.0.2; src net 192.0.2; net 192.0; net 192; net 192.0.2.0 mask 255.255.255.0
net 192.0.2.0/24; net 2001:db8::/32; dst port 53; src port 53; tcp src port 80; dst portrange 6000-6008
src portrange 6000-6008; less 100; greater 100; len <= 100; len >= 100; ip proto 17; ip proto \\udp; icmp
ip6 proto 17; icmp6; proto 17; ah; esp; pim; sctp; tcp; udp; ip protochain 17; protochain 17; ether broadcast
broadcast; ip broadcast; ether multicast; multicast; ip multicast; ip6 multicast; ether proto 0x88cc; ip; ip6; arp
rarp; atalk; aarp; decnet; iso; stp; ipx; netbeui; ether proto loopback; ether proto \\sca; lat; moprc; mopdl
decnet src 10.123; decnet dst 10.123; decnet host 10.123; llc; llc i; llc s; llc u; llc rr; llc rnr; llc rej; llc ui
llc ua; llc disc; llc sabme; llc test; llc xid; llc frmr; inbound; outbound; ifname eth0; on eth0; rnr 1; rulenum 1
reason match; rset main; ruleset main; srnr 1; subrulenum 1; action pass; wlan ra 0:2:3:4:5:6; wlan ta 0:2:3:4:5:6
type mgt; type mgt subtype beacon; subtype beacon; dir tods; vlan; vlan 100; mpls; mpls 1024; pppoed; pppoes
pppoes 0x27; geneve; geneve 0xb; iso proto \\clnp; clnp; esis; isis; l1; l2; iih; lsp; snp; csnp; psnp; vpi 1; vci 1
lane; oamf4s; oamf4e; oamf4; oam; metac; bcc; sc; ilmic; connectmsg; metaconnect; ip[8] + 1 > 2; ip[8] - 1 < 9
ip[8] * 2 = 10; ip[8] / 2 = 5; ip[8] % 2 = 1; ip[8] % 3 = 1; ip[8] | 1 = 5; ip[8] ^ 1 = 5; ip[8] << 1 = 8
ip[8] >> 1 = 4; ip[2:2] = len; link[0] = 2; icmp[icmptype] = icmp-unreach; icmp[icmpcode] = 1; icmp6[icmp6code] = 1
tcp[tcpflags] & (tcp-ece|tcp-cwr) != 0
"""
TABLES = {"tcpdump": TCPDUMP, "pcap-filter": EXAMPLES, "primitives": PRIMITIVES}


def listed(table: str) -> list[str]:
    """The filters of a list: they are separated by semicolons and lines."""
    return [part for part in re.split(r"; |\n", table) if part]


def with_numbers(text: str) -> str:
    for name, number in NAMES.items():
        text = re.sub(rf"(?<![\w-]){name}(?![\w-])", number, text)
    return text


#: The lists of expressions that are counted.
POPULATIONS: dict[str, tuple[str, ...]] = {
    "libpcap's own tests of its compiler (`tests/expressions.py`)": every(),
    "the three tables below": tuple(with_numbers(text) for each in TABLES.values() for text in listed(each)),
    "what the tests walk through (`tests/filter_list.py`)": (*DECOMPOSE, *(text for text, _ in REFUSE)),
    "odd ones, written down by an auditor (`tests/odd_expressions.py`)": tuple(ODD),
}


@dataclass(frozen=True, slots=True)
class Count:
    """Of a list: how many libpcap compiles, and of these the ones that do not bind, by reason.

    nothing: no Ethernet frame has what they ask for. names: they need a name server. refused: all others, with what is
    said.
    """

    compile: int
    nothing: tuple[str, ...]
    names: tuple[str, ...]
    refused: dict[str, str]

    @property
    def asked(self) -> int:
        return self.compile - len(self.nothing) - len(self.names)

    @property
    def bind(self) -> int:
        return self.asked - len(self.refused)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """With the usual quota of a LibOS, on a port that is empty."""
        compiled, nothing, names, refused = 0, [], [], {}
        for text in dict.fromkeys(texts):
            try:
                Libpcap().compile(text)
            except FilterError:
                continue
            compiled += 1
            said = refusal(text)
            if said and "it takes nothing" in said:
                nothing.append(text)
            elif said and "is a name" in said:
                names.append(text)
            elif said:
                refused[text] = said
        return cls(compiled, tuple(nothing), tuple(names), refused)


@functools.cache  # some seconds
def counted(name: str) -> Count:
    """Of one of the POPULATIONS."""
    return Count.of(POPULATIONS[name])


def refusal(text: str) -> str | None:
    """Why it does not bind; None: it does."""
    try:
        conjuncts, quota = Regions().prepare(text).conjuncts, Quota()
        quota.charge("conjuncts", 0, len(conjuncts), "libos")
        quota.charge("shapes", 0, len({Form.of_conjunct(conjunct) for conjunct in conjuncts}), "libos")
    except ExonetError as error:
        return str(error)
    return None


def populations() -> str:
    """The table of how many bind."""
    lines = ["| expressions | libpcap compiles | take nothing | need a name server | bind of the rest | in 100 |"]
    lines.append("|---|---|---|---|---|---|")
    for name in POPULATIONS:
        count = counted(name)
        share = f"{100 * count.bind / count.asked:.1f}"
        row = (name, count.compile, len(count.nothing), len(count.names), f"{count.bind} of {count.asked}", share)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def reason(text: str, error: Exception) -> str:
    """Without the filter, which stands in its own column."""
    return str(error).removeprefix(f'filter "{text}": ').replace("|", "\\|")


def row(text: str) -> str:
    """One row of a table: what was written, what it becomes, and the detail."""
    asked = with_numbers(text)
    shown = _code(text) if asked == text else f"{_code(text)}<br>as {_code(asked)}"
    try:
        Libpcap().compile(asked)
    except FilterError as error:
        return f"| {shown} | libpcap refuses it | {reason(asked, error)} |"
    try:
        found = compile_filter(asked).conjuncts
        shapes = len({Form.of_conjunct(conjunct) for conjunct in found})
    except ExonetError as error:
        return f"| {shown} | **refused** | {reason(asked, error)} |"
    return f"| {shown} | compiles | {_count(len(found), 'conjunct')}, {_count(shapes, 'shape')} |"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def table(name: str) -> str:
    if name == "populations":
        return populations()
    rows = [row(text) for text in listed(TABLES[name])]
    return "\n".join(["| filter | | |", "|---|---|---|", *rows])


def filled(document: str, made: Callable[[str], str] = table) -> str:
    """The document with every table as it is now, and the version of libpcap."""
    for name in ("populations", *TABLES):
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = document.partition(begin)
        after = rest.partition(end)[2]
        document = f"{before}{begin}\n\n{made(name)}\n\n{end}{after}"
    return re.sub(r"libpcap version [\d.]+", version(), document)


def version() -> str:
    """As "libpcap version 1.10.3", of what is installed here."""
    found = re.match(r"libpcap version [\d.]+", Libpcap().version)
    return found.group() if found else Libpcap().version


def main(path: Path = PATH) -> None:
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
