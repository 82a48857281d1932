"""The port, implemented over a :class:`~controller.hypervisor.simulated.host.SimulatedHost`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from controller.chain.gate import Gate
from controller.chain.observation import JobKind, RunState
from controller.chain.opened import OpenedImage
from controller.chain.prepared import Examined
from controller.chain.qcow2 import Inside
from controller.chain.source import Source
from controller.hypervisor.driver import (
    Definitions,
    DomainReading,
    DomainRef,
    Facts,
    JobStatus,
    LayerStats,
    Opened,
    Pool,
    Removal,
    Running,
    Surroundings,
)
from controller.hypervisor.errors import (
    Busy,
    NotExaminable,
    NotFound,
    NotRunning,
    OperationFailed,
    ServiceMissing,
    Unreachable,
    Unsupported,
)
from controller.hypervisor.simulated import blockjobs, definition, metadata, snapshot
from controller.hypervisor.simulated.connection import NO_STORAGE_DAEMON, Connection, require_lock
from controller.hypervisor.simulated.faults import Moment
from controller.hypervisor.simulated.image import Image, absolute_name
from controller.hypervisor.simulated.machine import Machine, Node

CAPABILITIES = frozenset(
    {"commit-active", "commit-relative", "rebase-relative", "snapshot-quiesce", "backing-store-input"}
)
_POOLS = frozenset({"dir", "fs", "netfs", "gluster", "rbd"})


class SimulatedDriver(Connection):
    """The calls, as libvirt answers them. What each goes through is its :class:`Connection`'s."""

    # Reading ------------------------------------------------------------------------------------------

    async def facts(self) -> Facts:
        """Those of the versions that were measured."""
        async with self._call("facts", changing=False):
            there = self._host.storage.drivers if self._host.storage_daemon else ()
            storage = {f"storage-{driver}" for driver in there}
            versions = self._host.libvirt_version, self._host.qemu_version
            return Facts(*versions, self._host.hostname, CAPABILITIES | storage)

    async def domains(self) -> tuple[DomainRef, ...]:
        """All domains."""
        async with self._call("domains", changing=False):
            return self._host.inventory()

    async def read(self, uuid: str, *, sizes: bool = True) -> DomainReading:
        """One domain, its jobs included."""
        async with self._call("read", changing=False, uuid=uuid):
            machine = self._host.machine(uuid)
            if machine.given_up:
                raise Busy(
                    f"reading domain {uuid} has not answered; nothing more is sent there until it does"
                )
            if not await self._documents_of(machine, self._host.timing.read):
                raise Busy(f"reading domain {uuid} has not answered for {self._host.timing.read:g} s")
            require_lock(machine.locked_by)
            pages = self._host.pages[uuid]
            process = machine.process
            return DomainReading(
                uuid=uuid,
                state=process.state if process else RunState.SHUTOFF,
                state_reason=process.reason if process else machine.stopped,
                persistent=machine.definition is not None,
                live_xml=pages.live(machine),
                inactive_xml=pages.inactive(machine),
                stats=_stats(machine, self._host.gate) if sizes else (),
                jobs={disk.target: job.info() for disk, job in machine.jobs()},
                paused_by_io_error=process is not None and process.paused_by_io_error,
                job_active=process.job_active if process else "",
            )

    async def definitions(self) -> Definitions:
        """All documents, live and persistent; of a machine that does not answer what it last said here."""
        async with self._call("definitions", changing=False):
            found, unread = list[str](), dict[str, str]()
            for machine in tuple(self._host.machines.values()):
                late = machine.given_up or not await self._documents_of(machine, self._host.timing.definition)
                if late:
                    found += self._said.get(machine.uuid, ())
                    if machine.uuid not in self._said:
                        unread[machine.uuid] = machine.name
                    continue
                pages = self._host.pages[machine.uuid]
                said = [xml for xml in (pages.live(machine), pages.inactive(machine)) if xml is not None]
                self._said[machine.uuid] = tuple(said)
                found += said
            return Definitions(tuple(found), unread)

    async def referrers(self, source: Source) -> tuple[str, ...]:
        """Neighbours whose header names ``source``."""
        async with self._call("referrers", changing=False, source=source.key):
            self._require_storage_daemon()
            return self._host.storage.referrers(source)

    async def surroundings(self, uuid: str, images: Iterable[Source]) -> Surroundings:
        """What a test put into ``host.marks`` and ``host.free``."""
        homes = {image.home for image in images}
        async with self._call("surroundings", changing=False, uuid=uuid, homes=" ".join(sorted(homes))):
            known = self._host.free if self._host.storage_daemon else {}
            free = {home: size for home, size in known.items() if home in homes}
            return Surroundings(tuple(self._host.marks.get(uuid, ())), free)

    async def inside(self, images: Iterable[Source]) -> Mapping[str, Inside]:
        """What the headers of images say that libvirt can look into."""
        wanted = tuple(images)
        async with self._call("inside", changing=False, images=" ".join(image.key for image in wanted)):
            found = (self._host.storage.inside(image) for image in wanted)
            return {image.key: one for image, one in zip(wanted, found, strict=True) if one is not None}

    async def examine(self, uuid: str, source: Source, *, way_in: int | None) -> Examined:
        """What an image is, and what it says of the one below it."""
        async with self._call("examine", changing=False, uuid=uuid, source=source.key):
            if not self._host.storage_daemon:
                raise NotExaminable(NO_STORAGE_DAEMON)
            return self._host.storage.examine(source)

    async def written(self, images: Iterable[Source]) -> Mapping[str, datetime]:
        """What a test put into ``host.storage.written``."""
        wanted = [image.key for image in images]
        async with self._call("written", changing=False, images=" ".join(wanted)):
            known = self._host.storage.written if self._host.storage_daemon else {}
            return {key: known[key] for key in wanted if key in known}

    async def present(self, source: Source) -> bool | None:
        """Whether the storage has it, where libvirt could tell."""
        async with self._call("present", changing=False, source=source.key):
            if not self._host.storage_daemon:
                return None
            return self._host.storage.present(source)

    async def opened(self, uuid: str) -> Opened:
        """The images of each disk as QEMU has them."""
        async with self._call("opened", changing=False, uuid=uuid):
            process = self._apart_from_pulls(uuid).process
            if process is None:
                raise NotRunning("Requested operation is not valid: domain is not running", code=55)
            faces = self._host.faces
            disks = {
                disk.target: tuple(
                    replace(found, **faces.get(image.key, {}))
                    for found, image in zip(_opened(disk.images), disk.images, strict=True)
                )
                for disk in process.disks.values()
            }
            loose = (node.image for disk in process.disks.values() for node in disk.loose)
            every = (*(one for chain in disks.values() for one in chain), *_opened(loose))
            return Opened(disks, frozenset(one.name for one in every))

    async def pool(self, name: str) -> Pool:
        """A pool that a test put into ``host.pools``."""
        async with self._call("pool", changing=False, name=name):
            if not self._host.storage_daemon:
                raise ServiceMissing(NO_STORAGE_DAEMON)
            pool = self._host.pools.get(name)
            if pool is None:
                raise NotFound(
                    f"Storage pool not found: no storage pool with matching name '{name}'", code=49
                )
            if pool.type not in _POOLS:
                raise Unsupported(f"a pool of type '{pool.type}' cannot hold overlays")
            return pool

    async def reach(
        self, sources: Iterable[Source], *, beside: Iterable[Source] = (), running: Running | None = None
    ) -> None:
        """Servers answer unless a test silenced them, and have room; nothing is asked for local images."""
        remote = [source for source in (*sources, *beside) if source.type == "network"]
        if remote:
            async with self._call("reach", changing=False, sources=[source.key for source in remote]):
                self._host.storage.require_servers(remote)

    async def definition(self, uuid: str) -> str:
        """The persistent document."""
        async with self._call("definition", changing=False, uuid=uuid):
            xml = self._host.pages[uuid].inactive(self._host.machine(uuid))
            if xml is None:
                raise Unsupported(f"domain {uuid} is transient: it has no persistent definition")
            return xml

    # Changing -----------------------------------------------------------------------------------------

    async def set_metadata(self, uuid: str, journal_xml: str | None, *, live: bool, config: bool) -> None:
        """Replace varve's element where asked; all or nothing."""
        async with self._call(
            "set_metadata", changing=True, uuid=uuid, journal_xml=journal_xml, live=live, config=config
        ):
            metadata.replace(self._unlocked(uuid), journal_xml, live=live, config=config)

    async def define(self, uuid: str, xml: str, *, replacing: str) -> None:
        """Take the chains of the document over, unless somebody else was faster."""
        async with self._call("define", changing=True, uuid=uuid, xml=xml, replacing=replacing):
            machine = self._unlocked(uuid)
            if self._host.pages[uuid].inactive(machine) != replacing:
                raise Busy(f"the definition of domain {uuid} was changed meanwhile")
            self._host.define(machine.name, definition.disks_of(machine, xml), uuid)

    async def create_snapshot(self, uuid: str, xml: str, *, reuse: bool = False) -> None:
        """Put overlays on top, of all disks that the document asks for or of none."""
        async with self._call("create_snapshot", changing=True, uuid=uuid, xml=xml, reuse=reuse):
            snapshot.take(self._apart_from_pulls(uuid), self._host.storage, xml, reuse=reuse)

    async def commit(
        self, uuid: str, target: str, *, base: str, top: str | None, relative: bool, bandwidth: int
    ) -> None:
        """Start a commit; of the active layer without ``top``."""
        async with self._call(
            "commit",
            changing=True,
            uuid=uuid,
            target=target,
            base=base,
            top=top,
            relative=relative,
            bandwidth=bandwidth,
        ):
            machine = self._apart_from_pulls(uuid)
            job = blockjobs.start_commit(
                machine,
                self._host.storage,
                target,
                base=base,
                top=top,
                relative=relative,
                bandwidth=bandwidth,
            )
            self._host.started(machine, machine.live_disk(target), job)

    async def pull(self, uuid: str, target: str, *, base: str | None, relative: bool, bandwidth: int) -> None:
        """Start a pull into the active layer."""
        async with self._call(
            "pull",
            changing=True,
            uuid=uuid,
            target=target,
            base=base,
            relative=relative,
            bandwidth=bandwidth,
        ):
            machine = self._apart_from_pulls(uuid, pulling=True)
            job = blockjobs.start_pull(
                machine, self._host.storage, target, base=base, relative=relative, bandwidth=bandwidth
            )
            self._host.started(machine, machine.live_disk(target), job)

    async def pivot(self, uuid: str, target: str) -> None:
        """Finish an active commit; returns when the guest writes to the lower layer."""
        async with self._call("pivot", changing=True, uuid=uuid, target=target):
            machine = self._apart_from_pulls(uuid)
            disk = machine.live_disk(target)
            self._host.end_job(machine, disk, blockjobs.require_mirror_ready(disk), JobStatus.COMPLETED)

    async def abort(self, uuid: str, target: str) -> None:
        """End a job where it is; what it copied stays copied."""
        async with self._call("abort", changing=True, uuid=uuid, target=target):
            machine = self._unlocked(uuid)
            disk = machine.live_disk(target)
            job = blockjobs.require_job(disk)
            crashes = job.mirrored is not None and not job.noted
            self._host.end_job(machine, disk, job, JobStatus.CANCELED)
            if crashes:  # it looks for the mirror that it has not noted (measured, libvirt 9.0)
                self._die(Moment.AFTER, None)

    async def flush(self, uuid: str, target: str, capacity: int) -> None:
        """Resize to the size that it has, which makes QEMU write its caches."""
        async with self._call("flush", changing=True, uuid=uuid, target=target, capacity=capacity):
            disk = self._apart_from_pulls(uuid).live_disk(target)
            now = disk.listed[0].image.capacity if disk.listed else 0
            if now != capacity:
                raise OperationFailed(f"disk {target} has {now} bytes now, not {capacity}: read it again")
            if disk.job is not None or disk.listed[0] is not disk.nodes[0]:
                raise Busy("unable to execute QEMU command 'block_resize': Device '(null)' is in use", code=1)
            disk.flush()

    async def remove_image(self, source: Source) -> Removal:
        """Unlink an image, needed or not."""
        async with self._call("remove_image", changing=True, source=source.key):
            self._require_storage_daemon()
            was_open = source.key in self._host.open_images()
            removal = self._host.storage.remove(source)
            if was_open and removal is Removal.REMOVED:
                self._host.unlinked.append(source.key)
            return removal

    async def close(self) -> None:
        """Leave; jobs go on."""
        self._broken = self._broken or Unreachable("the connection is closed")
        self._deaf = True
        self._host.leave(self)


def _opened(images: Iterable[Image]) -> tuple[OpenedImage, ...]:
    """Images as QEMU calls them."""
    return tuple(
        OpenedImage(absolute_name(image.source), image.format, capacity=image.capacity) for image in images
    )


def _physical(node: Node) -> int:
    """What an image takes of its storage: of a device all of it."""
    on_device = node.source.type == "block"
    return (node.image.room or 2 * node.image.capacity) if on_device else node.allocation


def _stats(machine: Machine, gate: Gate) -> tuple[LayerStats, ...]:
    """Measured sizes of every layer that libvirt knows of; none where the real driver does not ask for them:
    while a pull runs, which could kill QEMU (measured, 7.2), and of chains that are too long for libvirt."""
    if machine.process is None or any(job.kind is JobKind.PULL for _, job in machine.jobs()):
        return ()
    if any(len(disk.nodes) > gate.deepest_measured for disk in machine.process.disks.values()):
        return ()
    return tuple(
        LayerStats(disk.target, node.index, node.allocation, node.image.capacity, _physical(node))
        for disk in machine.process.disks.values()
        for node in disk.listed
        if node in disk.nodes or node in disk.loose  # of one that QEMU has closed it tells nothing (measured)
    )
