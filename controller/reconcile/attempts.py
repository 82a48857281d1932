"""Active commits that did not converge: how far each came, how often it was tried, and when to try again.

All of it may be lost at any time: a restart only forgets what was seen, and waits anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.chain.circumstances import Hold
from controller.chain.convergence import Progress, progressed
from controller.chain.guards import Blocked
from controller.chain.journal import OperationKind
from controller.chain.observation import Observation
from controller.reconcile.queue import Backoff
from controller.reconcile.store import DomainKey

_LONGEST = 3600.0
"""Seconds between two tries at most."""


@dataclass
class Attempts:
    """By disk: the progress of the job that runs, and what was given up."""

    now: Callable[[], datetime]
    _progress: dict[DomainKey, dict[str, Progress]] = field(default_factory=dict)
    _given_up: dict[DomainKey, dict[str, Hold]] = field(default_factory=dict)
    _tries: dict[tuple[DomainKey, str], int] = field(default_factory=dict)

    def watch(self, key: DomainKey, observation: Observation) -> Mapping[str, Progress]:
        """Take note of the active commits that run in this domain, by target."""
        before, now = self._progress.pop(key, {}), {}
        for record in observation.journal.disks:
            facts, operation = observation.disks.get(record.target), record.operation
            if facts is not None and operation and operation.kind is OperationKind.ACTIVE_COMMIT:
                now[record.target] = progressed(operation, facts, before.get(record.target), self.now())
        if now:
            self._progress[key] = now
        return now

    def holds(self, key: DomainKey) -> dict[str, Hold]:
        """By target: until when no active commit is tried again, and why."""
        return {t: hold for t, hold in self._given_up.get(key, {}).items() if hold.until > self.now()}

    def gave_up(self, key: DomainKey, target: str, why: Blocked, first: float) -> Hold:
        """A job was aborted: wait ``first`` seconds, twice as long after each further try."""
        tries = self._tries[key, target] = self._tries.get((key, target), 0) + 1
        until = self.now() + timedelta(seconds=Backoff(first=first, most=_LONGEST).delay(tries))
        counted = "tried once" if tries == 1 else f"tried {tries} times"
        text = f"{why.message}; {counted}, and again after {until:%H:%M:%S} UTC"
        hold = Hold(until, replace(why, message=text))
        self._given_up.setdefault(key, {})[target] = hold
        return hold

    def succeeded(self, key: DomainKey, target: str) -> None:
        """An active commit of the disk is done."""
        self._given_up.get(key, {}).pop(target, None)
        self._tries.pop((key, target), None)

    def forget(self, key: DomainKey) -> None:
        """The domain is of no interest any more."""
        self._progress.pop(key, None)
        self._given_up.pop(key, None)
        for pair in [pair for pair in self._tries if pair[0] == key]:
            del self._tries[pair]
