"""VolumeSnapshotClass: policy for VolumeSnapshots."""

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from controller.api.approval import Approval
from controller.api.objects import Object
from controller.api.overlay import ClassOverlay, chosen
from controller.api.schema import RULES, Bytes, ImagePattern, SpecModel, rule
from controller.api.volumesnapshot import QUIESCE_REQUIRED_MESSAGE, DeletionPolicy, Quiesce

ONE_PLACE_MESSAGE = "write at most one of directory and pool"
FREEZE_SECONDS = 10
FREEZE_TIMEOUT_MESSAGE = (
    "quiesceTimeoutSeconds is for freezing through the guest agent, which comes with a later version: "
    f"leave it out or write {FREEZE_SECONDS}"
)


class Offline(StrEnum):
    """What to do about a shut-off machine with network disks."""

    START_PAUSED = "StartPaused"
    WAIT = "Wait"


class MergeDirection(StrEnum):
    """Which way a merge copies."""

    CHEAPEST = "Cheapest"
    COMMIT = "Commit"
    PULL = "Pull"


class Convergence(SpecModel):
    """Limits of an active commit of a disk that is written faster than it is copied."""

    no_progress_seconds: int = Field(
        default=120,
        ge=1,
        le=86400,
        description="Seconds without progress after which it counts as not converging.",
    )
    deadline_seconds: int = Field(
        default=3600, ge=1, le=604800, description="Seconds after which it is given up."
    )


class Merge(SpecModel):
    """How layers are merged away."""

    direction: MergeDirection = Field(
        default=MergeDirection.CHEAPEST,
        description="Cheapest: what copies least. Commit: always down. Pull: always up where libvirt can.",
    )
    settle_seconds: int = Field(
        default=1, ge=0, le=3600, description="Deletions this close together become one job; 0: none waits."
    )
    bandwidth_bytes_per_second: Bytes = Field(default=0, description="Limit of each job; 0: unlimited.")
    max_concurrent_per_hypervisor: int = Field(
        default=4, ge=1, le=1000, description="Jobs that run at the same time on one hypervisor."
    )
    approval: Approval = Field(
        default=Approval.AUTO,
        description="Auto: what is deleted is merged away, unless a VolumeChain says Manual. Manual: merges "
        "on each disk that has a VolumeSnapshot of this class wait until spec.approvedPlan of the disk's "
        "VolumeChain, in the namespace of that VolumeSnapshot, equals its status.plan.hash, whatever the "
        "VolumeChain's own approval says.",
    )
    convergence: Convergence = Field(
        default=Convergence(),
        description="Limits of an active commit of a disk that is written faster than it is copied.",
    )


class VolumeSnapshotClassSpec(SpecModel):
    """The policy. The defaults are also what applies where there is no class at all."""

    model_config = ConfigDict(
        json_schema_extra={
            RULES: [
                rule(
                    "!has(self.quiesce) || self.quiesce != 'Required'",
                    QUIESCE_REQUIRED_MESSAGE,
                    field_path=".quiesce",
                ),
                rule(
                    f"!has(self.quiesceTimeoutSeconds) || self.quiesceTimeoutSeconds == {FREEZE_SECONDS}",
                    FREEZE_TIMEOUT_MESSAGE,
                    field_path=".quiesceTimeoutSeconds",
                ),
                rule(
                    "!has(self.overlay) || !has(self.overlay.directory) || !has(self.overlay.pool)",
                    ONE_PLACE_MESSAGE,
                    field_path=".overlay",
                ),
            ]
        }
    )

    deletion_policy: DeletionPolicy = Field(
        default=DeletionPolicy.DELETE,
        description="Delete: deleting a VolumeSnapshot merges its layer away. Retain: the layer stays.",
    )
    quiesce: Quiesce = Field(
        default=Quiesce.PREFERRED,
        description="Whether the guest's file systems are frozen through the guest agent. In this version "
        "Preferred takes a crash-consistent point and says so in status.consistencyMessage, and "
        "Required is refused.",
    )
    quiesce_timeout_seconds: int = Field(
        default=FREEZE_SECONDS,
        ge=1,
        le=300,
        description="How long a freeze may take. In this version nothing is frozen, and only 10 is accepted.",
    )
    offline: Offline = Field(
        default=Offline.START_PAUSED,
        description="Work on a shut-off machine. StartPaused: it is done, with the help of a paused QEMU "
        "where libvirt needs one. Wait: it waits until the machine runs. In this version StartPaused waits "
        "as well, and the objects say so.",
    )
    merge: Merge = Field(default=Merge(), description="How layers are merged away.")
    max_layers: int = Field(
        default=64,
        ge=2,
        le=200,
        description="Images in a chain, base and active layer included: a new point beyond waits. libvirt "
        "itself stops at 200, and some versions much earlier: status.knownFaults of the Hypervisor has the "
        "limit that holds whatever is written here.",
    )
    min_free_bytes: Bytes = Field(
        default=1073741824,
        description="Free bytes that must remain on the storage that the overlay or the commit grows, where "
        "that can be known (not of an NBD export or a LUN).",
    )
    overlay: ClassOverlay | None = Field(
        default=None,
        description="Where new layers go unless the VolumeSnapshot says: at most one of directory and pool. "
        "Needed for disks that have no place beside their image (NBD, iSCSI, block devices).",
    )
    protected_images: tuple[ImagePattern, ...] = Field(
        default=(),
        max_length=64,
        description="Images never written to, whatever is asked: patterns in which only * is special.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.overlay is not None and len(chosen(self.overlay)) > 1:
            raise ValueError(ONE_PLACE_MESSAGE)
        return self

    def not_yet(self) -> str | None:
        """Say what this version cannot do of what the policy asks, or None; the CRD refuses the same."""
        return QUIESCE_REQUIRED_MESSAGE if self.quiesce is Quiesce.REQUIRED else None


class VolumeSnapshotClass(Object):
    """Policy for VolumeSnapshots. The annotation varve.dev/is-default-class marks the default."""

    spec: VolumeSnapshotClassSpec = Field(default=VolumeSnapshotClassSpec(), description="The policy.")
