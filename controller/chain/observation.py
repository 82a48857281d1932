"""Facts about one domain at one moment, as the planner sees them.

Unknown is never written as absent: a part that could not be read makes the whole observation fail, and
nothing is planned from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controller.chain.disk import Disk
from controller.chain.journal import Journal
from controller.chain.marks import Mark
from controller.chain.opened import Opened
from controller.chain.qcow2 import Inside


class JobKind(StrEnum):
    """The kinds of block job (virDomainBlockJobType)."""

    COMMIT = "commit"
    ACTIVE_COMMIT = "active-commit"
    PULL = "pull"
    COPY = "copy"
    OTHER = "other"


class RunState(StrEnum):
    """virDomainState, as far as varve tells states apart."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    OTHER = "other"
    """In transition, crashed but kept, or suspended by its own power management: active, not usable."""


@dataclass(frozen=True)
class Job:
    """A running block job. ``current`` and ``end`` in bytes; equal values do not mean that it is ready."""

    kind: JobKind
    current: int
    end: int

    @property
    def copied(self) -> int:
        """Bytes copied so far. While a job that has caught up is not ready, libvirt shows one less, so that
        nobody takes it for done (``qemuBlockJobInfoTranslate``, libvirt 9.0). That byte is no progress when
        it comes back because the guest has moved the end on."""
        return self.end if self.current and self.end - self.current == 1 else self.current


@dataclass(frozen=True)
class Size:
    """Measured bytes of one layer."""

    allocation: int
    """What the image holds, at most."""
    capacity: int
    physical: int = 0


@dataclass(frozen=True)
class DiskFacts:
    """One disk as the live definition, the persistent definition and QEMU describe it."""

    target: str
    live: Disk | None
    inactive: Disk | None
    """None when the persistent definition has no such disk (transient domain, hot-plugged disk)."""
    job: Job | None = None
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """By layer identity (:attr:`Layer.key`)."""
    run: str = ""
    """Which QEMU runs the disk; see :attr:`DomainDefinition.run`. Empty when the machine is off."""
    stop_is_known: bool = False
    """The machine is off, and libvirt knows how that came about: it was there when QEMU ended."""
    opened: Opened | None = None
    """What QEMU says that it has open. None: it was not asked."""

    written: Mapping[str, datetime] | None = None
    """When images of the chain were written to last, by their storage's clock and by layer identity; what
    cannot be told is missing. None when it was not read in this pass: it is read to judge what others did."""

    @property
    def chain(self) -> Disk | None:
        """The chain that counts now: the live one while the machine runs, else the persistent one."""
        return self.live or self.inactive

    @property
    def capacity(self) -> int:
        """Virtual size of the disk, bytes; 0 when not measured."""
        active = self.chain.active if self.chain else None
        size = self.sizes.get(active.key) if active else None
        return size.capacity if size else 0

    def bytes_of(self, key: str) -> int:
        """Upper bound of the bytes that copying this layer takes: its allocation; 0 when not measured."""
        size = self.sizes.get(key)
        return 0 if size is None else size.allocation


@dataclass(frozen=True)
class Observation:
    """One domain, read in one go."""

    uuid: str
    name: str
    state: RunState
    persistent: bool
    disks: Mapping[str, DiskFacts]
    journal: Journal
    behind: frozenset[str] = frozenset()
    """Disks whose record is another one in the stored definition: libvirtd died between its two files, or
    somebody defined the domain anew. The live one counts; the next start would bring the other one back."""
    journal_problem: str = ""
    """Why the journal could not be understood; nothing may be done to the domain then."""
    journal_untrusted: str = ""
    """Why the journal is not believed, for people; nothing may be done to the domain then, and nothing of
    the journal is shown as if it were true."""
    unsealed: frozenset[str] = frozenset()
    """Disks whose record has no seal: it gives only what :mod:`controller.chain.vetting` leaves of it."""
    foreign_owner: str = ""
    """Identity of another cluster whose journal claims this domain."""
    in_use_elsewhere: Mapping[str, str] | None = None
    """Who else names an image: its footprint (:attr:`Source.footprint`) to a phrase for people ("disk vdb of
    web-2"). None when it was not read in this pass: then nothing may be merged or removed. Of other
    hypervisors, users of images on the network are in it."""
    claims: Mapping[str, str] | None = None
    """Images that any definition or record on any hypervisor names, this domain's own included: identity or
    footprint to a phrase for people. None when it was not read in this pass: then nothing is used that was
    made beforehand."""
    unasked: tuple[str, ...] = ()
    """Hypervisors that could not be asked for users of images on the network, or for ``claims``."""
    unread: tuple[str, ...] = ()
    """Machines of this hypervisor whose definition is not known, because they do not answer: each may use
    any image."""
    not_in_use: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By target: images that people say nobody uses, as :attr:`Source.uri` has them. The header of such an
    image makes it no user of what it names; a definition that names it does."""
    marks: tuple[Mark, ...] = ()
    """Snapshots and checkpoints of libvirt's own; read together with who else uses the images when a merge is
    due."""
    inside: Mapping[str, Inside] = field(default_factory=dict)
    """By layer identity: what images say of themselves, where a merge depends on that and it can be read."""
    free: Mapping[str, int] = field(default_factory=dict)
    """Bytes that are free where images lie, by :attr:`Source.home`, as they were last read. What is missing
    cannot be told: an NBD export, a LUN, a place that libvirt has no storage driver for."""
    domain_job: str = ""
    """A domain-wide job (migration, save …) that runs, or empty."""
    paused_by_io_error: bool = False
    machine: str = ""
    """The type of the running machine (``pc-q35-10.0``), or empty."""

    @property
    def is_refused(self) -> bool:
        """True when the record cannot be read, is not believed, or is not ours."""
        return bool(self.journal_problem or self.journal_untrusted or self.foreign_owner)

    @property
    def active(self) -> bool:
        """True when QEMU runs and accepts block jobs."""
        return self.state in (RunState.RUNNING, RunState.PAUSED)
