"""What objects remember of their points against what the record says (ADR 17).

A record may be an old one that somebody put back: validly sealed, and of another time. Then a share of a
point may be missing in it, and the deletion of another object would merge the point away. The status of the
object that has the share is the second witness.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.chain.blocked import Blocked, Why
from controller.chain.cost import Range
from controller.chain.desired import Want
from controller.chain.disk import Boundary, Disk
from controller.chain.journal import DiskJournal
from controller.chain.naming import is_named_for


def forgotten(span: Range, chain: Disk, record: DiskJournal, wants: Iterable[Want]) -> Blocked | None:
    """Why the boundaries of this range may not go: an object that stays says that one of them is its point,
    and the record does not know of it."""
    inside = chain.boundaries[span.top : span.bottom]
    for want in wants:
        if want.deleting and want.merge and not want.suspended:
            continue
        if any(_is_forgotten(want, boundary, chain, record) for boundary in inside):
            return Blocked(
                Why.JOURNAL_UNTRUSTED,
                f"a VolumeSnapshot that is not being deleted says in its status that its point on disk "
                f"{record.target} is one that this merge would take away, and varve's record does not know "
                f"of it: somebody may have put an older record back. The merge waits until that object is "
                f"deleted, too (status.layer of the VolumeSnapshots of this disk names the layers)",
            )
    return None


def _is_forgotten(want: Want, boundary: Boundary, chain: Disk, record: DiskJournal) -> bool:
    if want.memory is None:
        return False
    point = record.point(boundary.overlay.key)
    if point is not None and want.owner in point.owners:
        return False
    if boundary.frozen.source.uri == want.memory.layer:
        mine = record.point_of(want.owner)
        return mine is None or chain.position(mine.overlay) is not None
    return record.point_of(want.owner) is None and is_named_for(boundary.overlay.source.leaf, want.owner)
