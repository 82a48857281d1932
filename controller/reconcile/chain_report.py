"""What is told of one disk: its chain, the way ahead and what others did, as a status. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from controller.api.conditions import Fact, State, Truth, Verdict, conditions
from controller.api.reasons import Reason
from controller.api.volumechain import (
    MOST_IMAGES,
    MOST_LAYERS,
    MOST_OWNERS,
    MOST_STEPS,
    BoundaryOwner,
    BoundaryState,
    ChainBoundary,
    ChainDrift,
    ChainLayer,
    ChainPlan,
    LayerOrigin,
    PlanStep,
    StepBlocked,
    StepKind,
    VolumeChain,
    VolumeChainStatus,
)
from controller.api.volumesnapshot import Resolved
from controller.chain.blocked import Blocked
from controller.chain.disk import Disk, Layer
from controller.chain.drift import standing_drift
from controller.chain.forecast import DiskForecast, Foreseen, ForeseenKind
from controller.chain.journal import DiskJournal, Drift, Operation, Owner, Point
from controller.chain.observation import DiskFacts, Observation
from controller.reconcile.report import RESOLVED, RUNNING, needs_a_person, operation_status

_LAYER_BYTES, _STEP_BYTES, _DRIFT_LENGTH = 56 << 10, 28 << 10, 4096
"""Of the lists in a status, as JSON: an object stays far below 100 KiB, however long the names are."""

_KINDS = {
    ForeseenKind.TAKE: StepKind.TAKE,
    ForeseenKind.COMMIT: StepKind.COMMIT,
    ForeseenKind.PULL: StepKind.PULL,
    ForeseenKind.COMMIT_AND_PULL: StepKind.COMMIT_AND_PULL,
    ForeseenKind.REMOVE: StepKind.REMOVE,
}


T = TypeVar("T", ChainLayer, PlanStep)


@dataclass(frozen=True)
class Look:
    """What a pass saw of one domain and made of it."""

    observation: Observation
    forecasts: tuple[DiskForecast, ...]
    there: Mapping[Owner, bool]
    """The VolumeSnapshots of the domain, and whether each is being deleted."""
    adopted: frozenset[str] = frozenset()
    """Targets of the disks whose chain is taken as somebody else left it."""

    def forecast(self, target: str) -> DiskForecast:
        """The forecast of one disk; nothing is to be done on one that nobody wants anything of."""
        return next((one for one in self.forecasts if one.target == target), DiskForecast(target))


@dataclass(frozen=True)
class Reader:
    """For whom a status is written."""

    namespace: str
    there: Mapping[Owner, bool]
    """As of :class:`Look`."""


def chain_status(
    chain: VolumeChain,
    look: Look,
    resolved: Resolved,
    now: datetime,
    *,
    judged: Callable[[Verdict], Verdict] = lambda verdict: verdict,
) -> VolumeChainStatus:
    """The whole status of a VolumeChain whose domain was observed; ``judged`` has the last word on it."""
    target = chain.spec.source.disk
    facts = look.observation.disks.get(target)
    before = chain.status
    live = facts.chain if facts is not None else None
    if facts is None or live is None:
        text = (
            f"domain {look.observation.name} has no disk {target} (virsh domblklist shows its targets): "
            f"attach it, or delete this VolumeChain"
        )
        verdict = judged(_verdict(State.WAITING, Reason.DISK_NOT_FOUND, text))
        return _unseen(chain, verdict, resolved, now)
    record, ahead = look.observation.journal.disk(target), look.forecast(target).to(chain.namespace)
    drift = standing_drift(record, live)
    verdict = judged(_verdict_of(record.operation, ahead, drift, live))
    reader = Reader(chain.namespace, look.there)
    layers = tuple(_layer(at, live, facts, record, reader) for at in range(len(live.layers)))
    steps = tuple(_step(step) for step in ahead.steps)
    shown = _within(steps[:MOST_STEPS], _STEP_BYTES)
    return VolumeChainStatus(
        conditions=conditions(verdict, before.conditions, chain.generation, now),
        observed_generation=chain.generation,
        resolved=resolved,
        depth=len(live.layers),
        total_bytes=_bytes(facts, live.layers),
        reclaimable_bytes=_bytes(facts, ahead.removes),
        layers=_within(layers[:MOST_LAYERS], _LAYER_BYTES),
        plan=ChainPlan(
            hash=ahead.hash or None,
            steps=shown,
            step_count=len(steps) if len(steps) > len(shown) else None,
        )
        if steps
        else None,
        blocked_by=_blocked(ahead.blocked),
        operation=operation_status(record.operation, facts, before.operation, now),
        drift=_drift(drift),
    )


def other_status(chain: VolumeChain, verdict: Verdict, now: datetime) -> VolumeChainStatus:
    """The status of a VolumeChain that does not count, or whose domain is not known: it tells nothing of a
    chain, for what it knew may have changed."""
    return _unseen(chain, verdict, None, now)


def unread_status(chain: VolumeChain, verdict: Verdict, now: datetime) -> VolumeChainStatus:
    """The status of a VolumeChain whose domain could not be read now: what was known stays."""
    before = chain.status
    update = {
        "conditions": conditions(verdict, before.conditions, chain.generation, now),
        "observed_generation": chain.generation,
        "operation": None,
    }
    return before.model_copy(update=update)


def superseded(by: str) -> Verdict:
    """Another VolumeChain of the same disk counts."""
    text = f"VolumeChain {by} of the same disk counts, and this one does nothing: delete one of them"
    return _verdict(State.STALLED, Reason.SUPERSEDED, text)


def drift_text(drift: Drift) -> str:
    """The layers that are new and those that are gone, one a line."""
    lines = [f"+ {_named(key)}" for key in drift.added] + [f"- {_named(key)}" for key in drift.gone]
    text = "\n".join(lines)
    return text if len(text) <= _DRIFT_LENGTH else text[: _DRIFT_LENGTH - 1] + "…"


def _unseen(
    chain: VolumeChain, verdict: Verdict, resolved: Resolved | None, now: datetime
) -> VolumeChainStatus:
    return VolumeChainStatus(
        conditions=conditions(verdict, chain.status.conditions, chain.generation, now),
        observed_generation=chain.generation,
        resolved=resolved,
    )


def _verdict(state: State, reason: Reason, message: str, *, in_sync: Truth = Truth.UNKNOWN) -> Verdict:
    return Verdict(state, reason, message, resolved=RESOLVED, chain_in_sync=Fact(in_sync, reason, message))


def _verdict_of(operation: Operation | None, ahead: DiskForecast, drift: Drift | None, live: Disk) -> Verdict:
    blocked = ahead.blocked or ahead.too_long
    if ahead.too_long is not None and not ahead.too_long.ends:
        blocked = ahead.too_long
    if blocked is not None:
        state = State.STALLED if needs_a_person(blocked) else State.WAITING
        return _verdict(state, Reason(blocked.why.value), blocked.message, in_sync=Truth.FALSE)
    if drift is not None:
        text = (
            f"somebody else changed the chain of disk {live.target}: {drift_text(drift)}. What is new is "
            f"kept; set spec.onDrift to Adopt to take the chain as it is"
        )
        return _verdict(State.STALLED, Reason.DRIFTED, text, in_sync=Truth.FALSE)
    if operation is not None:
        reason, text = RUNNING[operation.kind]
        what = f"{text} {operation.kept.source.uri}"
        return _verdict(State.PROGRESSING, reason, what, in_sync=Truth.FALSE)
    if ahead.steps:
        text = "the plan is about to be carried out"
        return _verdict(State.PROGRESSING, Reason.PENDING, text, in_sync=Truth.FALSE)
    count = len(live.layers)
    layers = "1 layer" if count == 1 else f"{count} layers"
    return _verdict(State.IN_SYNC, Reason.IN_SYNC, f"{layers}, and nothing to do", in_sync=Truth.TRUE)


def _layer(at: int, live: Disk, facts: DiskFacts, record: DiskJournal, reader: Reader) -> ChainLayer:
    layer = live.layers[at]
    size = facts.sizes.get(layer.key)
    origin = LayerOrigin.OTHER
    if layer.key in record.images:
        origin = LayerOrigin.VARVE
    elif layer.key in record.lent:
        origin = LayerOrigin.LENT
    return ChainLayer(
        source=layer.source.uri[:4096],
        format=layer.format or None,
        index=layer.index,
        origin=origin,
        capacity_bytes=size.capacity if size else None,
        allocated_bytes=size.allocation if size else None,
        boundary=_boundary(record.point(live.layers[at - 1].key), reader) if at else None,
    )


def _boundary(point: Point | None, reader: Reader) -> ChainBoundary:
    """Whose point it is; of those of other namespaces only how many there are."""
    if point is None:
        return ChainBoundary(state=BoundaryState.UNMANAGED)
    there = reader.there
    named = [owner for owner in point.owners if owner.namespace == reader.namespace]
    owners = tuple(BoundaryOwner(namespace=one.namespace, name=one.name) for one in named[:MOST_OWNERS])
    if any(not there.get(owner, True) for owner in point.owners):
        state = BoundaryState.HELD
    elif all(owner in there for owner in point.owners):
        state = BoundaryState.LEAVING
    else:
        state = BoundaryState.OWNER_MISSING
    count = len(point.owners)
    return ChainBoundary(state=state, owners=owners, owner_count=count if count > len(owners) else None)


def _step(step: Foreseen) -> PlanStep:
    names = tuple(layer.source.uri[:4096] for layer in step.leaving)
    return PlanStep(
        kind=_KINDS[step.kind],
        from_=names[:MOST_IMAGES],  # type: ignore[call-arg]  # the alias is a keyword of Python
        from_count=len(names) if len(names) > MOST_IMAGES else None,
        into=step.into.source.uri[:4096] if step.into is not None else None,
        bytes=step.copies if step.jobs else None,
        jobs=step.jobs or None,
        blocked=_blocked(step.blocked),
    )


def _blocked(blocked: Blocked | None) -> StepBlocked | None:
    return StepBlocked(reason=blocked.why.value, message=blocked.message) if blocked is not None else None


def _bytes(facts: DiskFacts, layers: Iterable[Layer]) -> int | None:
    """What they take, when all of them were measured."""
    sizes = [facts.sizes.get(layer.key) for layer in layers]
    return sum(size.allocation for size in sizes if size) if all(sizes) else None


def _drift(drift: Drift | None) -> ChainDrift | None:
    if drift is None:
        return None
    return ChainDrift(since=datetime.fromisoformat(drift.since), what=drift_text(drift))


def _named(key: str) -> str:
    """The identity of an image for people: a local image by its path, as everywhere."""
    for prefix in ("file:", "block:", "dir:"):
        if key.startswith(prefix + "/"):
            return key.removeprefix(prefix)
    return key


def _within(items: Sequence[T], budget: int) -> tuple[T, ...]:
    """As many as fit into so many bytes of JSON."""
    kept: list[T] = []
    for item in items:
        budget -= len(json.dumps(item.to_api())) + 2
        if budget < 0:
            break
        kept.append(item)
    return tuple(kept)
