"""What people want of one domain: the VolumeSnapshots that name its disks, with the policy that applies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controller.chain.access import with_access
from controller.chain.blocked import Blocked
from controller.chain.disk import Disk
from controller.chain.journal import Owner
from controller.chain.source import Source


class Direction(StrEnum):
    """Which of two equivalent jobs a merge uses where libvirt leaves the choice."""

    CHEAPEST = "Cheapest"
    COMMIT = "Commit"
    PULL = "Pull"


@dataclass(frozen=True)
class Placement:
    """Where a new overlay goes: beside the active layer, unless ``template`` or ``target`` says otherwise."""

    template: Source | None = None
    """Any image in the wanted directory, pool or volume; the overlay goes beside it."""
    target: Source | None = None
    """The very place that the overlay goes to, made beforehand: lent, so it is given back, never removed."""
    refused: Blocked | None = None
    """Why nothing is taken there: it is not given, or cannot hold a layer. A point that was taken stays."""
    prepared: bool = False
    """``target`` holds an empty overlay already; otherwise libvirt formats it and what is there is lost."""

    def overlay(self, chain: Disk, leaf: str) -> Source | None:
        """The source of a new overlay of a chain that has layers; ``leaf`` is its name where one is made.
        None when the place cannot hold a new image."""
        if self.target is not None:
            return with_access(self.target, (layer.source for layer in chain.layers))
        return (self.template or chain.layers[0].source).beside(leaf)


@dataclass(frozen=True)
class Policy:
    """The class, as far as the planner needs it."""

    direction: Direction = Direction.CHEAPEST
    settle_seconds: int = 1
    bandwidth: int = 0
    """Bytes per second, 0 for unlimited."""
    max_layers: int = 64
    no_progress: int = 120
    """Seconds after which an active commit that does not come nearer to its end is given up."""
    deadline: int = 3600
    """Seconds after which any active commit is given up."""
    min_free: int = 0
    """Bytes that must remain free on the storage that a take or a merge grows, where that can be known."""
    manual: bool = False
    """Merges on the disk wait for the approval of the VolumeSnapshot's namespace."""
    protected: tuple[str, ...] = ()
    """Glob patterns over :attr:`Source.uri` of images that are never written to."""

    def protects(self, source: Source) -> str | None:
        """The pattern that protects this image, or None."""
        return next((pattern for pattern in self.protected if _matches(pattern, source.uri)), None)

    @staticmethod
    def strictest(policies: Iterable[Policy]) -> Policy:
        """One policy for a merge that several objects share: every protection, the longest settling, the
        lowest limits; a direction only if all who name one agree."""
        found = tuple(policies)
        if not found:
            return Policy(settle_seconds=0)
        if all(policy is found[0] for policy in found):  # one class, as nearly always
            return found[0]
        limited = [policy.bandwidth for policy in found if policy.bandwidth]
        forced = {policy.direction for policy in found} - {Direction.CHEAPEST}
        return Policy(
            direction=forced.pop() if len(forced) == 1 else Direction.CHEAPEST,
            settle_seconds=max(policy.settle_seconds for policy in found),
            bandwidth=min(limited, default=0),
            max_layers=min(policy.max_layers for policy in found),
            no_progress=min(policy.no_progress for policy in found),
            manual=any(policy.manual for policy in found),
            min_free=max(policy.min_free for policy in found),
            deadline=min(policy.deadline for policy in found),
            protected=tuple(sorted({pattern for policy in found for pattern in policy.protected})),
        )


def _matches(pattern: str, text: str) -> bool:
    """Only ``*`` is special, as in the API's other patterns: any characters, ``/`` included."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    last = rest.pop()
    if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in rest:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


@dataclass(frozen=True)
class Memory:
    """A point as the status of its VolumeSnapshot remembers it: the second witness beside the journal."""

    taken: str
    consistency: str = ""
    consistency_message: str = ""
    capacity: int = 0
    layer: str = ""
    """:attr:`Source.uri` of the image that held it."""


@dataclass(frozen=True)
class Want:
    """One VolumeSnapshot's wish for one disk."""

    owner: Owner
    target: str
    deleted_at: datetime | None = None
    """When its deletion was asked for; None while it is wanted."""
    merge: bool = True
    """deletionPolicy Delete: merge the layer away. False (Retain) leaves it, unmanaged."""
    suspended: bool = False
    freeze: bool = False
    """The guest's file systems should be frozen for the moment of the point."""
    armed: bool = True
    """Our finalizer is on it, so its deletion cannot be missed. Nothing is taken for it before."""
    memory: Memory | None = None
    """What its status remembers of the point. With a memory it is never taken again: that would be another
    moment."""
    distrusted: bool = False
    """Its status says that QEMU has opened something else at its place than was verified there."""
    adopt: str = ""
    """The layer that holds the point already, as :attr:`Source.uri` has it: nothing is taken for it."""
    policy: Policy = field(default_factory=Policy)
    placement: Placement = field(default_factory=Placement)

    @property
    def deleting(self) -> bool:
        """True once its deletion was asked for."""
        return self.deleted_at is not None
