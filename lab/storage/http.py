"""Read-only images over HTTP or HTTPS: bases, for overlays that are elsewhere."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from lab.errors import LabError
from lab.ports import free_port
from lab.session import Session
from lab.storage.access import Access, AccessBook
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess
from lab.storage.tls import make_certificates

NOTE = "http/"
_ADDRESS = "127.0.0.1"
_MARK_BYTES = 4096
_SCRIPT = Path(__file__).with_name("http_server.py")


class HttpServer(ServerProcess):
    """One server of one directory. `tls`: HTTPS, with a certificate that no client can check."""

    def __init__(self, session: Session, *, tls: bool, port: int) -> None:
        self.protocol = "https" if tls else "http"
        self.directory = session.directory / "storage" / self.protocol
        self.images = self.directory / "images"
        command = [sys.executable, "-I", str(_SCRIPT), str(self.images), str(port)]
        self.access: Access | None = None
        if tls:
            identity, _ = make_certificates(self.directory / "tls")
            command += [f"--certificate={identity}/server-cert.pem", f"--key={identity}/server-key.pem"]
            # QEMU cannot be told an authority for HTTPS: it takes those of the system, or does not check.
            self.access = Access(tls=True, verify=False)
        log = self.directory / "server.log"
        super().__init__(session, self.protocol, command, log=log, address=_ADDRESS, port=port)

    @classmethod
    def create(cls, session: Session, book: AccessBook, *, tls: bool) -> HttpServer:
        """Start it."""
        server = cls(session, tls=tls, port=free_port(_ADDRESS))
        server.images.mkdir(parents=True)
        server.start()
        if server.access is not None:
            book.grant(server.protocol, server.address, server.port, server.access)
        session.note(NOTE + server.protocol, {"tls": tls, "port": server.port})
        return server

    @classmethod
    def attach(cls, session: Session, *, tls: bool) -> HttpServer | None:
        """The lab's server of this kind, if one was started."""
        note = session.state().notes.get(NOTE + ("https" if tls else "http"))
        return cls(session, **note) if note else None

    def path(self, image: str) -> Path:
        """The file behind an image."""
        return self.images / image

    def source(self, image: str) -> ImageSource:
        """An image on it, whether it exists or not."""
        return ImageSource(self.protocol, image, self.address, self.port, access=self.access)

    def base(self, image: str, size: int) -> ImageSource:
        """A new raw image of `size` bytes, zeros but for a mark in its last 4 KiB that no guest writes.

        Raises LabError if the name is taken.
        """
        path = self.path(image)
        if path.exists():
            raise LabError(f"there is an image {image} already")
        path.touch()
        os.truncate(path, size)
        with path.open("r+b") as file:
            file.seek(size - _MARK_BYTES)
            file.write(random.Random(image).randbytes(_MARK_BYTES))  # noqa: S311 - content, not a secret
        return self.source(image)
