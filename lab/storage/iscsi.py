"""An iSCSI target with any number of LUNs, served by a tgtd of its own."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.ports import free_port
from lab.session import Session
from lab.storage.access import Access, AccessBook, write_secret
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess, accepts_unix

NOTE = "iscsi/"
_ADDRESS = "127.0.0.1"
_TARGET = "iqn.2024-01.lab.varve"
_USER = "varve-lab"
_COMMAND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class IscsiLun:
    """One LUN (numbered from 1: 0 is tgt's controller), and the raw file behind it."""

    number: int
    path: Path
    source: ImageSource


class IscsiServer(ServerProcess):
    """One tgtd with one target. `chap`: it asks for a user and a password.

    tgtd keeps its configuration in memory only: `start` brings it again, from the files that the LUNs are.
    """

    def __init__(self, session: Session, *, chap: bool, port: int) -> None:
        name = "iscsi-chap" if chap else "iscsi"
        self.directory = session.directory / "storage" / name
        command = ["tgtd", "--foreground", "--iscsi", f"portal={_ADDRESS}:{port}"]
        super().__init__(session, name, command, log=self.directory / "tgtd.log", address=_ADDRESS, port=port)
        self.target = f"{_TARGET}:{name}"
        self.access: Access | None = None
        if chap:
            password = self.directory / "password"
            self.access = Access(user=_USER, usage="varve-lab-iscsi", secret_file=str(password))

    @classmethod
    def create(cls, session: Session, book: AccessBook, *, chap: bool) -> IscsiServer:
        """Start it; with CHAP, the lab's libvirt hosts get to know the password."""
        server = cls(session, chap=chap, port=free_port(_ADDRESS))
        server.directory.mkdir(parents=True, mode=0o700)
        if server.access is not None:
            password = secrets.token_hex(
                8
            )  # RFC 7143 asks for 96 bits or more, old initiators for 16 letters
            write_secret(Path(server.access.secret_file), password)
        server.start()
        if server.access is not None:
            book.grant("iscsi", server.address, server.port, server.access)
        session.note(NOTE + server.name, {"chap": chap, "port": server.port})
        return server

    @classmethod
    def attach(cls, session: Session, *, chap: bool) -> IscsiServer | None:
        """The lab's server of this kind, if one was started."""
        note = session.state().notes.get(NOTE + ("iscsi-chap" if chap else "iscsi"))
        return cls(session, **note) if note else None

    def lun(self, size: int) -> IscsiLun:
        """A new LUN of `size` bytes, all zeros."""
        number = max((lun.number for lun in self.luns()), default=0) + 1
        lun = self._lun(number)
        lun.path.touch(0o600)
        os.truncate(lun.path, size)
        self._serve(lun)
        return lun

    def luns(self) -> list[IscsiLun]:
        """The LUNs made so far."""
        return [
            self._lun(number) for number in sorted(int(path.stem) for path in self.directory.glob("*.lun"))
        ]

    def remove(self, lun: IscsiLun) -> None:
        """Take a LUN away, also from those who use it, and remove its file."""
        self._administer("--op=delete", "--mode=logicalunit", "--tid=1", f"--lun={lun.number}")
        lun.path.unlink()

    def _lun(self, number: int) -> IscsiLun:
        name = f"{self.target}/{number}"
        source = ImageSource("iscsi", name, self.address, self.port, access=self.access)
        return IscsiLun(number, self.directory / f"{number}.lun", source)

    def start(self) -> None:
        """Start it (again) and bring its target, LUNs and account."""
        self._session.spawn(self.name, self._command, log=self._log, env=self._environment())
        self._wait_ready()
        self._administer("--op=new", "--mode=target", "--tid=1", f"--targetname={self.target}")
        if self.access is not None:
            password = Path(self.access.secret_file).read_text(encoding="ascii")
            account = ["--mode=account", f"--user={self.access.user}"]
            # tgtadm has no other way to take it: for some milliseconds it is in a list of processes.
            self._administer("--op=new", *account, f"--password={password}")
            self._administer("--op=bind", *account, "--tid=1")
        for lun in self.luns():
            self._serve(lun)
        self._administer("--op=bind", "--mode=target", "--tid=1", f"--initiator-address={_ADDRESS}")

    def stop(self) -> None:
        """The same as `kill`: tgtd pays no heed to SIGTERM, refuses to go while a command is under way, and
        keeps no data in memory.
        """
        self.kill()

    def _serve(self, lun: IscsiLun) -> None:
        unit = ["--mode=logicalunit", "--tid=1", f"--lun={lun.number}"]
        self._administer("--op=new", *unit, f"--backing-store={lun.path}")

    def _environment(self) -> dict[str, str]:
        """A control socket of its own, so that a tgtd of the system is neither met nor managed."""
        return {"TGT_IPC_SOCKET": str(self.directory / "control")}

    def ready(self) -> bool:
        """Whether it accepts connections, and commands as well: the port comes first."""
        return super().ready() and accepts_unix(self.directory / "control.0")

    def _administer(self, *words: str) -> None:
        answer = subprocess.run(
            ["tgtadm", "--lld=iscsi", *words],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **self._environment()},
            timeout=_COMMAND_SECONDS,
        )
        if answer.returncode != 0:
            raise LabError(f"tgtadm {' '.join(words[:2])}: {(answer.stdout + answer.stderr).strip()}")
