"""Resolution with what is known now: the Hypervisors, and the inventories of those that are connected."""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.hypervisor import Hypervisor
from controller.api.reasons import Reason
from controller.reconcile.context import Context
from controller.reconcile.resolve import Candidate, Found, NotFound, Sourced, resolve


@dataclass(frozen=True)
class Resolution:
    """Which domain an object means at this moment."""

    context: Context

    def of(self, sourced: Sourced) -> Found | NotFound:
        """The domain, or why there is none. Of a fleet that several processes share none is gone for good."""
        found = resolve(sourced, self._candidates(), self.context.store.misread_hypervisors())
        if isinstance(found, NotFound) and not self.context.whole_fleet:
            return NotFound(found.reason, found.message, stalled=found.stalled, gone=False)
        return found

    def is_early(self, found: NotFound) -> bool:
        """A hypervisor is being asked for the first time; its answer wakes the object. Without this, each
        start of a controller would call every point unreachable for a moment."""
        away = found.reason is Reason.HYPERVISOR_UNREACHABLE
        return away and any(not host.status.tried for host in self.context.hosts.values())

    def is_ours(self, sourced: Sourced) -> bool:
        """Of a fleet that several processes share, each speaks only of what names one of its hypervisors."""
        known = sourced.status.resolved.hypervisor if sourced.status.resolved else None
        named = sourced.spec.source.hypervisor or known
        return self.context.whole_fleet or named in self.context.store.hypervisors

    def _candidates(self) -> list[Candidate]:
        return [self._candidate(hypervisor) for hypervisor in self.context.store.valid_hypervisors()]

    def _candidate(self, hypervisor: Hypervisor) -> Candidate:
        host = self.context.hosts.get(hypervisor.name)
        known = host is not None and host.status.connected and host.status.synced
        return Candidate(hypervisor, host, known)
