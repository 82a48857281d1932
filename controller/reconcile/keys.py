"""The keys of the queue: what a pass is about."""

from __future__ import annotations

from dataclasses import dataclass

from controller.kube.kinds import Raw


@dataclass(frozen=True, order=True)
class DomainKey:
    """One domain on one hypervisor: the key of a pass."""

    hypervisor: str
    uuid: str


@dataclass(frozen=True, order=True)
class ObjectKey:
    """One VolumeSnapshot by namespace and name: the key of its resolution."""

    namespace: str
    name: str


@dataclass(frozen=True, order=True)
class HypervisorKey:
    """One Hypervisor object: the key of its report."""

    name: str


@dataclass(frozen=True, order=True)
class InventoryKey:
    """One hypervisor, whose journals are all read once."""

    hypervisor: str


@dataclass(frozen=True, order=True)
class ChainKey:
    """One VolumeChain by namespace and name: the key of its resolution."""

    namespace: str
    name: str


@dataclass(frozen=True, order=True)
class ReportKey:
    """One domain on one hypervisor: the key of what its VolumeChains say."""

    hypervisor: str
    uuid: str


@dataclass(frozen=True, order=True)
class ClassKey:
    """One VolumeSnapshotClass by name: the key of whether it is held."""

    name: str


Key = DomainKey | ObjectKey | HypervisorKey | InventoryKey | ChainKey | ReportKey | ClassKey


def version_of(raw: Raw) -> int:
    """The resourceVersion as a number (0 when it is not one): larger is newer for objects of one kind."""
    version = str(raw["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else 0
