# SPDX-License-Identifier: MIT
"""The ledger tells what wires offered from what LibOSes sent (R20), through copies, local switching and every end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from exonet.abi import lib
from exonet.cli.main import main
from exonet.errors import ConservationError
from exonet.hardware.nic import Nic
from exonet.ledger import Account, Ledger
from tests.fakes.frames import HERE, HOST, PEER, THERE, udp
from tests.fakes.libos import LOCAL4, Bench, FakeLibOS
from tests.fakes.wire import ScriptWire

DNS = Path(__file__).resolve().parents[2] / "captures" / "web-dns.pcapng"


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def ledger(bench: Bench) -> Ledger:
    switched = Nic(lib.exo_machine_nic(bench.native, 0)).counters.switched
    return Ledger.read(bench.ledger, *bench.in_flight_by_origin(), switched=switched).check()


def offered(station: str, address: str) -> list[bytes]:
    """A group frame that two want, a unicast one that one wants, and one that nobody wants."""
    header = bytes.fromhex((HERE + station).replace(":", ""))
    wanted, unwanted = (header + udp(src=address, dport=port)[12:] for port in (53, 9))
    return [b"\xff" * 6 + wanted[6:], wanted, unwanted]


def test_r20_copies_snoops_and_what_is_turned_round_belong_to_who_offered_it(bench: Bench) -> None:
    """The same three frames from the wire and from a LibOS. One takes what it is given, one half of it; a snoop that
    gets a copy of each takes nothing.
    """
    bench.attach(ScriptWire(list(enumerate(offered(THERE, PEER)))), promiscuous=0)
    sender, wide, narrow, snoop = (FakeLibOS(bench) for _ in range(4))
    wide.bind("udp port 53")
    narrow.bind("udp port 53 and src portrange 4000-4001")
    snoop.bind("udp", snoop=True)
    for libos in (wide, narrow):
        libos.subscribe()
    bench.run()
    came = ledger(bench).of_wires
    assert came == Account(3, copies=4, consumed=0, sent=0, dropped={"demux.no_match": 1}, in_flight=6)
    sender.locals(LOCAL4)
    for frame in offered(HERE, HOST):
        sender.transmit(frame)
        bench.run()
    assert ledger(bench).of_wires == came
    # Besides going round, the group frame leaves on the wire: a copy more.
    sent = Account(3, copies=5, consumed=0, sent=1, dropped={"demux.no_match": 1}, in_flight=6)
    assert ledger(bench).of_liboses == sent
    wide.receive()
    narrow.receive(3)
    for libos in (wide, narrow):
        lib.exo_deliver_settle(bench.native, libos.env)
    assert ledger(bench).of_wires == replace(came, consumed=3, in_flight=3)
    assert ledger(bench).of_liboses == replace(sent, consumed=2, in_flight=4)
    lib.exo_machine_env_kill(bench.native, snoop.number)
    lib.exo_machine_env_kill(bench.native, narrow.number)
    ended = ledger(bench)
    assert ended.of_wires == replace(came, consumed=3, in_flight=0, dropped={**came.dropped, "ring.env_dead": 3})
    assert ended.of_liboses == replace(sent, consumed=2, in_flight=0, dropped={**sent.dropped, "ring.env_dead": 4})


def test_r20_a_fault_between_the_accounts_is_found(bench: Bench) -> None:
    """The totals balance, but a frame of the wire ended as if a LibOS had sent it."""
    bench.attach(ScriptWire([(0, udp())]), promiscuous=1)
    bench.run()
    for origin, change in ((lib.EXO_O_WIRE, -1), (lib.EXO_O_LIBOS, 1)):
        bench.ledger.of[origin].drop[lib.EXO_R_DEMUX_NO_MATCH] += change
    with pytest.raises(ConservationError, match="by wires: with copies 1, but 0 of them were found; offered by"):
        ledger(bench)


@pytest.mark.parametrize("clock", ["virtual", "monotonic"])
def test_r22_answers_and_what_a_stack_turns_away_are_no_loss(clock: str, tmp_path: Path) -> None:
    tenant = "dns=udp dst port 53 and not ether multicast,stack=echo,inline"
    words = ["drops", str(DNS), "--bind", tenant, "--rates", "x10", "--rings", "256", "--clock", clock]
    assert main([*words, "--packets", "1849", "--repeat", "1", "--out", str(tmp_path)]) == 0
    (row,) = parquet.read_table(tmp_path / "drops.parquet").to_pylist()
    assert (row["offered"], row["claimed"], row["delivered"], row["lost"], row["loss"]) == (1849, 540, 540, 0, 0)
    assert (row["sent_offered"], row["sent_sent"], row["sent_consumed"], row["sent_dropped"]) == (540, 540, 0, 0)
    assert row["stack.otherhost"] == 24  # announcements, which every subscriber gets
