"""Active commits that do not converge: a guest that writes faster than its layer is copied.

QEMU mirrors what the guest writes meanwhile, so the copy is complete only when it has caught up. A job that
does not come nearer to that, or takes longer than the class allows, is given up: the chain stays as it was.
Intermediate commits and pulls copy what nobody writes to; they always end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Policy
from controller.chain.journal import Operation, OperationKind
from controller.chain.observation import DiskFacts


@dataclass(frozen=True)
class Progress:
    """The nearest that a job came to its end."""

    begun: str
    """When its operation was begun, as the journal has it: which job this is of."""
    left: int
    """Bytes that were left to copy then."""
    since: datetime
    """When it was first as near as that."""


def bytes_left(facts: DiskFacts) -> int | None:
    """Bytes that the job of this disk has to copy before it is ready; None when libvirt does not tell yet.

    Until QEMU knows, libvirt shows an end of one byte, and none of it done.
    """
    job = facts.job
    if job is None or job.end <= 1:
        return None
    return job.end - job.current


def progressed(operation: Operation, facts: DiskFacts, before: Progress | None, now: datetime) -> Progress:
    """What is known of the job's progress now; ``before`` is what was known at the last look."""
    left = bytes_left(facts)
    if before is None or before.begun != operation.begun:
        return Progress(operation.begun, facts.capacity if left is None else left, now)
    if left is not None and left < before.left:
        return Progress(operation.begun, left, now)
    return before


def endless(
    operation: Operation, facts: DiskFacts, policy: Policy, progress: Progress | None, now: datetime
) -> Blocked | None:
    """Why this job, which runs and is not ready, is given up; None while it may go on."""
    if operation.kind is not OperationKind.ACTIVE_COMMIT:
        return None
    age = now - datetime.fromisoformat(operation.begun)
    if age >= timedelta(seconds=policy.deadline):
        limit = f"{policy.deadline} s (merge.convergence.deadlineSeconds)"
    elif (
        progress is not None
        and progress.begun == operation.begun
        and now - progress.since >= timedelta(seconds=policy.no_progress)
    ):
        limit = f"{policy.no_progress} s without progress (merge.convergence.noProgressSeconds)"
    else:
        return None
    left = bytes_left(facts)
    rest = "" if left is None else f", with {left} bytes left to copy"
    return Blocked(
        Why.NOT_CONVERGING,
        f"the active commit of disk {facts.target} into {operation.kept.source.uri} was given up after "
        f"{limit}{rest}: the guest writes faster than it is copied; the chain is as before",
    )
