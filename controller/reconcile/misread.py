"""Objects that this controller cannot read, because a newer version's CRD let them in: they say so.

Nothing is concluded from such an object. What its status knows is sent back as it is, for with server-side
apply what is left out would be taken away.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from controller.api.conditions import (
    Condition,
    ConditionType,
    Fact,
    State,
    Truth,
    Verdict,
    conditions,
)
from controller.api.objects import not_understood
from controller.api.reasons import Reason
from controller.kube.errors import ObjectGone
from controller.kube.kinds import Kind, Raw, is_deleting
from controller.reconcile.context import Context
from controller.reconcile.news import is_news

log = logging.getLogger(__name__)


def misread_status(raw: Raw, fault: str, now: datetime, types: Sequence[ConditionType]) -> Raw:
    """The status of such an object: as it was, but for the conditions. Pure."""
    before: Raw = raw.get("status") or {}
    state = State.DELETING_STALLED if is_deleting(raw) else State.STALLED
    fact = Fact(Truth.UNKNOWN, Reason.NOT_UNDERSTOOD, not_understood(fault))
    verdict = Verdict(state, fact.reason, fact.message, resolved=fact, chain_in_sync=fact)
    generation = int(raw["metadata"].get("generation", 0))
    found = conditions(verdict, _readable(before), generation, now, types)
    return {**before, "conditions": [one.to_api() for one in found], "observedGeneration": generation}


def _readable(status: Raw) -> list[Condition]:
    found: list[Condition] = []
    for one in status.get("conditions") or ():
        try:
            found.append(Condition.model_validate(one))
        except ValidationError:
            continue  # written anew, with another time of transition
    return found


def _own(status: Raw, types: Sequence[ConditionType]) -> dict[str, Any]:
    """The status without the conditions of other controllers."""
    ours = [one for one in status.get("conditions") or () if one.get("type") in types]
    return {**status, "conditions": ours}


async def report_misread(
    context: Context, kind: Kind, raw: Raw, fault: str, types: Sequence[ConditionType]
) -> Raw | None:
    """Write that status unless the object has it. Returns the new object."""
    status = misread_status(raw, fault, context.now(), types)
    if not is_news(_own(raw.get("status") or {}, types), status):
        return None
    log.warning("object cannot be read", extra={"object": raw["metadata"]["name"], "why": fault})
    try:
        after = await context.client.apply_status(kind, raw, status)
    except ObjectGone:
        return None
    context.recorder.warning(raw, Reason.NOT_UNDERSTOOD, "Read", not_understood(fault))
    return after
