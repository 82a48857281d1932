"""The port: everything varve asks of one libvirt connection, and nothing else.

Two things implement it: :mod:`controller.hypervisor.libvirt_driver` (a real connection) and
:mod:`controller.hypervisor.simulated` (in memory, for speed, scale and crash tests). One conformance suite
(``tests/hypervisor/conformance``) runs against both.

The port is as narrow as libvirt itself: one method is one libvirt call that changes something (the
exception is image removal, which has no single call), so a test can count, fail or kill at each of them.
Methods that change something say so in their name's verb; everything else only reads.

All methods may raise the errors of :mod:`controller.hypervisor.errors`. All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from controller.chain.gate import Gate, gate
from controller.chain.observation import JobKind, Observation, RunState
from controller.chain.opened import OpenedImage
from controller.chain.prepared import Examined
from controller.chain.qcow2 import Inside
from controller.chain.source import Source


@dataclass(frozen=True)
class DomainRef:
    """One line of the inventory."""

    uuid: str
    name: str
    active: bool


@dataclass(frozen=True)
class LayerStats:
    """Measured sizes of one layer (virConnectGetAllDomainStats with BACKING)."""

    target: str
    index: int | None
    """QEMU's index of the layer, the one that the live XML shows."""
    allocation: int
    """The highest offset that this QEMU process has written to; 0 for what it has only read."""
    capacity: int
    physical: int


@dataclass(frozen=True)
class BlockJob:
    """virDomainGetBlockJobInfo. ``current`` equal to ``end`` does not mean ready: only the mirror element
    of the live XML does (rhbz 1442266, 1376580)."""

    kind: JobKind
    current: int
    end: int
    bandwidth: int


@dataclass(frozen=True)
class DomainReading:
    """Everything one pass needs of a domain, read in one go."""

    uuid: str
    state: RunState
    state_reason: str
    persistent: bool
    live_xml: str | None
    """None when the domain is not active."""
    inactive_xml: str | None
    """The persistent definition; None for a transient domain."""
    stats: tuple[LayerStats, ...] = ()
    jobs: Mapping[str, BlockJob] = field(default_factory=dict)
    """Running block jobs of all disks, by target. A failed query raises: a disk that is missing here has no
    job."""
    paused_by_io_error: bool = False
    job_active: str = ""
    """The domain-wide job that runs (``migration-out``, ``save``, ``dump`` …), or empty."""


@dataclass(frozen=True)
class Definitions:
    """What all machines of a hypervisor name."""

    documents: tuple[str, ...]
    """Live and persistent XML. Of a machine that does not answer, what it last said."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Machines that do not answer, and of which nothing is known that still holds: UUID to name. Each may use
    anything."""


@dataclass(frozen=True)
class Pool:
    """A libvirt storage pool that can hold overlays."""

    name: str
    type: str
    path: str = ""
    """Target directory of a directory-like pool (dir, fs, netfs)."""
    template: Source | None = None
    """A source whose ``beside(leaf)`` is a volume of this pool (gluster, rbd)."""


@dataclass(frozen=True)
class Running:
    """The images that a running machine uses: a guest that gets on proves that the server of its disk lives,
    when that has no room for a question (ADR 9)."""

    uuid: str
    disks: Mapping[str, tuple[Source, ...]]
    """By target, the active image first."""

    @classmethod
    def of(cls, observation: Observation) -> Running:
        """As it was observed."""
        lives = (facts.live for facts in observation.disks.values())
        disks = {live.target: tuple(layer.source for layer in live.layers) for live in lives if live}
        return cls(observation.uuid, disks)

    def written(self) -> Running:
        """Without the images below: that a guest gets on above them says nothing of a job that uses them."""
        return Running(self.uuid, {target: layers[:1] for target, layers in self.disks.items()})


@dataclass(frozen=True)
class Opened:
    """What QEMU has open, in its own words (a path, a URI or ``json:{…}``)."""

    disks: Mapping[str, tuple[OpenedImage, ...]] = field(default_factory=dict)
    """By target: what the disk stands on, top to base."""
    files: frozenset[str] = frozenset()
    """Everything, also what belongs to no disk."""


class Removal(StrEnum):
    """How an image removal ended."""

    REMOVED = "Removed"
    ABSENT = "Absent"


@dataclass(frozen=True)
class Facts:
    """What the daemon says of itself. Capabilities are found by asking, never by comparing versions."""

    libvirt_version: str
    qemu_version: str
    hostname: str
    capabilities: frozenset[str]
    """Names such as ``commit-relative``, ``rebase-relative``, ``snapshot-quiesce``, ``backing-store-input``,
    and ``storage-…`` for each type of storage pool."""
    flags_asked: bool = True
    """There was a domain to ask with: a flag that is not in ``capabilities`` is not known to the daemon."""

    @property
    def gate(self) -> Gate:
        """The known faults of these versions: of what cannot be asked for."""
        return gate(self.libvirt_version, self.qemu_version)


@dataclass(frozen=True)
class Surroundings:
    """What a merge must respect besides the chain."""

    marks: tuple[str, ...] = ()
    """XML of the snapshots and checkpoints that libvirt keeps of the domain."""
    free: Mapping[str, int] = field(default_factory=dict)
    """Free bytes where images lie, by :attr:`Source.home`; what cannot be told is missing."""


class LifecycleKind(StrEnum):
    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    STOPPED = "stopped"
    OTHER = "other"


@dataclass(frozen=True)
class Lifecycle:
    """A domain changed its state or definition."""

    uuid: str
    name: str
    kind: LifecycleKind


class JobStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    READY = "ready"


@dataclass(frozen=True)
class JobChanged:
    """BLOCK_JOB_2 (event 16): delivered by target for every kind of disk. The path-style event (8) is not
    delivered for network disks (measured) and is not used."""

    uuid: str
    target: str
    kind: JobKind
    status: JobStatus


@dataclass(frozen=True)
class IOFailed:
    """A guest I/O error, with libvirt's reason (``enospc`` …)."""

    uuid: str
    target: str
    reason: str


@dataclass(frozen=True)
class DeviceChanged:
    """A device was plugged into a running machine, or out of it: a disk, or something else."""

    uuid: str
    plugged: bool


@dataclass(frozen=True)
class Disconnected:
    """The connection is dead: no call on this driver will succeed again."""

    reason: str


@dataclass(frozen=True)
class Answered:
    """A call about a domain that had passed its deadline returned: the domain can be asked again. (For a call
    about a place of images ``uuid`` is the name of the place, which is no domain's.)"""

    uuid: str


Event = Lifecycle | JobChanged | IOFailed | DeviceChanged | Disconnected | Answered
EventSink = Callable[[Event], None]
"""Called on the asyncio loop's thread. An event is a hint to look, never a fact to act on."""


class Driver(Protocol):
    """One open connection to one libvirt daemon."""

    # Reading ------------------------------------------------------------------------------------------

    async def facts(self) -> Facts: ...

    async def domains(self) -> tuple[DomainRef, ...]:
        """All domains, active or not."""
        ...

    async def read(self, uuid: str, *, sizes: bool = True) -> DomainReading:
        """Read one domain, the jobs of all its disks included; without ``sizes`` it has no stats, which QEMU
        takes longer to tell than all the rest together. Raises DomainGone."""
        ...

    async def definitions(self) -> Definitions:
        """The live and the persistent XML of every domain, to see who else names an image. One that does not
        answer costs a moment, once."""
        ...

    async def referrers(self, source: Source) -> tuple[str, ...]:
        """Paths or names of images beside ``source`` whose header names it as their backing image; () also
        where images do not lie beside each other. Raises NotListable where they do and cannot be listed."""
        ...

    async def examine(self, uuid: str, source: Source, *, way_in: int | None) -> Examined:
        """Look into an image that was made beforehand, from where the domain would use it. ``way_in`` is the
        index of the layer whose credentials its server takes. Changes nothing. Raises NotExaminable."""
        ...

    async def present(self, source: Source) -> bool | None:
        """Whether there is such an image; None when libvirt cannot tell (an NBD export, a LUN, a place that
        it cannot list)."""
        ...

    async def opened(self, uuid: str) -> Opened:
        """Ask QEMU itself what it has open, for the one case that libvirt's view may be wrong. Raises Busy
        beside a pull, NotRunning, and Unsupported when QEMU cannot be asked."""
        ...

    async def inside(self, images: Iterable[Source]) -> Mapping[str, Inside]:
        """What qcow2 images say of themselves, by identity: on files and gluster their version, on local
        block devices also what they take. Nobody may be writing to those. What cannot be read is missing."""
        ...

    async def written(self, images: Iterable[Source]) -> Mapping[str, datetime]:
        """When images were written to last, by identity and by the clock of their storage: of files and on
        gluster. What cannot be told is missing. Raises Unreachable."""
        ...

    async def surroundings(self, uuid: str, images: Iterable[Source]) -> Surroundings:
        """What libvirt keeps of a domain, and how much is free where these images lie, as far as that can be
        told: a place that cannot be looked into is no error."""
        ...

    async def pool(self, name: str) -> Pool:
        """Look a storage pool up. Raises NotFound, or Unsupported for a pool that cannot hold overlays."""
        ...

    async def reach(
        self, sources: Iterable[Source], *, beside: Iterable[Source] = (), running: Running | None = None
    ) -> None:
        """Raise StorageUnreachable when a storage server of one of these images does not answer, as far as
        can be told without QEMU, which would freeze its guest if it were told to use it (ADR 9). Costs
        nothing for local images. ``beside``: images that the machine uses and the step does not; their
        servers count only when QEMU would wait for them. ``running``: the machine, if it runs."""
        ...

    async def definition(self, uuid: str) -> str:
        """The persistent XML with the secrets in it, for :meth:`define` and nothing else. Raises Unsupported
        for a transient domain."""
        ...

    # Changing -----------------------------------------------------------------------------------------

    async def set_metadata(self, uuid: str, journal_xml: str | None, *, live: bool, config: bool) -> None:
        """Replace varve's metadata element (``JOURNAL_NAMESPACE``, prefix ``varve``); None removes it."""
        ...

    async def define(self, uuid: str, xml: str, *, replacing: str) -> None:
        """virDomainDefineXML, if the definition still reads ``replacing``. Raises Busy when it does not."""
        ...

    async def create_snapshot(self, uuid: str, xml: str, *, reuse: bool = False) -> None:
        """virDomainSnapshotCreateXML with DISK_ONLY | NO_METADATA | ATOMIC (and REUSE_EXT)."""
        ...

    async def commit(
        self, uuid: str, target: str, *, base: str, top: str | None, relative: bool, bandwidth: int
    ) -> None:
        """virDomainBlockCommit; ``base`` and ``top`` in index form (``vda[3]``). ``top=None`` commits the
        active layer (flag ACTIVE). ``bandwidth`` in bytes per second, 0 unlimited. Returns when started."""
        ...

    async def pull(self, uuid: str, target: str, *, base: str | None, relative: bool, bandwidth: int) -> None:
        """virDomainBlockRebase into the active layer; ``base`` (index form) stays, None keeps nothing below.
        Returns when the job has started."""
        ...

    async def pivot(self, uuid: str, target: str) -> None:
        """virDomainBlockJobAbort with PIVOT. Raises NotReady before the mirror is ready."""
        ...

    async def abort(self, uuid: str, target: str) -> None:
        """virDomainBlockJobAbort: the chain stays as it was."""
        ...

    async def flush(self, uuid: str, target: str, capacity: int) -> None:
        """Make QEMU write its caches of this disk: virDomainBlockResize to the size that it has (bytes).
        A pull is not durable before this (measured: data lost in 11 of 11 kills after completion)."""
        ...

    async def remove_image(self, source: Source) -> Removal:
        """Remove one image through libvirt's storage API. Raises NotRemovable when that is impossible here.
        The caller has proved that nothing names it."""
        ...

    async def close(self) -> None:
        """Close the connection; running jobs go on."""
        ...
