"""NBD exports, one qemu-nbd each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.ports import free_port
from lab.session import Session
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess

NOTE = "nbd/"
_ADDRESS = "127.0.0.1"
_CLIENTS = 8  # QEMU, qemu-img and the readers of a test at the same time


class NbdExport(ServerProcess):
    """One export: `source` names it for libvirt and qemu-img, `path` is the raw file behind it."""

    def __init__(self, session: Session, name: str, *, port: int, path: Path) -> None:
        command = [
            "qemu-nbd",
            "--format=raw",
            f"--bind={_ADDRESS}",
            f"--port={port}",
            f"--export-name={name}",
        ]
        command += [f"--shared={_CLIENTS}", "--persistent", str(path)]
        log = path.with_suffix(".log")
        super().__init__(session, f"nbd-{name}", command, log=log, address=_ADDRESS, port=port)
        self.path = path
        self.source = ImageSource("nbd", name, _ADDRESS, port)


class NbdServers:
    """All NBD exports of a lab."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._directory = session.directory / "storage" / "nbd"

    def export(self, name: str, size: int) -> NbdExport:
        """Make a sparse file of `size` bytes and export it. Raises LabError if the name is taken."""
        path = self._directory / f"{name}.raw"
        if path.exists():
            raise LabError(f"there is an NBD export {name} already")
        self._directory.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        os.truncate(path, size)
        export = NbdExport(self._session, name, port=free_port(_ADDRESS), path=path)
        export.start()
        self._session.note(NOTE + name, {"port": export.port, "path": str(path)})
        return export

    def remove(self, export: NbdExport) -> None:
        """End an export and remove its file."""
        if export.running:
            export.kill()
        export.path.unlink()
        self._session.note(NOTE + export.source.name, None)

    def exports(self) -> list[NbdExport]:
        """The exports made so far."""
        notes = self._session.state().notes
        return [self._of(key.removeprefix(NOTE), note) for key, note in notes.items() if key.startswith(NOTE)]

    def _of(self, name: str, note: Mapping[str, Any]) -> NbdExport:
        return NbdExport(self._session, name, port=note["port"], path=Path(note["path"]))
