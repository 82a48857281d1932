"""Who is looked at after what: watch events, libvirt events and news of hypervisors put keys into the queue.

None of them is trusted to arrive, to arrive once, or to be true any more; a pass finds out for itself.
"""

from __future__ import annotations

from controller.api.hypervisor import Hypervisor
from controller.hypervisor.driver import (
    Answered,
    DeviceChanged,
    Event,
    IOFailed,
    JobChanged,
    JobStatus,
    Lifecycle,
    LifecycleKind,
)
from controller.kube.kinds import (
    HYPERVISOR,
    VOLUME_CHAIN,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    Kind,
    Raw,
)
from controller.reconcile.context import Context
from controller.reconcile.fleet import Fleet
from controller.reconcile.keys import ChainKey
from controller.reconcile.ledger import JOB_ENDED
from controller.reconcile.object_pass import ObjectPasses
from controller.reconcile.store import DomainKey, HypervisorKey, InventoryKey, Key, ObjectKey

_SETTLES = 2.0
"""Seconds from the news of one domain to the look at those that wait for others: such news comes in bursts,
and each look reads the definitions of all."""

_RELEASES = {LifecycleKind.DEFINED, LifecycleKind.STOPPED, LifecycleKind.UNDEFINED}
"""After these a machine may use fewer images than before."""


class Wakeups:
    """Turns news into keys. Use from one event loop."""

    def __init__(self, context: Context, fleet: Fleet, objects: ObjectPasses) -> None:
        self._context = context
        self._fleet = fleet
        self._objects = objects
        self._connected: dict[str, bool] = {}
        self._told: dict[str, tuple[bool, bool]] = {}
        """By hypervisor, whether it was tried and whether all its domains are known."""
        self.unresolved: set[ObjectKey | ChainKey] = set()
        """What has not found its domain: any domain that comes may be the one."""

    # Kubernetes ----------------------------------------------------------------------------------------

    def on_object(self, kind: Kind, event_type: str | None, raw: Raw) -> None:
        """Take note of a watch event."""
        store, gone = self._context.store, event_type == "DELETED"
        if kind == VOLUME_SNAPSHOT:
            key = store.drop_snapshot(raw) if gone else store.put_snapshot(raw)
            if key is not None:
                self._context.wake(key)
        elif kind == VOLUME_SNAPSHOT_CLASS:
            news = store.classes.drop(raw) if gone else store.classes.put(raw)
            if news:
                self._wake_all()
        elif kind == VOLUME_CHAIN:
            chain = store.chains.drop(raw) if gone else store.chains.put(raw)
            if chain is not None:
                self._context.wake(chain)
        elif kind == HYPERVISOR:
            self._on_hypervisor(raw, gone=gone)

    def _on_hypervisor(self, raw: Raw, *, gone: bool) -> None:
        store, name = self._context.store, raw["metadata"]["name"]
        before = store.hypervisors.get(name)
        if gone:
            store.hypervisors.pop(name, None)
            self._fleet.drop(name)
        else:
            store.put_hypervisor(raw)
            parsed = store.hypervisors[name][1]
            if isinstance(parsed, Hypervisor):
                self._fleet.put(parsed)
            else:
                self._fleet.drop(name)
        self._context.wake(HypervisorKey(name))
        after = store.hypervisors.get(name)
        if _spec(before) != _spec(after):
            self._wake_all()

    # libvirt -------------------------------------------------------------------------------------------

    def on_event(self, hypervisor: str, event: Event) -> None:
        """A libvirt event: look at its domain, and at whatever waits for a domain like it, or for others."""
        if isinstance(event, Lifecycle | JobChanged | IOFailed | DeviceChanged | Answered):
            key = DomainKey(hypervisor, event.uuid)
            if self.means_something(key):
                self._context.wake(key)
            if isinstance(event, JobChanged) and event.status is JobStatus.COMPLETED:
                self._context.ledger.saw_job(key, event.target, event.kind)
            if isinstance(event, JobChanged) and event.status in (JobStatus.FAILED, JobStatus.CANCELED):
                self._context.ledger.job_failed(key, event.target, JOB_ENDED[event.status])
        if isinstance(event, Answered) or (isinstance(event, DeviceChanged) and not event.plugged):
            self._wake_held()
        if isinstance(event, Lifecycle):
            # It may have come from another hypervisor, or gone to one.
            for name in self._fleet.hosts:
                self.resolve_anew(DomainKey(name, event.uuid))
            self._wake_unresolved()
            if event.kind in _RELEASES:
                self._wake_held()

    def on_host(self, hypervisor: str) -> None:
        """The connection or the inventory of a hypervisor changed."""
        self._fleet.gauge(hypervisor)
        self._context.wake(HypervisorKey(hypervisor))
        host = self._fleet.hosts.get(hypervisor)
        told = (host is not None and host.status.tried, host is not None and host.status.synced)
        self._wake_unresolved(all_=self._told.get(hypervisor) != told or not all(told))
        self._told[hypervisor] = told
        connected = host is not None and host.status.connected
        changed = self._connected.get(hypervisor) != connected
        self._connected[hypervisor] = connected
        if changed:
            self._context.ledger.missed_events(hypervisor)
        if changed and connected:
            self._context.wake(InventoryKey(hypervisor))
            self._wake_held()
        for key in {*self._context.store.domains(), *self._context.store.chains.domains()}:
            if key.hypervisor != hypervisor:
                continue
            if changed:
                self._context.wake(key)
            if host is not None and host.status.synced and host.find_by_uuid(key.uuid) is None:
                self.resolve_anew(key)

    # What is woken -------------------------------------------------------------------------------------

    def means_something(self, domain: DomainKey) -> bool:
        """Whether an object is about this domain."""
        store = self._context.store
        return bool(store.members(domain) or store.chains.of(domain))

    def resolve_anew(self, domain: DomainKey) -> None:
        """Let the objects of a domain find it again, here or elsewhere."""
        for snapshot in self._context.store.everyone(domain):
            self._context.wake(snapshot.key)
        for key in self._context.store.chains.everyone(domain):
            self._context.wake(key)

    def _wake_unresolved(self, *, all_: bool = False) -> None:
        """Those that may mean a domain that is there now; with ``all_`` those too that only say something
        else now, such as that a hypervisor is away."""
        keys = [key for key in self.unresolved if all_ or self._may_be_there(key)]
        self._objects.bind(keys)
        for key in keys:
            self._context.wake(key)

    def _may_be_there(self, key: ObjectKey | ChainKey) -> bool:
        """Whether a hypervisor has a domain of the name or UUID that the object names, or was found to."""
        store = self._context.store
        known = store.snapshots.get(key) if isinstance(key, ObjectKey) else store.chains.chains.get(key)
        if known is None:
            return True
        source, resolved = known.parsed.spec.source, known.parsed.status.resolved
        uuids = [uuid for uuid in (source.domain_uuid, resolved and resolved.domain_uuid) if uuid]
        return any(
            (source.domain is not None and host.find_by_name(source.domain) is not None)
            or any(host.find_by_uuid(uuid.lower()) is not None for uuid in uuids)
            for host in self._fleet.hosts.values()
        )

    def _wake_held(self) -> None:
        """Domains that wait because of what other machines use, or because a hypervisor could not say."""
        for key in self._context.ledger.held_by_others():
            self._context.later(key, _SETTLES)

    def _wake_all(self) -> None:
        keys: list[Key] = [*self._context.store.chains.chains, *self._context.store.snapshots]
        for key in keys:
            self._context.wake(key)


def _spec(known: tuple[Raw, Hypervisor | str] | None) -> object:
    return known[0].get("spec") if known else None
