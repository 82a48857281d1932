"""The planner on the days that people have, one at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest

from controller.chain.desired import Direction, Memory, Placement, Policy
from controller.chain.disk import ChainEnd, Mirror
from controller.chain.guards import Blocked, Why
from controller.chain.journal import DiskJournal, OperationKind, Owner, Removal
from controller.chain.observation import Job, JobKind, RunState, Size
from controller.chain.plan import DiskPlan, Plan, State
from controller.chain.planner import Circumstances, Hold, plan
from controller.chain.source import Source
from controller.chain.steps import Discard, Record, RecordWhy, StartMerge, Take
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Fault, Machine

K = OperationKind
AFTER = b.NOW - timedelta(days=1)
"""A deletion that settled long ago."""


def fresh(*names: str, layers: int = 1) -> Loop:
    """A machine with one plain image, and objects that were just applied."""
    chain = [b.layer(f"l{n}") for n in range(layers)]
    machine = Machine.with_layers(chain, [50] * layers)
    return Loop(machine, [b.want(name) for name in names])


def with_points(*names: str) -> Loop:
    """One point per object, taken one after the other while the guest writes."""
    loop = fresh()
    for name in names:
        loop.wants.append(b.want(name))
        loop.run()
        loop.machine.write()
    assert [loop.state(name) for name in names] == [State.HELD] * len(names)
    return loop


def only(found: Plan) -> DiskPlan:
    (disk,) = found.disks
    return disk


def planned(*args: object, **kwargs: object) -> DiskPlan:
    return only(plan(*args, **kwargs))  # type: ignore[arg-type]


NOON = Circumstances(now=b.NOW)


# Taking ------------------------------------------------------------------------------------------------


def test_a_point_is_taken_and_recorded() -> None:
    loop = fresh("a")
    found = loop.run()
    assert [type(step) for step in loop.steps] == [Take, Record]
    assert (found.standings[0].state, found.steps, loop.machine.record.operation) == (State.HELD, (), None)
    assert loop.machine.chain == ["file:/images/web-1.vda.varve-uid-a.qcow2", b.key("l0")]
    (point,) = loop.machine.record.points
    assert (point.taken, point.consistency, point.capacity) == (
        "2025-01-02T03:04:05Z",
        "CrashConsistent",
        b.CAPACITY,
    )


def test_points_that_wait_together_share_one_boundary() -> None:
    loop = fresh("a", "b", "c")
    loop.run()
    assert len(loop.machine.chain) == 2
    assert [o.name for o in loop.machine.record.points[0].owners] == ["a", "b", "c"]


def test_points_for_different_places_do_not_share_one() -> None:
    loop = fresh("a", "b")
    loop.wants[1] = replace(loop.wants[1], placement=Placement(Source.file("/fast/any")))
    loop.run()
    assert loop.machine.chain[:2] == [
        "file:/fast/web-1.vda.varve-uid-b.qcow2",
        "file:/images/web-1.vda.varve-uid-a.qcow2",
    ]


@pytest.mark.parametrize(
    "changes",
    [{"armed": False}, {"suspended": True}, {"memory": Memory(b.TAKEN)}, {"deleted_at": AFTER}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_taken(changes: dict[str, object]) -> None:
    loop = fresh("a")
    loop.wants = [replace(loop.wants[0], **changes)]  # type: ignore[arg-type]
    loop.run()
    assert loop.steps == []


def test_takes_of_one_domain_are_one_transaction_unless_it_failed() -> None:
    disks = [b.facts(replace(b.disk("base"), target=target)) for target in ("vda", "vdb")]
    wants = [b.want(name, target=target) for name, target in (("a", "vda"), ("b", "vdb"))]
    together = plan(b.observation(*disks), wants, NOON)
    assert [step.targets for step in together.steps if isinstance(step, Take)] == [("vda", "vdb")]
    apart = plan(b.observation(*disks), wants, replace(NOON, split_takes=True))
    assert [step.targets for step in apart.steps if isinstance(step, Take)] == [("vda",), ("vdb",)]


def test_what_a_paused_machine_gives_is_consistent() -> None:
    found = planned(
        b.observation(b.facts(b.disk("base")), state=RunState.PAUSED), [b.want("a", freeze=True)], NOON
    )
    assert isinstance(found.step, Take)
    operation = found.step.disks[0].operation
    assert (operation.consistency, operation.consistency_message) == ("Paused", "")


def test_a_wanted_freeze_that_is_not_done_is_told() -> None:
    found = planned(b.observation(b.facts(b.disk("base"))), [b.want("a", freeze=True)], NOON)
    assert isinstance(found.step, Take)
    assert "not frozen" in found.step.disks[0].operation.consistency_message


def test_a_name_is_never_used_twice() -> None:
    """A call whose answer was lost may still come; the next one must not collide with it."""
    loop = fresh("a")
    loop.faults = iter([Fault.CRASH, Fault.NONE, Fault.CRASH, Fault.NONE, Fault.NONE])
    loop.run()
    takes = [step.disks[0].operation.kept.source.leaf for step in loop.steps if isinstance(step, Take)]
    assert len(takes) == 3
    assert len(set(takes)) == 3


def test_max_layers_is_not_exceeded() -> None:
    loop = with_points("a", "b")
    loop.wants.append(b.want("c", policy=Policy(max_layers=3)))
    found = loop.run()
    blocked = found.standings[2].blocked
    assert (found.standings[2].state, blocked and blocked.why) == (State.PENDING, Why.CHAIN_TOO_LONG)
    assert len(loop.machine.chain) == 3


def test_a_point_that_waits_for_room_gets_it_by_a_deletion() -> None:
    loop = with_points("a", "b")
    loop.wants.append(b.want("c", policy=Policy(max_layers=3)))
    loop.run()
    loop.delete("a")
    loop.run()
    assert [want.owner.name for want in loop.released] == ["a"]
    assert loop.state("c") is State.HELD
    assert len(loop.machine.chain) == 3


def test_a_class_with_little_room_does_not_hold_up_another() -> None:
    loop = fresh("a", "b", layers=3)
    loop.wants[0] = replace(loop.wants[0], policy=Policy(max_layers=3))
    loop.run()
    assert (loop.state("a"), loop.state("b")) == (State.PENDING, State.HELD)


def test_a_point_without_a_place_does_not_hold_up_the_others() -> None:
    export = b.layer("export")
    nbd = replace(export, source=Source.network("nbd", "e"))
    machine = Machine.with_layers([nbd], [50])
    elsewhere = Placement(Source.file("/fast/any"))
    loop = Loop(machine, [b.want("a"), b.want("b", placement=elsewhere), b.want("c", placement=elsewhere)])
    loop.run()
    # "a" goes beside the active layer, which is a file now.
    assert [loop.state(name) for name in "abc"] == [State.HELD] * 3
    loop = Loop(Machine.with_layers([nbd], [50]), [b.want("a")])
    blocked = loop.run().standings[0].blocked
    assert blocked is not None
    assert blocked.why is Why.OVERLAY_REQUIRED


# Merging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_three_points_go_in_any_order(order: tuple[str, ...]) -> None:
    loop = with_points("a", "b", "c")
    for name in order:
        loop.delete(name)
        loop.run()
        assert loop.released[-1].owner.name == name
        assert all(loop.state(want.owner.name) is State.HELD for want in loop.wants)
    assert len(loop.machine.chain) == 1
    assert loop.machine.journal_xml is None or not loop.machine.record.points
    assert set(loop.machine.storage) == {*loop.machine.chain, b.key("l0")}


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ("a", [K.COMMIT]),  # the oldest
        ("b", [K.COMMIT]),  # the middle
        ("c", [K.ACTIVE_COMMIT]),  # the newest
        ("ab", [K.COMMIT]),  # adjacent, one job
        ("bc", [K.ACTIVE_COMMIT]),
        ("ac", [K.COMMIT, K.ACTIVE_COMMIT]),  # apart, two jobs
        ("abc", [K.ACTIVE_COMMIT]),
    ],
)
def test_points_that_go_at_once_share_a_job(names: str, kinds: list[OperationKind]) -> None:
    loop = with_points("a", "b", "c")
    loop.delete(names)
    loop.run()
    assert loop.machine.jobs == kinds
    assert "".join(want.owner.name for want in loop.released) == names
    assert len(loop.machine.chain) == 4 - len(names)


def test_the_biggest_layer_survives_by_two_jobs() -> None:
    loop = with_points("a", "b")
    _, middle, base = loop.machine.chain
    loop.machine.storage[middle].allocation = 5000
    loop.machine.storage[base].allocation = 10
    loop.delete("ab")
    loop.run()
    assert loop.machine.jobs == [K.ACTIVE_COMMIT, K.PULL]
    assert loop.machine.chain == [middle]
    assert b.key("l0") in loop.machine.storage  # not made by varve, so not removed


@pytest.mark.parametrize(
    ("direction", "kinds"), [(Direction.COMMIT, [K.ACTIVE_COMMIT]), (Direction.PULL, [K.PULL])]
)
def test_a_direction_that_the_class_forces(direction: Direction, kinds: list[OperationKind]) -> None:
    loop = with_points("a")
    loop.machine.storage[b.key("l0")].allocation = 0 if direction is Direction.COMMIT else 10**9
    loop.wants = [replace(want, policy=Policy(direction=direction, settle_seconds=0)) for want in loop.wants]
    loop.delete("a")
    loop.run()
    assert loop.machine.jobs == kinds


def test_a_pull_touches_no_point_but_those_of_its_range() -> None:
    """The point below a pulled range is re-pointed. Its owner is not told that it is being spoiled."""
    loop = with_points("a", "b")
    loop.wants = [
        replace(want, policy=Policy(direction=Direction.PULL, settle_seconds=0)) for want in loop.wants
    ]
    loop.delete("b")
    (step,) = loop.plan().steps
    assert isinstance(step, StartMerge)
    assert [who.name for who in step.operation.owners] == ["b"]
    loop.run()
    assert loop.state("a") is State.HELD


def test_bandwidth_and_protection_go_with_the_step() -> None:
    policy = Policy(settle_seconds=0, bandwidth=7, protected=("/golden/*",))
    found = planned(
        b.observation(b.facts(b.disk("o", "base")), records=[b.record(b.point("o", b.owner("a")))]),
        [b.want("a", gone_since=AFTER, policy=policy)],
        NOON,
    )
    assert isinstance(found.step, StartMerge)
    assert (found.step.bandwidth, found.step.protected, found.step.copies) == (7, ("/golden/*",), 100)


def test_a_shared_point_goes_with_its_last_owner() -> None:
    loop = fresh("a", "b")
    loop.run()
    loop.delete("a")
    loop.run()
    assert ([want.owner.name for want in loop.released], len(loop.machine.chain)) == (["a"], 2)
    assert loop.state("b") is State.HELD
    loop.delete("b")
    loop.run()
    assert len(loop.machine.chain) == 1


def test_retain_leaves_the_layers_to_themselves() -> None:
    loop = with_points("a", "b")
    loop.wants[0] = replace(loop.wants[0], merge=False)
    before = loop.machine.contents
    loop.delete("a")
    loop.run()
    assert [want.owner.name for want in loop.released] == ["a"]
    assert (loop.machine.contents, loop.machine.jobs) == (before, [])
    loop.delete("b")
    loop.run()
    assert loop.machine.contents == before[1:]


def test_a_suspended_deletion_waits() -> None:
    loop = with_points("a")
    loop.wants = [replace(want, suspended=True) for want in loop.wants]
    loop.delete("a")
    loop.run()
    assert (loop.released, loop.machine.jobs) == ([], [])
    loop.wants = [replace(want, suspended=False) for want in loop.wants]
    loop.run()
    assert len(loop.machine.chain) == 1


def test_an_owner_that_is_neither_there_nor_deleted_keeps_its_point() -> None:
    loop = with_points("a", "b")
    loop.wants = [want for want in loop.wants if want.owner.name != "a"]
    loop.delete("b")
    loop.run()
    assert [[who.name for who in point.owners] for point in loop.machine.record.points] == [["a"]]
    assert len(loop.machine.chain) == 2


def test_a_layer_that_nobody_manages_stays() -> None:
    loop = fresh("a", layers=3)
    before = loop.machine.contents
    loop.run()
    loop.delete("a")
    loop.run()
    assert loop.machine.contents == before


# Waiting -----------------------------------------------------------------------------------------------


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


# Things that go wrong ----------------------------------------------------------------------------------


def test_a_snapshot_call_that_comes_late_is_merged_away() -> None:
    """Its name waits for removal when its overlay turns up in the chain after all."""
    loop = fresh("a")
    loop.faults = iter([Fault.CRASH, Fault.NONE])
    loop.run()
    late = Owner("shop", "a", "uid-a")
    machine = loop.machine
    stray = replace(b.layer("x"), source=Source.file("/images/web-1.vda.varve-uid-a-9.qcow2"))
    machine.set_record(replace(machine.record, removals=(*machine.record.removals, Removal(stray))))
    guest = machine.content()
    machine.storage[stray.key] = type(machine.storage[machine.chain[0]])(stray)
    machine.chain.insert(0, stray.key)
    loop.run()
    assert stray.key not in machine.chain
    assert stray.key not in machine.storage
    assert machine.content() == guest
    assert machine.record.point_of(late) is not None
    assert loop.state("a") is State.HELD


def test_a_late_snapshot_is_never_merged_into_a_protected_image() -> None:
    """Nobody owns its boundary, so no object says what is protected but those of the same disk."""
    record = b.record(images=[], removals=(Removal(b.layer("late")),))
    observation = b.observation(b.facts(b.disk("late", "golden"), sizes={}), records=[record])
    wants = [b.want("a", suspended=True, policy=Policy(settle_seconds=0, protected=("/images/golden",)))]
    upkeep = planned(observation, wants, NOON).step
    assert isinstance(upkeep, Record)
    observation = replace(observation, journal=observation.journal.with_disk(upkeep.record))
    found = planned(observation, wants, NOON).step
    assert isinstance(found, StartMerge)
    assert found.kind is K.PULL


def test_a_class_protects_its_images_from_the_deletions_of_others() -> None:
    guarded = Policy(settle_seconds=0, protected=("/images/oa",))
    chain = b.disk("ob", "oa", "base")
    records = [b.record(b.point("ob", b.owner("b")), b.point("oa", b.owner("a")))]
    wants = [b.want("a", policy=guarded), b.want("b", gone_since=AFTER)]
    found = planned(b.observation(b.facts(chain), records=records), wants, NOON).step
    assert isinstance(found, StartMerge)
    assert found.kind is K.PULL


def test_a_rebuilt_cluster_gets_its_points_back() -> None:
    loop = with_points("a", "b")
    machine = loop.machine
    rebuilt = Loop(machine, [b.want(b.owner("a", "new-a")), b.want(b.owner("b", "new-b"))])
    rebuilt.run()
    assert [rebuilt.state(name) for name in "ab"] == [State.HELD] * 2
    assert [[who.uid for who in point.owners] for point in machine.record.points] == [["new-a"], ["new-b"]]
    assert len(machine.chain) == 3
    rebuilt.delete("a")
    rebuilt.run()
    assert len(machine.chain) == 2


def test_a_new_object_does_not_get_the_point_that_its_predecessor_gives_up() -> None:
    """The deletion of the old one was seen, and its namesake came while the merge ran."""
    loop = with_points("a")
    loop.delete("a")
    while loop.machine.job is None:
        (step,) = loop.plan().steps
        loop.machine.apply(step)
    loop.wants = [b.want(b.owner("a", "new"))]
    loop.run()
    assert loop.state("a") is State.HELD
    assert len(loop.machine.chain) == 2
    assert loop.machine.contents == [loop.machine.moments[b.owner("a", "new")]]


def test_a_point_that_a_failed_merge_spoiled_is_given_to_nobody() -> None:
    """A commit that fails half-way has written to the image that held the point."""
    loop = with_points("a")
    loop.wants = [
        replace(want, policy=Policy(direction=Direction.COMMIT, settle_seconds=0)) for want in loop.wants
    ]
    loop.delete("a")
    while loop.machine.job is None:
        (step,) = loop.plan().steps
        loop.machine.apply(step)
    loop.machine.lose_job()
    moment = loop.machine.moments[b.owner("a")]
    assert loop.machine.contents != [moment]
    # The finalizer was taken off by hand, and the same manifest applied again.
    namesake = b.owner("a", "new")
    loop.machine.moments[namesake] = moment
    loop.wants = [b.want(namesake)]
    loop.run()
    (point,) = loop.machine.record.points
    assert loop.machine.contents == [loop.machine.moments[namesake]]
    assert loop.machine.moments[namesake] != moment, "a new point is a new moment"


def test_a_lost_journal_is_made_up_for_by_status_and_name() -> None:
    loop = with_points("a", "b")
    loop.machine.journal_xml = None
    loop.run()
    assert [loop.state(name) for name in "ab"] == [State.HELD] * 2
    assert len(loop.machine.chain) == 3
    assert loop.machine.record.images == frozenset(loop.machine.chain[:2])
    loop.delete("ab")
    loop.run()
    assert len(loop.machine.chain) == 1


@pytest.mark.parametrize(
    ("memory", "leaf"),
    [(None, "web-1.vda.varve-uid-a.qcow2"), (Memory(b.TAKEN), "web-1.vda.varve-uid-ab.qcow2")],
)
def test_one_witness_is_not_enough(memory: Memory | None, leaf: str) -> None:
    chain = b.disk(leaf, "base")
    found = planned(b.observation(b.facts(chain)), [b.want("a", memory=memory, suspended=True)], NOON)
    assert found.step is None


def test_a_point_that_was_taken_away_by_hand_is_lost_and_not_taken_again() -> None:
    loop = with_points("a", "b")
    del loop.machine.chain[0]
    found = loop.run()
    assert [standing.state for standing in found.standings] == [State.HELD, State.LOST]
    blocked = found.standings[1].blocked
    assert blocked is not None
    assert blocked.why is Why.LOST
    assert len(loop.machine.chain) == 2
    loop.delete("b")
    loop.run()
    assert [want.owner.name for want in loop.released] == ["b"]
    assert len(loop.machine.chain) == 2


def test_a_lost_point_without_a_journal_is_not_taken_again() -> None:
    loop = fresh("a")
    loop.wants = [replace(loop.wants[0], memory=Memory(b.TAKEN))]
    assert loop.run().standings[0].state is State.LOST
    assert loop.steps == []


def test_a_boundary_that_nobody_owned_and_somebody_took_away_is_forgotten() -> None:
    record = b.record(b.point("stray"), images=[])
    found = planned(b.observation(b.facts(b.disk("base")), records=[record]), [], NOON)
    assert isinstance(found.step, Record)
    assert found.step.record.is_empty


def test_nothing_is_concluded_from_a_chain_that_is_not_shown_to_its_end() -> None:
    chain = b.disk("top", end=ChainEnd.UNKNOWN)
    record = b.record(b.point("oa", b.owner("a")), b.point("ob", b.owner("b")))
    wants = [b.want("a", memory=Memory(b.TAKEN)), b.want("b", gone_since=AFTER, memory=Memory(b.TAKEN))]
    found = plan(b.observation(b.facts(chain), records=[record]), wants, NOON)
    assert found.steps == ()
    assert [standing.state for standing in found.standings] == [State.UNKNOWN, State.LEAVING]


def test_images_that_somebody_else_took_out_are_forgotten_and_not_removed() -> None:
    loop = with_points("a")
    overlay = loop.machine.chain.pop(0)
    loop.delete("a")
    loop.run()
    assert overlay in loop.machine.storage
    assert loop.machine.record.is_empty


def test_a_pull_that_was_not_flushed_is_not_believed() -> None:
    begun = b.operation(K.PULL, "o", "base", process="")
    record = b.record(b.point("o", b.owner("a")), operation=begun)
    found = planned(
        b.observation(b.facts(b.disk("o")), records=[record]), [b.want("a", gone_since=AFTER)], NOON
    )
    assert found.step is None
    assert found.blocked is not None
    assert found.blocked.why is Why.CHAIN_DIVERGED
    assert "/images/base" in found.blocked.message


def test_a_pull_is_not_believed_without_a_size_to_flush_by() -> None:
    begun = b.operation(K.PULL, "o", "base")
    record = b.record(b.point("o", b.owner("a")), operation=begun)
    found = planned(b.observation(b.facts(b.disk("o"), sizes={}), records=[record]), [], NOON)
    assert found.step is None
    assert found.blocked is not None


def test_a_pull_is_flushed_with_the_size_of_the_disk() -> None:
    begun = b.operation(K.PULL, "o", "base")
    record = b.record(b.point("o", b.owner("a")), operation=begun)
    facts = b.facts(b.disk("o"), sizes={b.key("o"): Size(1, 12345)})
    found = planned(b.observation(facts, records=[record]), [], NOON)
    assert isinstance(found.step, Record)
    assert (found.step.flush, found.step.why, found.step.finished) == (12345, RecordWhy.DONE, begun)


def test_no_pivot_while_the_domain_has_a_job() -> None:
    begun = b.operation(K.ACTIVE_COMMIT, "base", "o")
    record = b.record(b.point("o", b.owner("a")), operation=begun)
    chain = b.disk("o", "base", mirror=Mirror("active-commit", True, b.key("base")))
    found = planned(b.observation(b.facts(chain), records=[record], domain_job="migration"), [], NOON)
    assert (found.step, found.running) == (None, begun)


def test_the_record_of_a_disk_that_is_gone_is_left_alone() -> None:
    record: DiskJournal = b.record(b.point("o", b.owner("a")))
    found = plan(b.observation(records=[record]), [b.want("a", gone_since=AFTER)], NOON)
    assert found.steps == ()
    assert only(found).blocked is not None
    assert found.standings[0].state is State.UNKNOWN


def test_an_object_of_a_disk_that_never_was_can_go() -> None:
    found = plan(b.observation(), [b.want("a", gone_since=AFTER), b.want("b")], NOON)
    assert [standing.state for standing in found.standings] == [State.GONE, State.UNKNOWN]
