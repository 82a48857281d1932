"""Ending what a lab left behind when its keeper was killed: by what was written down, never by name."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from lab import process
from lab.errors import LabError
from lab.process import ProcessRecord
from lab.state import STATE_NAME, LabState

_END_SECONDS = 10.0

# The system directory that lab.namespace covers for each kind of server, and where in a lab its stand-ins
# are.
PRIVATE_TARGETS = {"/run/libvirt": "hosts/*/run", "/run/gluster": "storage/gluster/run"}


def _private_directories(directory: Path) -> dict[str, list[os.stat_result]]:
    """System directories that parts of this lab have covered by their own, and what each was covered with."""
    return {
        target: [source.stat() for source in directory.glob(pattern)]
        for target, pattern in PRIVATE_TARGETS.items()
    }


def _in_lab_namespace(private: dict[str, list[os.stat_result]], pid: int) -> bool:
    """Whether `pid` lives in a mount namespace of this lab: it sees a directory of the lab in a system one's
    place.

    That is how a daemon whose PID nobody wrote down (a QEMU, a gluster brick) is told from another lab's.
    """
    for target, sources in private.items():
        try:
            seen = os.stat(f"/proc/{pid}/root{target}")  # noqa: PTH116 - pathlib would resolve the magic link
        except OSError:
            continue  # the process is gone, or the directory does not exist there
        if any(os.path.samestat(seen, source) for source in sources):
            return True
    return False


def leftovers(directory: Path) -> list[ProcessRecord]:
    """All processes of the lab in `directory` that still run."""
    found = {record.pid: record for record in LabState.load(directory).alive()}
    private = _private_directories(directory)
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only, thousands of them
        if entry.isdigit() and int(entry) not in found and _in_lab_namespace(private, int(entry)):
            record = process.record_of("adopted", int(entry))
            if record is not None:
                found[record.pid] = record
    return list(found.values())


def sweep(directory: Path) -> list[ProcessRecord]:
    """Kill every leftover and remove the directory.

    Returns what was killed. Raises LabError if some survive.
    """
    if not (directory / STATE_NAME).exists():
        return []
    killed: dict[int, ProcessRecord] = {}
    deadline = time.monotonic() + _END_SECONDS
    while remaining := leftovers(directory):
        if time.monotonic() > deadline:
            raise LabError(f"still running after SIGKILL: {remaining}")
        for record in remaining:
            process.send_signal(record, signal.SIGKILL)
            killed[record.pid] = record
        for record in remaining:
            process.wait_gone(record, 2)
    if LabState.load(directory).remove_directory:
        shutil.rmtree(directory)
    return list(killed.values())
