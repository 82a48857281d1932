"""What libvirtd has noted on its disk: all that it knows when it is back after it was killed.

libvirt keeps the state of a running domain in one file and its definition in another, and writes them after
QEMU has done something. Killed in between, it goes on for ever by what it had noted: it asks QEMU for jobs,
and never compares chains (measured by killing libvirt 9.0 at each of its writes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.hypervisor.simulated.faults import Moment
from controller.hypervisor.simulated.job import ActiveCommit, Job
from controller.hypervisor.simulated.machine import (
    DiskDefinition,
    LeftMirror,
    LiveDisk,
    Machine,
    Node,
    Process,
)


@dataclass(frozen=True)
class _DiskNotes:
    nodes: tuple[Node, ...]
    listed: tuple[Node, ...]
    job: Job | None
    was_ready: bool


@dataclass(frozen=True)
class _MachineNotes:
    machine: Machine
    definition: dict[str, DiskDefinition] | None
    config_metadata: dict[str, str]
    live_metadata: dict[str, str]
    process: Process | None
    disks: dict[str, _DiskNotes]


class Notes:
    """What is noted of these domains now."""

    def __init__(self, machines: Iterable[Machine]) -> None:
        self._machines = [_noted(machine) for machine in machines]

    def fall_back(self, moment: Moment) -> None:
        """libvirtd died in the middle of what has happened since: of that, it knows only what it had noted at
        this moment. QEMU knows all."""
        if moment is Moment.AFTER:
            return
        for before in self._machines:
            machine = before.machine
            machine.definition = before.definition
            machine.config_metadata = before.config_metadata
            if moment is Moment.LIVE:
                continue
            machine.live_metadata = before.live_metadata
            if machine.process is None or machine.process is not before.process:
                continue
            for target, disk in before.disks.items():
                _fall_back(machine, machine.process.disks[target], disk, moment)


def _noted(machine: Machine) -> _MachineNotes:
    process = machine.process
    return _MachineNotes(
        machine,
        None if machine.definition is None else dict(machine.definition),
        dict(machine.config_metadata),
        dict(machine.live_metadata),
        process,
        {
            disk.target: _DiskNotes(
                tuple(disk.nodes), disk.listed, disk.job, disk.job is not None and disk.job.ready
            )
            for disk in (process.disks.values() if process is not None else ())
        },
    )


def _fall_back(machine: Machine, disk: LiveDisk, before: _DiskNotes, moment: Moment) -> None:
    began, ended = disk.job, before.job
    if began is not ended and began is not None:
        began.noted = False  # it is put down before QEMU is told of it, but for the mirror
    elif began is not ended and isinstance(ended, ActiveCommit):
        _active_commit_ended(machine, disk, before, ended, moment)
    elif moment is Moment.STARTED:
        _give_back(machine.running(), disk, before)
    elif tuple(disk.nodes) != before.nodes:
        _chain_changed(disk, before, moment)


def _give_back(process: Process, disk: LiveDisk, before: _DiskNotes) -> None:
    """The overlay was made and opened, and QEMU was not told to use it."""
    process.number_forgotten = True
    disk.loose += [node for node in disk.nodes if node not in before.nodes]
    disk.nodes = list(before.nodes)
    disk.shown = None if before.listed == before.nodes else before.listed


def _chain_changed(disk: LiveDisk, before: _DiskNotes, moment: Moment) -> None:
    """A take, or the end of a commit below or of a pull. What left the chain stays open in QEMU until libvirt
    has deleted it."""
    disk.shown = before.listed
    if moment is Moment.UNNOTED:
        disk.loose += [node for node in before.nodes if node not in disk.nodes]


def _active_commit_ended(
    machine: Machine, disk: LiveDisk, before: _DiskNotes, job: ActiveCommit, moment: Moment
) -> None:
    pivoted = tuple(disk.nodes) != before.nodes
    if moment is Moment.CLEANED:
        # The file that libvirt had written cannot be read by it: it takes the machine for shut off.
        machine.process, machine.lost = None, machine.process
        return
    if pivoted:
        _chain_changed(disk, before, moment)
        disk.left_mirror = LeftMirror(job.base.image, "pivot")
    elif moment is Moment.CANCELED:
        disk.left_mirror = LeftMirror(job.base.image, "")
    elif before.was_ready:
        # The job ended well, and libvirt had not noted that it was to be aborted: it takes it for pivoted.
        position = before.listed.index(job.base)
        disk.shown = before.listed[position:]
        _store(machine, disk)


def _store(machine: Machine, disk: LiveDisk) -> None:
    """The stored definition of the disk becomes what libvirt shows of the running one."""
    if machine.definition is not None and disk.target in machine.definition:
        kept = {node.source.key for node in disk.listed}
        defined = machine.definition[disk.target]
        machine.definition[disk.target] = defined.without(
            link.source.key for link in defined.chain if link.source.key not in kept
        )
