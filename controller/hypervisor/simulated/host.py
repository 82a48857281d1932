"""The simulated world: libvirtd, its QEMU processes and their images.

It outlives every connection, as the real one does: a controller that was killed finds on the same host what
the dead one left. Tests drive it by plain method calls (nothing here is asynchronous but :meth:`connect`);
the controller sees it only through the :class:`~controller.hypervisor.driver.Driver` port.

One thing is harsher than life: there are no image locks, so a commit into a layer that another machine uses
does what it would do on NBD, gluster or iSCSI, and spoils it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from controller.chain.gate import Gate, gate
from controller.chain.source import Source
from controller.hypervisor.driver import EventSink, JobChanged, JobStatus, Pool
from controller.hypervisor.errors import Unreachable
from controller.hypervisor.simulated import blockjobs
from controller.hypervisor.simulated.domains import Domains
from controller.hypervisor.simulated.driver import SimulatedDriver
from controller.hypervisor.simulated.faults import Moment
from controller.hypervisor.simulated.image import Content, Image, Storage, compose
from controller.hypervisor.simulated.job import ActiveCommit, Copy, Job
from controller.hypervisor.simulated.machine import DiskDefinition, LiveDisk, Machine, Process
from controller.hypervisor.simulated.notes import Notes
from controller.hypervisor.timing import DEFAULT_TIMING

_Finished = tuple[Machine, Process, DiskDefinition, LiveDisk, Job]


class SimulatedHost(Domains):
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
        super().__init__(hostname, storage or Storage())
        self.auto = auto
        self.delay = delay
        self.libvirt_version = "9.0.0"
        self.qemu_version = "7.2.22"
        self.pools: dict[str, Pool] = {}
        self.storage_daemon = True
        """False: modular daemons without virtstoraged. Machines run, and nothing of storage answers."""
        self.timing = DEFAULT_TIMING
        """How long calls about a domain that hangs are waited for."""
        self.marks: dict[str, list[str]] = {}
        """By domain: XML of snapshots and checkpoints that libvirt keeps."""
        self.free: dict[str, int] = {}
        """Free bytes by :attr:`Source.home`; what is missing cannot be told."""
        self.faces: dict[str, dict[str, Any]] = {}
        """By image: how what QEMU has opened there differs from what a look into it shows, as fields of
        OpenedImage: whoever serves it shows another image to those who come later."""
        self._unrecorded: list[_Finished] = []
        self._ends_until_death = 0
        self._death_at_end = Moment.AFTER
        self.unlinked: list[str] = []
        """Keys of images that were removed while a QEMU here had them open."""
        self.ends = 0
        """Commits below and pulls that have ended well until now."""

    @property
    def gate(self) -> Gate:
        """The known faults of its versions."""
        return gate(self.libvirt_version, self.qemu_version)

    # Connections --------------------------------------------------------------------------------------

    async def connect(self, sink: EventSink) -> SimulatedDriver:
        """Open a connection, as a :data:`Connector`. Raises Unreachable while libvirtd is stopped."""
        await asyncio.sleep(0)
        if not self.libvirtd_runs:
            raise Unreachable("Failed to connect socket: Connection refused", code=38)
        driver = SimulatedDriver(self, sink)
        self._drivers.append(driver)
        for machine, disk, job in self.jobs():
            self.started(machine, disk, job)
        return driver

    def by_hand(self) -> SimulatedDriver:
        """Somebody with virsh: the same calls, neither recorded nor struck by faults."""
        return SimulatedDriver(self, None)

    def stop_libvirtd(self) -> None:
        """libvirtd dies; QEMU and its jobs go on."""
        self.libvirtd_runs = False
        self.disconnect()

    def start_libvirtd(self) -> None:
        """libvirtd is back: what finished meanwhile is recorded now, and no event tells of it (measured)."""
        self.libvirtd_runs = True
        for machine, process, before, disk, job in self._unrecorded:
            if machine.process is process:
                blockjobs.record(machine, before, disk, job)
        self._unrecorded.clear()

    def restart_libvirtd(self) -> None:
        """Stop and start it at once."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def notes(self) -> Notes:
        """What libvirtd has noted now."""
        return Notes(self.machines.values())

    def die(self, moment: Moment, noted: Notes | None) -> None:
        """libvirtd is killed when it has come so far with what was done since ``noted``."""
        self.faults.deaths.append(moment)
        if noted is not None:
            noted.fall_back(moment)
        self.stop_libvirtd()
        if self.revives_after is not None:
            asyncio.get_running_loop().call_later(self.revives_after, self._revive)

    def _revive(self) -> None:
        if not self.libvirtd_runs:
            self.start_libvirtd()

    def libvirtd_dies_at_an_end(self, n: int, moment: Moment) -> None:
        """libvirtd is killed at the ``n``-th end of a commit below or a pull from now, when it has come so
        far with noting it."""
        self._ends_until_death, self._death_at_end = n, moment

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

    def start_copy(self, uuid: str, target: str, destination: Image) -> None:
        """Somebody's blockcopy: a job that is not varve's."""
        machine = self.machine(uuid)
        disk = blockjobs.idle(machine, target)
        disk.job = Copy(disk, destination)
        self.started(machine, disk, disk.job)

    def started(self, machine: Machine, disk: LiveDisk, job: Job) -> None:
        """A job runs; with ``auto`` it goes on by itself."""
        if self.auto:
            self._later(machine, disk, job, len(job.todo) // 2)

    def end_job(self, machine: Machine, disk: LiveDisk, job: Job, status: JobStatus) -> None:
        """End a job: COMPLETED changes the chain, everything else leaves it as it was."""
        if status is not JobStatus.COMPLETED or isinstance(job, ActiveCommit | Copy):
            self._ended(machine, disk, job, status)
            return
        self.ends += 1
        self._ends_until_death -= 1
        noted = self.notes() if self._ends_until_death == 0 and self.libvirtd_runs else None
        self._ended(machine, disk, job, status)
        if noted is not None:
            self.die(self._death_at_end, noted)

    def _ended(self, machine: Machine, disk: LiveDisk, job: Job, status: JobStatus) -> None:
        before, listed = disk.as_defined(), disk.listed
        if status is JobStatus.COMPLETED:
            job.complete()
            disk.list_anew(node for node in listed if node not in job.leaving)
        disk.job = None
        if status is not JobStatus.COMPLETED or self.libvirtd_runs:
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
        self.machine(uuid).qemu.disks[target].write(cluster, value)

    def visible(self, uuid: str, target: str) -> Content:
        """What the guest reads now: every cluster that is not zero."""
        return self.machine(uuid).qemu.disks[target].content()

    def open_images(self) -> frozenset[str]:
        """Keys of all images that a QEMU here has open, whatever libvirt knows."""
        processes = [p for m in self.machines.values() for p in (m.process, m.lost) if p is not None]
        disks = [disk for process in processes for disk in process.disks.values()]
        images = [image for disk in disks for image in disk.hidden]
        return frozenset(
            [image.key for image in images] + [n.key for d in disks for n in (*d.nodes, *d.loose)]
        )

    def is_split(self, uuid: str) -> bool:
        """Whether libvirt believes in another chain than QEMU has, or in no process at all."""
        machine = self.machine(uuid)
        if machine.lost is not None:
            return True
        disks = machine.process.disks.values() if machine.process is not None else ()
        return any(disk.shown is not None or disk.left_mirror is not None for disk in disks)

    def point(self, uuid: str, target: str, source: Source | str) -> Content:
        """What reads through the layer of this source (or key) in the live chain: a kept point's content."""
        disk = self.machine(uuid).qemu.disks[target]
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
