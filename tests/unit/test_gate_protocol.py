# SPDX-License-Identifier: MIT
"""The control messages: what is encoded is decoded, and no bytes get past the decoder as anything but a Request or
an error.
"""

import contextlib
import json
import random
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exonet import errors
from exonet.gate.protocol import (
    FIELDS,
    HEADER,
    MAX_MESSAGE,
    Op,
    ProtocolError,
    Reply,
    Request,
    Status,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    error_reply,
    raise_error,
)
from tests.effort import tries

GOOD: dict[Op, dict[str, Any]] = {
    Op.HELLO: {"version": 1},
    Op.ALLOCATE: {"first": 0xFFFFFFFF, "count": 1},
    Op.FREE: {"first": 0, "count": 5},
    Op.PIN: {"first": 0, "count": 5},
    Op.UNPIN: {"first": 0xFFFFFFFE, "count": 0xFFFFFFFE},
    Op.GUARANTEE: {"first": 0, "count": 16},
    Op.UNGUARANTEE: {"first": 0, "count": 16},
    Op.BIND: {"filter": "udp port 53", "capability": b"\1\2", "shown": [b"\3"], "port": 7, "snoop": 1},
    Op.UNBIND: {"binding": 9},
    Op.SUBSCRIBE: {"mac": bytes(6), "port": 0},
    Op.UNSUBSCRIBE: {"mac": b"123456", "port": 0},
    Op.NEIGHBOUR: {"address": "fe80::1", "port": 0},
    Op.NARROW: {"capability": b"\1", "rights": ["bind"], "region": None},
    Op.DELEGATE: {"capability": b"\1", "env": 3},
    Op.REVOKE: {"capability": bytes(8192)},
    Op.DESCRIBE: {},
    Op.READY: {},
    Op.EXIT: {"status": 255},
}


def packed(op: int, body: bytes, status: int = 0, length: int | None = None) -> bytes:
    return HEADER.pack(op, status, 1, len(body) if length is None else length) + body


def test_every_operation_there_and_back() -> None:
    assert GOOD.keys() == FIELDS.keys() == set(Op) - {Op.EVENT}
    for op, fields in GOOD.items():
        assert decode_request(encode_request(op, 0xFFFFFFFF, fields)) == Request(op, 0xFFFFFFFF, fields)


BAD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 1 << 32, 1 << 200, 1.0, 1e400, "", "x", "zz", "\0", "a\nb", "\ud800", "é" * 5000, [], [[]], {}),
    *("0" * 40000, ["00"] * 5, [None], {"a": 1}),
)


@pytest.mark.parametrize("op", GOOD)
def test_every_field_with_every_kind_of_bad_value(op: Op) -> None:
    """A bad value gives ProtocolError, or is one that the field really allows."""
    for name, check in FIELDS[op].items():
        for value in BAD_VALUES:
            body = json.dumps({**json.loads(json.dumps(GOOD[op], default=bytes.hex)), name: value}).encode()
            if len(body) > MAX_MESSAGE - HEADER.size:
                continue
            try:
                request = decode_request(packed(op, body))
            except ProtocolError as error:
                assert name in str(error) or "JSON" in str(error)
                assert len(str(error)) < 400
            else:
                assert request.fields[name] == check(value)


@pytest.mark.parametrize("op", GOOD)
def test_missing_and_extra_fields(op: Op) -> None:
    plain = json.loads(json.dumps(GOOD[op], default=bytes.hex))
    for fields in [{**plain, "extra": 1}, *({k: v for k, v in plain.items() if k != gone} for gone in plain)]:
        with pytest.raises(ProtocolError, match="must be"):
            decode_request(packed(op, json.dumps(fields).encode()))


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (b"", "message of 0 bytes"),
        (b"x" * 11, "message of 11 bytes"),
        (b"x" * (MAX_MESSAGE + 1), "message of 65537 bytes"),
        (packed(1, b"{}", length=3), "the header says 3"),
        (packed(1, b"{}", length=0xFFFFFFFF), "the header says 4294967295"),
        (packed(0, b"{}"), "operation 0"),
        (packed(999, b"{}"), "operation 999"),
        (packed(Op.EVENT, b"{}"), "operation 17"),
        (packed(1, b'{"version":1}', status=1), "with status 1"),
        (packed(1, b""), "no JSON object"),
        (packed(1, b"\xff\xfe"), "no JSON object"),
        (packed(1, b"[]"), "is a list"),
        (packed(1, b"null"), "is a NoneType"),
        (packed(1, b'{"version":1}x'), "no JSON object"),
        (packed(1, b'{"version":1,"version":2}'), "given twice"),
        (packed(1, b'{"version":NaN}'), "is not a number"),
        (packed(1, b'{"version":-Infinity}'), "is not a number"),
        (packed(1, b'{"version":' + b"9" * 60000 + b"}"), "no JSON object"),
        (packed(1, b"[" * 60000), "no JSON object"),
        (packed(1, b'{"version":' * 5000), "no JSON object"),
    ],
)
def test_invariant_5_messages_that_are_none(message: bytes, what: str) -> None:
    with pytest.raises(ProtocolError) as error:
        decode_request(message)
    assert what in str(error.value) and len(str(error.value)) < 300


@given(st.binary(max_size=300))
@settings(max_examples=tries(100))
def test_invariant_5_random_bytes(message: bytes) -> None:
    for bytes_ in (message, packed(message[0] % 20 if message else 0, message)):
        with contextlib.suppress(ProtocolError):
            decode_request(bytes_)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(list(GOOD)), st.data())
@settings(max_examples=tries(40))
def test_invariant_5_random_objects(op: Op, data: st.DataObject) -> None:
    fields = {name: data.draw(json_values) for name in FIELDS[op]}
    try:
        request = decode_request(packed(op, json.dumps(fields).encode()))
    except ProtocolError:
        return
    for name, check in FIELDS[op].items():
        assert request.fields[name] == check(fields[name])


def test_flipped_bytes_of_good_messages() -> None:
    source = random.Random(3)
    for op, fields in GOOD.items():
        message = bytearray(encode_request(op, 1, fields))
        for _ in range(200):
            bent = bytearray(message)
            bent[source.randrange(len(bent))] = source.choice(string.printable.encode())
            with contextlib.suppress(ProtocolError):
                decode_request(bytes(bent))


def test_replies_and_errors_there_and_back() -> None:
    reply = Reply(Op.BIND, 5, Status.OK, {"binding": 3})
    assert decode_reply(encode_reply(reply)) == reply
    for kind in (errors.DeniedError, errors.UsageError, errors.FilterError, errors.ExhaustedError, ProtocolError):
        back = decode_reply(encode_reply(error_reply(Op.BIND, 5, kind("binding 7: no"))))
        with pytest.raises(kind, match="binding 7: no") as raised:
            raise_error(back)
        assert type(raised.value) is kind


def test_an_unknown_error_is_a_run_error() -> None:
    for name in ("NoSuchError", None, "__doc__", "annotations"):
        with pytest.raises(errors.RunError):
            raise_error(Reply(Op.BIND, 1, Status.ERROR, {"error": name, "message": "m"}))


def test_a_reply_that_is_none() -> None:
    for message in (packed(99, b"{}", status=1), packed(1, b"{}", status=9)):
        with pytest.raises(ProtocolError, match="no such reply"):
            decode_reply(message)


def test_a_message_that_is_too_long_to_send() -> None:
    with pytest.raises(ProtocolError, match="at most 65536"):
        encode_request(Op.NEIGHBOUR, 1, {"address": "x" * MAX_MESSAGE})
