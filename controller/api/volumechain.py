"""VolumeChain: what is there of one managed disk, what will happen to it, and who must agree."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from controller.api.approval import Approval
from controller.api.conditions import Condition
from controller.api.objects import Object
from controller.api.schema import (
    RULES,
    ApiModel,
    Bytes,
    ImageURI,
    Message,
    SpecModel,
    Time,
    rule,
)
from controller.api.volumesnapshot import Operation, Resolved, Source

CONTROLLER_LABELS = {"app.kubernetes.io/managed-by": "varve"}
"""On VolumeChains that the controller made, and goes on to remove when nothing needs them."""

MOST_LAYERS, MOST_OWNERS, MOST_STEPS, MOST_IMAGES = 256, 8, 64, 16
"""Entries of the lists in a status. libvirt allows 200 layers; what is left out is counted."""

PlanHash = Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{16,64})?$")]
"""Names one plan: equal for as long as the same jobs are to be done on the same chain."""

UnusedImage = Annotated[
    str,
    Field(
        min_length=2,
        max_length=1024,
        pattern=r"^(/|volume:|[a-z]+(\+[a-z]+)?://)[^\x00-\x1f\x7f]+$",
    ),
]
"""An image named in full: a path, volume:POOL/NAME, or a URI."""

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class OnDrift(StrEnum):
    """What follows from a chain that somebody else changed."""

    REPORT = "Report"
    ADOPT = "Adopt"


class VolumeChainSpec(SpecModel):
    """The policy of one disk."""

    model_config = ConfigDict(
        json_schema_extra={
            RULES: [
                rule(
                    "self.source == oldSelf.source",
                    "source is immutable, because an approval is for one disk: make a new VolumeChain",
                    field_path=".source",
                )
            ]
        }
    )

    source: Source = Field(description="The disk. Immutable.")
    approval: Approval = Field(
        default=Approval.AUTO,
        description="Auto: what is deleted is merged away. Manual: a merge waits until approvedPlan equals "
        "status.plan.hash. Points are taken without approval. Of all VolumeChains of the disk, in any "
        "namespace, and of the classes of all its VolumeSnapshots the strictest counts.",
    )
    approved_plan: PlanHash = Field(
        default="",
        description="The status.plan.hash that may be carried out. A changed chain has another hash, which "
        "voids the approval.",
    )
    on_drift: OnDrift = Field(
        default=OnDrift.REPORT,
        description="When somebody else changed the chain. Report: status.drift says what, until the chain "
        "is as before or this is set to Adopt. Adopt: the chain is taken as it is. Either way what is new is "
        "kept, and a VolumeSnapshot whose layer is gone is Lost. Adopt counts when every namespace that has "
        "a VolumeChain or points of the disk says it.",
    )
    not_in_use: tuple[UnusedImage, ...] = Field(
        default=(),
        max_length=64,
        description="Images that nobody uses, although their headers name a layer of this chain, such as the "
        "leftovers of merges by hand: a path or protocol://server/name, as the message ImageProtected prints "
        "it. They stop no merge, and may be unreadable after one. One that a definition names counts all the "
        "same. An image counts when every namespace that has a VolumeChain or points of the disk lists it.",
    )


class LayerOrigin(StrEnum):
    """Who made an image."""

    VARVE = "Varve"
    LENT = "Lent"
    OTHER = "Other"


class BoundaryState(StrEnum):
    """What becomes of a point."""

    HELD = "Held"
    LEAVING = "Leaving"
    OWNER_MISSING = "OwnerMissing"
    UNMANAGED = "Unmanaged"


class BoundaryOwner(ApiModel):
    """A VolumeSnapshot that a point belongs to."""

    namespace: str = Field(max_length=253, description="Its namespace.")
    name: str = Field(max_length=253, description="Its name.")


class ChainBoundary(ApiModel):
    """The point that a frozen layer holds together with all layers below it."""

    state: BoundaryState = Field(
        description="Held: a VolumeSnapshot wants it. Leaving: all that wanted it are being deleted. "
        "OwnerMissing: its VolumeSnapshot went without our finalizer, so it is kept; delete one that adopts "
        "the layer to merge it away. Unmanaged: varve did not take it, and keeps it.",
    )
    owners: tuple[BoundaryOwner, ...] = Field(
        default=(), max_length=MOST_OWNERS, description="The VolumeSnapshots, or the first of them."
    )
    owner_count: Count | None = Field(
        default=None, description="How many there are, when not all are listed."
    )


class ChainLayer(ApiModel):
    """One image of the chain."""

    source: ImageURI = Field(
        description="The image: a path, or protocol://server/name. spec.adopt.layer takes it as it is here."
    )
    format: str | None = Field(default=None, max_length=32, description="Its format, such as raw or qcow2.")
    index: Count | None = Field(
        default=None, description="libvirt's index of the layer, as in vda[2]; renumbered at each start."
    )
    origin: LayerOrigin = Field(
        description="Varve: made by varve, which removes it when it is merged away. Lent: made beforehand "
        "for a VolumeSnapshot. Other: made by somebody else, and never removed.",
    )
    capacity_bytes: Bytes | None = Field(default=None, description="The virtual size in bytes.")
    allocated_bytes: Bytes | None = Field(
        default=None, description="What it took on its storage when this status was written, in bytes."
    )
    boundary: ChainBoundary | None = Field(
        default=None, description="The point that it holds; absent for the active layer."
    )


class StepKind(StrEnum):
    """What a step of a plan does."""

    TAKE = "Take"
    COMMIT = "Commit"
    PULL = "Pull"
    COMMIT_AND_PULL = "CommitAndPull"
    REMOVE = "Remove"


class StepBlocked(ApiModel):
    """What a step waits for."""

    reason: str = Field(max_length=128, description="The reason, as in the conditions.")
    message: Message = Field(description="What is in the way, and what to do.")


class PlanStep(ApiModel):
    """One thing that will be done."""

    kind: StepKind = Field(
        description="Take: a new layer on top. Commit: upper layers are copied down into one. Pull: lower "
        "layers are copied up into one. CommitAndPull: both, into a layer between. Remove: images that are "
        "not needed any more are removed.",
    )
    from_: tuple[ImageURI, ...] = Field(
        default=(),
        alias="from",
        max_length=MOST_IMAGES,
        description="The images that leave the chain, or the first of them, top to base; of a Take the layer "
        "that is frozen.",
    )
    from_count: Count | None = Field(default=None, description="How many there are, when not all are listed.")
    into: ImageURI | None = Field(default=None, description="The image that has the content afterwards.")
    bytes: Bytes | None = Field(
        default=None, description="What is copied at most, as measured when this status was written."
    )
    jobs: Annotated[int, Field(ge=0, le=2)] | None = Field(
        default=None, description="How many block jobs it takes."
    )
    blocked: StepBlocked | None = Field(default=None, description="What it waits for.")


class ChainPlan(ApiModel):
    """What will be done as things stand."""

    hash: PlanHash | None = Field(
        default=None,
        description="Names the merges of this plan on this chain; absent when nothing is to be merged.",
    )
    steps: tuple[PlanStep, ...] = Field(
        default=(), max_length=MOST_STEPS, description="In the order in which they will begin."
    )
    step_count: Count | None = Field(default=None, description="How many there are, when not all are listed.")


class ChainDrift(ApiModel):
    """A change of the chain that varve did not make."""

    since: Time | None = Field(default=None, description="When it was seen first.")
    what: str = Field(
        max_length=4096,
        description="The layers that are new (+) and those that are gone (-), one a line, top to base.",
    )


class VolumeChainStatus(ApiModel):
    """What is, and what will be."""

    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready (the summary), Reconciling, Stalled, Resolved, ChainInSync.",
    )
    observed_generation: int = Field(
        default=-1, ge=-1, description="The metadata.generation that the conditions were made from."
    )
    resolved: Resolved | None = Field(default=None, description="What the source was found to be.")
    depth: Count | None = Field(default=None, description="How many layers the chain has.")
    total_bytes: Bytes | None = Field(
        default=None, description="What all layers took on their storage when this status was written."
    )
    reclaimable_bytes: Bytes | None = Field(
        default=None, description="Of these, what the images take that the plan removes: an upper bound."
    )
    layers: tuple[ChainLayer, ...] = Field(
        default=(),
        max_length=MOST_LAYERS,
        description="The images, top to base; fewer than depth if too many.",
    )
    plan: ChainPlan | None = Field(default=None, description="What will be done as things stand.")
    blocked_by: StepBlocked | None = Field(default=None, description="Why nothing of it is done now.")
    operation: Operation | None = Field(default=None, description="What runs on the disk.")
    drift: ChainDrift | None = Field(
        default=None, description="What somebody else did to the chain, until it is adopted."
    )


class VolumeChain(Object):
    """What is there of one managed disk, and what will happen. Write one yourself to set policy."""

    spec: VolumeChainSpec = Field(description="The policy of the disk.")
    status: VolumeChainStatus = Field(default=VolumeChainStatus(), description="What is, and what will be.")
