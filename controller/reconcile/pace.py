"""Writes of one namespace that nothing depends on, one after the other: a flood of objects that all wait must
not keep the API server, and this process, from the writes of others.

None is lost: each gets a moment of its own, and what is written then is what is true then.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

BURST = 100
"""So many come at once before the pace begins."""

PER_SECOND = 20.0
"""So many follow in a second. The API server does some hundreds."""


@dataclass
class Pace:
    """Use from one event loop. Times are of a clock that is never set back, in seconds."""

    burst: int = BURST
    per_second: float = PER_SECOND
    _next: dict[str, float] = field(default_factory=dict)
    """By namespace, when the next one is due if none had waited: in the past as long as there is a burst."""
    _due: dict[Hashable, float] = field(default_factory=dict)
    """When those that wait have their turn."""

    def wait(self, namespace: str, key: Hashable, now: float) -> float:
        """Seconds until this one may be written, which keep its turn for it; 0: now, and the turn is over."""
        due = self._due.get(key)
        if due is None:
            step = 1 / self.per_second
            due = max(self._next.get(namespace, 0.0), now - (self.burst - 1) * step)
            self._next[namespace] = due + step
        if due <= now:
            self._due.pop(key, None)
            return 0.0
        self._due[key] = due
        return due - now

    def forget(self, key: Hashable) -> None:
        """This one has nothing to write any more."""
        self._due.pop(key, None)
