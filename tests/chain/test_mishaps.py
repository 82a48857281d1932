"""Things that go wrong: lost answers, lost journals, rebuilt clusters, people with virsh."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from controller.chain.blocked import Why
from controller.chain.desired import Direction, Memory, Policy
from controller.chain.disk import ChainEnd, Mirror
from controller.chain.journal import DiskJournal, OperationKind, Owner, Removal
from controller.chain.observation import JobKind, Size
from controller.chain.plan import State
from controller.chain.planner import plan
from controller.chain.source import Source
from controller.chain.steps import Record, RecordWhy, StartMerge
from controller.chain.upkeep import SET_ASIDE, TAKEN_OUT, is_leftover, upkeep
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Fault
from tests.chain.situations import AFTER, NOON, fresh, only, planned, with_points
from tests.chain.strategies import SOURCES

K = OperationKind


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
    assert len(loop.machine.record.points) == 1
    assert loop.machine.contents == [loop.machine.moments[namesake]]
    assert loop.machine.moments[namesake] != moment, "a new point is a new moment"


def test_a_lost_journal_is_made_up_for_by_status_and_name() -> None:
    loop = with_points("a", "b")
    loop.machine.journal_xml = None
    loop.steady = False  # until the record is written again, which comes before any report
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
    loop.steady = False
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


def test_images_that_somebody_else_took_out_are_listed_and_not_removed() -> None:
    """B3: whoever did it may want them; that they are leftovers of this disk stays known."""
    loop = with_points("a")
    overlay = loop.machine.chain.pop(0)
    loop.delete("a")
    loop.run()
    assert overlay in loop.machine.storage
    record = loop.machine.record
    assert (record.points, record.images) == ((), frozenset())
    [left] = record.removals
    assert (left.layer.key, left.left, left.owners) == (overlay, SET_ASIDE, ())
    assert left.since
    assert not is_leftover(left), "nobody saw where it went: it may hold what the guest wrote"


def test_one_that_a_job_merged_away_is_a_leftover() -> None:
    """B3: what it held is in the chain."""
    record = b.record(b.point("o", b.owner("a")), images=["o", "x"])
    chain = b.disk("o", "base")
    found = plan(
        b.observation(b.facts(chain), records=[record]),
        [b.want("a")],
        replace(NOON, witnessed={b.TARGET: frozenset({JobKind.COMMIT})}),
    )
    (step,) = found.steps
    assert isinstance(step, Record)
    [left] = step.record.removals
    assert (left.layer.key, left.left, is_leftover(left)) == (b.key("x"), TAKEN_OUT, True)


@given(SOURCES)
def test_a_leftover_is_known_by_its_identity_or_not_at_all(source: Source) -> None:
    record = DiskJournal(b.TARGET, images=frozenset({source.key}))
    for removal in upkeep(record, [], b.disk("base")).removals:
        assert removal.layer.key == source.key


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


@pytest.mark.parametrize("failed", [False, True])
def test_a_cluster_restored_to_before_a_deletion_is_told_that_the_point_is_spoiled(*, failed: bool) -> None:
    """The same object again, not deleted any more, while the commit runs or after it failed."""
    loop = with_points("a")
    loop.wants = [
        replace(want, policy=Policy(direction=Direction.COMMIT, settle_seconds=0)) for want in loop.wants
    ]
    restored = list(loop.wants)
    loop.delete("a")
    while loop.machine.job is None:
        (step,) = loop.plan().steps
        loop.machine.apply(step)
    if failed:
        loop.machine.lose_job()
        (step,) = loop.plan().steps
        loop.machine.apply(step)
    (standing,) = plan(loop.machine.observe(), restored, NOON).standings
    assert standing.state is State.LOST
    assert standing.blocked is not None
    assert "was begun" in standing.blocked.message
