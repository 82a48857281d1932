"""Domains: the persistent definition, and the QEMU process with the chains that it has open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.chain.observation import RunState
from controller.chain.source import Source
from controller.hypervisor.errors import NotFound, NotRunning
from controller.hypervisor.simulated.image import CLUSTER_BYTES, Content, Image, compose
from controller.hypervisor.simulated.job import Job


@dataclass(frozen=True)
class Link:
    """One layer as an XML document lists it."""

    source: Source
    format: str = "qcow2"


@dataclass(frozen=True)
class DiskDefinition:
    """One ``<disk>`` of a definition. ``chain`` starts with the active layer; more than one entry is an
    explicit chain, which wins over headers at the next start. ``terminated`` writes ``<backingStore/>``."""

    target: str
    chain: tuple[Link, ...]
    terminated: bool = False
    device: str = "disk"
    bus: str = "virtio"
    readonly: bool = False
    shareable: bool = False

    @classmethod
    def of(cls, target: str, source: Source, format: str = "qcow2") -> DiskDefinition:  # noqa: A002
        """The disk that most people write: a target, a source, a driver type, nothing about the chain."""
        return cls(target, (Link(source, format),))

    @property
    def keys(self) -> tuple[str, ...]:
        """Identities of the listed layers, active first."""
        return tuple(link.source.key for link in self.chain)

    def without(self, keys: Iterable[str]) -> DiskDefinition:
        """The definition that does not list these layers."""
        gone = frozenset(keys)
        return replace(self, chain=tuple(link for link in self.chain if link.source.key not in gone))


def ordered(disks: Iterable[DiskDefinition]) -> dict[str, DiskDefinition]:
    """Disks by target, in the order in which libvirt keeps them: as given, but those of one bus together and
    sorted by target (virDomainDiskInsert)."""
    result: list[DiskDefinition] = []
    for disk in disks:
        same = [i for i, other in enumerate(result) if other.bus == disk.bus]
        greater = [i for i in same if _number(result[i].target) > _number(disk.target)]
        result.insert(greater[0] if greater else (same[-1] + 1 if same else len(result)), disk)
    return {disk.target: disk for disk in result}


def _number(target: str) -> tuple[int, str]:
    """``vdz`` comes before ``vdaa``."""
    return len(target), target


@dataclass(eq=False)
class Node:
    """A layer in QEMU's graph. ``cached`` holds clusters whose mapping is only in QEMU's memory: after a
    pull they are lost with the process unless it was made to flush (measured, QEMU 7.2)."""

    image: Image
    source: Source
    format: str
    index: int
    cached: Content = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identity of the image."""
        return self.image.key

    @property
    def clusters(self) -> Mapping[int, int]:
        """What this layer allocates, as the running process sees it."""
        return {**self.image.clusters, **self.cached} if self.cached else self.image.clusters

    @property
    def allocation(self) -> int:
        """Bytes that it takes on its storage: data are there before what maps them is."""
        unmapped = len(self.clusters) - len(self.image.clusters)
        return self.image.allocation + unmapped * CLUSTER_BYTES

    def get(self, cluster: int) -> int | None:
        """The value of a cluster, or None when this layer does not allocate it."""
        value = self.cached.get(cluster)
        return self.image.clusters.get(cluster) if value is None else value

    def flush(self) -> None:
        """Write what was only in memory."""
        self.image.clusters.update(self.cached)
        self.cached.clear()


@dataclass(frozen=True)
class LeftMirror:
    """A ``<mirror>`` without a job: libvirtd died as its job ended. ``ready`` as libvirt writes it."""

    image: Image
    ready: str


@dataclass(eq=False)
class LiveDisk:
    """One disk of a running process. ``nodes`` is what QEMU has. ``hidden`` are the images that QEMU found
    through headers and libvirt knows nothing of; ``terminated`` says whether libvirt knows that the last node
    is the base."""

    definition: DiskDefinition
    nodes: list[Node]
    hidden: list[Image] = field(default_factory=list)
    terminated: bool = True
    job: Job | None = None
    shown: tuple[Node, ...] | None = None
    """The layers that libvirt lists, where it missed what QEMU did; None: it lists those that QEMU has."""
    loose: list[Node] = field(default_factory=list)
    """What QEMU has open for no disk, because libvirtd died before it used or closed it."""
    left_mirror: LeftMirror | None = None

    @property
    def listed(self) -> tuple[Node, ...]:
        """The layers that libvirt lists, active first."""
        return tuple(self.nodes) if self.shown is None else self.shown

    @property
    def images(self) -> tuple[Image, ...]:
        """What QEMU has, active first, down to the base."""
        return (*(node.image for node in self.nodes), *self.hidden)

    def list_anew(self, nodes: Iterable[Node]) -> None:
        """libvirt lists these from now on."""
        listed = tuple(nodes)
        self.shown = None if listed == tuple(self.nodes) else listed

    @property
    def target(self) -> str:
        """The target device."""
        return self.definition.target

    @property
    def active(self) -> Node:
        """The layer that the guest writes to. Raises NotFound for an empty drive."""
        if not self.nodes:
            raise NotFound(f"disk '{self.target}' does not have a source", code=8)
        return self.nodes[0]

    def content(self, start: int = 0) -> Content:
        """What reads through the layers from ``start`` (0 is the active one) down."""
        below = [image.clusters for image in reversed(self.hidden)]
        return compose([*below, *(node.clusters for node in reversed(self.nodes[start:]))])

    def write(self, cluster: int, value: int) -> None:
        """A guest write: durable, except where the cluster's mapping itself is not yet on disk."""
        active = self.active
        (active.cached if cluster in active.cached else active.image.clusters)[cluster] = value
        if self.job is not None:
            self.job.written(cluster)

    def flush(self) -> None:
        """Make everything durable that is only in QEMU's memory."""
        for node in self.nodes:
            node.flush()

    def as_defined(self) -> DiskDefinition:
        """The chain as the live XML lists it, without indexes."""
        chain = tuple(Link(node.source, node.format) for node in self.listed)
        return replace(self.definition, chain=chain, terminated=self.terminated)


@dataclass(eq=False)
class Process:
    """One life of QEMU. ``numbered`` is the last index given out: never reused within this life."""

    id: int
    disks: dict[str, LiveDisk]
    numbered: int
    state: RunState = RunState.RUNNING
    reason: str = "booted"
    number_forgotten: bool = False
    """libvirtd died before it noted the last number that it gave to a node: it gives it once more, which QEMU
    refuses."""
    job_active: str = ""
    paused_by_io_error: bool = False

    def number(self) -> int:
        """The next index."""
        self.numbered += 1
        return self.numbered


@dataclass(eq=False)
class Machine:
    """A domain as libvirt knows it."""

    uuid: str
    name: str
    definition: dict[str, DiskDefinition] | None
    """Disks of the persistent definition in document order; None for a transient domain."""
    config_metadata: dict[str, str] = field(default_factory=dict)
    """Namespace to serialised element, in the persistent definition."""
    live_metadata: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    lost: Process | None = None
    """A process that runs on and that libvirt knows nothing of: it takes the machine for shut off."""
    stopped: str = "unknown"
    """Why it is shut off (virDomainShutoffReason)."""
    locked_by: str = ""
    """The call that holds the domain's lock, or empty."""
    hung: asyncio.Event | None = None
    """Set when what its documents wait for is over."""
    given_up: bool = False
    """A call about it passed its deadline, and has no answer yet."""

    def running(self) -> Process:
        """The process, or NotRunning as libvirt says it."""
        if self.process is None:
            raise NotRunning("Requested operation is not valid: domain is not running", code=55)
        return self.process

    @property
    def qemu(self) -> Process:
        """The process that runs the guest, whatever libvirt knows. Raises NotRunning."""
        return self.lost if self.process is None and self.lost is not None else self.running()

    def live_disk(self, target: str) -> LiveDisk:
        """A disk of the running process. Raises NotRunning or NotFound."""
        process = self.running()
        if target not in process.disks:
            raise NotFound(f"invalid argument: disk '{target}' not found in domain", code=8)
        return process.disks[target]

    def jobs(self) -> Iterator[tuple[LiveDisk, Job]]:
        """The running block jobs."""
        if self.process is not None:
            for disk in self.process.disks.values():
                if disk.job is not None:
                    yield disk, disk.job
