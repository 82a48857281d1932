"""One libvirtd and the QEMUs it starts."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from typing import Any

import libvirt

from lab import namespace, process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.hosts.glfs_stub import glfs_stub
from lab.hosts.layout import Layout
from lab.hosts.release import Release
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.machines.writer import WriterOptions
from lab.process import ProcessRecord
from lab.session import Session

NOTE = "host/"
_READY_SECONDS = 60.0  # the first start of all probes QEMU
_END_SECONDS = 20.0
_KEEPS_TABLES = 10_000_000
"""The first QEMU that loses finished writes with cache='unsafe', as libvirt counts versions."""

# Without a handler the binding prints each error to stderr as well as raising it.
libvirt.registerErrorHandler(lambda _context, _error: None, None)


class Host:
    """An independent hypervisor: own directories, host name, UUID and socket. QEMUs outlive its libvirtd."""

    def __init__(self, session: Session, name: str, release: str | None = None) -> None:
        self._session = session
        self._connection: Any = None
        self.name = name
        self.release = release
        self.layout = Layout(session.directory / "hosts" / name, release)
        self.socket = self.layout.socket
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.images = self.layout.directory / "images"

    @classmethod
    def create(cls, session: Session, name: str, release: str | None = None) -> Host:
        """Make a host and start its libvirtd. `name`: a DNS label.

        `release`: one of lab.hosts.release.RELEASES, whose libvirtd and QEMU it has; None: the machine's own.
        """
        host = cls(session, name, release)
        host.layout.make()
        host.images.mkdir()
        host.start()
        session.note(NOTE + name, {"uri": host.uri, "release": release})
        return host

    @classmethod
    def attach_all(cls, session: Session) -> list[Host]:
        """The hosts that a lab has."""
        notes = session.state().notes
        return [
            cls(session, key.removeprefix(NOTE), note.get("release"))
            for key, note in notes.items()
            if key.startswith(NOTE)
        ]

    # -- libvirtd

    @property
    def _process_name(self) -> str:
        return f"libvirtd-{self.name}"

    def start(self) -> None:
        """Start libvirtd (again) and wait until it answers. Running QEMUs are found by it."""
        libvirtd = ["libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"]
        other = None if self.release is None else Release.get(self.release)
        command = namespace.command(
            libvirtd,
            binds=self.layout.binds(),
            hostname=f"varve-{self.name}",
            root=None if other is None else other.root,
            shared=self._session.directory,
        )
        preload = self.layout.directory / "glfs-stub.so"  # a release sees the lab's directory, not the cache
        if not preload.exists():  # later it is in use
            shutil.copyfile(glfs_stub(), preload)
        environment = {"LD_PRELOAD": str(preload)}
        self._session.spawn(self._process_name, command, log=self.layout.output, env=environment)
        wait_until(
            self._connects,
            timeout=_READY_SECONDS,
            what=f"libvirtd of host {self.name}",
            failed=lambda: self._session.why_gone(self._process_name, self.layout.output, self.layout.log),
        )
        self.layout.keep_capabilities()

    def _connects(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            self._connection = libvirt.open(self.uri)
            self._connection.getCapabilities()  # answers when QEMU has been probed
        except libvirt.libvirtError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL libvirtd; returns when it is gone. Its QEMUs go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM libvirtd; returns when it is gone. Its QEMUs go on."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """SIGKILL libvirtd and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP libvirtd: connections are accepted by the kernel and never answered. Its QEMUs go on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT libvirtd."""
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether its libvirtd runs (paused counts as running)."""
        return self._session.state().processes.get(self._process_name) is not None

    def record(self) -> ProcessRecord:
        """The process of libvirtd. Raises LabError if it does not run."""
        record = self._session.state().processes.get(self._process_name)
        if record is None:
            raise LabError(f"libvirtd of host {self.name} does not run")
        return record

    def _signal(self, number: signal.Signals) -> None:
        process.send_signal(self.record(), number)

    def _end(self, number: signal.Signals) -> None:
        record = self.record()
        process.send_signal(record, number)
        if not process.wait_gone(record, _END_SECONDS):
            raise LabError(
                f"libvirtd of host {self.name} did not end within {_END_SECONDS:g} s of {number.name}"
            )
        wait_until(lambda: not self.running, timeout=5, what="the keeper's note that libvirtd ended")
        self._connection = None

    # -- libvirt

    def connection(self) -> Any:
        """The lab's own libvirt connection (a `libvirt.virConnect`), opened again after a restart."""
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection

    @property
    def safe_cache(self) -> str:
        """libvirt's `cache` for disks whose finished writes must outlive their QEMU.

        With "unsafe" nothing waits for the real disk's flush, and the guest is ten times as fast. On QEMU 7.2
        it loses nothing: SeaBIOS leaves the drive in write-through mode, so QEMU hands data and image tables
        to the kernel at each write. QEMU 10.0 keeps the tables to itself (measured: a qcow2 is empty after
        64 writes and SIGKILL).
        """
        return "unsafe" if self.connection().getVersion() < _KEEPS_TABLES else "writeback"

    # -- machines

    def machine(
        self,
        name: str,
        disks: Sequence[Disk],
        *,
        writer: WriterOptions | None = None,
        kvm: bool = False,
        memory_mib: int = 16,
        start: bool = True,
    ) -> Machine:
        """Define a machine whose guest writes to all of its disks, and start it.

        The first disk gets the boot sector. Disks become vda, vdb … in order.
        """
        options = writer or WriterOptions()
        return Machine.create(self, name, disks, options, kvm=kvm, memory_mib=memory_mib, start=start)

    def machines(self) -> list[Machine]:
        """All machines that the lab made here and that were not removed."""
        records = sorted(self.layout.directory.glob("machines/*/machine.json"))
        return [Machine.attach(self, record.parent.name) for record in records]
