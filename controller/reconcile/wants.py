"""VolumeSnapshots and their classes as the planner's wishes.

What cannot be turned into a wish (no class, a field of a later version) is a :class:`Misfit` with the reason:
such an object keeps what it has, and nothing is begun for it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from lxml import etree

from controller.api.overlay import ClassOverlay, Content, Overlay, OverlaySource
from controller.api.quantity import parse_quantity
from controller.api.reasons import Reason
from controller.api.volumesnapshot import DeletionPolicy, Quiesce, VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClassSpec
from controller.chain.desired import Direction, Memory, Placement, Policy, Want
from controller.chain.journal import Owner
from controller.chain.source import Host, Source
from controller.hypervisor.driver import Driver, Pool
from controller.hypervisor.errors import NotFound, Unsupported
from controller.reconcile.class_store import ClassFault, InForce
from controller.reconcile.overlay_access import is_given, named_place
from controller.reconcile.store import Snapshot, Store

Given = Callable[[str], tuple[str, ...] | None]
"""By namespace: patterns of the places that its VolumeSnapshots may name for layers; None: any."""


@dataclass(frozen=True)
class Misfit:
    """A VolumeSnapshot that no wish can be made of now, and why."""

    snapshot: Snapshot
    reason: Reason
    message: str
    stalled: bool


def owner_of(snapshot: VolumeSnapshot) -> Owner:
    """The object as the journal names it."""
    return Owner(snapshot.namespace, snapshot.name, snapshot.uid)


async def wants_of(
    snapshots: Iterable[Snapshot], store: Store, driver: Driver, given: Given
) -> tuple[list[Want], list[Misfit]]:
    """Turn all VolumeSnapshots of one domain into wishes; asks libvirt only for pools that are needed."""
    wants: list[Want] = []
    misfits: list[Misfit] = []
    for snapshot in snapshots:
        found = await _want(snapshot, store, driver, given)
        if isinstance(found, Want):
            wants.append(found)
        else:
            misfits.append(found)
    return wants, misfits


async def _want(snapshot: Snapshot, store: Store, driver: Driver, given: Given) -> Want | Misfit:
    parsed = snapshot.parsed
    later = parsed.spec.not_yet()
    if later is not None and not parsed.deleting:
        return Misfit(snapshot, Reason.INVALID_SPEC, later, stalled=True)
    memory = memory_of(parsed)
    held = memory is not None and not parsed.deleting
    found = store.classes.in_force(parsed) if held or parsed.deleting else store.classes.policy(parsed)
    strict = isinstance(found, InForce) and found.strict
    if isinstance(found, ClassFault):
        if not held:
            known = found.reason is not Reason.CLASS_NOT_FOUND  # what is missing may come within moments
            return Misfit(snapshot, found.reason, found.message, stalled=known)
        spec = VolumeSnapshotClassSpec()  # a point that is held needs no policy before it is deleted
    else:
        spec = found.spec if isinstance(found, InForce) else found
    later = spec.not_yet()
    if later is not None and not (held or parsed.deleting):
        return Misfit(snapshot, Reason.INVALID_SPEC, later, stalled=True)
    placement = Placement()
    adopt = parsed.spec.adopt.layer if parsed.spec.adopt is not None else ""
    if memory is None and not (parsed.deleting or adopt):
        denied = _denied(parsed, given)
        if denied is not None:
            return Misfit(snapshot, Reason.ACCESS_DENIED, denied, stalled=True)
        place = await _placement(parsed.spec.overlay or spec.overlay, driver)
        if isinstance(place, str):
            return Misfit(snapshot, Reason.OVERLAY_REQUIRED, place, stalled=True)
        placement = place
    policy = policy_of(spec)
    return Want(
        owner=owner_of(parsed),
        target=parsed.spec.source.disk,
        deleted_at=store.deleted_at(parsed),
        merge=not strict and (parsed.spec.deletion_policy or spec.deletion_policy) is DeletionPolicy.DELETE,
        suspended=parsed.spec.suspend,
        freeze=(parsed.spec.quiesce or spec.quiesce) is not Quiesce.NEVER,
        armed=True,
        memory=memory,
        adopt=adopt,
        policy=policy,
        placement=placement,
    )


def policy_of(spec: VolumeSnapshotClassSpec) -> Policy:
    """The class as the planner knows it."""
    return Policy(
        direction=Direction(spec.merge.direction.value),
        settle_seconds=spec.merge.settle_seconds,
        bandwidth=spec.merge.bandwidth_bytes_per_second,
        max_layers=spec.max_layers,
        min_free=spec.min_free_bytes,
        no_progress=spec.merge.convergence.no_progress_seconds,
        deadline=spec.merge.convergence.deadline_seconds,
        protected=spec.protected_images,
    )


def memory_of(snapshot: VolumeSnapshot) -> Memory | None:
    """What the status remembers of a point that was taken."""
    status = snapshot.status
    if status.creation_time is None:
        return None
    return Memory(
        taken=_rfc3339(status.creation_time),
        consistency=status.consistency.value if status.consistency else "",
        consistency_message=status.consistency_message or "",
        capacity=parse_quantity(status.restore_size) if status.restore_size else 0,
        layer=(status.layer.source or "") if status.layer else "",
    )


def _denied(parsed: VolumeSnapshot, given: Given) -> str | None:
    """Why the place that the object itself names is not its namespace's, or None. What a class says is the
    administrator's word."""
    overlay = parsed.spec.overlay
    if overlay is None:
        return None
    source = None if overlay.source is None else _named(overlay.source)
    if is_given(overlay, source, given(parsed.namespace)):
        return None
    return (
        f"namespace {parsed.namespace} may not put layers at {named_place(overlay, source)}: name another "
        f"place in spec.overlay, or leave it out for the class to say; or an administrator adds the place to "
        f"overlays of the rule in the Hypervisor's spec.access"
    )


async def _placement(overlay: Overlay | ClassOverlay | None, driver: Driver) -> Placement | str:
    """Where new layers go, or why that place cannot be used."""
    if isinstance(overlay, Overlay) and overlay.source is not None:
        prepared = overlay.source.content is Content.PREPARED
        return Placement(target=_named(overlay.source), prepared=prepared)
    if overlay is not None and overlay.directory is not None:
        return Placement(_in_directory(overlay.directory))
    if overlay is None or overlay.pool is None:
        return Placement()
    try:
        pool = await driver.pool(overlay.pool)
    except (NotFound, Unsupported) as error:
        return f"overlay.pool {overlay.pool} cannot be used: {error.message}"
    template = _template(pool)
    return Placement(template) if template else f"pool {pool.name} of type {pool.type} cannot hold overlays"


def _template(pool: Pool) -> Source | None:
    return pool.template if pool.template is not None else _in_directory(pool.path) if pool.path else None


def _in_directory(directory: str) -> Source:
    return Source.file(posixpath.join(directory, "overlay"))


def _named(place: OverlaySource) -> Source:
    """The place as libvirt names it. What is below /dev/ is a block device."""
    if place.path is not None:
        return _block(place.path) if place.path.startswith("/dev/") else Source.file(place.path)
    hosts = [
        Host(socket=host.socket, transport="unix")
        if host.socket is not None
        else Host(name=host.name or "", port=str(host.port or ""))
        for host in place.hosts or ()
    ]
    return Source.network(str(place.protocol), place.name or "", hosts)


def _block(path: str) -> Source:
    return Source.from_element("block", etree.Element("source", dev=path))


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
