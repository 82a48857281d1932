"""The bare libvirt calls, as a careful script would make them: what everything else is compared with.

Own connection, own XML: nothing of the controller is used here.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from bench.cluster import BenchError
from lab import Host, ImageSource, Machine
from lab.storage.access import Access

_PATIENCE = 120.0
_TAKE = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)
_DEVICE = "/machine/peripheral/virtio-disk0/virtio-backend"
"""QEMU's name for the first virtio disk of a machine of the lab."""

_WRITE_BYTES = 64 << 20
"""QEMU's memory for one write of the filler."""


@dataclass(frozen=True)
class Merged:
    """Seconds from the call of a merge."""

    job: float
    """Until libvirt said that the job, and the pivot, had completed."""
    removed: float
    """Until the merged image was unlinked, too (of a file; other images stay)."""


class EventLoop:
    """libvirt's event loop of this process. To be made before the first connection is opened."""

    def __init__(self) -> None:
        libvirt.virEventRegisterDefaultImpl()
        self._thread = threading.Thread(target=self._run, name="bench-events", daemon=True)
        self._thread.start()

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()


class Bare:
    """Takes and merges on one host without the controller. Use from one thread."""

    def __init__(self, host: Host, access: Callable[[ImageSource], Access | None]) -> None:
        """Needs an :class:`EventLoop`. ``access`` tells what the server of an image asks for."""
        self._access = access
        self._connection = libvirt.open(host.uri)
        self._events: defaultdict[str, queue.SimpleQueue[tuple[int, float]]] = defaultdict(queue.SimpleQueue)
        self._callback = self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._on_job, None
        )

    def close(self) -> None:
        """Give the connection back."""
        self._connection.domainEventDeregisterAny(self._callback)
        self._connection.close()

    def take(self, machine: Machine, name: str, place: ImageSource | None = None) -> float:
        """Put an overlay on the first disk, at ``place`` or called ``name`` beside the layer below it.

        Returns seconds.
        """
        domain = self._domain(machine)
        xml = snapshot_xml(machine, place or self._beside(machine, f"{name}.qcow2"))
        began = time.monotonic()
        domain.snapshotCreateXML(xml, _TAKE)
        return time.monotonic() - began

    def merge(self, machine: Machine, position: int) -> Merged:
        """Commit layer ``position`` (0: the active one) of the first disk into the one below it.

        The merged image is unlinked afterwards when it is a file.
        """
        domain = self._domain(machine)
        self.forget_jobs(machine)
        chain = machine.chain()
        base, top = (f"vda[{chain[at].index}]" for at in (position + 1, position))
        began = time.monotonic()
        if position:
            domain.blockCommit("vda", base, top, 0, 0)
        else:
            domain.blockCommit("vda", base, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
            self._wait(machine, libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
            domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        completed = self._wait(machine, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)
        if chain[position].source.protocol == "file":
            Path(chain[position].source.name).unlink()
        return Merged(completed - began, time.monotonic() - began)

    def forget_jobs(self, machine: Machine) -> None:
        """Drop what was heard of the machine's block jobs so far."""
        self._events[machine.uuid] = queue.SimpleQueue()

    def until_completed(self, machine: Machine) -> float:
        """When (monotonic, seconds) libvirt said that a block job of the machine had completed."""
        return self._wait(machine, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)

    def fill(self, machine: Machine, offset: int, size: int, pattern: int) -> None:
        """Write ``size`` bytes of ``pattern`` at ``offset`` through the machine's own disk.

        The monitor tells nothing of a failure, so the active layer's allocation is compared.
        """
        domain = self._domain(machine)
        for start in range(offset, offset + size, _WRITE_BYTES):
            length = min(_WRITE_BYTES, offset + size - start)
            command = f'qemu-io -d {_DEVICE} "write -q -P {pattern} {start} {length}"'
            libvirt_qemu.qemuMonitorCommand(domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
        allocation = domain.blockInfo("vda")[1]
        if allocation < size:
            raise BenchError(f"{machine.name}: {size} bytes were to be written, {allocation} are allocated")

    def _beside(self, machine: Machine, leaf: str) -> ImageSource:
        """Another image in the place of the active layer."""
        source = machine.chain()[0].source
        directory = source.name.rpartition("/")[0]
        return replace(source, name=f"{directory}/{leaf}", access=self._access(source))

    def _domain(self, machine: Machine) -> Any:
        return self._connection.lookupByUUIDString(machine.uuid)

    def _on_job(self, _connection: Any, domain: Any, _disk: str, _kind: int, status: int, _own: None) -> None:
        self._events[domain.UUIDString()].put((status, time.monotonic()))

    def _wait(self, machine: Machine, wanted: int) -> float:
        """When (monotonic, seconds) the event came."""
        while True:
            try:
                status, at = self._events[machine.uuid].get(timeout=_PATIENCE)
            except queue.Empty:
                raise BenchError(f"{machine.name}: no block job event within {_PATIENCE:.0f} s") from None
            if status == wanted:
                return at
            if status != libvirt.VIR_DOMAIN_BLOCK_JOB_READY:
                raise BenchError(f"{machine.name}: the block job came to status {status}, not {wanted}")


def snapshot_xml(machine: Machine, overlay: ImageSource) -> str:
    """The document that puts ``overlay`` on the first disk and leaves the others alone."""
    root = etree.Element("domainsnapshot")
    disks = etree.SubElement(root, "disks")
    for target in machine.disks:
        disk = etree.SubElement(disks, "disk", name=target, snapshot="no")
        if target == machine.disks[0]:
            disk.set("snapshot", "external")
            disk.set("type", overlay.disk_type)
            etree.SubElement(disk, "driver", type="qcow2")
            disk.append(overlay.to_xml())
    return etree.tostring(root, encoding="unicode")
