"""The lab by hand."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import process
from lab.lab import Lab
from lab.state import LabState

pytestmark = pytest.mark.real


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    repository = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
        cwd=repository,
    )


def test_up_status_env_and_down_after_kill_9(short_path: Path) -> None:
    directory = short_path / "lab"
    where = f"--dir={directory}"
    assert run("status", where).returncode == 3
    up = run("up", where, "--no-control-plane", "--machines", "--storage=nbd")
    assert up.returncode == 0, up.stderr
    assert run("status", where).returncode == 0
    assert run("up", where).returncode == 1  # refused: it runs

    lines = [shlex.split(line) for line in run("env", where).stdout.splitlines()]
    exported = dict(words[1].split("=", 1) for words in lines)
    assert exported["VARVE_LAB_URI_HOST_A"].startswith("qemu+unix:///system?socket=")
    assert exported["VARVE_LAB_NBD_SPARE_1"].startswith("nbd://127.0.0.1:")

    state = LabState.load(directory)
    guests = [machine.qemu() for machine in Lab.attach(directory).host("a").machines()]
    assert len(guests) == 2
    assert state.keeper is not None
    process.send_signal(state.keeper, signal.SIGKILL)
    assert process.wait_gone(state.keeper, 10)
    assert run("status", where).returncode == 1
    assert run("env", where).returncode == 1
    assert all(guest is not None and process.is_alive(guest) for guest in guests)  # orphans: QEMU is a daemon

    down = run("down", where)
    assert down.returncode == 0, down.stderr
    assert not any(guest is not None and process.is_alive(guest) for guest in guests)
    assert not any(process.is_alive(record) for record in state.processes.values())
    assert not directory.exists()
    assert run("down", where).returncode == 0


def test_unknown_storage_is_refused() -> None:
    answer = run("up", "--storage=floppy")
    assert answer.returncode == 2
    assert "there are: gluster, nbd, " in answer.stderr
