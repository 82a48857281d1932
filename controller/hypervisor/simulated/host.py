"""The simulated world: libvirtd, its QEMU processes and their images.

It outlives every connection, as the real one does: a controller that was killed finds on the same host what
the dead one left. Tests drive it by plain method calls (nothing here is asynchronous but :meth:`connect`);
the controller sees it only through the :class:`~controller.hypervisor.driver.Driver` port.

One thing is harsher than life: there are no image locks, so a commit into a layer that another machine uses
does what it would do on NBD, gluster or iSCSI, and spoils it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from uuid import NAMESPACE_DNS, uuid5

from controller.chain.source import Source
from controller.hypervisor.driver import (
    Disconnected,
    DomainRef,
    Event,
    EventSink,
    JobChanged,
    JobStatus,
    Lifecycle,
    LifecycleKind,
    Pool,
)
from controller.hypervisor.errors import (
    DomainGone,
    HypervisorError,
    OperationFailed,
    Unreachable,
)
from controller.hypervisor.simulated import blockjobs
from controller.hypervisor.simulated.boot import boot
from controller.hypervisor.simulated.driver import SimulatedDriver
from controller.hypervisor.simulated.faults import Faults, Side
from controller.hypervisor.simulated.image import Content, Storage, compose
from controller.hypervisor.simulated.job import ActiveCommit, Copy, Job
from controller.hypervisor.simulated.machine import DiskDefinition, LiveDisk, Machine, Process
from controller.hypervisor.simulated.render import Pages

MIB = 1 << 20
_Finished = tuple[Machine, Process, DiskDefinition, LiveDisk, Job]


class SimulatedHost:
    """One hypervisor. ``storage`` may be shared by several hosts, as network storage is.

    With ``auto``, each job finishes by itself: half of it on the next iteration of the event loop (or after
    ``delay`` seconds), the rest on the one after. Without, it waits for :meth:`advance` or
    :meth:`finish_jobs`.
    """

    def __init__(
        self,
        hostname: str = "simulated",
        *,
        storage: Storage | None = None,
        auto: bool = False,
        delay: float = 0.0,
    ) -> None:
        self.hostname = hostname
        self.storage = storage or Storage()
        self.auto = auto
        self.delay = delay
        self.machines: dict[str, Machine] = {}
        self.pools: dict[str, Pool] = {}
        self.pages: dict[str, Pages] = {}
        self.faults = Faults()
        self._drivers: list[SimulatedDriver] = []
        self._libvirtd = True
        self._unrecorded: list[_Finished] = []
        self._processes = 0

    # Connections --------------------------------------------------------------------------------------

    async def connect(self, sink: EventSink) -> SimulatedDriver:
        """Open a connection, as a :data:`Connector`. Raises Unreachable while libvirtd is stopped."""
        await asyncio.sleep(0)
        if not self._libvirtd:
            raise Unreachable("Failed to connect socket: Connection refused", code=38)
        driver = SimulatedDriver(self, sink)
        self._drivers.append(driver)
        for machine in self.machines.values():
            for disk, job in machine.jobs():
                self.started(machine, disk, job)
        return driver

    def by_hand(self) -> SimulatedDriver:
        """Somebody with virsh: the same calls, neither recorded nor struck by faults."""
        return SimulatedDriver(self, None)

    def disconnect(self, reason: str = "Cannot recv data: Connection reset by peer") -> None:
        """Break all connections; everything else goes on."""
        for driver in self._drivers:
            driver.drop(Disconnected(reason))
        self._drivers.clear()

    def bury(self) -> None:
        """The controller is dead: nothing reaches it any more."""
        for driver in self._drivers:
            driver.bury()
        self._drivers.clear()

    def leave(self, driver: SimulatedDriver) -> None:
        """A connection was closed."""
        if driver in self._drivers:
            self._drivers.remove(driver)

    def stop_libvirtd(self) -> None:
        """libvirtd dies; QEMU and its jobs go on."""
        self._libvirtd = False
        self.disconnect()

    def start_libvirtd(self) -> None:
        """libvirtd is back: what finished meanwhile is recorded now, and no event tells of it (measured)."""
        self._libvirtd = True
        for machine, process, before, disk, job in self._unrecorded:
            if machine.process is process:
                blockjobs.record(machine, before, disk, job)
        self._unrecorded.clear()

    def restart_libvirtd(self) -> None:
        """Stop and start it at once."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def emit(self, event: Event) -> None:
        """Send an event to every connection."""
        for driver in tuple(self._drivers):
            driver.deliver(event)

    # Faults -------------------------------------------------------------------------------------------

    def fail_before(self, n: int, error: HypervisorError, *, on: str | None = None) -> None:
        """The ``n``-th changing call from now (or the ``n``-th call named ``on``) fails without effect."""
        self.faults.add(n, Side.BEFORE, error, on)

    def fail_after(self, n: int, error: HypervisorError, *, on: str | None = None) -> None:
        """The same call takes effect, and the caller gets ``error`` (OutcomeUnknown, as a rule)."""
        self.faults.add(n, Side.AFTER, error, on)

    def kill_before(self, n: int, *, on: str | None = None) -> None:
        """The controller is killed as it makes that call: :class:`Killed`, without effect."""
        self.faults.add(n, Side.BEFORE, None, on)

    def kill_after(self, n: int, *, on: str | None = None) -> None:
        """The controller is killed after that call took effect, before it learns so."""
        self.faults.add(n, Side.AFTER, None, on)

    # Machines -----------------------------------------------------------------------------------------

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
        """Define a domain (and start it); images of its disks that do not exist are made, empty, with
        ``capacity`` bytes. Returns the UUID."""
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
        definition = {disk.target: disk for disk in disks}
        machine = self.machines.get(uuid)
        if machine is None:
            if any(other.name == name for other in self.machines.values()):
                raise OperationFailed(f"domain '{name}' already exists with another uuid", code=9)
            self.machines[uuid] = Machine(uuid, name, definition)
            self.pages[uuid] = Pages()
        else:
            machine.definition = definition
        self._lifecycle(self.machines[uuid], LifecycleKind.DEFINED)

    def undefine(self, uuid: str) -> None:
        """Drop the definition: a running domain becomes transient, another one is gone."""
        machine = self.machine(uuid)
        machine.definition = None
        machine.config_metadata = {}
        if machine.process is None:
            del self.machines[uuid]
        self._lifecycle(machine, LifecycleKind.UNDEFINED)

    def rename(self, uuid: str, name: str) -> None:
        """Give an inactive domain another name."""
        machine = self.machine(uuid)
        if machine.process is not None:
            raise OperationFailed("cannot rename active domain", code=55)
        self._lifecycle(machine, LifecycleKind.UNDEFINED)
        machine.name = name
        self._lifecycle(machine, LifecycleKind.DEFINED)

    def start(self, uuid: str) -> None:
        """Start QEMU on the persistent definition; indexes are numbered anew."""
        machine = self.machine(uuid)
        if machine.process is not None:
            raise OperationFailed("domain is already running", code=55)
        self._processes += 1
        machine.process = boot(machine.definition or {}, self.storage, self._processes)
        machine.live_metadata = dict(machine.config_metadata)
        self._lifecycle(machine, LifecycleKind.STARTED)

    def shutdown(self, uuid: str) -> None:
        """End QEMU in good order: it writes its caches. A running job ends without an event (measured)."""
        for disk in self.machine(uuid).running().disks.values():
            disk.flush()
        self.kill_qemu(uuid)

    def kill_qemu(self, uuid: str, *, completing: bool = False) -> None:
        """SIGKILL QEMU: what a pull left in its memory is lost. With ``completing``, jobs that end by
        themselves had just rewritten the headers, and libvirt had no time to record it (measured once in
        16 kills)."""
        machine = self.machine(uuid)
        machine.running()
        for disk, job in list(machine.jobs()):
            if completing and job.mirrored is None:
                job.advance(None)
                job.complete()
            disk.job = None
        machine.process = None
        machine.live_metadata = {}
        machine.locked_by = ""
        if machine.definition is None:
            del self.machines[uuid]
        self._lifecycle(machine, LifecycleKind.STOPPED)

    def machine(self, uuid: str) -> Machine:
        """The domain. Raises DomainGone."""
        try:
            return self.machines[uuid]
        except KeyError:
            raise DomainGone(f"Domain not found: no domain with matching uuid '{uuid}'", code=42) from None

    def inventory(self) -> tuple[DomainRef, ...]:
        """All domains."""
        return tuple(DomainRef(m.uuid, m.name, m.process is not None) for m in self.machines.values())

    def _lifecycle(self, machine: Machine, kind: LifecycleKind) -> None:
        self.emit(Lifecycle(machine.uuid, machine.name, kind))

    # Jobs ---------------------------------------------------------------------------------------------

    def jobs(self, uuid: str | None = None, target: str | None = None) -> list[tuple[Machine, LiveDisk, Job]]:
        """The running jobs, of one domain or disk if asked."""
        machines = self.machines.values() if uuid is None else [self.machine(uuid)]
        return [
            (machine, disk, job)
            for machine in machines
            for disk, job in machine.jobs()
            if target in {None, disk.target}
        ]

    def advance(self, clusters: int = 1, uuid: str | None = None, target: str | None = None) -> None:
        """Let every running job copy up to ``clusters`` more. One that has copied all completes, or becomes
        ready if it waits for a pivot."""
        for machine, disk, job in self.jobs(uuid, target):
            self._progress(machine, disk, job, clusters)

    def finish_jobs(self, uuid: str | None = None, target: str | None = None) -> None:
        """Let every running job copy all it has to."""
        for machine, disk, job in self.jobs(uuid, target):
            self._progress(machine, disk, job, None)

    def fail_job(self, uuid: str, target: str) -> None:
        """The job dies of an I/O error or a full disk, after what it copied so far. libvirt gives no reason
        (measured)."""
        for machine, disk, job in self.jobs(uuid, target):
            self.end_job(machine, disk, job, JobStatus.FAILED)

    def started(self, machine: Machine, disk: LiveDisk, job: Job) -> None:
        """A job runs; with ``auto`` it goes on by itself."""
        if self.auto:
            self._later(machine, disk, job, len(job.todo) // 2)

    def end_job(self, machine: Machine, disk: LiveDisk, job: Job, status: JobStatus) -> None:
        """End a job: COMPLETED changes the chain, everything else leaves it as it was."""
        before = disk.as_defined()
        if status is JobStatus.COMPLETED:
            job.complete()
        disk.job = None
        if status is not JobStatus.COMPLETED or self._libvirtd:
            if status is JobStatus.COMPLETED:
                blockjobs.record(machine, before, disk, job)
            self.emit(JobChanged(machine.uuid, disk.target, job.kind, status))
        elif machine.process is not None:
            self._unrecorded.append((machine, machine.process, before, disk, job))

    def _progress(self, machine: Machine, disk: LiveDisk, job: Job, clusters: int | None) -> None:
        if not job.advance(clusters) or job.ready:
            return
        if isinstance(job, ActiveCommit | Copy):
            job.ready = True
            self.emit(JobChanged(machine.uuid, disk.target, job.kind, JobStatus.READY))
        else:
            self.end_job(machine, disk, job, JobStatus.COMPLETED)

    def _later(self, machine: Machine, disk: LiveDisk, job: Job, clusters: int | None) -> None:
        def step() -> None:
            if disk.job is not job or machine.process is None:
                return
            self._progress(machine, disk, job, clusters)
            if clusters is not None:
                self._later(machine, disk, job, None)

        loop = asyncio.get_running_loop()
        if self.delay:
            loop.call_later(self.delay, step)
        else:
            loop.call_soon(step)

    # The guest, and what can be read ------------------------------------------------------------------

    def guest_write(self, uuid: str, target: str, cluster: int, value: int) -> None:
        """The guest writes one cluster."""
        self.machine(uuid).live_disk(target).write(cluster, value)

    def visible(self, uuid: str, target: str) -> Content:
        """What the guest reads now: every cluster that is not zero."""
        return self.machine(uuid).live_disk(target).content()

    def point(self, uuid: str, target: str, source: Source | str) -> Content:
        """What reads through the layer of this source (or key) in the live chain: a kept point's content."""
        disk = self.machine(uuid).live_disk(target)
        key = source if isinstance(source, str) else source.key
        positions = [i for i, node in enumerate(disk.nodes) if node.key == key]
        if positions:
            return disk.content(positions[0])
        hidden = [i for i, image in enumerate(disk.hidden) if image.key == key]
        if not hidden:
            raise LookupError(f"{key} is not in the chain of {target}")
        return compose(image.clusters for image in reversed(disk.hidden[hidden[0] :]))

    def content_of(self, source: Source | str) -> Content:
        """What an offline reader of the image sees through headers alone. Raises ImageMissing."""
        return self.storage.content_of(source if isinstance(source, str) else source.key)
