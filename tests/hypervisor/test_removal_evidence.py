"""What must be known before an image is removed (ADR 12): the executor's part, over a driver that says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from controller.chain.journal import DiskJournal, OperationKind, Removal
from controller.chain.journal_codec import decode
from controller.chain.observation import Observation
from controller.chain.outcome import NOT_OURS, Outcome, abandoned, outcome
from controller.chain.prepared import Examined
from controller.chain.source import Source
from controller.chain.steps import Discard, Record, RecordWhy
from controller.hypervisor.driver import Driver, Opened
from controller.hypervisor.driver import Removal as Gone
from controller.hypervisor.errors import HypervisorError, NotExaminable, OutcomeUnknown, StorageUnreachable
from controller.hypervisor.execute import Executor
from controller.hypervisor.last_look import Refused
from controller.hypervisor.observe import with_opened
from tests.chain import builders as b

OVERLAY = "web-1.vda.varve-uid-x.qcow2"
LEFTOVER = Removal(b.layer(OVERLAY), since=b.TAKEN, attempted=True)
EMPTY = Examined(b.CAPACITY, "/images/base", "qcow2", empty=True)


class Says:
    """As much of a driver as is asked."""

    def __init__(self, *, present: bool | None = True, examined: Examined | HypervisorError = EMPTY) -> None:
        self._present = present
        self._examined = examined
        self.opened_error: HypervisorError | None = None
        self.asked = 0
        self.silent = False
        self.removed: list[str] = []
        self.written: list[str | None] = []

    async def present(self, source: Source) -> bool | None:
        return self._present

    async def examine(self, uuid: str, source: Source, *, way_in: int | None) -> Examined:
        if isinstance(self._examined, HypervisorError):
            raise self._examined
        return self._examined

    async def reach(self, sources: Any) -> None:
        if self.silent:
            raise StorageUnreachable("the server does not answer")

    async def opened(self, uuid: str) -> Opened:
        self.asked += 1
        if self.opened_error is not None:
            raise self.opened_error
        return Opened()

    async def referrers(self, source: Source) -> tuple[str, ...]:
        return ()

    async def remove_image(self, source: Source) -> Gone:
        self.removed.append(source.key)
        return Gone.REMOVED

    async def set_metadata(self, uuid: str, journal_xml: str | None, *, live: bool, config: bool) -> None:
        self.written.append(journal_xml)


def observed(*removals: Removal, inactive: tuple[str, ...] = ("top", "base")) -> Observation:
    facts = b.facts(b.disk("top", "base"), inactive=b.plain(b.disk(*inactive)))
    return b.observation(facts, records=[b.record(b.point("top", b.owner("a")), removals=removals)])


async def discarded(driver: Says, removal: Removal, observation: Observation | None = None) -> Removal | None:
    """What is left of the removal in the journal."""
    found = observation or observed(removal)
    executor = Executor(cast("Driver", driver), found, cluster="c-1", identities={"c-1"})
    await executor.run(Discard(b.TARGET, removal))
    return next(iter(decode(driver.written[-1]).disk(b.TARGET).removals), None)


@pytest.mark.parametrize("present", [True, None])
async def test_an_attempted_overlay_that_is_empty_goes(present: bool | None) -> None:
    driver = Says(present=present)
    assert await discarded(driver, LEFTOVER) is None
    assert driver.removed == [b.key(OVERLAY)]


async def test_one_that_was_never_made_is_forgotten() -> None:
    driver = Says(present=False, examined=NotExaminable("there is no such file"))
    assert await discarded(driver, LEFTOVER) is None


@pytest.mark.parametrize("present", [True, None])
@pytest.mark.parametrize(
    "examined",
    [replace(EMPTY, empty=False), NotExaminable("it is no qcow2 image")],
    ids=["not empty", "cannot be looked into"],
)
async def test_a2_one_that_may_hold_what_the_guest_wrote_stays(
    examined: Examined | HypervisorError, present: bool | None
) -> None:
    driver = Says(present=present, examined=examined)
    left = await discarded(driver, LEFTOVER)
    assert driver.removed == []
    assert left is not None
    assert left.attempted
    assert "may be the only image" in left.left
    assert b.TAKEN in left.left


async def test_what_was_merged_needs_no_look_inside() -> None:
    driver = Says(examined=NotExaminable("nobody asks"))
    assert await discarded(driver, replace(LEFTOVER, attempted=False)) is None
    assert driver.removed == [b.key(OVERLAY)]


@pytest.mark.parametrize("attempted", [True, False])
async def test_a1_what_the_next_start_uses_stays(attempted: bool) -> None:
    driver = Says()
    removal = replace(LEFTOVER, attempted=attempted)
    with pytest.raises(Refused, match="still in the chain of disk vda"):
        await discarded(driver, removal, observed(removal, inactive=(OVERLAY, "base")))
    assert driver.removed == []


# Asking QEMU ---------------------------------------------------------------------------------------------

TAKE = b.operation(OperationKind.TAKE, "new", "top", run="7")


class Reads(Says):
    """Reads the same domain again."""

    async def read(self, uuid: str, *, sizes: bool = True) -> Any:
        raise OutcomeUnknown("the connection broke")


def pending() -> Observation:
    facts = b.facts(b.disk("top", "base"), run="7")
    return b.observation(facts, records=[b.record(operation=TAKE)])


async def test_qemu_is_not_asked_for_an_image_that_was_never_made() -> None:
    """Asking marks the domain as tainted."""
    driver = Says(present=False)
    found = await with_opened(cast("Driver", driver), pending(), {b.TARGET}, identities={"c-1"})
    assert driver.asked == 0
    facts = found.disks[b.TARGET]
    assert outcome(TAKE, facts) is Outcome.UNDONE
    (left,) = abandoned(DiskJournal(b.TARGET, operation=TAKE), TAKE, facts).removals
    assert left.run == ""


@pytest.mark.parametrize("present", [True, None])
async def test_a2_the_domain_is_read_again_after_qemu_was_asked(present: bool | None) -> None:
    """Or what libvirt has noted since would be held against it."""
    driver = Reads(present=present)
    with pytest.raises(OutcomeUnknown):
        await with_opened(cast("Driver", driver), pending(), {b.TARGET}, identities={"c-1"})
    assert driver.asked == 1


async def test_a2_qemu_is_not_asked_while_a_server_of_its_disks_is_silent() -> None:
    """It would stand still with its guest until the server answers."""
    driver = Reads(present=True)
    driver.silent = True
    with pytest.raises(OutcomeUnknown):  # of the look that follows
        await with_opened(cast("Driver", driver), pending(), {b.TARGET}, identities={"c-1"})
    assert driver.asked == 0


async def test_a2_an_undone_take_is_looked_at_once_more_before_it_is_recorded() -> None:
    """Writing the journal takes the domain's lock, so a call that is under way comes to its end first."""
    driver = Reads(present=False)
    executor = Executor(cast("Driver", driver), pending(), cluster="c-1", identities={"c-1"})
    record = Record(b.TARGET, b.record(), RecordWhy.UNDONE, finished=TAKE)
    with pytest.raises(OutcomeUnknown):
        await executor.run(record)
    assert [decode(xml).disk(b.TARGET).operation for xml in driver.written] == [TAKE]


async def test_an_image_that_varve_does_not_name_so_is_never_removed() -> None:
    """Whatever led to it: the last word before the call."""
    driver, removal = Says(), Removal(b.layer("template.qcow2"), since=b.TAKEN)
    left = await discarded(driver, removal)
    assert driver.removed == []
    assert left is not None
    assert left.left == NOT_OURS
