"""The plan: what to do now, what stands in the way, and where each VolumeSnapshot stands. Data, not code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controller.chain.blocked import Blocked
from controller.chain.desired import Want
from controller.chain.disk import Layer
from controller.chain.journal import Operation, Owner, Point
from controller.chain.steps import Step


class State(StrEnum):
    """Where one wanted (or unwanted) point stands."""

    PENDING = "pending"
    """Not taken yet."""
    TAKING = "taking"
    HELD = "held"
    """The point is in the chain and can be read back."""
    LOST = "lost"
    """The point was there and was taken away by somebody else."""
    UNKNOWN = "unknown"
    """The chain is not known far enough to tell."""
    LEAVING = "leaving"
    """Being deleted; its boundary is still in the chain."""
    MERGING = "merging"
    """Being deleted; the job that removes its boundary was begun."""
    REMOVING = "removing"
    """Merged; an image that is not needed any more is still there."""
    GONE = "gone"
    """Being deleted, and nothing of it is left: the object may go."""


@dataclass(frozen=True)
class Standing:
    """The state of one VolumeSnapshot, with the facts that a report needs."""

    want: Want
    state: State
    point: Point | None = None
    frozen: Layer | None = None
    """The image that holds the point now."""
    operation: Operation | None = None
    blocked: Blocked | None = None


@dataclass(frozen=True)
class DiskPlan:
    """One disk: at most one step now, or what it waits for."""

    target: str
    step: Step | None = None
    blocked: Blocked | None = None
    """Why nothing is done although something is wanted."""
    untaken: Blocked | None = None
    """Why what is wanted is not taken, while something else goes on."""
    refused: Mapping[Owner, Blocked] = field(default_factory=dict)
    """What is against single points that are wanted: their own place, their own policy."""
    staying: Mapping[Owner, Blocked] = field(default_factory=dict)
    """What is against merging away single points that nobody wants, while others may go."""
    wake_at: datetime | None = None
    """When to look again although nothing happened."""
    running: Operation | None = None
    """The operation whose job runs now."""
    wants_usage: bool = False
    """A merge or removal is due and needs to know who else uses the images."""
    wants_written: bool = False
    """It must be known when images were written to last, to judge what somebody else did."""
    wants_opened: bool = False
    """What became of a take needs to be asked of QEMU itself."""
    merging: bool = False
    """It is a merge, and needs to know what libvirt keeps of the images as well."""
    too_long: Blocked | None = None
    """Why the machine may not start again with the chain that this disk has."""
    spare: int = 0
    """Bytes that such a merge has to leave free; unless 0, it needs to know how much there is."""

    def common(self, blocked: Blocked | None) -> Blocked | None:
        """``blocked``, unless it is what is against single points only: that is told to their owners."""
        single = (*self.refused.values(), *self.staying.values())
        return None if blocked in single else blocked


@dataclass(frozen=True)
class Plan:
    """One domain."""

    disks: tuple[DiskPlan, ...]
    steps: tuple[Step, ...]
    """Steps to do now, at most one per disk."""
    standings: tuple[Standing, ...]

    @property
    def wake_at(self) -> datetime | None:
        """The earliest time at which a waiting disk should be looked at again."""
        return min((disk.wake_at for disk in self.disks if disk.wake_at), default=None)

    @property
    def wants_usage(self) -> bool:
        """True when planning again with the images in use elsewhere would get further."""
        return any(disk.wants_usage for disk in self.disks)

    @property
    def wants_written(self) -> frozenset[str]:
        """Disks of which it must be read when their images were written to last."""
        return frozenset(disk.target for disk in self.disks if disk.wants_written)

    @property
    def wants_opened(self) -> frozenset[str]:
        """Targets of the disks of which QEMU must be asked what it has open."""
        return frozenset(disk.target for disk in self.disks if disk.wants_opened)

    @property
    def merging(self) -> bool:
        """True when a merge is due, and needs to know what libvirt keeps of the images."""
        return any(disk.merging for disk in self.disks)

    @property
    def spare(self) -> dict[str, int]:
        """Bytes that due merges have to leave free, by the disk's target."""
        return {disk.target: disk.spare for disk in self.disks if disk.spare}

    def disk(self, target: str) -> DiskPlan | None:
        """The plan of one disk."""
        return next((disk for disk in self.disks if disk.target == target), None)
