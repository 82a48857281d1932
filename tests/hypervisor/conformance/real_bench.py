"""The workbench over real libvirt, QEMU and storage servers: the guest is QEMU's own I/O command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from controller.chain.parse import parse_domain
from controller.chain.source import Source
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.simulated import Moment
from lab import process
from lab.deadline import wait_until
from lab.hosts.host import Host
from lab.lab import Lab
from lab.storage.headers import opening
from lab.storage.image import ImageSource, run_qemu_tool
from lab.storage.nbd import NbdExport
from tests.hypervisor.conformance.workbench import (
    CLUSTER_BYTES,
    DEADLINE_SECONDS,
    SIZE_BYTES,
    Act,
    Content,
    Drive,
    Kind,
    Workbench,
)
from tests.hypervisor.servers import need, source_of

_numbers = itertools.count(1)
_LIVE_AND_CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
_PAUSE = 0.01
"""Seconds between two looks at something that has no event."""


class RealBench(Workbench):
    """Machines without an operating system on a host of the lab; SeaBIOS finds nothing to boot and waits."""

    def __init__(self, lab: Lab, host: Host) -> None:
        super().__init__()
        self._lab = lab
        self._host = host
        self._directory = Path(tempfile.mkdtemp(prefix="bench-", dir=host.images))
        self._exports: list[NbdExport] = []
        self._uuids: list[str] = []
        self._pooled = False
        self._forgotten: dict[str, process.ProcessRecord] = {}

    async def connect(self) -> None:
        self.driver = await connect_libvirt(self._host.uri)(self.sink)

    async def close(self) -> None:
        """End what the test left running."""
        for record in self._forgotten.values():
            process.send_signal(record, signal.SIGKILL)
        for uuid in self._uuids:
            with contextlib.suppress(libvirt.libvirtError):
                domain = self._domain(uuid)
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        if self._pooled:
            self._host.connection().storagePoolLookupByName(self._directory.name).destroy()
        await self.driver.close()
        for export in self._exports:
            self._lab.nbd.remove(export)

    # Images -------------------------------------------------------------------------------------------

    def _new(self, kind: Kind) -> ImageSource:
        name = f"c{next(_numbers)}"
        if kind is Kind.FILE:
            return ImageSource.file(self._directory / f"{name}.qcow2")
        if kind is Kind.GLUSTER:
            return self._lab.gluster.volume().source(f"{self._directory.name}-{name}.qcow2")
        if kind is Kind.NBD:
            export = self._lab.nbd.export(f"{self._directory.name}-{name}", 2 * SIZE_BYTES)
            self._exports.append(export)
            return export.source
        need(self._lab, kind)
        return self._lab.place(kind, f"{self._directory.name}-{name}", room=2 * SIZE_BYTES)

    async def place(self, kind: Kind) -> Source:
        return source_of(self._new(kind))

    async def image(
        self,
        kind: Kind,
        *,
        image_format: str = "qcow2",
        backing: Source | None = None,
        relative: bool = False,
    ) -> Source:
        new = self._new(kind)
        if kind not in {Kind.FILE, Kind.GLUSTER, Kind.NBD}:
            below = None if backing is None else (self._image(backing), "qcow2")
            new.create(image_format, SIZE_BYTES, below)
            return source_of(new)
        command = ["qemu-img", "create", "-q", "-f", image_format]
        if backing is not None:
            command += ["-b", backing.leaf if relative else backing.uri, "-F", "qcow2"]
        if image_format != "raw" or kind is not Kind.NBD:
            run_qemu_tool(*command, new.uri, str(SIZE_BYTES))
        return source_of(new)

    async def backing_name(self, source: Source) -> str | None:
        opened = self._image(source).tool_arguments("qcow2")
        said = run_qemu_tool("qemu-img", "info", "-U", "--output=json", *opened)
        name: str | None = json.loads(said).get("backing-filename")
        return name

    async def offline(self, source: Source) -> Content:
        return self._content(*opening(self._image(source), "qcow2", self._lab.access))

    def _image(self, source: Source) -> ImageSource:
        """An image in the lab's words, with what its server asks for."""
        image = ImageSource.from_xml(source.element())
        return replace(image, access=self._lab.access(image))

    def _content(self, *opened: str) -> Content:
        with tempfile.NamedTemporaryFile(dir=self._directory) as file:
            run_qemu_tool("qemu-img", "convert", "-U", "-O", "raw", *opened, file.name)
            data = Path(file.name).read_bytes()
        content: Content = {}
        for cluster in range(len(data) // CLUSTER_BYTES):
            piece = data[cluster * CLUSTER_BYTES : (cluster + 1) * CLUSTER_BYTES]
            assert piece == piece[:1] * CLUSTER_BYTES, f"cluster {cluster} of {opened[-1]} is torn"
            if piece[0]:
                content[cluster] = piece[0]
        return content

    async def volume(self, source: Source) -> Source:
        pool = etree.Element("pool", type="dir")
        etree.SubElement(pool, "name").text = self._directory.name
        etree.SubElement(etree.SubElement(pool, "target"), "path").text = str(self._directory)
        self._host.connection().storagePoolCreateXML(etree.tostring(pool, encoding="unicode"), 0)
        self._pooled = True
        element = etree.Element("source", pool=self._directory.name, volume=source.leaf)
        return Source.from_element("volume", element)

    # Machines -----------------------------------------------------------------------------------------

    def _domain(self, uuid: str) -> Any:
        return self._host.connection().lookupByUUIDString(uuid)

    async def machine(
        self, drives: Mapping[str, Drive], *, persistent: bool = True, start: bool = True
    ) -> str:
        xml = _domain_xml(f"{self._directory.name}-{next(_numbers)}", drives)
        connection = self._host.connection()
        domain = connection.defineXML(xml) if persistent else connection.createXML(xml, 0)
        uuid: str = domain.UUIDString()
        self._uuids.append(uuid)
        if persistent and start:
            domain.create()
        return uuid

    async def start(self, uuid: str) -> None:
        self._domain(uuid).create()

    async def stop(self, uuid: str) -> None:
        self._domain(uuid).destroy()

    async def kill_qemu(self, uuid: str) -> None:
        domain = self._domain(uuid)
        process.send_signal(self._qemu_of(uuid), signal.SIGKILL)
        await asyncio.to_thread(
            wait_until,
            lambda: not domain.isActive(),
            timeout=DEADLINE_SECONDS,
            what="libvirt's note of a kill",
        )

    def _qemu_of(self, uuid: str) -> process.ProcessRecord:
        pid = int(self._host.layout.pid_file(self._domain(uuid).name()).read_text(encoding="ascii"))
        record = process.record_of("qemu", pid)
        assert record is not None
        return record

    async def undefine(self, uuid: str) -> None:
        self._domain(uuid).undefine()

    async def attach(self, uuid: str, target: str, drive: Drive) -> None:
        xml = etree.tostring(_disk_xml(target, drive), encoding="unicode")
        self._domain(uuid).attachDeviceFlags(xml, _LIVE_AND_CONFIG)

    async def detach(self, uuid: str, target: str) -> None:
        root = etree.fromstring(self._domain(uuid).XMLDesc(0).encode())
        disk = next(
            one for one in root.iterfind("devices/disk") if one.find(f"target[@dev='{target}']") is not None
        )
        # No guest is there to agree; QEMU takes such a device away when the machine is reset.
        self._domain(uuid).detachDeviceFlags(
            etree.tostring(disk, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE
        )
        self._domain(uuid).reset(0)

    async def restart_libvirtd(self) -> None:
        await asyncio.to_thread(self._host.restart)

    # A daemon that is killed before it has noted what was done ------------------------------------------

    def _notes(self, uuid: str) -> tuple[Path, Path]:
        """libvirt's files of the running machine and of its definition."""
        name = f"{self._domain(uuid).name()}.xml"
        return self._host.layout.status / name, self._host.layout.definitions / name

    async def _restarted_with(self, contents: Mapping[Path, str]) -> None:
        """Kill the daemon, and start it with these files."""
        await self.driver.close()
        await asyncio.to_thread(self._host.kill)
        for path, content in contents.items():
            path.write_text(content, encoding="utf-8")
        await asyncio.to_thread(self._host.start)
        await self.connect()

    async def killed_in(self, uuid: str, act: Act, moment: Moment) -> None:
        status, definition = self._notes(uuid)
        kept = (definition,) if moment is Moment.LIVE else (status, definition)
        before = {path: path.read_text(encoding="utf-8") for path in kept}
        await act()
        if status in before:  # libvirt notes a pivot before it tells QEMU
            before[status] = before[status].replace("ready='yes'", "ready='pivot'")
        await self._restarted_with(before)

    async def killed_at_start(self, uuid: str, target: str) -> None:
        status, _ = self._notes(uuid)
        root = etree.fromstring(status.read_bytes())
        for mirror in root.iterfind(".//disk/mirror"):
            mirror.getparent().remove(mirror)
        for job in root.iterfind(".//blockjobs/blockjob"):
            job.set("state", "new")
        await self._restarted_with({status: etree.tostring(root, encoding="unicode")})

    async def crashed(self) -> None:
        await self.driver.close()
        await asyncio.to_thread(
            wait_until, lambda: not self._host.running, timeout=DEADLINE_SECONDS, what="the end of libvirtd"
        )
        await asyncio.to_thread(self._host.start)
        await self.connect()

    async def forget_process(self, uuid: str) -> None:
        status, _ = self._notes(uuid)
        self._forgotten[uuid] = self._qemu_of(uuid)
        await self._restarted_with({status: "this is no document"})

    async def end_forgotten(self, uuid: str) -> None:
        record = self._forgotten.pop(uuid)
        process.send_signal(record, signal.SIGKILL)
        assert process.wait_gone(record, DEADLINE_SECONDS)

    async def cancel_behind(self, uuid: str, target: str) -> None:
        (job,) = self._qmp(uuid, "query-block-jobs")
        self._qmp(uuid, "block-job-cancel", device=job["device"])
        domain = self._domain(uuid)
        await asyncio.to_thread(
            wait_until,
            lambda: not domain.blockJobInfo(target),
            timeout=DEADLINE_SECONDS,
            what="libvirt's note that the job is over",
        )

    async def in_qemu(self, uuid: str, target: str) -> tuple[str, ...]:
        device = self._device(uuid, target)
        (found,) = (one for one in self._qmp(uuid, "query-block") if one.get("qdev") == device)
        image, keys = found["inserted"]["image"], list[str]()
        while image is not None:
            keys.append(Source.file(image["filename"]).key)
            image = image.get("backing-image")
        return tuple(keys)

    # The guest ----------------------------------------------------------------------------------------

    async def write(self, uuid: str, target: str, content: Content) -> None:
        device = self._device(uuid, target)
        for cluster, value in content.items():
            self._hmp(
                uuid, f'qemu-io -d {device} "write -q -P {value} {cluster * CLUSTER_BYTES} {CLUSTER_BYTES}"'
            )
        self._hmp(uuid, f'qemu-io -d {device} "flush"')

    def _hmp(self, uuid: str, command: str) -> None:
        said = libvirt_qemu.qemuMonitorCommand(
            self._domain(uuid), command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )
        assert not said, said

    def _qmp(self, uuid: str, execute: str, **arguments: object) -> Any:
        request = json.dumps({"execute": execute, "arguments": arguments})
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(self._domain(uuid), request, 0))
        assert "error" not in answer, answer
        return answer["return"]

    def _device(self, uuid: str, target: str) -> str:
        root = etree.fromstring(self._domain(uuid).XMLDesc(0).encode())
        for disk in root.iterfind("devices/disk"):
            element, alias = disk.find("target"), disk.find("alias")
            if element is not None and alias is not None and element.get("dev") == target:
                return f"/machine/peripheral/{alias.get('name')}/virtio-backend"
        raise LookupError(target)

    async def visible(self, uuid: str, target: str, source: Source | None = None) -> Content:
        disk = await self.live(uuid, target)
        wanted = disk.keys[0] if source is None else source.key
        index = next(layer.index for layer in disk.layers if layer.key == wanted)
        async with self._exported(uuid, self._node(uuid, index)) as uri:
            # QEMU serves from threads of its own; nothing here is needed for it.
            return self._content("-f", "raw", uri)

    def _node(self, uuid: str, index: int | None) -> str:
        """QEMU's node of a layer. Newer libvirts make no format node for raw."""
        there = {node["node-name"] for node in self._qmp(uuid, "query-named-block-nodes", flat=True)}
        return next(name for kind in ("format", "storage") if (name := f"libvirt-{index}-{kind}") in there)

    @contextlib.asynccontextmanager
    async def _exported(self, uuid: str, node: str) -> AsyncIterator[str]:
        socket = self._directory / "read.sock"
        socket.unlink(missing_ok=True)
        self._qmp(uuid, "nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        try:
            export = {"id": "read", "type": "nbd", "node-name": node, "name": "layer"}
            self._qmp(uuid, "block-export-add", **export)
            yield f"nbd+unix:///layer?socket={socket}"
        finally:
            self._qmp(uuid, "nbd-server-stop")

    async def finish(self, uuid: str, target: str) -> None:
        """Asks for nothing but the job and the XML: sizes asked for as a pull ends make QEMU 7.2 crash."""
        domain = self._domain(uuid)
        with contextlib.suppress(libvirt.libvirtError):  # it has ended already
            domain.blockJobSetSpeed(target, 0)

        def ended() -> bool:
            if not domain.blockJobInfo(target):
                return True
            disk = parse_domain(domain.XMLDesc(0)).disk(target)
            return disk is not None and disk.mirror is not None and disk.mirror.ready

        await asyncio.to_thread(
            wait_until, ended, timeout=DEADLINE_SECONDS, what=f"the job on {target}", interval=_PAUSE
        )


def _domain_xml(name: str, drives: Mapping[str, Drive]) -> str:
    root = etree.Element("domain", type="qemu")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "memory", unit="MiB").text = "16"
    etree.SubElement(root, "vcpu").text = "1"
    etree.SubElement(etree.SubElement(root, "os"), "type", arch="x86_64", machine="pc").text = "hvm"
    etree.SubElement(etree.SubElement(root, "features"), "acpi")  # without it no disk can be plugged in
    devices = etree.SubElement(root, "devices")
    devices.extend(_disk_xml(target, drive) for target, drive in drives.items())
    etree.SubElement(devices, "controller", type="usb", model="none")
    etree.SubElement(devices, "memballoon", model="none")
    return etree.tostring(root, encoding="unicode")


def _disk_xml(target: str, drive: Drive) -> etree._Element:
    kind = "file" if drive.source is None else drive.source.type
    disk = etree.Element("disk", type=kind, device=drive.device)
    etree.SubElement(disk, "driver", name="qemu", type=drive.format)
    if drive.source is not None:
        disk.append(drive.source.element())
    etree.SubElement(disk, "target", dev=target, bus="virtio" if target.startswith("vd") else "ide")
    if drive.readonly:
        etree.SubElement(disk, "readonly")
    return disk
