"""A pull is the last resort, and alone on its machine (ADR 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from controller.chain.blocked import Why
from controller.chain.circumstances import Circumstances
from controller.chain.cost import Range, choices
from controller.chain.desired import Direction, Policy
from controller.chain.gate import UNKNOWN, Gate, gate
from controller.chain.guards import pull_guard
from controller.chain.journal import OperationKind
from controller.chain.observation import Job, JobKind, Observation
from controller.chain.plan import Plan
from controller.chain.planner import plan
from controller.chain.steps import StartMerge
from tests.chain import builders as b

LONG_AGO = b.NOW - timedelta(hours=1)
PULLS = Policy(direction=Direction.PULL, settle_seconds=0)
COMMITS = Policy(direction=Direction.COMMIT, settle_seconds=0)


def test_pulls_come_after_all_that_need_none() -> None:
    chain = b.disk("c", "b", "a", "base")
    facts = b.facts(chain, sizes=b.sizes(chain, [900, 10, 10, 10]))
    cheapest = choices(Range(0, 3), facts, chain, Direction.CHEAPEST)
    careful = choices(Range(0, 3), facts, chain, Direction.CHEAPEST, pulls_last=True)
    assert cheapest[0].kinds == (OperationKind.PULL,)
    assert careful[0].kinds == (OperationKind.ACTIVE_COMMIT,)
    assert {choice.kept for choice in careful} == {choice.kept for choice in cheapest}, "a way was lost"


def test_a_forced_direction_is_still_obeyed() -> None:
    chain = b.disk("b", "a", "base")
    found = choices(Range(0, 2), b.facts(chain), chain, Direction.PULL, pulls_last=True)
    assert [choice.kinds for choice in found] == [(OperationKind.PULL,)]


def two_disks(**second: object) -> Observation:
    first = b.facts(b.disk("a", "base"))
    other = replace(b.facts(replace(b.disk("x", "y"), target="vdb")), target="vdb")
    return b.observation(
        first,
        replace(other, **second),  # type: ignore[arg-type]  # fields of DiskFacts
        records=[
            b.record(b.point("a", b.owner("a"))),
            replace(b.record(b.point("x", b.owner("x"))), target="vdb"),
        ],
    )


def planned(observation: Observation, first: Policy, second: Policy, found: Gate = UNKNOWN) -> Plan:
    wants = [
        b.want("a", gone_since=LONG_AGO, policy=first),
        b.want("x", gone_since=LONG_AGO, policy=second, target="vdb"),
    ]
    return plan(observation, wants, Circumstances(now=b.NOW, gate=found))


def begun(found: Plan) -> list[OperationKind]:
    return [step.kind for step in found.steps if isinstance(step, StartMerge)]


def test_of_two_pulls_one_waits() -> None:
    found = planned(two_disks(), PULLS, PULLS)
    assert begun(found) == [OperationKind.PULL]
    blocked = found.disks[1].blocked
    assert blocked is not None
    assert blocked.why is Why.QUEUED
    assert "vda" in blocked.message


def test_a_pull_does_not_begin_beside_a_commit_nor_a_commit_beside_a_pull() -> None:
    assert begun(planned(two_disks(), COMMITS, PULLS)) == [OperationKind.ACTIVE_COMMIT]
    assert begun(planned(two_disks(), PULLS, COMMITS)) == [OperationKind.PULL]
    assert len(begun(planned(two_disks(), COMMITS, COMMITS))) == 2


def test_a_pull_waits_for_any_job_that_runs() -> None:
    found = planned(two_disks(job=Job(JobKind.COPY, 1, 2)), PULLS, COMMITS)
    assert begun(found) == []
    blocked = found.disks[0].blocked
    assert blocked is not None
    assert (blocked.why, "vdb" in blocked.message) == (Why.QUEUED, True)


def test_nothing_begins_beside_a_pull() -> None:
    pulled = two_disks(job=Job(JobKind.PULL, 1, 2))
    assert begun(planned(pulled, COMMITS, COMMITS)) == []
    fresh = plan(pulled, [b.want("new")], Circumstances(now=b.NOW))
    assert fresh.steps == ()
    blocked = pull_guard(pulled, b.TARGET, UNKNOWN)
    assert blocked is not None
    assert "vdb" in blocked.message
    assert pull_guard(pulled, "vdb", UNKNOWN) is None, "a pull is not in its own way"


def test_a_qemu_that_is_known_to_be_safe_goes_on() -> None:
    """A4: the rule is for those that crash; which one a machine runs on, its type must prove."""
    safe = gate("12.0.0", "10.0.13")
    pulled = replace(two_disks(job=Job(JobKind.PULL, 1, 9)), machine="pc-q35-10.0")
    assert begun(planned(pulled, COMMITS, COMMITS, safe)) == [OperationKind.ACTIVE_COMMIT]
    assert begun(planned(replace(pulled, machine="pc-q35-7.2"), COMMITS, COMMITS, safe)) == []
    committed = replace(two_disks(job=Job(JobKind.COMMIT, 1, 9)), machine="pc-q35-10.0")
    assert begun(planned(committed, PULLS, COMMITS, safe)) == [OperationKind.PULL]
    assert begun(planned(committed, PULLS, COMMITS)) == []
