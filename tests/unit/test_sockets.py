# SPDX-License-Identifier: MIT
"""UDP sockets and addresses as a program that knows `socket` expects them."""

import errno
from collections.abc import Iterator

import pytest

from exonet import errors
from libos_stacks.environment import Environment
from libos_stacks.sockets import Address
from tests.fakes.gate import FakeGate


@pytest.fixture
def environment() -> Iterator[Environment]:
    with Environment(FakeGate(addresses=["10.7.0.2/24", "fd00::2/64"])) as made:
        yield made


@pytest.mark.parametrize(
    "value", [("10.7.0.1", 53), ("fd00::1", 65535, 0, 0), ("fe80::1", 1, 0, 3)], ids=["four", "six", "scope"]
)
def test_an_address_reads_like_the_tuple_of_socket(value: tuple[object, ...]) -> None:
    address = Address.of(value)
    assert address == value and value == tuple(address)
    assert (address.host, address.port) == value[:2] == address[:2]
    assert len(address) == len(value) and repr(address) == repr(value) and hash(address) == hash(value)
    assert address == Address.of(value) and address != Address.of(("1.2.3.4", 9))
    host, port, *_ = address
    assert (host, port) == value[:2]
    assert address != 7


def test_a_v6_address_of_two_words_has_no_scope() -> None:
    assert Address.of(("::1", 9)) == ("::1", 9, 0, 0)


@pytest.mark.parametrize("value", [("10.7.0.1", 0), ("10.7.0.1", 65536), ("10.7.0", 9), ("host.example", 9), (":x", 9)])
def test_a_bad_address_is_refused(value: tuple[str, int]) -> None:
    with pytest.raises((OSError, ValueError)):
        Address.of(value)


def test_nothing_to_receive_is_none(environment: Environment) -> None:
    assert environment.udp(9).recvfrom() is None


def test_a_port_is_taken_once_and_free_after_close(environment: Environment) -> None:
    with environment.udp(9) as socket:
        assert socket.getsockname() == 9
        with pytest.raises(errors.ConflictError, match="udp port 9 of environment test: it is taken"):
            environment.udp(9)
    socket.close()
    assert environment.udp(9).error() == 0


def test_a_closed_socket_neither_sends_nor_receives(environment: Environment) -> None:
    socket = environment.udp(9)
    socket.close()
    assert socket.recvfrom() is None
    with pytest.raises(OSError):
        socket.sendto(b"x", ("10.7.0.1", 9))


def test_port_zero_is_an_ephemeral_one(environment: Environment) -> None:
    ports = {environment.udp(0).getsockname() for _ in range(5)}
    assert len(ports) == 5 and all(port >= 1024 for port in ports)


def test_a_local_address_selects_the_ip_version(environment: Environment) -> None:
    four = environment.udp(9, "10.7.0.2")
    environment.udp(9, "fd00::2")
    with pytest.raises(OSError):
        four.sendto(b"x", ("fd00::1", 9))


@pytest.mark.parametrize("port, address", [(-1, None), (65536, None), (9, "10.7.0"), (9, "10.9.9.9")])
def test_a_bad_port_or_local_address_is_refused(environment: Environment, port: int, address: str | None) -> None:
    with pytest.raises(errors.UsageError):
        environment.udp(port, address)


def test_a_stack_without_addresses_has_no_sockets() -> None:
    with Environment(FakeGate(addresses=[])) as environment, pytest.raises(errors.UsageError, match="no address"):
        environment.udp(9)


def test_send_errors_are_those_of_socket(environment: Environment) -> None:
    socket = environment.udp(9)
    with pytest.raises(OSError) as caught:
        socket.sendto(bytes(65508), ("10.7.0.1", 9))
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError) as caught:
        socket.sendto(b"x", ("192.0.2.1", 9))
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize("data", [b"four", bytearray(b"four"), memoryview(b"xfour")[1:]])
def test_any_bytes_may_be_sent(environment: Environment, data: bytes) -> None:
    assert environment.udp(9).sendto(data, ("10.7.0.255", 9)) == 4
