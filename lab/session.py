"""The caller's side of the keeper: start one, ask it to start programs, end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import process, sweep
from lab.deadline import wait_until
from lab.errors import LabError
from lab.process import ProcessRecord
from lab.state import SOCKET_NAME, STATE_NAME, LabState, check_directory

_REPOSITORY = Path(__file__).resolve().parent.parent
_END_SECONDS = 20.0
_TAIL_LINES = 15


class Session:
    """One lab's directory and keeper. Thread-safe: every request is a connection of its own."""

    def __init__(self, directory: Path, *, tie: int | None = None) -> None:
        self.directory = directory
        self._tie = tie

    @classmethod
    def start(cls, directory: Path, *, detached: bool) -> Session:
        """Make the directory and start its keeper.

        `detached`: the lab outlives this process. Otherwise it ends with it, however it ends.
        Raises LabError if a lab is there already.
        """
        directory = directory.resolve()
        check_directory(directory)
        if (directory / STATE_NAME).exists():
            if LabState.load(directory).alive():
                raise LabError(
                    f"a lab runs in {directory} already: `python -m lab down --dir {directory}` ends it"
                )
            sweep.sweep(directory)
        own = not directory.exists() or not any(directory.iterdir())
        directory.mkdir(parents=True, exist_ok=True)
        if not own:
            raise LabError(f"{directory} is neither empty nor a lab's directory")
        LabState().save(directory)
        argv = [sys.executable, "-m", "lab.keeper", str(directory)]
        read_end = write_end = None
        if not detached:
            read_end, write_end = os.pipe()  # neither end is inherited by other children of this process
            argv += ["--tie", str(read_end)]
        with (directory / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
                cwd="/",
                start_new_session=True,
                pass_fds=() if read_end is None else (read_end,),
            )
        if read_end is not None:
            os.close(read_end)
        session = cls(directory, tie=write_end)

        def died() -> str | None:
            return None if keeper.poll() is None else (directory / "keeper.log").read_text(encoding="utf-8")

        try:
            wait_until(session._answers, timeout=20, what="the lab's keeper", failed=died, interval=0.01)
        except BaseException:
            session.end()
            raise
        return session

    @classmethod
    def attach(cls, directory: Path) -> Session:
        """The session of a lab that runs in `directory`. Raises LabError if none does."""
        session = cls(directory.resolve())
        keeper = LabState.load(session.directory).keeper
        if keeper is None or not process.is_alive(keeper):
            raise LabError(
                f"the lab in {directory} does not run any more: `python -m lab down` cleans up after it"
            )
        return session

    def _answers(self) -> bool:
        try:
            self.ask("ping")
        except LabError:
            return False
        return True

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request to the keeper. Raises LabError with the keeper's words if it fails."""
        request = json.dumps({"op": operation, **arguments}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(30)
                connection.connect(str(self.directory / SOCKET_NAME))
                connection.sendall(request)
                with connection.makefile("rb") as stream:
                    line = stream.readline()
        except OSError as error:
            raise LabError(f"the lab's keeper in {self.directory} does not answer: {error}") from error
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it closed the connection"}
        if "error" in answer:
            raise LabError(f"the lab's keeper refused {operation}: {answer['error']}")
        return answer

    def spawn(
        self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> ProcessRecord:
        """Start a program as the keeper's child, its output appended to `log`.

        `env` adds to this process's.
        """
        answer = self.ask(
            "spawn",
            name=name,
            argv=list(argv),
            env={**os.environ, **(env or {})},
            cwd=str(self.directory),
            log=str(log),
        )
        return ProcessRecord(name, answer["pid"], answer["start"])

    def exit_code(self, name: str) -> int | None:
        """How the process of this name ended (negative: by this signal); None while it runs."""
        code: int | None = self.ask("exit", name=name)["code"]
        return code

    def why_gone(self, name: str, *logs: Path) -> str | None:
        """None while the process runs; else its exit code and the ends of its logs, for an error message."""
        code = self.exit_code(name)
        if code is None:
            return None
        said = [f"{name} ended with {code}"]
        for log in logs:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            said += [f"the end of {log}:", *tail[-_TAIL_LINES:]] if tail else []
        return "\n".join(said)

    def note(self, key: str, value: Mapping[str, Any] | None) -> None:
        """Describe a part of the lab in its state, for processes that attach; None removes it."""
        self.ask("note", key=key, value=dict(value) if value is not None else None)

    def state(self) -> LabState:
        """The state as last written."""
        return LabState.load(self.directory)

    def end(self) -> None:
        """End everything the lab started and remove its directory. Fine to call twice."""
        if (self.directory / STATE_NAME).exists():
            keeper = LabState.load(self.directory).keeper
            if keeper is not None and process.send_signal(keeper, signal.SIGTERM):
                process.wait_gone(keeper, _END_SECONDS)
            sweep.sweep(self.directory)
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None
