"""The journal: varve's record inside the libvirt domain, and the edits it goes through.

It says whose boundary is whose, and which operation was begun. It never says what the chain *is*: the live
chain always wins. Everything here is immutable; an edit returns a new journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from controller.chain.disk import Layer


@dataclass(frozen=True, order=True)
class Owner:
    """One VolumeSnapshot. Namespace and name survive a rebuilt cluster, the UID tells re-created objects
    of one cluster apart."""

    namespace: str
    name: str
    uid: str

    @property
    def label(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Point:
    """A managed boundary: the point in time below ``overlay``.

    The overlay identifies it because a commit does not change what lies above the merged range; a pull
    re-points it. No owners means that nobody wants it any more and it is merged away.
    """

    overlay: str
    owners: tuple[Owner, ...]
    taken: str
    """RFC 3339 time, UTC, not later than the moment of the point."""
    consistency: str
    consistency_message: str = ""
    capacity: int = 0
    """Virtual size of the disk at that moment, bytes."""
    spoiled: bool = False
    """A commit that ended without effect may have written to the image that held it. It is no use to anybody
    any more, and is merged away when nobody's deletion says otherwise."""


@dataclass(frozen=True)
class Approved:
    """A plan that somebody agreed to and that was begun: what is left of it goes on."""

    plan: str
    """The hash that was agreed to."""
    boundaries: frozenset[str]
    """Overlays of the boundaries that it still removes."""


class OperationKind(StrEnum):
    """What was begun."""

    TAKE = "take"
    COMMIT = "commit"
    ACTIVE_COMMIT = "active-commit"
    PULL = "pull"


@dataclass(frozen=True)
class Operation:
    """A step that was begun and whose outcome is not recorded yet. Written before the libvirt call."""

    kind: OperationKind
    begun: str
    owners: tuple[Owner, ...]
    kept: Layer
    """The image that holds the content afterwards: the new overlay of a take, the survivor of a merge."""
    merged: tuple[Layer, ...] = ()
    """Images that leave the chain (merge), top to base; for a take the layer that is frozen."""
    below: Layer | None = None
    """What stays below a pulled range; None when nothing does."""
    attempt: int = 1
    """Of a take: the number in the overlay's name. A name is used for one call only (ADR 2)."""
    run: str = ""
    """The run of the machine that may have got the call; see :attr:`DomainDefinition.run`. Empty in a record
    of a version that did not note it."""
    capacity: int = 0
    consistency: str = ""
    consistency_message: str = ""
    lent: bool = False
    """A take whose overlay was made beforehand and goes back to whoever lent it."""
    prepared: bool = False
    """A take whose overlay holds an empty qcow2 image already."""
    process: str = ""
    """Only in the live copy: a mark that is gone when QEMU was started anew. A pull that completed in another
    process was never flushed by us."""
    pivoting: bool = False
    """Of an active commit: QEMU was told, or was about to be told, to switch to the kept image."""
    approved: Approved | None = None
    """The plan that this merge is a part of, when somebody had to agree to it."""

    def concerns(self, owner: Owner) -> bool:
        """Whether it was begun for this object, among others."""
        return owner in self._owners

    @cached_property
    def _owners(self) -> frozenset[Owner]:
        return frozenset(self.owners)


@dataclass(frozen=True)
class Removal:
    """An image that left its chain and waits to be removed."""

    layer: Layer
    owners: tuple[Owner, ...] = ()
    """Whose deletion waits for it."""
    left: str = ""
    """Why it could not be removed. Then nobody waits for it; it stays here as the inventory of orphans."""
    since: str = ""
    """RFC 3339 time, UTC: when the operation began that took it out of its chain."""
    attempted: bool = False
    """A call named it as the new top of a disk, and was not seen to have had an effect. It may be the only
    image that holds what a guest wrote, so it goes only when it was seen to be empty (ADR 12). Otherwise a
    merge was seen done, and what the image held is in another one."""
    run: str = ""
    """The run of the machine that may have it open, by whatever node: it stays at least until that is
    over."""


@dataclass(frozen=True)
class Known:
    """The chain as varve left it, or found it last."""

    keys: tuple[str, ...]
    """Identities of the layers, active first."""
    whole: bool = True
    """Whether the last of them is the base."""
    at: str = ""
    """RFC 3339 time, UTC: when that was recorded. All that varve itself had to write to these images was
    written by then. Empty in a record of a version that did not note it."""


@dataclass(frozen=True)
class Drift:
    """What somebody else did to the chain, until somebody says that this is how it shall be."""

    since: str
    """RFC 3339 time, UTC, when it was seen first."""
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """How many names of overlays were used for an object that has no point yet (ADR 2)."""

    uid: str
    number: int


@dataclass(frozen=True)
class DiskJournal:
    """Everything recorded of one disk."""

    target: str
    points: tuple[Point, ...] = ()
    images: frozenset[str] = frozenset()
    """Identities of images that varve made and that are still in the chain. Only those are ever removed."""
    lent: frozenset[str] = frozenset()
    """Identities of overlays in the chain that were made beforehand: given back when they leave it."""
    operation: Operation | None = None
    removals: tuple[Removal, ...] = ()
    known: Known | None = None
    """None in a record of a version that did not remember it."""
    drift: Drift | None = None
    approved: Approved | None = None
    attempts: tuple[Attempt, ...] = ()
    """Names that were used for objects that have no point yet."""

    @property
    def is_empty(self) -> bool:
        """Nothing is recorded that anybody needs."""
        kept = self.points or self.operation or self.removals or self.images or self.lent or self.attempts
        return not kept

    @property
    def keys(self) -> frozenset[str]:
        """Identities of the images in the chain that the record needs."""
        return self.images | self.lent | {point.overlay for point in self.points}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Images that an operation or a removal is about. Orphans are not, because nobody needs them any
        more, except those that may hold what a guest wrote."""
        waiting = (r.layer for r in self.removals if r.attempted or not r.left)
        operation = (self.operation.kept, *self.operation.merged) if self.operation else ()
        return (*waiting, *operation)

    def point(self, overlay: str) -> Point | None:
        """The point whose overlay has this identity."""
        return next((point for point in self.points if point.overlay == overlay), None)

    def point_of(self, owner: Owner) -> Point | None:
        """The point that this object owns (a share of)."""
        return self._by_owner.get(owner)

    def attempt_of(self, owner: Owner) -> int:
        """How many names were used for this object so far."""
        return self._numbers.get(owner.uid, 0)

    def delays(self, owner: Owner) -> bool:
        """Whether this object's deletion waits for a removal."""
        return owner in self._awaiting

    @cached_property
    def _by_owner(self) -> dict[Owner, Point]:
        """A disk may have hundreds of owners, and each is asked after: the first of several points counts."""
        return {owner: point for point in reversed(self.points) for owner in point.owners}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {one.uid: one.number for one in reversed(self.attempts)}

    @cached_property
    def _awaiting(self) -> frozenset[Owner]:
        return frozenset(owner for removal in self.removals for owner in removal.owners)

    def with_points(self, points: Iterable[Point]) -> DiskJournal:
        """The same record with other points."""
        return replace(self, points=tuple(points))


@dataclass(frozen=True)
class Journal:
    """The journal of one domain."""

    cluster: str = ""
    """Identity of the cluster that wrote it; empty when there is none yet."""
    disks: tuple[DiskJournal, ...] = ()

    def disk(self, target: str) -> DiskJournal:
        """The record of this disk; an empty one when there is none."""
        return next((disk for disk in self.disks if disk.target == target), DiskJournal(target))

    def with_disk(self, record: DiskJournal) -> Journal:
        """The same journal with this disk's record replaced (dropped when it is empty)."""
        others = tuple(disk for disk in self.disks if disk.target != record.target)
        kept = others if record.is_empty else (*others, record)
        return replace(self, disks=tuple(sorted(kept, key=lambda disk: disk.target)))

    @property
    def claims(self) -> bool:
        """True when it claims something that another cluster must not touch."""
        return any(
            disk.points or disk.operation or any(not removal.left for removal in disk.removals)
            for disk in self.disks
        )

    @property
    def lasting(self) -> Journal:
        """Without the marks of a QEMU process, which must be gone when the machine is started anew: what
        belongs into the stored definition."""
        kept = self
        for disk in self.disks:
            if disk.operation is not None and disk.operation.process:
                kept = kept.with_disk(replace(disk, operation=replace(disk.operation, process="")))
        return kept

    @property
    def is_empty(self) -> bool:
        """Nothing is recorded: the metadata element can go."""
        return not self.disks
