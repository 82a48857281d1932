"""A small pure model of libvirt: one running machine with one disk, its images, contents and journal.

It carries out the planner's steps as :mod:`controller.hypervisor.execute` does (intent first, then a last
look at the chain, then the call), and can be told to go wrong in between. Contents are blocks: which value
the guest last wrote where. Sizes add up: a merged image has the bytes of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from controller.chain.disk import ChainEnd, Disk, Layer, Mirror
from controller.chain.journal import DiskJournal, Journal, Operation, OperationKind, Owner
from controller.chain.journal_codec import decode, encode
from controller.chain.observation import DiskFacts, Job, JobKind, Observation, RunState, Size
from controller.chain.opened import Opened, OpenedImage
from controller.chain.outcome import Outcome, fits, outcome
from controller.chain.steps import Discard, Pivot, Record, RecordWhy, SpellOut, StartMerge, Step, Take
from tests.chain.builders import CAPACITY, TARGET

Blocks = dict[int, int]

_JOBS = {
    OperationKind.COMMIT: JobKind.COMMIT,
    OperationKind.ACTIVE_COMMIT: JobKind.ACTIVE_COMMIT,
    OperationKind.PULL: JobKind.PULL,
}


class Refused(Exception):
    """The last look before an image is removed found that somebody uses it (its identity is the argument)."""


class Fault(StrEnum):
    """What goes wrong with one step."""

    NONE = "none"
    CRASH = "crash"
    """The controller dies after it wrote its intent and before the call."""
    LATE = "late"
    """The answer is lost and libvirtd still has the call queued; it carries it out before the next one."""
    JOB_LOST = "job lost"
    """The block job that runs ends without effect."""


@dataclass
class Image:
    """One image on the storage."""

    layer: Layer
    blocks: Blocks = field(default_factory=dict)
    allocation: int = 0


@dataclass
class BlockJob:
    """A running job, with the operation that it carries out."""

    operation: Operation
    ready: bool = False


@dataclass
class Machine:
    """A running machine with the disk ``vda``. ``chain`` holds image identities, active first."""

    storage: dict[str, Image]
    chain: list[str]
    journal_xml: str | None = None
    job: BlockJob | None = None
    late: Operation | None = None
    """A snapshot or job whose call libvirtd has not come to yet."""
    copied: int = 0
    """Bytes that jobs copied, all together."""
    jobs: list[OperationKind] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    """Images that a commit wrote to."""
    removed: list[str] = field(default_factory=list)
    moments: dict[Owner, Blocks] = field(default_factory=dict)
    """What the guest had on its disk when each object's point was taken."""
    end: ChainEnd = ChainEnd.KNOWN
    defined_end: ChainEnd = ChainEnd.UNKNOWN
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    _writes: int = 0

    @classmethod
    def with_layers(cls, layers: Sequence[Layer], allocations: Iterable[int]) -> Machine:
        """A machine whose guest wrote something of its own, and something shared, into each layer."""
        storage: dict[str, Image] = {}
        sizes = list(allocations)
        for number, layer in enumerate(reversed(layers)):
            blocks = {number: 1000 + number, 999: number, number // 2: 2000 + number}
            storage[layer.key] = Image(layer, blocks, sizes[len(layers) - 1 - number])
        return cls(storage, [layer.key for layer in layers])

    # What the guest and a reader see -------------------------------------------------------------------

    def content(self, position: int = 0) -> Blocks:
        """What is read through the layer at this position."""
        found: Blocks = {}
        for key in reversed(self.chain[position:]):
            found |= self.storage[key].blocks
        return found

    @property
    def contents(self) -> list[Blocks]:
        """Content of every boundary, newest first."""
        return [self.content(position) for position in range(1, len(self.chain))]

    def write(self) -> None:
        """The guest writes a value that it never wrote before."""
        self._writes += 1
        active = self.storage[self.chain[0]]
        active.blocks |= {self._writes % 7: 5000 + self._writes, 100 + self._writes: 1}
        active.allocation += 1

    # What varve sees -----------------------------------------------------------------------------------

    @property
    def record(self) -> DiskJournal:
        """The journal's record of the disk."""
        return decode(self.journal_xml).disk(TARGET)

    def set_record(self, record: DiskJournal) -> None:
        """Write the journal, as a later version of it would be: through its XML. Calls of the domain queue
        up in libvirtd, so one that is late comes before."""
        self._catch_up()
        self.journal_xml = encode(Journal("c-1").with_disk(record))

    def facts(self) -> DiskFacts:
        """One reading of the disk; the persistent definition has no indexes, and no end that nobody wrote."""
        layers = tuple(replace(self.storage[key].layer, index=n + 1) for n, key in enumerate(self.chain))
        job = self.job
        mirror = None
        if job is not None and job.operation.kind is OperationKind.ACTIVE_COMMIT:
            mirror = Mirror("active-commit", job.ready, job.operation.kept.key)
        live = Disk(TARGET, "disk", layers, self.end, "virtio", mirror=mirror)
        plain = tuple(replace(layer, index=None) for layer in layers)
        return DiskFacts(
            target=TARGET,
            live=live,
            inactive=replace(live, layers=plain, end=self.defined_end, mirror=None),
            job=Job(_JOBS[job.operation.kind], 5, 10) if job else None,
            sizes={key: Size(self.storage[key].allocation, CAPACITY) for key in self.chain},
        )

    def observe(self, *, asked: bool = False) -> Observation:
        """All that the planner is told; ``asked``: QEMU's own word included."""
        found = self._observe()
        if not asked:
            return found
        images = tuple(OpenedImage(key.removeprefix("file:"), "qcow2") for key in self.chain)
        opened = Opened(images, frozenset(one.name for one in images))
        return replace(found, disks={TARGET: replace(found.disks[TARGET], opened=opened)})

    def _observe(self) -> Observation:
        return Observation(
            uuid="u",
            name="web-1",
            state=RunState.RUNNING,
            persistent=True,
            disks={TARGET: self.facts()},
            journal=decode(self.journal_xml),
            in_use_elsewhere=self.elsewhere,
        )

    # Steps ---------------------------------------------------------------------------------------------

    def apply(self, step: Step, fault: Fault = Fault.NONE) -> None:
        """Carry out one step, or as much of it as ``fault`` lets through."""
        match step:
            case Take():
                (one,) = step.disks
                self._begin(one.operation, fault)
            case StartMerge():
                pull = step.kind is OperationKind.PULL
                self._begin(replace(step.operation, process="p1") if pull else step.operation, fault)
            case Pivot():
                assert self.job is not None
                assert self.job.ready
                if fault is not Fault.CRASH:
                    self._finish(self.job.operation)
            case Record():
                self._record(step)
            case Discard():
                self._discard(step)
            case SpellOut():
                if fault is not Fault.CRASH:
                    self.defined_end = self.end

    def _begin(self, operation: Operation, fault: Fault) -> None:
        self.set_record(replace(self.record, operation=operation))
        if fault is Fault.LATE:
            self.late = operation
        elif fault is not Fault.CRASH:
            self._call(operation)

    def _call(self, operation: Operation) -> None:
        """The libvirt call itself, refused like libvirt and varve's last look refuse it."""
        chain = self.facts().chain
        assert chain is not None
        if operation.kind is OperationKind.TAKE:
            free = operation.kept.key not in self.storage and self.job is None
            if free and self.chain[0] == operation.merged[0].key:
                for owner in operation.owners:
                    self.moments[owner] = self.content()
                self.storage[operation.kept.key] = Image(operation.kept)
                self.chain.insert(0, operation.kept.key)
            return
        if self.job is not None or not fits(operation, chain):
            return
        self.job = BlockJob(operation)
        if operation.kind is not OperationKind.PULL:
            self.written.append(operation.kept.key)
            self._spoil(operation)

    def _spoil(self, operation: Operation) -> None:
        """A commit writes to the lower image from its first moment on."""
        kept = self.storage[operation.kept.key]
        for layer in operation.merged[-1:]:
            blocks = self.storage[layer.key].blocks
            kept.blocks |= {block: blocks[block] for block in sorted(blocks)[: len(blocks) // 2 + 1]}

    def _catch_up(self) -> None:
        late, self.late = self.late, None
        if late is not None:
            self._call(late)

    def advance(self) -> None:
        """The job gets one step further: ready for the pivot, or done."""
        assert self.job is not None
        if self.job.operation.kind is OperationKind.ACTIVE_COMMIT:
            self.job.ready = True
        else:
            self._finish(self.job.operation)

    def lose_job(self) -> None:
        """The job fails; the chain is as before."""
        self.job = None

    def _finish(self, operation: Operation) -> None:
        self.job = None
        self.jobs.append(operation.kind)
        kept = self.storage[operation.kept.key]
        merged: Blocks = {}
        for layer in reversed(operation.merged):
            merged |= self.storage[layer.key].blocks
        moved = sum(self.storage[layer.key].allocation for layer in operation.merged)
        pull = operation.kind is OperationKind.PULL
        kept.blocks = merged | kept.blocks if pull else kept.blocks | merged
        kept.allocation += moved
        self.copied += moved
        gone = {layer.key for layer in operation.merged}
        self.chain = [key for key in self.chain if key not in gone]

    def _record(self, step: Record) -> None:
        if step.why is RecordWhy.UNDONE:
            self._catch_up()
            if step.finished is None or outcome(step.finished, self.facts()) is not Outcome.UNDONE:
                return
        if (
            step.finished is not None
            and step.finished.kind is OperationKind.PULL
            and step.why is RecordWhy.DONE
        ):
            assert step.flush == CAPACITY, "a pull was believed without a flush"
        self.set_record(step.record)

    def _discard(self, step: Discard) -> None:
        key = step.removal.layer.key
        assert key not in self.chain, f"{key} is still in the chain"
        if key in self.elsewhere:
            raise Refused(key)
        self.storage.pop(key, None)
        self.removed.append(key)
        record = self.record
        left = tuple(removal for removal in record.removals if removal.layer.key != key)
        self.set_record(replace(record, removals=left))
