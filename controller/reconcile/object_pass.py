"""The pass over one VolumeSnapshot that is not known to mean a domain yet: resolve it, or say why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from controller.api.conditions import SNAPSHOT_CONDITIONS, Fact, State, Truth, Verdict
from controller.api.reasons import Reason
from controller.kube.kinds import VOLUME_SNAPSHOT
from controller.reconcile.context import Context
from controller.reconcile.misread import report_misread
from controller.reconcile.news import is_news
from controller.reconcile.report import RESOLVED, unresolved_status
from controller.reconcile.reporter import write_status
from controller.reconcile.resolution import Resolution
from controller.reconcile.resolve import Found, NotFound
from controller.reconcile.shares import Limits
from controller.reconcile.store import DomainKey, ObjectKey, Snapshot

GONE_AFTER_SECONDS = 60.0
"""A deleted VolumeSnapshot whose domain no connected hypervisor has goes after so long."""

_WAIT_SECONDS = 30.0

_OTHER_PROCESSES = (
    "This controller handles some of the hypervisors only and cannot tell whether the domain is gone for "
    "good: if it is, docs/operations.md, section A deletion does not end, has the last way out"
)


_OFTEN = 256
"""So many VolumeSnapshots of a namespace that have no domain are looked at in :data:`_WAIT_SECONDS`."""


@dataclass
class Nowhere:
    """The VolumeSnapshots that have no domain, which are looked at again and again."""

    _keys: set[ObjectKey] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, key: ObjectKey) -> None:
        """This one has none."""
        self._counts[key.namespace] += key not in self._keys
        self._keys.add(key)

    def drop(self, key: ObjectKey) -> None:
        """This one has one, or is gone."""
        if key in self._keys:
            self._keys.remove(key)
            self._counts[key.namespace] -= 1
            if not self._counts[key.namespace]:
                del self._counts[key.namespace]

    def stretch(self, namespace: str) -> float:
        """How many times as long as others those of a namespace wait. News wakes them all the same."""
        return max(1.0, self._counts[namespace] / _OFTEN)


@dataclass
class ObjectPasses:
    """Resolves VolumeSnapshots; remembers since when a domain is gone."""

    context: Context
    resolution: Resolution
    _gone_since: dict[ObjectKey, float] = field(default_factory=dict)
    _nowhere: Nowhere = field(default_factory=Nowhere)

    async def run(self, key: ObjectKey, monotonic: float) -> float | None:
        """Bind the object to its domain and wake the domain, or report why there is none. Returns seconds
        until the next look. ``monotonic`` is the time of a clock that is never set back, in seconds."""
        store = self.context.store
        bound = store.bound(key)
        snapshot = store.snapshots.get(key)
        if snapshot is None:
            self._forget(key, bound)
            await self._misread(key)
            return None
        found = self.resolution.of(snapshot.parsed)
        if isinstance(found, Found):
            self._gone_since.pop(key, None)
            domain = DomainKey(found.hypervisor, found.domain.uuid)
            if bound is not None and bound != domain:
                self.context.wake(bound)
            self._nowhere.drop(key)
            if not store.bind(key, domain):
                return await self._tell(
                    snapshot, _over_quota(snapshot, found, store.shares.limits()), monotonic
                )
            self.context.pace.forget(key)
            self.context.wake(domain)
            return None
        self._unbind(key, bound)
        self._nowhere.add(key)
        if self.resolution.is_early(found) or not self.resolution.is_ours(snapshot.parsed):
            return _WAIT_SECONDS
        return await self._unresolved(key, snapshot, found, monotonic)

    def bind(self, keys: Iterable[object]) -> None:
        """Bind those of the objects that mean a domain now, before the first pass over it begins: what is
        wanted together is taken together. Their own passes do the rest."""
        store = self.context.store
        unbound = (key for key in keys if isinstance(key, ObjectKey) and store.bound(key) is None)
        known = [store.snapshots[key] for key in unbound if key in store.snapshots]
        for snapshot in sorted(known, key=_turn):
            found = self.resolution.of(snapshot.parsed)
            if isinstance(found, Found):
                store.bind(snapshot.key, DomainKey(found.hypervisor, found.domain.uuid))

    async def _unresolved(
        self, key: ObjectKey, snapshot: Snapshot, found: NotFound, monotonic: float
    ) -> float:
        deleting = snapshot.parsed.deleting
        wait = longest = _WAIT_SECONDS * self._nowhere.stretch(key.namespace)
        if deleting and found.gone:
            since = self._gone_since.setdefault(key, monotonic)
            wait = since + GONE_AFTER_SECONDS - monotonic
            if wait <= 0:
                await self._let_go(snapshot, found)
                return _WAIT_SECONDS
        else:
            self._gone_since.pop(key, None)
        if deleting:
            state = State.DELETING_STALLED if found.stalled and not found.gone else State.DELETING
        else:
            state = State.STALLED if found.stalled else State.WAITING
        message = found.message
        if deleting and not (found.gone or self.context.whole_fleet):
            message += f". {_OTHER_PROCESSES}"
        resolved = Fact(Truth.FALSE, found.reason, message)
        chain = Fact(Truth.UNKNOWN, found.reason, message)
        verdict = Verdict(state, found.reason, message, resolved=resolved, chain_in_sync=chain)
        if not (deleting and found.gone):  # which goes by itself
            before, overdue = snapshot.parsed.status.conditions, self.context.overdue
            verdict = overdue.judged(key, snapshot.parsed.uid, verdict, before)
            wait = overdue.left(key) or wait
        paced = await self._tell(snapshot, verdict, monotonic)
        return paced or min(wait, longest)

    async def _tell(self, snapshot: Snapshot, verdict: Verdict, monotonic: float) -> float | None:
        """Write the verdict if it is news, in the namespace's turn; returns the seconds until then."""
        status, pace = unresolved_status(snapshot.parsed, verdict, self.context.now()), self.context.pace
        if not is_news(snapshot.parsed.status.to_api(), status.to_api()):
            pace.forget(snapshot.key)
            return None
        wait = pace.wait(snapshot.key.namespace, snapshot.key, monotonic)
        if wait:
            return wait
        await write_status(self.context, snapshot, status)
        return None

    async def _let_go(self, snapshot: Snapshot, found: NotFound) -> None:
        """The domain is gone for good: the object goes, and an event names what it leaves behind."""
        if not snapshot.parsed.protected:
            return
        layer = snapshot.parsed.status.layer
        image = layer.source if layer is not None and layer.source else "none that its status names"
        self.context.recorder.warning(
            snapshot.raw,
            Reason.DOMAIN_NOT_FOUND,
            "Delete",
            f"the domain is gone; its images were left as they are (the point's: {image}). {found.message}",
        )
        raw = await self.context.client.remove_finalizer(VOLUME_SNAPSHOT, snapshot.raw)
        if raw is not None:
            self.context.learn(snapshot, raw)

    def _forget(self, key: ObjectKey, bound: DomainKey | None) -> None:
        self._gone_since.pop(key, None)
        self._nowhere.drop(key)
        self.context.overdue.forget(key)
        self.context.pace.forget(key)
        self._unbind(key, bound)

    async def _misread(self, key: ObjectKey) -> None:
        """One that cannot be read says so, and keeps our finalizer. Of a fleet that several processes share
        only that one speaks whose hypervisor it is on: another may be newer, and understand it."""
        store = self.context.store
        broken = store.unreadable.get(key)
        if broken is None:
            return
        status, spec = broken.raw.get("status") or {}, broken.raw.get("spec") or {}
        named = (spec.get("source") or {}).get("hypervisor")
        named = named or (status.get("resolved") or {}).get("hypervisor")
        if not self.context.whole_fleet and named not in store.hypervisors:
            return
        after = await report_misread(
            self.context, VOLUME_SNAPSHOT, broken.raw, broken.fault, SNAPSHOT_CONDITIONS
        )
        if after is not None:
            store.put_snapshot(after)

    def _unbind(self, key: ObjectKey, bound: DomainKey | None) -> None:
        self.context.store.bind(key, None)
        if bound is not None:
            self.context.wake(bound)


def _turn(snapshot: Snapshot) -> tuple[bool, datetime, ObjectKey]:
    """In which order those that come together are bound: what was begun first, then the oldest."""
    made = snapshot.parsed.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC)
    return (not snapshot.parsed.protected, made, snapshot.key)


def _over_quota(snapshot: Snapshot, found: Found, limits: Limits) -> Verdict:
    """What is said of one for which there is no room among those of its namespace."""
    parsed = snapshot.parsed
    state = State.DELETING if parsed.deleting else State.WAITING
    message = (
        f"namespace {parsed.namespace} has as many VolumeSnapshots of disk {parsed.spec.source.disk} or of "
        f"domain {found.domain.name} as are acted on at a time ({limits.disk} and {limits.domain}): "
        f"delete those that are not needed; this one goes on by itself then"
    )
    unknown = Fact(Truth.UNKNOWN, Reason.QUOTA_EXCEEDED, message)
    return Verdict(state, Reason.QUOTA_EXCEEDED, message, resolved=RESOLVED, chain_in_sync=unknown)
