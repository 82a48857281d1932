"""How many objects of one namespace are acted on at a time, per disk and per machine; the rest waits.

A pass looks at every object of its domain, so without a limit whoever makes many of them holds up all others
on that machine. What holds a point is always acted on, and deletions have room of their own, so that nobody
who has too many objects is kept from having fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controller.reconcile.keys import DomainKey

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Limits:
    """So many objects of one namespace at a time."""

    disk: int
    domain: int


CHAINS = Limits(disk=4, domain=64)
"""Of VolumeChains. One counts for a disk; the others are told so."""

LEAST = 48
"""VolumeSnapshots of a disk that any namespace may have, whatever its chains may have in layers."""


def snapshot_limits(layers: int) -> Limits:
    """Of VolumeSnapshots, where chains may have so many layers (the largest ``maxLayers``): three quarters of
    a chain, so that a namespace does not fill that of a disk which others use, too; and four such disks."""
    disk = max(LEAST, layers * 3 // 4)
    return Limits(disk, 4 * disk)


@dataclass(frozen=True)
class Claim:
    """What an object is about, and what it can say for itself."""

    domain: DomainKey
    namespace: str
    disk: str
    leaving: bool = False
    """Its deletion was asked for."""
    holds: bool = False
    """It has a point already, by its status, which the controller alone may write."""


@dataclass
class _Lane(Generic[K]):
    """One namespace on one domain."""

    admitted: dict[K, Claim] = field(default_factory=dict)
    waiting: dict[tuple[bool, str], dict[K, Claim]] = field(default_factory=dict)
    """By whether they leave, and disk; in the order in which they came."""
    counts: Counter[tuple[bool, str]] = field(default_factory=Counter)
    """Of those that are admitted, by the same; an empty disk for all."""

    def count(self, claim: Claim, by: int) -> None:
        """Count one that is admitted, or is no more."""
        for disk in (claim.disk, ""):
            self.counts[claim.leaving, disk] += by

    def wait(self, key: K, claim: Claim) -> None:
        """Put one at the end of those that wait."""
        self.waiting.setdefault((claim.leaving, claim.disk), {})[key] = claim

    def wait_no_more(self, key: K, claim: Claim) -> None:
        """Forget one that waited so."""
        some = self.waiting.get((claim.leaving, claim.disk), {})
        if some.pop(key, None) is not None and not some:
            del self.waiting[claim.leaving, claim.disk]


class Shares(Generic[K]):
    """Use from one event loop. All of it may be lost at any time, and is found anew."""

    def __init__(self, limits: Callable[[], Limits], on_room: Callable[[K], None] = lambda key: None) -> None:
        """``limits`` are asked for whenever they matter; when they grow, all that wait must ask again.
        ``on_room`` is told of one that waited and has room now: it must ask again, by :meth:`put`. The
        next one is told when that one has asked or is gone."""
        self.limits = limits
        self._on_room = on_room
        self._lanes: dict[DomainKey, dict[str, _Lane[K]]] = {}
        self._claims: dict[K, Claim] = {}

    def put(self, key: K, claim: Claim) -> bool:
        """Take note of an object, or of a change of it. True when it is acted on."""
        before = self._claims.get(key)
        if before is not None and (before.domain, before.disk) != (claim.domain, claim.disk):
            self.drop(key)
            before = None
        lane = self._lanes.setdefault(claim.domain, {}).setdefault(claim.namespace, _Lane())
        self._claims[key] = claim
        if before is not None and key in lane.admitted:
            lane.admitted[key] = claim
            lane.count(before, -1)
            lane.count(claim, +1)
            if before.leaving != claim.leaving:
                self._offer(lane, before)
            return True
        if before is not None:
            lane.wait_no_more(key, before)
        if claim.holds or self._has_room(lane, claim):
            lane.admitted[key] = claim
            lane.count(claim, +1)
            if before is not None:  # it had waited, and there may be room for one more
                self._offer(lane, claim)
            return True
        lane.wait(key, claim)
        return False

    def drop(self, key: K) -> None:
        """The object is gone, or means no domain any more."""
        claim = self._claims.pop(key, None)
        if claim is None:
            return
        lanes = self._lanes[claim.domain]
        lane = lanes[claim.namespace]
        if lane.admitted.pop(key, None) is not None:
            lane.count(claim, -1)
        else:
            lane.wait_no_more(key, claim)
        self._offer(lane, claim)
        if not (lane.admitted or lane.waiting):
            del lanes[claim.namespace]
            if not lanes:
                del self._lanes[claim.domain]

    def waits(self, key: K) -> bool:
        """Whether it has no room yet."""
        claim = self._claims.get(key)
        return claim is not None and key not in self._lanes[claim.domain][claim.namespace].admitted

    def admitted(self, domain: DomainKey) -> list[K]:
        """Those of a domain that are acted on."""
        return [key for lane in self._lanes.get(domain, {}).values() for key in lane.admitted]

    def everyone(self, domain: DomainKey) -> list[K]:
        """All that mean a domain."""
        lanes = self._lanes.get(domain, {}).values()
        waiting = [key for lane in lanes for some in lane.waiting.values() for key in some]
        return [*self.admitted(domain), *waiting]

    def domains(self) -> list[DomainKey]:
        """All domains that somebody means."""
        return sorted(self._lanes)

    def domain_of(self, key: K) -> DomainKey | None:
        """The domain that this one means."""
        claim = self._claims.get(key)
        return None if claim is None else claim.domain

    def _has_room(self, lane: _Lane[K], claim: Claim) -> bool:
        on_disk, on_domain = lane.counts[claim.leaving, claim.disk], lane.counts[claim.leaving, ""]
        limits = self.limits()
        return on_disk < limits.disk and on_domain < limits.domain

    def _offer(self, lane: _Lane[K], freed: Claim) -> None:
        """Room of this kind may have become free: tell the oldest that waits for it, on this disk or another.

        Nothing is looked through that has no room: a disk that is full is one of a few."""
        limits = self.limits()
        if lane.counts[freed.leaving, ""] >= limits.domain:
            return
        for leaving, disk in ((freed.leaving, freed.disk), *lane.waiting):
            some = lane.waiting.get((leaving, disk))
            if some and leaving == freed.leaving and lane.counts[leaving, disk] < limits.disk:
                self._on_room(next(iter(some)))
                return
