"""Places at which QEMU has opened something else than was verified there, and the objects that named them."""

from __future__ import annotations

import logging

from controller.api.reasons import Reason
from controller.api.volumesnapshot import VolumeSnapshot
from controller.chain.steps import Record
from controller.reconcile.ledger import Ledger
from controller.reconcile.store import DomainKey

log = logging.getLogger(__name__)


def note_stranger(ledger: Ledger, key: DomainKey, step: Record) -> None:
    """Remember the place, and tell the administrator what was found: the objects do not say it, because it
    may be somebody else's."""
    if step.finished is None:
        return
    log.error(
        "QEMU opened something else than was verified, and it is merged away",
        extra={
            "domain": key.uuid,
            "disk": step.target,
            "image": step.finished.kept.source.uri,
            "found": step.note,
            "objects": ",".join(f"{owner.namespace}/{owner.name}" for owner in step.finished.owners),
        },
    )
    ledger.distrust(key, step.finished)


def is_known(snapshot: VolumeSnapshot) -> bool:
    """Whether the status says so, for the spec as it is: what the process remembers goes with it."""
    reason, generation = Reason.OVERLAY_NOT_AS_VERIFIED.value, snapshot.generation
    return any(
        one.type == "Ready" and one.reason == reason and one.observed_generation == generation
        for one in snapshot.status.conditions
    )
