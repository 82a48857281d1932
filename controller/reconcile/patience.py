"""What has just failed is not tried again at once, and the objects that wait for it say why.

The planner waits out failures of what it may begin. This is for the steps that follow from what was begun:
the record, the pivot, the removal of an image. They are always right, so the planner always plans them.
"""

from __future__ import annotations

from dataclasses import replace

from controller.chain.circumstances import Hold
from controller.chain.journal import Journal
from controller.chain.plan import DiskPlan, Plan, Standing, State
from controller.chain.steps import Abort, Pivot, Record
from controller.reconcile.ledger import Ledger
from controller.reconcile.store import DomainKey


def patient(found: Plan, journal: Journal, ledger: Ledger, key: DomainKey) -> Plan:
    """The plan without the steps that are waited out, and with the reason where somebody waits for one."""
    held: dict[str, Hold] = {}
    for step in found.steps:
        hold = ledger.record_hold(key, step.target) if isinstance(step, Record | Pivot | Abort) else None
        if hold is not None and isinstance(step, Record | Pivot | Abort):
            held[step.target] = hold
    return replace(
        found,
        steps=tuple(
            s for s in found.steps if not isinstance(s, Record | Pivot | Abort) or s.target not in held
        ),
        disks=tuple(
            _waiting(disk, held[disk.target], journal) if disk.target in held else disk
            for disk in found.disks
        ),
        standings=tuple(
            _explained(standing, held.get(standing.want.target), journal, ledger, key)
            for standing in found.standings
        ),
    )


def _waiting(disk: DiskPlan, hold: Hold, journal: Journal) -> DiskPlan:
    """A job that waits for its pivot or its end still runs."""
    running = journal.disk(disk.target).operation if isinstance(disk.step, Pivot | Abort) else None
    return replace(disk, step=None, blocked=hold.blocked, wake_at=hold.until, running=running)


def _explained(
    standing: Standing, hold: Hold | None, journal: Journal, ledger: Ledger, key: DomainKey
) -> Standing:
    if standing.blocked is not None:
        return standing
    if hold is not None:
        return replace(standing, blocked=hold.blocked.to(standing.want.owner.namespace))
    if standing.state is State.REMOVING:
        for removal in journal.disk(standing.want.target).removals:
            reason = ledger.discard_reason(key, removal.layer.key)
            if standing.want.owner in removal.owners and reason is not None:
                return replace(standing, blocked=reason.to(standing.want.owner.namespace))
    return standing
