"""A place that was lent is opened by QEMU after it was looked into, and whoever serves it may show something
else by then. So what QEMU opened is compared with what it should be, and a stranger is undone: the guest's
disk goes back to the image below, with all that was written meanwhile, and the place is used no more for that
object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.chain.blocked import Blocked, Why
from controller.chain.cost import Range
from controller.chain.desired import Direction, Policy, Want
from controller.chain.disk import Disk
from controller.chain.journal import DiskJournal, Operation, Owner, Point
from controller.chain.observation import DiskFacts
from controller.chain.opened import is_same
from controller.chain.outcome import settled
from controller.chain.steps import StartMerge

Distrusted = frozenset[tuple[str, str]]
"""UIDs of objects, each with the footprint of a place where QEMU has opened something else for it."""


def stranger(operation: Operation, facts: DiskFacts) -> str | None:
    """How what QEMU opened differs from what a take was to open at a place that was lent, or None; a phrase.
    Call with QEMU asked. What it does not tell counts as different."""
    opened, overlay = facts.opened, operation.kept.source
    if opened is None or opened.problem or not opened.chain:
        why = opened.problem if opened is not None else ""
        return f"QEMU does not tell what it has opened{f' ({why})' if why else ''}"
    top = opened.chain[0]
    wrong = [
        (is_same(top.name, overlay) is False, f"QEMU has {top.name} open in its place"),
        (bool(top.data_file), f"its data is in another file, {top.data_file}"),
        (
            bool(top.capacity and operation.capacity) and top.capacity != operation.capacity,
            f"its virtual size is {top.capacity} bytes and the disk had {operation.capacity}",
        ),
        *((True, flaw) for flaw in top.flaws),
    ]
    return next((text for is_wrong, text in wrong if is_wrong), None)


def given_up(record: DiskJournal, operation: Operation, facts: DiskFacts) -> DiskJournal:
    """The record after a take whose overlay is a stranger: its boundary is nobody's, so it is merged away."""
    done = settled(record, operation, facts)
    overlay = operation.kept.key
    points = (replace(point, owners=()) if point.overlay == overlay else point for point in done.points)
    return replace(done, points=tuple(points))


def is_strange(point: Point, record: DiskJournal) -> bool:
    """Whether the overlay of this boundary was found to be a stranger: nothing else leaves a place that was
    lent without an owner."""
    return not point.owners and point.overlay in record.lent


def has_strangers(span: Range, chain: Disk, record: DiskJournal) -> bool:
    """Whether the range takes a stranger away."""
    overlays = {layer.key for layer in chain.layers[span.top : span.bottom]}
    return any(point.overlay in overlays and is_strange(point, record) for point in record.points)


def takes_strangers(step: StartMerge, record: DiskJournal) -> bool:
    """Whether the merge takes strangers away and nothing else: nobody is asked whether it may."""
    strange = {point.overlay for point in record.points if is_strange(point, record)}
    return strange.issuperset(layer.key for layer in step.operation.merged)


def at_once(policy: Policy) -> Policy:
    """The policy with which a stranger goes: down into the image below and as fast as it can. A pull would
    keep it."""
    return replace(policy, direction=Direction.COMMIT, settle_seconds=0, bandwidth=0)


def is_distrusted(want: Want, record: DiskJournal, distrusted: Distrusted) -> bool:
    """Whether the place that it names was found to hold something else when QEMU opened it for this object;
    or is just being merged away for that, whoever named it: a controller that was killed meanwhile knows no
    more."""
    place = want.placement.target
    if place is None:
        return False
    leaving = (point.overlay for point in record.points if is_strange(point, record))
    return want.distrusted or (want.owner.uid, place.footprint) in distrusted or place.key in leaving


def refusals(record: DiskJournal, wants: Iterable[Want], distrusted: Distrusted) -> dict[Owner, Blocked]:
    """What is said to those whose place is used no more. What was found there is in the controller's log: it
    may be somebody else's."""
    return {
        want.owner: Blocked(
            Why.OVERLAY_NOT_AS_VERIFIED,
            f"what QEMU opened at spec.overlay.source {want.placement.target.uri} is not what was verified "
            f"there just before: the layer is merged away with all that the guest wrote to it, and the place "
            f"is not used for this object any more. Find out who else writes to that place or serves it, and "
            f"name another one",
        )
        for want in wants
        if want.placement.target is not None
        and is_distrusted(want, record, distrusted)
        and record.point_of(want.owner) is None
        and not (want.deleting or want.memory)
    }
