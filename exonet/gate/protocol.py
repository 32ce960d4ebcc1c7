# SPDX-License-Identifier: MIT
"""The messages of the control socket between a LibOS and the kernel, without I/O.

A message is one SOCK_SEQPACKET packet: a header (operation, status, sequence, length of the body) and a JSON object
as body, at most 64 KiB in all; descriptors travel beside it and are named by position. `decode_request` is strict:
whatever bytes a hostile LibOS sends, it returns a Request whose every field has the type and range of `FIELDS`, or
raises ProtocolError. What a range owes to the machine (its pages, its ports) is `check_limits`: no number gets past
both that could make a loop, a set or an allocation large.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from exonet import errors

__all__ = [
    "ANY_PAGE",
    "FIELDS",
    "MAX_MESSAGE",
    "MAX_TOKEN",
    "Limits",
    "Op",
    "ProtocolError",
    "Reply",
    "Request",
    "Status",
    "check_limits",
    "decode_reply",
    "decode_request",
    "encode_reply",
    "encode_request",
    "error_reply",
    "raise_error",
]

HEADER = struct.Struct("<HHII")
MAX_MESSAGE = 65536
MAX_TOKEN = 16384
MAX_TEXT = 1024
ANY_PAGE = 0xFFFFFFFF


class ProtocolError(errors.LibOSError):
    """A message that breaks the protocol; the message says which field and what would be right."""


class Op(IntEnum):
    """What a LibOS may ask. EVENT is the kernel's own word to it (a delegated capability, pages wanted back)."""

    HELLO = 1
    ALLOCATE = 2
    FREE = 3
    PIN = 4
    UNPIN = 5
    BIND = 6
    UNBIND = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    NEIGHBOUR = 10
    NARROW = 11
    DELEGATE = 12
    REVOKE = 13
    DESCRIBE = 14
    EXIT = 15
    READY = 16
    EVENT = 17
    GUARANTEE = 18
    UNGUARANTEE = 19


class Status(IntEnum):
    REQUEST = 0
    OK = 1
    ERROR = 2
    EVENT = 3


@dataclass(frozen=True, slots=True)
class Request:
    op: Op
    sequence: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    op: Op
    sequence: int
    status: Status
    fields: dict[str, Any] = field(default_factory=dict)


Check = Callable[[Any], Any]


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number {low}..{high}")
        return value

    return check


def _text(limit: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str or len(value) > limit or not value.isprintable():
            raise ValueError(f"must be printable text of at most {limit} characters")
        return value

    return check


def _hex(low: int, high: int) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is not str or not 2 * low <= len(value) <= 2 * high:
            raise ValueError(f"must be {low}..{high} bytes in hexadecimal")
        found = bytes.fromhex(value)
        if 2 * len(found) != len(value):  # fromhex passes over blanks
            raise ValueError(f"must be {low}..{high} bytes in hexadecimal, without blanks")
        return found

    return check


def _optional(inner: Check) -> Check:
    def check(value: Any) -> Any:
        return None if value is None else inner(value)

    return check


def _list(inner: Check, most: int) -> Check:
    def check(value: Any) -> list[Any]:
        if type(value) is not list or len(value) > most:
            raise ValueError(f"must be a list of at most {most}")
        return [inner(item) for item in value]

    return check


_U32 = _whole(0, 0xFFFFFFFF)
_PAGE = _whole(0, 0xFFFFFFFE)
_COUNT = _whole(1, 0xFFFFFFFE)
_PORT = _whole(0, 7)
_TOKEN = _hex(1, MAX_TOKEN)
_FILTER = _text(MAX_TEXT)
_PAGES = {"first": _PAGE, "count": _COUNT}

#: Every field of every request, all required: the whole surface a LibOS can reach the kernel's Python through.
FIELDS: Mapping[Op, Mapping[str, Check]] = {
    Op.HELLO: {"version": _U32},
    Op.ALLOCATE: {"first": _U32, "count": _COUNT},
    Op.FREE: _PAGES,
    Op.PIN: _PAGES,
    Op.UNPIN: _PAGES,
    Op.GUARANTEE: _PAGES,
    Op.UNGUARANTEE: _PAGES,
    Op.BIND: {"filter": _FILTER, "capability": _TOKEN, "shown": _list(_TOKEN, 3), "port": _PORT, "snoop": _whole(0, 1)},
    Op.UNBIND: {"binding": _U32},
    Op.SUBSCRIBE: {"mac": _hex(6, 6), "port": _PORT},
    Op.UNSUBSCRIBE: {"mac": _hex(6, 6), "port": _PORT},
    Op.NEIGHBOUR: {"address": _text(64), "port": _PORT},
    Op.NARROW: {"capability": _TOKEN, "rights": _optional(_list(_text(16), 16)), "region": _optional(_FILTER)},
    Op.DELEGATE: {"capability": _TOKEN, "env": _U32},
    Op.REVOKE: {"capability": _TOKEN},
    Op.DESCRIBE: {},
    Op.READY: {},
    Op.EXIT: {"status": _whole(0, 255)},
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many pages and ports a machine has."""

    pages: int
    ports: int


def check_limits(request: Request, limits: Limits) -> None:
    """UsageError where a request names pages or a port that the machine does not have."""
    fields, what = request.fields, request.op.name.lower()
    first, count = fields.get("first", 0), fields.get("count", 0)
    if fields.get("port", 0) >= limits.ports and "port" in fields:
        raise errors.UsageError(f"{what}: port {fields['port']}: the machine has ports 0..{limits.ports - 1}")
    if first == ANY_PAGE and count > limits.pages:
        raise errors.UsageError(f"wants {count} pages, and the machine has {limits.pages} in all")
    if first != ANY_PAGE and first + count > limits.pages:
        raise errors.UsageError(
            f"{what} pages {first}..{first + count - 1}: the machine has pages 0..{limits.pages - 1}"
        )


def _encode(op: Op, status: Status, sequence: int, fields: Mapping[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":"), default=bytes.hex).encode()
    if HEADER.size + len(body) > MAX_MESSAGE:
        raise ProtocolError(f"{op.name.lower()}: a message of {HEADER.size + len(body)} bytes: at most {MAX_MESSAGE}")
    return HEADER.pack(op, status, sequence, len(body)) + body


def encode_request(op: Op, sequence: int, fields: Mapping[str, Any]) -> bytes:
    """bytes in fields travel as hexadecimal."""
    return _encode(op, Status.REQUEST, sequence, fields)


def encode_reply(reply: Reply) -> bytes:
    return _encode(reply.op, reply.status, reply.sequence, reply.fields)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _split(message: bytes) -> tuple[int, int, int, dict[str, Any]]:
    """Header and body object, or ProtocolError."""
    if not HEADER.size <= len(message) <= MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(message)} bytes: must be {HEADER.size}..{MAX_MESSAGE}")
    op, status, sequence, length = HEADER.unpack_from(message)
    if length != len(message) - HEADER.size:
        raise ProtocolError(f"a body of {len(message) - HEADER.size} bytes: the header says {length}")
    try:
        body = json.loads(message[HEADER.size :].decode(), object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a body that is no JSON object: {str(error)[:80]!a}") from None
    if type(body) is not dict:
        raise ProtocolError(f"a body that is a {type(body).__name__}: must be a JSON object")
    return op, status, sequence, body


def decode_request(message: bytes) -> Request:
    """What the kernel reads from a LibOS."""
    op, status, sequence, body = _split(message)
    if op not in FIELDS or status != Status.REQUEST:
        raise ProtocolError(f"operation {op} with status {status}: there is no such request")
    fields = FIELDS[Op(op)]
    name = Op(op).name.lower()
    if body.keys() != fields.keys():
        raise ProtocolError(f"{name}: fields {sorted(body)!a}: must be {sorted(fields)}"[:300])
    checked = {}
    for key, check in fields.items():
        try:
            checked[key] = check(body[key])
        except ValueError as error:
            raise ProtocolError(f"{name}: {key} {str(body[key])[:60]!a}: {error}") from None
    return Request(Op(op), sequence, checked)


def decode_reply(message: bytes) -> Reply:
    """What a LibOS reads from the kernel."""
    op, status, sequence, body = _split(message)
    try:
        return Reply(Op(op), sequence, Status(status), body)
    except ValueError:
        raise ProtocolError(f"operation {op} with status {status}: there is no such reply") from None


def error_reply(op: Op, sequence: int, error: errors.ExonetError) -> Reply:
    """An exception of the tree as a message; anything the LibOS side does not know becomes its nearest base there."""
    return Reply(op, sequence, Status.ERROR, {"error": type(error).__name__, "message": str(error)[:2000]})


def raise_error(reply: Reply) -> None:
    """Raises on the LibOS side what was raised in the kernel."""
    name, message = reply.fields.get("error"), str(reply.fields.get("message"))
    if name == "ProtocolError":
        raise ProtocolError(message)
    kind = getattr(errors, str(name), None)
    if isinstance(kind, type) and issubclass(kind, errors.ExonetError):
        raise kind(message)
    raise errors.RunError(message)
