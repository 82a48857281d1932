"""A hypervisor that comes and goes, on drivers made of what the test needs. No daemon needed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import cast

import pytest

from controller.hypervisor.driver import (
    Disconnected,
    DomainRef,
    Driver,
    Event,
    EventSink,
    Facts,
    Lifecycle,
    LifecycleKind,
)
from controller.hypervisor.errors import Unreachable
from controller.hypervisor.host import Host, Supervision

FACTS = Facts("9.0.0", "7.2.22", "here", frozenset())
NOT_ASKED = Facts("9.0.0", "7.2.22", "here", frozenset(), flags_asked=False)
ASKED = Facts("9.0.0", "7.2.22", "here", frozenset({"commit-relative"}))
ONE = DomainRef("uuid-1", "one", active=True)
TWO = DomainRef("uuid-2", "two", active=False)
QUICK = Supervision(first_delay=0.001, most_delay=0.008, check_every=0.01)


class Daemon:
    """The part of a driver that a host uses, and the daemon behind it."""

    def __init__(self) -> None:
        self.inventory: list[DomainRef] = [ONE]
        self.sink: EventSink | None = None
        self.opened = self.closed = self.listed = 0
        self.refusal: Exception | None = None
        self.while_listing: Callable[[], Awaitable[None]] | None = None
        self.told: list[Facts] = []
        """The next answers to the question for facts; then always the usual ones."""

    async def connect(self, sink: EventSink) -> Driver:
        if self.refusal is not None:
            raise self.refusal
        self.opened += 1
        self.sink = sink
        return cast("Driver", self)

    async def facts(self) -> Facts:
        return self.told.pop(0) if self.told else FACTS

    async def domains(self) -> tuple[DomainRef, ...]:
        self.listed += 1
        answer = tuple(self.inventory)
        if self.while_listing is not None:
            await self.while_listing()
        if self.refusal is not None:
            raise self.refusal
        return answer

    async def close(self) -> None:
        self.closed += 1

    def send(self, event: Event) -> None:
        assert self.sink is not None
        self.sink(event)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
async def host(daemon: Daemon, events: list[Event], changes: list[str]) -> AsyncIterator[Host]:
    host = Host(
        "h",
        daemon.connect,
        on_event=lambda _name, event: events.append(event),
        on_change=changes.append,
        supervision=QUICK,
    )
    yield host
    await host.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (states of several objects: a bounded poll)
            await asyncio.sleep(0)


async def test_before_it_connects_it_says_so(host: Host) -> None:
    assert (host.status.connected, host.status.synced, host.status.facts) == (False, False, None)
    with pytest.raises(Unreachable, match="hypervisor h: not connected yet"):
        _ = host.driver


async def test_connected_means_that_facts_and_inventory_are_there(
    host: Host, daemon: Daemon, changes: list[str]
) -> None:
    host.start()
    await until(lambda: host.status.connected)
    assert host.status.synced
    assert host.status.facts == FACTS
    assert host.find_by_name("one") == host.find_by_uuid("uuid-1") == ONE
    assert host.find_by_name("two") is None
    assert host.driver is cast("Driver", daemon)
    assert changes == ["h"]


async def test_flags_that_could_not_be_asked_for_are_asked_for_again(
    host: Host, daemon: Daemon, changes: list[str]
) -> None:
    """The first domain comes between the question for facts and the list, or those there are all hang."""
    daemon.told = [NOT_ASKED, NOT_ASKED, ASKED]
    host.start()
    await until(lambda: host.status.facts == ASKED)
    asked = daemon.listed
    await until(lambda: daemon.listed > asked + 3)
    assert host.status.facts == ASKED, "what was answered is not asked for again"
    assert changes == ["h", "h"]


async def test_the_first_domain_is_asked_at_once(daemon: Daemon) -> None:
    daemon.inventory, daemon.told = [], [NOT_ASKED, ASKED]
    patient = Host(
        "h",
        daemon.connect,
        on_event=lambda _name, _event: None,
        on_change=lambda _name: None,
        supervision=replace(QUICK, check_every=3600),
    )
    patient.start()
    try:
        await until(lambda: patient.status.connected and daemon.listed == 2)
        assert patient.status.facts == NOT_ASKED
        daemon.inventory.append(ONE)
        daemon.send(Lifecycle(ONE.uuid, ONE.name, LifecycleKind.DEFINED))
        await until(lambda: patient.status.facts == ASKED)
    finally:
        await patient.stop()


async def test_an_unchanged_inventory_is_no_change(host: Host, daemon: Daemon, changes: list[str]) -> None:
    host.start()
    await until(lambda: daemon.listed > 5)
    assert changes == ["h"]
    daemon.inventory.append(TWO)
    await until(lambda: host.find_by_name("two"))
    assert changes == ["h", "h"]


async def test_a_lost_connection_is_said_at_once_and_made_again(
    host: Host, daemon: Daemon, events: list[Event], changes: list[str]
) -> None:
    host.start()
    await until(lambda: host.status.connected)
    daemon.send(Disconnected("it broke"))
    assert (host.status.connected, host.status.synced, host.status.message) == (False, False, "it broke")
    assert host.status.facts == FACTS, "what it was is known"
    assert host.find_by_name("one") == ONE, "what it had is known"
    assert events == [Disconnected("it broke")]
    assert changes == ["h", "h"]
    await until(lambda: host.status.connected)
    assert (daemon.opened, daemon.closed) == (2, 1)


async def test_a_daemon_that_does_not_list_its_domains_is_not_connected(host: Host, daemon: Daemon) -> None:
    host.start()
    await until(lambda: host.status.connected)
    daemon.refusal = Unreachable("no answer for 10 s")
    await until(lambda: not host.status.connected)
    assert host.status.message == "no answer for 10 s"
    await until(lambda: daemon.closed == daemon.opened)


async def test_the_same_failure_again_is_no_change(host: Host, daemon: Daemon, changes: list[str]) -> None:
    daemon.refusal = Unreachable("connection refused")
    host.start()
    await asyncio.sleep(10 * QUICK.most_delay)
    assert host.status.message == "connection refused"
    assert changes == ["h"]


async def test_a_defect_does_not_end_the_supervision(host: Host, daemon: Daemon) -> None:
    daemon.refusal = KeyError("a defect")
    host.start()
    await until(lambda: "internal error" in host.status.message)
    daemon.refusal = None
    await until(lambda: host.status.connected)


async def test_delays_double_up_to_the_most(
    host: Host, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def record(delay: float) -> None:
        if delay:
            delays.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    daemon.refusal = Unreachable("refused")
    host.start()
    await until(lambda: len(delays) >= 6)
    for delay, whole in zip(delays, [0.001, 0.002, 0.004, 0.008, 0.008, 0.008], strict=False):
        assert whole / 2 <= delay <= whole


async def test_b13_delays_begin_anew_once_a_connection_has_worked(
    host: Host, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B13: a daemon that died twice in short order is not waited for longer than one that died once."""
    delays: list[float] = []
    sleep = asyncio.sleep

    async def record(delay: float) -> None:
        if delay:
            delays.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    daemon.refusal = Unreachable("refused")
    host.start()
    await until(lambda: len(delays) >= 6)
    assert delays[-1] > QUICK.first_delay
    daemon.refusal = None
    await until(lambda: host.status.connected)
    delays.clear()
    daemon.send(Disconnected("it died"))
    await until(lambda: delays)
    assert delays[0] <= QUICK.first_delay


async def test_b13_a_door_that_opens_is_gone_through_at_once(daemon: Daemon) -> None:
    """B13: without it the next attempt would be in an hour. While the door is closed, none is made."""
    opens, rung = asyncio.Event(), 0

    async def doorbell() -> bool:
        nonlocal rung
        rung += 1
        return opens.is_set()

    tried = 0

    async def connect(sink: EventSink) -> Driver:
        nonlocal tried
        tried += 1
        return await daemon.connect(sink)

    host = Host(
        "h",
        connect,
        on_event=lambda _name, _event: None,
        on_change=lambda _name: None,
        supervision=Supervision(first_delay=3600, most_delay=3600, ring_every=0.001, check_every=3600),
        doorbell=doorbell,
    )
    daemon.refusal = Unreachable("refused")
    host.start()
    try:
        for attempts in (1, 2):
            enough = rung + 5
            await until(lambda: rung > enough)  # noqa: B023 (awaited here)
            assert tried == attempts
            daemon.refusal = None
            opens.set()
            await until(lambda: host.status.connected)
            assert tried == attempts + 1
            opens.clear()
            daemon.refusal = Unreachable("refused")
            daemon.send(Disconnected("it died"))
    finally:
        await host.stop()


@pytest.mark.parametrize(
    ("kind", "known", "expected"),
    [
        (LifecycleKind.DEFINED, None, False),
        (LifecycleKind.STARTED, None, True),
        (LifecycleKind.STARTED, False, True),
        (LifecycleKind.DEFINED, True, True),
        (LifecycleKind.STOPPED, True, False),
        (LifecycleKind.OTHER, True, True),
    ],
)
async def test_an_event_says_what_it_says_before_the_next_list(
    host: Host, daemon: Daemon, kind: LifecycleKind, known: bool | None, expected: bool
) -> None:
    if known is not None:
        daemon.inventory.append(DomainRef("uuid-2", "two", active=known))
    host.start()
    await until(lambda: host.status.connected)
    daemon.send(Lifecycle("uuid-2", "two", kind))
    assert host.find_by_name("two") == DomainRef("uuid-2", "two", active=expected)


async def test_a_renamed_domain_is_found_by_its_new_name_only(host: Host, daemon: Daemon) -> None:
    host.start()
    await until(lambda: host.status.connected)
    daemon.send(Lifecycle("uuid-1", "new", LifecycleKind.DEFINED))
    assert host.find_by_name("one") is None
    assert host.find_by_name("new") == DomainRef("uuid-1", "new", active=True)


async def test_a_list_older_than_an_event_does_not_undo_it(host: Host, daemon: Daemon) -> None:
    """The daemon answers with what was; before the answer arrives, an event tells what is."""
    host.start()
    await until(lambda: host.status.connected)
    rounds = itertools.count()

    async def meanwhile() -> None:
        if next(rounds) == 0:
            daemon.inventory.append(TWO)
            daemon.send(Lifecycle("uuid-2", "two", LifecycleKind.DEFINED))

    daemon.while_listing = meanwhile
    await host.refresh()
    assert host.find_by_name("two") == TWO


async def test_events_of_an_earlier_connection_do_not_count(
    host: Host, daemon: Daemon, events: list[Event]
) -> None:
    host.start()
    await until(lambda: host.status.connected)
    earlier = daemon.sink
    assert earlier is not None
    earlier(Disconnected("broke"))
    await until(lambda: daemon.opened == 2 and host.status.connected)
    events.clear()
    earlier(Lifecycle("uuid-9", "ghost", LifecycleKind.STARTED))
    earlier(Disconnected("again"))
    assert host.status.connected
    assert host.find_by_name("ghost") is None
    assert events == []


async def test_stopped_means_closed(host: Host, daemon: Daemon) -> None:
    host.start()
    await until(lambda: host.status.connected)
    await host.stop()
    assert (daemon.opened, daemon.closed) == (1, 1)
    with pytest.raises(Unreachable, match="on purpose"):
        _ = host.driver
    with pytest.raises(Unreachable):
        await host.refresh()
