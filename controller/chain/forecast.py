"""The forecast: everything that will be done as things stand, not only what may begin now.

The planner looks one step ahead, because it plans anew after each. People want to see the whole way before it
is gone, whether or not it may begin; and what would follow if they deleted something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.chain.approval import MergePlan, Part, merge_plan
from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances
from controller.chain.cost import Choice
from controller.chain.desired import Want
from controller.chain.disk import Disk, Layer
from controller.chain.journal import DiskJournal, Operation, OperationKind
from controller.chain.merging import Merging
from controller.chain.observation import DiskFacts, Observation
from controller.chain.outcome import settled
from controller.chain.plan import DiskPlan, State
from controller.chain.planner import plan

_ANOTHERS = "a point that another namespace wants of this disk waits; nothing else does"


class ForeseenKind(StrEnum):
    """What a step of the forecast does."""

    TAKE = "take"
    COMMIT = "commit"
    PULL = "pull"
    COMMIT_AND_PULL = "commit-and-pull"
    REMOVE = "remove"


@dataclass(frozen=True)
class Foreseen:
    """One thing that will be done."""

    kind: ForeseenKind
    leaving: tuple[Layer, ...] = ()
    """Images that leave the chain, top to base, or are removed; of a take the layer that is frozen."""
    into: Layer | None = None
    """The image that has the content afterwards."""
    copies: int = 0
    """Upper bound of the bytes that are copied."""
    jobs: int = 0
    """Block jobs that it takes."""
    blocked: Blocked | None = None
    """What it waits for."""
    running: bool = False


@dataclass(frozen=True)
class DiskForecast:
    """One disk."""

    target: str
    steps: tuple[Foreseen, ...] = ()
    hash: str = ""
    """Names the merges on this very chain, for approval; empty when nothing is merged. It depends on the
    layers, the boundaries that go and the way they go; not on bytes, indexes or times."""
    removes: tuple[Layer, ...] = ()
    """Images whose bytes come back: an upper bound, for the layers overlap."""
    blocked: Blocked | None = None
    """Why nothing is done now although something is to be done."""
    too_long: Blocked | None = None
    """Why the machine may not start again with the chain that this disk has."""

    def to(self, namespace: str) -> DiskForecast:
        """As it is told in one namespace."""
        steps = tuple(replace(one, blocked=_to(one.blocked, namespace)) for one in self.steps)
        blocked, too_long = _to(self.blocked, namespace), _to(self.too_long, namespace)
        return replace(self, steps=steps, blocked=blocked, too_long=too_long)


def _to(blocked: Blocked | None, namespace: str) -> Blocked | None:
    return blocked.to(namespace) if blocked is not None else None


def forecast(
    observation: Observation,
    wants: Iterable[Want],
    circumstances: Circumstances,
    *,
    deleting: Collection[str] = (),
) -> tuple[DiskForecast, ...]:
    """What will be done on each disk with a VolumeSnapshot or a record, in the order of the targets. Pure.

    Arguments are those of :func:`controller.chain.planner.plan`. ``deleting`` names VolumeSnapshots
    (``namespace/name``, :attr:`Owner.label`) as if their deletion had been asked for long ago: what would
    follow from it. With ``observation.in_use_elsewhere`` None, images that somebody else uses are not known,
    and the forecast may say more than will be allowed.
    """
    wanted = [_as_if_deleted(want, circumstances) if want.owner.label in deleting else want for want in wants]
    found = plan(observation, wanted, circumstances)
    pending = {standing.want.owner for standing in found.standings if standing.state is State.PENDING}
    disks = []
    for disk in map(_of_their_own, found.disks):
        facts = observation.disks.get(disk.target)
        if facts is None or facts.chain is None or observation.is_refused:
            disks.append(DiskForecast(disk.target, blocked=disk.blocked))
            continue
        mine = tuple(sorted((w for w in wanted if w.target == disk.target), key=lambda want: want.owner))
        takes = [want for want in mine if want.owner in pending and not (want.adopt or want.suspended)]
        record = observation.journal.disk(disk.target)
        merging = Merging(observation, facts, facts.chain, record, mine, circumstances)
        disks.append(replace(_disk(merging, takes, disk), too_long=disk.too_long))
    return tuple(disks)


def _of_their_own(disk: DiskPlan) -> DiskPlan:
    """The plan of a disk in which what is against single points is told where they are wanted alone."""

    def own(blocked: Blocked | None) -> Blocked | None:
        names = {owner.namespace for owner, why in disk.refused.items() if why == blocked}
        if blocked is None or not names:
            return blocked
        told = tuple((name, blocked.to(name).message) for name in sorted(names))
        return replace(blocked, message=_ANOTHERS, own=told)

    refused = {owner: own(why) or why for owner, why in disk.refused.items()}
    return replace(disk, blocked=own(disk.blocked), untaken=own(disk.untaken), refused=refused)


def _as_if_deleted(want: Want, circumstances: Circumstances) -> Want:
    """With nothing left to settle."""
    policy = replace(want.policy, settle_seconds=0)
    return want if want.deleting else replace(want, deleted_at=circumstances.now, policy=policy)


def _disk(merging: Merging, takes: Sequence[Want], found: DiskPlan) -> DiskForecast:
    steps: list[Foreseen] = []
    operation = merging.record.operation
    if operation is not None:
        steps.append(_running(operation, merging.facts, found.blocked))
        merging = _after(operation, merging)
    chain, record = merging.chain, merging.record
    if takes:
        steps.append(_take(takes, chain, found))
    removes = [removal.layer for removal in record.removals if not removal.left]
    if removes:
        steps.append(Foreseen(ForeseenKind.REMOVE, tuple(removes)))
    merges = merge_plan(merging)
    for part in merges.parts:
        steps.append(_merge(part, chain, found))
        freed = _freed(part.choice, chain, record)
        if freed:
            steps.append(Foreseen(ForeseenKind.REMOVE, freed, blocked=steps[-1].blocked))
            removes += freed
    return DiskForecast(found.target, tuple(steps), merges.hash, tuple(removes), _said(found, merges))


def _said(found: DiskPlan, merges: MergePlan) -> Blocked | None:
    """Why nothing goes on; what only part of it waits for is said with that part."""
    if found.blocked is not None or found.step is not None or found.running is not None:
        return found.blocked
    return next((part.blocked for part in merges.parts if part.blocked), None)


def _running(operation: Operation, facts: DiskFacts, blocked: Blocked | None) -> Foreseen:
    kind = {
        OperationKind.TAKE: ForeseenKind.TAKE,
        OperationKind.COMMIT: ForeseenKind.COMMIT,
        OperationKind.ACTIVE_COMMIT: ForeseenKind.COMMIT,
        OperationKind.PULL: ForeseenKind.PULL,
    }[operation.kind]
    return Foreseen(
        kind,
        operation.merged,
        operation.kept,
        copies=facts.job.end if facts.job is not None else 0,
        jobs=0 if kind is ForeseenKind.TAKE else 1,
        blocked=blocked,
        running=True,
    )


def _after(operation: Operation, merging: Merging) -> Merging:
    """The disk as it is when the operation that runs has done what it shall."""
    chain = merging.chain
    gone = {layer.key for layer in operation.merged}
    layers = chain.layers
    if operation.kind is not OperationKind.TAKE:
        layers = tuple(layer for layer in layers if layer.key not in gone)
    elif chain.position(operation.kept.key) is None:
        layers = (operation.kept, *layers)
    after = replace(chain, layers=layers, mirror=None)
    facts = replace(merging.facts, live=after, job=None)
    return replace(merging, facts=facts, chain=after, record=settled(merging.record, operation, facts))


def _take(takes: Sequence[Want], chain: Disk, found: DiskPlan) -> Foreseen:
    reasons = [found.refused.get(want.owner) for want in takes]
    blocked = next((one for one in reasons if one), None) if all(reasons) else None
    if found.step is None:
        blocked = blocked or found.untaken or found.blocked
    return Foreseen(ForeseenKind.TAKE, chain.layers[:1], blocked=blocked)


def _merge(part: Part, chain: Disk, found: DiskPlan) -> Foreseen:
    layers = part.span.layers(chain)
    if part.choice is None:
        return Foreseen(ForeseenKind.COMMIT, layers[:-1], layers[-1], jobs=1, blocked=part.blocked)
    choice = part.choice
    leaving = tuple(layer for at, layer in enumerate(layers, part.span.top) if at != choice.kept)
    blocked = part.blocked if found.step is not None or found.running is not None else found.blocked
    if blocked is not None and blocked.why is Why.SETTLING:
        blocked = None  # it passes within moments
    return Foreseen(
        _kind(choice), leaving, chain.layers[choice.kept], choice.copies, len(choice.kinds), blocked
    )


def _kind(choice: Choice) -> ForeseenKind:
    if len(choice.kinds) > 1:
        return ForeseenKind.COMMIT_AND_PULL
    return ForeseenKind.PULL if choice.pulls else ForeseenKind.COMMIT


def _freed(choice: Choice | None, chain: Disk, record: DiskJournal) -> tuple[Layer, ...]:
    """Of the images that leave the chain those that varve made."""
    if choice is None:
        return ()
    layers = enumerate(choice.span.layers(chain), choice.span.top)
    return tuple(layer for at, layer in layers if at != choice.kept and layer.key in record.images)
