"""What would follow from a deletion, worked out here from what VolumeChain.status says.

The controller plans from a fresh look at the hypervisor; this program has only the status. So the observation
is put together again from it, the planner's own forecast is asked, and what it cannot have known is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from controller.api.volumechain import (
    BoundaryState,
    ChainLayer,
    ChainPlan,
    LayerOrigin,
    PlanStep,
    StepBlocked,
    StepKind,
    VolumeChain,
)
from controller.chain.blocked import Blocked
from controller.chain.circumstances import Circumstances
from controller.chain.desired import Policy, Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.forecast import DiskForecast, Foreseen, ForeseenKind, forecast
from controller.chain.journal import DiskJournal, Journal, Owner, Point
from controller.chain.observation import DiskFacts, Observation, RunState, Size
from controller.chain.source import Source
from controller.chain.source_uri import NotAnImage
from controller.cli.errors import CommandError
from controller.cli.planning import ChainPlanned, planned

_NOW = datetime(2000, 1, 1, tzinfo=UTC)
"""The forecast needs a clock only for waiting, of which there is none here."""

ALWAYS_UNKNOWN = (
    "whether another machine or chain uses one of these images",
    "what the guest wrote since the status was written: bytes are as of then",
)
_KINDS = {
    ForeseenKind.TAKE: StepKind.TAKE,
    ForeseenKind.COMMIT: StepKind.COMMIT,
    ForeseenKind.PULL: StepKind.PULL,
    ForeseenKind.COMMIT_AND_PULL: StepKind.COMMIT_AND_PULL,
    ForeseenKind.REMOVE: StepKind.REMOVE,
}


@dataclass(frozen=True)
class Terms:
    """How the deletion of one VolumeSnapshot would be carried out."""

    merge: bool = True
    """deletionPolicy Delete."""
    policy: Policy | None = None
    """That of its class; None when it could not be read."""


def hypothetical(
    chain: VolumeChain, deleting: Collection[str], terms: Mapping[str, Terms] | None = None
) -> ChainPlanned:
    """The plan of ``chain`` if the VolumeSnapshots ``deleting`` (``namespace/name``) were deleted now,
    besides those that are. ``terms`` by the same names.

    Raises CommandError when the status is not enough for that.
    """
    terms = terms or {}
    observation, wants = reconstructed(chain, terms)
    disks = forecast(observation, wants, Circumstances(now=_NOW, pulls_last=True), deleting=deleting)
    names = tuple(sorted(deleting))
    found = next((disk for disk in disks if disk.target == chain.spec.source.disk), None)
    unknown = tuple(_unknown(chain, wants, terms))
    return planned(
        chain,
        _plan(found) if found else None,
        blocked_by=_blocked(found.blocked) if found else None,
        deleting=names,
        unknown=unknown,
    )


def reconstructed(chain: VolumeChain, terms: Mapping[str, Terms]) -> tuple[Observation, tuple[Want, ...]]:
    """The machine and the wishes, as far as the status of ``chain`` tells. Raises CommandError."""
    status, name = chain.status, f"{chain.namespace}/{chain.name}"
    if not status.layers or status.resolved is None:
        raise CommandError(f"{name} has not been looked at yet: varve explain vvc/{chain.name} says why")
    if len(status.layers) < (status.depth or 0):
        raise CommandError(f"{name} has more layers than its status lists, so nothing can be worked out here")
    target = chain.spec.source.disk
    try:
        layers = tuple(_layer(layer) for layer in status.layers)
    except NotAnImage as error:
        raise CommandError(f"{name} has an image that this program cannot read: {error}") from error
    disk = Disk(target, "disk", layers, ChainEnd.KNOWN)
    pairs = list(zip(layers, status.layers, strict=True))
    sizes = {
        layer.key: Size(each.allocated_bytes or 0, each.capacity_bytes or 0, each.allocated_bytes or 0)
        for layer, each in pairs
    }
    wants: list[Want] = []
    points = [
        Point(above.key, tuple(_owners(below, target, terms, wants)), "", "")
        for (above, _), (_, below) in pairwise(pairs)
        if below.boundary is not None and below.boundary.state is not BoundaryState.UNMANAGED
    ]
    record = DiskJournal(
        target,
        points=tuple(points),
        images=frozenset(layer.key for layer, each in pairs if each.origin is LayerOrigin.VARVE),
        lent=frozenset(layer.key for layer, each in pairs if each.origin is LayerOrigin.LENT),
    )
    return (
        Observation(
            uuid=status.resolved.domain_uuid or "",
            name=status.resolved.domain_name or "",
            state=RunState.RUNNING,
            persistent=True,
            disks={target: DiskFacts(target, live=disk, inactive=disk, sizes=sizes)},
            journal=Journal(disks=(record,)),
        ),
        tuple(wants),
    )


def _layer(layer: ChainLayer) -> Layer:
    return Layer(Source.from_uri(layer.source), layer.format or "raw", layer.index)


def _owners(layer: ChainLayer, target: str, terms: Mapping[str, Terms], wants: list[Want]) -> Iterator[Owner]:
    """The owners of the point in ``layer``; ``wants`` gets what each of them wants."""
    boundary = layer.boundary
    if boundary is None:
        return
    for named in boundary.owners:
        owner = Owner(named.namespace, named.name, "")
        yield owner
        if boundary.state is BoundaryState.OWNER_MISSING:
            continue
        its = terms.get(owner.label, Terms())
        leaving = boundary.state is BoundaryState.LEAVING
        wants.append(
            Want(
                owner,
                target,
                deleted_at=_NOW if leaving else None,
                merge=its.merge,
                policy=its.policy or Policy(settle_seconds=0),
            )
        )
    if (boundary.owner_count or 0) > len(boundary.owners):
        yield Owner("", "(not listed)", "")  # wanted by nobody here, and so kept


def _plan(found: DiskForecast) -> ChainPlan:
    """Without a hash: an approval is for what the controller sees."""
    return ChainPlan(steps=tuple(_step(step) for step in found.steps))


def _step(step: Foreseen) -> PlanStep:
    copying = step.kind not in (ForeseenKind.TAKE, ForeseenKind.REMOVE)
    return PlanStep.model_validate(
        {
            "kind": _KINDS[step.kind],
            "from": tuple(layer.source.uri for layer in step.leaving),
            "into": step.into.source.uri if step.into else None,
            "bytes": step.copies if copying else None,
            "jobs": step.jobs if copying else None,
            "blocked": _blocked(step.blocked),
        }
    )


def _blocked(blocked: Blocked | None) -> StepBlocked | None:
    return None if blocked is None else StepBlocked(reason=blocked.why.value, message=blocked.whole)


def _unknown(chain: VolumeChain, wants: Iterable[Want], terms: Mapping[str, Terms]) -> Iterator[str]:
    yield from ALWAYS_UNKNOWN
    if any(want.owner.label not in terms or terms[want.owner.label].policy is None for want in wants):
        yield "the class's direction and protectedImages, which could not be read"
    if chain.status.operation is not None:
        yield f"how the {chain.status.operation.kind} that runs now ends: this is as if it did not run"
