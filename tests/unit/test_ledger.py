# SPDX-License-Identifier: MIT
"""The ledger's words, its conservation check, its table and its JSON."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exonet.abi import ffi, lib, reason_name, stage_name
from exonet.errors import ConservationError
from exonet.ledger import STAGES, Ledger, bar_of, count_tap, drops_of, percent, reason_text

HEADER = Path(__file__).resolve().parents[2] / "exonet" / "csrc" / "exo_abi.h"
NOWHERE = [0] * len(STAGES)


def enum_words(prefix: str) -> list[str]:
    """The names of an enum in the header, in order, without aliases."""
    body = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    words = re.findall(rf"\b{prefix}([A-Z0-9_]+)\b(?=\s*[,=}}\n])", body.partition("enum exo_stage")[2])
    return list(dict.fromkeys(words))


class Book:
    """A native ledger that frames are walked through by hand."""

    def __init__(self) -> None:
        self.native = ffi.new("struct exo_ledger *")
        self.frame = ffi.new("struct exo_frame *")

    def passes(self, stage: str, entered: int, left: int, copies: int = 0) -> None:
        number = STAGES.index(stage)
        getattr(self.native, "in")[number] += entered
        self.native.out[number] += left
        lib.exo_ledger_copies(self.native, number, self.frame, copies)

    def meets(self, reason: int, times: int, env: int = 0, sender: int = 0) -> None:
        """sender: the environment that offered the frame; 0: a wire did."""
        self.frame.sender = sender
        for _ in range(times):
            lib.exo_ledger_fate(self.native, self.frame, reason, env, 0)


@pytest.fixture
def book() -> Book:
    """100 frames read: 3 filtered, 5 for nobody, 12 copies, 4 without a buffer, 98 consumed, 2 dropped by the stack."""
    book = Book()
    book.passes("source", 100, 100)
    book.passes("mac", 100, 97)
    book.meets(lib.EXO_R_MAC_FILTERED, 3)
    book.passes("nic", 97, 97)
    book.passes("demux", 97, 104, copies=12)
    book.meets(lib.EXO_R_DEMUX_NO_MATCH, 5)
    book.passes("handler", 104, 104)
    book.passes("ring", 104, 100)
    book.meets(lib.EXO_R_RING_NO_BUFFER, 4)
    book.passes("stack", 100, 98)
    book.meets(lib.EXO_R_STACK_UDP_CSUM, 2)
    book.meets(lib.EXO_R_DELIVERED, 98)
    return book


def test_every_reason_is_spelled_as_its_enum() -> None:
    stages = [word.lower() for word in enum_words("EXO_S_")]
    assert stages == list(STAGES) == [stage_name(i) for i in range(lib.EXO_STAGES)]
    for number in range(lib.EXO_REASONS):
        name = reason_name(number)
        constant = "EXO_R_" + name.replace(".", "_").upper()
        assert getattr(lib, constant) == number
        stage = STAGES[lib.exo_reason_stage(number)]
        assert stage == (name.partition(".")[0] if "." in name else {"delivered": "stack", "sent": "transmit"}[name])
        assert reason_text(name)


def test_words_that_do_not_exist_are_refused() -> None:
    for number in (-1, lib.EXO_REASONS, 1 << 30):
        assert lib.exo_reason_name(number) == ffi.NULL == lib.exo_reason_text(number) == lib.exo_stage_name(number)
        assert lib.exo_reason_stage(number) == lib.EXO_E_INVALID
    with pytest.raises(ValueError, match=r"ring\.nonsense"):
        reason_text("ring.nonsense")


def test_invariant_1_a_balanced_ledger_passes(book: Book) -> None:
    ledger = Ledger.read(book.native, NOWHERE).check()
    assert (ledger.offered, ledger.copies, ledger.consumed, ledger.sent, ledger.in_flight) == (100, 12, 98, 0, 0)
    assert ledger.dropped == {"mac.filtered": 3, "demux.no_match": 5, "ring.no_buffer": 4, "stack.udp_csum": 2}
    assert list(ledger.imbalances()) == []


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "tap"])
@pytest.mark.parametrize("side", ["in", "out", "copies"])
def test_invariant_1_a_lost_frame_is_found_at_its_stage(book: Book, stage: str, side: str) -> None:
    getattr(book.native, side)[STAGES.index(stage)] += 1
    with pytest.raises(ConservationError, match=rf"stage {stage}: in \d+ \+ copies"):
        Ledger.read(book.native, NOWHERE).check()


def test_invariant_1_a_drop_counted_twice_is_found(book: Book) -> None:
    book.native.drop[lib.EXO_R_RING_NO_BUFFER] += 1
    with pytest.raises(ConservationError, match=r"stage ring: in 104 .* dropped 5") as caught:
        Ledger.read(book.native, NOWHERE).check()
    assert "total: offered 100 + copies 12 = 112" in str(caught.value)


def test_invariant_1_a_frame_lost_between_stages_is_found(book: Book) -> None:
    book.passes("nic", 0, -1)
    in_flight = [0] * len(STAGES)
    in_flight[STAGES.index("nic")] = 1
    with pytest.raises(ConservationError, match="nic out 96, but demux in 97"):
        Ledger.read(book.native, in_flight).check()


def test_invariant_1_delivered_must_be_what_left_the_stack(book: Book) -> None:
    book.meets(lib.EXO_R_DELIVERED, 1)
    with pytest.raises(ConservationError, match="stack out 98, but consumed by LibOSes 99"):
        Ledger.read(book.native, NOWHERE).check()


def test_r08_a_switched_frame_is_offered_once_and_consumed_at_the_receiver(book: Book) -> None:
    book.passes("transmit", 7, 7)
    for stage in ("mac", "nic", "demux", "handler", "ring", "stack"):
        book.passes(stage, 7, 7)
    book.meets(lib.EXO_R_DELIVERED, 7, sender=1)
    ledger = Ledger.read(book.native, NOWHERE, switched=7).check()
    assert (ledger.offered, ledger.consumed, ledger.sent) == (107, 105, 0)
    assert (ledger.of_wires.consumed, ledger.of_liboses.consumed) == (98, 7)
    with pytest.raises(ConservationError, match=r"source out \+ switched 100, but mac in 107"):
        Ledger.read(book.native, NOWHERE).check()


def test_r20_in_flight_counts_where_it_was_found(book: Book) -> None:
    book.passes("ring", 5, 0)
    book.passes("handler", 5, 5)
    book.passes("demux", 5, 5)
    book.passes("nic", 5, 5)
    book.passes("mac", 5, 5)
    book.passes("source", 5, 5)
    in_flight = [0] * len(STAGES)
    in_flight[STAGES.index("ring")] = 5
    ledger = Ledger.read(book.native, in_flight).check()
    assert (ledger.offered, ledger.in_flight) == (105, 5)


def test_r21_what_a_tap_lost_is_offered_and_dropped(book: Book) -> None:
    book.passes("tap", 1, 0)
    lib.exo_ledger_count(book.native, lib.EXO_O_WIRE, lib.EXO_R_TAP_READ_ERROR, 1)
    count_tap(book.native, offered=131, read=100, read_errors=1, dropped=28, unaccounted=2)
    ledger = Ledger.read(book.native, NOWHERE).check()
    assert ledger.offered == 131
    assert ledger.dropped["tap.tx_dropped"] == 28
    assert ledger.dropped["tap.unaccounted"] == 2
    assert ledger.dropped["tap.read_error"] == 1


def test_r21_a_device_that_claims_less_than_was_read_does_not_unbalance(book: Book) -> None:
    count_tap(book.native, offered=98, read=100, read_errors=0, dropped=0, unaccounted=-2)
    assert Ledger.read(book.native, NOWHERE).check().offered == 100


def test_json_has_the_promised_words(book: Book) -> None:
    book.passes("transmit", 3, 2)
    book.meets(lib.EXO_R_SENT, 2, sender=1)
    book.meets(lib.EXO_R_TRANSMIT_SPOOFED, 1, sender=1)
    told = Ledger.read(book.native, NOWHERE).check().to_json()
    assert told["offered"] + told["copies"] == told["delivered"] + sum(told["dropped"].values()) + told["in_flight"]
    assert told["delivered"] == 100
    assert told["delivered_to"] == {"environments": 98, "wires": 2}
    assert told["of_liboses"] == {
        "offered": 3, "copies": 0, "delivered_to": {"environments": 0, "wires": 2},
        "dropped": {"transmit.spoofed": 1}, "in_flight": 0,
    }  # fmt: skip
    assert [row["stage"] for row in told["stages"]] == list(STAGES)
    assert told["stages"][-1] == {
        "stage": "transmit", "in": 3, "copies": 0, "out": 2, "dropped": {"spoofed": 1}, "in_flight": 0,
    }  # fmt: skip


def test_table_shows_only_what_happened(book: Book) -> None:
    ledger = Ledger.read(book.native, NOWHERE)
    text = ledger.table(100, [{"name": "web", "delivered": 90}, {"name": "dns", "delivered": 8}])
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines[:1]] == ["offered"]
    assert "delivered to web" in text and "delivered to dns" in text
    assert "in flight  " not in text and "sent on a wire" not in text and "others" not in text
    assert "no binding claims it" in text and "the LibOS had posted no buffer" in text
    assert lines[-1] == "100 offered + 12 copies = 98 delivered + 14 dropped + 0 in flight: balanced"


def test_bars_make_room_for_what_each_drop_means() -> None:
    book = Book()
    for reason in (lib.EXO_R_DEMUX_NO_MATCH, lib.EXO_R_DEMUX_NO_NEIGHBOUR, lib.EXO_R_DEMUX_NO_SUBSCRIBER):
        book.meets(reason, 1849)
    book.passes("source", 3 * 1849, 3 * 1849)
    ledger = Ledger.read(book.native, NOWHERE)
    for width in (85, 100):
        assert all(reason_text(name) in ledger.table(width) for name in ledger.dropped), width
    assert "█" * 8 in ledger.table(85) and "█" * 20 in ledger.table(110)


def test_frames_that_a_wire_duplicated_are_not_called_group_frames() -> None:
    book = Book()
    book.native.copies[lib.EXO_S_SOURCE], book.native.copies[lib.EXO_S_DEMUX] = 5, 2
    rows = [line.split() for line in Ledger.read(book.native, NOWHERE).table(100).splitlines()]
    assert ["copies", "of", "group", "frames", "2"] in [row[:5] for row in rows]
    assert ["duplicated", "by", "--impair", "5"] in [row[:4] for row in rows]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_table_keeps_its_width(book: Book, width: int, ascii_only: bool) -> None:
    text = Ledger.read(book.native, NOWHERE).table(width, [{"name": "web", "delivered": 98}], ascii_only=ascii_only)
    rows = text.split("\n\n")[0].splitlines()
    assert all(len(row) <= max(width, 45) for row in rows)
    assert text.isascii() or not ascii_only


def test_an_empty_ledger_is_a_table_too() -> None:
    ledger = Ledger.read(Book().native, NOWHERE).check()
    assert ledger.table(80).splitlines()[0].split() == ["offered", "0", "0.0", "%"]


def test_table_says_when_it_does_not_balance(book: Book) -> None:
    book.native.drop[lib.EXO_R_RING_FULL] += 1
    assert Ledger.read(book.native, NOWHERE).equation().endswith("NOT BALANCED")


@pytest.mark.parametrize(("share", "text"), [(0, "0.0 %"), (1, "100.0 %"), (0.0001, "<0.1 %"), (0.0834, "8.3 %")])
def test_percentages(share: float, text: str) -> None:
    assert percent(share) == text


def test_bars_show_anything_above_zero() -> None:
    assert bar_of(0, 10, False) == ""
    assert bar_of(0.0001, 10, False) == "▏"
    assert bar_of(0.5, 10, False) == "█████"
    assert bar_of(1, 10, True) == "#" * 10
    assert bar_of(0.0001, 10, True) == "#"


def test_drops_of_leaves_out_what_arrived(book: Book) -> None:
    assert sum(drops_of(book.native).values()) == 14


def test_observer_sees_each_fate() -> None:
    seen: list[tuple[int, int]] = []
    observe: Callable[..., Any] = ffi.callback(
        "void(void *, const struct exo_frame *, int32_t, uint32_t)",
        lambda handle, frame, reason, env: seen.append((reason, env)),
    )
    book = Book()
    book.native.observe = observe
    book.meets(lib.EXO_R_RING_FULL, 2, env=3)
    assert seen == [(lib.EXO_R_RING_FULL, 3)] * 2
