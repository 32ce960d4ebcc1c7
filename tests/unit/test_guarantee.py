# SPDX-License-Identifier: MIT
"""R15: which pages a polite request counts on, what force takes, and what it never takes."""

from collections.abc import Iterator

import pytest

from exonet.abi import lib
from exonet.errors import DeniedError, ExhaustedError, UsageError
from exonet.gate.client import InlineGate
from exonet.kernel.abort import take
from exonet.kernel.capability import Quota, Resource, Right, Scope
from exonet.kernel.environment import Environment, Event
from exonet.kernel.revocation import ask, askable
from tests.fakes.dispatcher import FakeKernel, running_kernel
from tests.fakes.frames import HERE, THERE, udp
from tests.fakes.libos import Bench, FakeLibOS
from tests.fakes.wire import ScriptWire
from tests.unit.test_syscalls import Side, refused

OUT = bytes.fromhex((THERE + HERE).replace(":", "")) + udp()[12:]
LOCAL = {"mac": bytes.fromhex(HERE.replace(":", "")), "any": 1}


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    with running_kernel() as made:
        yield made


@pytest.fixture
def web(kernel: FakeKernel) -> Iterator[Side]:
    """Pages 0..5: 0 and 1 pinned, 2 pinned and guaranteed, 3 guaranteed, 4 and 5 neither."""
    side = Side(kernel, "web", quota=Quota(guaranteed=3))
    side.gate.allocate(6, first=0)
    side.gate.pin(0, 3)
    side.gate.guarantee(2, 2)
    yield side
    side.gate.close()


def owners(kernel: FakeKernel, count: int = 6) -> list[int]:
    return [kernel.machine.pages.page[page].env for page in range(count)]


def test_r15_a_polite_request_leaves_pinned_pages_while_others_remain(kernel: FakeKernel, web: Side) -> None:
    assert askable(kernel.pages, web.env.number) == [4, 5]
    assert ask(kernel.environments, web.env, 5) == 2 and ask(kernel.environments, web.env, 1) == 1
    assert (web.gate.wanted(), web.gate.wanted()) == (3, 0)
    web.gate.free(4, 2)
    assert askable(kernel.pages, web.env.number) == [0, 1]
    web.gate.unpin(1, 1)
    assert askable(kernel.pages, web.env.number) == [1]


def test_a_request_reaches_who_reads_nothing(kernel: FakeKernel, web: Side) -> None:
    """A full queue of events is no refusal, and requests do not fill it."""
    for number in range(web.env.quota.events):
        kernel.environments.tell(web.env, Event({"event": "granted", "number": number}))
    with pytest.raises(ExhaustedError):
        kernel.environments.tell(web.env, Event({"event": "granted"}))
    assert [ask(kernel.environments, web.env, 1) for _ in range(100)] == [1] * 100
    assert len(web.env.inbox) == web.env.quota.events + 1
    assert web.env.inbox.pop().fields == {"event": "pages_wanted", "count": 100}
    web.env.inbox.clear()


def test_r15_a_polite_request_never_asks_for_guaranteed_pages(kernel: FakeKernel, web: Side) -> None:
    web.gate.free(4, 2)
    web.gate.unpin(0, 3)
    web.gate.free(0, 2)
    assert ask(kernel.environments, web.env, 9) == 0
    assert web.gate.wanted() == 0 and not web.env.inbox


def test_r15_force_takes_pinned_pages_after_their_dma_is_drained(kernel: FakeKernel, web: Side) -> None:
    take(kernel.environments, web.env, 0, 2)
    assert kernel.machine.drained == [(web.env.number, 0, 2)]
    assert owners(kernel) == [0, 0, 1, 1, 1, 1]
    assert kernel.pages.used(web.env.number) == 4


@pytest.mark.parametrize(("first", "count"), [(2, 1), (3, 1), (0, 6), (3, 2)])
def test_r15_force_refuses_guaranteed_pages_and_takes_nothing(
    kernel: FakeKernel, web: Side, first: int, count: int
) -> None:
    refused(web, DeniedError, "are guaranteed", lambda: take(kernel.environments, web.env, first, count))
    assert kernel.machine.drained == []
    assert lib.exo_pages_seize(kernel.machine.pages, web.env.number, first, count) == lib.EXO_E_DENIED
    assert owners(kernel) == [web.env.number] * 6


def test_r15_an_extent_that_is_taken_whole_ends_its_capability(kernel: FakeKernel, web: Side) -> None:
    extent = web.gate.allocate(2, first=10)
    web.gate.guarantee(10, 1)
    with pytest.raises(DeniedError):
        take(kernel.environments, web.env, 10, 2)
    web.gate.unguarantee(10, 2)
    take(kernel.environments, web.env, 10, 2)
    with pytest.raises(DeniedError, match="revoked"):
        kernel.authority.authentic(extent.capability)


def test_r15_guarantees_are_few(web: Side) -> None:
    web.gate.guarantee(2, 2)  # they are already, and count once
    refused(web, ExhaustedError, "2 guaranteed and 2 more: its quota is 3", lambda: web.gate.guarantee(4, 2))
    web.gate.guarantee(4, 1)
    web.gate.unguarantee(0, 6)
    web.gate.guarantee(0, 3)
    assert web.gate.describe()["guaranteed"] == 3


@pytest.mark.parametrize("act", ["guarantee", "unguarantee"])
@pytest.mark.parametrize(("first", "count"), [(5, 2), (20, 1), (63, 2), (64, 1), (0, 0xFFFFFFFE), (0xFFFFFFFE, 2)])
def test_r15_only_own_pages_can_be_guaranteed(kernel: FakeKernel, web: Side, act: str, first: int, count: int) -> None:
    kernel.gate(kernel.open("dns")).allocate(1, first=6)
    refused(web, (UsageError, ExhaustedError), "web", lambda: getattr(web.gate, act)(first, count))  # type: ignore[arg-type]


def test_r15_a_borrowed_right_gives_no_guarantee(kernel: FakeKernel, web: Side) -> None:
    """R14 before R15: whoever lent it can take it back at once."""
    lender = kernel.token(web.env, Resource.PAGES)
    poor: Environment = kernel.environments.open("poor", web.env.mode, config={"libos": "poor"})
    gate: InlineGate = kernel.gate(poor)
    lent = web.gate.delegate(lender, poor.number)
    gate.allocate(2, first=20)
    with pytest.raises(DeniedError, match="a right that another environment can revoke"):
        gate.guarantee(20, 1)
    web.gate.revoke(lent)
    assert kernel.pages.used(poor.number) == 0
    kernel.environments.grant(poor, Resource.PAGES, Right.WRITE, Scope(pages=(30, 4)))
    gate.allocate(2, first=30)
    gate.guarantee(30, 1)
    gate.close()


def test_r15_a_guarantee_ends_with_the_page(kernel: FakeKernel, web: Side) -> None:
    """Freed, given up with its capability, or its owner's death: the next owner starts without."""
    web.gate.free(3, 1)
    extent = web.gate.allocate(1, first=8)
    web.gate.guarantee(8, 1)
    web.gate.revoke(extent.capability)
    assert kernel.pages.guaranteed(web.env.number) == [2]
    kernel.environments.end(web.env, "over")
    assert kernel.pages.free_count == 64
    assert not any(kernel.machine.pages.guaranteed[page] for page in range(64))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.attach(ScriptWire(), promiscuous=0)
    yield made
    made.close()


def test_r15_what_was_posted_from_the_page_leaves_before_it_is_taken(bench: Bench) -> None:
    """Up to the last descriptor that names it; what is posted behind waits, and then names a page that is gone."""
    libos = FakeLibOS(bench)
    libos.locals(LOCAL)
    page = libos.first + libos.pages - 1
    libos.memory(libos.first, 0, len(OUT))[:] = OUT
    for _ in range(3):
        libos.transmit(OUT)
    libos.describe(page=libos.first, offset=0, length=len(OUT))
    assert lib.exo_transmit_drain(bench.native, libos.env, page, 1) == 3
    assert lib.exo_transmit_drain(bench.native, libos.env, page, 1) == 0
    assert lib.exo_pages_seize(libos.table, libos.number, page, 1) == 0
    assert bench.wires[0].sent == [OUT] * 3  # type: ignore[attr-defined]
    libos.describe(page=page, offset=0, length=len(OUT))
    bench.run()
    assert bench.drops() == {"sent": 4, "transmit.bad_descriptor": 1}
    assert len(libos.completions()) == 5


def test_r15_nobody_waits_for_a_libos_that_takes_no_completions(bench: Bench) -> None:
    libos = FakeLibOS(bench, entries=8)
    libos.locals(LOCAL)
    page = libos.first + libos.pages - 1
    for _ in range(8):
        libos.transmit(OUT)
    assert lib.exo_transmit_drain(bench.native, libos.env, page, 1) == 8
    for _ in range(8):
        libos.transmit(OUT)
    assert lib.exo_transmit_drain(bench.native, libos.env, page, 1) == 0
    libos.env.libos.transmit_put.value = 77
    assert lib.exo_transmit_drain(bench.native, libos.env, page, 1) == 0
    assert libos.env.state == lib.EXO_ENV_SHUT


def test_r15_posted_receive_buffers_of_a_page_that_was_taken_are_refused(bench: Bench) -> None:
    """A copy never outlives its call, so there is nothing to wait for: the buffer is read again when it is used."""
    libos = FakeLibOS(bench, post=False)
    libos.fill(libos.first, 0, 2048)
    libos.bind("udp")
    assert lib.exo_pages_seize(libos.table, libos.number, libos.first, 1) == 0
    wire = bench.wires[0]
    assert isinstance(wire, ScriptWire)
    wire.add(0, udp())
    bench.run()
    assert bench.drops() == {"ring.bad_buffer": 1}
