"""NBD exports, one qemu-nbd each: over TCP, over TCP with TLS, over a unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.ports import free_port
from lab.session import Session
from lab.storage.access import Access, AccessBook
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess
from lab.storage.tls import make_certificates

NOTE = "nbd/"
_ADDRESS = "127.0.0.1"
_CLIENTS = 8  # QEMU, qemu-img and the readers of a test at the same time


class NbdExport(ServerProcess):
    """One export: `source` names it for libvirt and qemu-img, `path` is the raw file behind it.

    `port` 0: it listens on a unix socket beside the file. `tls`: directory of the server's certificates.
    `clients`: so many are served at the same time; others wait.
    """

    def __init__(
        self,
        session: Session,
        source: ImageSource,
        *,
        path: Path,
        tls: Path | None = None,
        clients: int = _CLIENTS,
    ) -> None:
        command = ["qemu-nbd", "--format=raw", f"--export-name={source.name}"]
        if source.socket:
            command.append(f"--socket={source.socket}")
        else:
            command += [f"--bind={source.host}", f"--port={source.port}"]
        if tls is not None:
            identity = f"tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir={tls}"
            command += ["--object", identity, "--tls-creds=tls"]
        command += [f"--shared={clients}", "--persistent", str(path)]
        super().__init__(
            session,
            f"nbd-{source.name}",
            command,
            log=path.with_suffix(".log"),
            address=source.host,
            port=source.port,
            unix=Path(source.socket) if source.socket else None,
        )
        self.path = path
        self.source = source


class NbdServers:
    """All NBD exports of a lab."""

    def __init__(self, session: Session, book: AccessBook) -> None:
        self._session = session
        self._book = book
        self._directory = session.directory / "storage" / "nbd"

    def export(
        self, name: str, size: int, *, tls: bool = False, unix: bool = False, clients: int = _CLIENTS
    ) -> NbdExport:
        """Make a sparse file of `size` bytes and export it. Raises LabError if the name is taken.

        `tls`: only clients with a certificate of the lab are served; the lab's libvirt hosts get one.
        `unix`: on a unix socket instead of a TCP port (without TLS). `clients`: it serves so many at a time.
        """
        if tls and unix:
            raise LabError("the lab has no NBD export with TLS on a unix socket")
        path = self._directory / f"{name}.raw"
        if path.exists():
            raise LabError(f"there is an NBD export {name} already")
        self._directory.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        os.truncate(path, size)
        port = 0 if unix else free_port(_ADDRESS)
        note = {"port": port, "path": str(path), "tls": tls, "clients": clients}
        export = self._of(name, note)
        export.start()
        if export.source.access is not None:
            self._book.grant("nbd", _ADDRESS, port, export.source.access)
        self._session.note(NOTE + name, note)
        return export

    def remove(self, export: NbdExport) -> None:
        """End an export and remove its file."""
        if export.running:
            export.kill()
        export.path.unlink()
        self._session.note(NOTE + export.source.name, None)

    def move(self, export: NbdExport) -> NbdExport:
        """Serve what `export` serves at another port: its clients are cut off, and it is started anew.

        Raises LabError for one with TLS or on a unix socket.
        """
        note = self._session.state().notes[NOTE + export.source.name]
        if note["tls"] or not note["port"]:
            raise LabError("only a plain NBD export on TCP is moved")
        if export.running:
            export.kill()
        note = {**note, "port": free_port(_ADDRESS)}
        moved = self._of(export.source.name, note)
        moved.start()
        self._session.note(NOTE + export.source.name, note)
        return moved

    def exports(self) -> list[NbdExport]:
        """The exports made so far."""
        notes = self._session.state().notes
        return [self._of(key.removeprefix(NOTE), note) for key, note in notes.items() if key.startswith(NOTE)]

    def _of(self, name: str, note: Mapping[str, Any]) -> NbdExport:
        path, clients = Path(note["path"]), int(note["clients"])
        if not note["port"]:
            source = ImageSource("nbd", name, socket=str(path.with_suffix(".sock")))
            return NbdExport(self._session, source, path=path, clients=clients)
        if not note["tls"]:
            source = ImageSource("nbd", name, _ADDRESS, note["port"])
            return NbdExport(self._session, source, path=path, clients=clients)
        server, client = make_certificates(self._directory / "tls")
        access = Access(tls=True, tls_directory=str(client))
        source = ImageSource("nbd", name, _ADDRESS, note["port"], access=access)
        return NbdExport(self._session, source, path=path, tls=server, clients=clients)
