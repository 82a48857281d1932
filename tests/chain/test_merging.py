"""Merging points away: in any order, one or several at once, by the cheapest job that is allowed."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from controller.chain.desired import Direction, Policy
from controller.chain.journal import OperationKind
from controller.chain.plan import State
from controller.chain.steps import StartMerge
from tests.chain import builders as b
from tests.chain.situations import AFTER, NOON, fresh, planned, with_points

K = OperationKind


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
