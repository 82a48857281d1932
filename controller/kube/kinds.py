"""The kinds of Kubernetes object that the controller reads or writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from controller.api import GROUP, VERSION

Raw: TypeAlias = dict[str, Any]
"""One Kubernetes object as decoded JSON, exactly as the API server sent it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object; ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` that objects of this kind carry."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """Where the collection, the object or its subresource is, each segment escaped.

        ``namespace`` None means all namespaces. Raises ValueError when one is missing or given without need.
        """
        if bool(namespace) and not self.namespaced:
            raise ValueError(f"{self.plural} are cluster-scoped, yet a namespace was given: {namespace!r}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.plural}/{name} needs a namespace")
        root = f"/apis/{self.group}" if self.group else "/api"
        segments = [self.version]
        if namespace:
            segments += ["namespaces", namespace]
        segments += [part for part in (self.plural, name, subresource) if part]
        return "/".join([root, *(quote(segment, safe="") for segment in segments)])

    def __str__(self) -> str:
        """``volumesnapshots.varve.dev``, the name that documentation and RBAC use."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


VOLUME_SNAPSHOT = Kind(GROUP, VERSION, "volumesnapshots", "VolumeSnapshot", namespaced=True)
VOLUME_SNAPSHOT_CLASS = Kind(GROUP, VERSION, "volumesnapshotclasses", "VolumeSnapshotClass", namespaced=False)
VOLUME_CHAIN = Kind(GROUP, VERSION, "volumechains", "VolumeChain", namespaced=True)
HYPERVISOR = Kind(GROUP, VERSION, "hypervisors", "Hypervisor", namespaced=False)
WATCHED = (HYPERVISOR, VOLUME_SNAPSHOT_CLASS, VOLUME_CHAIN, VOLUME_SNAPSHOT)
"""What the controller watches."""

NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
SECRET = Kind("", "v1", "secrets", "Secret", namespaced=True)
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
EVENT = Kind("events.k8s.io", "v1", "events", "Event", namespaced=True)


def name_of(raw: Raw) -> tuple[str | None, str]:
    """Namespace (None when cluster-scoped) and name of an object."""
    meta = raw["metadata"]
    return meta.get("namespace"), meta["name"]


def uid_of(raw: Raw) -> str:
    """The UID that tells an object from a later one of the same name."""
    uid: str = raw["metadata"]["uid"]
    return uid


def is_deleting(raw: Raw) -> bool:
    """Whether its deletion was asked for: it goes as soon as its last finalizer is removed."""
    return bool(raw["metadata"].get("deletionTimestamp"))
