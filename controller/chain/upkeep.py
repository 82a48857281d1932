"""Edits of one disk's record that need no job: owners that came back, shares given up, layers taken away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.chain.desired import Memory, Want
from controller.chain.disk import Boundary, ChainEnd, Disk, Layer
from controller.chain.journal import DiskJournal, Owner, Point, Removal
from controller.chain.naming import is_named_for
from controller.chain.outcome import NOT_OURS
from controller.chain.source import Source
from controller.chain.source_uri import NotAnImage

TAKEN_OUT = "somebody else merged it away and may want it, so varve leaves it where it is"
"""Why an image of ours stays that a job of somebody else took out: what it held is in the chain."""

SET_ASIDE = (
    "it left the chain and nobody saw how, so it may be the only image with what the guest wrote; look into "
    "it, and remove it by hand when it is not needed"
)
"""Why one stays that is missing after a start from another definition, or while no controller looked."""

_OTHERS_DID = frozenset({TAKEN_OUT, SET_ASIDE})
_MOST_TAKEN_OUT = 32
"""Images of these kinds that the record of a disk keeps, the newest: it must not grow for ever."""


def is_leftover(removal: Removal) -> bool:
    """An image that varve made and that is not needed: what it held is in another one, and it could not be
    removed, or somebody else has merged it away."""
    return bool(removal.left) and not removal.attempted and removal.left != NOT_OURS


def upkeep(
    record: DiskJournal, wants: Iterable[Want], chain: Disk, *, now: str = "", merged: bool = False
) -> DiskJournal:
    """The record as it should read, given who is there and what the chain shows.

    Equal to ``record`` when there is nothing to change. An owner that is neither there nor being deleted
    keeps its share: only a deletion that was seen merges. ``now``: RFC 3339, UTC, for what is found gone;
    ``merged``: a job of somebody else was seen, so that is where it went.
    """
    known = {(want.owner.namespace, want.owner.name): want for want in wants}
    points = [_rebound(point, known) for point in record.points]
    points = [_released(point, known) for point in points]
    points = [point for point in points if _still_matters(point, known, chain)]
    leaving = {want.owner.uid for want in known.values() if want.deleting}  # they ask for no name again
    attempts = tuple(one for one in record.attempts if one.uid not in leaving)
    edited = _recognised(replace(record, points=tuple(points), attempts=attempts), known.values(), chain)
    return _without_strangers(_with_strays(edited, chain), chain, now, merged=merged)


def _want_of(owner: Owner, known: dict[tuple[str, str], Want]) -> Want | None:
    return known.get((owner.namespace, owner.name))


def _rebound(point: Point, known: dict[tuple[str, str], Want]) -> Point:
    """An object of the same namespace and name with another UID: the cluster was rebuilt, or the object was
    re-created after its finalizer was stripped. It is the same declaration, so it gets its point back, unless
    the merge of its predecessor's has spoiled it."""
    owners = []
    for owner in point.owners:
        want = _want_of(owner, known)
        if want is None or want.deleting or want.owner.uid == owner.uid:
            owners.append(owner)
        elif not point.spoiled:
            owners.append(want.owner)
    return replace(point, owners=tuple(owners))


def _released(point: Point, known: dict[tuple[str, str], Want]) -> Point:
    """Drop the shares of deleted objects that leave the layer (Retain), or that share it with others."""
    leaving = dict.fromkeys(
        owner
        for owner in point.owners
        if (want := _want_of(owner, known)) is not None
        and want.owner.uid == owner.uid
        and want.deleting
        and not want.suspended
    )
    staying = [owner for owner in point.owners if owner not in leaving]
    retaining = [owner for owner in leaving if not known[owner.namespace, owner.name].merge]
    if staying:
        return replace(point, owners=tuple(staying))
    if retaining:  # one who wants the layer to stay is enough for it to stay
        return replace(point, owners=tuple(retaining))
    return point


def _still_matters(point: Point, known: dict[tuple[str, str], Want], chain: Disk) -> bool:
    """False when every owner is gone for good: all retained, or the layer itself was taken away by hand."""
    wants = [_want_of(owner, known) for owner in point.owners]
    if any(
        want is None or not want.deleting or want.suspended or want.owner.uid != owner.uid
        for want, owner in zip(wants, point.owners, strict=True)
    ):
        return True
    if wants and all(want is not None and not want.merge for want in wants):
        return False
    return has_point(point, chain) is not False


def has_point(point: Point, chain: Disk) -> bool | None:
    """Whether the boundary is in the chain; None when the chain is not known far enough down to tell."""
    position = chain.position(point.overlay)
    if position is None:
        return None if chain.end is ChainEnd.UNKNOWN else False
    if position < len(chain.layers) - 1:
        return True
    return None if chain.end is ChainEnd.UNKNOWN else False


def _recognised(record: DiskJournal, wants: Iterable[Want], chain: Disk) -> DiskJournal:
    """Give a point back to the object whose UID is in the overlay's name and whose status remembers it. The
    journal goes when somebody defines the domain anew from an XML without it."""
    for want in wants:
        if want.memory is None or record.point_of(want.owner) is not None:
            continue
        for boundary in chain.boundaries:
            overlay = boundary.overlay
            if record.point(overlay.key) is None and _is_of(want, want.memory, boundary):
                point = Point(
                    overlay=overlay.key,
                    owners=(want.owner,),
                    taken=want.memory.taken,
                    consistency=want.memory.consistency,
                    consistency_message=want.memory.consistency_message,
                    capacity=want.memory.capacity,
                )
                record = replace(record, points=(*record.points, point), images=record.images | {overlay.key})
                break
    return record


def _is_of(want: Want, memory: Memory, boundary: Boundary) -> bool:
    """One that is being deleted must find the very image that held its point: after a pull the overlay that
    has its name is there, and the point is not."""
    if not is_named_for(boundary.overlay.source.leaf, want.owner):
        return False
    return not want.deleting or (want.merge and boundary.frozen.source.uri == memory.layer)


def _with_strays(record: DiskJournal, chain: Disk) -> DiskJournal:
    """An image that waits for removal and is in the chain after all: a snapshot call whose answer was lost
    came through late. It becomes a point that nobody owns, which is merged away like any other. One that was
    to stay anyway is just no orphan any more: somebody put it back, and what was ours is ours again."""
    back = [removal for removal in record.removals if chain.position(removal.layer.key) is not None]
    if not back:
        return record
    stray = [removal for removal in back if not removal.left]
    points = tuple(
        Point(overlay=removal.layer.key, owners=(), taken="", consistency="")
        for removal in stray
        if record.point(removal.layer.key) is None
    )
    return replace(
        record,
        points=(*record.points, *points),
        images=record.images | {r.layer.key for r in back if r in stray or r.left in _OTHERS_DID},
        removals=tuple(removal for removal in record.removals if removal not in back),
    )


def _without_strangers(record: DiskJournal, chain: Disk, now: str, *, merged: bool) -> DiskJournal:
    """Images that somebody else took out of the chain: whether they can go is not ours to say. Those that
    varve made stay known; what was lent goes back to whoever lent it."""
    if chain.end is ChainEnd.UNKNOWN:
        return record
    present = frozenset(chain.keys)
    listed = {removal.layer.key for removal in record.removals}
    gone = (_image_of(key) for key in sorted(record.images - present - listed))
    why = TAKEN_OUT if merged else SET_ASIDE
    left = [Removal(image, left=why, since=now, attempted=not merged) for image in gone if image is not None]
    removals = (*record.removals, *left)
    taken_out = [removal for removal in removals if removal.left in _OTHERS_DID]
    forgotten = taken_out[: max(0, len(taken_out) - _MOST_TAKEN_OUT)]
    return replace(
        record,
        images=record.images & present,
        lent=record.lent & present,
        removals=tuple(removal for removal in removals if removal not in forgotten),
    )


def _image_of(key: str) -> Layer | None:
    """An image that varve made, by its identity. None for one that no varve of today makes."""
    try:
        source = Source.from_uri(key.removeprefix("file:"))
    except NotAnImage:
        return None
    return Layer(source, "qcow2") if source.key == key else None
