"""What every pass needs: the ports, the store, the clock, and who we are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from controller.chain.gate import UNKNOWN, Gate
from controller.chain.seal import Sealing, Seals
from controller.hypervisor.host import Host
from controller.kube.events import EventRecorder
from controller.kube.kinds import Raw
from controller.kube.port import KubeClient
from controller.reconcile.belief import Belief
from controller.reconcile.details import Details
from controller.reconcile.ledger import Ledger
from controller.reconcile.orphans import Orphans
from controller.reconcile.overdue import Overdue
from controller.reconcile.pace import Pace
from controller.reconcile.store import Key, Snapshot, Store
from controller.telemetry.metrics import Metrics


class Ours(TypedDict):
    """Whose journals count as ours, and by which seals that is known."""

    identities: frozenset[str]
    sealing: Sealing | None


@dataclass(frozen=True)
class Context:
    """Shared by all passes of one process."""

    client: KubeClient
    recorder: EventRecorder
    metrics: Metrics
    store: Store
    ledger: Ledger
    orphans: Orphans
    overdue: Overdue
    pace: Pace
    details: Details
    hosts: Mapping[str, Host]
    cluster: str
    now: Callable[[], datetime]
    pulls_last: bool
    """Whether a pull is the last resort (ADR 6)."""
    wake: Callable[[Key], None]
    """Puts a key into the queue."""
    later: Callable[[Key, float], None]
    """Puts a key into the queue after so many seconds, unless it is due earlier."""
    covered: Callable[[Key], None]
    """Says that a run of this key is about to read everything: earlier wake-ups need no other run."""
    seals: Seals | None = None
    """By which keys the records of this cluster are sealed. Without, as in tests, they are written and
    believed as they stand."""
    named: bool = False
    """The identity of this cluster was given, as for one built anew: its key may be another by now."""
    belief: Belief = field(default_factory=Belief)
    whole_fleet: bool = True
    """False when other processes handle other hypervisors: what is not here may be there."""

    def gate(self, hypervisor: str) -> Gate:
        """The known faults of a hypervisor; of one that was never connected, all."""
        host = self.hosts.get(hypervisor)
        facts = host.status.facts if host is not None else None
        return UNKNOWN if facts is None else facts.gate

    def learn(self, before: Snapshot, raw: Raw) -> None:
        """Take in what a request of our own returned of an object.

        It may hold more than we wrote: a deletion, another spec, a finalizer that is gone. The watch's event
        of that is older than this answer and will count as an echo, so the object is woken here.
        """
        key = self.store.put_snapshot(raw)
        if key is None:
            return
        after = self.store.snapshots.get(key)
        if (
            after is None
            or after.parsed.generation != before.parsed.generation
            or after.parsed.deleting != before.parsed.deleting
            or (before.parsed.protected and not after.parsed.protected)
        ):
            self.wake(key)

    def identities(self, hypervisor: str) -> frozenset[str]:
        """Clusters whose journals on this hypervisor count as ours."""
        return frozenset({self.cluster, *self._taken_over(hypervisor)})

    def ours(self, hypervisor: str) -> Ours:
        """Which journals on this hypervisor are ours, and how that is known."""
        over = (*self._taken_over(hypervisor), *((self.cluster,) if self.named else ()))
        sealing = None if self.seals is None else Sealing(self.seals, over)
        return {"identities": self.identities(hypervisor), "sealing": sealing}

    def _taken_over(self, hypervisor: str) -> tuple[str, ...]:
        known = self.store.hypervisor(hypervisor)
        return known.spec.take_over_from if known is not None else ()
