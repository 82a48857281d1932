"""Active commits that a guest outruns: when they are given up, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances, Hold
from controller.chain.convergence import Progress, bytes_left, progressed
from controller.chain.desired import Policy
from controller.chain.disk import Mirror
from controller.chain.journal import Operation, OperationKind
from controller.chain.observation import DiskFacts, Job, JobKind, Observation
from controller.chain.plan import Plan, State
from controller.chain.planner import plan
from controller.chain.steps import Abort, Pivot, StartMerge, Take
from tests.chain import builders as b

K = OperationKind
LIMITS = Policy(settle_seconds=0, no_progress=60, deadline=600)
BEGUN = "2025-01-02T03:00:00Z"
START = b.NOW.replace(minute=0, second=0)
CHAIN = b.disk("o2", "o1", "base")
COMMIT = b.operation(K.ACTIVE_COMMIT, "base", "o2", "o1", begun=BEGUN, owners=(b.owner("a"), b.owner("b")))


def running(left: int | None, *, operation: Operation = COMMIT, ready: bool = False) -> DiskFacts:
    """A disk whose active commit has so many bytes left; None while QEMU does not know yet."""
    job = Job(JobKind.ACTIVE_COMMIT, 0, 1) if left is None else Job(JobKind.ACTIVE_COMMIT, 5000, 5000 + left)
    mirror = Mirror("active-commit", ready, operation.kept.key)
    return b.facts(replace(CHAIN, mirror=mirror), job=job)


def observed(facts: DiskFacts, operation: Operation = COMMIT) -> Observation:
    points = (b.point("o1", b.owner("a")), b.point("o2", b.owner("b")))
    return b.observation(facts, records=[b.record(*points, operation=operation)])


def planned(
    facts: DiskFacts, seconds: int, progress: Progress | None = None, policy: Policy = LIMITS
) -> Plan:
    """The plan so long after the job began."""
    wants = [b.want(name, gone_since=START, policy=policy) for name in "ab"]
    known = {} if progress is None else {b.TARGET: progress}
    return plan(observed(facts), wants, Circumstances(now=at(seconds), progress=known))


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def abort_of(found: Plan) -> Abort | None:
    step = next(iter(found.steps), None)
    assert step is None or isinstance(step, Abort)
    return step


def test_it_goes_on_while_it_comes_nearer() -> None:
    for seconds, left in ((0, 9000), (59, 8999), (118, 8998), (177, 4)):
        near = Progress(BEGUN, left, at(seconds))
        assert abort_of(planned(running(left + 5), seconds + 59, near)) is None
    assert planned(running(100), 10).disks[0].running == COMMIT


def test_without_progress_it_is_given_up() -> None:
    near = Progress(BEGUN, 7000, at(100))
    abort = abort_of(planned(running(7100), 160, near))
    assert abort is not None
    assert (abort.target, abort.operation, abort.patience) == (b.TARGET, COMMIT, 60)
    assert abort.why.why is Why.NOT_CONVERGING
    for words in ("60 s without progress", "noProgressSeconds", "7100 bytes", "/images/base", "vda"):
        assert words in abort.why.message


def test_the_deadline_ends_even_one_that_comes_nearer() -> None:
    assert abort_of(planned(running(10), 599, Progress(BEGUN, 10, at(599)))) is None
    abort = abort_of(planned(running(10), 600, Progress(BEGUN, 10, at(600))))
    assert abort is not None
    assert "600 s (merge.convergence.deadlineSeconds)" in abort.why.message
    assert abort_of(planned(running(None), 600)) is not None, "with nothing known of its progress as well"


def test_the_shortest_limit_of_those_who_wait_holds() -> None:
    wants = [
        b.want("a", gone_since=START, policy=LIMITS),
        b.want("b", gone_since=START, policy=replace(LIMITS, no_progress=30)),
        b.want("stranger", policy=replace(LIMITS, no_progress=1)),
    ]
    near = {b.TARGET: Progress(BEGUN, 10, at(0))}
    for seconds, gives_up in ((29, False), (30, True)):
        circumstances = Circumstances(now=at(seconds), progress=near)
        assert bool(abort_of(plan(observed(running(10)), wants, circumstances))) is gives_up


def test_one_that_is_ready_is_pivoted_however_late() -> None:
    near = Progress(BEGUN, 10, at(0))
    (step,) = planned(running(0, ready=True), 10_000, near).steps
    assert isinstance(step, Pivot)


@pytest.mark.parametrize(("kind", "job"), [(K.COMMIT, JobKind.COMMIT), (K.PULL, JobKind.PULL)])
def test_what_copies_frozen_layers_always_ends(kind: OperationKind, job: JobKind) -> None:
    kept, merged = ("base", "o1") if kind is K.COMMIT else ("o2", "o1")
    operation = b.operation(kind, kept, merged, begun=BEGUN)
    observation = observed(b.facts(CHAIN, job=Job(job, 1, 10)), operation)
    near = {b.TARGET: Progress(BEGUN, 9, at(0))}
    found = plan(
        observation, [b.want("a", gone_since=START, policy=LIMITS)], Circumstances(at(9999), progress=near)
    )
    assert found.steps == ()
    assert found.disks[0].running == operation


def test_progress_is_the_nearest_that_the_job_came() -> None:
    first = progressed(COMMIT, running(500), None, at(0))
    assert first == Progress(BEGUN, 500, at(0))
    assert progressed(COMMIT, running(600), first, at(5)) == first, "the guest was faster"
    assert progressed(COMMIT, running(500), first, at(5)) == first
    assert progressed(COMMIT, running(499), first, at(5)) == Progress(BEGUN, 499, at(5))
    assert progressed(COMMIT, running(None), first, at(5)) == first


def test_what_was_seen_of_an_earlier_job_says_nothing_of_this_one() -> None:
    old = Progress("2025-01-02T02:00:00Z", 1, at(-3000))
    assert progressed(COMMIT, running(900), old, at(0)) == Progress(BEGUN, 900, at(0))
    assert abort_of(planned(running(900), 100, old)) is None


def test_a_job_that_has_not_begun_to_copy_is_not_near_its_end() -> None:
    assert bytes_left(running(None)) is None
    assert bytes_left(b.facts(CHAIN)) is None
    begun = progressed(COMMIT, running(None), None, at(0))
    assert begun.left == b.CAPACITY
    assert progressed(COMMIT, running(900), begun, at(5)).since == at(5)


def begin(*wanted: str, until: int) -> Plan:
    """What is begun at second 100, when an active commit was given up and waits until ``until``."""
    hold = Hold(at(until), Blocked(Why.NOT_CONVERGING, "given up; tried 3 times"))
    points = (b.point("o1", b.owner("a")), b.point("o2", b.owner("b")))
    observation = b.observation(b.facts(CHAIN), records=[b.record(*points)])
    wants = [b.want("b", gone_since=START, policy=LIMITS), *(b.want(name) for name in ("a", *wanted))]
    return plan(observation, wants, Circumstances(now=at(100), commit_holds={b.TARGET: hold}))


def test_it_is_tried_again_after_its_patience_and_says_so_meanwhile() -> None:
    found = begin(until=101)
    assert (found.steps, found.wake_at) == ((), at(101))
    waiting = {one.want.owner.name: one for one in found.standings}["b"]
    assert waiting.state is State.LEAVING
    assert waiting.blocked == Blocked(Why.NOT_CONVERGING, "given up; tried 3 times")
    (step,) = begin(until=100).steps
    assert isinstance(step, StartMerge)
    assert step.kind is K.ACTIVE_COMMIT


def test_a_commit_that_waits_keeps_no_point_from_being_taken() -> None:
    (step,) = begin("new", until=101).steps
    assert isinstance(step, Take)
