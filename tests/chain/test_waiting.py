"""Waiting: for time, for room, for somebody else; and removing images meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Hold
from controller.chain.desired import Policy
from controller.chain.journal import OperationKind, Removal
from controller.chain.observation import Job, JobKind
from controller.chain.planner import plan
from controller.chain.steps import Discard, StartMerge, Take
from tests.chain import builders as b
from tests.chain.situations import AFTER, NOON, planned, with_points

K = OperationKind


def leaving(settle: int, *names: str, gone: timedelta = timedelta(0)) -> tuple[object, list[object]]:
    chain = b.disk(*[f"o{name}" for name in names], "base")
    records = [b.record(*[b.point(f"o{name}", b.owner(name)) for name in names])]
    policy = Policy(settle_seconds=settle)
    wants: list[object] = [b.want(name, gone_since=b.NOW - gone, policy=policy) for name in names]
    return b.observation(b.facts(chain), records=records), wants


@pytest.mark.parametrize(("age", "waits"), [(0, True), (9, True), (10, False), (11, False)])
def test_a_merge_settles_and_not_a_second_longer(age: int, *, waits: bool) -> None:
    observation, wants = leaving(10, "a", gone=timedelta(seconds=age))
    found = planned(observation, wants, NOON)
    if not waits:
        assert isinstance(found.step, StartMerge)
        return
    assert found.step is None
    assert found.blocked is not None
    assert found.blocked.why is Why.SETTLING
    assert found.wake_at == b.NOW + timedelta(seconds=10 - age)


def test_of_two_merges_that_settle_the_first_to_be_due_wakes() -> None:
    chain = b.disk("o3", "o2", "o1", "base")
    records = [
        b.record(b.point("o3", b.owner("c")), b.point("o2", b.owner("b")), b.point("o1", b.owner("a")))
    ]
    wants = [
        b.want("a", gone_since=b.NOW, policy=Policy(settle_seconds=30)),
        b.want("b"),
        b.want("c", gone_since=b.NOW, policy=Policy(settle_seconds=1)),
    ]
    found = planned(b.observation(b.facts(chain), records=records), wants, NOON)
    assert found.wake_at == b.NOW + timedelta(seconds=1)


def test_a_merge_that_settles_does_not_hold_up_another() -> None:
    chain = b.disk("o3", "o2", "o1", "base")
    records = [
        b.record(b.point("o3", b.owner("c")), b.point("o2", b.owner("b")), b.point("o1", b.owner("a")))
    ]
    wants = [
        b.want("a", gone_since=b.NOW, policy=Policy(settle_seconds=30)),
        b.want("b"),
        b.want("c", gone_since=b.NOW),
    ]
    found = planned(b.observation(b.facts(chain), records=records), wants, NOON)
    assert isinstance(found.step, StartMerge)
    assert [who.name for who in found.step.operation.owners] == ["c"]


def test_no_more_merges_than_slots() -> None:
    disks, records, wants = [], [], []
    for target in ("vda", "vdb", "vdc"):
        chain = replace(b.disk("o" + target, "base" + target), target=target)
        disks.append(b.facts(chain))
        records.append(replace(b.record(b.point("o" + target, b.owner(target))), target=target))
        wants.append(b.want(target, target=target, gone_since=AFTER))
    found = plan(b.observation(*disks, records=records), wants, replace(NOON, merge_slots=2))
    assert [step.target for step in found.steps if isinstance(step, StartMerge)] == ["vda", "vdb"]
    last = found.disk("vdc")
    assert last is not None
    assert last.blocked is not None
    assert last.blocked.why is Why.QUEUED


def test_a_failure_is_waited_out() -> None:
    hold = Hold(b.NOW + timedelta(seconds=5), Blocked(Why.FAILED, "no space"))
    found = planned(b.observation(b.facts(b.disk("base"))), [b.want("a")], replace(NOON, holds={"vda": hold}))
    assert (found.step, found.blocked, found.wake_at) == (None, hold.blocked, hold.until)
    later = replace(NOON, now=hold.until, holds={"vda": hold})
    assert isinstance(planned(b.observation(b.facts(b.disk("base"))), [b.want("a")], later).step, Take)


def test_a_failed_merge_is_waited_out() -> None:
    hold = Hold(b.NOW + timedelta(seconds=5), Blocked(Why.FAILED, "no space"))
    observation, wants = leaving(0, "a")
    found = planned(observation, wants, replace(NOON, holds={"vda": hold}))
    assert (found.step, found.blocked, found.wake_at) == (None, hold.blocked, hold.until)


def test_who_else_uses_an_image_is_asked_before_a_merge_or_a_removal() -> None:
    observation, wants = leaving(0, "a")
    unread = replace(observation, in_use_elsewhere=None)  # type: ignore[type-var]
    found = planned(unread, wants, NOON)
    assert (found.step, found.wants_usage, found.blocked) == (None, True, None)
    removals = b.record(images=[], removals=(Removal(b.layer("x")),))
    found = planned(
        b.observation(b.facts(b.disk("base")), records=[removals], in_use_elsewhere=None), [], NOON
    )
    assert (found.step, found.wants_usage) == (None, True)


def test_usage_is_not_asked_for_nothing() -> None:
    loop = with_points("a")
    found = plan(replace(loop.machine.observe(), in_use_elsewhere=None), loop.wants, NOON)
    assert not found.wants_usage


def test_a_removal_that_failed_is_waited_out_and_one_that_was_given_up_is_left() -> None:
    removals = b.record(images=[], removals=(Removal(b.layer("x")), Removal(b.layer("y"), left="directory")))
    observation = b.observation(b.facts(b.disk("base")), records=[removals])
    found = planned(observation, [], NOON)
    assert isinstance(found.step, Discard)
    assert found.step.removal.layer.key == b.key("x")
    held = replace(NOON, discard_holds={b.key("x"): b.NOW + timedelta(seconds=1)})
    assert planned(observation, [], held).step is None


def test_a_blocked_take_does_not_keep_images_from_being_removed() -> None:
    chain = b.disk("top", "base")
    removals = b.record(images=[], removals=(Removal(b.layer("x")),))
    full = b.want("a", policy=Policy(max_layers=2))
    found = planned(b.observation(b.facts(chain), records=[removals]), [full], NOON)
    assert isinstance(found.step, Discard)


def test_images_are_removed_while_a_job_runs() -> None:
    begun = b.operation(K.COMMIT, "base", "o1")
    record = b.record(b.point("o1", b.owner("a")), operation=begun, removals=(Removal(b.layer("x")),))
    facts = b.facts(b.disk("o2", "o1", "base"), job=Job(JobKind.COMMIT, 1, 2))
    found = planned(b.observation(facts, records=[record]), [b.want("a", gone_since=AFTER)], NOON)
    assert isinstance(found.step, Discard)
    assert found.running == begun
