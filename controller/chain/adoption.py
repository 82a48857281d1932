"""Adoption: binding a VolumeSnapshot to a boundary that is in the chain already.

The record names its owner from then on, as if varve had taken the point; but neither its moment nor its
consistency is known, and its overlay stays the image of whoever made it: merged away, never removed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Want
from controller.chain.disk import Boundary, ChainEnd, Disk
from controller.chain.drift import known
from controller.chain.journal import DiskJournal, Owner, Point
from controller.chain.observation import DiskFacts
from controller.chain.plan import DiskPlan

HOW = "the layer was there before varve: when and how it was made is not known"
"""Why an adopted point has no creation time and no consistency."""


def adopted(record: DiskJournal, wants: Iterable[Want], facts: DiskFacts) -> DiskJournal:
    """The record with all wants bound that name a boundary of the chain. Equal to ``record`` when there are
    none."""
    chain = facts.chain
    if chain is None:
        return record
    for want in _pending(record, wants):
        found = _boundary(want, record, chain)
        if isinstance(found, Blocked):
            continue
        point = record.point(found.overlay.key)
        if point is None:
            size = facts.sizes.get(found.frozen.key)
            point = Point(
                overlay=found.overlay.key,
                owners=(want.owner,),
                taken="",
                consistency="",
                consistency_message=HOW,
                capacity=size.capacity if size else 0,
            )
            record = replace(record, points=(*record.points, point), known=record.known or known(chain))
        else:
            shared = replace(point, owners=(*point.owners, want.owner))
            record = record.with_points(shared if one is point else one for one in record.points)
    return record


def refused(record: DiskJournal, wants: Iterable[Want], chain: Disk) -> Mapping[Owner, Blocked]:
    """Why those that name a layer are not bound to it."""
    verdicts = {want.owner: _boundary(want, record, chain) for want in _pending(record, wants)}
    return {owner: found for owner, found in verdicts.items() if isinstance(found, Blocked)}


def refusing(
    found: DiskPlan, record: DiskJournal, wants: Iterable[Want], facts: DiskFacts | None
) -> DiskPlan:
    """The plan of the disk with what is against adopting."""
    if facts is None or facts.chain is None or found.step is not None:
        return found
    refusals = refused(record, wants, facts.chain)
    if not refusals:
        return found
    blocked = found.blocked or next(iter(refusals.values()))
    return replace(found, refused={**found.refused, **refusals}, blocked=blocked)


def _pending(record: DiskJournal, wants: Iterable[Want]) -> list[Want]:
    return [
        want
        for want in wants
        if want.adopt
        and want.armed
        and not (want.deleting or want.suspended)
        and record.point_of(want.owner) is None
    ]


def _boundary(want: Want, record: DiskJournal, chain: Disk) -> Boundary | Blocked:
    """The boundary whose frozen layer is named, or why there is no such one."""
    name = posixpath.normpath(want.adopt) if want.adopt.startswith("/") else want.adopt
    places = [position for position, layer in enumerate(chain.layers) if layer.source.uri == name]
    if len(places) > 1:
        text = f"{len(places)} layers of disk {want.target} are called {name} and cannot be told apart"
        return Blocked(Why.LAYER_AMBIGUOUS, f"{text}: take a new point, and adopt none of them")
    if not places and chain.end is ChainEnd.UNKNOWN:
        return Blocked(
            Why.CHAIN_UNKNOWN,
            f"libvirt does not show the chain of disk {want.target} far enough down to find {name}: write "
            f"all layers into the definition (docs/operations.md, section Layers out of sight)",
        )
    if not places:
        listed = ", ".join(layer.source.uri for layer in chain.layers[1:4]) or "none"
        return Blocked(
            Why.LAYER_NOT_FOUND,
            f"{name} is no layer of disk {want.target} (frozen layers: {listed}): name one of these in a new "
            f"VolumeSnapshot",
        )
    if places == [0]:
        return Blocked(
            Why.LAYER_ACTIVE,
            f"{name} is the active layer of disk {want.target}, which the guest writes to: make "
            f"a new VolumeSnapshot without adopt to freeze it",
        )
    boundary = Boundary(frozen=chain.layers[places[0]], overlay=chain.layers[places[0] - 1])
    return _taken(want, record.point(boundary.overlay.key), name) or boundary


def _taken(want: Want, point: Point | None, name: str) -> Blocked | None:
    """What is against binding to a boundary that has a record already."""
    if point is not None and point.spoiled:
        text = f"{name} is no point any more: a merge that was begun and did not end has written to it"
        return Blocked(Why.LAYER_NOT_FOUND, f"{text}; delete this object")
    if point is not None and any(owner.namespace != want.owner.namespace for owner in point.owners):
        text = f"{name} is managed for another namespace, whose point it holds: take a point of your own"
        return Blocked(Why.ACCESS_DENIED, f"{text}, in a new VolumeSnapshot without adopt")
    return None
