"""What the benchmark plays on: a lab, the controller from its shipped manifests, and pairs of machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.bare import Bare, EventLoop
from bench.cluster import NAMESPACE, Cluster, Snapshots, cluster_path
from lab import Disk, Host, ImageSource, Lab, Machine, WriterOptions
from lab.controller import Controller
from lab.machines.disk import MEBIBYTE

QUIET_GUEST = WriterOptions(window_sectors=1024, burst=1, dot_every=1)
"""A guest that writes 18 sectors per second: enough to be alive, little enough for a merge to be empty."""

LAYERS = 2
"""Layers that a round puts on a disk."""

WITHOUT_BESIDE = frozenset({"nbd", "iscsi"})
"""Disks whose layers go to exports and LUNs that were made beforehand."""

_TABLES = 4 * MEBIBYTE
"""Room for qcow2's own tables."""

NOW = "now"
SETTLED = "settled"
_CLASSES = {NOW: 0, SETTLED: 1}
"""Classes by name, with their settleSeconds. Both commit, because the bare call beside them does."""


@dataclass(frozen=True)
class Side:
    """One of two machines alike, and where its layers go.

    With ``places``, each layer of a round goes to one of them: beside such a disk no image can be made.
    """

    machine: Machine
    places: tuple[ImageSource, ...] = ()

    def place(self, number: int) -> ImageSource | None:
        """Where layer ``number`` of a round goes; None: beside the active one, under a new name."""
        return self.places[number] if self.places else None


@dataclass(frozen=True)
class Pair:
    """One machine for the controller, one for bare calls."""

    protocol: str
    stack: Side
    bare: Side


class Stage:
    """Everything that runs. Made by :func:`stage`."""

    def __init__(
        self, lab: Lab, controller: Controller, cluster: Cluster, bare: Bare, snapshots: Snapshots
    ) -> None:
        self.lab = lab
        self.controller = controller
        self.bare = bare
        self.snapshots = snapshots
        self._cluster = cluster

    @property
    def host(self) -> Host:
        """The hypervisor that everything runs on."""
        return self.lab.host("a")

    def kubernetes_version(self) -> str:
        """The API server's."""
        return str(self._cluster.request("GET", "/version")["gitVersion"])

    def pair(self, protocol: str, name: str, *, size: int = 16 * MEBIBYTE) -> Pair:
        """Two machines with one qcow2 disk of ``size`` bytes each.

        The bare machine's images lie apart, since the controller looks at what is beside its own.
        """
        return Pair(
            protocol,
            self._side(protocol, f"{name}-stack", "gv0", size),
            self._side(protocol, f"{name}-bare", "bare", size),
        )

    def machine(self, name: str) -> Machine:
        """A machine with a small file disk."""
        return self._machine(name, Disk.file())

    def _machine(self, name: str, disk: Disk) -> Machine:
        machine = self.host.machine(name, [disk], writer=QUIET_GUEST)
        machine.wait_writing()
        return machine

    def _side(self, protocol: str, name: str, volume: str, size: int) -> Side:
        machine = self._machine(name, self._disk(protocol, name, volume, size))
        if protocol not in WITHOUT_BESIDE:
            return Side(machine)
        room = size + _TABLES
        places = (self.lab.place(protocol, f"{name}-{number}", room=room) for number in range(LAYERS))
        return Side(machine, tuple(places))

    def _disk(self, protocol: str, name: str, volume: str, size: int) -> Disk:
        if protocol == "file":
            directory = self.host.images / volume
            directory.mkdir(exist_ok=True)
            return Disk.file(size=size, path=directory / f"{name}.qcow2")
        if protocol == "gluster":
            return Disk.gluster(self.lab.gluster.volume(volume), f"{name}.qcow2", size=size)
        return self.lab.disk(protocol, name, size=size)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Start everything; end it with the block."""
    EventLoop()
    with Lab() as lab:
        controller = Controller(lab)
        controller.install()
        controller.start()
        cluster = Cluster(controller.plane)
        _objects(cluster, lab.host("a").uri)
        bare, snapshots = Bare(lab.host("a"), lab.access), Snapshots(cluster)
        try:
            yield Stage(lab, controller, cluster, bare, snapshots)
        finally:
            snapshots.close()
            bare.close()
            controller.stop()


def _objects(cluster: Cluster, uri: str) -> None:
    namespace: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.request("POST", "/api/v1/namespaces", namespace)
    access = [{"namespaces": ["*"], "domains": ["*"], "overlays": ["*", "/dev/*"]}]
    cluster.create(cluster_path("hypervisors"), "Hypervisor", "host-a", {"uri": uri, "access": access})
    for name, seconds in _CLASSES.items():
        # As many layers as may be, because so many objects of one disk follow from that (ADR 18).
        spec = {"maxLayers": 200, "merge": {"direction": "Commit", "settleSeconds": seconds}}
        cluster.create(cluster_path("volumesnapshotclasses"), "VolumeSnapshotClass", name, spec)
