"""The pass: one run of the loop over one domain. Observe, plan, act, report.

Level-triggered: nothing is carried over from one pass to the next but what the domain, its journal and the
objects say. Killed between any two lines, the next pass goes on from what it finds.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from controller.chain.circumstances import Circumstances
from controller.chain.desired import Want
from controller.chain.drift import fits_known
from controller.chain.journal import Operation, OperationKind, Owner
from controller.chain.merge_guards import can_grow
from controller.chain.observation import Observation
from controller.chain.plan import Plan
from controller.chain.planner import plan
from controller.chain.steps import (
    Abort,
    Discard,
    Record,
    RecordWhy,
    StartMerge,
    Step,
    Take,
    only_records,
    targets_of,
)
from controller.hypervisor.driver import Driver
from controller.hypervisor.errors import (
    HypervisorError,
    NotReady,
    OutcomeUnknown,
    Unreachable,
)
from controller.hypervisor.execute import Executor, Result
from controller.hypervisor.last_look import Refused, Stale
from controller.hypervisor.observe import Fleet, observe, with_opened, with_usage, with_written
from controller.kube.errors import ObjectDeleting
from controller.kube.kinds import VOLUME_SNAPSHOT, is_deleting, uid_of
from controller.reconcile.chain_policies import adopts_drift, not_in_use
from controller.reconcile.chains import Chains
from controller.reconcile.context import Context
from controller.reconcile.distrust import note_stranger
from controller.reconcile.failures import note_failure
from controller.reconcile.orphans import orphans_in
from controller.reconcile.patience import patient
from controller.reconcile.reporter import Reporter
from controller.reconcile.stalled import with_stalls
from controller.reconcile.store import DomainKey, HypervisorKey, ObjectKey
from controller.reconcile.vain import Vain
from controller.reconcile.wants import wants_of

log = logging.getLogger(__name__)

_MOST_ROUNDS = 64
"""Rounds of observe, plan and act in one pass; a domain with more to do comes back at once."""

_LOOK_AGAIN = timedelta(seconds=5)
"""While a job runs: its progress has no event, and the event of its end may be lost."""

_WAIT = timedelta(seconds=30)
"""While something waits whose end has no event."""


@dataclass(frozen=True)
class Round:
    """One look at the domain, and what follows from it."""

    observation: Observation
    plan: Plan
    circumstances: Circumstances


class DomainPass:
    """One pass over one domain."""

    def __init__(self, context: Context, key: DomainKey, chains: Chains) -> None:
        self._context = context
        self._chains = chains
        self._key = key
        self._reporter = Reporter(context, key)
        self._took = False
        self._vain = Vain()
        self._known: Observation | None = None
        """What the round before has left known of the domain; None when it must be read."""

    async def run(self) -> float | None:
        """Do what can be done now and report it. Returns seconds until the next look, None for no need.

        Raises :class:`HypervisorError` when the domain cannot be read, :class:`KubeError` for the API.
        """
        try:
            return await self._rounds()
        finally:
            self._context.ledger.answered(self._key)  # or one that cannot be read would keep its slot free

    async def _rounds(self) -> float | None:
        driver = self._context.hosts[self._key.hypervisor].driver
        for _ in range(_MOST_ROUNDS):
            if self._known is None:
                self._context.covered(self._key)
            snapshots = self._context.store.members(self._key)
            wants, misfits = await wants_of(snapshots, self._context.store, driver, self._given)
            found = await self._look(driver, wants)
            if not await self._act(driver, found):
                space = self._context.ledger.space
                if await space.was_short(self._key, driver, found.observation, found.plan):
                    continue
                told = await with_stalls(
                    found.plan, found.observation, driver, self._context.ledger, self._key
                )
                self._context.details.tell(self._key, found.observation, told)
                await self._reporter.report(found.observation, told, misfits)
                self._chains.saw(self._key, found.observation, wants, found.circumstances)
                await space.refresh(self._key, driver, found.observation, found.plan, took=self._took)
                return self._next_look(found.plan, waiting=bool(misfits))
        return 0.0

    def _given(self, namespace: str) -> tuple[str, ...]:
        """Where the namespace may put layers of this domain when it names the place."""
        known = self._context.store.hypervisor(self._key.hypervisor)
        found = self._context.hosts[self._key.hypervisor].find_by_uuid(self._key.uuid)
        return () if known is None or found is None else known.spec.overlays(namespace, found.name)

    # Observe and plan ----------------------------------------------------------------------------------

    async def _look(self, driver: Driver, wants: list[Want]) -> Round:
        """Observe and plan; once more, with who else uses the images, when that is needed to go on."""
        ours = self._context.ours(self._key.hypervisor)
        observation = self._known or await observe(driver, self._key.uuid, **ours)
        observation = self._believed(observation, wants)
        policies = self._chains.policies(self._key, observation)
        free = self._context.ledger.space.known(self._key)
        observation = replace(observation, free=free, not_in_use=not_in_use(policies, observation.journal))
        found = self._planned(observation, wants)
        if targets := found.plan.wants_opened:
            observation = await with_opened(driver, observation, targets, **ours)
            observation = self._believed(observation, wants)
            found = self._planned(observation, wants)
        if targets := found.plan.wants_written:
            observation = await with_written(driver, observation, targets)
            found = self._planned(observation, wants)
        if found.plan.wants_usage:
            self._context.ledger.asks_others(self._key)
            lent = any(want.placement.target for want in wants)
            due, space = found.plan.merging, self._context.ledger.space
            at = space.unsure(self._key, observation, found.plan.spare)
            observation = await with_usage(
                driver, observation, self._fleet, lent=lent, merging=due, measuring=at
            )
            space.note(self._key, observation, at)
            found = self._planned(observation, wants)
        self._count(found)
        return found

    def _believed(self, observation: Observation, wants: list[Want]) -> Observation:
        sealing = self._context.seals is not None
        return self._context.belief.checked(observation, wants, sealing=sealing)

    def _planned(self, observation: Observation, wants: list[Want]) -> Round:
        ledger = self._context.ledger
        judged_at = self._watch_others(observation)
        policies = self._chains.policies(self._key, observation)
        circumstances = Circumstances(
            now=self._context.now(),
            gate=self._context.gate(self._key.hypervisor),
            merge_slots=self._slots(),
            holds=ledger.holds(self._key, {want.owner for want in wants}),
            progress=ledger.watch(self._key, observation),
            commit_holds=ledger.attempts.holds(self._key),
            full=ledger.attempts.full(self._key, observation),
            pulls_last=self._context.pulls_last,
            split_takes=ledger.splits(self._key),
            discard_holds=ledger.discard_holds(self._key),
            witnessed=ledger.jobs_seen(self._key),
            judged_at=judged_at,
            approvals=self._chains.approvals(self._key, observation.name, policies),
            adopts_drift=adopts_drift(policies, observation.journal),
            discard_tries=ledger.discard_tries(self._key),
            distrusted=ledger.distrusted(self._key),
        )
        planned = plan(observation, wants, circumstances)
        found = patient(planned, observation.journal, ledger, self._key)
        return Round(observation, found, circumstances)

    def _watch_others(self, observation: Observation) -> dict[str, datetime]:
        """Note what others do to the disks; by target, when to conclude from a changed chain."""
        ledger, due = self._context.ledger, dict[str, datetime]()
        for record in observation.journal.disks:
            target, facts = record.target, observation.disks.get(record.target)
            if facts is None or facts.chain is None or record.operation is not None:
                continue
            if facts.job is not None:
                ledger.saw_job(self._key, target, facts.job.kind)
            if not fits_known(record, facts.chain):
                due[target] = ledger.unlike(self._key, target)
            elif facts.job is None:
                ledger.alike(self._key, target)
        return due

    @cached_property
    def _fleet(self) -> Fleet:
        """The other hypervisors, whose machines may use images on the network as well."""
        hosts = self._context.hosts
        others = {*hosts, *self._context.store.hypervisors} - {self._key.hypervisor}
        connected = {n: hosts[n].driver for n in others & hosts.keys() if hosts[n].status.connected}
        return Fleet(connected, tuple(sorted(others - connected.keys())))

    def _slots(self) -> int:
        """How many more merges may run on this hypervisor, by the strictest class that is in force here."""
        classes = self._context.store.classes.specs()
        limit = min((one.merge.max_concurrent_per_hypervisor for one in classes), default=4)
        return limit - self._context.ledger.merges_on(self._key.hypervisor)

    def _count(self, found: Round) -> None:
        """Keep the ledger and the metrics true to what was found."""
        ledger, metrics = self._context.ledger, self._context.metrics
        host = self._key.hypervisor
        for record in found.observation.journal.disks:
            facts = found.observation.disks.get(record.target)
            if facts is not None and facts.chain is not None:
                metrics.chain_layers.observe(len(facts.chain.layers))
        left = orphans_in(found.observation.journal, found.observation.name)
        if self._context.orphans.put(self._key, left):
            self._context.wake(HypervisorKey(host))
        running = [disk.target for disk in found.plan.disks if disk.running is not None]
        metrics.block_jobs.labels("merge", host).set(ledger.merges_on(host))
        ledger.running(self._key, running)
        ledger.saw(self._key, found.observation)
        ledger.waits(self._key, {disk.blocked.why for disk in found.plan.disks if disk.blocked})
        ledger.answered(self._key)
        starting = sum(isinstance(step, StartMerge) for step in found.plan.steps)
        for waiting in ledger.next_queued(host, self._slots() - starting):
            self._context.wake(waiting)

    # Act -----------------------------------------------------------------------------------------------

    async def _act(self, driver: Driver, found: Round) -> bool:
        """Carry out the steps of this round, at most one per disk. True when it is worth looking again."""
        self._known = None
        if not found.plan.steps:
            return False
        executor = Executor(
            driver,
            found.observation,
            cluster=self._context.cluster,
            **self._context.ours(self._key.hypervisor),
            fleet=self._fleet,
            facts=self._context.hosts[self._key.hypervisor].status.facts,
        )
        if self._vain.repeats(found.observation, found.plan):
            for step in found.plan.steps:
                note_failure(
                    self._context.ledger, self._key, step, Stale("it was done, and nothing has changed")
                )
            return True
        for step in found.plan.steps:
            try:
                await executor.reach(step)
                if not await self._cleared(step, found, executor):
                    self._in_vain(step, Stale("the objects that it is for are not as they were read"))
                    return True
                with self._context.metrics.step_seconds.labels(type(step).__name__, "call").time():
                    result = await executor.run(step)
            except (Stale, NotReady) as error:
                self._in_vain(step, error)
                return True
            except (Unreachable, OutcomeUnknown):
                raise
            except (HypervisorError, Refused) as error:
                note_failure(self._context.ledger, self._key, step, error)
                return True  # the executor's journal may be ahead of the domain's: look again
            self._done(step, result, found.observation)
        if all(only_records(step) for step in found.plan.steps):
            self._known = executor.known
        return True

    async def _cleared(self, step: Step, found: Round, executor: Executor) -> bool:
        """The last word from Kubernetes before something that cannot be taken back."""
        if isinstance(step, Take):
            owners = [owner for one in step.disks for owner in one.operation.owners]
            return all(await asyncio.gather(*(self._armed(owner) for owner in owners)))
        if isinstance(step, Record) and step.why is not RecordWhy.DONE:
            record = found.observation.journal.disk(step.target)
            adopting = [o for p in step.record.points for o in p.owners if record.point_of(o) is None]
            # One that leaves already finds its point again: its deletion was not missed.
            staying = [owner for owner in adopting if not self._is_leaving(owner)]
            return all(await asyncio.gather(*(self._armed(owner) for owner in staying)))
        if isinstance(step, StartMerge):
            if self._slots() <= 0:
                return False  # another domain's merge took the slot while this one was planned
            self._context.ledger.begin_merge(self._key, step.target)
            facts = found.observation.disks[step.target]
            self._context.ledger.accounts.begun(self._key, step.target, step.operation, facts)
            async with executor.surveying(step):
                # A commit spoils the lower point at once, so nobody may still be told that it can be used.
                await self._reporter.spoil(step.operation.owners, found.observation, found.plan)
        return True

    def _is_leaving(self, owner: Owner) -> bool:
        snapshot = self._context.store.snapshots.get(ObjectKey(owner.namespace, owner.name))
        return snapshot is not None and snapshot.parsed.uid == owner.uid and snapshot.parsed.deleting

    async def _armed(self, owner: Owner) -> bool:
        """Our finalizer is on the object, and nobody asked for its deletion until now."""
        store, client = self._context.store, self._context.client
        snapshot = store.snapshots.get(ObjectKey(owner.namespace, owner.name))
        if snapshot is None or snapshot.parsed.uid != owner.uid:
            return False
        try:
            if snapshot.parsed.protected:
                raw = await client.get(VOLUME_SNAPSHOT, owner.namespace, owner.name)
            else:
                raw = await client.add_finalizer(VOLUME_SNAPSHOT, snapshot.raw)
        except ObjectDeleting:
            raw = await client.get(VOLUME_SNAPSHOT, owner.namespace, owner.name)
        if raw is None or uid_of(raw) != owner.uid:
            store.drop_snapshot(snapshot.raw)
            return False
        self._context.learn(snapshot, raw)
        return not is_deleting(raw)

    def _in_vain(self, step: Step, error: HypervisorError | Stale) -> None:
        """Nothing was done, and it is planned anew: at once, but not again and again."""
        log.info("planned anew", extra={"why": str(error)})
        if self._vain.happened():
            note_failure(self._context.ledger, self._key, step, error)

    def _done(self, step: Step, result: Result, before: Observation) -> None:
        """Note what a step came to."""
        ledger = self._context.ledger
        self._took = self._took or isinstance(step, Take)
        log.info("step done", extra={"step": type(step).__name__, "disks": ",".join(targets_of(step))})
        if isinstance(step, Record) and step.why is RecordWhy.UNDONE and step.finished is not None:
            self._undone(step.target, step.finished, before)
        elif isinstance(step, Abort):
            ledger.gave_up(self._key, step)
            self._reporter.gave_up(step)
        elif isinstance(step, Record):
            self._recorded(step, before)
        elif isinstance(step, Discard) and result.left:
            self._reporter.left(step.removal, result.told)

    def _recorded(self, step: Record, before: Observation) -> None:
        """Note what an operation came to, or what others did."""
        ledger = self._context.ledger
        ledger.succeeded(self._key, step.target, step.finished.owners if step.finished else ())
        if step.why is RecordWhy.STRANGE:
            note_stranger(ledger, self._key, step)
        elif step.note:
            self._reporter.noted(step)
        if step.why is RecordWhy.DRIFT:
            self._chains.drifted(self._key, step.target)
        if step.finished is not None and step.why is RecordWhy.DONE:
            self._account(step.target, step.finished, before)
        owners = step.finished.owners if step.finished else ()
        for removal in step.record.removals:
            if removal.left and removal not in before.journal.disk(step.target).removals:
                self._reporter.left(replace(removal, owners=owners), removal.left)

    def _undone(self, target: str, operation: Operation, before: Observation) -> None:
        """A failed commit into a device that does not grow is not tried for ever as it is."""
        ledger, kept = self._context.ledger, operation.kept
        failed = ledger.undone(self._key, target, operation.owners, f"the {operation.kind.value}")
        if failed and operation.kind is not OperationKind.PULL and not can_grow(kept.source):
            size = before.disks[target].sizes.get(kept.key)
            ledger.attempts.ran_out(self._key, kept.source, size.physical if size else 0)

    def _account(self, target: str, operation: Operation, observation: Observation) -> None:
        """Say what a job that is done has copied, beside what the plan foresaw."""
        ledger, kind = self._context.ledger, operation.kind
        if kind is OperationKind.ACTIVE_COMMIT:
            ledger.attempts.succeeded(self._key, target)
        ledger.attempts.fitted(self._key, operation.kept.key)
        found = ledger.accounts.closed(self._key, target, operation, observation.disks.get(target))
        if found is None or found.copied is None:
            return
        for what, size in (("planned", found.planned), ("copied", found.copied)):
            self._context.metrics.merge_bytes.labels(kind.value, what).inc(size)
        log.info("merged", extra={"kind": kind.value, "planned": found.planned, "copied": found.copied})
        self._reporter.merged(operation.owners, found)

    # After ---------------------------------------------------------------------------------------------

    def _next_look(self, found: Plan, *, waiting: bool) -> float | None:
        now = self._context.now()
        times = [found.wake_at] if found.wake_at else []
        if any(disk.running for disk in found.disks):
            times.append(now + (_LOOK_AGAIN if self._reporter.quiet is None else self._reporter.quiet))
        elif waiting or any(disk.blocked for disk in found.disks):
            times.append(now + _WAIT)
        holds = self._context.ledger.discard_holds(self._key)
        times += [until for until in holds.values() if until > now]
        return max(0.0, (min(times) - now).total_seconds()) if times else None
