"""What the benchmark plays on: a lab, the controller from its shipped manifests, and pairs of machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.bare import Bare, EventLoop
from bench.cluster import NAMESPACE, Cluster, Snapshots, cluster_path
from lab import Disk, Host, Lab, Machine, WriterOptions
from lab.controller import Controller
from lab.machines.disk import MEBIBYTE

QUIET_GUEST = WriterOptions(window_sectors=1024, burst=1, dot_every=1)
"""A guest that writes 18 sectors per second: enough to be alive, little enough for a merge to be empty."""

NOW = "now"
SETTLED = "settled"
_CLASSES = {NOW: 0, SETTLED: 1}
"""Classes by name, with their settleSeconds. Both commit, because the bare call beside them does."""


@dataclass(frozen=True)
class Pair:
    """Two machines alike: one for the controller, one for bare calls."""

    protocol: str
    stack: Machine
    bare: Machine


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
        """Two machines with one qcow2 disk of ``size`` bytes each; ``protocol``: file or gluster.

        The bare machine's images lie apart, since the controller looks at what is beside its own.
        """
        ours, bare = f"{name}-stack", f"{name}-bare"
        return Pair(
            protocol,
            self._machine(ours, self._disk(protocol, ours, "gv0", size)),
            self._machine(bare, self._disk(protocol, bare, "bare", size)),
        )

    def machine(self, name: str) -> Machine:
        """A machine with a small file disk."""
        return self._machine(name, Disk.file())

    def _machine(self, name: str, disk: Disk) -> Machine:
        machine = self.host.machine(name, [disk], writer=QUIET_GUEST)
        machine.wait_writing()
        return machine

    def _disk(self, protocol: str, name: str, volume: str, size: int) -> Disk:
        if protocol == "file":
            directory = self.host.images / volume
            directory.mkdir(exist_ok=True)
            return Disk.file(size=size, path=directory / f"{name}.qcow2")
        return Disk.gluster(self.lab.gluster.volume(volume), f"{name}.qcow2", size=size)


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
        bare, snapshots = Bare(lab.host("a")), Snapshots(cluster)
        try:
            yield Stage(lab, controller, cluster, bare, snapshots)
        finally:
            snapshots.close()
            bare.close()
            controller.stop()


def _objects(cluster: Cluster, uri: str) -> None:
    namespace: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.request("POST", "/api/v1/namespaces", namespace)
    access = [{"namespaces": ["*"], "domains": ["*"]}]
    cluster.create(cluster_path("hypervisors"), "Hypervisor", "host-a", {"uri": uri, "access": access})
    for name, seconds in _CLASSES.items():
        spec = {"merge": {"direction": "Commit", "settleSeconds": seconds}}
        cluster.create(cluster_path("volumesnapshotclasses"), "VolumeSnapshotClass", name, spec)
