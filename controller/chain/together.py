"""Steps of different disks of one domain: which may begin together, and which become one libvirt call."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from controller.chain.blocked import Blocked, Why
from controller.chain.journal import OperationKind, Owner
from controller.chain.plan import DiskPlan
from controller.chain.steps import StartMerge, Step, Take


def apart(found: DiskPlan, others: Sequence[DiskPlan]) -> DiskPlan:
    """A pull begins alone on its machine: of the merges that could begin now, it or the others wait. Nor do
    two disks get one overlay."""
    begun = [one.step for one in others if isinstance(one.step, StartMerge)]
    step = found.step
    if isinstance(step, Take):
        given = {t.operation.kept.key for one in others if isinstance(one.step, Take) for t in one.step.disks}
        if step.disks[0].operation.kept.key in given:
            text = f"another disk of this machine is about to use {step.disks[0].operation.kept.source.uri}"
            blocked = Blocked(Why.OVERLAY_UNUSABLE, text)
            refused = {**found.refused, **dict.fromkeys(step.disks[0].operation.owners, blocked)}
            return replace(found, step=None, blocked=blocked, refused=refused)
    if not isinstance(step, StartMerge) or not begun:
        return found
    if all(one.kind is not OperationKind.PULL for one in (step, *begun)):
        return found
    text = f"a pull must be alone on its machine; disk {begun[0].target} has a job"
    return replace(found, step=None, blocked=Blocked(Why.QUEUED, text))


def joined(
    disks: Sequence[DiskPlan], *, split: bool, failed: Collection[Owner | str] = ()
) -> tuple[Step, ...]:
    """Takes of one domain become one libvirt transaction; everything else stays per disk. Those of which one
    has ``failed`` before come last, each for itself: what is against them is against nobody else."""
    takes = [disk.step for disk in disks if isinstance(disk.step, Take)]
    again = [
        take for take in takes if not {o for d in take.disks for o in d.operation.owners}.isdisjoint(failed)
    ]
    takes = [take for take in takes if take not in again]
    others = [disk.step for disk in disks if disk.step is not None and not isinstance(disk.step, Take)]
    if len(takes) > 1 and not split:
        # Whether overlays exist already is said of a whole transaction.
        parts = [
            [one for take in takes for one in take.disks if one.operation.prepared is p]
            for p in (False, True)
        ]
        takes = [Take(tuple(part)) for part in parts if part]
    return (*takes, *others, *again)
