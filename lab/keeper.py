"""The parent of everything a lab starts.

One keeper process per lab. It starts programs when asked over a unix socket, adopts what they leave behind
(PR_SET_CHILD_SUBREAPER: QEMUs are daemons, gluster's bricks too), reaps, writes the PIDs down, and ends all
of its descendants and removes the lab's directory when told to, or when the pipe to its caller closes. It is
a process of its own so that this happens also when the caller is killed; and it is the reaper because libvirt
waits for a destroyed QEMU to be reaped (0.2 s here, 1.6 s where PID 1 is slow).

When the keeper itself is killed, its children die with it (PR_SET_PDEATHSIG); `lab.sweep` ends the rest.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lab import process
from lab.state import SOCKET_NAME, LabState

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_END_SECONDS = 15.0

_libc = ctypes.CDLL(None, use_errno=True)


def _child_setup() -> None:
    """Between fork and exec of every program: die with the keeper, own session, default signals."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Keeper:
    """Single-threaded: requests, signals and the caller's pipe are served one after the other."""

    def __init__(self, directory: Path, tie: int | None) -> None:
        self._directory = directory
        self._tie = tie
        self._state = LabState.load(directory)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._names: dict[int, str] = {}
        self._ending = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the end of the lab; then nothing of it is left."""
        if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noted)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop_signal)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self._directory / SOCKET_NAME))
        server.listen()
        self._selector.register(server, selectors.EVENT_READ)
        self._selector.register(wake_read, selectors.EVENT_READ)
        if self._tie is not None:
            self._selector.register(self._tie, selectors.EVENT_READ)
        self._state.keeper = process.record_of("keeper", os.getpid())
        self._state.save(self._directory)
        while not self._ending:
            for key, _ in self._selector.select():
                if key.fd == wake_read:
                    os.read(wake_read, 4096)
                elif key.fd == self._tie:
                    self._ending = True  # the caller never writes: readable means that it is gone
                else:
                    self._serve(server)
            self._reap()
        self._end()

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _serve(self, server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as stream:
            connection.settimeout(10)
            try:
                request = json.loads(stream.readline())
                answer = self._answer(request)
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            try:
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
            except OSError:
                return  # the caller went away while it was answered

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self._reap()
        match request["op"]:
            case "spawn":
                return self._spawn(request)
            case "exit":
                return {"code": self._state.exits.get(request["name"])}
            case "ping":
                pass
            case "note":
                self._note(request["key"], request["value"])
            case "down":
                self._ending = True
            case other:
                raise ValueError(f"unknown request {other!r}")
        return {}

    def _note(self, key: str, value: dict[str, Any] | None) -> None:
        if value is None:
            self._state.notes.pop(key, None)
        else:
            self._state.notes[key] = value
        self._state.save(self._directory)

    def _spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["name"]
        with Path(request["log"]).open("ab") as log:
            child = subprocess.Popen(
                request["argv"],
                env=request["env"],
                cwd=request["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_child_setup,  # noqa: PLW1509 - single-threaded
            )
        start = process.start_time(child.pid) or 0  # 0: ended already, _reap notes how
        record = process.ProcessRecord(name, child.pid, start)
        self._children[child.pid] = child
        self._names[child.pid] = name
        self._state.exits.pop(name, None)
        self._state.processes[name] = record
        self._state.save(self._directory)
        return {"pid": record.pid, "start": record.start}

    def _reap(self) -> None:
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            name = self._names.pop(pid, None)
            child = self._children.pop(pid, None)
            if child is not None:
                child.returncode = os.waitstatus_to_exitcode(status)
            if name is not None and self._state.processes[name].pid == pid:
                del self._state.processes[name]
                self._state.exits[name] = os.waitstatus_to_exitcode(status)
                changed = True
        if changed:
            self._state.save(self._directory)

    def _end(self) -> None:
        """Kill all descendants (stopped and daemonized ones too) until none is left, remove the directory."""
        deadline = time.monotonic() + _END_SECONDS
        own = os.getpid()
        while below := process.descendants(own):
            for pid in below:  # all are ours until reaped below: their PIDs cannot be re-used meanwhile
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise TimeoutError(f"still running after SIGKILL: {below}")
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
            self._reap()
        if self._state.remove_directory:
            shutil.rmtree(self._directory)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """A handler must exist for the wake-up descriptor to be written."""


def main() -> None:
    """`python -m lab.keeper DIRECTORY [--tie FD]`: started by lab.session only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tie", type=int)
    arguments = parser.parse_args()
    Keeper(arguments.directory, arguments.tie).run()


if __name__ == "__main__":
    main()
