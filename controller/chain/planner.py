"""The planner: observation and wishes in, plan out. Pure; the clock is an argument.

For each disk, in this order: see an operation through that was begun; keep the record true; take what is
wanted; remove images that left their chain; merge what is not wanted any more. One step per disk and pass:
the next pass plans anew from what it finds, so a crash between any two steps needs no special case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from controller.chain.adoption import adopted, refusing
from controller.chain.approval import approved
from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances
from controller.chain.convergence import endless
from controller.chain.depth import too_long
from controller.chain.desired import Policy, Want
from controller.chain.disk import Disk
from controller.chain.drift import is_early, noted
from controller.chain.evidence import evidence, may_tell
from controller.chain.explicit import is_short
from controller.chain.guards import (
    definition_guard,
    disk_guard,
    domain_guard,
    dwindling_guard,
    foreign_job_guard,
    io_error_guard,
    out_of_step,
    ownership_guard,
    pull_guard,
    size_unknown,
    unflushed,
    unsettled,
)
from controller.chain.journal import DiskJournal, Operation, OperationKind, Owner, Removal
from controller.chain.merging import Merging, timestamp
from controller.chain.moved import following
from controller.chain.observation import DiskFacts, Observation, RunState
from controller.chain.opened import Opened
from controller.chain.outcome import Outcome, abandoned, asks_qemu, outcome, real_chain, settled
from controller.chain.plan import DiskPlan, Plan
from controller.chain.ranges import ranges
from controller.chain.standing import standings
from controller.chain.steps import (
    Abort,
    Discard,
    Pivot,
    Record,
    RecordWhy,
    SpellOut,
    StartMerge,
    Step,
)
from controller.chain.strangers import given_up, is_strange, stranger
from controller.chain.taking import Taking, is_pending, unplaced
from controller.chain.together import apart, joined
from controller.chain.upkeep import upkeep


def plan(observation: Observation, wants: Iterable[Want], circumstances: Circumstances) -> Plan:
    """Plan one domain. The same arguments always give the same plan."""
    by_target: dict[str, list[Want]] = {}
    for want in sorted(wants, key=lambda want: want.owner):
        by_target.setdefault(want.target, []).append(want)
    recorded = {disk.target for disk in observation.journal.disks}
    targets = sorted({*by_target, *recorded, *observation.behind})
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
        found = unplaced(apart(found, disks), planner.record, planner.wants, circumstances)
        found = replace(found, too_long=planner.too_long())
        slots -= isinstance(found.step, StartMerge)
        disks.append(found)
    return Plan(
        disks=tuple(disks),
        steps=joined(disks, split=circumstances.split_takes, failed=circumstances.holds.keys()),
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
        elsewhere = following(
            self.record, chain, agreed=self.record.target in self.circumstances.adopts_drift
        )
        if elsewhere is not None:
            return elsewhere
        if self.record.operation is not None:
            return self._see_through(facts, self.record.operation)
        return self._record(facts, chain) or self._go_on(facts, chain)

    def too_long(self) -> Blocked | None:
        """What is the matter with the chain as it is, whatever is wanted."""
        if self.facts is None or ownership_guard(self.observation) is not None:
            return None
        return too_long(self.observation, self.facts, self.record, self.wants, self.circumstances.gate)

    def _go_on(self, facts: DiskFacts, chain: Disk) -> DiskPlan:
        obstacle = foreign_job_guard(facts)
        if obstacle is not None:
            return self._waiting(obstacle) if self._has_work(chain) else DiskPlan(facts.target)
        return self._spell_out(facts) or self._begin(facts, chain)

    def _record(self, facts: DiskFacts, chain: Disk) -> DiskPlan | None:
        """The record as it should read, what somebody else did to the chain included."""
        at, target = self.circumstances, facts.target
        witnessed, adopt = at.witnessed.get(target, frozenset()), target in at.adopts_drift
        live, now = facts.live is not None, timestamp(at.now)
        kept = upkeep(self.record, self.wants, chain, now=now, merged=live and bool(witnessed))
        kept = adopted(kept, self.wants, facts)
        seen = noted(kept, chain, now=now, adopt=adopt, witnessed=witnessed, running=live)
        due = at.judged_at.get(target, at.now)
        if seen != kept and is_early(kept, chain, witnessed):
            if due > at.now:
                text = f"somebody has just changed the chain of disk {target}"
                return DiskPlan(target, blocked=Blocked(Why.CHAIN_UNKNOWN, text), wake_at=due)
            if facts.written is None and may_tell(kept, chain):
                return DiskPlan(target, wants_written=True)
            told = evidence(kept, chain, facts.written or {})
            seen = noted(kept, chain, now=now, adopt=adopt, witnessed=told, running=live)
        behind = target in self.observation.behind and not is_short(facts)  # which is mended with the chain
        if seen == self.record and not behind:
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
        if any(is_strange(point, self.record) for point in self.record.points):
            undoing = self._merge(facts, chain)  # QEMU has something open that it should not have
            if undoing.step is not None or undoing.wants_usage:
                return undoing
        take = self._take(facts, chain)
        if take is not None and (take.step is not None or take.wants_usage or take.wants_opened):
            return take
        rest = self._discard(facts) or self._merge(facts, chain)
        return rest if take is None else _beside(rest, take)

    # What was begun ------------------------------------------------------------------------------------

    def _see_through(self, facts: DiskFacts, operation: Operation) -> DiskPlan:
        found = outcome(operation, facts)
        if asks_qemu(operation, facts, found):
            return DiskPlan(facts.target, wants_opened=True)
        match found:
            case Outcome.DONE:
                return self._verify(facts, operation) or self._finish(facts, operation)
            case Outcome.UNDONE:
                left = abandoned(self.record, operation, facts)
                return self._do(Record(facts.target, left, RecordWhy.UNDONE, finished=operation))
            case Outcome.HALF | Outcome.OUT_OF_STEP:
                return self._mend(facts, operation, found)
            case Outcome.RUNNING | Outcome.READY:
                return self._watch(facts, operation, found)
            case Outcome.DIVERGED | Outcome.UNKNOWN | Outcome.LOST_TRACK:
                return self._waiting(unsettled(found, operation, self.observation.name, facts.target))
            case _:
                assert_never(found)

    def _watch(self, facts: DiskFacts, operation: Operation, found: Outcome) -> DiskPlan:
        """A job that runs: pivot it when it is ready, end it when it does not come to its end."""
        if found is Outcome.READY and self._domain_obstacle(facts) is None:
            return self._do(Pivot(facts.target, operation))
        # libvirtd dies of being told to abort a job that it shows no mirror of (measured, 9.0).
        mirrored = operation.kind is not OperationKind.ACTIVE_COMMIT or (facts.live and facts.live.mirror)
        abort = self._endless(facts, operation) if found is Outcome.RUNNING and mirrored else None
        if abort is not None:
            return self._do(abort)
        return replace(self._discard(facts) or DiskPlan(facts.target), running=operation)

    def _mend(self, facts: DiskFacts, operation: Operation, found: Outcome) -> DiskPlan:
        """Make the stored definition name what the machine really runs on, so that its next start loses
        nothing. libvirt's own view of a running machine cannot be mended: that takes a stop and a start."""
        blocked = unsettled(found, operation, self.observation.name, facts.target)
        if found is Outcome.OUT_OF_STEP and operation.kind is OperationKind.PULL:
            # Not flushed yet. The definition of before is right as long as the lower images are there.
            return self._waiting(blocked)
        chain = real_chain(operation, facts)
        leaving = (operation.kept, *operation.merged)
        return self._store(facts, SpellOut(facts.target, chain, leaving=leaving), blocked)

    def _store(self, facts: DiskFacts, step: SpellOut, blocked: Blocked) -> DiskPlan:
        """Write ``step.chain`` into the stored definition, unless it is there already."""
        due = self.circumstances.discard_holds.get(step.name, self.circumstances.now)
        wanted = tuple(layer.key for layer in step.chain)
        stored = facts.inactive is not None and facts.inactive.keys[: len(wanted)] == wanted
        if stored or not wanted or facts.inactive is None or self.observation.domain_job:
            return self._waiting(blocked)
        if due > self.circumstances.now:
            return replace(self._waiting(blocked), wake_at=due)
        return replace(self._do(step), blocked=blocked)

    def _endless(self, facts: DiskFacts, operation: Operation) -> Abort | None:
        policy = Policy.strictest(want.policy for want in self.wants if operation.concerns(want.owner))
        progress = self.circumstances.progress.get(facts.target)
        why = endless(operation, facts, policy, progress, self.circumstances.now)
        if operation.kind is not OperationKind.PULL:
            why = why or dwindling_guard(self.observation, operation.kept.source, policy)
        return None if why is None else Abort(facts.target, operation, why, policy.no_progress)

    def _verify(self, facts: DiskFacts, operation: Operation) -> DiskPlan | None:
        """What QEMU opened at a place that was lent counts, not what was seen there before."""
        if not operation.lent:
            return None
        if facts.opened is None:
            obstacle = self._domain_obstacle(facts)
            return self._waiting(obstacle) if obstacle else DiskPlan(facts.target, wants_opened=True)
        found = stranger(operation, facts)
        if found is None:
            return None
        record = given_up(self.record, operation, facts)
        return self._do(Record(facts.target, record, RecordWhy.STRANGE, finished=operation, note=found))

    def _finish(self, facts: DiskFacts, operation: Operation) -> DiskPlan:
        """Record a finished operation; a pull is flushed first, and only then believed."""
        done = settled(self.record, operation, facts)
        flush = None
        if operation.kind is OperationKind.PULL:
            if self.observation.state is RunState.SHUTOFF or not operation.process:
                return self._waiting(unflushed(operation, facts.target))
            flush = facts.capacity
            if flush == 0:
                return self._waiting(size_unknown(operation.kept.source))
        return self._do(Record(facts.target, done, RecordWhy.DONE, finished=operation, flush=flush))

    # What is wanted ------------------------------------------------------------------------------------

    def _take(self, facts: DiskFacts, chain: Disk) -> DiskPlan | None:
        taking = Taking(self.observation, facts, chain, self.record, self.wants, self.circumstances)
        if not taking.pending:
            return None
        obstacle = (
            self._domain_obstacle(facts)
            or disk_guard(chain)
            or definition_guard(self.observation, facts)
            or self._held(facts.target)
        )
        if obstacle is not None:
            return self._waiting(obstacle)
        return self._suspect(facts, chain) or taking.plan(self._waiting)

    def _suspect(self, facts: DiskFacts, chain: Disk) -> DiskPlan | None:
        """A call has failed as calls fail when libvirt and QEMU do not agree: ask QEMU before the next."""
        if not self._was_out_of_step(facts.target):
            return None
        if facts.opened is None:
            return DiskPlan(facts.target, wants_opened=True)
        if facts.opened.differs_from(chain):
            return self._out_of_step(facts, chain, facts.opened)
        if facts.opened.lacks_some(chain):
            return self._waiting(out_of_step(self.observation.name, facts.target, ""))
        return None

    def _was_out_of_step(self, target: str) -> bool:
        """A call has failed in the way in which calls fail when libvirt and QEMU do not agree."""
        concerned: tuple[Owner | str, ...] = (target, *(want.owner for want in self.wants))
        holds = [self.circumstances.holds[one] for one in concerned if one in self.circumstances.holds]
        return any(hold.blocked.why is Why.OUT_OF_STEP for hold in holds)

    def _out_of_step(self, facts: DiskFacts, chain: Disk, opened: Opened) -> DiskPlan:
        """QEMU writes to a layer that no operation of ours explains, such as that of somebody's own
        snapshot."""
        blocked = out_of_step(self.observation.name, facts.target, opened.chain[0].name)
        top = opened.extra_top(chain)
        if top is None:
            return self._waiting(blocked)
        return self._store(facts, SpellOut(facts.target, (top, *chain.layers)), blocked)

    # What is not wanted any more -----------------------------------------------------------------------

    def _discard(self, facts: DiskFacts) -> DiskPlan | None:
        due = [
            removal
            for removal in self.record.removals
            if self._may_go(removal, facts)
            and self.circumstances.discard_holds.get(removal.layer.key, self.circumstances.now)
            <= self.circumstances.now
        ]
        if not due:
            return None
        if self.observation.in_use_elsewhere is None:
            return DiskPlan(facts.target, wants_usage=True)
        tries = self.circumstances.discard_tries.get(due[0].layer.key, 0)
        return self._do(Discard(facts.target, due[0], tries))

    def _may_go(self, removal: Removal, facts: DiskFacts) -> bool:
        """Nothing is known against removing this image. The QEMU that may have it open lives as long as its
        run goes on; what is on the network can only be looked into by a machine that runs."""
        if removal.left or (removal.run and removal.run == facts.run) or self._may_be_lost:
            return False
        return not removal.attempted or bool(removal.layer.source.path) or facts.live is not None

    def _merge(self, facts: DiskFacts, chain: Disk) -> DiskPlan:
        obstacle = (
            self._domain_obstacle(facts) or self._held(facts.target) or io_error_guard(self.observation)
        )
        if obstacle is None and ranges(chain, self.record, self.wants):
            suspect = self._suspect(facts, chain)
            if suspect is not None:
                return suspect
        merging = Merging(self.observation, facts, chain, self.record, self.wants, self.circumstances)
        return approved(merging.plan(None if obstacle is None else self._waiting(obstacle)), merging)

    # Small answers -------------------------------------------------------------------------------------

    def _without_disk(self) -> DiskPlan:
        name, target = self.observation.name, self.record.target
        text = f"domain {name} has no disk {target} (virsh domblklist shows its targets): "
        text += (
            "attach it again, or set spec.deletionPolicy to Retain, which lets the object go and leaves all "
            "images as they are"
            if any(want.deleting for want in self.wants)
            else "attach it, or name another one in a new object"
        )
        return self._waiting(Blocked(Why.DISK_NOT_FOUND, text))

    @property
    def _may_be_lost(self) -> bool:
        """libvirt says that the machine is off, and its QEMU may go on."""
        disks = self.observation.disks
        return any(
            record.operation is not None
            and record.target in disks
            and outcome(record.operation, disks[record.target]) is Outcome.LOST_TRACK
            for record in self.observation.journal.disks
        )

    def _has_work(self, chain: Disk) -> bool:
        return bool(
            any(not (removal.left or removal.attempted) for removal in self.record.removals)
            or any(is_pending(want, self.record) for want in self.wants)
            or ranges(chain, self.record, self.wants)
        )

    def _domain_obstacle(self, facts: DiskFacts) -> Blocked | None:
        gate = self.circumstances.gate
        return domain_guard(self.observation) or pull_guard(self.observation, facts.target, gate)

    def _held(self, target: str) -> Blocked | None:
        hold = self.circumstances.held([target])
        return hold.blocked if hold is not None else None

    def _do(self, step: Step) -> DiskPlan:
        if isinstance(step, Record) and step.record.known is not None:
            known = replace(step.record.known, at=timestamp(self.circumstances.now))
            step = replace(step, record=replace(step.record, known=known))
        return DiskPlan(self.record.target, step=step)

    def _waiting(self, blocked: Blocked | None) -> DiskPlan:
        hold = self.circumstances.held([self.record.target])
        return DiskPlan(self.record.target, blocked=blocked, wake_at=hold.until if hold else None)


def _beside(rest: DiskPlan, take: DiskPlan) -> DiskPlan:
    """What waits to be taken holds up nothing else: a merge may even make the room that it waits for."""
    idle = rest.step is None and not (rest.wants_usage or rest.wants_opened) and rest.blocked is None
    times = [at for at in (rest.wake_at, take.wake_at) if at is not None]
    return replace(
        rest,
        blocked=take.blocked if idle else rest.blocked,
        untaken=take.blocked,
        refused=take.refused,
        wake_at=min(times, default=None),
    )
