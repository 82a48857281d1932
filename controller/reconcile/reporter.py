"""Reporting: facts to status, events and finalizers. Equal status is not written."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import chain

from controller.api.conditions import Fact, State, Truth, Verdict
from controller.api.reasons import Reason
from controller.api.volumesnapshot import Resolved, VolumeSnapshotStatus
from controller.chain import plan
from controller.chain.journal import Owner, Removal
from controller.chain.observation import Observation
from controller.chain.parse import ParseError
from controller.chain.steps import Abort, Record
from controller.hypervisor.errors import Busy, HypervisorError, StorageUnreachable, Unreadable
from controller.kube.errors import ObjectDeleting, ObjectGone
from controller.kube.kinds import VOLUME_SNAPSHOT
from controller.reconcile.accounts import Account
from controller.reconcile.class_store import InForce
from controller.reconcile.context import Context
from controller.reconcile.news import is_news
from controller.reconcile.pieces import in_pieces, side_by_side
from controller.reconcile.report import RESOLVED, condition, status_of, unresolved_status
from controller.reconcile.store import DomainKey, ObjectKey, Snapshot
from controller.reconcile.wants import Misfit, owner_of

log = logging.getLogger(__name__)

_QUIET = timedelta(seconds=1)
"""A merge that this process has just begun is not reported before: most are over by then, and the status
already says that the object is being deleted."""


async def write_status(context: Context, snapshot: Snapshot, status: VolumeSnapshotStatus) -> bool:
    """Write the status unless it has no news for the object. True when it was written."""
    body = status.to_api()
    if not is_news(snapshot.parsed.status.to_api(), body):
        return False
    try:
        raw = await context.client.apply_status(VOLUME_SNAPSHOT, snapshot.raw, body)
    except ObjectGone:
        log.info("object went while its status was written", extra={"object": snapshot.parsed.name})
        context.store.drop_snapshot(snapshot.raw)
        return False
    context.learn(snapshot, raw)
    announce(context, snapshot, status)
    return True


def announce(context: Context, snapshot: Snapshot, status: VolumeSnapshotStatus) -> None:
    """Events on transitions: the point was taken, a merge runs, a person is needed."""
    before = snapshot.parsed.status
    recorder = context.recorder
    if before.layer is None and status.layer is not None and not snapshot.parsed.deleting:
        adopts = snapshot.parsed.spec.adopt is not None
        reason, action = ("LayerAdopted", "Adopt") if adopts else ("SnapshotTaken", "Take")
        recorder.normal(snapshot.raw, reason, action, f"the point is held by {status.layer.source}")
    if before.operation is None and status.operation is not None and snapshot.parsed.deleting:
        ready = condition(status, "Ready")
        recorder.normal(snapshot.raw, "MergeStarted", "Merge", ready.message if ready else "")
    stalled, was = condition(status, "Stalled"), condition(before, "Stalled")
    needs_a_person = stalled is not None and stalled.status is Truth.TRUE
    known = (
        was is not None and was.status is Truth.TRUE and stalled is not None and was.reason == stalled.reason
    )
    if stalled is not None and needs_a_person and not known:
        recorder.warning(snapshot.raw, stalled.reason, "Wait", stalled.message)


def unreadable(error: Exception, *, deleting: bool = False) -> Verdict:
    """What is said of an object whose domain could not be read."""
    if isinstance(error, StorageUnreachable):
        reason = Reason.STORAGE_UNREACHABLE
    else:
        answered = isinstance(error, ParseError | Busy | Unreadable)
        reason = Reason.FAILED if answered else Reason.HYPERVISOR_UNREACHABLE
    hang = " (as when a storage server of its disks hangs, or while it arrives by a migration)"
    hint = hang if isinstance(error, Busy) else ""
    told = error.told if isinstance(error, HypervisorError) else str(error)
    message = f"{told}{hint}; nothing is concluded from that, and it is tried again"
    state = State.DELETING if deleting else State.WAITING
    fact = Fact(Truth.UNKNOWN, reason, message)
    return Verdict(state, reason, message, resolved=RESOLVED, chain_in_sync=fact)


async def report_unreadable(context: Context, key: DomainKey, error: Exception) -> None:
    """Say on all VolumeSnapshots of a domain that it could not be read."""
    async for snapshot in in_pieces(context.store.members(key)):
        verdict = unreadable(error, deleting=snapshot.parsed.deleting)
        await write_status(context, snapshot, unresolved_status(snapshot.parsed, verdict, context.now()))


class Reporter:
    """Reports one pass over one domain."""

    def __init__(self, context: Context, key: DomainKey) -> None:
        self._context = context
        self._key = key
        self._accounts: dict[Owner, Account] = {}
        self._left: list[tuple[Removal, str]] = []
        self.quiet: timedelta | None = None
        """Set when a report was put off: look again after this."""

    async def report(self, observation: Observation, found: plan.Plan, misfits: Sequence[Misfit]) -> None:
        """Write what is different from what the objects say."""
        told = (self._one(standing, observation) for standing in found.standings)
        await side_by_side(chain(told, (self._misfit(misfit) for misfit in misfits)))

    async def spoil(self, owners: Collection[Owner], observation: Observation, found: plan.Plan) -> None:
        """Say that these points cannot be used any more, before a merge begins to overwrite them."""
        for standing in found.standings:
            if standing.want.owner in owners:
                snapshot = self._snapshot(standing.want.owner)
                if snapshot is not None and snapshot.parsed.status.ready_to_use:
                    await self._write(snapshot, standing, observation)

    def left(self, removal: Removal, why: str) -> None:
        """An image could not be removed; its owners' objects go, and an event names it."""
        self._left.append((removal, why))

    def merged(self, owners: Collection[Owner], account: Account) -> None:
        """A job is done: the event of their objects' end says what it copied."""
        self._accounts |= dict.fromkeys(owners, account)

    def noted(self, step: Record) -> None:
        """The layers of points are elsewhere: an event on each object that has one."""
        for owner in (owner for point in step.record.points for owner in point.owners):
            snapshot = self._snapshot(owner)
            if snapshot is not None:
                self._context.recorder.normal(snapshot.raw, "LayersMoved", "Record", step.note)

    def gave_up(self, step: Abort) -> None:
        """A job was ended without its effect: an event on each object that waits for it."""
        for owner in step.operation.owners:
            snapshot = self._snapshot(owner)
            if snapshot is not None:
                self._context.recorder.warning(snapshot.raw, step.why.why.value, "Abort", step.why.message)

    async def _one(self, standing: plan.Standing, observation: Observation) -> None:
        snapshot = self._snapshot(standing.want.owner)
        if snapshot is None:
            return
        if standing.state is plan.State.GONE and not standing.want.suspended:
            await self._release(snapshot, standing)
            return
        if (
            standing.state is plan.State.HELD
            and not snapshot.parsed.protected
            and not snapshot.parsed.deleting
        ):
            await self._protect(snapshot)
        if self._is_quiet(standing):
            self.quiet = _QUIET
            return
        await self._write(snapshot, standing, observation)

    def _is_quiet(self, standing: plan.Standing) -> bool:
        running = standing.operation
        if standing.state is not plan.State.MERGING or running is None or standing.blocked is not None:
            return False
        begun = self._context.ledger.begun(self._key, standing.want.target)
        return begun is not None and self._context.now() - begun < _QUIET

    async def _write(self, snapshot: Snapshot, standing: plan.Standing, observation: Observation) -> None:
        target = standing.want.target
        resolved = Resolved(
            hypervisor=self._key.hypervisor,
            domain_name=observation.name,
            domain_uuid=observation.uuid,
            disk=target,
        )
        facts = observation.disks.get(target)
        status = status_of(
            snapshot.parsed,
            standing,
            facts,
            resolved,
            self._context.now(),
            judged=lambda verdict: self._judged(snapshot, verdict),
        )
        await write_status(self._context, snapshot, status)

    def _judged(self, snapshot: Snapshot, verdict: Verdict) -> Verdict:
        """The verdict; a wait that has just become too long is told as soon as it is."""
        overdue, parsed = self._context.overdue, snapshot.parsed
        found = overdue.judged(snapshot.key, parsed.uid, verdict, parsed.status.conditions)
        left = overdue.left(snapshot.key)
        if left is not None:
            self._context.later(self._key, left)
        return found

    async def _release(self, snapshot: Snapshot, standing: plan.Standing) -> None:
        """Nothing of the point is left that the object must wait for: let it go."""
        if not snapshot.parsed.protected:
            return
        owner = standing.want.owner
        for removal, why in self._left:
            if owner in removal.owners:
                uri = removal.layer.source.uri
                text = f"{uri} is not needed any more and stays: {why}"
                self._context.recorder.warning(snapshot.raw, "ImageLeft", "Remove", text)
        raw = await self._context.client.remove_finalizer(VOLUME_SNAPSHOT, snapshot.raw)
        if raw is not None:
            self._context.learn(snapshot, raw)
        status = snapshot.parsed.status
        if status.creation_time is None and status.layer is None:
            return
        kept = "the layer stays in the chain, unmanaged"
        policy = self._context.store.classes.in_force(snapshot.parsed)
        if isinstance(policy, InForce) and policy.strict:
            name = snapshot.parsed.spec.volume_snapshot_class_name
            text = (
                f"{kept}, because VolumeSnapshotClass {name} is gone, and with it what must not be written "
                f"to; to merge it away make the class again, a VolumeSnapshot that adopts it, and delete that"
            )
            self._context.recorder.warning(snapshot.raw, "LayerRetained", "Delete", text)
            return
        account = self._accounts.get(owner)
        merged = "the layer is merged away" + (f": {account}" if account is not None else "")
        reason, text = ("LayerMerged", merged) if standing.want.merge else ("LayerRetained", kept)
        self._context.recorder.normal(snapshot.raw, reason, "Delete", text)

    async def _protect(self, snapshot: Snapshot) -> None:
        """Put the finalizer back that a replacing tool took off."""
        try:
            raw = await self._context.client.add_finalizer(VOLUME_SNAPSHOT, snapshot.raw)
        except ObjectDeleting:
            return  # its deletion is on the way to us as an event
        if raw is not None:
            self._context.learn(snapshot, raw)

    async def _misfit(self, misfit: Misfit) -> None:
        deleting = misfit.snapshot.parsed.deleting
        if misfit.stalled:
            state = State.DELETING_STALLED if deleting else State.STALLED
        else:
            state = State.DELETING if deleting else State.WAITING
        verdict = self._judged(misfit.snapshot, Verdict(state, misfit.reason, misfit.message))
        status = unresolved_status(misfit.snapshot.parsed, verdict, self._context.now())
        await write_status(self._context, misfit.snapshot, status)

    def _snapshot(self, owner: Owner) -> Snapshot | None:
        found = self._context.store.snapshots.get(ObjectKey(owner.namespace, owner.name))
        return found if found is not None and owner_of(found.parsed) == owner else None
