# SPDX-License-Identifier: MIT
"""What a person types, as plans: bindings, LibOS addresses, numbers, rates."""

import pytest

from exonet.clock import Clock
from exonet.errors import UsageError
from exonet.filters.compile import compile_filter
from exonet.filters.region import Kind, Region, relation
from exonet.lab.plan import Networks, Settings, Tenant, merge, parse_count, parse_interface, parse_mac, parse_ring
from exonet.lab.rates import Rate


def test_a_binding_is_a_name_and_a_filter() -> None:
    assert Tenant.parse_binding("web=tcp port 80") == Tenant("web", ("tcp port 80",))


def test_options_stand_behind_the_filter() -> None:
    tenant = Tenant.parse_binding("dns=udp port 53,stack=echo,inline,local=10.0.0.1/24,local=fd00::1/64,buffers=64")
    assert tenant == Tenant("dns", ("udp port 53",), "echo", False, ("10.0.0.1/24", "fd00::1/64"), buffers=64)
    assert Tenant.parse_binding("a=ip,process,local=any,mac=02:00:00:00:00:0A") == Tenant(
        "a", ("ip",), process=True, local="any", mac="02:00:00:00:00:0a"
    )


@pytest.mark.parametrize(
    "text", ["ether[0:4] = 1, 2", "Udp.dport in [53, 67]", "Udp.dport == 53", "tcp port 80 or (udp, 5)", "a=b"]
)
def test_a_filter_may_hold_commas_and_equals_signs(text: str) -> None:
    assert Tenant.parse_binding(f"x={text},stack=echo").bindings == (text,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp port 80", "it must be NAME=FILTER"),
        ("=tcp", "it must be NAME=FILTER"),
        ("a b=tcp", "it must be NAME=FILTER"),
        ("web=", "the filter is empty"),
        ("web= ,stack=echo", "the filter is empty"),
        ("web=tcp,local=300.0.0.1", '"300.0.0.1" is not an address'),
        ("web=tcp,mac=banana", '"banana" is not a MAC address'),
        ("web=tcp,mac=01:00:00:00:00:00", "is a group address"),
        ("a b=tcp", '"a b" is no name, which has 1 to 64 letters, digits'),
        ("x" * 65 + "=tcp", "is no name"),
        ("Udp.dport == 53", '"Udp.dport " is no name'),
        ("web=tcp port 80,stak=echo", '--bind web: "stak" is no option; the options are process, inline, stack=…'),
        ("web=tcp port 80, stak = echo", '"stak" is no option'),
        ("web=tcp port 80,stak=echo,inline", '"stak" is no option'),
        ("web=tcp port 80,inlin", '"inlin" is no option'),
        ("web=Udp.dport in [53, 67],bufers=8", '"bufers" is no option'),
        ("web=tcp,buffers=0", '"0" must be a whole number, 1..32768'),
    ],
)
def test_a_bad_binding_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tenant.parse_binding(text)
    assert message in str(caught.value)
    assert text in str(caught.value) or "web" in str(caught.value)


def test_the_same_name_again_adds_a_filter() -> None:
    parsed = [
        Tenant.parse_binding(text) for text in ("web=tcp port 80", "dns=udp port 53", "web=tcp port 443,stack=echo")
    ]
    assert merge(parsed) == (
        Tenant("web", ("tcp port 80", "tcp port 443"), "echo"),
        Tenant("dns", ("udp port 53",)),
    )


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("stack=echo", "stack=sink", "stack=echo and stack=sink"),
        ("stack=sink", "stack=echo", "stack=sink and stack=echo"),
        ("inline", "process", "it is process or inline, not both"),
        ("side=clients", "side=servers", "side=clients and side=servers"),
        ("mac=02:00:00:00:00:01", "mac=02:00:00:00:00:02", "mac=02:00:00:00:00:01 and mac=02:00:00:00:00:02"),
        ("buffers=8", "buffers=16", "buffers=8 and buffers=16"),
        ("local=any", "local=none", "local=any and local=none"),
        ("local=none", "local=10.0.0.1/24", "local=none and local=10.0.0.1/24"),
        ("local=fd00::1", "local=any", "local=fd00::1/128 and local=any"),
    ],
)
def test_options_of_a_name_must_not_contradict(one: str, other: str, said: str) -> None:
    first, second = (Tenant.parse_binding(f"a=tcp port {n},{option}") for n, option in ((80, one), (53, other)))
    between = Tenant.parse_binding("a=udp")
    with pytest.raises(UsageError, match=r"^--bind a: ") as caught:
        merge([first, between, second])
    assert said in str(caught.value)
    with pytest.raises(UsageError, match=r'^binding "a=tcp,') as caught:
        Tenant.parse_binding(f"a=tcp,{one},{other}")
    assert said in str(caught.value)


def test_options_of_a_name_may_be_repeated() -> None:
    options = "stack=echo,inline,side=clients,mac=02:00:00:00:00:0A,buffers=8,local=10.0.0.1/24,port=7"
    again = options.replace("0A", "0a").replace("=8", "=08")
    one, other = Tenant.parse_binding(f"a=tcp,{options}"), Tenant.parse_binding(f"a=udp,{again},port=9,local=fd00::1")
    (both,) = merge([one, other, one])
    assert both.bindings == ("tcp", "udp", "tcp")
    assert (both.stack, both.process, both.side, both.buffers) == ("echo", False, "clients", 8)
    assert (both.addresses, both.ports) == (("10.0.0.1/24", "fd00::1/128"), (7, 9))


NETWORK = Networks.parse(["10.7.0.1/24", "fd07::1/64"])


def test_a_libos_is_bound_to_its_addresses() -> None:
    tenant = Tenant.parse_libos("echo@10.7.0.2+fd07::2,inline", NETWORK)
    assert tenant == Tenant(
        "echo-10.7.0.2",
        ("dst host 10.7.0.2", "dst host fd07::2"),
        "echo",
        False,
        ("10.7.0.2/24", "fd07::2/64"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo", "it must be LIBOS@ADDRESS"),
        ("echo@", "it must be LIBOS@ADDRESS"),
        ("@10.7.0.2", "it must be LIBOS@ADDRESS"),
        ("echo@10.7.0.256", '"10.7.0.256" is not an address'),
        ("echo@10.7.0.1", "it is the host's own"),
        ("echo@10.8.0.2", "it must lie in 10.7.0.0/24, fd07::/64"),
        ("echo@10.7.0.2,fast", '"fast" is no option; the options are process, inline'),
    ],
)
def test_a_bad_libos_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tenant.parse_libos(text, NETWORK)
    assert message in str(caught.value)


def test_a_host_address_needs_its_prefix() -> None:
    with pytest.raises(UsageError, match=r"--host: 10\.7\.0\.1 has no prefix length; write e\.g\. 10\.7\.0\.1/24"):
        Networks.parse(["10.7.0.1"])
    assert str(parse_interface("10.7.0.2", "x")) == "10.7.0.2/32"


def test_an_own_mac_is_given_unless_there_is_one() -> None:
    tenant = Tenant.parse_libos("echo@10.7.0.2", NETWORK)
    assert tenant.with_own_mac(258).mac == "02:00:00:00:01:02"
    assert Tenant("a", ("ip",), mac="02:00:00:00:00:09").with_own_mac(2).mac == "02:00:00:00:00:09"


@pytest.mark.parametrize("text", ["7", "1000", "65536", "many", "-64", "64.0"])
def test_a_ring_is_a_power_of_two(text: str) -> None:
    with pytest.raises(UsageError, match="ring"):
        parse_ring(text, "ring")


def test_numbers() -> None:
    assert [parse_ring(text, "ring") for text in ("8", "64", "32768")] == [8, 64, 32768]
    assert parse_count("5", "n", 1, 5) == 5
    assert parse_mac("02:AA:00:00:00:01", "m") == "02:aa:00:00:00:01"


def test_a_process_cannot_run_on_the_virtual_clock() -> None:
    settings = Settings(clock=Clock.VIRTUAL)
    assert settings.is_process(Tenant("a", ("ip",))) is False
    with pytest.raises(UsageError, match="a: a LibOS on the virtual clock runs inline"):
        settings.is_process(Tenant("a", ("ip",), process=True))
    assert Settings().is_process(Tenant("a", ("ip",))) is True
    assert Settings().is_process(Tenant("a", ("ip",), process=False)) is False


def test_buffers_are_the_tenants_word_or_the_runs_or_the_rings() -> None:
    assert Settings(rings=64).buffers_of(Tenant("a", ("ip",))) == 64
    assert Settings(rings=64, buffers=32).buffers_of(Tenant("a", ("ip",))) == 32
    assert Settings(rings=64, buffers=32).buffers_of(Tenant("a", ("ip",), buffers=8)) == 8


@pytest.mark.parametrize(
    ("text", "rate", "speed"),
    [
        ("500000", Rate(500_000), "pps=500000"),
        ("0.5M", Rate(500_000), "pps=500000"),
        ("1234567", Rate(1_234_567), "pps=1234567"),
        ("200k", Rate(200_000), "pps=200000"),
        ("1.5M", Rate(1_500_000), "pps=1500000"),
        ("pps=1000", Rate(1000), "pps=1000"),
        ("x2", Rate(2, relative=True), "x2"),
        ("x1.234567", Rate(1.234567, relative=True), "x1.234567"),
    ],
)
def test_rates(text: str, rate: Rate, speed: str) -> None:
    assert Rate.parse(text) == rate
    assert rate.speed == speed
    assert Rate.parse(rate.text) == rate


@pytest.mark.parametrize(
    ("rates", "names"),
    [
        ("500000,1.25M,x0.5,pps=500", ["500k", "1.25M", "x0.5", "0.5k"]),
        ("1234567,1234568,1M,1000k", ["1.234567M", "1.234568M", "1M"]),
    ],
)
def test_rates_have_names_of_their_own(rates: str, names: list[str]) -> None:
    found = Rate.parse_list(rates)
    assert [rate.text for rate in found] == names
    assert len({str(rate) for rate in found}) == len(found)


@pytest.mark.parametrize("text", ["0.5", "8", "999"])
def test_a_small_number_without_a_unit_is_refused_with_its_readings(text: str) -> None:
    with pytest.raises(UsageError, match=f'rate "{text}": write x{text} for .* or {text}M for .*000 packets a second'):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["", "0", "fast", "-1", "x2k", "1M,,2M", "max", "gbps=1"])
def test_a_bad_rate_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="rate"):
        Rate.parse_list(text)


def test_an_empty_filter_is_told_how_to_bind_everything() -> None:
    with pytest.raises(UsageError, match="x='ip or not ip' for everything"):
        Tenant.parse_binding("x=")
    everything = Region.everything().conjuncts
    assert relation(compile_filter("ip or not ip").conjuncts, everything).kind is Kind.EQUAL
