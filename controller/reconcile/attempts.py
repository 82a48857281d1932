"""Commits that came to nothing: active ones that did not converge, with how far each came, and those that a
device of fixed size may have had no room for. How often each was tried, and when to try again.

All of it may be lost at any time: a restart only forgets what was seen, and waits anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Hold
from controller.chain.convergence import Progress, progressed
from controller.chain.journal import OperationKind
from controller.chain.observation import Observation
from controller.chain.source import Source
from controller.reconcile.queue import Backoff
from controller.reconcile.store import DomainKey

_LONGEST = 3600.0
"""Seconds between two tries at most."""

_TRIES = 3
"""Commits into one device that fail before a person is called: a server that was away explains one or two."""
_FULL = Backoff(first=60.0, most=_LONGEST)


@dataclass(frozen=True)
class _Full:
    """An image that commits into it have failed."""

    tries: int
    size: int
    """Of its device when the last one failed, bytes."""
    hold: Hold | None


@dataclass
class Attempts:
    """By disk: the progress of the job that runs, and what was given up."""

    now: Callable[[], datetime]
    _progress: dict[DomainKey, dict[str, Progress]] = field(default_factory=dict)
    _given_up: dict[DomainKey, dict[str, Hold]] = field(default_factory=dict)
    _tries: dict[tuple[DomainKey, str], int] = field(default_factory=dict)
    _full: dict[DomainKey, dict[str, _Full]] = field(default_factory=dict)
    """By image identity."""

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

    def ran_out(self, key: DomainKey, image: Source, size: int) -> None:
        """A commit into ``image``, on a device of ``size`` bytes that does not grow, has failed. libvirt does
        not say why."""
        before = self._full.get(key, {}).get(image.key)
        tries = before.tries + 1 if before is not None and before.size == size else 1
        hold = None
        if tries >= _TRIES:
            until = self.now() + timedelta(seconds=_FULL.delay(tries - _TRIES + 1))
            text = (
                f"the commit into {image.uri} has failed {tries} times, and libvirt says why only in its own "
                f"log. It is on a device of {size} bytes that does not grow: when the log says No space left "
                f"on device, enlarge it (a logical volume: lvextend). It is tried again when its size has "
                f"changed, and after {until:%H:%M:%S} UTC"
            )
            hold = Hold(until, Blocked(Why.UNSUPPORTED_TOPOLOGY, text))
        self._full.setdefault(key, {})[image.key] = _Full(tries, size, hold)

    def full(self, key: DomainKey, observation: Observation) -> dict[str, Hold]:
        """By identity: images that nothing is committed into for now. Forgets those whose device has another
        size by now."""
        sizes = {
            at: size.physical for facts in observation.disks.values() for at, size in facts.sizes.items()
        }
        known = self._full.get(key, {})
        for image in [image for image, full in known.items() if sizes.get(image, full.size) != full.size]:
            del known[image]
        holds = {image: full.hold for image, full in known.items() if full.hold is not None}
        return {image: hold for image, hold in holds.items() if hold.until > self.now()}

    def fitted(self, key: DomainKey, image: str) -> None:
        """A commit into this image is done."""
        self._full.get(key, {}).pop(image, None)

    def succeeded(self, key: DomainKey, target: str) -> None:
        """An active commit of the disk is done."""
        self._given_up.get(key, {}).pop(target, None)
        self._tries.pop((key, target), None)

    def forget(self, key: DomainKey) -> None:
        """The domain is of no interest any more."""
        self._progress.pop(key, None)
        self._given_up.pop(key, None)
        self._full.pop(key, None)
        for pair in [pair for pair in self._tries if pair[0] == key]:
            del self._tries[pair]
