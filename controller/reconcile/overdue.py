"""Waits that only a person can end, unless what is missing comes within moments.

Objects of one commit arrive in any order, and a chain that somebody is changing is readable again soon. So
nobody is called at once: after :data:`PATIENCE` such an object is Stalled, and no longer when it gets what it
waits for. A wait that began before this process is dated by the object's own conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.api.conditions import Condition, ConditionType, State, Truth, Verdict
from controller.api.reasons import Reason
from controller.reconcile.keys import ChainKey, ObjectKey

PATIENCE = timedelta(seconds=10)

PATIENT = frozenset(
    {
        Reason.DOMAIN_NOT_FOUND,
        Reason.DISK_NOT_FOUND,
        Reason.HYPERVISOR_NOT_FOUND,
        Reason.CLASS_NOT_FOUND,
        Reason.CHAIN_UNKNOWN,
        Reason.DOMAIN_PAUSED,
        Reason.USERS_UNKNOWN,
        Reason.SIZE_UNKNOWN,
    }
)
"""Reasons that a person must end, if they do not end within :data:`PATIENCE`."""

_WORSE = {State.WAITING: State.STALLED, State.DELETING: State.DELETING_STALLED}


@dataclass
class Overdue:
    """Since when each object waits for such a reason. Use from one event loop; may be lost at any time."""

    now: Callable[[], datetime]
    _since: dict[ObjectKey | ChainKey, tuple[str, Reason, datetime]] = field(default_factory=dict)
    """By object: its UID, the reason, and when it was first found."""

    def judged(
        self, key: ObjectKey | ChainKey, uid: str, verdict: Verdict, before: Sequence[Condition]
    ) -> Verdict:
        """The verdict, or the same as Stalled when the patience with it is over. ``before``: the conditions
        that the object has."""
        if verdict.reason not in PATIENT or verdict.state not in _WORSE:
            self._since.pop(key, None)
            return verdict
        known = self._since.get(key)
        if known is None or known[:2] != (uid, verdict.reason):
            since = min(self.now(), _told_since(verdict.reason, before) or self.now())
            self._since[key] = (uid, verdict.reason, since)
        return verdict if self._left(key) else replace(verdict, state=_WORSE[verdict.state])

    def left(self, key: ObjectKey | ChainKey) -> float | None:
        """Seconds of patience that are left with what this object waits for; None: nothing is due to it."""
        return self._left(key) or None

    def forget(self, key: ObjectKey | ChainKey) -> None:
        """The object is gone."""
        self._since.pop(key, None)

    def _left(self, key: ObjectKey | ChainKey) -> float:
        if key not in self._since:
            return 0.0
        waited = self.now() - self._since[key][2]
        return min(max(PATIENCE - waited, timedelta()), PATIENCE).total_seconds()


def _told_since(reason: Reason, before: Sequence[Condition]) -> datetime | None:
    """Since when the object says so at the earliest; None when it does not. One that another process has
    called Stalled stays that."""
    told = {one.type: one for one in before}
    ready, stalled = told.get(ConditionType.READY), told.get(ConditionType.STALLED)
    if ready is None or ready.reason != reason:
        return None
    if stalled is not None and stalled.status is Truth.TRUE:
        return datetime.min.replace(tzinfo=ready.last_transition_time.tzinfo)
    return ready.last_transition_time
