"""Machines that do not tell what they use: what that costs the others. No daemon needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import libvirt
import pytest

from controller.chain.observation import JobKind
from controller.hypervisor.connections import Connections
from controller.hypervisor.definitions import DefinitionReader
from controller.hypervisor.driver import DeviceChanged, JobChanged, JobStatus, Lifecycle, LifecycleKind
from controller.hypervisor.errors import Busy, Unreachable
from controller.hypervisor.threads import CallThreads, Progress, Unanswered
from tests.hypervisor.test_codes import QEMU, libvirt_error

PATIENCE = 0.25
LONG = 20.0


@dataclass(eq=False)
class Machine:
    """One domain; a call that reads its definition waits while it hangs."""

    uuid: str
    text: str = ""
    busy: bool = False
    """Whether libvirt tells that a call holds its lock."""
    arriving: bool = False
    asked: int = 0
    answers: threading.Event = field(default_factory=threading.Event)
    error: libvirt.libvirtError | None = None

    def __post_init__(self) -> None:
        self.text = f"<domain><name>{self.name()}</name></domain>"
        self.answers.set()

    def UUIDString(self) -> str:  # noqa: N802 (libvirt's name)
        return self.uuid

    def name(self) -> str:
        return f"name-of-{self.uuid}"

    def controlInfo(self) -> list[int]:  # noqa: N802 (libvirt's name)
        state = libvirt.VIR_DOMAIN_CONTROL_OCCUPIED if self.busy else libvirt.VIR_DOMAIN_CONTROL_OK
        return [state, 0, 0]

    def jobStats(self, _flags: int) -> dict[str, int]:  # noqa: N802 (libvirt's name)
        if self.arriving:
            raise libvirt_error(55, QEMU, "migration statistics are available only on the source host")
        return {"type": libvirt.VIR_DOMAIN_JOB_NONE}

    def isPersistent(self) -> int:  # noqa: N802 (libvirt's name)
        return 0

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 (libvirt's name)
        self.asked += 1
        self.answers.wait(LONG)
        if self.error is not None:
            raise self.error
        return self.text


class Daemon:
    """As much of a connection as is asked."""

    def __init__(self, *uuids: str) -> None:
        self.machines = {uuid: Machine(uuid) for uuid in uuids}
        self.alive = True
        self.listed = 0

    def listAllDomains(self, _flags: int) -> list[Machine]:  # noqa: N802 (libvirt's name)
        self.listed += 1
        return list(self.machines.values())

    def lookupByUUIDString(self, uuid: str) -> Machine:  # noqa: N802 (libvirt's name)
        if uuid not in self.machines:
            raise libvirt_error(42, QEMU, "no domain")
        return self.machines[uuid]

    def isAlive(self) -> bool:  # noqa: N802 (libvirt's name)
        return self.alive


class Bench:
    """A reader on threads, as the driver has it."""

    def __init__(self, *uuids: str) -> None:
        self.daemon = Daemon(*uuids)
        self.unanswered = Unanswered()
        self.threads = CallThreads("test", self.unanswered, late=self._late)
        self.loop = asyncio.get_running_loop()
        self.answered: list[str] = []
        self.late: list[str] = []
        connections = Connections("", keepalive_interval=0, keepalive_count=0)
        connections.mine = lambda: cast("Any", self.daemon)  # type: ignore[method-assign]
        self._connections = connections
        self.reader = DefinitionReader(
            self._ask, hangs=lambda uuid: bool(self.unanswered.calls(uuid)), answered=self.answered.append
        )

    def _late(self, key: str) -> None:
        self.late.append(key)

    async def _ask(self, what: str, function: Any, *, key: str, progress: Progress | None = None) -> Any:
        call = partial(self._connections.ask, what, function, changing=False)
        deadline = PATIENCE if progress is None else LONG
        return await self.threads.run(
            call, key=key, what=what, deadline=deadline, progress=progress, patience=PATIENCE
        )

    def hang(self, *uuids: str, how: str = "") -> None:
        for uuid in uuids:
            self.daemon.machines[uuid].answers.clear()
            self.daemon.machines[uuid].busy = how == "busy"
            self.daemon.machines[uuid].arriving = how == "arriving"

    def free(self) -> None:
        for machine in self.daemon.machines.values():
            machine.busy = machine.arriving = False
            machine.answers.set()

    async def names(self) -> tuple[set[str], set[str]]:
        """Of which machines there are documents, and which are unread."""
        said = await self.reader.read()
        told = {uuid for uuid, one in self.daemon.machines.items() if one.text in said.documents}
        assert len(told) == len(said.documents)
        assert set(said.unread.values()) == {f"name-of-{uuid}" for uuid in said.unread}
        return told, set(said.unread)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench("a", "b", "c")
    yield made
    made.free()
    made.reader.close()
    made.threads.close(lambda: None)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 (threads have no event that asyncio could wait for)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["", "busy", "arriving"])
async def test_b9_one_that_hangs_is_named_and_the_others_are_read(bench: Bench, how: str) -> None:
    """B9: it is asked once, and not again before that question has its answer."""
    bench.hang("b", how=how)
    for _ in range(5):
        assert await bench.names() == ({"a", "c"}, {"b"})
    assert bench.daemon.machines["b"].asked == 1
    assert bench.unanswered.calls("b")[0].describe().startswith("reading the definition of name-of-b has not")
    with pytest.raises(Busy, match="name-of-b"):
        await bench.threads.run(lambda: None, key="b", what="reading b", deadline=LONG)
    bench.free()
    await until(lambda: bench.late == ["b"])
    await until(lambda: not bench.unanswered.calls("b"))
    await bench.reader.read()
    await until(lambda: bench.answered == ["b"])
    assert await bench.names() == ({"a", "b", "c"}, set())


async def test_b9_what_it_last_said_counts(bench: Bench) -> None:
    """B9: until an event tells that it may be different by now."""
    await bench.reader.read()
    bench.hang("b")
    for _ in range(2):
        assert await bench.names() == ({"a", "b", "c"}, set())
    bench.reader.saw(Lifecycle("b", "name-of-b", LifecycleKind.SUSPENDED))
    bench.reader.saw(JobChanged("b", "vda", JobKind.COMMIT, JobStatus.READY))
    assert await bench.names() == ({"a", "b", "c"}, set())


@pytest.mark.parametrize(
    "event",
    [
        Lifecycle("b", "name-of-b", LifecycleKind.DEFINED),
        Lifecycle("b", "name-of-b", LifecycleKind.STARTED),
        DeviceChanged("b", plugged=True),
        JobChanged("b", "vda", JobKind.COPY, JobStatus.COMPLETED),
    ],
    ids=lambda event: type(event).__name__,
)
@pytest.mark.parametrize("when", ["before it hangs", "while it is read"])
async def test_b9_what_may_have_changed_since_does_not_count(bench: Bench, event: Any, when: str) -> None:
    """B9: nor does what was on its way when the event came: it may be from before."""
    if when == "before it hangs":
        await bench.reader.read()
        bench.reader.saw(event)
    else:
        bench.hang("b")
        reading = asyncio.ensure_future(bench.reader.read())
        await until(lambda: bench.daemon.machines["b"].asked)
        bench.reader.saw(event)
        bench.free()
        assert not (await reading).unread
    bench.hang("b")
    assert await bench.names() == ({"a", "c"}, {"b"})


@pytest.mark.parametrize("how", ["busy", "arriving"])
async def test_b9_many_that_hang_cost_one_wait_and_one_thread(bench: Bench, how: str) -> None:
    """B9: libvirt tells which are, and once one has kept its answer back that is believed."""
    many = [f"m{number}" for number in range(40)]
    bench.daemon.machines |= {uuid: Machine(uuid) for uuid in many}
    bench.hang(*many, how=how)
    for _ in range(3):
        assert await bench.names() == ({"a", "b", "c"}, set(many))
    assert sum(bench.daemon.machines[uuid].asked for uuid in many) == 1
    assert bench.threads.threads <= 3


async def test_b9_many_that_hang_unseen_are_asked_one_after_the_other_aside(bench: Bench) -> None:
    """B9: some waits, a few threads, and the others are found to be well before long."""
    await bench.reader.read()
    many = [f"m{number}" for number in range(20)]
    bench.daemon.machines = {uuid: Machine(uuid) for uuid in many} | bench.daemon.machines
    bench.hang(*many)
    told, unread = await bench.names()
    assert unread == set(many)
    assert told == {"a", "b", "c"}, "what was not asked any more is known from before"
    for _ in range(5):
        assert await bench.names() == ({"a", "b", "c"}, set(many))
    assert sum(bench.daemon.machines[uuid].asked for uuid in many) <= 4
    assert bench.threads.threads <= 6
    bench.free()
    async with asyncio.timeout(LONG):
        while (await bench.names())[1]:  # noqa: ASYNC110 (what happens aside has no event)
            await asyncio.sleep(0.01)
    assert await bench.names() == ({"a", "b", "c", *many}, set())


async def test_b9_an_error_of_one_is_its_own(bench: Bench) -> None:
    """B9: libvirt gives up after 30 s by itself."""
    bench.daemon.machines["a"].error = libvirt_error(68, QEMU, "cannot acquire state change lock")
    assert await bench.names() == ({"b", "c"}, {"a"})
    bench.daemon.machines["a"].error = None
    await bench.reader.read()
    await until(lambda: bench.answered == ["a"])
    bench.daemon.machines["a"].error = libvirt_error(42, QEMU, "no domain")
    bench.daemon.alive = False
    bench.daemon.machines["b"].error = libvirt_error(38, libvirt.VIR_FROM_RPC, "End of file")
    with pytest.raises(Unreachable):
        await bench.reader.read()


async def test_b9_one_that_goes_is_forgotten(bench: Bench) -> None:
    """B9: also while it hangs."""
    bench.hang("b")
    assert await bench.names() == ({"a", "c"}, {"b"})
    hung = bench.daemon.machines.pop("b")
    assert await bench.names() == ({"a", "c"}, set())
    hung.answers.set()
    bench.daemon.machines["b"] = Machine("b")
    await until(lambda: not bench.unanswered.calls("b"))
    assert await bench.names() == ({"a", "b", "c"}, set())


async def test_those_who_ask_at_once_share_one_look_that_begins_after_they_asked(bench: Bench) -> None:
    bench.hang("a")
    first = asyncio.ensure_future(bench.reader.read())
    await until(lambda: bench.daemon.machines["a"].asked)
    late = Machine("late")
    bench.daemon.machines["late"] = late
    others = [asyncio.ensure_future(bench.reader.read()) for _ in range(5)]
    await asyncio.sleep(0)
    bench.free()
    assert late.text not in (await first).documents
    for said in await asyncio.gather(*others):
        assert late.text in said.documents
    assert bench.daemon.listed == 2


async def test_b9_one_that_answers_aside_during_a_sweep_is_in_what_that_says(bench: Bench) -> None:
    """B9: the sweep left it out, and it is late no more."""
    bench.hang("b")
    assert await bench.names() == ({"a", "c"}, {"b"})
    bench.hang("a")
    sweeping = asyncio.ensure_future(bench.reader.read())
    await until(lambda: bench.daemon.machines["a"].asked == 2)
    bench.daemon.machines["b"].answers.set()
    await until(lambda: not bench.unanswered.calls("b"))
    await bench.reader._ask_again()
    assert bench.answered == ["b"]
    bench.free()
    said = await sweeping
    assert bench.daemon.machines["b"].text in said.documents
    assert not said.unread


async def test_those_who_wait_for_a_sweep_are_told_of_the_end_of_the_connection(bench: Bench) -> None:
    """Cancelling the sweep would cancel them, and a pass that is cancelled is not run again."""
    bench.hang("a")
    first = asyncio.ensure_future(bench.reader.read())
    await until(lambda: bench.daemon.machines["a"].asked)
    waiting = asyncio.ensure_future(bench.reader.read())
    await asyncio.sleep(0)
    bench.reader.close()
    bench.threads.close(lambda: None)
    bench.free()
    with pytest.raises(Unreachable):
        await waiting
    assert (await first).documents
