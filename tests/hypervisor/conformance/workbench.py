"""What a scenario needs beside the port: machines, a guest that writes, and eyes that do not use varve.

Contents are clusters of 64 KiB, each filled with one byte value; a cluster that is absent is all zeros.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from controller.chain.disk import Disk, Layer
from controller.chain.parse import parse_domain
from controller.chain.source import Source
from controller.hypervisor.driver import Driver, Event, JobChanged, JobStatus
from controller.hypervisor.simulated import Moment
from controller.hypervisor.snapshot_xml import snapshot_xml

CLUSTER_BYTES = 65536
SIZE_BYTES = 64 * CLUSTER_BYTES
SLOW = CLUSTER_BYTES
"""A bandwidth (bytes per second) at which a job over a full disk does not end during a test."""
DEADLINE_SECONDS = 60.0
FULL = range(SIZE_BYTES // CLUSTER_BYTES)
Content = dict[int, int]
Act = Callable[[], Awaitable[object]]


class Kind(StrEnum):
    """Where images lie."""

    FILE = "file"
    GLUSTER = "gluster"
    NBD = "nbd"
    RBD = "rbd"
    ISCSI = "iscsi"
    BLOCK = "block"


LENT = frozenset({Kind.NBD, Kind.ISCSI, Kind.BLOCK})
"""Kinds whose images are there before and after: an overlay is formatted in place, and never removed."""


@dataclass(frozen=True)
class Drive:
    """One disk of a machine to be made. Without a source it is an empty drive."""

    source: Source | None
    format: str = "qcow2"
    device: str = "disk"
    readonly: bool = False


class Workbench(ABC):
    """One backend. Everything it makes is gone after the test."""

    driver: Driver

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._arrived = asyncio.Event()

    def sink(self, event: Event) -> None:
        """Where the driver's events go."""
        self.events.append(event)
        self._arrived.set()

    async def seen(self, wanted: Callable[[Event], bool]) -> None:
        """Wait until an event arrived that is wanted (or did before)."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not any(wanted(event) for event in self.events):
                self._arrived.clear()
                await self._arrived.wait()

    async def seen_job(self, target: str, status: JobStatus) -> JobChanged:
        """Wait for this news of a job; gives the event."""
        await self.seen(lambda e: isinstance(e, JobChanged) and (e.target, e.status) == (target, status))
        return next(e for e in self.events if isinstance(e, JobChanged) and e.status is status)

    # What a backend provides --------------------------------------------------------------------------

    @abstractmethod
    async def place(self, kind: Kind) -> Source:
        """An image that can be an overlay: one that does not exist, or an export to be formatted."""

    @abstractmethod
    async def image(
        self,
        kind: Kind,
        *,
        image_format: str = "qcow2",
        backing: Source | None = None,
        relative: bool = False,
    ) -> Source:
        """Make an image of SIZE_BYTES, or on top of ``backing`` (qcow2, in the same place when relative)."""

    @abstractmethod
    async def volume(self, source: Source) -> Source:
        """The same local file as a volume of a storage pool (``type='volume'``)."""

    @abstractmethod
    async def machine(
        self, drives: Mapping[str, Drive], *, persistent: bool = True, start: bool = True
    ) -> str:
        """Define a machine (and start it); gives its UUID."""

    @abstractmethod
    async def start(self, uuid: str) -> None:
        """Start QEMU on the persistent definition."""

    @abstractmethod
    async def stop(self, uuid: str) -> None:
        """End QEMU in good order."""

    @abstractmethod
    async def kill_qemu(self, uuid: str) -> None:
        """SIGKILL QEMU; returns when libvirt knows."""

    @abstractmethod
    async def undefine(self, uuid: str) -> None:
        """Drop the persistent definition."""

    @abstractmethod
    async def attach(self, uuid: str, target: str, drive: Drive) -> None:
        """Plug a disk into the running machine, and into its definition."""

    @abstractmethod
    async def detach(self, uuid: str, target: str) -> None:
        """Unplug a disk; the guest lets it go at once, or never."""

    @abstractmethod
    async def restart_libvirtd(self) -> None:
        """SIGKILL the daemon and start it again. The driver is dead then."""

    @abstractmethod
    async def killed_in(self, uuid: str, act: Act, moment: Moment) -> None:
        """Do ``act``; the daemon is killed when it has noted no more of it than at this moment (UNNOTED,
        CLEANED or LIVE), is started again, and ``driver`` is a new connection."""

    @abstractmethod
    async def killed_at_start(self, uuid: str, target: str) -> None:
        """As if the daemon had been killed when QEMU had just begun the active commit that runs."""

    @abstractmethod
    async def crashed(self) -> None:
        """The daemon has died by a fault of its own: start it again, ``driver`` is a new connection."""

    @abstractmethod
    async def forget_process(self, uuid: str) -> None:
        """The daemon is killed, cannot read what it noted of the machine, and takes it for shut off."""

    @abstractmethod
    async def end_forgotten(self, uuid: str) -> None:
        """End the process that the daemon has forgotten."""

    @abstractmethod
    async def cancel_behind(self, uuid: str, target: str) -> None:
        """The job of an active commit is canceled in QEMU, and the daemon does not know why it ended."""

    @abstractmethod
    async def in_qemu(self, uuid: str, target: str) -> tuple[str, ...]:
        """Identities of the layers that QEMU has, active first: local files only."""

    @abstractmethod
    async def connect(self) -> None:
        """Open a connection as ``driver`` (another one after a restart)."""

    @abstractmethod
    async def write(self, uuid: str, target: str, content: Content) -> None:
        """The guest writes these clusters and flushes them."""

    @abstractmethod
    async def finish(self, uuid: str, target: str) -> None:
        """Lift the job's limit and wait until it has ended or waits for its pivot."""

    @abstractmethod
    async def visible(self, uuid: str, target: str, source: Source | None = None) -> Content:
        """What the running machine reads through the layer of ``source`` (default: what the guest reads)."""

    @abstractmethod
    async def offline(self, source: Source) -> Content:
        """What a program reads that opens the qcow2 image and follows its header."""

    @abstractmethod
    async def backing_name(self, source: Source) -> str | None:
        """The words in the header of a qcow2 image that name its backing image."""

    # What scenarios share -----------------------------------------------------------------------------

    async def live(self, uuid: str, target: str = "vda") -> Disk:
        """The disk as the live XML shows it."""
        reading = await self.driver.read(uuid)
        assert reading.live_xml is not None
        disk = parse_domain(reading.live_xml).disk(target)
        assert disk is not None
        return disk

    async def inactive(self, uuid: str, target: str = "vda") -> Disk:
        """The disk as the persistent XML shows it."""
        reading = await self.driver.read(uuid)
        assert reading.inactive_xml is not None
        disk = parse_domain(reading.inactive_xml).disk(target)
        assert disk is not None
        return disk

    async def name(self, uuid: str, source: Source, target: str = "vda") -> str:
        """A layer in index form, as of now."""
        disk = await self.live(uuid, target)
        return next(f"{target}[{layer.index}]" for layer in disk.layers if layer.key == source.key)

    async def take(self, uuid: str, overlays: Mapping[str, Source], *, reuse: bool = False) -> None:
        """Freeze these disks, and no others."""
        reading = await self.driver.read(uuid)
        xml = reading.live_xml or reading.inactive_xml
        assert xml is not None
        layers = {target: Layer(source, "qcow2") for target, source in overlays.items()}
        await self.driver.create_snapshot(uuid, snapshot_xml(parse_domain(xml), layers), reuse=reuse)

    async def stack(self, uuid: str, contents: list[Content], *, kind: Kind = Kind.FILE) -> list[Source]:
        """Write and freeze ``contents`` one after the other; the last one stays in the active layer.

        Gives all layers of vda, the oldest first.
        """
        layers = [layer.source for layer in reversed((await self.live(uuid)).layers)]
        for position, content in enumerate(contents):
            await self.write(uuid, "vda", content)
            if position < len(contents) - 1:
                overlay = await self.place(kind)
                await self.take(uuid, {"vda": overlay})
                layers.append(overlay)
        return layers

    async def commit(
        self,
        uuid: str,
        base: Source,
        top: Source | None,
        *,
        target: str = "vda",
        relative: bool = False,
        bandwidth: int = 0,
    ) -> None:
        """Start a commit of the layers above ``base`` up to ``top`` (None: the active one)."""
        await self.driver.commit(
            uuid,
            target,
            base=await self.name(uuid, base, target),
            top=None if top is None else await self.name(uuid, top, target),
            relative=relative,
            bandwidth=bandwidth,
        )

    async def pull(
        self, uuid: str, base: Source | None, *, relative: bool = False, bandwidth: int = 0
    ) -> None:
        """Start a pull of everything between the active layer and ``base`` of vda."""
        name = None if base is None else await self.name(uuid, base)
        await self.driver.pull(uuid, "vda", base=name, relative=relative, bandwidth=bandwidth)


def overlaid(*contents: Content) -> Content:
    """What reads through layers with these contents, the oldest first."""
    merged: Content = {}
    for content in contents:
        merged |= content
    return merged


def keys(*sources: Source) -> tuple[str, ...]:
    """Identities of layers, to compare with a chain that is listed active first."""
    return tuple(source.key for source in sources)
