# SPDX-License-Identifier: MIT
"""LibOSes that attack through the control socket: with other people's tokens, and with storms of messages."""

import contextlib
import json
import os
import random
import socket
from array import array

from hostile_libos import raw, say

from exonet.errors import ExonetError
from exonet.gate.protocol import FIELDS, HEADER, MAX_MESSAGE, Op, encode_request

FILTER = "net=lab and port=53"


class Shown:
    """Shows tokens for everything that a token can be shown for, and counts how each use was refused."""

    def __init__(self, gate):
        self.gate = gate
        self.answers = {}

    def show(self, name, token):
        gate = self.gate
        calls = {
            "bind": lambda: gate.bind(FILTER, token),
            "narrow": lambda: gate.narrow(token, rights=[]),
            "delegate": lambda: gate.delegate(token, gate.welcome().env),
            "revoke": lambda: gate.revoke(token),
        }
        for use, call in calls.items():
            try:
                call()
                answer = f"{name} was taken to {use}"
            except ExonetError as error:
                answer = f"{type(error).__name__}: {str(error).rpartition(': ')[2]}"
            self.answers[answer] = self.answers.get(answer, 0) + 1


def show_tokens(gate):
    """Tokens of others and of a delegation that was taken back; its own cut, lengthened and bent."""
    welcome = gate.welcome()
    shown = Shown(gate)
    for name, token in welcome.config["tokens"].items():
        shown.show(name, bytes.fromhex(token))
    own = next(grant.token for grant in welcome.capabilities if grant.resource == "filter")
    for size in (1, 31, 32, 33, len(own) - 1):
        shown.show(f"cut to {size}", own[:size])
    for more in (b"\0", b" ", b"\n", own):
        shown.show(f"{len(more)} more", own + more)
    wild = random.Random(1)
    for at in (*range(0, 32, 4), *wild.sample(range(32, len(own)), 24)):
        bent = bytearray(own)
        bent[at] ^= 1 << wild.randrange(8)
        shown.show(f"bent at {at}", bytes(bent))
    say(answers=shown.answers, good=gate.bind(FILTER, own))


def past_tokens(gate):
    """What it has itself narrowed and revoked is worth nothing any more, and neither is what hangs from it."""
    own = next(grant.token for grant in gate.welcome().capabilities if grant.resource == "filter")
    old = [gate.narrow(own) for _ in range(8)]
    old.append(gate.narrow(old[0]))
    for token in old[:8]:
        gate.revoke(token)
    fresh = [gate.narrow(own) for _ in range(8)]
    shown = Shown(gate)
    for number, token in enumerate(old):
        shown.show(f"token {number} of the past", token)
    say(answers=shown.answers, again=len({*fresh} & {*old}), good=gate.bind(FILTER, fresh[0]))


def storm(gate):
    """Any message in any order, with any number of descriptors; replies are read now and then."""
    pick = random.Random(gate.welcome().config["seed"])
    control = raw(gate)
    control.setblocking(False)
    fds = [os.dup(0), *os.pipe(), *(end.detach() for end in socket.socketpair(socket.AF_UNIX)), control.fileno()]
    for _ in range(pick.randrange(40, 4000)):
        message = any_message(pick)
        extra = []
        if pick.random() < 0.2:
            sent = [pick.choice(fds) for _ in range(pick.choice([1, 2, 16, 253]))]
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", sent))]
        with contextlib.suppress(OSError):  # full, or the kernel has had enough
            control.sendmsg([message], extra)
        while pick.random() < 0.6:
            try:
                control.recv(MAX_MESSAGE)
            except OSError:
                break
    gate.sleep(None)


def any_message(pick):
    op = pick.choice([*(op for op in FIELDS if op is not Op.EXIT), Op.EVENT])
    kind = pick.random()
    if kind < 0.1:
        return pick.randbytes(pick.choice([1, 11, 12, 13, 4096, 65535, 65536, 65537, 200000]))
    if kind < 0.2:
        body = pick.choice(["{}", "[]", "[" * 30000, '{"a":' * 9000, '{"count":1e999}', '{"first":-0}', '"\\ud800"'])
        return HEADER.pack(op, 0, pick.getrandbits(32), len(body)) + body.encode()
    values = [0, 1, -1, 1 << 31, 1 << 64, 0.5, None, True, "", "ff" * 32, "ff" * 8192, "x" * 5000, [], [[]], {}, ["00"]]
    fields = {name: pick.choice(values) for name in FIELDS.get(op, {})}
    try:
        return encode_request(op, pick.getrandbits(32), json.loads(json.dumps(fields)))
    except ExonetError:
        return b"\0"


def hoard(gate):
    """Allocates and frees for ever, and keeps what it freed: as descriptors, and in flight to itself."""
    pages = gate.welcome().config["pages"]
    kept, flying, (there, here) = [], 0, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    there.setblocking(False)
    while len(kept) < 1000:
        message, fds, _, _ = ask(gate, Op.ALLOCATE, {"first": 0xFFFFFFFF, "count": pages})
        ask(gate, Op.FREE, {key: message[key] for key in ("first", "count")})
        if not fds:
            break
        kept += fds
        try:
            socket.send_fds(there, [b"x"], fds)
            flying += 1
        except OSError:
            continue
        os.close(kept.pop())
    say(kept=len(kept), flying=flying)
    while here:
        gate.sleep(None)


def ask(gate, op, fields):
    """A call beneath the gate: its fields, and the descriptors as they came."""
    raw(gate).send(encode_request(op, 1, fields))
    message, fds, flags, address = socket.recv_fds(raw(gate), MAX_MESSAGE, 3)
    return json.loads(message[HEADER.size :]), fds, flags, address
