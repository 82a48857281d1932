"""What may have been in use is never removed on the strength of an absence (ADR 12): the planner's part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Hold
from controller.chain.disk import Disk, Layer
from controller.chain.drift import known as known_chain
from controller.chain.journal import Attempt, DiskJournal, Known, OperationKind, Removal
from controller.chain.observation import DiskFacts, RunState
from controller.chain.opened import Opened, OpenedImage
from controller.chain.plan import DiskPlan, State
from controller.chain.planner import plan
from controller.chain.source import Host, Source
from controller.chain.steps import Discard, Record, RecordWhy, SpellOut, Take
from tests.chain import builders as b
from tests.chain.situations import NOON, only

K = OperationKind
A = b.owner("a")
TAKE = b.operation(K.TAKE, "new", "top", run="7")


def known_of(*names: str) -> Known:
    return known_chain(b.disk(*names))


def in_qemu(*names: str) -> Opened:
    images = tuple(OpenedImage(f"/images/{name}", "qcow2") for name in names)
    return Opened(images, frozenset(image.name for image in images))


def found(facts: DiskFacts, record: DiskJournal, *wants: str, **changes: object) -> DiskPlan:
    state = RunState.RUNNING if facts.live else RunState.SHUTOFF
    observation = b.observation(facts, records=[record], state=state)
    return only(plan(observation, [b.want(name) for name in wants], replace(NOON, **changes)))


def running(*names: str, **changes: object) -> DiskFacts:
    return b.facts(b.disk(*names), run="7", **changes)


# A2 ------------------------------------------------------------------------------------------------------


def test_a2_qemu_is_asked_before_a_take_is_called_undone() -> None:
    disk = found(running("top", "base"), b.record(operation=TAKE), "a")
    assert disk.wants_opened
    assert disk.step is None


def test_a2_a_take_that_libvirt_does_not_show_is_stored_and_told() -> None:
    facts = running("top", "base", opened=in_qemu("new", "top", "base"))
    disk = found(facts, b.record(operation=TAKE), "a")
    assert isinstance(disk.step, SpellOut)
    assert [layer.key for layer in disk.step.chain] == [b.key(name) for name in ("new", "top", "base")]
    assert disk.blocked is not None
    assert disk.blocked.why is Why.OUT_OF_STEP
    stored = replace(facts, inactive=b.plain(b.disk("new", "top", "base")))
    after = found(stored, b.record(operation=TAKE), "a")
    assert (after.step, after.blocked) == (None, disk.blocked)


def test_a2_after_a_stop_the_take_is_a_take() -> None:
    off = b.facts(None, inactive=b.plain(b.disk("new", "top", "base")))
    disk = found(off, b.record(operation=TAKE), "a")
    assert isinstance(disk.step, Record)
    assert disk.step.why is RecordWhy.DONE
    assert disk.step.record.points[0].overlay == b.key("new")


def test_a2_a_pull_that_libvirt_does_not_show_keeps_the_old_definition() -> None:
    """It is not flushed, so only the chain of before is right after a crash."""
    pull = b.operation(K.PULL, "top", "mid", below="base", run="7")
    disk = found(running("top", "mid", "base", opened=in_qemu("top", "base")), b.record(operation=pull))
    assert disk.step is None
    assert disk.blocked is not None
    assert disk.blocked.why is Why.OUT_OF_STEP


@pytest.mark.parametrize(
    "operation", [TAKE, b.operation(K.COMMIT, "base", "mid"), b.operation(K.ACTIVE_COMMIT, "base", "mid")]
)
def test_a2_what_qemu_has_and_nobody_knows_is_not_stored(operation: object) -> None:
    facts = running("top", "mid", "base", opened=in_qemu("stranger", "new", "top", "base"))
    disk = found(facts, b.record(operation=operation), "a")
    assert not isinstance(disk.step, SpellOut)


@pytest.mark.parametrize(
    ("kind", "kept", "merged", "live"),
    [
        (K.TAKE, "new", ("top",), ("new", "top", "base")),
        (K.COMMIT, "base", ("mid",), ("top", "base")),
        (K.ACTIVE_COMMIT, "base", ("top", "mid"), ("base",)),
        (K.PULL, "top", ("mid",), ("top", "base")),
    ],
)
def test_a2_a_definition_that_was_not_written_is_written_by_us(
    kind: OperationKind, kept: str, merged: tuple[str, ...], live: tuple[str, ...]
) -> None:
    """`ChainDiverged` that follows from our own operation needs nobody."""
    before = ("top", "base") if kind is K.TAKE else ("top", "mid", "base")
    begun = b.operation(kind, kept, *merged, run="7", pivoting=True)
    facts = running(*live, inactive=b.plain(b.disk(*before)))
    disk = found(facts, b.record(operation=begun))
    assert isinstance(disk.step, SpellOut)
    assert [layer.key for layer in disk.step.chain] == [b.key(name) for name in live]


def test_a2_calls_that_fail_as_in_a_split_lead_to_a_question_not_to_another_call() -> None:
    hold = Hold(b.NOW, Blocked(Why.OUT_OF_STEP, "in step no more"))
    asked = found(running("top", "base"), DiskJournal("vda"), "a", holds={"vda": hold})
    assert asked.wants_opened
    split = running("top", "base", opened=in_qemu("theirs", "top", "base"))
    told = found(split, DiskJournal("vda"), "a", holds={"vda": hold})
    assert isinstance(told.step, SpellOut)
    assert told.blocked is not None
    assert "/images/theirs" in told.blocked.message
    fine = found(
        running("top", "base", opened=in_qemu("top", "base")), DiskJournal("vda"), "a", holds={"vda": hold}
    )
    assert isinstance(fine.step, Take)


# The removal rule ----------------------------------------------------------------------------------------

REMOTE = Layer(Source.network("nbd", "x", [Host("h", "10809")]), "qcow2")


@pytest.mark.parametrize(
    ("removal", "run", "goes"),
    [
        (Removal(b.layer("x")), "7", True),
        (Removal(b.layer("x"), attempted=True), "7", True),
        (Removal(b.layer("x"), attempted=True, run="7"), "7", False),
        (Removal(b.layer("x"), attempted=True, run="7"), "8", True),
        (Removal(b.layer("x"), attempted=True, run="7"), "", True),
        (Removal(REMOTE, attempted=True), "", False),
        (Removal(REMOTE, attempted=True), "7", True),
        (Removal(b.layer("x"), left="why"), "7", False),
    ],
)
def test_an_image_waits_for_the_end_of_the_run_that_may_have_it_open(
    removal: Removal, run: str, goes: bool
) -> None:
    chain = b.disk("top", "base")
    facts = b.facts(chain, run=run) if run else b.facts(None, inactive=b.plain(chain))
    record = b.record(b.point("top", A), removals=(removal,))
    assert isinstance(found(facts, record).step, Discard) is goes


def test_a2_nothing_of_a_machine_that_libvirt_may_have_lost_is_removed() -> None:
    pivot = b.operation(K.ACTIVE_COMMIT, "base", "top", run="7", pivoting=True)
    lost = b.facts(None, inactive=b.plain(b.disk("top", "base")))
    other = Disk("vdb", "disk", (b.layer("other"),), b.disk("x").end)
    second = replace(b.facts(None, inactive=b.plain(other)), target="vdb")
    records = [
        b.record(operation=pivot),
        replace(b.record(removals=(Removal(b.layer("x")),)), target="vdb"),
    ]
    observation = b.observation(lost, second, records=records, state=RunState.SHUTOFF)
    one, two = plan(observation, [], NOON).disks
    assert one.blocked is not None
    assert one.blocked.why is Why.OUT_OF_STEP
    assert two.step is None


# B26: a name is used once --------------------------------------------------------------------------------


def test_b26_a_name_that_failed_is_not_used_again_after_its_removal() -> None:
    record = b.record(attempts=(Attempt(A.uid, 2),))
    disk = found(running("top", "base"), record, "a")
    assert isinstance(disk.step, Take)
    (one,) = disk.step.disks
    assert one.operation.kept.source.leaf.endswith("-3.qcow2")
    assert one.operation.attempt == 3


def test_b26_the_attempt_is_kept_until_the_object_has_its_point() -> None:
    facts = running("top", "base", opened=in_qemu("top", "base"))
    disk = found(facts, b.record(operation=replace(TAKE, attempt=4)), "a")
    assert isinstance(disk.step, Record)
    assert disk.step.record.attempt_of(A) == 4
    taken = found(running("new", "top", "base"), b.record(operation=TAKE, attempts=(Attempt(A.uid, 3),)), "a")
    assert isinstance(taken.step, Record)
    assert taken.step.record.attempts == ()


def test_b26_the_attempts_of_one_that_leaves_are_forgotten() -> None:
    record = b.record(b.point("top", b.owner("b")), attempts=(Attempt(A.uid, 3),))
    observation = b.observation(running("top", "base"), records=[record])
    wants = [b.want("a", gone_since=b.NOW), b.want("b")]
    step = only(plan(observation, wants, NOON)).step
    assert isinstance(step, Record)
    assert step.record.attempts == ()


# A1 ------------------------------------------------------------------------------------------------------


def test_a1_no_take_while_the_stored_definition_differs() -> None:
    facts = running("top", "base", inactive=b.plain(b.disk("reinstalled")))
    disk = found(facts, DiskJournal("vda"), "a")
    assert disk.blocked is not None
    assert disk.blocked.why is Why.DEFINITION_DIFFERS
    assert "/images/reinstalled" in disk.blocked.message
    assert "virsh update-device web-1 vda.xml --config" in disk.blocked.message


def test_a1_a_take_that_was_seen_is_recorded_although_another_image_is_stored() -> None:
    facts = running("new", "top", "base", inactive=b.plain(b.disk("reinstalled")))
    disk = found(facts, b.record(operation=TAKE), "a")
    assert isinstance(disk.step, Record)
    assert disk.step.why is RecordWhy.DONE


def test_a1_a_point_is_lost_for_good_once_a_machine_ran_without_its_overlay() -> None:
    """Its layer was written to then, and putting the overlay back brings another moment."""
    known = b.record(b.point("top", A), known=known_of("top", "base"))
    ran = found(running("base"), known, "a", judged_at={}, witnessed={})
    assert isinstance(ran.step, Record)
    back = ran.step.record
    observation = b.observation(
        running("top", "base"), records=[replace(back, known=known_of("top", "base"))]
    )
    (standing,) = plan(observation, [b.want("a")], NOON).standings
    assert standing.state is State.LOST


def test_a1_a_definition_without_the_overlay_alone_loses_nothing() -> None:
    """The machine is off: set back before it starts, the point is whole."""
    known = b.record(b.point("top", A), known=known_of("top", "base"))
    off = found(b.facts(None, inactive=b.plain(b.disk("base"))), known, "a")
    assert isinstance(off.step, Record)
    observation = b.observation(running("top", "base"), records=[off.step.record])
    (standing,) = plan(observation, [b.want("a")], NOON).standings
    assert standing.state is State.HELD


def test_a1_a_lost_point_names_the_image_that_holds_what_came_after() -> None:
    removal = Removal(b.layer("top"), left="somebody took it out")
    record = b.record(b.point("top", A), images=[], removals=(removal,), known=known_of("base"))
    observation = b.observation(running("base"), records=[record])
    (standing,) = plan(observation, [b.want("a")], NOON).standings
    assert standing.blocked is not None
    assert "/images/top, which is kept" in standing.blocked.message


def test_a1_a_point_is_told_with_a_definition_that_leads_elsewhere() -> None:
    record = b.record(b.point("top", A), known=known_of("top", "base"))
    facts = running("top", "base", inactive=b.plain(b.disk("reinstalled")))
    observation = b.observation(facts, records=[record])
    (standing,) = plan(observation, [b.want("a")], NOON).standings
    assert standing.state is State.HELD
    assert standing.blocked is not None
    assert standing.blocked.why is Why.DEFINITION_DIFFERS
