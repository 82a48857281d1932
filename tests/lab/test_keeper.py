"""Everything a lab started ends with it, whoever dies first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import process
from lab.deadline import wait_until
from lab.errors import LabError
from lab.process import ProcessRecord
from lab.session import Session
from lab.state import LabState
from lab.sweep import sweep

pytestmark = pytest.mark.real

# A program that leaves a daemon behind: its child in a session of its own, whose PID nobody was told.
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
CRASHING_CALLER = """
import os, signal, sys
from pathlib import Path
from lab.session import Session
session = Session.start(Path(sys.argv[1]), detached=False)
record = session.spawn("sleeper", ["sleep", "600"], log=session.directory / "log")
print(record.pid, session.state().keeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def spawn_daemon(session: Session) -> ProcessRecord:
    pid_file = session.directory / "daemon.pid"
    argv = [sys.executable, "-c", DAEMON, str(pid_file)]
    session.spawn("daemon", argv, log=session.directory / "log")
    wait_until(pid_file.exists, timeout=10, what="the daemon")
    record = process.record_of("daemon", int(pid_file.read_text()))
    assert record is not None
    return record


def test_the_end_ends_children_daemons_and_stopped_ones(short_path: Path) -> None:
    session = Session.start(short_path / "lab", detached=False)
    child = session.spawn("sleeper", ["sleep", "600"], log=session.directory / "log")
    stopped = session.spawn("stopped", ["sleep", "600"], log=session.directory / "log")
    process.send_signal(stopped, signal.SIGSTOP)
    daemon = spawn_daemon(session)
    session.end()
    assert not any(process.is_alive(record) for record in (child, stopped, daemon))
    assert not (short_path / "lab").exists()


def test_a_killed_caller_takes_its_lab_along(short_path: Path) -> None:
    directory = short_path / "lab"
    caller = subprocess.run(
        [sys.executable, "-c", CRASHING_CALLER, str(directory)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert caller.returncode == -signal.SIGKILL, caller.stderr
    pids = [int(word) for word in caller.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not directory.exists(), timeout=20, what="the end of the lab")
    wait_until(lambda: all(process.start_time(pid) is None for pid in pids), timeout=10, what="the processes")


def test_after_the_keeper_is_killed_nothing_is_left(short_path: Path) -> None:
    session = Session.start(short_path / "lab", detached=True)
    child = session.spawn("sleeper", ["sleep", "600"], log=session.directory / "log")
    keeper = session.state().keeper
    assert keeper is not None
    process.send_signal(keeper, signal.SIGKILL)
    assert process.wait_gone(child, 10)
    with pytest.raises(LabError, match="does not run any more"):
        Session.attach(short_path / "lab")
    session.end()
    assert not (short_path / "lab").exists()


def test_the_sweep_spares_a_process_that_reuses_a_recorded_pid(short_path: Path) -> None:
    """The PID of this very process, with the start time of another."""
    directory = short_path / "lab"
    directory.mkdir()
    own = process.record_of("etcd", os.getpid())
    assert own is not None
    LabState(processes={"etcd": ProcessRecord("etcd", own.pid, own.start - 1)}).save(directory)
    assert sweep(directory) == []
    assert not directory.exists()


def test_the_end_of_a_process_is_noted_with_its_code(short_path: Path) -> None:
    session = Session.start(short_path / "lab", detached=False)
    log = session.directory / "log"
    session.spawn("failing", [sys.executable, "-c", "print('why'); raise SystemExit(7)"], log=log)
    wait_until(lambda: session.exit_code("failing") == 7, timeout=10, what="the exit code")
    assert "failing ended with 7" in (session.why_gone("failing", log) or "")
    assert "why" in (session.why_gone("failing", log) or "")
    with pytest.raises(LabError, match="No such file"):
        session.spawn("missing", ["/no/such/program"], log=log)
    session.end()


def test_a_directory_with_other_things_in_it_is_left_alone(short_path: Path) -> None:
    (short_path / "precious").touch()
    with pytest.raises(LabError, match="neither empty nor a lab"):
        Session.start(short_path, detached=False)
    assert (short_path / "precious").exists()


def test_a_second_lab_in_the_same_directory_is_refused(short_path: Path) -> None:
    session = Session.start(short_path / "lab", detached=False)
    with pytest.raises(LabError, match=r"runs in .* already"):
        Session.start(short_path / "lab", detached=False)
    session.end()
