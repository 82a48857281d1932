"""The whole way ahead, the name of a plan, and the approval that it waits for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances
from controller.chain.consent import Approval
from controller.chain.desired import Direction, Want
from controller.chain.disk import Disk
from controller.chain.drift import known
from controller.chain.forecast import DiskForecast, Foreseen, forecast
from controller.chain.journal import DiskJournal, OperationKind
from controller.chain.observation import Job, JobKind, Observation, RunState, Size
from controller.chain.outcome import settled
from controller.chain.plan import State
from controller.chain.planner import plan
from controller.chain.steps import Record, RecordWhy, StartMerge, Take
from tests.chain import builders as b

LONG_AGO = b.NOW - timedelta(hours=1)
CHAIN = ("e", "d", "c", "b", "a")
"""Each layer but the base is the overlay of a point with its name."""


def record(chain: Disk, **changes: object) -> DiskJournal:
    points = [b.point(layer.source.leaf, b.owner(layer.source.leaf)) for layer in chain.layers[:-1]]
    return replace(b.record(*points, known=known(chain)), **changes)  # type: ignore[arg-type]  # of DiskJournal


def seen(chain: Disk | None = None, **changes: object) -> Observation:
    chain = chain or b.disk(*CHAIN)
    found = b.observation(b.facts(chain), records=[record(chain)])
    return replace(found, **changes)  # type: ignore[arg-type]  # fields of Observation


def wants(*deleted: str, names: str = "edcb", **changes: object) -> list[Want]:
    return [b.want(name, gone_since=LONG_AGO if name in deleted else None, **changes) for name in names]


def ahead(
    observation: Observation, wanted: list[Want], *, deleting: tuple[str, ...] = (), **circumstances: object
) -> DiskForecast:
    at = Circumstances(b.NOW, **circumstances)  # type: ignore[arg-type]  # fields of Circumstances
    (found,) = forecast(observation, wanted, at, deleting=[f"shop/{name}" for name in deleting])
    return found


def told(step: Foreseen) -> tuple[str, str, str]:
    return step.kind.value, " ".join(layer.source.leaf for layer in step.leaving), _leaf(step)


def _leaf(step: Foreseen) -> str:
    return step.into.source.leaf if step.into is not None else ""


def test_nothing_to_do_is_no_plan() -> None:
    assert ahead(seen(), wants()) == DiskForecast(b.TARGET)


def test_all_merges_are_foreseen_and_not_only_the_first() -> None:
    found = ahead(seen(), wants("b", "d"))
    assert [told(step) for step in found.steps] == [
        ("commit", "b", "a"),
        ("remove", "b", ""),
        ("commit", "d", "c"),
        ("remove", "d", ""),
    ]
    assert [step.copies for step in found.steps] == [100, 0, 100, 0]
    assert [step.jobs for step in found.steps] == [1, 0, 1, 0]
    assert not any(step.blocked for step in found.steps)
    assert [layer.source.leaf for layer in found.removes] == ["b", "d"]


def test_a_range_that_keeps_a_layer_between_takes_two_jobs() -> None:
    chain = b.disk(*CHAIN)
    facts = b.facts(chain, sizes=b.sizes(chain, [10, 20, 900, 30, 100]))
    found = ahead(b.observation(facts, records=[record(chain)]), wants("e", "d", "c"))
    assert told(found.steps[0]) == ("commit-and-pull", "e d b", "c")
    assert (found.steps[0].copies, found.steps[0].jobs) == (60, 2)


def test_only_images_of_ours_are_removed() -> None:
    chain = b.disk(*CHAIN)
    observation = seen(chain, journal=b.observation(records=[record(chain, images=frozenset())]).journal)
    assert [told(step) for step in ahead(observation, wants("b")).steps] == [("commit", "b", "a")]


def test_what_may_not_be_merged_says_so_beside_what_may() -> None:
    found = ahead(seen(in_use_elsewhere=b.uses(a="disk vda of web-2")), wants("b", "d"))
    assert [(told(step)[0], step.blocked and step.blocked.why) for step in found.steps] == [
        ("commit", Why.IMAGE_PROTECTED),
        ("commit", None),
        ("remove", None),
    ]
    assert found.blocked is None


def test_what_the_whole_disk_waits_for_is_said_with_each_step() -> None:
    found = ahead(seen(state=RunState.SHUTOFF), wants("b", "d"))
    assert {step.blocked.why for step in found.steps if step.blocked} == {Why.WAITING_FOR_DOMAIN}
    assert found.blocked is not None
    assert found.blocked.why is Why.WAITING_FOR_DOMAIN


def test_a_hypothetical_deletion_changes_no_wish() -> None:
    wanted = wants()
    found = ahead(seen(), wanted, deleting=("c", "b"))
    assert told(found.steps[0]) == ("commit", "c b", "a")
    assert found.hash == ahead(seen(), wants("c", "b")).hash
    assert wanted == wants()


def test_a_take_and_its_obstacle() -> None:
    found = ahead(seen(), [*wants(), b.want("new")])
    assert [told(step) for step in found.steps] == [("take", "e", "")]
    found = ahead(seen(state=RunState.SHUTOFF), [*wants(), b.want("new")])
    assert found.steps[0].blocked is not None
    assert found.hash == ""


def test_what_runs_comes_first_and_the_rest_is_seen_from_its_end() -> None:
    chain = b.disk(*CHAIN)
    begun = b.operation(OperationKind.COMMIT, "a", "b", owners=(b.owner("b"),))
    facts = b.facts(chain, job=Job(JobKind.COMMIT, 10, 70))
    observation = b.observation(facts, records=[record(chain, operation=begun)])
    found = ahead(observation, wants("b", "d"))
    assert [told(step) for step in found.steps] == [
        ("commit", "b", "a"),
        ("remove", "b", ""),
        ("commit", "d", "c"),
        ("remove", "d", ""),
    ]
    assert found.steps[0].running
    assert found.steps[0].copies == 70
    after = b.disk("e", "d", "c", "a")
    rest = b.observation(
        b.facts(after), records=[settled(record(chain, operation=begun), begun, b.facts(after))]
    )
    assert found.hash == ahead(rest, wants("d", names="edc")).hash


# The name of a plan ------------------------------------------------------------------------------------


def test_bytes_indexes_and_times_do_not_change_the_name() -> None:
    chain = b.disk(*CHAIN)
    renumbered = replace(
        chain, layers=tuple(replace(one, index=i + 50) for i, one in enumerate(chain.layers))
    )
    sizes = {key: Size(one.allocation * 7, one.capacity) for key, one in b.sizes(chain).items()}
    first = ahead(seen(chain), wants("b", "d")).hash
    grown = b.observation(b.facts(renumbered, sizes=sizes), records=[record(chain)])
    assert ahead(grown, wants("b", "d")).hash == first
    later = forecast(seen(chain), wants("b", "d"), Circumstances(b.NOW + timedelta(days=9)))
    assert later[0].hash == first
    assert len(first) == 16


@pytest.mark.parametrize("state", [RunState.SHUTOFF, RunState.PAUSED])
def test_what_passes_by_itself_does_not_change_the_name(state: RunState) -> None:
    first = ahead(seen(), wants("b")).hash
    assert ahead(seen(state=state), wants("b")).hash == first
    assert ahead(seen(), wants("b"), merge_slots=0).hash == first
    other = b.facts(replace(b.disk("z"), target="vdb"), target="vdb", job=Job(JobKind.PULL, 1, 2))
    busy = seen(disks={**seen().disks, "vdb": other})
    assert ahead(busy, wants("b")).hash == first


def test_what_matters_changes_the_name() -> None:
    taken = b.disk("x", *CHAIN)
    names = {
        ahead(seen(), wants("b")).hash,
        ahead(seen(), wants("c")).hash,
        ahead(seen(), wants("b", "c")).hash,
        ahead(seen(), wants("b", "d")).hash,
        ahead(seen(taken), wants("b", names="xedcb")).hash,
        ahead(seen(b.disk("f", "d", "c", "b", "a")), wants("b", names="fdcb")).hash,
        ahead(seen(uuid="another"), wants("b")).hash,
        ahead(seen(in_use_elsewhere=b.uses(a="disk vda of web-2")), wants("b", "c")).hash,
    }
    assert len(names) == 8
    up = [replace(want, policy=replace(b.AT_ONCE, direction=Direction.PULL)) for want in wants("e", "d")]
    down = [replace(want, policy=replace(b.AT_ONCE, direction=Direction.COMMIT)) for want in wants("e", "d")]
    assert ahead(seen(), up).hash != ahead(seen(), down).hash


# Approval ----------------------------------------------------------------------------------------------


def step_of(observation: Observation, wanted: list[Want], given: str | None) -> object:
    approvals = {} if given is None else {b.TARGET: (Approval("shop/db-1-vda", given),)}
    found = plan(observation, wanted, Circumstances(b.NOW, approvals=approvals))
    (disk,) = found.disks
    return disk.step or disk.blocked


def test_a_merge_waits_for_the_approval_of_its_plan() -> None:
    wanted = wants("b", "d")
    name = ahead(seen(), wanted).hash
    assert isinstance(step_of(seen(), wanted, None), StartMerge)
    for given in ("", "0123456789abcdef", ahead(seen(), wants("b")).hash):
        blocked = step_of(seen(), wanted, given)
        assert getattr(blocked, "why", None) is Why.AWAITING_APPROVAL
        assert isinstance(blocked, Blocked)
        assert "shop" not in blocked.message, "those of other namespaces need not know whose approval it is"
        assert "db-1" not in blocked.message
        message = blocked.to("shop").message
        assert name in message
        assert "db-1-vda -n shop" in message
        assert ("is not this one any more" in message) is bool(given)
    step = step_of(seen(), wanted, name)
    assert isinstance(step, StartMerge)
    assert step.operation.approved is not None
    assert step.operation.approved.plan == name


def manual(want: Want, namespace: str = "shop") -> Want:
    owner = replace(want.owner, namespace=namespace)
    return replace(want, owner=owner, policy=replace(want.policy, manual=True))


def test_a_class_asks_for_approval_whatever_the_chain_says() -> None:
    wanted = [manual(want) if want.owner.name == "b" else want for want in wants("b", "d")]
    name = ahead(seen(), wanted).hash
    for said in ((), (Approval("shop/db-1-vda", "", manual=False),)):
        found = plan(seen(), wanted, Circumstances(b.NOW, approvals={b.TARGET: said}))
        assert found.disks[0].blocked is not None
        assert found.disks[0].blocked.why is Why.AWAITING_APPROVAL
    agreed = Approval("shop/db-1-vda", name, manual=False)
    found = plan(seen(), wanted, Circumstances(b.NOW, approvals={b.TARGET: (agreed,)}))
    assert isinstance(found.disks[0].step, StartMerge)


@pytest.mark.parametrize("one", ["", "agreed"])
@pytest.mark.parametrize("other", ["", "agreed", "class", "fault", "auto"])
def test_everybody_who_is_asked_must_agree(one: str, other: str) -> None:
    """The strictest of all namespaces counts, whoever deletes."""
    wanted = wants("b", "d")
    if other == "class":
        wanted.append(manual(b.want("theirs", suspended=True), "other"))
    name = ahead(seen(), wanted).hash
    second = {
        "": (Approval("other/theirs", ""),),
        "agreed": (Approval("other/theirs", name),),
        "class": (),
        "fault": (Approval("other/theirs", name, fault="it cannot be read"),),
        "auto": (Approval("other/theirs", "", manual=False),),
    }[other]
    said = (Approval("shop/db-1-vda", name if one else ""), *second)
    found = plan(seen(), wanted, Circumstances(b.NOW, approvals={b.TARGET: said}))
    merges = [step for step in found.steps if isinstance(step, StartMerge)]
    assert bool(merges) is (bool(one) and other in ("agreed", "auto"))
    for standing in found.standings:
        if standing.state is State.LEAVING and standing.blocked is not None:
            assert "theirs" not in standing.blocked.message


def test_a_take_needs_no_approval() -> None:
    assert isinstance(step_of(seen(), [*wants(), b.want("new")], ""), Take)


def carried_out(observation: Observation, wanted: list[Want], name: str) -> Observation:
    """The world after the next step of an approved plan, whatever it leaves to be removed left out."""
    step = step_of(observation, wanted, name)
    assert isinstance(step, StartMerge)
    chain = observation.disks[b.TARGET].chain
    assert chain is not None
    gone = {layer.key for layer in step.operation.merged}
    after = replace(chain, layers=tuple(layer for layer in chain.layers if layer.key not in gone))
    facts = replace(observation.disks[b.TARGET], live=after, inactive=b.plain(after))
    done = settled(observation.journal.disk(b.TARGET), step.operation, facts)
    journal = observation.journal.with_disk(replace(done, removals=()))
    return replace(observation, disks={b.TARGET: facts}, journal=journal)


def test_an_approved_plan_is_carried_out_to_its_end() -> None:
    wanted = wants("b", "d")
    name = ahead(seen(), wanted).hash
    between = carried_out(seen(), wanted, name)
    assert ahead(between, wanted).hash == name, "what is left of it goes by its name"
    end = carried_out(between, wanted, name)
    assert end.journal.disk(b.TARGET).approved is None
    assert ahead(end, wanted).steps == ()


def test_both_jobs_of_one_range_are_one_approval() -> None:
    chain = b.disk(*CHAIN)
    facts = b.facts(chain, sizes=b.sizes(chain, [10, 20, 900, 30, 100]))
    wanted = wants("e", "d", "c")
    first = b.observation(facts, records=[record(chain)])
    name = ahead(first, wanted).hash
    between = carried_out(first, wanted, name)
    assert between.journal.disk(b.TARGET).approved is not None
    end = carried_out(between, wanted, name)
    assert [layer.source.leaf for layer in end.disks[b.TARGET].chain.layers] == ["c", "a"]  # type: ignore[union-attr]  # there


def test_a_withdrawn_approval_stops_what_has_not_begun() -> None:
    wanted = wants("b", "d")
    between = carried_out(seen(), wanted, ahead(seen(), wanted).hash)
    assert getattr(step_of(between, wanted, ""), "why", None) is Why.AWAITING_APPROVAL


def test_another_deletion_needs_another_approval() -> None:
    wanted = wants("b", "d")
    name = ahead(seen(), wanted).hash
    between = carried_out(seen(), wanted, name)
    more = wants("b", "d", "c")
    assert getattr(step_of(between, more, name), "why", None) is Why.AWAITING_APPROVAL


@pytest.mark.parametrize("begun", [False, True])
def test_somebody_elses_change_voids_an_approval(begun: bool) -> None:
    wanted = wants("b", "d")
    name = ahead(seen(), wanted).hash
    world = carried_out(seen(), wanted, name) if begun else seen()
    chain = world.disks[b.TARGET].chain
    assert chain is not None
    changed = replace(chain, layers=(b.layer("by-hand", index=99), *chain.layers))
    world = replace(world, disks={b.TARGET: b.facts(changed)})
    first = step_of(world, wanted, name)
    assert isinstance(first, Record)
    assert first.why is RecordWhy.DRIFT
    world = replace(world, journal=world.journal.with_disk(first.record))
    assert getattr(step_of(world, wanted, name), "why", None) is Why.AWAITING_APPROVAL
