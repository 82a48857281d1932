"""Between libvirtd and a machine's QEMU: kills libvirtd at a chosen message of the monitor's protocol (QMP).

What libvirtd has told QEMU and what it has noted of that itself are apart for some milliseconds only. A kill
after a delay seldom meets them; a kill at a message always does, however fast the machine is.

    with Monitor(machine) as monitor:  # libvirtd is started anew, so that it connects through here
        monitor.kill_at(Moment("answered", "transaction"))
        ...  # take a snapshot: QEMU has done it, libvirtd has not read so
        assert monitor.killed.wait(10)
        host.start()

It lasts as long as the machine's QEMU: a machine that is started anew has another monitor.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from lab import process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.machines.machine import Machine

_REAL = "monitor-of-qemu.sock"
_BLOCK = 1 << 20
_SHORT_NAME = 20
"""Characters of a machine's name in the name of its directory (libvirt's virDomainDefGetShortName)."""
_ANSWER_SECONDS = 10.0

Side = Literal["before", "answered", "after"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A message to kill libvirtd at.

    `name`: a QMP command or event. `side`: "before" QEMU gets the `number`-th such command; "answered": QEMU
    has answered it (or has sent the event), and libvirtd has not read that; "after" it could read that, and
    `delay` seconds more.
    """

    side: Side
    name: str
    number: int = 1
    delay: float = 0.0

    def __str__(self) -> str:
        late = f" + {self.delay * 1000:.1f} ms" if self.delay else ""
        return f"{self.side} {self.name} #{self.number}{late}"


@dataclass
class _Talk:
    """One connection of libvirtd: what the commands are called whose answers are to come."""

    libvirtd: socket.socket
    qemu: socket.socket
    asked: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        for end in (self.libvirtd, self.qemu):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Monitor:
    """Passes everything on, and kills libvirtd when it is told to."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._seen = 0
        self.killed = threading.Event()
        """Set when libvirtd was killed; cleared by `kill_at`."""
        # A machine that libvirtd has lost leaves its directory, and libvirtd may use its number again.
        called = f"domain-{machine.domain.ID()}-{machine.name[:_SHORT_NAME]}"
        path = machine.host.layout.directory / "lib" / "qemu" / called / "monitor.sock"
        if not path.exists():
            raise LabError(f"machine {machine.name} has no monitor: {path} is not there")
        self._path, self._real = path, path.with_name(_REAL)
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Monitor:
        self.insert()
        self._machine.host.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def insert(self) -> None:
        """Take the place of QEMU's socket: the next libvirtd that is started connects through here."""
        self._path.rename(self._real)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._serve, name=f"monitor-{self._machine.name}", daemon=True).start()

    def close(self) -> None:
        """Go out of the way; libvirtd connects to QEMU itself when it is started the next time."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):  # libvirt removes the directory with the machine
            self._real.rename(self._path)

    def kill_at(self, moment: Moment | None) -> None:
        """Kill libvirtd at this moment, counted from now. None: not any more."""
        with self._lock:
            self.killed.clear()
            self._moment, self._seen = moment, 0

    def ask(self, command: str) -> Any:
        """Ask QEMU itself, which libvirtd must not be connected to: QEMU serves one at a time."""
        with socket.socket(socket.AF_UNIX) as qemu:
            qemu.settimeout(_ANSWER_SECONDS)
            qemu.connect(str(self._real))
            answers = _lines(qemu)
            next(answers)  # the greeting
            for name in ("qmp_capabilities", command):
                qemu.sendall(json.dumps({"execute": name, "id": name}).encode() + b"\n")
                said = next(said for _, said in answers if said.get("id") == name)
                if "error" in said:
                    raise LabError(f"{name}: {said['error']['desc']}")
        return said["return"]

    def _serve(self) -> None:
        while True:
            try:
                libvirtd, _ = self._listener.accept()
            except OSError:
                return
            qemu = socket.socket(socket.AF_UNIX)
            try:
                qemu.connect(str(self._real))
            except OSError:  # it has just ended
                libvirtd.close()
                continue
            talk = _Talk(libvirtd, qemu)
            for pump in (self._to_qemu, self._to_libvirtd):
                threading.Thread(target=pump, args=(talk,), daemon=True).start()

    def _to_qemu(self, talk: _Talk) -> None:
        with contextlib.suppress(OSError):
            for line, said in _lines(talk.libvirtd):
                if "execute" in said:
                    talk.asked[str(said.get("id"))] = said["execute"]
                if self._is_it("before", said.get("execute", "")):
                    self._kill()
                    break
                talk.qemu.sendall(line)
        talk.close()

    def _to_libvirtd(self, talk: _Talk) -> None:
        with contextlib.suppress(OSError):
            for line, said in _lines(talk.qemu):
                name = said.get("event") or talk.asked.pop(str(said.get("id")), "")
                if self._is_it("answered", name):
                    self._kill()
                    break
                talk.libvirtd.sendall(line)
                if (moment := self._is_it("after", name)) is not None:
                    threading.Event().wait(moment.delay)
                    self._kill()
                    break
        talk.close()

    def _is_it(self, side: Side, name: str) -> Moment | None:
        with self._lock:
            moment = self._moment
            if moment is None or (moment.side, moment.name) != (side, name):
                return None
            self._seen += 1
            if self._seen != moment.number:
                return None
            self._moment = None
            return moment

    def _kill(self) -> None:
        host = self._machine.host
        with contextlib.suppress(LabError):  # somebody else was faster
            process.send_signal(host.record(), signal.SIGKILL)
        wait_until(lambda: not host.running, timeout=20, what="libvirtd ends")
        self.killed.set()


def _lines(source: socket.socket) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The messages that come, each as it came and decoded."""
    rest = b""
    while data := source.recv(_BLOCK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n", json.loads(line) if line.strip() else {}
