"""A storage server's process: started again with the same command after any fault."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from lab import process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.process import ProcessRecord
from lab.session import Session

_READY_SECONDS = 30.0
_END_SECONDS = 10.0


class ServerProcess:
    """One process that listens on `address`:`port` or on a unix socket, known to the keeper by `name`."""

    def __init__(
        self,
        session: Session,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        address: str = "",
        port: int = 0,
        unix: Path | None = None,
    ) -> None:
        self._session = session
        self._command = list(command)
        self._log = log
        self.name = name
        self.address = address
        self.port = port
        self.unix = unix

    def start(self) -> None:
        """Start it (again) and wait until it is ready."""
        self._session.spawn(self.name, self._command, log=self._log)
        self._wait_ready()

    def _wait_ready(self) -> None:
        wait_until(
            self.ready,
            timeout=_READY_SECONDS,
            what=f"{self.name} on {self.unix or f'{self.address}:{self.port}'}",
            failed=lambda: self._session.why_gone(self.name, self._log),
        )

    def ready(self) -> bool:
        """Whether it accepts connections."""
        return accepts_unix(self.unix) if self.unix else accepts(self.address, self.port)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; returns when it is gone. A server that is paused has to be resumed first."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        record = self.record()
        process.send_signal(record, number)
        if not process.wait_gone(record, _END_SECONDS):
            raise LabError(f"{self.name} did not end within {_END_SECONDS:g} s of {number.name}")

    def pause(self) -> None:
        """SIGSTOP: the kernel accepts connections, nobody answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send any signal. Raises LabError if it does not run."""
        process.send_signal(self.record(), number)

    @property
    def running(self) -> bool:
        """Whether it runs (paused counts as running)."""
        return self.name in self._session.state().processes

    def record(self) -> ProcessRecord:
        """Its process. Raises LabError if it does not run."""
        record = self._session.state().processes.get(self.name)
        if record is None:
            raise LabError(f"{self.name} does not run")
        return record


def accepts(address: str, port: int) -> bool:
    """Whether a TCP connection to `address`:`port` is accepted."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def accepts_unix(path: Path) -> bool:
    """Whether a connection to the unix socket `path` is accepted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
