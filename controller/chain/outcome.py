"""What became of an operation that was begun: told from the chains, and of a take also from QEMU.

A job that is gone proves nothing; neither does an event. The operation is done when the live and the
persistent chain show it, and not begun when the chain is as it was (design, section 7).

A take that the live chain does not show is the exception. libvirtd may have died after QEMU switched to the
new layer, and shows the old chain from then on (measured, libvirt 9.0)::

    QEMU      overlay <- frozen        the guest writes to the overlay
    libvirt              frozen        as before the take, for the rest of this QEMU's life

So QEMU is asked before an operation is called undone in the run that may have got its call (ADR 12). The same
happens at the end of a commit, a pull and a pivot, for as long as libvirtd needs to write its notes.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.journal import (
    Approved,
    Attempt,
    DiskJournal,
    Known,
    Operation,
    OperationKind,
    Point,
    Removal,
)
from controller.chain.observation import DiskFacts, JobKind
from controller.chain.opened import is_same


class Outcome(StrEnum):
    """State of a begun operation."""

    RUNNING = "running"
    READY = "ready"
    """An active commit that waits for the pivot."""
    DONE = "done"
    UNDONE = "undone"
    """The chain is as it was before: not begun, failed, or aborted."""
    HALF = "half"
    """The live chain shows it, and the persistent definition still names what was there before."""
    OUT_OF_STEP = "out-of-step"
    """QEMU has done it, and libvirt does not show it."""
    LOST_TRACK = "lost-track"
    """libvirt says that the machine is off, and that its chain is as before the pivot. Its QEMU may still
    run, on the lower layer (measured, libvirt 9.0: libvirtd was killed at the end of a pivot)."""
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
        if facts.job is None and facts.opened is not None and not facts.opened.problem:
            return Outcome.OUT_OF_STEP  # a mirror without a job: only a stop and a start take it away
        return Outcome.READY if _is_ready(facts) else Outcome.RUNNING
    return _merge_outcome(operation, facts, chain)


def _is_ready(facts: DiskFacts) -> bool:
    """Whether an active commit waits for its pivot. The mirror tells. libvirtd that died at the start of the
    job shows none for it, and then the counters are all there is; a pivot that comes too early is refused
    (measured, libvirt 9.0)."""
    mirror = facts.live.mirror if facts.live is not None else None
    if mirror is not None:
        return mirror.ready
    job = facts.job
    return job is not None and job.kind is JobKind.ACTIVE_COMMIT and 0 < job.end <= job.current


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
        if facts.live is not None and facts.opened and facts.opened.writes_to(operation.kept.source):
            return Outcome.OUT_OF_STEP
        hidden = chain.end is ChainEnd.UNKNOWN and chain.keys[:1] != (frozen,)
        return Outcome.UNKNOWN if hidden else Outcome.UNDONE
    persistent = facts.inactive
    if facts.live is None or persistent is None or persistent.position(overlay) is not None:
        return Outcome.DONE
    # Seen in the live chain once, it is a take. A definition that names another image is somebody's wish.
    return Outcome.HALF if names_the_past(persistent, chain, operation) else Outcome.DONE


def names_the_past(persistent: Disk, live: Disk, operation: Operation) -> bool:
    """True when the definition names nothing but images of the running chain and of those that the operation
    merged away: libvirt was ended before it wrote the new chain there, and nobody wants the old one."""
    allowed = live.footprints | {layer.source.footprint for layer in (operation.kept, *operation.merged)}
    named = {layer.source.footprint for layer in persistent.layers}
    return bool(named) and named <= allowed


def asks_qemu(operation: Operation, facts: DiskFacts, found: Outcome) -> bool:
    """True when libvirt's word on what became of an operation is not enough, and QEMU was not asked yet.

    In the run that may have got the call, libvirtd can have died before it noted what QEMU did. An active
    commit that QEMU was never told to pivot, and that libvirt shows pivoted, may be one that somebody
    aborted: libvirtd that died meanwhile takes it for a finished one (measured, libvirt 9.0).
    """
    if facts.live is None or facts.opened is not None or operation.run not in {"", facts.run}:
        return False
    if found is Outcome.RUNNING:
        return facts.live.mirror is not None and facts.job is None
    if found is Outcome.UNDONE:
        return True
    never_told = operation.kind is OperationKind.ACTIVE_COMMIT and not operation.pivoting
    return never_told and found in (Outcome.DONE, Outcome.HALF)


def real_chain(operation: Operation, facts: DiskFacts) -> tuple[Layer, ...]:
    """What the disk stands on, top to base: by QEMU's word if it was asked, else as libvirt shows it. Empty
    when QEMU has something that is not known here."""
    live = facts.live.layers if facts.live is not None else ()
    if facts.opened is None or not facts.opened.chain:
        return live
    known = (operation.kept, *operation.merged, *live)
    found = [
        next((layer for layer in known if is_same(image.name, layer.source)), None)
        for image in facts.opened.chain
    ]
    return tuple(layer for layer in found if layer is not None) if None not in found else ()


def _merge_outcome(operation: Operation, facts: DiskFacts, chain: Disk) -> Outcome:
    kept, merged = operation.kept.key, [layer.key for layer in operation.merged]
    present = [key for key in merged if chain.position(key) is not None]
    hidden = chain.end is ChainEnd.UNKNOWN
    if chain.position(kept) is None:
        return Outcome.UNKNOWN if hidden else Outcome.DIVERGED
    if not present:
        return _without_merged(operation, facts, chain)
    if not _is_as_before(operation, chain):
        return Outcome.DIVERGED
    if facts.live is None:
        lost = operation.pivoting and not facts.stop_is_known
        return Outcome.LOST_TRACK if lost else Outcome.UNDONE
    opened = facts.opened
    done = opened is not None and all(opened.writes_to(one.source) is False for one in operation.merged)
    return (
        Outcome.OUT_OF_STEP if done and opened and opened.writes_to(operation.kept.source) else Outcome.UNDONE
    )


def _without_merged(operation: Operation, facts: DiskFacts, chain: Disk) -> Outcome:
    """The chain shows none of the merged layers."""
    hidden = chain.end is ChainEnd.UNKNOWN
    if hidden and operation.kind is OperationKind.PULL and not _stands_on_below(operation, chain):
        return Outcome.UNKNOWN  # what was pulled lay below the kept image, where nothing is listed
    if facts.live is None:
        return Outcome.DONE
    if facts.opened is not None and facts.opened.writes_to(operation.merged[0].source):
        return Outcome.OUT_OF_STEP
    persistent = facts.inactive
    merged = (layer.key for layer in operation.merged)
    stale = persistent is not None and any(persistent.position(key) is not None for key in merged)
    return Outcome.HALF if stale else Outcome.DONE


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
        taken_for = {owner.uid for owner in operation.owners}
        return replace(
            record,
            points=(*record.points, point),
            images=record.images if operation.lent else record.images | {operation.kept.key},
            lent=record.lent | {operation.kept.key} if operation.lent else record.lent,
            operation=None,
            known=_known_after(record, operation, facts),
            approved=None,  # it was given for another chain
            attempts=tuple(one for one in record.attempts if one.uid not in taken_for),
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


def abandoned(record: DiskJournal, operation: Operation, facts: DiskFacts) -> DiskJournal:
    """The record after ``operation`` was seen not to have happened. What a failed take may have left on the
    storage is put down for removal, with what is known of its use. A commit writes to the kept image from its
    first moment on, so the points of its range are no longer what they were."""
    if operation.kind is OperationKind.TAKE:
        removals = (*record.removals, *_leftover(operation, facts))
        return replace(record, operation=None, removals=removals, attempts=_counted(record, operation))
    if operation.kind is OperationKind.PULL:
        return replace(record, operation=None)
    inside = {layer.key for layer in operation.merged}
    points = (replace(p, spoiled=True) if p.overlay in inside else p for p in record.points)
    return replace(record, operation=None, points=tuple(points))


def uncertain(since: str) -> str:
    """Why an image stays that a call named as the new top of a disk. ``since``: when, RFC 3339."""
    return (
        f"a snapshot call named it at {since} and its effect was not seen, so it may be the only image with "
        f"what the guest wrote from then on; look into it, and remove it by hand when it is not needed"
    )


def _leftover(operation: Operation, facts: DiskFacts) -> tuple[Removal, ...]:
    """What a take that did not happen may have left. A place that was lent goes back to whoever lent it,
    unless it may hold what the guest wrote."""
    source, opened = operation.kept.source, facts.opened
    same_run = facts.live is not None and operation.run in {"", facts.run}
    still_open = same_run and (opened is None or opened.has_open(source) is not False)
    # The mark of the process is in the live definition only: it was this very QEMU that got the call.
    unused = bool(operation.process) and opened is not None and opened.writes_to(source) is False
    if operation.lent and unused:
        return ()
    return (
        Removal(
            operation.kept,
            since=operation.begun,
            attempted=True,
            run=facts.run if still_open else "",
            left=uncertain(operation.begun) if operation.lent else "",
        ),
    )


def _counted(record: DiskJournal, operation: Operation) -> tuple[Attempt, ...]:
    """The names that were used, so that none is used again until the object has its point."""
    uid = operation.owners[0].uid if operation.owners else ""
    if operation.lent or not uid:
        return record.attempts
    others = tuple(one for one in record.attempts if one.uid != uid)
    return (*others, Attempt(uid, max(operation.attempt, 1)))
