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

from controller.api.approval import Approval
from controller.api.overlay import ClassOverlay, Content, Overlay, OverlaySource, Protocol
from controller.api.quantity import parse_quantity
from controller.api.reasons import Reason
from controller.api.volumesnapshot import DeletionPolicy, Quiesce, VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClassSpec
from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Direction, Memory, Placement, Policy, Want
from controller.chain.journal import Owner
from controller.chain.source import Host, Source
from controller.chain.system_places import DEVICES, plain, system_directory
from controller.hypervisor.driver import Driver, Pool
from controller.hypervisor.errors import NotFound, Unsupported
from controller.reconcile.class_store import ClassFault, InForce
from controller.reconcile.distrust import is_known
from controller.reconcile.overlay_access import is_given, named_place, reserved
from controller.reconcile.pieces import in_pieces
from controller.reconcile.store import Snapshot, Store

Given = Callable[[str], tuple[str, ...]]
"""By namespace: patterns of the places that its VolumeSnapshots may name for layers."""

_SERVED = frozenset({Protocol.NBD, Protocol.ISCSI})
"""Protocols whose images are made where they are served: libvirt makes none."""


@dataclass(frozen=True)
class Misfit:
    """A VolumeSnapshot that no wish can be made of now, and why."""

    snapshot: Snapshot
    reason: Reason
    message: str
    stalled: bool


@dataclass(frozen=True)
class Unusable:
    """A place where the layer cannot go, and why."""

    reason: Reason
    message: str
    detail: str = ""
    """What is for administrators alone."""

    @property
    def placement(self) -> Placement:
        """As a wish, of which the journal tells whether its point was taken already."""
        return Placement(refused=Blocked(Why(self.reason.value), self.message, detail=self.detail))


def owner_of(snapshot: VolumeSnapshot) -> Owner:
    """The object as the journal names it."""
    return Owner(snapshot.namespace, snapshot.name, snapshot.uid)


async def wants_of(
    snapshots: Iterable[Snapshot], store: Store, driver: Driver, given: Given
) -> tuple[list[Want], list[Misfit]]:
    """Turn all VolumeSnapshots of one domain into wishes; asks libvirt only for pools that are needed."""
    wants: list[Want] = []
    misfits: list[Misfit] = []
    async for snapshot in in_pieces(snapshots):
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
        place = await _place(parsed, spec.overlay, driver, given)
        placement = place if isinstance(place, Placement) else place.placement
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
        distrusted=is_known(parsed),
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
        manual=spec.merge.approval is Approval.MANUAL,
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


async def _place(
    parsed: VolumeSnapshot, of_class: ClassOverlay | None, driver: Driver, given: Given
) -> Placement | Unusable:
    """Where the layer goes. What the object itself names must be given to its namespace; what a class says
    is the administrator's word."""
    overlay = parsed.spec.overlay
    if overlay is None:
        return await _placement(of_class, driver)
    source = None if overlay.source is None else _named(overlay.source)
    refused = _denied(overlay, source, parsed.namespace, given) or _must_be_made(overlay.source)
    return refused or _outside_the_system(overlay, await _placement(overlay, driver))


def _denied(overlay: Overlay, source: Source | None, namespace: str, given: Given) -> Unusable | None:
    directory = reserved(overlay, source)
    if directory is not None:
        return _of_the_system(named_place(overlay, source), directory)
    if is_given(overlay, source, given(namespace)):
        return None
    return Unusable(
        Reason.ACCESS_DENIED,
        f"namespace {namespace} may not put layers at {named_place(overlay, source)}: name another "
        f"place in spec.overlay, or leave it out for the class to say; or an administrator adds the place to "
        f"overlays of the rule in the Hypervisor's spec.access (where nothing is listed, nothing may be "
        f"named)",
    )


def _must_be_made(place: OverlaySource | None) -> Unusable | None:
    """Nothing is formatted where libvirt would have to make an image under a name that somebody else chose:
    it would be left behind."""
    if place is None or place.content is Content.PREPARED or _exists_by_itself(place):
        return None
    return Unusable(
        Reason.OVERLAY_UNUSABLE,
        f"spec.overlay.source {_named(place).uri} is an image that content: Format would have to make, and a "
        f"place that is named is used only if it was made beforehand: make an empty overlay there (qemu-img "
        f"create) and write content: Prepared; or name spec.overlay.directory or spec.overlay.pool, where "
        f"varve makes the image and removes it again",
    )


def _exists_by_itself(place: OverlaySource) -> bool:
    """An export, a LUN or a device, which only its server or the kernel makes."""
    return _is_device(place.path) if place.path is not None else place.protocol in _SERVED


def _outside_the_system(overlay: Overlay, place: Placement | Unusable) -> Placement | Unusable:
    """A pool may lie anywhere, which is seen when it is looked up."""
    if isinstance(place, Unusable) or overlay.pool is None or place.template is None:
        return place
    directory = system_directory(place.template.path) if place.template.type == "file" else None
    return place if directory is None else _of_the_system(f"pool:{overlay.pool}", directory)


def _of_the_system(place: str, directory: str) -> Unusable:
    return Unusable(
        Reason.ACCESS_DENIED,
        f"no layer goes to {place}, because {directory} is the hypervisor's own, whatever overlays in its "
        f"spec.access say: name another place in spec.overlay, or leave it out for the class to say",
    )


async def _placement(overlay: Overlay | ClassOverlay | None, driver: Driver) -> Placement | Unusable:
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
        return _no_pool(overlay.pool, error.message)
    template = _template(pool)
    return Placement(template) if template else _no_pool(pool.name, f"type {pool.type} cannot hold overlays")


def _no_pool(name: str, why: str) -> Unusable:
    """Whether there is a pool of this name, and what it is, is for administrators."""
    text = f"overlay.pool {name} is no pool of this hypervisor that layers can go to: name another place"
    return Unusable(Reason.OVERLAY_REQUIRED, text, detail=why)


def _template(pool: Pool) -> Source | None:
    return pool.template if pool.template is not None else _in_directory(pool.path) if pool.path else None


def _in_directory(directory: str) -> Source:
    return Source.file(posixpath.join(directory, "overlay"))


def _named(place: OverlaySource) -> Source:
    """The place as libvirt names it. What is below /dev/ is a block device."""
    if place.path is not None:
        return _block(place.path) if _is_device(place.path) else Source.file(place.path)
    hosts = [
        Host(socket=host.socket, transport="unix")
        if host.socket is not None
        else Host(name=host.name or "", port=str(host.port or ""))
        for host in place.hosts or ()
    ]
    return Source.network(str(place.protocol), place.name or "", hosts)


def _is_device(path: str) -> bool:
    return plain(path).startswith(DEVICES)


def _block(path: str) -> Source:
    return Source.from_element("block", etree.Element("source", dev=path))


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
