"""Domains of the simulated host: defined, started, paused, plugged, migrated, killed. Plain method calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TypeVar
from uuid import NAMESPACE_DNS, uuid5

from controller.chain.observation import RunState
from controller.chain.source import Source
from controller.hypervisor.driver import (
    Answered,
    DeviceChanged,
    DomainRef,
    IOFailed,
    Lifecycle,
    LifecycleKind,
)
from controller.hypervisor.errors import (
    Busy,
    DomainGone,
    OperationFailed,
)
from controller.hypervisor.simulated.boot import boot, plug
from controller.hypervisor.simulated.image import Storage
from controller.hypervisor.simulated.libvirtd import Libvirtd
from controller.hypervisor.simulated.machine import DiskDefinition, Machine, ordered
from controller.hypervisor.simulated.render import Pages

MIB = 1 << 20
_Host = TypeVar("_Host", bound="Domains")


class Domains(Libvirtd):
    """All domains of one host, on a storage that several hosts may share."""

    def __init__(self, hostname: str, storage: Storage) -> None:
        super().__init__(hostname)
        self.storage = storage
        self.machines: dict[str, Machine] = {}
        self.pages: dict[str, Pages] = {}
        self._processes = 0

    def machine(self, uuid: str) -> Machine:
        """The domain. Raises DomainGone."""
        try:
            return self.machines[uuid]
        except KeyError:
            raise DomainGone(f"Domain not found: no domain with matching uuid '{uuid}'", code=42) from None

    def inventory(self) -> tuple[DomainRef, ...]:
        """All domains."""
        return tuple(DomainRef(m.uuid, m.name, m.process is not None) for m in self.machines.values())

    # Definitions --------------------------------------------------------------------------------------

    def add_domain(
        self,
        name: str,
        disks: Mapping[str, Source] | Iterable[DiskDefinition],
        *,
        uuid: str | None = None,
        running: bool = True,
        persistent: bool = True,
        capacity: int = 64 * MIB,
    ) -> str:
        """Define a domain (and start it); active images of its disks that do not exist are made, empty, with
        ``capacity`` bytes. A mapping means qcow2 disks. Returns the UUID."""
        definitions = (
            [DiskDefinition.of(target, source) for target, source in disks.items()]
            if isinstance(disks, Mapping)
            else list(disks)
        )
        for definition in definitions:
            for link in definition.chain[:1]:
                if link.source.key not in self.storage.images:
                    self.storage.create(link.source, capacity=capacity, format=link.format)
        uuid = uuid or str(uuid5(NAMESPACE_DNS, f"{self.hostname}/{name}/{len(self.pages)}"))
        self.define(name, definitions, uuid)
        if running:
            self.start(uuid)
        if not persistent:
            self.undefine(uuid)
        return uuid

    def define(self, name: str, disks: Iterable[DiskDefinition], uuid: str) -> None:
        """Define a domain, or replace the definition of the one with this UUID."""
        definition = ordered(disks)
        machine = self.machines.get(uuid)
        if any(other.name == name and other.uuid != uuid for other in self.machines.values()):
            raise OperationFailed(f"domain '{name}' already exists with another uuid", code=9)
        if machine is None:
            self.receive(Machine(uuid, name, definition))
        else:
            machine.definition = definition
        self.tell(self.machines[uuid], LifecycleKind.DEFINED)

    def undefine(self, uuid: str) -> None:
        """Drop the definition: a running domain becomes transient, another one is gone."""
        machine = self.machine(uuid)
        machine.definition = None
        machine.config_metadata = {}
        if machine.process is None:
            del self.machines[uuid]
        self.tell(machine, LifecycleKind.UNDEFINED)

    def rename(self, uuid: str, name: str) -> None:
        """Give an inactive domain another name."""
        machine = self.machine(uuid)
        if machine.process is not None:
            raise OperationFailed("cannot rename active domain", code=55)
        self.tell(machine, LifecycleKind.UNDEFINED)
        machine.name = name
        self.tell(machine, LifecycleKind.DEFINED)

    # One life of QEMU ---------------------------------------------------------------------------------

    def start(self, uuid: str) -> None:
        """Start QEMU on the persistent definition; indexes are numbered anew. Raises OperationFailed when an
        image is missing."""
        machine = self.machine(uuid)
        if machine.process is not None:
            raise OperationFailed("domain is already running", code=55)
        self._require_locks(machine)
        self._processes += 1
        machine.process = boot(machine.definition or {}, self.storage, self._processes)
        machine.live_metadata = dict(machine.config_metadata)
        self.tell(machine, LifecycleKind.STARTED)

    def _require_locks(self, machine: Machine) -> None:
        """A file that the process has open which libvirt has lost cannot be opened a second time; on storage
        without locks it can, and then two write to it."""
        if machine.lost is None:
            return
        held = {node.key for disk in machine.lost.disks.values() for node in disk.nodes}
        for definition in (machine.definition or {}).values():
            for link in definition.chain:
                if link.source.key in held and link.source.type in {"file", "block"}:
                    raise OperationFailed(
                        "internal error: process exited while connecting to monitor: Failed to get shared "
                        f'"write" lock: Is another process using the image [{link.source.path}]?',
                        code=1,
                    )

    def end_lost(self, uuid: str) -> None:
        """The guest of a process that libvirt has lost switches itself off."""
        machine = self.machine(uuid)
        for disk in machine.lost.disks.values() if machine.lost is not None else ():
            disk.flush()
        machine.lost = None

    def shutdown(self, uuid: str) -> None:
        """End QEMU in good order: it writes its caches. A running job ends without an event (measured)."""
        machine = self.machine(uuid)
        for disk in machine.running().disks.values():
            disk.flush()
        self._end(machine, "destroyed")

    def kill_qemu(self, uuid: str, *, completing: bool = False) -> None:
        """SIGKILL QEMU: what a pull left in its memory is lost. With ``completing``, jobs that end by
        themselves had just rewritten the headers, and libvirt had no time to record it (measured once in
        16 kills)."""
        machine = self.machine(uuid)
        machine.running()
        for _, job in list(machine.jobs()):
            if completing and job.mirrored is None:
                job.advance(None)
                job.complete()
        self._end(machine, "failed")

    def _end(self, machine: Machine, reason: str) -> None:
        for disk, _ in list(machine.jobs()):
            disk.job = None
        machine.process = None
        machine.stopped = reason
        machine.live_metadata = {}
        machine.locked_by = ""
        if machine.definition is None:
            del self.machines[machine.uuid]
        self.tell(machine, LifecycleKind.STOPPED)

    def pause(self, uuid: str) -> None:
        """Stop the guest; QEMU writes its caches when it was running (measured)."""
        machine = self.machine(uuid)
        process = machine.running()
        if process.state is RunState.RUNNING:
            for disk in process.disks.values():
                disk.flush()
        process.state, process.reason = RunState.PAUSED, "user"
        self.tell(machine, LifecycleKind.SUSPENDED)

    def io_error(self, uuid: str, target: str, reason: str = "enospc") -> None:
        """A guest write fails and the guest is paused for it."""
        machine = self.machine(uuid)
        machine.live_disk(target)
        process = machine.running()
        process.state, process.reason, process.paused_by_io_error = RunState.PAUSED, "ioerror", True
        self.emit(IOFailed(uuid, target, reason))
        self.tell(machine, LifecycleKind.SUSPENDED)

    def resume(self, uuid: str) -> None:
        """Let a paused guest go on."""
        machine = self.machine(uuid)
        process = machine.running()
        process.state, process.reason, process.paused_by_io_error = RunState.RUNNING, "unpaused", False
        self.tell(machine, LifecycleKind.RESUMED)

    # What others do to a running domain ---------------------------------------------------------------

    def attach(self, uuid: str, disk: DiskDefinition, *, persistent: bool = True) -> None:
        """Plug a disk in; its image must exist."""
        machine = self.machine(uuid)
        process = machine.running()
        if disk.target in process.disks:
            raise OperationFailed(f"target {disk.target} already exists", code=55)
        process.disks[disk.target] = plug(disk, self.storage, process)
        if persistent and machine.definition is not None:
            machine.definition[disk.target] = disk
        self.emit(DeviceChanged(uuid, plugged=True))

    def detach(self, uuid: str, target: str) -> None:
        """Unplug a disk, from the persistent definition too. Raises Busy while it has a job."""
        machine = self.machine(uuid)
        disk = machine.live_disk(target)
        if disk.job is not None:
            raise Busy(f"disk '{target}' already in active block job", code=84)
        disk.flush()
        del machine.running().disks[target]
        if machine.definition is not None:
            machine.definition.pop(target, None)
        self.emit(DeviceChanged(uuid, plugged=False))

    def lock(self, uuid: str, holder: str = "remoteDispatchDomainScreenshot") -> None:
        """A call of somebody else holds the domain: reads and changes get Busy (code 68)."""
        self.machine(uuid).locked_by = holder

    def unlock(self, uuid: str) -> None:
        """That call returned."""
        self.machine(uuid).locked_by = ""

    def hang(self, uuid: str) -> None:
        """From libvirt 11.0 to 11.4 the documents of a domain wait for its job, as those of one that migrates
        in or whose QEMU hangs (by the source): reads end at their deadline, changes get Busy."""
        machine = self.machine(uuid)
        machine.hung, machine.given_up = asyncio.Event(), False

    def unhang(self, uuid: str) -> None:
        """The job is over: what waits gets its answer, and what was given up is told of."""
        machine = self.machine(uuid)
        if machine.hung is not None:
            machine.hung.set()
        if machine.given_up:
            self.emit(Answered(uuid))
        machine.hung, machine.given_up = None, False

    def begin_domain_job(self, uuid: str, name: str = "migration-out") -> None:
        """A domain-wide job (``migration-out``, ``backup``, ``save`` …): reads show it, changes get Busy."""
        self.machine(uuid).running().job_active = name

    def end_domain_job(self, uuid: str) -> None:
        """The domain-wide job ended and left everything as it was."""
        self.machine(uuid).running().job_active = ""

    def migrate(self: _Host, uuid: str, to: _Host) -> None:
        """Move a running domain with its definition to a host on the same storage. Indexes are renumbered.

        Raises OperationFailed (code 55) while it has a block job (measured).
        """
        machine = self.machine(uuid)
        process = machine.running()
        if to.storage is not self.storage:
            raise ValueError("both hosts must reach the same storage")
        if any(machine.jobs()):
            raise OperationFailed("domain has active block job", code=55)
        process.job_active = ""
        process.numbered = 0
        for disk in reversed(process.disks.values()):
            disk.flush()
            for node in disk.nodes:
                node.index = process.number()
        del self.machines[uuid]
        self.tell(machine, LifecycleKind.STOPPED)
        self.tell(machine, LifecycleKind.UNDEFINED)
        to.receive(machine)
        to.tell(machine, LifecycleKind.DEFINED)
        to.tell(machine, LifecycleKind.RESUMED)

    def receive(self, machine: Machine) -> None:
        """A domain is here from now on."""
        self.machines[machine.uuid] = machine
        self.pages[machine.uuid] = Pages()

    def tell(self, machine: Machine, kind: LifecycleKind) -> None:
        """Send a lifecycle event."""
        self.emit(Lifecycle(machine.uuid, machine.name, kind))
