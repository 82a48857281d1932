"""What is told of one VolumeSnapshot: its standing as a status. Pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from controller.api.conditions import Condition, Fact, State, Truth, Verdict, conditions
from controller.api.quantity import quantity
from controller.api.reasons import Reason
from controller.api.volumesnapshot import (
    Consistency,
    Layer,
    Operation,
    OperationKind,
    Resolved,
    SnapshotError,
    VolumeSnapshot,
    VolumeSnapshotStatus,
)
from controller.chain import journal, plan
from controller.chain.blocked import ENDS, Blocked, Ends, Why
from controller.chain.observation import DiskFacts

RESOLVED = Fact(Truth.TRUE, Reason.RESOLVED)

NEEDS_A_PERSON = frozenset(why for why, ends in ENDS.items() if ends is Ends.PERSON)
"""What does not pass by itself: Stalled, with what to do in the message."""


def needs_a_person(blocked: Blocked) -> bool:
    """Whether somebody must do something."""
    return blocked.why in NEEDS_A_PERSON and not blocked.ends


_KINDS = {
    journal.OperationKind.TAKE: (OperationKind.TAKE, Reason.TAKING, "a new layer is being put on top"),
    journal.OperationKind.COMMIT: (
        OperationKind.COMMIT,
        Reason.COMMITTING,
        "upper layers are copied down into",
    ),
    journal.OperationKind.ACTIVE_COMMIT: (
        OperationKind.COMMIT,
        Reason.COMMITTING,
        "the active layer is copied down into",
    ),
    journal.OperationKind.PULL: (OperationKind.PULL, Reason.PULLING, "lower layers are copied up into"),
}

RUNNING = {kind: (reason, text) for kind, (_, reason, text) in _KINDS.items()}
"""What is said of an operation that runs; the name of an image follows."""

_PROGRESS_STEP = 5
"""Percent. Progress is written in such steps, or once in :data:`_PROGRESS_SECONDS`, and no finer."""
_PROGRESS_SECONDS = 30
_LOOK_SECONDS = 5
"""A job is looked at so often, so one look of each period falls into its first seconds."""


def verdict_of(standing: plan.Standing) -> Verdict:
    """The standing as a verdict: one row of the table in ``docs/api.md``."""
    want, blocked = standing.want, standing.blocked
    if want.suspended:
        return _suspended(standing)
    if want.deleting:
        return _deleting(standing)
    if standing.state is plan.State.HELD:
        return _held(standing)
    if blocked is not None:
        state = State.STALLED if needs_a_person(blocked) else State.WAITING
        return _verdict(state, Reason(blocked.why.value), blocked.message, in_sync=_in_sync(standing))
    reason = Reason.TAKING if standing.state is plan.State.TAKING else Reason.PENDING
    return _verdict(State.PROGRESSING, reason, "the point is about to be taken", in_sync=Truth.FALSE)


def _held(standing: plan.Standing) -> Verdict:
    blocked = standing.blocked
    if blocked is not None and blocked.why is Why.CHAIN_DIVERGED:
        return _verdict(State.STALLED, Reason.CHAIN_DIVERGED, blocked.message, in_sync=Truth.FALSE)
    if blocked is not None and blocked.why is Why.CHAIN_TOO_LONG:  # the point is well, its machine is not
        state = State.STALLED if needs_a_person(blocked) else State.WAITING
        return _verdict(state, Reason.CHAIN_TOO_LONG, blocked.message, in_sync=Truth.TRUE)
    where = f"the point is held by {standing.frozen.source.uri}" if standing.frozen else "the point is held"
    if blocked is not None and blocked.why is Why.DEFINITION_DIFFERS:
        fact = Fact(Truth.FALSE, Reason.DEFINITION_DIFFERS, blocked.message)
        return Verdict(State.IN_SYNC, Reason.IN_SYNC, where, resolved=RESOLVED, chain_in_sync=fact)
    return _verdict(State.IN_SYNC, Reason.IN_SYNC, where, in_sync=Truth.TRUE)


def _suspended(standing: plan.Standing) -> Verdict:
    if standing.want.deleting:
        text = (
            "spec.suspend is true: the layer is left alone and the deletion waits; set it to false to go on"
        )
        return _verdict(State.DELETING_STALLED, Reason.SUSPENDED, text, in_sync=_in_sync(standing))
    text = "spec.suspend is true: this object and its layer are left alone"
    return _verdict(State.SUSPENDED, Reason.SUSPENDED, text, in_sync=_in_sync(standing))


def _deleting(standing: plan.Standing) -> Verdict:
    blocked, operation = standing.blocked, standing.operation
    if standing.state is plan.State.MERGING and operation is not None and blocked is None:
        _, reason, text = _KINDS[operation.kind]
        what = f"{text} {operation.kept.source.uri}"
        return _verdict(State.DELETING, reason, what, in_sync=Truth.FALSE)
    if standing.state is plan.State.REMOVING:
        text = "the layer is merged; its image is being removed"
        return _verdict(
            State.DELETING, Reason.REMOVING, blocked.message if blocked else text, in_sync=Truth.TRUE
        )
    if blocked is not None:
        state = State.DELETING_STALLED if needs_a_person(blocked) else State.DELETING
        return _verdict(state, Reason(blocked.why.value), blocked.message, in_sync=Truth.FALSE)
    return _verdict(
        State.DELETING, Reason.DELETING, "the layer is about to be merged away", in_sync=Truth.FALSE
    )


def _in_sync(standing: plan.Standing) -> Truth:
    return {
        plan.State.HELD: Truth.TRUE,
        plan.State.UNKNOWN: Truth.UNKNOWN,
        plan.State.GONE: Truth.TRUE,
    }.get(standing.state, Truth.FALSE)


def _verdict(state: State, reason: Reason, message: str, *, in_sync: Truth) -> Verdict:
    fact = Fact(in_sync, Reason.IN_SYNC if in_sync is Truth.TRUE else reason, message)
    return Verdict(state, reason, message, resolved=RESOLVED, chain_in_sync=fact)


def status_of(
    snapshot: VolumeSnapshot,
    standing: plan.Standing,
    facts: DiskFacts | None,
    resolved: Resolved,
    now: datetime,
    *,
    judged: Callable[[Verdict], Verdict] = lambda verdict: verdict,
) -> VolumeSnapshotStatus:
    """The whole status of a VolumeSnapshot whose domain was observed; ``judged`` has the last word on it.

    What is not known now (a point of a chain that cannot be read) keeps the value it had.
    """
    before = snapshot.status
    verdict = judged(verdict_of(standing))
    point = standing.point
    unknown = standing.state is plan.State.UNKNOWN
    out_of_sight = standing.state is plan.State.LEAVING and standing.frozen is None
    held = standing.state is plan.State.HELD and not standing.want.deleting
    return VolumeSnapshotStatus(
        conditions=conditions(verdict, before.conditions, snapshot.generation, now),
        observed_generation=snapshot.generation,
        ready_to_use=before.ready_to_use if unknown else held,
        creation_time=_taken(point) or before.creation_time,
        restore_size=quantity(point.capacity) if point and point.capacity else before.restore_size,
        consistency=Consistency(point.consistency) if point and point.consistency else before.consistency,
        consistency_message=(point.consistency_message or None) if point else before.consistency_message,
        resolved=resolved,
        layer=before.layer if unknown or out_of_sight else _layer(standing, facts, before.layer),
        operation=operation_status(standing.operation, facts, before.operation, now),
        error=_error(verdict, before.error, now),
    )


def unresolved_status(snapshot: VolumeSnapshot, verdict: Verdict, now: datetime) -> VolumeSnapshotStatus:
    """The status of a VolumeSnapshot whose domain cannot be looked at: everything known before stays."""
    before = snapshot.status
    return before.model_copy(
        update={
            "conditions": conditions(verdict, before.conditions, snapshot.generation, now),
            "observed_generation": snapshot.generation,
            "ready_to_use": False if snapshot.deleting or before.layer is None else before.ready_to_use,
            "operation": None,
            "error": _error(verdict, before.error, now),
        }
    )


def _taken(point: journal.Point | None) -> datetime | None:
    return datetime.fromisoformat(point.taken) if point and point.taken else None


def _layer(standing: plan.Standing, facts: DiskFacts | None, before: Layer | None) -> Layer | None:
    frozen = standing.frozen
    if frozen is None:
        return None
    size = facts.sizes.get(frozen.key) if facts else None
    same = before if before is not None and before.source == frozen.source.uri else None
    return Layer(
        source=frozen.source.uri,
        format=frozen.format or None,
        index=frozen.index,
        capacity_bytes=size.capacity if size else same.capacity_bytes if same else None,
        allocated_bytes=size.allocation if size else same.allocated_bytes if same else None,
    )


def operation_status(
    running: journal.Operation | None, facts: DiskFacts | None, before: Operation | None, now: datetime
) -> Operation | None:
    """What runs, with its progress in steps, so that a long job costs few writes."""
    if running is None:
        return None
    kind, _, _ = _KINDS[running.kind]
    mirror = facts.live.mirror if facts and facts.live else None
    if mirror is not None and mirror.ready:
        kind = OperationKind.PIVOT
    started = datetime.fromisoformat(running.begun)
    job = facts.job if facts else None
    if job is None or job.end <= 0:
        return Operation(kind=kind, started_at=started)
    percent = min(100, job.current * 100 // job.end)
    same = before is not None and before.kind is kind and before.started_at == started
    if same and before is not None and not _is_news(before, percent, started, now):
        return before
    seconds = max((now - started).total_seconds(), 1.0)
    rate = job.current / seconds
    return Operation(
        kind=kind,
        started_at=started,
        current_bytes=job.current,
        total_bytes=job.end,
        percent=percent,
        eta_seconds=int((job.end - job.current) / rate) if rate > 0 else None,
    )


def _is_news(before: Operation, percent: int, started: datetime, now: datetime) -> bool:
    shown = before.percent or 0
    if percent - shown >= _PROGRESS_STEP:
        return True
    elapsed = (now - started).total_seconds()
    return percent > shown and elapsed % _PROGRESS_SECONDS < _LOOK_SECONDS


def _error(verdict: Verdict, before: SnapshotError | None, now: datetime) -> SnapshotError | None:
    trouble = verdict.state in (State.STALLED, State.DELETING_STALLED) or verdict.reason is Reason.FAILED
    if not trouble:
        return None
    if before is not None and before.reason == verdict.reason and before.message == verdict.message:
        return before
    return SnapshotError(time=now, reason=verdict.reason, message=verdict.message)


def blocked_verdict(blocked: Blocked, *, deleting: bool) -> Verdict:
    """A verdict for an object that was not planned for, from the words of a guard."""
    person = needs_a_person(blocked)
    if deleting:
        state = State.DELETING_STALLED if person else State.DELETING
    else:
        state = State.STALLED if person else State.WAITING
    return _verdict(state, Reason(blocked.why.value), blocked.message, in_sync=Truth.UNKNOWN)


def condition(status: VolumeSnapshotStatus, kind: str) -> Condition | None:
    """One condition of a status by its type."""
    return next((found for found in status.conditions if found.type == kind), None)
