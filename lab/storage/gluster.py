"""A gluster server: glusterd and one brick per volume, on a loopback address of their own.

The address (127.x.y.z, chosen per lab) takes the place of a host name: gluster refuses 127.0.0.1 for a brick,
and with an address of its own every lab has the standard management port, which some clients cannot be told
another of.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
from pathlib import Path

from lab import namespace, process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.ports import is_free
from lab.process import ProcessRecord
from lab.session import Session
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess, accepts

NOTE = "gluster"
_MANAGEMENT_PORT = 24007
_LOWEST_BRICK_PORT = 49152
_COMMAND_SECONDS = 60.0
_CONFIGURATION = """\
volume management
    type mgmt/glusterd
    option working-directory {directory}/glusterd
    option glusterd-sockfile {directory}/glusterd.sock
    option transport-type socket
    option transport.socket.bind-address {address}
    option transport.socket.listen-port {port}
    option transport.socket.read-fail-log off
    option ping-timeout 0
    option base-port {brick_port}
    option max-port 60999
end-volume
"""


class GlusterVolume:
    """One volume of one brick. libvirt names an image `VOLUME/PATH`."""

    def __init__(self, server: GlusterServer, name: str) -> None:
        self._server = server
        self.name = name
        self.brick = server.directory / "bricks" / name

    def source(self, image: str) -> ImageSource:
        """An image on it, whether it exists or not."""
        return ImageSource("gluster", f"{self.name}/{image}", self._server.address, _MANAGEMENT_PORT)

    def images(self) -> list[str]:
        """Names of the files on it, looked up on the brick."""
        return sorted(
            str(path.relative_to(self.brick))
            for path in self.brick.rglob("*")
            if path.is_file() and ".glusterfs" not in path.parts
        )

    # -- faults: the brick is what serves data

    def brick_record(self) -> ProcessRecord:
        """The brick's process. Raises LabError if it does not run."""
        for path in (self._server.directory / "run" / "vols" / self.name).glob("*.pid"):
            text = path.read_text(encoding="ascii").strip()
            record = process.record_of(f"brick-{self.name}", int(text)) if text else None
            if record is not None:
                return record
        raise LabError(f"the brick of volume {self.name} does not run")

    def kill_brick(self) -> None:
        """SIGKILL the brick; returns when it is gone. `GlusterServer.start_bricks` brings it back."""
        record = self.brick_record()
        process.send_signal(record, signal.SIGKILL)
        if not process.wait_gone(record, 10):
            raise LabError(f"the brick of volume {self.name} does not end")

    def pause_brick(self) -> None:
        """SIGSTOP the brick: whoever reads or writes waits."""
        process.send_signal(self.brick_record(), signal.SIGSTOP)

    def resume_brick(self) -> None:
        """SIGCONT the brick."""
        process.send_signal(self.brick_record(), signal.SIGCONT)


class GlusterServer(ServerProcess):
    """glusterd. Killing it leaves the bricks, which serve those who are connected already."""

    def __init__(self, session: Session, address: str) -> None:
        self.directory = session.directory / "storage" / "gluster"
        glusterd = [
            "glusterd",
            "--no-daemon",
            "--log-level=WARNING",
            f"--volfile={self.directory}/glusterd.vol",
        ]
        glusterd += [
            f"--pid-file={self.directory}/glusterd.pid",
            f"--log-file={self.directory}/log/glusterd.log",
        ]
        binds = [(self.directory / "run", "/run/gluster"), (self.directory / "log", "/var/log/glusterfs")]
        super().__init__(
            session,
            "glusterd",
            namespace.command(glusterd, binds=binds),
            log=self.directory / "log" / "glusterd.log",
            address=address,
            port=_MANAGEMENT_PORT,
        )

    @classmethod
    def create(cls, session: Session) -> GlusterServer:
        """Start a glusterd on a free loopback address."""
        server = cls(session, _free_address())
        for name in ("glusterd", "run", "log", "bricks"):
            (server.directory / name).mkdir(parents=True)
        configuration = _CONFIGURATION.format(
            directory=server.directory,
            address=server.address,
            port=_MANAGEMENT_PORT,
            brick_port=_LOWEST_BRICK_PORT,
        )
        (server.directory / "glusterd.vol").write_text(configuration, encoding="utf-8")
        server.start()
        session.note(NOTE, {"address": server.address})
        return server

    @classmethod
    def attach(cls, session: Session) -> GlusterServer | None:
        """The lab's gluster server, if one was started."""
        note = session.state().notes.get(NOTE)
        return cls(session, note["address"]) if note else None

    def volume(self, name: str = "gv0") -> GlusterVolume:
        """The volume of this name, made and started if there is none."""
        volume = GlusterVolume(self, name)
        if not volume.brick.exists():
            volume.brick.mkdir()
            self._gluster("volume", "create", name, f"{self.address}:{volume.brick}", "force")
            # Or a client would hold finished writes in its memory and lose them when it is killed.
            self._gluster("volume", "set", name, "performance.write-behind", "off")
            self.start_bricks(volume)
        return volume

    def volumes(self) -> list[GlusterVolume]:
        """The volumes made so far."""
        return [GlusterVolume(self, path.name) for path in sorted((self.directory / "bricks").iterdir())]

    def start_bricks(self, volume: GlusterVolume) -> None:
        """Start the volume's brick (again) and wait until it serves."""
        self._gluster("volume", "start", volume.name, "force")
        volume_uri = volume.source("").uri
        port = self._brick_port(volume)
        wait_until(
            lambda: accepts(self.address, port), timeout=_COMMAND_SECONDS, what=f"the brick of {volume_uri}"
        )

    def _brick_port(self, volume: GlusterVolume) -> int:
        arguments = Path(f"/proc/{volume.brick_record().pid}/cmdline").read_bytes().decode().split("\0")
        return int(arguments[arguments.index("--brick-port") + 1])

    def _gluster(self, *words: str) -> None:
        """Run the gluster command. It is refused while glusterd is still starting: so with a deadline."""
        argv = ["gluster", f"--glusterd-sock={self.directory}/glusterd.sock", "--mode=script"]
        argv += [f"--log-file={self.directory}/log/cli.log", *words]

        def accepted() -> bool:
            answer = subprocess.run(
                argv, check=False, capture_output=True, text=True, timeout=_COMMAND_SECONDS
            )
            said.append((answer.stdout + answer.stderr).strip())
            return answer.returncode == 0

        said: list[str] = []
        try:
            wait_until(accepted, timeout=10, what=f"gluster {' '.join(words)}", interval=0.2)
        except LabError as error:
            raise LabError(f"{error}: {said[-1]}") from None


def _free_address() -> str:
    for _ in range(100):
        address = f"127.{64 + secrets.randbelow(190)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
        if is_free(_MANAGEMENT_PORT, address):
            return address
    raise LabError(f"port {_MANAGEMENT_PORT} is in use on all loopback addresses that were tried")
