"""Taking points: what is taken, what shares a boundary, and what waits without holding up others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.blocked import Why
from controller.chain.desired import Memory, Placement, Policy
from controller.chain.observation import RunState
from controller.chain.plan import State
from controller.chain.planner import plan
from controller.chain.source import Source
from controller.chain.steps import Record, Take
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Fault, Machine
from tests.chain.situations import AFTER, NOON, fresh, planned, with_points


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
