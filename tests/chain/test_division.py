"""A range that cannot go as a whole: as much of it goes as may, and the rest says what is against it."""

from __future__ import annotations

from datetime import timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances
from controller.chain.cost import Choice, Range
from controller.chain.desired import Direction, Policy
from controller.chain.disk import ChainEnd
from controller.chain.division import Division, divide
from controller.chain.journal import OperationKind
from controller.chain.observation import Job, JobKind
from controller.chain.plan import State
from controller.chain.planner import plan
from controller.chain.steps import StartMerge
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Machine

PROTECTED = Blocked(Why.IMAGE_PROTECTED, "it must not change")
LONG_AGO = b.NOW - timedelta(hours=1)


def commits(part: Range) -> list[Choice]:
    """The only way below the active layer."""
    return [Choice(part, part.bottom, 1, (OperationKind.COMMIT,))]


def without(*fixed: int, across: int | None = None) -> Division:
    """Layers 1 to 5, of which some may not be written to and one may not be merged with anything."""

    def verdict(choice: Choice) -> Blocked | None:
        crosses = across is not None and choice.span.top <= across <= choice.span.bottom
        return PROTECTED if crosses or choice.kept in fixed else None

    return divide(Range(1, 5), commits, verdict)


def parts(found: Division) -> list[tuple[int, int]]:
    return [(choice.span.top, choice.span.bottom) for choice in found.choices]


def test_what_may_go_as_a_whole_is_not_divided() -> None:
    assert (parts(without()), without().staying) == ([(1, 5)], {})
    assert parts(without(1, 2, 3, 4)) == [(1, 5)], "what is merged away is not written to"


def test_the_upper_part_goes_when_the_lowest_must_stay() -> None:
    found = without(5)
    assert parts(found) == [(1, 4)]
    assert found.staying == {4: PROTECTED}
    assert parts(without(4, 5)) == [(1, 3)]
    assert set(without(4, 5).staying) == {3, 4}


def test_nothing_may_go() -> None:
    found = without(2, 3, 4, 5)
    assert parts(found) == []
    assert set(found.staying) == {1, 2, 3, 4}


def test_both_sides_of_a_layer_that_must_be_left_alone_go() -> None:
    found = without(across=3)
    assert parts(found) == [(4, 5), (1, 2)]
    assert set(found.staying) == {2, 3}


def test_another_job_of_varve_is_waited_for_rather_than_a_worse_way_taken() -> None:
    ways = [
        Choice(Range(0, 2), 0, 1, (OperationKind.PULL,)),
        Choice(Range(0, 2), 2, 9, (OperationKind.ACTIVE_COMMIT,)),
    ]
    queued = Blocked(Why.QUEUED, "another disk has a job")

    def verdict(choice: Choice) -> Blocked | None:
        return queued if choice.pulls else None

    found = divide(Range(0, 2), lambda part: ways if part == Range(0, 2) else [], verdict)
    assert found == Division((), {0: queued, 1: queued})


def deleted(*names: str, policy: Policy, end: ChainEnd = ChainEnd.KNOWN) -> Loop:
    """Points a (oldest) to d on a machine whose base is ``/images/base``; these are deleted."""
    machine = Machine.with_layers([b.layer(name) for name in ("o4", "o3", "o2", "o1", "base")], [1] * 5)
    machine.end = end
    machine.set_record(b.record(*(b.point(f"o{n + 1}", b.owner(name)) for n, name in enumerate("abcd"))))
    loop = Loop(machine, [b.want(name, policy=policy) for name in "abcd"])
    loop.run()
    loop.delete(names)
    loop.run()
    return loop


def test_only_the_points_that_cannot_go_wait_and_each_says_why() -> None:
    protected = Policy(settle_seconds=0, protected=("/images/base",))
    loop = deleted("a", "b", "c", policy=protected)
    assert [want.owner.name for want in loop.released] == ["b", "c"]
    assert loop.machine.jobs == [OperationKind.COMMIT]
    assert loop.state("a") is State.LEAVING
    blocked = loop.plan().standings[0].blocked
    assert blocked is not None
    assert (blocked.why, "/images/base" in blocked.message) == (Why.IMAGE_PROTECTED, True)
    assert loop.state("d") is State.HELD


def test_with_pulls_forced_everything_goes_that_is_known_to_have_something_below() -> None:
    loop = deleted(*"abcd", policy=Policy(direction=Direction.PULL, settle_seconds=0), end=ChainEnd.UNKNOWN)
    assert loop.machine.jobs == [OperationKind.PULL]
    assert [want.owner.name for want in loop.wants] == ["a"]
    blocked = loop.plan().standings[0].blocked
    assert blocked is not None
    assert blocked.why is Why.CHAIN_UNKNOWN


def test_while_one_part_is_merged_next_the_rest_says_what_is_against_it() -> None:
    chain = b.disk("o3", "o2", "o1", "base")
    protected = Policy(settle_seconds=0, protected=("/images/base",))
    record = b.record(*(b.point(f"o{n + 1}", b.owner(name)) for n, name in enumerate("abc")))
    wants = [b.want(name, gone_since=LONG_AGO if name != "c" else None, policy=protected) for name in "abc"]
    found = plan(b.observation(b.facts(chain), records=[record]), wants, Circumstances(now=b.NOW))
    (step,) = found.steps
    assert isinstance(step, StartMerge)
    assert step.operation.kept.key == b.key("o1")
    why = {standing.want.owner.name: standing.blocked for standing in found.standings}
    assert why["b"] is None
    assert why["a"] is not None
    assert why["a"].why is Why.IMAGE_PROTECTED


def test_a_pull_that_is_queued_keeps_its_range_from_being_committed() -> None:
    facts = b.facts(b.disk("a", "base"), sizes=b.sizes(b.disk("a", "base"), [900, 10]))
    other = b.facts(b.disk("x", target="vdb"), job=Job(JobKind.COPY, 1, 2))
    observation = b.observation(facts, other, records=[b.record(b.point("a", b.owner("a")))])
    found = plan(observation, [b.want("a", gone_since=LONG_AGO)], Circumstances(now=b.NOW))
    assert found.steps == ()
    blocked = found.standings[0].blocked
    assert blocked is not None
    assert (blocked.why, "vdb" in blocked.message) == (Why.QUEUED, True)
