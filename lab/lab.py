"""The lab as a whole: one directory, one keeper, and the parts that were asked for."""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType

from lab.control.plane import ControlPlane
from lab.errors import LabError
from lab.hosts.host import Host
from lab.install import install
from lab.machines.disk import MEBIBYTE, Disk
from lab.reader import Reader
from lab.root import require_root
from lab.session import Session
from lab.storage.access import Access, AccessBook
from lab.storage.block import BlockDevices
from lab.storage.gluster import GlusterServer
from lab.storage.http import HttpServer
from lab.storage.image import ImageSource
from lab.storage.iscsi import IscsiServer
from lab.storage.nbd import NbdServers
from lab.storage.rbd import RbdCluster

DISK_KINDS = (
    "file",
    "gluster",
    "nbd",
    "nbd-tls",
    "nbd-unix",
    "iscsi",
    "iscsi-chap",
    "rbd",
    "http",
    "https",
    "block",
)
_QCOW2_TABLES = 4 * MEBIBYTE  # what qcow2 needs besides the content, where an image cannot grow


def default_directory() -> Path:
    """`$VARVE_LAB_DIR`, else `.lab` in the current directory."""
    return Path(os.environ.get("VARVE_LAB_DIR") or ".lab").resolve()


class Lab:
    """Starts parts when they are first asked for; everything ends with `close`, or with this process.

    `directory`: where its files go (made; removed at the end). Default: a fresh one in the temporary
    directory.
    `detached`: the lab outlives this process, until `Lab.attach(directory).close()` or `python -m lab down`.
    """

    def __init__(
        self, directory: Path | None = None, *, detached: bool = False, session: Session | None = None
    ) -> None:
        if session is None:
            require_root()
            fresh = directory or Path(tempfile.mkdtemp(prefix="varve-lab-"))
            session = Session.start(fresh, detached=detached)
        self._session = session
        self._plane = ControlPlane.attach(session)
        self._hosts = {host.name: host for host in Host.attach_all(session)}
        self._book = AccessBook(session, self.hosts)

    @classmethod
    def attach(cls, directory: Path) -> Lab:
        """The lab that runs in `directory`; closing it ends it for all. Raises LabError if none runs."""
        return cls(session=Session.attach(directory))

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where everything of this lab is."""
        return self._session.directory

    @property
    def session(self) -> Session:
        """For parts of the lab and for tests of the lab itself: starts and records processes."""
        return self._session

    def control_plane(self) -> ControlPlane:
        """The control plane, started at the first call (seconds; minutes once per machine, for the build)."""
        if self._plane is None:
            self._plane = ControlPlane.start(self._session)
        return self._plane

    def host(self, name: str = "a", *, release: str | None = None) -> Host:
        """The hypervisor of this name (a DNS label), made at the first call.

        `release`: one of lab.hosts.release.RELEASES, for a new one that has that Debian's libvirtd and QEMU;
        default: `$VARVE_LAB_RELEASE`, else the machine's own. Raises LabError with the reason where it
        cannot be made.
        """
        if name not in self._hosts:
            host = Host.create(self._session, name, release or os.environ.get("VARVE_LAB_RELEASE"))
            self._book.equip(host)
            self._hosts[name] = host
        return self._hosts[name]

    def hosts(self) -> list[Host]:
        """The hypervisors made so far."""
        return list(self._hosts.values())

    @cached_property
    def nbd(self) -> NbdServers:
        """NBD exports."""
        return NbdServers(self._session, self._book)

    @cached_property
    def gluster(self) -> GlusterServer:
        """The gluster server, started at the first use (3 s)."""
        return GlusterServer.attach(self._session) or GlusterServer.create(self._session)

    @cached_property
    def iscsi(self) -> IscsiServer:
        """The iSCSI target that lets everybody in, started at the first use."""
        return self._iscsi(chap=False)

    @cached_property
    def iscsi_chap(self) -> IscsiServer:
        """The iSCSI target that asks for a password, started at the first use."""
        return self._iscsi(chap=True)

    def _iscsi(self, *, chap: bool) -> IscsiServer:
        _need("iscsi")
        known = IscsiServer.attach(self._session, chap=chap)
        return known or IscsiServer.create(self._session, self._book, chap=chap)

    @cached_property
    def rbd(self) -> RbdCluster:
        """The Ceph cluster, started at the first use (5 s)."""
        _need("rbd")
        return RbdCluster.attach(self._session) or RbdCluster.create(self._session, self._book)

    @cached_property
    def http(self) -> HttpServer:
        """Read-only images over HTTP."""
        return self._http(tls=False)

    @cached_property
    def https(self) -> HttpServer:
        """Read-only images over HTTPS."""
        return self._http(tls=True)

    def _http(self, *, tls: bool) -> HttpServer:
        known = HttpServer.attach(self._session, tls=tls)
        return known or HttpServer.create(self._session, self._book, tls=tls)

    @cached_property
    def block(self) -> BlockDevices:
        """Local block devices, where the kernel has loop devices."""
        return BlockDevices(self._session)

    def why_not(self, kind: str) -> str | None:
        """Why this machine cannot have disks of this kind, None if it can; installs what they need."""
        try:
            if kind in {"iscsi", "iscsi-chap", "rbd"}:
                _need("rbd" if kind == "rbd" else "iscsi")
        except LabError as error:
            return str(error)
        return self.block.why_not() if kind == "block" else None

    def access(self, source: ImageSource) -> Access | None:
        """What the server of an image asks for, None if it lets everybody in."""
        return self._book.find(source.protocol, source.host, source.port)

    def disk(self, kind: str, name: str, *, size: int = 16 * MEBIBYTE, image_format: str = "qcow2") -> Disk:
        """A fresh disk of `size` bytes of one of DISK_KINDS, its image or export called after `name`.

        For "http" and "https" it is a raw base of that name there and an overlay that is a file.
        """
        if kind == "file":
            return Disk.file(size=size, image_format=image_format)
        if kind in {"http", "https"}:
            server = self.http if kind == "http" else self.https
            return Disk(None, size=size, backing=(server.base(f"{name}.img", size), "raw"))
        room = size if image_format == "raw" else size + _QCOW2_TABLES
        suffix = "img" if image_format == "raw" else image_format
        source = self.place(kind, name, room=room, suffix=suffix)
        return Disk(source, image_format, size)

    def place(self, kind: str, name: str, *, room: int = 20 * MEBIBYTE, suffix: str = "qcow2") -> ImageSource:
        """Where a new image (also an overlay) of a network or block kind can be made.

        Where an image cannot be made by its client (an export), it is there and has `room` for so many bytes,
        all zeros; elsewhere nothing of this name exists yet.
        """
        match kind:
            case "gluster":
                return self.gluster.volume().source(f"{name}.{suffix}")
            case "nbd" | "nbd-tls" | "nbd-unix":
                return self.nbd.export(name, room, tls=kind == "nbd-tls", unix=kind == "nbd-unix").source
            case "iscsi":
                return self.iscsi.lun(room).source
            case "iscsi-chap":
                return self.iscsi_chap.lun(room).source
            case "rbd":
                return self.rbd.source(name)
            case "block":
                return self.block.device(name, room).source
        raise LabError(f"unknown kind of disk {kind!r}; there are {', '.join(DISK_KINDS)}")

    @cached_property
    def reader(self) -> Reader:
        """Captures points of disks and compares them later."""
        return Reader(self.directory / "captures", self.access)

    def close(self) -> None:
        """End everything this lab started and remove its directory."""
        self._session.end()


def _need(group: str) -> None:
    """Have a group of packages. Raises LabError if they cannot be installed here."""
    try:
        install(group)
    except SystemExit as error:
        raise LabError(str(error)) from None
