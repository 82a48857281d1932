"""The VolumeSnapshotClasses as last seen, who uses each, and which policy is in force for an object.

A class that is in use goes last (:mod:`controller.reconcile.classes`). One that went all the same, because
somebody stripped its finalizer, is remembered for those that used it, for as long as this process lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from controller.api import DEFAULT_CLASS_ANNOTATION
from controller.api.objects import explain, not_understood
from controller.api.reasons import Reason
from controller.api.volumesnapshot import DeletionPolicy, VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClass, VolumeSnapshotClassSpec
from controller.kube.kinds import Raw, is_deleting, uid_of
from controller.reconcile.keys import ObjectKey, version_of


@dataclass(frozen=True)
class Class:
    """A VolumeSnapshotClass as read: the raw object for writes, the parsed one for decisions."""

    raw: Raw
    parsed: VolumeSnapshotClass

    @property
    def policy(self) -> tuple[object, ...]:
        """All that objects may notice of it."""
        return (self.parsed.spec, self.parsed.marked_default, self.parsed.deleting)


@dataclass(frozen=True)
class ClassFault:
    """Why no class could be told for a VolumeSnapshot. ``gone``: the one that it names does not exist."""

    message: str
    reason: Reason = Reason.CLASS_NOT_FOUND
    gone: bool = False


@dataclass(frozen=True)
class InForce:
    """The policy of one VolumeSnapshot. ``strict``: its class is gone and nobody knows what it protected, so
    no image may be written to."""

    spec: VolumeSnapshotClassSpec
    strict: bool = False


@dataclass
class ClassStore:
    """Use from one event loop."""

    wake: Callable[[str], None] = lambda name: None
    """Called with the name of a class whose use, or whose meaning as the default, may have changed."""
    _classes: dict[str, Class] = field(default_factory=dict)
    _faults: dict[str, tuple[Raw, str]] = field(default_factory=dict)
    _used_by: dict[ObjectKey, str | None] = field(default_factory=dict)
    _users: dict[str | None, set[ObjectKey]] = field(default_factory=dict)
    """By the name in the spec; None: those that name none."""
    _remembered: dict[ObjectKey, VolumeSnapshotClassSpec] = field(default_factory=dict)

    # Taking in -----------------------------------------------------------------------------------------

    def put(self, raw: Raw) -> bool:
        """Take in a class that is there. True when objects may notice a change."""
        name = raw["metadata"]["name"]
        known = self.raw(name)
        if known is not None and version_of(known) > version_of(raw):
            return False
        before = self._meaning(name)
        self._forget(name)
        try:
            self._classes[name] = Class(raw, VolumeSnapshotClass.model_validate(raw))
        except ValidationError as error:
            self._faults[name] = (raw, explain(error))
        news = before != self._meaning(name)
        if news:
            self._wake_all()
        else:
            self.wake(name)
        return news

    def drop(self, raw: Raw) -> bool:
        """A class is gone; one of the same name that came after it stays. True when that is news. Those that
        used it go on with what it said."""
        name = raw["metadata"]["name"]
        known = self.raw(name)
        if known is None or uid_of(known) != uid_of(raw):
            return False
        gone = self._classes.get(name)
        if gone is not None:
            for key in self._all_users(name):
                self._remembered[key] = gone.parsed.spec
        self._forget(name)
        self._wake_all()
        return True

    def use(self, key: ObjectKey, spec: Raw) -> None:
        """A VolumeSnapshot with this spec is there, understood or not."""
        name = spec.get("volumeSnapshotClassName")
        if key in self._used_by and self._used_by[key] == name:
            return
        self.unuse(key)
        self._used_by[key] = name
        users = self._users.setdefault(name, set())
        users.add(key)
        if len(users) == 1:
            self._wake_named(name)

    def unuse(self, key: ObjectKey) -> None:
        """A VolumeSnapshot is gone, or names another class now."""
        self._remembered.pop(key, None)
        if key not in self._used_by:
            return
        name = self._used_by.pop(key)
        self._users[name].discard(key)
        if not self._users[name]:
            del self._users[name]
            self._wake_named(name)

    # Asking --------------------------------------------------------------------------------------------

    def raw(self, name: str) -> Raw | None:
        """The object as last seen."""
        known = self._classes.get(name)
        return known.raw if known is not None else self._faults.get(name, (None, ""))[0]

    def fault(self, name: str) -> str:
        """Why the class cannot be read; empty for one that can, or is not there."""
        return self._faults.get(name, ({}, ""))[1]

    def known(self) -> list[Raw]:
        """All of them, as read."""
        return [*(one.raw for one in self._classes.values()), *(raw for raw, _ in self._faults.values())]

    def specs(self) -> list[VolumeSnapshotClassSpec]:
        """The policies of all."""
        return [one.parsed.spec for one in self._classes.values()]

    def users(self, name: str) -> list[ObjectKey]:
        """The VolumeSnapshots that this class is in force for."""
        return sorted(self._all_users(name))

    def in_use(self, name: str) -> bool:
        """Whether it is in force for any VolumeSnapshot."""
        return bool(self._users.get(name)) or (bool(self._users.get(None)) and name in self._defaults())

    def policy(self, snapshot: VolumeSnapshot) -> VolumeSnapshotClassSpec | ClassFault:
        """The class that applies: the named one, the default one, or the built-in values."""
        wanted = snapshot.spec.volume_snapshot_class_name
        if wanted is not None:
            found = self._classes.get(wanted)
            return found.parsed.spec if found is not None else self._missing(wanted)
        defaults = self._defaults()
        misread = next((name for name in defaults if name in self._faults), None)
        if misread is not None:
            return self._missing(misread)
        if len(defaults) > 1:
            names = ", ".join(defaults)
            return ClassFault(f"more than one class is marked as the default ({names}); leave one")
        if defaults:
            return self._classes[defaults[0]].parsed.spec
        return self._remembered.get(_key(snapshot)) or VolumeSnapshotClassSpec()

    def in_force(self, snapshot: VolumeSnapshot) -> InForce | ClassFault:
        """The policy of a point that is there or was begun. Its deletion must end when its class is gone:
        then by what the class said last, or without writing to any image."""
        found = self.policy(snapshot)
        if not isinstance(found, ClassFault):
            return InForce(found)
        if not found.gone:
            return found
        remembered = self._remembered.get(_key(snapshot))
        if remembered is not None:
            return InForce(remembered)
        kept = snapshot.spec.deletion_policy is DeletionPolicy.RETAIN
        return InForce(VolumeSnapshotClassSpec(), strict=not kept)

    # Inside --------------------------------------------------------------------------------------------

    def _missing(self, name: str) -> ClassFault:
        fault = self._faults.get(name)
        if fault is None:
            return ClassFault(
                f"there is no VolumeSnapshotClass {name}; make it, or name another class", gone=True
            )
        return ClassFault(
            f"VolumeSnapshotClass {name}: {not_understood(fault[1])}", reason=Reason.NOT_UNDERSTOOD
        )

    def _meaning(self, name: str) -> object:
        known = self._classes.get(name)
        return known.policy if known is not None else self._faults.get(name, (None, None))[1]

    def _defaults(self) -> list[str]:
        """Classes that are the default; one that is being deleted only as long as there is no other."""
        marked = sorted(
            [
                *(name for name, one in self._classes.items() if one.parsed.marked_default),
                *(name for name, (raw, _) in self._faults.items() if _is_marked(raw)),
            ]
        )
        staying = [name for name in marked if not is_deleting(self.raw(name) or {"metadata": {}})]
        return staying or marked

    def _all_users(self, name: str) -> set[ObjectKey]:
        unnamed = self._users.get(None, set()) if name in self._defaults() else set()
        return self._users.get(name, set()) | unnamed

    def _forget(self, name: str) -> None:
        self._classes.pop(name, None)
        self._faults.pop(name, None)

    def _wake_named(self, name: str | None) -> None:
        if name is None:
            self._wake_all()
        else:
            self.wake(name)

    def _wake_all(self) -> None:
        for name in (*self._classes, *self._faults):
            self.wake(name)


def _is_marked(raw: Raw) -> bool:
    annotations = raw["metadata"].get("annotations") or {}
    return bool(annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")


def _key(snapshot: VolumeSnapshot) -> ObjectKey:
    return ObjectKey(snapshot.namespace, snapshot.name)
