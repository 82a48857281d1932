"""RBD images on a small Ceph: one monitor, one OSD, cephx.

The OSD keeps its data in a file (bluestore), so that a killed one loses nothing that it acknowledged; the
store in memory, which starts two seconds faster, forgets everything. No manager: images do not need it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.ports import free_port
from lab.session import Session
from lab.storage import ceph_configuration
from lab.storage.access import Access, AccessBook, write_secret
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess

NOTE = "rbd"
_ADDRESS = "127.0.0.1"
_USER = "varve-lab"
_POOL = "rbd"
_DEVICE_BYTES = 4 << 30  # sparse
_COMMAND_SECONDS = 60.0


class CephDaemon(ServerProcess):
    """A monitor or an OSD: ready when it says so itself, on its admin socket."""

    def __init__(self, session: Session, directory: Path, name: str, *, port: int = 0) -> None:
        kind, _, identity = name.partition(".")
        command = [f"ceph-{kind}", "--foreground", f"--conf={directory}/server.conf", "--id", identity]
        super().__init__(
            session, f"ceph-{kind}", command, log=directory / f"{kind}.out", address=_ADDRESS, port=port
        )
        self._asks, self._expected = ("mon_status", {"leader"}) if kind == "mon" else ("status", {"active"})
        self._admin = directory / "run" / f"{name}.asok"

    def ready(self) -> bool:
        """Whether it serves: the monitor leads, the OSD is part of the cluster."""
        try:
            return self._ask(self._asks).get("state") in self._expected
        except (OSError, ValueError):  # not there yet, or starting and without an answer to this
            return False

    def _ask(self, command: str) -> dict[str, object]:
        """One command to the admin socket: JSON and NUL; the answer's length (4 bytes) and JSON."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(self._admin))
            connection.sendall(json.dumps({"prefix": command}).encode() + b"\0")
            with connection.makefile("rb") as stream:
                size = int.from_bytes(stream.read(4), "big")
                answer: dict[str, object] = json.loads(stream.read(size))
        return answer


class RbdCluster:
    """The Ceph of a lab, with one pool. `monitor` and `osd` can be killed, paused and started alone."""

    def __init__(self, session: Session, *, port: int) -> None:
        self._session = session
        self.directory = session.directory / "storage" / "rbd"
        self.port = port
        self.access = Access(
            user=_USER,
            usage="varve-lab-rbd",
            secret_file=str(self.directory / "client.key"),
            configuration=str(self.directory / "client.conf"),
        )
        self.monitor = CephDaemon(session, self.directory, "mon.a", port=port)
        self.osd = CephDaemon(session, self.directory, "osd.0")

    @classmethod
    def create(cls, session: Session, book: AccessBook) -> RbdCluster:
        """Make and start it (5 s); the lab's libvirt hosts get the client's key."""
        cluster = cls(session, port=free_port(_ADDRESS))
        cluster._make()
        session.note(NOTE, {"port": cluster.port})
        book.grant("rbd", _ADDRESS, cluster.port, cluster.access)
        return cluster

    @classmethod
    def attach(cls, session: Session) -> RbdCluster | None:
        """The lab's cluster, if one was started."""
        note = session.state().notes.get(NOTE)
        return cls(session, **note) if note else None

    def _make(self) -> None:
        for name in ("mon", "osd", "run"):
            (self.directory / name).mkdir(parents=True, mode=0o700)
        fsid, second_port = str(uuid.uuid4()), free_port(_ADDRESS)
        self._write_files(fsid, second_port)
        address = f"[v2:{_ADDRESS}:{second_port},v1:{_ADDRESS}:{self.port}]"
        map_file = str(self.directory / "monmap")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, map_file)
        keyring = f"--keyring={self.directory}/server.keyring"
        self._run("ceph-mon", *self._server, "--mkfs", "--id=a", f"--monmap={map_file}", keyring)
        self.monitor.start()
        osd = str(uuid.uuid4())
        # In one process: the command takes longer to start than to do them.
        self._run("ceph", *self._server, typed=f"osd new {osd} 0\nosd pool create {_POOL} 8\n")
        self._run("ceph-osd", *self._server, "--mkfs", "--id=0", f"--osd-uuid={osd}")
        self.osd.start()

    def _write_files(self, fsid: str, second_port: int) -> None:
        key = ceph_configuration.new_key()
        keyrings = {name: self.directory / f"{name}.keyring" for name in ("server", "client")}
        ceph_configuration.write_keyrings(keyrings["server"], keyrings["client"], user=_USER, key=key)
        write_secret(Path(self.access.secret_file), key)
        ports = (second_port, self.port, free_port(_ADDRESS))
        for name, keyring in keyrings.items():
            ceph_configuration.write_configuration(
                self.directory / f"{name}.conf",
                directory=self.directory,
                keyring=keyring,
                fsid=fsid,
                address=_ADDRESS,
                ports=ports,
                size=_DEVICE_BYTES,
            )

    @property
    def _server(self) -> list[str]:
        return [f"--conf={self.directory}/server.conf"]

    # -- images

    def source(self, image: str) -> ImageSource:
        """An image of the pool, whether it exists or not."""
        return ImageSource("rbd", f"{_POOL}/{image}", _ADDRESS, self.port, access=self.access)

    def images(self, namespace: str = "") -> list[str]:
        """Names of the images in the pool, or in one namespace of it."""
        return self._rbd("ls", f"{_POOL}/{namespace}" if namespace else _POOL).split()

    def remove(self, image: str) -> None:
        """Remove an image that nobody uses."""
        self._rbd("rm", "--no-progress", f"{_POOL}/{image}")

    def snapshot(self, image: str, name: str) -> None:
        """Make an RBD snapshot of an image; it can then not be removed."""
        self._rbd("snap", "create", "--no-progress", f"{_POOL}/{image}@{name}")

    def namespace(self, name: str) -> None:
        """Make a namespace in the pool; `source("name/image")` is an image in it."""
        self._rbd("namespace", "create", "--pool", _POOL, "--namespace", name)

    def run(self, command: Sequence[str]) -> str:
        """A command of Ceph as an administrator of this cluster would type it; its output."""
        return self._run(*command, f"--conf={self.access.configuration}")

    def _rbd(self, *words: str) -> str:
        return self._run("rbd", f"--conf={self.access.configuration}", f"--id={_USER}", *words)

    # -- faults, of both at once

    def start(self) -> None:
        """Start the monitor and the OSD again; returns when both serve."""
        self.monitor.start()
        self.osd.start()

    def stop(self) -> None:
        """SIGTERM both; returns when they are gone."""
        self.osd.stop()
        self.monitor.stop()

    def kill(self) -> None:
        """SIGKILL both; returns when they are gone."""
        self.osd.kill()
        self.monitor.kill()

    def pause(self) -> None:
        """SIGSTOP both: whoever reads, writes or connects waits."""
        self.monitor.pause()
        self.osd.pause()

    def resume(self) -> None:
        """SIGCONT both."""
        self.monitor.resume()
        self.osd.resume()

    def _run(self, *command: str, typed: str = "") -> str:
        """A program of Ceph; its output. Raises LabError with what it says."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CEPH_")}
        answer = subprocess.run(
            command,
            input=typed,
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_COMMAND_SECONDS,
        )
        if answer.returncode != 0:
            raise LabError(f"{command[0]}: {answer.stderr.strip()}")
        return answer.stdout
