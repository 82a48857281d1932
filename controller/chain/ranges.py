"""Ranges: the runs of adjacent boundaries that nobody wants any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.chain.cost import Range
from controller.chain.desired import Want
from controller.chain.disk import Disk
from controller.chain.journal import DiskJournal, Owner, Point


def ranges(
    chain: Disk,
    record: DiskJournal,
    wants: Sequence[Want],
    *,
    only: Callable[[Point], bool] = lambda point: True,
) -> tuple[Range, ...]:
    """Maximal runs of adjacent boundaries that nobody wants any more, lowest first; ``only`` of those points
    of which it is true."""
    # One whose object is merely missing still counts as wanted.
    deleting = {want.owner for want in wants if want.deleting and want.merge and not want.suspended}
    unwanted = {point.overlay for point in record.points if deleting.issuperset(point.owners) and only(point)}
    found: list[Range] = []
    for position in range(len(chain.layers) - 2, -1, -1):
        if chain.layers[position].key not in unwanted:
            continue
        if found and found[-1].top == position + 1:
            found[-1] = Range(position, found[-1].bottom)
        else:
            found.append(Range(position, position + 1))
    return tuple(found)


def owners_in(chain: Disk, record: DiskJournal, span: Range) -> frozenset[Owner]:
    """Whose boundaries lie inside the range."""
    overlays = {layer.key for layer in chain.layers[span.top : span.bottom]}
    return frozenset(owner for point in record.points if point.overlay in overlays for owner in point.owners)
