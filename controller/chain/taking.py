"""Taking: which points are wanted of one disk, under which name the new layer goes where, and what is against
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

from controller.chain.blocked import Blocked
from controller.chain.circumstances import Circumstances
from controller.chain.depth import depth_guard
from controller.chain.desired import Placement, Want
from controller.chain.disk import Disk, Layer
from controller.chain.guards import lent_guard, overlay_required, room_guard, size_unknown
from controller.chain.journal import DiskJournal, Operation, OperationKind
from controller.chain.merging import timestamp
from controller.chain.naming import overlay_leaf
from controller.chain.observation import DiskFacts, Observation, RunState
from controller.chain.plan import DiskPlan
from controller.chain.ranges import ranges
from controller.chain.steps import DiskOperation, Take
from controller.chain.strangers import is_distrusted, refusals

NOT_FROZEN = "the guest's file systems were not frozen: freezing through the agent comes with a later version"


_ASKED_AGAIN = timedelta(seconds=30)
"""A pool that comes, or is started, has no event here."""


class Named(NamedTuple):
    """A new overlay, and the number in its name."""

    layer: Layer
    attempt: int


def is_pending(want: Want, record: DiskJournal) -> bool:
    """A point is wanted and was never taken."""
    return (
        want.armed
        and not (want.deleting or want.suspended or want.memory or want.adopt)
        and record.point_of(want.owner) is None
    )


def unplaced(
    found: DiskPlan, record: DiskJournal, wants: Iterable[Want], circumstances: Circumstances
) -> DiskPlan:
    """The plan of the disk with what is against the places that single wishes name, whatever else goes on."""
    listed = list(wants)
    refused = {
        want.owner: want.placement.refused
        for want in listed
        if want.placement.refused is not None and is_pending(want, record)
    }
    wake = [found.wake_at] if found.wake_at else []
    if refused:
        wake.append(circumstances.now + _ASKED_AGAIN)
    distrusted = refusals(record, listed, circumstances.distrusted)
    return replace(found, refused={**found.refused, **distrusted, **refused}, wake_at=min(wake, default=None))


@dataclass(frozen=True)
class Taking:
    """One disk with a chain and no operation."""

    observation: Observation
    facts: DiskFacts
    chain: Disk
    record: DiskJournal
    wants: tuple[Want, ...]
    circumstances: Circumstances

    @property
    def pending(self) -> list[Want]:
        """The points to take."""
        distrusted = self.circumstances.distrusted
        return [
            want
            for want in self.wants
            if is_pending(want, self.record)
            and want.placement.refused is None
            and not is_distrusted(want, self.record, distrusted)
        ]

    def plan(self, waiting: Callable[[Blocked | None], DiskPlan]) -> DiskPlan:
        """The take of all that can share one layer; ``waiting`` makes the answer when none may begin now."""
        places = [(want, self._place(want)) for want in self.pending]
        able = [(want, place) for want, place in places if isinstance(place, Named)]
        if self.observation.claims is None and any(want.placement.target for want, _ in able):
            return DiskPlan(self.facts.target, wants_usage=True)
        refused = {want.owner: place for want, place in places if isinstance(place, Blocked)}
        if not able:
            found = replace(waiting(next(iter(refused.values()))), refused=refused)
            holds = [hold.until for owner in refused if (hold := self.circumstances.held([owner]))]
            return replace(
                found, wake_at=min([*holds, *([found.wake_at] if found.wake_at else [])], default=None)
            )
        # Whose take has failed before takes last and alone: what is the matter may be his place or his name.
        # And a place that an object names may fail where one beside the image does not.
        able.sort(key=lambda one: (self._has_failed(one[0]), one[0].placement != Placement()))
        first, named = able[0]
        sharing = [
            want
            for want, _ in able
            if want.placement == first.placement and self._has_failed(want) is self._has_failed(first)
        ]
        begun = DiskOperation(self.facts.target, self._operation(sharing, named))
        return DiskPlan(self.facts.target, step=Take((begun,)), refused=refused)

    def _has_failed(self, want: Want) -> bool:
        return want.owner in self.circumstances.holds

    def _operation(self, sharing: list[Want], named: Named) -> Operation:
        first, paused = sharing[0], self.observation.state is RunState.PAUSED
        return Operation(
            kind=OperationKind.TAKE,
            begun=timestamp(self.circumstances.now),
            owners=tuple(want.owner for want in sharing),
            kept=named.layer,
            merged=(self.chain.layers[0].lasting,),
            attempt=named.attempt,
            run=self.facts.run,
            capacity=self.facts.capacity,
            consistency="Paused" if paused else "CrashConsistent",
            consistency_message="" if paused or not any(want.freeze for want in sharing) else NOT_FROZEN,
            lent=first.placement.target is not None,
            prepared=first.placement.prepared,
        )

    def _place(self, want: Want) -> Named | Blocked:
        """Where the overlay goes, or what is against it."""
        if (hold := self.circumstances.held([want.owner])) is not None:
            return hold.blocked
        facts, chain, gate = self.facts, self.chain, self.circumstances.gate
        named = self._overlay(want)
        overlay = None if named is None else named.layer
        obstacle = depth_guard(facts, chain, want.policy, gate, going=self._going)
        if overlay is not None and obstacle is None:
            obstacle = room_guard(self.observation, overlay.source, want.policy)
        if want.placement.prepared and not facts.capacity and obstacle is None:
            obstacle = size_unknown(chain.layers[0].source)  # what was prepared must have that very size
        if overlay is not None and obstacle is None and want.placement.target is not None:
            known = self.observation.claims is not None
            obstacle = lent_guard(self.observation, overlay.source) if known else None
        return obstacle or named or overlay_required(chain)

    @cached_property
    def _going(self) -> int:
        """How many layers are about to go."""
        return sum(span.bottom - span.top for span in ranges(self.chain, self.record, self.wants))

    @cached_property
    def _used(self) -> frozenset[str]:
        """Identities of images that no new layer may have."""
        removals = (removal.layer.key for removal in self.record.removals)
        return frozenset((*self.chain.keys, *self.record.images, *removals))

    def _overlay(self, want: Want) -> Named | None:
        """A name that no earlier call has used and no image of this disk has; or the place that is lent."""
        attempt = self.record.attempt_of(want.owner) + 1
        name, target = self.observation.name, self.facts.target
        while True:
            leaf = overlay_leaf(domain=name, target=target, owner=want.owner, attempt=attempt)
            source = want.placement.overlay(self.chain, leaf)
            if source is None or source.key not in self._used or want.placement.target is not None:
                return None if source is None else Named(Layer(source, "qcow2"), attempt)
            attempt += 1
