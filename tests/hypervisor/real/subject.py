"""What the tests of this directory act on: events to wait for, and a disk seen through the driver."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import libvirt_qemu
from lxml import etree

from controller.chain.disk import Disk, Layer
from controller.chain.parse import parse_domain
from controller.chain.source import Source
from controller.hypervisor.driver import DomainReading, Driver, Event, JobChanged, JobStatus
from lab import Machine

DEADLINE = 20.0
"""Seconds after which a test that waits has failed. Nothing is expected to take so long."""

_numbers = itertools.count(1)


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Wait for what has no event that asyncio could wait for: a bounded poll."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.01)


class Events:
    """An event sink that remembers."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._news.set()

    async def wait(self, wanted: Callable[[Event], object]) -> Event:
        """The first event, past or to come, that is wanted."""
        async with asyncio.timeout(DEADLINE):
            while True:
                self._news.clear()
                for event in self.seen:
                    if wanted(event):
                        return event
                await self._news.wait()

    async def job(self, status: JobStatus) -> JobChanged:
        """Wait for this status of a job, and forget the events so far."""
        event = await self.wait(lambda event: isinstance(event, JobChanged) and event.status is status)
        self.seen.clear()
        assert isinstance(event, JobChanged)
        return event


class Subject:
    """One disk of a machine, read and changed through a driver."""

    def __init__(self, driver: Driver, machine: Machine, events: Events, target: str = "vda") -> None:
        self.driver = driver
        self.machine = machine
        self.events = events
        self.target = target
        self.uuid = machine.uuid

    async def read(self) -> DomainReading:
        return await self.driver.read(self.uuid)

    async def disk(self, *, inactive: bool = False) -> Disk:
        reading = await self.read()
        xml = reading.inactive_xml if inactive else reading.live_xml
        assert xml is not None
        disk = parse_domain(xml).disk(self.target)
        assert disk is not None
        return disk

    async def layers(self) -> tuple[Layer, ...]:
        """Active layer first."""
        return (await self.disk()).layers

    async def keys(self, *, inactive: bool = False) -> tuple[str, ...]:
        return (await self.disk(inactive=inactive)).keys

    async def take(self, **options: Any) -> Source:
        """Put a new overlay beside the active layer."""
        overlay = self.overlay((await self.layers())[0].source)
        await self.driver.create_snapshot(self.uuid, self.snapshot_xml(overlay), **options)
        return overlay

    async def take_many(self, count: int) -> None:
        for _ in range(count):
            await self.take()

    def overlay(self, active: Source) -> Source:
        """A source beside ``active`` that does not exist yet."""
        source = active.beside(f"overlay-{next(_numbers)}.qcow2")
        assert source is not None
        return source

    def snapshot_xml(self, overlay: Source, *, others: bool = True) -> str:
        """Without ``others`` the other disks are not listed."""
        root = etree.Element("domainsnapshot")
        disks = etree.SubElement(root, "disks")
        disk = etree.SubElement(disks, "disk", name=self.target, snapshot="external", type=overlay.type)
        disk.append(overlay.element())
        etree.SubElement(disk, "driver", type="qcow2")
        for other in self.machine.disks if others else ():
            if other != self.target:
                etree.SubElement(disks, "disk", name=other, snapshot="no")
        return etree.tostring(root, encoding="unicode")

    def fill(self, mebibytes: int = 8) -> None:
        """Make QEMU write into the active layer, whatever the guest does."""
        at = self.machine.disks.index(self.target)
        device = f"/machine/peripheral/virtio-disk{at}/virtio-backend"
        command = f'qemu-io -d {device} "write -P 170 0 {mebibytes}M"'
        libvirt_qemu.qemuMonitorCommand(
            self.machine.domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )

    async def index(self, position: int) -> str:
        """The layer at ``position`` (0 is the active one) as libvirt's commit and pull want it."""
        return f"{self.target}[{(await self.layers())[position].index}]"

    async def commit(self, base: int, top: int | None, *, relative: bool = False, bandwidth: int = 0) -> None:
        await self.driver.commit(
            self.uuid,
            self.target,
            base=await self.index(base),
            top=None if top is None else await self.index(top),
            relative=relative,
            bandwidth=bandwidth,
        )

    async def pull(self, base: int | None, *, relative: bool = False, bandwidth: int = 0) -> None:
        await self.driver.pull(
            self.uuid,
            self.target,
            base=None if base is None else await self.index(base),
            relative=relative,
            bandwidth=bandwidth,
        )
