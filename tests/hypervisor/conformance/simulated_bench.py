"""The workbench over the simulated hypervisor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from lxml import etree

from controller.chain.source import Host, Source
from controller.hypervisor.driver import JobStatus
from controller.hypervisor.simulated import DiskDefinition, Link, Moment, SimulatedHost
from tests.hypervisor.conformance.workbench import LENT, SIZE_BYTES, Act, Content, Drive, Kind, Workbench


class SimulatedBench(Workbench):
    """Everything at once, nothing to clean up."""

    def __init__(self) -> None:
        super().__init__()
        self.host = SimulatedHost()
        self._numbers = itertools.count(1)

    async def connect(self) -> None:
        self.driver = await self.host.connect(self.sink)

    def _name(self, kind: Kind) -> Source:
        number = next(self._numbers)
        if kind is Kind.FILE:
            return Source.file(f"/images/i{number}.qcow2")
        if kind is Kind.GLUSTER:
            return Source.network("gluster", f"gv0/i{number}.qcow2", [Host("127.0.0.1", "24007")])
        if kind is Kind.RBD:
            return Source.network("rbd", f"rbd/i{number}", [Host("127.0.0.1", "6789")])
        if kind is Kind.ISCSI:
            return Source.network("iscsi", f"iqn.2024-01.lab.varve:t/{number}", [Host("127.0.0.1", "3260")])
        if kind is Kind.BLOCK:
            return Source.from_element("block", etree.Element("source", dev=f"/dev/loop{number}"))
        return Source.network("nbd", f"i{number}", [Host("127.0.0.1", "10809")])

    async def place(self, kind: Kind) -> Source:
        source = self._name(kind)
        if kind in LENT:
            self.host.storage.create(source, capacity=2 * SIZE_BYTES, format="raw")
        return source

    async def image(
        self,
        kind: Kind,
        *,
        image_format: str = "qcow2",
        backing: Source | None = None,
        relative: bool = False,
    ) -> Source:
        source = self._name(kind)
        below = None if backing is None else self.host.storage.open(backing.key)
        self.host.storage.create(
            source, capacity=SIZE_BYTES, format=image_format, backing=below, relative=relative
        )
        return source

    async def volume(self, source: Source) -> Source:
        named = Source.from_element("volume", etree.Element("source", pool="images", volume=source.leaf))
        self.host.storage.volumes[named.key] = source
        return named

    async def machine(
        self, drives: Mapping[str, Drive], *, persistent: bool = True, start: bool = True
    ) -> str:
        definitions = [_definition(target, drive) for target, drive in drives.items()]
        name = f"m{next(self._numbers)}"
        return self.host.add_domain(name, definitions, running=start, persistent=persistent)

    async def start(self, uuid: str) -> None:
        self.host.start(uuid)

    async def stop(self, uuid: str) -> None:
        self.host.shutdown(uuid)

    async def kill_qemu(self, uuid: str) -> None:
        self.host.kill_qemu(uuid)

    async def undefine(self, uuid: str) -> None:
        self.host.undefine(uuid)

    async def attach(self, uuid: str, target: str, drive: Drive) -> None:
        self.host.attach(uuid, _definition(target, drive))

    async def detach(self, uuid: str, target: str) -> None:
        self.host.detach(uuid, target)

    async def restart_libvirtd(self) -> None:
        self.host.restart_libvirtd()

    async def killed_in(self, uuid: str, act: Act, moment: Moment) -> None:
        noted = self.host.notes()
        await act()
        self.host.die(moment, noted)
        self.host.start_libvirtd()
        await self.connect()

    async def killed_at_start(self, uuid: str, target: str) -> None:
        job = self.host.machine(uuid).live_disk(target).job
        assert job is not None
        job.noted = False
        self.host.restart_libvirtd()
        await self.connect()

    async def crashed(self) -> None:
        assert not self.host.libvirtd_runs
        self.host.start_libvirtd()
        await self.connect()

    async def forget_process(self, uuid: str) -> None:
        machine = self.host.machine(uuid)
        machine.process, machine.lost = None, machine.process
        self.host.restart_libvirtd()
        await self.connect()

    async def end_forgotten(self, uuid: str) -> None:
        self.host.end_lost(uuid)

    async def cancel_behind(self, uuid: str, target: str) -> None:
        noted = self.host.notes()
        ((machine, disk, job),) = self.host.jobs(uuid, target)
        self.host.end_job(machine, disk, job, JobStatus.CANCELED)
        noted.fall_back(Moment.UNNOTED)

    async def in_qemu(self, uuid: str, target: str) -> tuple[str, ...]:
        return tuple(node.key for node in self.host.machine(uuid).qemu.disks[target].nodes)

    async def write(self, uuid: str, target: str, content: Content) -> None:
        for cluster, value in content.items():
            self.host.guest_write(uuid, target, cluster, value)

    async def finish(self, uuid: str, target: str) -> None:
        self.host.finish_jobs(uuid, target)

    async def visible(self, uuid: str, target: str, source: Source | None = None) -> Content:
        return self.host.visible(uuid, target) if source is None else self.host.point(uuid, target, source)

    async def offline(self, source: Source) -> Content:
        return self.host.content_of(source)

    async def backing_name(self, source: Source) -> str | None:
        backing = self.host.storage.open(source.key).backing
        return backing.name if backing else None


def _definition(target: str, drive: Drive) -> DiskDefinition:
    return DiskDefinition(
        target,
        () if drive.source is None else (Link(drive.source, drive.format),),
        device=drive.device,
        bus="virtio" if target.startswith("vd") else "ide",
        readonly=drive.readonly,
    )
