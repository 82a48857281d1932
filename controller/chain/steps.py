"""Steps: what one pass may do. Data, not code; :mod:`controller.hypervisor.execute` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.chain.blocked import Blocked
from controller.chain.disk import Layer
from controller.chain.journal import DiskJournal, Operation, OperationKind, Removal


@dataclass(frozen=True)
class DiskOperation:
    """An operation to begin on one disk."""

    target: str
    operation: Operation


@dataclass(frozen=True)
class Take:
    """Freeze the active layer of one or several disks of a domain in one libvirt transaction."""

    disks: tuple[DiskOperation, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets of the disks that it changes."""
        return tuple(disk.target for disk in self.disks)


@dataclass(frozen=True)
class StartMerge:
    """Begin a block job. ``copies`` is the planner's upper bound of the bytes that it copies."""

    target: str
    operation: Operation
    bandwidth: int
    copies: int
    protected: tuple[str, ...] = ()

    @property
    def kind(self) -> OperationKind:
        """commit, active-commit or pull."""
        return self.operation.kind


@dataclass(frozen=True)
class Pivot:
    """Let QEMU switch to the lower layer; the mirror is ready."""

    target: str
    operation: Operation


@dataclass(frozen=True)
class Abort:
    """End a job without its effect; the chain stays as it was."""

    target: str
    operation: Operation
    why: Blocked
    patience: int
    """Seconds to wait before the first further try."""


class RecordWhy(StrEnum):
    """What a :class:`Record` records."""

    DONE = "done"
    """An operation was seen done."""
    UNDONE = "undone"
    """An operation was seen not to have happened; it may be tried again."""
    STRANGE = "strange"
    """A take was seen done, and QEMU has opened something else than was verified: nobody gets the point."""
    UPKEEP = "upkeep"
    """Owners came back, gave up their share, or layers were taken away by somebody else."""
    DRIFT = "drift"
    """Somebody else changed the chain."""
    MOVED = "moved"
    """The servers of its images have another address."""


@dataclass(frozen=True)
class Record:
    """Write what was observed to the journal. ``flush`` first makes QEMU write its caches (bytes: the size
    that the disk has), which a completed pull needs to be durable."""

    target: str
    record: DiskJournal
    why: RecordWhy
    finished: Operation | None = None
    """The operation that this records as done, for reports."""
    flush: int | None = None
    note: str = ""
    """What people are told of it."""


@dataclass(frozen=True)
class Discard:
    """Remove an image that left its chain, once more proving that nothing names it."""

    target: str
    removal: Removal
    tries: int = 0
    """How often that has failed."""

    @property
    def refused_for_long(self) -> bool:
        """Its storage has refused for a quarter of a minute: when it does now, the image is left."""
        return self.tries >= 4

    @property
    def open_for_long(self) -> bool:
        """Somebody has had it open for some two minutes: when he has now, it is left."""
        return self.tries >= 8


@dataclass(frozen=True)
class SpellOut:
    """Write the chain that the running machine has into its persistent definition, so that the next start
    knows all of it."""

    target: str
    chain: tuple[Layer, ...] = ()
    """What the definition must name instead of what it names, top to base. Empty: it names the top of the
    running chain already, and only the rest is written."""
    leaving: tuple[Layer, ...] = ()
    """Layers that are not in ``chain`` and that the definition may name before the change. A definition that
    names anything else is somebody's wish and stays."""

    @property
    def name(self) -> str:
        """By which a failure of it is remembered: it holds up nothing else on the disk."""
        return f"definition of {self.target}"


Step = Take | StartMerge | Pivot | Abort | Record | Discard | SpellOut


def targets_of(step: Step) -> tuple[str, ...]:
    """The disks that a step concerns."""
    return step.targets if isinstance(step, Take) else (step.target,)


def only_records(step: Step) -> bool:
    """True when the step leaves the domain as it was observed, but for the journal that it writes."""
    if isinstance(step, Record):
        return step.why is not RecordWhy.UNDONE and step.flush is None
    return isinstance(step, Discard)
