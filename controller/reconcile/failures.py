"""What follows from a step that failed: how long it is waited for, and what the objects say meanwhile."""

from __future__ import annotations

import logging

from controller.chain.blocked import Blocked, Why
from controller.chain.journal import Owner
from controller.chain.steps import (
    Abort,
    Discard,
    DiskOperation,
    Pivot,
    Record,
    SpellOut,
    StartMerge,
    Step,
    Take,
)
from controller.hypervisor.errors import (
    Busy,
    DriverMissing,
    HypervisorError,
    OutOfStep,
    ServiceMissing,
    StorageUnreachable,
)
from controller.hypervisor.last_look import Refused, Stale
from controller.reconcile.ledger import Ledger
from controller.reconcile.store import DomainKey

log = logging.getLogger(__name__)

_NOT_SENT = (
    "QEMU is told nothing meanwhile, because it would freeze the machine while it waits; it goes on when the "
    "server answers"
)


def note_failure(
    ledger: Ledger, key: DomainKey, step: Step, error: HypervisorError | Refused | Stale
) -> None:
    """Remember what failed, so the next plan waits and the report says why."""
    log.warning("step failed", extra={"step": type(step).__name__, "why": str(error)})
    why = _why(error)
    if isinstance(step, Discard):
        layer = step.removal.layer
        text = f"the layer is merged; its image {layer.source.uri} cannot be removed yet: {error.told}"
        why = Why.FAILED if why is Why.IMAGE_PROTECTED else why  # nothing is written to
        ledger.discard_failed(key, layer.key, Blocked(why, text, detail=_detail(error, error.told)))
        return
    if isinstance(step, SpellOut):
        blocked = Blocked(why, error.told, detail=_detail(error, error.told))
        ledger.discard_failed(key, step.name, blocked)
        return
    told = _told(step, error)
    detail = _detail(error, told)
    text = f"libvirt is busy with this domain: {told}" if isinstance(error, Busy) else told
    if isinstance(error, StorageUnreachable):
        text += f"; {_NOT_SENT}"
    if isinstance(step, Record | Pivot | Abort):
        ledger.record_failed(key, step.target, Blocked(why, text, detail=detail))
    else:
        ledger.failed(key, _concerned(step), Blocked(why, text, detail=detail))


def _told(step: Step, error: HypervisorError | Refused | Stale) -> str:
    """What the objects say. Of a place that an object names itself only that it cannot be used: whether there
    is a file or a server, and what it answers, would be told to whoever names it."""
    named = (
        [one.operation.kept.source.uri for one in step.disks if one.operation.lent]
        if isinstance(step, Take)
        else []
    )
    if not named or isinstance(error, Refused | Stale | OutOfStep | StorageUnreachable):
        return error.told
    return (
        f"no layer can be made at {', '.join(named)}: the place is in use, or cannot be reached, or is none "
        f"that QEMU can write a layer to; an administrator finds in the events of the Hypervisor which"
    )


def _detail(error: HypervisorError | Refused | Stale, told: str) -> str:
    """What is left out of ``told``, for those who look after the hypervisors."""
    if isinstance(error, Refused):
        return error.detail
    return str(error) if str(error) != told else ""


def _concerned(step: Take | StartMerge) -> dict[str, tuple[Owner, ...]]:
    """By target, whose objects a step was for: they wait for it and say why, and nobody else does."""
    begun = step.disks if isinstance(step, Take) else (DiskOperation(step.target, step.operation),)
    return {one.target: one.operation.owners for one in begun}


def _why(error: HypervisorError | Refused | Stale) -> Why:
    """The reason that objects give for a step that did not happen."""
    if isinstance(error, StorageUnreachable):
        return Why.STORAGE_UNREACHABLE
    if isinstance(error, DriverMissing | ServiceMissing):
        return Why.CAPABILITY_MISSING
    if isinstance(error, OutOfStep):
        return Why.OUT_OF_STEP
    return error.why if isinstance(error, Refused | Stale) else Why.FAILED
