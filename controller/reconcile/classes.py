"""VolumeSnapshotClasses in use go last: a finalizer holds one while it is in force for a VolumeSnapshot.

GitOps tools prune a class and the VolumeSnapshots that use it in one go. Without its class a deletion would
not know what may be written to.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from controller.api import FINALIZER
from controller.api.objects import not_understood
from controller.api.reasons import Reason
from controller.kube.errors import ObjectDeleting
from controller.kube.finalizers import finalizers_of
from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS, Raw, is_deleting, uid_of
from controller.reconcile.context import Context
from controller.reconcile.keys import ClassKey

log = logging.getLogger(__name__)

LINGER_SECONDS = 60.0
"""A class that nobody uses any more keeps the finalizer for so long: the next VolumeSnapshot may be on its
way, and each change of the finalizer is a write."""

_SHOWN = 3


@dataclass
class Classes:
    """Use from one event loop only. All that it remembers may be lost at any time."""

    context: Context
    _unused: dict[str, float] = field(default_factory=dict)
    """By name: since when nobody uses a class that has the finalizer (loop time)."""
    _misread: dict[str, str] = field(default_factory=dict)
    """By UID: why a class could not be read."""
    _told: set[str] = field(default_factory=set)
    """UIDs of classes that are being deleted, and have said what they wait for."""

    async def run(self, key: ClassKey) -> float | None:
        """Hold the class or let it go. Returns seconds until the next look."""
        store = self.context.store.classes
        raw = store.raw(key.name)
        if raw is None:
            self._unused.pop(key.name, None)
            return None
        self._tell_misread(key.name, raw)
        held, deleting = FINALIZER in finalizers_of(raw), is_deleting(raw)
        if store.in_use(key.name):
            self._unused.pop(key.name, None)
            if deleting and held:
                self._tell(key.name, raw)
            elif not deleting and not held:
                await self._hold(raw)
            return None
        if not held:
            self._unused.pop(key.name, None)
            return None
        now = asyncio.get_running_loop().time()
        wait = 0.0 if deleting else self._unused.setdefault(key.name, now) + LINGER_SECONDS - now
        if wait > 0:
            return wait
        await self._let_go(key.name, raw)
        return None

    async def _hold(self, raw: Raw) -> None:
        try:
            after = await self.context.client.add_finalizer(VOLUME_SNAPSHOT_CLASS, raw)
        except ObjectDeleting:
            return  # its deletion is on the way to us as an event; what it said is remembered
        if after is not None:
            self.context.store.classes.put(after)

    async def _let_go(self, name: str, raw: Raw) -> None:
        self._unused.pop(name, None)
        self._told.discard(uid_of(raw))
        after = await self.context.client.remove_finalizer(VOLUME_SNAPSHOT_CLASS, raw)
        if after is not None and not is_deleting(after):
            self.context.store.classes.put(after)

    def _tell_misread(self, name: str, raw: Raw) -> None:
        """A class has no status; those that need it say it as well."""
        fault = self.context.store.classes.fault(name)
        known = self._misread.get(uid_of(raw), "")
        if fault == known:
            return
        self._misread[uid_of(raw)] = fault
        if fault:
            self.context.recorder.warning(raw, Reason.NOT_UNDERSTOOD, "Read", not_understood(fault))

    def _tell(self, name: str, raw: Raw) -> None:
        if uid_of(raw) in self._told:
            return
        self._told.add(uid_of(raw))
        users = [f"{key.namespace}/{key.name}" for key in self.context.store.classes.users(name)]
        shown = ", ".join(users[:_SHOWN]) + (f" and {len(users) - _SHOWN} more" if users[_SHOWN:] else "")
        text = f"it stays until the VolumeSnapshots that use it are gone, or name another class: {shown}"
        self.context.recorder.normal(raw, "ClassInUse", "Delete", text)
