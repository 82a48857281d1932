"""The planner: observation and wishes in, plan out. Pure; the clock is an argument.

For each disk, in this order: see an operation through that was begun; keep the record true; take what is
wanted; remove images that left their chain; merge what is not wanted any more. One step per disk and pass:
the next pass plans anew from what it finds, so a crash between any two steps needs no special case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controller.chain.adoption import adopted, refusing
from controller.chain.approval import approved
from controller.chain.circumstances import Circumstances
from controller.chain.convergence import endless
from controller.chain.desired import Policy, Want
from controller.chain.disk import Disk, Layer
from controller.chain.drift import is_early, noted
from controller.chain.explicit import is_short
from controller.chain.guards import (
    Blocked,
    Why,
    depth_guard,
    disk_guard,
    domain_guard,
    dwindling_guard,
    foreign_job_guard,
    io_error_guard,
    lent_guard,
    overlay_required,
    ownership_guard,
    pull_guard,
    room_guard,
    unflushed,
    unsettled,
)
from controller.chain.journal import DiskJournal, Operation, OperationKind
from controller.chain.merging import Merging, timestamp
from controller.chain.naming import overlay_leaf
from controller.chain.observation import DiskFacts, Observation, RunState
from controller.chain.outcome import Outcome, abandoned, outcome, settled
from controller.chain.plan import DiskPlan, Plan
from controller.chain.ranges import ranges
from controller.chain.standing import standings
from controller.chain.steps import (
    Abort,
    Discard,
    DiskOperation,
    Pivot,
    Record,
    RecordWhy,
    SpellOut,
    StartMerge,
    Step,
    Take,
)
from controller.chain.together import apart, joined
from controller.chain.upkeep import upkeep

NOT_FROZEN = "the guest's file systems were not frozen: freezing through the agent comes with a later version"

_MOST_TRIES = 8
"""After so many failures the next try to remove an image is the last: some two minutes."""


def plan(observation: Observation, wants: Iterable[Want], circumstances: Circumstances) -> Plan:
    """Plan one domain. The same arguments always give the same plan."""
    by_target: dict[str, list[Want]] = {}
    for want in sorted(wants, key=lambda want: want.owner):
        by_target.setdefault(want.target, []).append(want)
    targets = sorted({*by_target, *(disk.target for disk in observation.journal.disks)})
    disks: list[DiskPlan] = []
    slots = circumstances.merge_slots
    for target in targets:
        planner = _DiskPlanner(
            observation,
            observation.disks.get(target),
            observation.journal.disk(target),
            tuple(by_target.get(target, ())),
            replace(circumstances, merge_slots=slots),
        )
        found = refusing(planner.plan(), planner.record, planner.wants, planner.facts)
        found = apart(found, disks)
        slots -= isinstance(found.step, StartMerge)
        disks.append(found)
    return Plan(
        disks=tuple(disks),
        steps=joined(disks, split=circumstances.split_takes),
        standings=standings(observation, by_target, disks),
    )


@dataclass(frozen=True)
class _DiskPlanner:
    observation: Observation
    facts: DiskFacts | None
    record: DiskJournal
    wants: tuple[Want, ...]
    circumstances: Circumstances

    def plan(self) -> DiskPlan:
        """The first thing that applies, in the order of the module's docstring."""
        obstacle = ownership_guard(self.observation)
        if obstacle is not None:
            return self._waiting(obstacle)
        if self.facts is None or self.facts.chain is None:
            return self._without_disk()
        facts, chain = self.facts, self.facts.chain
        if self.record.operation is not None:
            return self._see_through(facts, self.record.operation)
        return self._record(facts, chain) or self._go_on(facts, chain)

    def _go_on(self, facts: DiskFacts, chain: Disk) -> DiskPlan:
        obstacle = foreign_job_guard(facts)
        if obstacle is not None:
            return self._waiting(obstacle) if self._has_work(chain) else DiskPlan(facts.target)
        return self._spell_out(facts) or self._begin(facts, chain)

    def _record(self, facts: DiskFacts, chain: Disk) -> DiskPlan | None:
        """The record as it should read, what somebody else did to the chain included."""
        at, target = self.circumstances, facts.target
        kept = adopted(upkeep(self.record, self.wants, chain), self.wants, facts)
        witnessed, adopt = at.witnessed.get(target, frozenset()), target in at.adopts_drift
        seen = noted(kept, chain, now=timestamp(at.now), adopt=adopt, witnessed=witnessed)
        due = at.judged_at.get(target, at.now)
        if seen != kept and due > at.now and is_early(kept, chain, witnessed):
            text = f"somebody has just changed the chain of disk {target}"
            return DiskPlan(target, blocked=Blocked(Why.CHAIN_UNKNOWN, text), wake_at=due)
        if seen == self.record:
            return None
        return self._do(Record(target, seen, RecordWhy.UPKEEP if seen == kept else RecordWhy.DRIFT))

    def _spell_out(self, facts: DiskFacts) -> DiskPlan | None:
        """Before anything else, because the machine may be started anew at any moment."""
        step = SpellOut(facts.target)
        due = self.circumstances.discard_holds.get(step.name, self.circumstances.now)
        if self.record.is_empty or due > self.circumstances.now or not is_short(facts):
            return None
        return None if self._domain_obstacle(facts) is not None else self._do(step)

    def _begin(self, facts: DiskFacts, chain: Disk) -> DiskPlan:
        take = self._take(facts, chain)
        if take is not None and (take.step is not None or take.wants_usage):
            return take
        rest = self._discard(facts) or self._merge(facts, chain)
        return rest if take is None else _beside(rest, take)

    # What was begun ------------------------------------------------------------------------------------

    def _see_through(self, facts: DiskFacts, operation: Operation) -> DiskPlan:
        found = outcome(operation, facts)
        if found is Outcome.DONE:
            return self._finish(facts, operation)
        if found is Outcome.UNDONE:
            left = abandoned(self.record, operation)
            return self._do(Record(facts.target, left, RecordWhy.UNDONE, finished=operation))
        if found is Outcome.READY and self._domain_obstacle(facts) is None:
            return self._do(Pivot(facts.target, operation))
        abort = self._endless(facts, operation) if found is Outcome.RUNNING else None
        if abort is not None:
            return self._do(abort)
        if found in (Outcome.RUNNING, Outcome.READY):
            return replace(self._discard(facts) or DiskPlan(facts.target), running=operation)
        return self._waiting(unsettled(found, operation, facts.target))

    def _endless(self, facts: DiskFacts, operation: Operation) -> Abort | None:
        policy = Policy.strictest(want.policy for want in self.wants if want.owner in operation.owners)
        progress = self.circumstances.progress.get(facts.target)
        why = endless(operation, facts, policy, progress, self.circumstances.now)
        if operation.kind is not OperationKind.PULL:
            why = why or dwindling_guard(self.observation, operation.kept.source, policy)
        return None if why is None else Abort(facts.target, operation, why, policy.no_progress)

    def _finish(self, facts: DiskFacts, operation: Operation) -> DiskPlan:
        """Record a finished operation; a pull is flushed first, and only then believed."""
        done = settled(self.record, operation, facts)
        flush = None
        if operation.kind is OperationKind.PULL:
            if self.observation.state is RunState.SHUTOFF or not operation.process:
                return self._waiting(unflushed(operation, facts.target))
            flush = facts.capacity
            if flush == 0:
                return self._waiting(
                    Blocked(Why.WAITING_FOR_DOMAIN, f"the size of disk {facts.target} is not known yet")
                )
        return self._do(Record(facts.target, done, RecordWhy.DONE, finished=operation, flush=flush))

    # What is wanted ------------------------------------------------------------------------------------

    def _take(self, facts: DiskFacts, chain: Disk) -> DiskPlan | None:
        pending = [want for want in self.wants if self._is_pending(want)]
        if not pending:
            return None
        obstacle = self._domain_obstacle(facts) or disk_guard(chain) or self._held(facts.target)
        if obstacle is not None:
            return self._waiting(obstacle)
        places = [(want, self._place(facts, chain, want)) for want in pending]
        able = [(want, place) for want, place in places if isinstance(place, Layer)]
        if self.observation.claims is None and any(want.placement.target for want, _ in able):
            return DiskPlan(facts.target, wants_usage=True)
        refused = {want.owner: place for want, place in places if isinstance(place, Blocked)}
        if not able:
            return replace(self._waiting(next(iter(refused.values()))), refused=refused)
        first, overlay = able[0]
        sharing = [want for want, _ in able if want.placement == first.placement]
        active = chain.layers[0]
        paused = self.observation.state is RunState.PAUSED
        operation = Operation(
            kind=OperationKind.TAKE,
            begun=timestamp(self.circumstances.now),
            owners=tuple(want.owner for want in sharing),
            kept=overlay,
            merged=(replace(active, index=None),),
            capacity=facts.capacity,
            consistency="Paused" if paused else "CrashConsistent",
            consistency_message="" if paused or not any(want.freeze for want in sharing) else NOT_FROZEN,
            lent=first.placement.target is not None,
            prepared=first.placement.prepared,
        )
        return replace(self._do(Take((DiskOperation(facts.target, operation),))), refused=refused)

    def _is_pending(self, want: Want) -> bool:
        return (
            want.armed
            and not (want.deleting or want.suspended or want.memory or want.adopt)
            and self.record.point_of(want.owner) is None
        )

    def _place(self, facts: DiskFacts, chain: Disk, want: Want) -> Layer | Blocked:
        """Where the overlay goes, or what is against it."""
        overlay = self._overlay(facts, chain, want)
        obstacle = depth_guard(chain, want.policy)
        if overlay is not None and obstacle is None:
            obstacle = room_guard(self.observation, overlay.source, want.policy)
        if overlay is not None and obstacle is None and want.placement.target is not None:
            known = self.observation.claims is not None
            obstacle = lent_guard(self.observation, overlay.source) if known else None
        return obstacle or overlay or overlay_required(chain)

    def _overlay(self, facts: DiskFacts, chain: Disk, want: Want) -> Layer | None:
        """A name that no earlier call has used and no image of this disk has; or the place that is lent."""
        used = {*chain.keys, *self.record.images, *(removal.layer.key for removal in self.record.removals)}
        attempt = 1
        while True:
            leaf = overlay_leaf(
                domain=self.observation.name, target=facts.target, owner=want.owner, attempt=attempt
            )
            source = want.placement.overlay(chain, leaf)
            if source is None or source.key not in used or want.placement.target is not None:
                return None if source is None else Layer(source, "qcow2")
            attempt += 1

    # What is not wanted any more -----------------------------------------------------------------------

    def _discard(self, facts: DiskFacts) -> DiskPlan | None:
        due = [
            removal
            for removal in self.record.removals
            if not removal.left
            and self.circumstances.discard_holds.get(removal.layer.key, self.circumstances.now)
            <= self.circumstances.now
        ]
        if not due:
            return None
        if self.observation.in_use_elsewhere is None:
            return DiskPlan(facts.target, wants_usage=True)
        tries = self.circumstances.discard_tries.get(due[0].layer.key, 0)
        return self._do(Discard(facts.target, due[0], last=tries >= _MOST_TRIES))

    def _merge(self, facts: DiskFacts, chain: Disk) -> DiskPlan:
        obstacle = (
            self._domain_obstacle(facts) or self._held(facts.target) or io_error_guard(self.observation)
        )
        merging = Merging(self.observation, facts, chain, self.record, self.wants, self.circumstances)
        return approved(merging.plan(None if obstacle is None else self._waiting(obstacle)), merging)

    # Small answers -------------------------------------------------------------------------------------

    def _without_disk(self) -> DiskPlan:
        text = f"domain {self.observation.name} has no disk {self.record.target}"
        return self._waiting(Blocked(Why.DISK_NOT_FOUND, f"{text} (virsh domblklist shows its targets)"))

    def _has_work(self, chain: Disk) -> bool:
        return bool(
            any(not removal.left for removal in self.record.removals)
            or any(self._is_pending(want) for want in self.wants)
            or ranges(chain, self.record, self.wants)
        )

    def _domain_obstacle(self, facts: DiskFacts) -> Blocked | None:
        return domain_guard(self.observation) or pull_guard(self.observation, facts.target)

    def _held(self, target: str) -> Blocked | None:
        hold = self.circumstances.holds.get(target)
        return hold.blocked if hold is not None and hold.until > self.circumstances.now else None

    def _do(self, step: Step) -> DiskPlan:
        return DiskPlan(self.record.target, step=step)

    def _waiting(self, blocked: Blocked | None) -> DiskPlan:
        hold = self.circumstances.holds.get(self.record.target)
        wake = hold.until if hold and hold.until > self.circumstances.now else None
        return DiskPlan(self.record.target, blocked=blocked, wake_at=wake)


def _beside(rest: DiskPlan, take: DiskPlan) -> DiskPlan:
    """What waits to be taken holds up nothing else: a merge may even make the room that it waits for."""
    idle = rest.step is None and not rest.wants_usage and rest.blocked is None
    times = [at for at in (rest.wake_at, take.wake_at) if at is not None]
    return replace(
        rest,
        blocked=take.blocked if idle else rest.blocked,
        untaken=take.blocked,
        refused=take.refused,
        wake_at=min(times, default=None),
    )
