"""What the watches told of our objects: a hint to work from, never the last word before an act.

Objects are kept parsed, newest version first come. A watch event that is older than what a write of our own
returned is ignored, so a pass never reports from a status that it has already replaced.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from controller.api.hypervisor import Hypervisor
from controller.api.objects import explain
from controller.api.volumesnapshot import Source, VolumeSnapshot
from controller.kube.finalizers import finalizers_of
from controller.kube.kinds import (
    HYPERVISOR,
    VOLUME_CHAIN,
    VOLUME_SNAPSHOT,
    Kind,
    Raw,
    is_deleting,
    uid_of,
)
from controller.kube.trim import bare
from controller.reconcile.chain_store import ChainStore
from controller.reconcile.class_store import ClassStore
from controller.reconcile.keys import DomainKey, HypervisorKey, InventoryKey, Key, ObjectKey, version_of
from controller.reconcile.shares import Claim, Shares, snapshot_limits

__all__ = ["DomainKey", "HypervisorKey", "InventoryKey", "Key", "ObjectKey", "Snapshot", "Store"]


MOST_ENDED = 4096
"""So many objects whose end a write of our own has shown are remembered."""

Words = tuple[str | None, ...]
"""A source as it is written."""


@dataclass(frozen=True)
class Snapshot:
    """A VolumeSnapshot as read: what writes need of the raw object, the parsed one for decisions."""

    raw: Raw
    parsed: VolumeSnapshot

    @property
    def key(self) -> ObjectKey:
        """Its namespace and name."""
        return ObjectKey(self.parsed.namespace, self.parsed.name)


@dataclass(frozen=True)
class Unreadable:
    """An object that this version cannot understand; the CRD normally refuses such a thing."""

    raw: Raw
    fault: str


@dataclass
class Store:
    """All objects of the four kinds, and which domain each VolumeSnapshot was found to mean."""

    snapshots: dict[ObjectKey, Snapshot] = field(default_factory=dict)
    unreadable: dict[ObjectKey, Unreadable] = field(default_factory=dict)
    classes: ClassStore = field(default_factory=ClassStore)
    hypervisors: dict[str, tuple[Raw, Hypervisor | str]] = field(default_factory=dict)
    chains: ChainStore = field(default_factory=ChainStore)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    shares: Shares[ObjectKey] = field(default_factory=lambda: Shares(lambda: snapshot_limits(0)))
    _deletions: dict[str, datetime] = field(default_factory=dict)
    _ended: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """UIDs of those that our own write let go: an older event of one may come later, and is no object."""
    _named: Counter[tuple[str, Words]] = field(default_factory=Counter)
    """How many VolumeSnapshots of a namespace have a source in these words."""

    # Taking in -----------------------------------------------------------------------------------------

    def put_snapshot(self, raw: Raw) -> ObjectKey | None:
        """Take in a VolumeSnapshot that is there. Returns None when this version, or a newer one, is known
        already: the echo of a write of our own is no reason to look again."""
        meta = raw["metadata"]
        key = ObjectKey(meta.get("namespace", ""), meta["name"])
        known = self.snapshots.get(key) or self.unreadable.get(key)
        if known is not None and version_of(known.raw) >= version_of(raw):
            return None
        if uid_of(raw) in self._ended:
            return None
        if is_deleting(raw) and not finalizers_of(raw):
            self._ended[uid_of(raw)] = None
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)
            return self.drop_snapshot(raw)  # what our own write returned is the last of it
        self.classes.use(key, raw.get("spec") or {})
        self._forget(key)
        try:
            parsed = VolumeSnapshot.model_validate(raw)
            self.snapshots[key] = Snapshot(bare(raw), parsed)
            self._named[key.namespace, _words(parsed.spec.source)] += 1
        except ValidationError as error:
            self.unreadable[key] = Unreadable(raw, explain(error))
        return key

    def drop_snapshot(self, raw: Raw) -> ObjectKey:
        """A VolumeSnapshot is gone; one of the same name that came after it stays."""
        meta = raw["metadata"]
        key = ObjectKey(meta.get("namespace", ""), meta["name"])
        known = self.snapshots.get(key) or self.unreadable.get(key)
        if known is not None and uid_of(known.raw) == uid_of(raw):
            self._forget(key)
            self._deletions.pop(uid_of(raw), None)
            self.classes.unuse(key)
        return key

    def _forget(self, key: ObjectKey) -> None:
        self.unreadable.pop(key, None)
        known = self.snapshots.pop(key, None)
        if known is not None:
            place = (key.namespace, _words(known.parsed.spec.source))
            self._named[place] -= 1
            if not self._named[place]:
                del self._named[place]

    def put_hypervisor(self, raw: Raw) -> None:
        """Take in a Hypervisor; what is wrong with it is kept in its place."""
        name = raw["metadata"]["name"]
        known = self.hypervisors.get(name)
        if known is not None and version_of(known[0]) > version_of(raw) and uid_of(known[0]) == uid_of(raw):
            return
        try:
            self.hypervisors[name] = (raw, Hypervisor.model_validate(raw))
        except ValidationError as error:
            self.hypervisors[name] = (raw, explain(error))

    def deleted_at(self, snapshot: VolumeSnapshot) -> datetime | None:
        """When the deletion was asked for. Its timestamp has whole seconds, so that a deletion of this very
        second would have settled before it was made; then the moment at which it was seen counts."""
        stamp = snapshot.metadata.deletion_timestamp
        if stamp is None:
            return None
        seen = self._deletions.setdefault(snapshot.uid, self.now())
        return seen if (seen - stamp).total_seconds() < 1 else stamp

    # Asking --------------------------------------------------------------------------------------------

    def known(self, kind: Kind) -> list[Raw]:
        """All objects of a kind that are known, with at least their name and UID."""
        if kind == VOLUME_SNAPSHOT:
            return [
                *(one.raw for one in self.snapshots.values()),
                *(one.raw for one in self.unreadable.values()),
            ]
        if kind == HYPERVISOR:
            return [raw for raw, _ in self.hypervisors.values()]
        if kind == VOLUME_CHAIN:
            return self.chains.known()
        return self.classes.known()

    def hypervisor(self, name: str) -> Hypervisor | None:
        """The Hypervisor of this name, if there is one that could be read."""
        known = self.hypervisors.get(name)
        return known[1] if known is not None and isinstance(known[1], Hypervisor) else None

    def misread_hypervisors(self) -> list[str]:
        """Names of the Hypervisor objects that could not be read: nobody knows what is there."""
        return sorted(name for name, (_, parsed) in self.hypervisors.items() if isinstance(parsed, str))

    def valid_hypervisors(self) -> Iterator[Hypervisor]:
        """All Hypervisor objects that could be read."""
        for _, parsed in self.hypervisors.values():
            if isinstance(parsed, Hypervisor):
                yield parsed

    def is_named(self, namespace: str, source: Source) -> bool:
        """Whether a VolumeSnapshot of the namespace has this very source."""
        return (namespace, _words(source)) in self._named

    # Bindings ------------------------------------------------------------------------------------------

    def bound(self, key: ObjectKey) -> DomainKey | None:
        """The domain that the object was last found to mean."""
        return self.shares.domain_of(key)

    def bind(self, key: ObjectKey, domain: DomainKey | None) -> bool:
        """Remember which domain the object means; None for none. False when it must wait for its turn."""
        snapshot = self.snapshots.get(key)
        if domain is None or snapshot is None:
            self.shares.drop(key)
            return True
        parsed = snapshot.parsed
        holds = parsed.status.creation_time is not None or parsed.status.layer is not None
        disk = parsed.spec.source.disk
        claim = Claim(domain, key.namespace, disk, leaving=parsed.deleting, holds=holds)
        return self.shares.put(key, claim)

    def members(self, domain: DomainKey) -> list[Snapshot]:
        """The VolumeSnapshots that mean this domain and are acted on."""
        keys = sorted(self.shares.admitted(domain))
        return [self.snapshots[key] for key in keys if key in self.snapshots]

    def everyone(self, domain: DomainKey) -> list[Snapshot]:
        """The VolumeSnapshots that mean this domain, those included that wait for their turn."""
        return [self.snapshots[key] for key in self.shares.everyone(domain) if key in self.snapshots]

    def domains(self) -> list[DomainKey]:
        """All domains that some VolumeSnapshot means."""
        return self.shares.domains()


def _words(source: Source) -> Words:
    return (source.domain, source.domain_uuid, source.disk, source.hypervisor)
