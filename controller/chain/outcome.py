"""What became of an operation that was begun: told from the chains alone.

A job that is gone proves nothing; neither does an event. The operation is done when the live and the
persistent chain show it, and not begun when the chain is as it was (design, section 7).
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from controller.chain.disk import ChainEnd, Disk
from controller.chain.journal import Approved, DiskJournal, Known, Operation, OperationKind, Point, Removal
from controller.chain.observation import DiskFacts, JobKind


class Outcome(StrEnum):
    """State of a begun operation."""

    RUNNING = "running"
    READY = "ready"
    """An active commit that waits for the pivot."""
    DONE = "done"
    UNDONE = "undone"
    """The chain is as it was before: not begun, failed, or aborted."""
    HALF = "half"
    """The live chain shows it, the persistent definition does not."""
    DIVERGED = "diverged"
    """The chain is neither: somebody else changed it."""
    UNKNOWN = "unknown"
    """The chain is not known far enough down to tell."""


NOT_OURS = "varve did not make this image, so it does not remove it"
"""Why an image that left its chain stays: it may be a template that nothing names just now (ADR 3)."""

_JOB_OF = {
    OperationKind.COMMIT: JobKind.COMMIT,
    OperationKind.ACTIVE_COMMIT: JobKind.ACTIVE_COMMIT,
    OperationKind.PULL: JobKind.PULL,
}


def outcome(operation: Operation, facts: DiskFacts) -> Outcome:
    """Tell what became of ``operation`` from the disk as it is now."""
    chain = facts.chain
    if chain is None:
        return Outcome.DIVERGED
    if operation.kind is OperationKind.TAKE:
        return _take_outcome(operation, facts, chain)
    if job_is_ours(operation, facts):
        ready = facts.live is not None and facts.live.mirror is not None and facts.live.mirror.ready
        return Outcome.READY if ready else Outcome.RUNNING
    return _merge_outcome(operation, facts, chain)


def job_is_ours(operation: Operation, facts: DiskFacts) -> bool:
    """True when the job that runs on the disk is the one that ``operation`` began.

    The kind must agree, and the mirror of an active commit must be the layer that we keep.
    """
    live = facts.live
    if live is None or operation.kind is OperationKind.TAKE:
        return False
    if live.mirror is not None:
        return (
            operation.kind is OperationKind.ACTIVE_COMMIT
            and live.mirror.job == "active-commit"
            and live.mirror.source_key == operation.kept.key
        )
    return facts.job is not None and facts.job.kind is _JOB_OF[operation.kind]


def _take_outcome(operation: Operation, facts: DiskFacts, chain: Disk) -> Outcome:
    overlay, frozen = operation.kept.key, operation.merged[0].key
    if chain.position(overlay) is None:
        hidden = chain.end is ChainEnd.UNKNOWN and chain.keys[:1] != (frozen,)
        return Outcome.UNKNOWN if hidden else Outcome.UNDONE
    persistent = facts.inactive
    if facts.live is not None and persistent is not None and persistent.position(overlay) is None:
        return Outcome.HALF
    return Outcome.DONE


def _merge_outcome(operation: Operation, facts: DiskFacts, chain: Disk) -> Outcome:
    kept, merged = operation.kept.key, [layer.key for layer in operation.merged]
    present = [key for key in merged if chain.position(key) is not None]
    hidden = chain.end is ChainEnd.UNKNOWN
    if chain.position(kept) is None:
        return Outcome.UNKNOWN if hidden else Outcome.DIVERGED
    if not present:
        if hidden and operation.kind is OperationKind.PULL and not _stands_on_below(operation, chain):
            return Outcome.UNKNOWN  # what was pulled lay below the kept image, where nothing is listed
        persistent = facts.inactive
        stale = (
            persistent is not None
            and facts.live is not None
            and any(persistent.position(key) is not None for key in merged)
        )
        return Outcome.HALF if stale else Outcome.DONE
    return Outcome.UNDONE if _is_as_before(operation, chain) else Outcome.DIVERGED


def fits(operation: Operation, chain: Disk) -> bool:
    """True when a merge can begin on this very chain: its layers stand next to each other in the order they
    had, a job that concerns the active layer still finds it on top, and below a pull lies what it keeps."""
    start = _start(operation, chain)
    if start is None:
        return False
    if operation.kind is OperationKind.COMMIT:
        return start > 0
    if operation.kind is OperationKind.ACTIVE_COMMIT or start > 0:
        return start == 0
    under = chain.layers[len(operation.merged) + 1 :][:1]
    return [layer.key for layer in under] == ([operation.below.key] if operation.below else [])


def _stands_on_below(operation: Operation, chain: Disk) -> bool:
    """True when the kept image is listed right above the one that a pull leaves below: then nothing is
    between them, wherever the chain ends (libvirt never shows the end of one with a qcow2 base on NBD)."""
    below, kept = operation.below, chain.position(operation.kept.key)
    return (
        below is not None
        and kept is not None
        and chain.keys[kept : kept + 2] == (operation.kept.key, below.key)
    )


def _is_as_before(operation: Operation, chain: Disk) -> bool:
    return _start(operation, chain) is not None


def _start(operation: Operation, chain: Disk) -> int | None:
    """Position of the uppermost layer of the operation, when all of them stand together as before."""
    merged = [layer.key for layer in operation.merged]
    pull = operation.kind is OperationKind.PULL
    expected = [operation.kept.key, *merged] if pull else [*merged, operation.kept.key]
    start = chain.position(expected[0])
    together = start is not None and list(chain.keys[start : start + len(expected)]) == expected
    return start if together else None


def settled(record: DiskJournal, operation: Operation, facts: DiskFacts) -> DiskJournal:
    """The record after ``operation`` was seen done."""
    if operation.kind is OperationKind.TAKE:
        point = Point(
            overlay=operation.kept.key,
            owners=operation.owners,
            taken=operation.begun,
            consistency=operation.consistency,
            consistency_message=operation.consistency_message,
            capacity=operation.capacity,
        )
        return replace(
            record,
            points=(*record.points, point),
            images=record.images if operation.lent else record.images | {operation.kept.key},
            lent=record.lent | {operation.kept.key} if operation.lent else record.lent,
            operation=None,
            known=_known_after(record, operation, facts),
            approved=None,  # it was given for another chain
        )
    return replace(_merged(record, operation), known=_known_after(record, operation, facts))


def expected(known: Known, operation: Operation) -> Known:
    """The chain that was known, as it is once the operation is done."""
    if operation.kind is OperationKind.TAKE:
        return replace(known, keys=(operation.kept.key, *known.keys))
    gone = {layer.key for layer in operation.merged}
    return replace(known, keys=tuple(key for key in known.keys if key not in gone))


def _known_after(record: DiskJournal, operation: Operation, facts: DiskFacts) -> Known | None:
    """What is not as expected then was somebody else's doing, and is found by the next look."""
    chain = facts.chain
    if record.known is not None:
        return expected(record.known, operation)
    return Known(chain.keys, whole=chain.end is ChainEnd.KNOWN) if chain is not None else None


def _merged(record: DiskJournal, operation: Operation) -> DiskJournal:
    """Points inside the range go; the one below a pulled range now lies below the kept image."""
    gone = {layer.key for layer in operation.merged}
    pull = operation.kind is OperationKind.PULL
    inside = (gone | {operation.kept.key}) if pull else gone
    points = [point for point in record.points if point.overlay not in inside]
    if pull and operation.below is not None:
        lowest = operation.merged[-1].key
        below = record.point(lowest)
        if below is not None:
            points.append(replace(below, overlay=operation.kept.key))
    out = (
        Removal(layer, operation.owners, since=operation.begun)
        if layer.key in record.images
        else Removal(layer, left=NOT_OURS, since=operation.begun)
        for layer in operation.merged
        if layer.key not in record.lent  # it is free for whoever lent it: no orphan
    )
    return replace(
        record,
        points=tuple(points),
        images=record.images - gone,
        lent=record.lent - gone,
        operation=None,
        removals=(*record.removals, *out),
        approved=_left_of(operation.approved, inside),
    )


def _left_of(approved: Approved | None, gone: set[str]) -> Approved | None:
    left = approved.boundaries - gone if approved is not None else frozenset[str]()
    return replace(approved, boundaries=left) if approved is not None and left else None


def abandoned(record: DiskJournal, operation: Operation) -> DiskJournal:
    """The record after ``operation`` was seen not to have happened. What a failed take may have left on the
    storage is put down for removal, unless the place was lent. A commit writes to the kept image from its
    first moment on, so the points of its range are no longer what they were."""
    if operation.kind is OperationKind.TAKE and operation.lent:
        return replace(record, operation=None)
    if operation.kind is OperationKind.TAKE:
        leftover = Removal(operation.kept, since=operation.begun)
        return replace(record, operation=None, removals=(*record.removals, leftover))
    if operation.kind is OperationKind.PULL:
        return replace(record, operation=None)
    inside = {layer.key for layer in operation.merged}
    points = (replace(p, spoiled=True) if p.overlay in inside else p for p in record.points)
    return replace(record, operation=None, points=tuple(points))
