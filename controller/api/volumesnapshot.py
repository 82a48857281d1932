"""VolumeSnapshot: one wanted point of one disk."""

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from controller.api.conditions import Condition
from controller.api.objects import Object
from controller.api.overlay import Overlay, chosen
from controller.api.schema import (
    RULES,
    ApiModel,
    Bytes,
    DiskTarget,
    DomainName,
    DomainUUID,
    ImageURI,
    Message,
    ObjectName,
    SpecModel,
    Time,
    rule,
)


class DeletionPolicy(StrEnum):
    """What deleting the object does."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Quiesce(StrEnum):
    """Whether the guest's file systems are frozen for the moment of the point."""

    NEVER = "Never"
    PREFERRED = "Preferred"
    REQUIRED = "Required"


class Consistency(StrEnum):
    """What a point is worth to a guest that is started from it."""

    FROZEN = "Frozen"
    PAUSED = "Paused"
    OFFLINE = "Offline"
    CRASH_CONSISTENT = "CrashConsistent"


class OperationKind(StrEnum):
    """What runs on the disk for this object."""

    TAKE = "Take"
    COMMIT = "Commit"
    PIVOT = "Pivot"
    PULL = "Pull"
    FLUSH = "Flush"
    REMOVE = "Remove"


QUIESCE_REQUIRED_MESSAGE = (
    "quiesce: Required needs freezing through the guest agent, which comes with a later version: "
    "write Preferred or Never"
)
ONE_DOMAIN_MESSAGE = "write exactly one of domain and domainUUID"
ONE_PLACE_MESSAGE = "write at most one of directory, pool and source"

_SOURCE_IMMUTABLE = rule(
    "self.source == oldSelf.source",
    "source is immutable, because another disk would be another point: make a new VolumeSnapshot",
    field_path=".source",
)
_ADOPT_IMMUTABLE = rule(
    "has(self.adopt) == has(oldSelf.adopt) && (!has(self.adopt) || self.adopt == oldSelf.adopt)",
    "adopt is immutable and cannot be added or removed later: make a new VolumeSnapshot",
)
_OVERLAY_IMMUTABLE = rule(
    "!has(oldSelf.status) || !has(oldSelf.status.creationTime)"
    " || has(self.spec.overlay) == has(oldSelf.spec.overlay)"
    " && (!has(self.spec.overlay) || self.spec.overlay == oldSelf.spec.overlay)",
    "spec.overlay is immutable once the point is taken: make a new VolumeSnapshot",
)


class Source(SpecModel):
    """The disk of which a point is wanted."""

    model_config = ConfigDict(
        json_schema_extra={RULES: [rule("has(self.domain) != has(self.domainUUID)", ONE_DOMAIN_MESSAGE)]}
    )

    domain: DomainName | None = Field(
        default=None,
        description="The domain's name, as virsh list prints it. Exactly one of domain and domainUUID.",
    )
    domain_uuid: DomainUUID | None = Field(
        default=None,
        description="The domain's UUID, as virsh domuuid prints it. Exactly one of domain and domainUUID.",
    )
    disk: DiskTarget = Field(description="The target device, as in the domain's XML, such as vda.")
    hypervisor: ObjectName | None = Field(
        default=None,
        description="The Hypervisor; only needed where the domain's name is not unique over all hypervisors.",
    )

    @model_validator(mode="after")
    def _one_domain(self) -> Self:
        if (self.domain is None) == (self.domain_uuid is None):
            raise ValueError(ONE_DOMAIN_MESSAGE)
        return self


class Adopt(SpecModel):
    """A boundary that is in the chain already."""

    layer: ImageURI = Field(
        min_length=1, description="The frozen layer, as status.layers of the VolumeChain prints it."
    )


class VolumeSnapshotSpec(SpecModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            RULES: [
                _SOURCE_IMMUTABLE,
                _ADOPT_IMMUTABLE,
                rule(
                    "!has(self.quiesce) || self.quiesce != 'Required'",
                    QUIESCE_REQUIRED_MESSAGE,
                    field_path=".quiesce",
                ),
                rule(
                    "!has(self.overlay) || [has(self.overlay.directory), has(self.overlay.pool),"
                    " has(self.overlay.source)].filter(set, set).size() <= 1",
                    ONE_PLACE_MESSAGE,
                    field_path=".overlay",
                ),
            ]
        }
    )

    source: Source = Field(description="The disk of which a point is wanted. Immutable.")
    adopt: Adopt | None = Field(
        default=None,
        description="Bind to a layer that is in the chain already, instead of taking a new point. Immutable. "
        "When it was made is not known, so status.creationTime stays absent.",
    )
    volume_snapshot_class_name: ObjectName | None = Field(
        default=None,
        description="The policy; absent: the class that is marked as the default, or the built-in values.",
    )
    deletion_policy: DeletionPolicy | None = Field(
        default=None,
        description="Delete: deleting the object merges the layer away. Retain: the layer stays. "
        "Absent: as the class.",
    )
    quiesce: Quiesce | None = Field(
        default=None,
        description="Whether the guest's file systems are frozen through the guest agent. Absent: as the "
        "class. In this version Preferred takes a crash-consistent point and says so in "
        "status.consistencyMessage, and Required is refused.",
    )
    overlay: Overlay | None = Field(
        default=None,
        description="Where the new layer goes: at most one of directory, pool and source. Absent: as the "
        "class, or beside the active layer, on the same server. Immutable once taken.",
    )
    suspend: bool = Field(
        default=False, description="true: the controller leaves this object and its layer alone."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.overlay is not None and len(chosen(self.overlay)) > 1:
            raise ValueError(ONE_PLACE_MESSAGE)
        return self

    def not_yet(self) -> str | None:
        """Say what this version cannot do of what the spec asks, or None.

        The CRD refuses the same; this is for a controller that is older than the CRD.
        """
        if self.quiesce is Quiesce.REQUIRED:
            return QUIESCE_REQUIRED_MESSAGE
        return None


class Resolved(ApiModel):
    """What the source was found to be: the fence against a re-created machine of the same name."""

    hypervisor: ObjectName | None = Field(default=None, description="The Hypervisor object.")
    domain_name: str | None = Field(default=None, max_length=253, description="The domain's name.")
    domain_uuid: DomainUUID | None = Field(default=None, description="The domain's UUID.")
    disk: DiskTarget | None = Field(default=None, description="The disk's target device.")


class Layer(ApiModel):
    """The image that holds the point now."""

    source: ImageURI | None = Field(default=None, description="The image: a path, or protocol://server/name.")
    format: str | None = Field(
        default=None, max_length=32, description="The image's format, such as raw or qcow2."
    )
    index: int | None = Field(
        default=None,
        ge=0,
        description="libvirt's index of the layer, as in vda[2]; renumbered at each start.",
    )
    capacity_bytes: Bytes | None = Field(default=None, description="The virtual size in bytes.")
    allocated_bytes: Bytes | None = Field(default=None, description="What it takes on its storage, in bytes.")


class Operation(ApiModel):
    """What runs on the disk for this object."""

    kind: OperationKind = Field(description="What is being done.")
    started_at: Time | None = Field(default=None, description="When it began.")
    current_bytes: Bytes | None = Field(default=None, description="Bytes done.")
    total_bytes: Bytes | None = Field(default=None, description="Bytes to do.")
    percent: int | None = Field(default=None, ge=0, le=100, description="Part done, in percent.")
    eta_seconds: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Seconds left, as far as is known."
    )


class SnapshotError(ApiModel):
    """The last error, until the object is in sync again."""

    time: Time | None = Field(default=None, description="When it happened first.")
    reason: str | None = Field(default=None, max_length=128, description="The reason, as in the conditions.")
    message: Message | None = Field(default=None, description="What happened.")


class VolumeSnapshotStatus(ApiModel):
    """What is."""

    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready (the summary), Reconciling, Stalled, Resolved, ChainInSync.",
    )
    observed_generation: int = Field(
        default=-1, ge=-1, description="The metadata.generation that the conditions were made from."
    )
    ready_to_use: bool | None = Field(
        default=None,
        description="Whether the point exists and can be read. A merge below sets it false for good.",
    )
    creation_time: Time | None = Field(
        default=None, description="The moment of the point; absent when it is not known (adopt)."
    )
    restore_size: str | None = Field(
        default=None,
        max_length=32,
        pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|Pi|Ei)?$",
        description="The disk's virtual size at the point, as an exact quantity.",
    )
    consistency: Consistency | None = Field(default=None, description="What the point is worth to a guest.")
    consistency_message: Message | None = Field(
        default=None, description="Why the consistency is not better."
    )
    resolved: Resolved | None = Field(default=None, description="What the source was found to be.")
    layer: Layer | None = Field(default=None, description="The image that holds the point now.")
    operation: Operation | None = Field(default=None, description="What runs on the disk for this object.")
    error: SnapshotError | None = Field(
        default=None, description="The last error, until the object is in sync again."
    )


class VolumeSnapshot(Object):
    """One wanted point of one disk of a libvirt domain. Not CSI's: write volumesnapshots.varve.dev."""

    model_config = ConfigDict(json_schema_extra={RULES: [_OVERLAY_IMMUTABLE]})

    spec: VolumeSnapshotSpec = Field(description="What is wanted.")
    status: VolumeSnapshotStatus = Field(default=VolumeSnapshotStatus(), description="What is.")
