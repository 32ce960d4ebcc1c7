# SPDX-License-Identifier: MIT
"""Filters to conjuncts: agreement with libpcap, canonical form, refusals."""

import random

import pytest

from exonet.abi import lib
from exonet.errors import FilterError, MissingError
from exonet.filters.compile import compile_filter, decompose
from exonet.filters.conjunct import Base, Conjunct
from exonet.filters.form import Form, shape_of
from exonet.filters.libpcap import Libpcap
from exonet.filters.simplify import simplify
from exonet.filters.steps import MAX_STEPS, Undecomposable
from exonet.filters.walk import Walk
from tests.conftest import every_capture
from tests.demux_box import Demux, made_frames, mutate, read_capture, sample_frames
from tests.filter_list import DECOMPOSE, REFUSE


@pytest.fixture(scope="module")
def frames():
    chosen = random.Random(7)
    found = made_frames() + sample_frames(60)
    return found + [mutate(chosen.choice(found), chosen) for _ in range(600)]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("udp port 53", (53,)),
        ("udp port 53 or udp dst port 7", (7, 53)),
        ("port 53", (53,)),
        ("ip6 and udp dst port 9", (9,)),
        ("vlan 5 and udp dst port 9", (9,)),
        ("tcp port 80", ()),
        ("udp", ()),
        ("udp src port 53", ()),
    ],
)
def test_the_values_that_a_filter_fixes_a_field_to(text: str, ports: tuple[int, ...]) -> None:
    assert compile_filter(text).values_of("udp.dport") == ports


@pytest.mark.parametrize("text", DECOMPOSE)
@pytest.mark.slow
def test_r05_conjuncts_table_and_reference_equal_libpcap(text, frames):
    program = Libpcap().compile(text)
    compiled = compile_filter(text)
    demux = Demux()
    demux.bind(0, compiled.conjuncts)
    owners = demux.classify(frames)
    for (data, wire_len), owner in zip(frames, owners, strict=True):
        wanted = program.matches(data, wire_len)
        assert compiled.matches(data, wire_len) == wanted, (data.hex(), wire_len)
        assert (owner == 0) == wanted, (data.hex(), wire_len)


@pytest.mark.parametrize(
    "text",
    ("tcp port 80", "port 53", "vlan and udp port 53", "host 10.0.0.2", "not tcp port 80", "ip6 and udp", "len <= 64",
     "tcp[((tcp[12]&0xf0)>>2):4] = 0x47455420", "udp[8] & 0x80 = 0", "arp[24:4] = 0x0a000002", "icmp[icmptype] = 8"),
)  # fmt: skip
@pytest.mark.slow
def test_r05_every_truncation_equals_libpcap(text):
    program = Libpcap().compile(text)
    compiled = compile_filter(text)
    demux = Demux()
    demux.bind(0, compiled.conjuncts)
    for frame, _ in made_frames():
        cuts = [(frame[:n], wire_len) for n in range(len(frame) + 1) for wire_len in (n, len(frame))]
        for (data, wire_len), owner in zip(cuts, demux.classify(cuts), strict=True):
            wanted = program.matches(data, wire_len)
            assert compiled.matches(data, wire_len) == wanted == (owner == 0), (data.hex(), wire_len)


@pytest.mark.parametrize("path", every_capture(), ids=lambda path: path.name)
def test_r05_whole_captures_equal_libpcap(path):
    frames = read_capture(path)
    library = Libpcap()
    for text in ("tcp port 80 or udp port 53", "not tcp", "vlan and host 10.0.0.1", "ip6", "tcp dst portrange 1-1023"):
        program, demux = library.compile(text), Demux()
        demux.bind(3, compile_filter(text).conjuncts)
        for (data, wire_len), owner in zip(frames, demux.classify(frames), strict=True):
            assert program.matches(data, wire_len) == (owner == 3)


@pytest.mark.parametrize(("text", "why"), REFUSE)
def test_what_does_not_decompose_is_refused_with_the_reason(text, why):
    with pytest.raises(FilterError) as refusal:
        compile_filter(text)
    assert text in str(refusal.value)
    assert why in str(refusal.value)


def test_reference_figures_of_conjuncts_hold():
    counts = sorted(len(compile_filter(text).conjuncts) for text in DECOMPOSE)
    assert counts[len(counts) // 2] <= 2
    assert counts[len(counts) * 9 // 10] <= 16
    assert len(compile_filter("udp dst port 5001").conjuncts) == 2
    assert len(compile_filter("port 53").conjuncts) == 12
    assert len(compile_filter("len > 99").conjuncts) == 1


@pytest.mark.parametrize(("text", "message"), (
    ("tcp port 70000", 'filter "tcp port 70000": illegal port number 70000 > 65535'),
    ("tcp prt 80", 'filter "tcp prt 80": '),
    ("ip[", 'filter "ip[": '),
    ("tcp and\0", "NUL"),
))  # fmt: skip
def test_an_unparsable_filter_says_which_and_why(text, message):
    with pytest.raises(FilterError) as refusal:
        compile_filter(text)
    assert message in str(refusal.value)


def test_missing_libpcap_names_the_package():
    with pytest.raises(MissingError, match=r"libpcap0\.8"):
        Libpcap(("libnothing.so.9",))


def test_libpcap_gives_its_version_and_addresses_for_c():
    library = Libpcap()
    assert library.version.startswith("libpcap version")
    function, instructions = library.compile("ip").addresses
    assert function and instructions and function != instructions


def test_equal_filters_are_equal_objects():
    assert compile_filter("udp dst port 53").conjuncts == compile_filter("(udp) and dst port 53").conjuncts
    absolute = "ip[0] & 15 = 5 and ip proto 17 and ip[6:2] & 0x1fff = 0 and ether[36:2] = 53"
    relative = "ip[0] & 15 = 5 and udp[2:2] = 53"
    assert compile_filter(absolute).conjuncts == compile_filter(relative).conjuncts


def test_conjunct_of_is_canonical():
    one = Conjunct.of({0: (0xFF, 5)}, [(0, 0x0F, 4), (0, 0x100, 0)])
    assert one == Conjunct.of({0: (0x1FF, 0x105)})
    assert Conjunct.of({0: (0xFF, 5)}, [(0, 0x0F, 5)]) is None
    assert Conjunct.of({}) is not None and str(Conjunct.of({})) == "everything"
    assert Conjunct.of({}, frame_bytes=9) != Conjunct.of({})
    fixed = Conjunct.of({0: (0xFF << 112, 0x45 << 112), 14: (0xFF, 7)})
    assert fixed is not None and fixed.bits.keys() == {0} and fixed.frame_bytes == 35


def test_atoms_are_words_as_the_abi_has_them():
    (conjunct,) = compile_filter("ip host 10.0.0.1 and ip src host 10.0.0.1 and not ip proto 6").conjuncts
    assert conjunct.atoms == (
        (Base.FRAME, 12, 0xFFFF0000, 0x08000000),
        (Base.FRAME, 24, 0x0000FFFF, 0x00000A00),
        (Base.FRAME, 28, 0xFFFF0000, 0x00010000),
    )
    assert conjunct.excluded_atoms == ((Base.FRAME, 23, 0xFF000000, 0x06000000),)
    native = conjunct.to_native(9)
    assert (native.binding, native.atoms, native.frame_bytes) == (9, 4, conjunct.frame_bytes)
    assert conjunct.specificity == 48 << 16
    form = Form.of_conjunct(conjunct)
    assert (form.ethertype, form.protocol, len(form.lanes), len(form.excluded)) == (0x800, lib.EXO_ANY_PROTOCOL, 1, 1)


def test_conjuncts_read_as_people_name_fields():
    (v4, v6) = sorted(compile_filter("udp dst port 53").conjuncts, key=lambda c: c.ip4_bytes, reverse=True)
    assert str(v4) == "eth.type == 0x800, ip.frag == 0, ip.proto == 17, udp.dport == 53"
    assert str(v6) == "eth.type == 0x86dd, ip6.nh == 17, udp.dport == 53"
    text = str(compile_filter("ip src net 10.0.0.0/8 and not dst host 1.2.3.4").conjuncts[0])
    assert text == "eth.type == 0x800, ip.src in 10.0.0.0/8, not (ip.dst == 1.2.3.4)"
    assert "length" in str(compile_filter("len == 60").conjuncts[0])
    assert "vlan.id == 7" in str(compile_filter("vlan 7").conjuncts[0])
    assert "eth.dst == ff:ff:ff:ff:ff:ff" in str(compile_filter("broadcast").conjuncts[0])
    assert "ip6.src == 2001:db8::1" in str(compile_filter("ip6 src host 2001:db8::1").conjuncts[0])


def test_ports_merge_only_where_no_shape_is_added():
    shapes = {Form.of_conjunct(c) for c in compile_filter("tcp dst port (80 or 81 or 443 or 8080)").conjuncts}
    assert len(shapes) == 2
    assert len(compile_filter("tcp[2:2] = 80 or tcp[2:2] = 81").conjuncts) == 1


def test_many_ports_in_one_filter():
    ports = " or ".join(str(1000 + 3 * i) for i in range(100))
    compiled = compile_filter(f"udp dst port ({ports})")
    assert len(compiled.conjuncts) == 200
    assert len({Form.of_conjunct(c) for c in compiled.conjuncts}) == 2


def test_exclusions_beyond_the_atoms_are_cut_into_boxes_or_refused():
    few = " or ".join(f"ip[8] = {i * 7}" for i in range(1, 26))
    text = f"ip and not ({few})"
    program, compiled = Libpcap().compile(text), compile_filter(text)
    for ttl in range(256):
        frame = bytes(12) + b"\x08\x00" + bytes(8) + bytes((ttl,)) + bytes(20)
        assert compiled.matches(frame) == program.matches(frame)


def test_the_walk_refuses_a_returned_number():
    from exonet.filters.libpcap import Instruction

    program = (Instruction(0x30, 0, 0, 0), Instruction(0x16, 0, 0, 0))
    with pytest.raises(Undecomposable, match="computed"):
        list(Walk(program).paths())


def test_unoptimised_programs_decompose_to_the_same():
    library = Libpcap()
    for text in ("tcp port 80", "vlan 10 and ip", "ip[0] & 0xf != 5", "udp portrange 10-20"):
        frames = made_frames()
        plain, best = (decompose(library.compile(text, optimize=o)) for o in (False, True))
        for data, wire_len in frames:
            assert any(c.matches(data, wire_len) for c in plain) == any(c.matches(data, wire_len) for c in best)


def test_a_range_is_one_conjunct_per_header():
    for text, count in (
        ("tcp dst portrange 1000-2000", 2), ("portrange 1000-2000", 12), ("ip dst net 10.0.0.0/9", 1),
        ("greater 100", 1),
        ("len > 59 and len < 1501", 1), ("tcp[2:2] > 1023", 1), ("tcp[2:2] != 80", 1),
    ):  # fmt: skip
        found = compile_filter(text).conjuncts
        assert len(found) == count, text
        assert all(c.interval for c in found) or "!=" in text


def test_networks_of_all_lengths_share_a_shape():
    texts = [f"ip dst net 10.128.0.0/{n}" for n in range(9, 32)] + ["ip[16:4] > 0x0a000000 and ip[16:4] < 0x0a000009"]
    assert len({Form.of_conjunct(c) for text in texts for c in compile_filter(text).conjuncts}) == 1
    shapes = {shape_of(c) for n in range(33, 64) for c in compile_filter(f"ip6 src net 2001:db8:8000::/{n}").conjuncts}
    assert len(shapes) == 1


def test_of_two_ranges_the_longer_list_of_prefixes_becomes_the_interval():
    found = compile_filter("ip and tcp src portrange 5-9 and tcp dst portrange 1000-2000").conjuncts
    assert [str(c).partition("tcp.sport")[2] for c in found] == [
        " == 5, tcp.dport 1000..2000", " & 0xfffe == 0x6, tcp.dport 1000..2000",
        " & 0xfffe == 0x8, tcp.dport 1000..2000",
    ]  # fmt: skip


def test_intervals_read_as_ranges_and_networks():
    assert str(compile_filter("ip and udp dst portrange 7-9").conjuncts[0]).endswith("ip.proto == 17, udp.dport 7..9")
    assert str(compile_filter("ip6 dst net 2001:db8:8::/47").conjuncts[0]).endswith("ip6.dst in 2001:db8:8::/47")
    assert str(compile_filter("less 100").conjuncts[0]) == "length 0..100"
    assert str(compile_filter("ether[30:2] > 7").conjuncts[0]) == "frame[30:2] 0x8..0xffff"
    text = str(compile_filter("vlan and vlan and ip src net 10.0.0.0/9").conjuncts[0])
    assert text.endswith("ip.src in 10.0.0.0/9")


@pytest.mark.parametrize(
    "text",
    ("5 < ip[8]",
     "5 <= ip[8]", "5 > ip[8]", "5 >= ip[8]", "0x40 = ip[8]", "0x40 != ip[8]", "ip and -ip[8] = 0xfffffff8",
     "ip and -ip[8] > 0xffffff80", "ip[8] % 3 = 1", "ip[8] / 7 = 2", "ip[8] * 3 > 700", "(ip[8] + 3) & 7 = 2",
     "ip[8:2] & 0xf000 = ip[8:2] & 0x7000", "ip[8] & 0xf0 >= ip[8] & 0x3f"),
)  # fmt: skip
def test_every_value_of_a_byte_is_decided_as_libpcap_does(text):
    program, compiled = Libpcap().compile(text), compile_filter(text)
    frames = [bytes(12) + b"\x08\x00\x45" + bytes(7) + bytes((value,)) + bytes(20) for value in range(256)]
    assert [compiled.matches(data) for data in frames] == [program.matches(data) for data in frames]


HOSTS = " or ".join(f"dst host 10.1.{i}.{i * 7 % 256}" for i in range(100))
FIELDS = " and ".join(f"(udp[{8 + 4 * i}:4]={i + 3} or udp[{100 + 4 * i}:4]={i + 77})" for i in range(10))


@pytest.mark.parametrize(
    ("text", "steps"), [(HOSTS, 6_000), (" or ".join(f"tcp port {3 * i + 7}" for i in range(299)), 20_000)]
)
def test_what_the_program_accepts_at_once_is_excluded_of_no_other_way(text: str, steps: int) -> None:
    walk = Walk(Libpcap().compile(text).instructions)
    assert not any(conjunct.excluded for conjunct in simplify(walk))
    assert walk.steps.taken < steps


@pytest.mark.parametrize(
    "text",
    [
        f"ip and udp and {FIELDS}",
        f"udp and ({HOSTS}) and ({HOSTS.split(' or dst host 10.1.30')[0].replace('dst', 'src')})",
        " or ".join(f"(udp[{8 + i}]>{i} and udp[{9 + i}]<{i + 100})" for i in range(60)),
    ],
)
@pytest.mark.slow
def test_a_filter_that_takes_too_many_steps_is_refused_by_name(text: str) -> None:
    with pytest.raises(FilterError, match=rf"filter .*cannot be .*: it takes more than {MAX_STEPS} steps to decompose"):
        compile_filter(text)
