"""A machine whose guest writes to its disks all the time."""

from __future__ import annotations

import dataclasses
import json
import secrets
import signal
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt

from lab import process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.machines.chain import Layer, parse_chain
from lab.machines.disk import Disk
from lab.machines.writer import Content, WriterCheck, WriterOptions, boot_sector, check_writer
from lab.machines.xml import domain_xml, target_name
from lab.process import ProcessRecord
from lab.storage.image import ImageSource

if TYPE_CHECKING:
    from lab.hosts.host import Host

_WRITING_SECONDS = 60.0
_RECORD = "machine.json"


class Machine:
    """Identity, files and faults of one machine. `disks` are its targets in order, the boot disk first."""

    def __init__(
        self, host: Host, *, name: str, uuid: str, magic: int, options: WriterOptions, disks: list[str]
    ) -> None:
        self.host = host
        self.name = name
        self.uuid = uuid
        self.magic = magic
        self.options = options
        self.disks = disks
        self.directory = _directory(host, name)
        self.serial = self.directory / "serial"

    @classmethod
    def create(
        cls,
        host: Host,
        name: str,
        disks: Sequence[Disk],
        options: WriterOptions,
        *,
        kvm: bool,
        memory_mib: int,
        start: bool,
    ) -> Machine:
        """Make the images, define the machine, start it. Raises LabError or libvirt.libvirtError."""
        uuid = str(uuids.uuid4())
        magic = secrets.randbelow(1 << 32) & 0xFFFFFF00  # the low byte is the drive's number
        targets = [target_name(position) for position in range(len(disks))]
        machine = cls(host, name=name, uuid=uuid, magic=magic, options=options, disks=targets)
        machine.directory.mkdir(parents=True)
        sources = [(machine._make_image(position, disk), disk) for position, disk in enumerate(disks)]
        machine._keep()
        host.connection().defineXML(
            domain_xml(
                name=name,
                uuid=uuid,
                disks=sources,
                cache=host.safe_cache,
                serial=machine.serial,
                kvm=kvm,
                memory_mib=memory_mib,
            )
        )
        if start:
            machine.start()
        return machine

    @classmethod
    def attach(cls, host: Host, name: str) -> Machine:
        """A machine that an earlier process made."""
        record = json.loads((_directory(host, name) / _RECORD).read_text(encoding="utf-8"))
        options = WriterOptions(**record.pop("options"))
        return cls(host, options=options, **record)

    def _keep(self) -> None:
        record = {
            "name": self.name,
            "uuid": self.uuid,
            "magic": self.magic,
            "options": dataclasses.asdict(self.options),
            "disks": self.disks,
        }
        (self.directory / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def _make_image(self, position: int, disk: Disk) -> ImageSource:
        suffix = "img" if disk.image_format == "raw" else disk.image_format
        own = self.host.images / f"{self.name}-{target_name(position)}.{suffix}"
        source = disk.source or ImageSource.file(own)
        if not disk.fresh:
            return source
        if disk.size < self.options.end_bytes:
            raise LabError(
                f"a disk of {disk.size} bytes is too small: the writer needs {self.options.end_bytes}"
            )
        source.create(disk.image_format, disk.size, disk.backing)
        if position == 0:
            sector = self.directory / "bootsector"
            sector.write_bytes(boot_sector(self.options, magic=self.magic, drives=len(self.disks)))
            source.write(disk.image_format, 0, sector)
        return source

    # -- libvirt

    @property
    def domain(self) -> Any:
        """The `libvirt.virDomain`, over the host's current connection."""
        return self.host.connection().lookupByUUIDString(self.uuid)

    def start(self) -> None:
        """Start it. The guest goes on after the newest write that its first disk holds."""
        self.domain.create()

    def destroy(self) -> None:
        """Pull the plug, through libvirt. Fine if it does not run."""
        try:
            self.domain.destroy()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # "domain is not running"
                raise

    def remove(self) -> None:
        """End the machine and forget it, also if its QEMU hangs or was changed by others. Its images stay."""
        self.kill_qemu()
        try:
            self.destroy()
            self.domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        (self.directory / _RECORD).unlink(missing_ok=True)

    def chain(self, disk: str = "vda", *, inactive: bool = False) -> list[Layer]:
        """The layers of a disk, active first, from the live XML (`inactive`: from the persistent one)."""
        return parse_chain(self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0), disk)

    # -- the guest

    def progress(self) -> tuple[int, int]:
        """(rounds reported, writes failed) since the machine was made; rounds in steps of `dot_every`."""
        text = self.serial.read_bytes() if self.serial.exists() else b""
        return text.count(b".") * self.options.dot_every, text.count(b"E")

    def wait_writing(self, *, rounds: int | None = None, timeout: float = _WRITING_SECONDS) -> int:
        """Wait until the guest has written at least `rounds` more rounds than now (default: one report's
        worth).

        Returns how many it has written in all. Raises LabError if it does not within `timeout` seconds.
        """
        wanted = self.progress()[0] + (rounds or self.options.dot_every)

        def enough() -> int | None:
            done = self.progress()[0]
            return done if done >= wanted else None

        return wait_until(enough, timeout=timeout, what=f"writes of machine {self.name}")

    def alive(self, *, timeout: float = 10.0) -> bool:
        """Whether the guest writes: a report arrives within `timeout` seconds."""
        try:
            self.wait_writing(timeout=timeout)
        except LabError:
            return False
        return True

    def check(self, content: Content, disk: str = "vda") -> WriterCheck:
        """Check the content (raw) of a disk of this machine, or of a point of it."""
        return check_writer(content, self.options, magic=self.magic, drive=self.disks.index(disk))

    # -- faults

    def qemu(self) -> ProcessRecord | None:
        """Its QEMU, None if it does not run."""
        try:
            pid = int(self.host.layout.pid_file(self.name).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        return process.record_of(f"qemu-{self.name}", pid)

    def kill_qemu(self) -> None:
        """SIGKILL its QEMU; returns when it is gone. Fine if it does not run."""
        record = self.qemu()
        if record is not None:
            process.send_signal(record, signal.SIGKILL)
            if not process.wait_gone(record, 10):
                raise LabError(f"QEMU of {self.name} does not end")

    def pause_qemu(self) -> None:
        """SIGSTOP its QEMU: the guest stands still and the monitor does not answer."""
        self._signal(signal.SIGSTOP)

    def resume_qemu(self) -> None:
        """SIGCONT its QEMU."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        record = self.qemu()
        if record is None or not process.send_signal(record, number):
            raise LabError(f"QEMU of {self.name} does not run")


def _directory(host: Host, name: str) -> Path:
    return host.layout.directory / "machines" / name
