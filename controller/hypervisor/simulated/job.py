"""Block jobs: which clusters each copies, and what completion does to headers and graph.

Copies happen cluster by cluster, as in life: a commit that was aborted or killed halfway has already changed
the lower image, so the point that lived there is spoiled while the guest's content is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from controller.chain.observation import JobKind
from controller.hypervisor.driver import BlockJob
from controller.hypervisor.simulated.image import (
    CLUSTER_BYTES,
    Backing,
    Image,
    absolute_name,
    relative_name,
)

if TYPE_CHECKING:
    from controller.hypervisor.simulated.machine import LiveDisk, Node


class Job(ABC):
    """One running job on ``disk``. ``todo`` are the clusters not yet copied, in the order of copying."""

    kind: JobKind
    mirrored: Image | None = None
    """The image that ``<mirror>`` names, for the kinds that have one."""

    def __init__(self, disk: LiveDisk, todo: set[int], bandwidth: int) -> None:
        self.disk = disk
        self.todo = sorted(todo)
        self.bandwidth = bandwidth
        self.copied = 0
        self.ready = False
        self.noted = True
        """False: libvirtd died before it noted more than that the job is to begin. It shows no mirror."""
        self.leaving: tuple[Node, ...] = ()
        """The layers that libvirt lists no more when the job has ended well."""

    def advance(self, clusters: int | None) -> bool:
        """Copy up to ``clusters`` more (None: all). True when nothing is left to copy."""
        batch = self.todo if clusters is None else self.todo[:clusters]
        self.todo = self.todo[len(batch) :]
        for cluster in batch:
            self._copy(cluster)
        self.copied += len(batch)
        return not self.todo

    def info(self) -> BlockJob:
        """virDomainGetBlockJobInfo; the end of a commit below or a pull is the virtual size."""
        end = self.disk.active.image.capacity
        return BlockJob(self.kind, min(self.copied * CLUSTER_BYTES, end), end, self.bandwidth)

    def written(self, cluster: int) -> None:  # noqa: B027 - most jobs do not care what the guest writes
        """The guest wrote this cluster of the active layer."""

    @abstractmethod
    def _copy(self, cluster: int) -> None: ...

    @abstractmethod
    def complete(self) -> None:
        """Rewrite headers and QEMU's graph. All clusters are copied."""


def _value(nodes: list[Node], cluster: int) -> int | None:
    """The topmost value of a cluster in ``nodes``; None when none of them allocates it."""
    for node in nodes:
        value = node.get(cluster)
        if value is not None:
            return value
    return None


def _allocated(nodes: list[Node]) -> set[int]:
    return {cluster for node in nodes for cluster in node.clusters}


def _point_header(overlay: Node, base: Node | None, relative: bool) -> None:
    """Let the header of ``overlay`` name ``base``; absolutely, unless told otherwise (measured)."""
    if base is None:
        overlay.image.backing = None
        return
    name = relative_name(overlay.source, base.source) if relative else absolute_name(base.source)
    overlay.image.backing = Backing(base.image.source, base.format, name)


class Commit(Job):
    """Push ``nodes[top]`` and all above ``base`` down into ``base`` (positions, ``0 < top < base``)."""

    kind = JobKind.COMMIT

    def __init__(self, disk: LiveDisk, top: int, base: int, *, relative: bool, bandwidth: int) -> None:
        self.upper = disk.nodes[top:base]
        self.base = disk.nodes[base]
        self.relative = relative
        super().__init__(disk, _allocated(self.upper), bandwidth)
        self.base.image.capacity = max(self.base.image.capacity, self.upper[0].image.capacity)

    def _copy(self, cluster: int) -> None:
        value = _value(self.upper, cluster)
        if value is not None:
            self.base.image.clusters[cluster] = value

    def complete(self) -> None:
        nodes = self.disk.nodes
        _point_header(nodes[nodes.index(self.upper[0]) - 1], self.base, self.relative)
        self.disk.nodes = [node for node in nodes if node not in self.upper]


class ActiveCommit(Commit):
    """Push the active layer and all above ``base`` down; the guest moves to ``base`` at the pivot."""

    kind = JobKind.ACTIVE_COMMIT

    def __init__(self, disk: LiveDisk, base: int, *, bandwidth: int) -> None:
        super().__init__(disk, 0, base, relative=False, bandwidth=bandwidth)
        self.mirrored = self.base.image

    def info(self) -> BlockJob:
        """The end is the bytes to copy, and equal to the current position only once ready (libvirt subtracts
        one byte before)."""
        current = self.copied * CLUSTER_BYTES
        end = current + len(self.todo) * CLUSTER_BYTES
        if end == 0:
            current = end = 1
        if current == end and not self.ready:
            current -= 1
        return BlockJob(self.kind, current, end, self.bandwidth)

    def written(self, cluster: int) -> None:
        if cluster not in self.todo:
            self.todo.append(cluster)

    def complete(self) -> None:
        """The pivot: drain what the guest wrote meanwhile, then let the guest write to ``base``."""
        self.advance(None)
        self.disk.nodes = self.disk.nodes[self.disk.nodes.index(self.base) :]


class Pull(Job):
    """Copy what lies between ``top`` and ``base`` (positions; None: everything) up. ``top`` is the active
    layer, as libvirt believes."""

    kind = JobKind.PULL

    def __init__(self, disk: LiveDisk, top: int, base: int | None, *, relative: bool, bandwidth: int) -> None:
        self.top = disk.nodes[top]
        self.lower = disk.nodes[top + 1 : base]
        self.base = None if base is None else disk.nodes[base]
        self.hidden = disk.hidden if base is None else []
        self.relative = relative
        below = {cluster for image in self.hidden for cluster in image.clusters}
        super().__init__(disk, (_allocated(self.lower) | below) - set(self.top.clusters), bandwidth)

    def _copy(self, cluster: int) -> None:
        active = self.top
        if active.get(cluster) is not None:
            return  # the guest was faster
        value = _value(self.lower, cluster)
        if value is None:
            value = next((i.clusters[cluster] for i in self.hidden if cluster in i.clusters), 0)
        active.cached[cluster] = value

    def complete(self) -> None:
        """The header points past the pulled layers at once; the pulled data follows with the next flush."""
        _point_header(self.top, self.base, self.relative)
        self.disk.nodes = [node for node in self.disk.nodes if node not in self.lower]
        if self.base is None:
            self.disk.hidden = []
            # With nothing known below, libvirt has nothing to cut off, and the end stays unknown (measured).
            self.disk.terminated = self.disk.terminated or bool(self.lower)


class Copy(Job):
    """A blockcopy to another image; varve never starts one, others do."""

    kind = JobKind.COPY

    def __init__(self, disk: LiveDisk, destination: Image, *, bandwidth: int = 0) -> None:
        super().__init__(disk, set(disk.content()), bandwidth)
        self.mirrored = destination

    def _copy(self, cluster: int) -> None:
        if self.mirrored is not None:
            self.mirrored.clusters[cluster] = self.disk.content().get(cluster, 0)

    def written(self, cluster: int) -> None:
        if cluster not in self.todo:
            self.todo.append(cluster)

    def complete(self) -> None:
        """The pivot of a copy: the guest continues on the destination, which holds everything."""
        self.advance(None)
        if self.mirrored is not None:
            active = self.disk.active
            self.disk.nodes = [
                type(active)(self.mirrored, self.mirrored.source, self.mirrored.format, active.index)
            ]
            self.disk.hidden = []
