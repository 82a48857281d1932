"""Processes known by PID and start time, so that a PID used again by someone else is never signalled."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from lab.deadline import wait_until

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process: `start` is field 22 of /proc/PID/stat (clock ticks since boot, see proc(5))."""

    name: str
    pid: int
    start: int


def boot_id() -> str:
    """The kernel's identity of this boot: start times of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name (the name may hold blanks and brackets)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """Start time of `pid` in clock ticks since boot, None if there is no such process or only its zombie.

    A process of several threads can show the state of a zombie while others of its threads are still about to
    end, with its sockets open: it is there until the last one is gone (field 20 counts them).
    """
    fields = _stat_fields(pid)
    if fields is None or fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1):
        return None
    return int(fields[19])


def record_of(name: str, pid: int) -> ProcessRecord | None:
    """The record of a running process, None if it is gone."""
    start = start_time(pid)
    return None if start is None else ProcessRecord(name, pid, start)


def is_alive(record: ProcessRecord) -> bool:
    """Whether this very process runs (a zombie or another process with its PID does not count)."""
    return start_time(record.pid) == record.start


def _open(record: ProcessRecord) -> int | None:
    """A pidfd of this very process.

    Checked after opening: from then on the PID cannot be re-used behind it.
    """
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    if is_alive(record):
        return fd
    os.close(fd)
    return None


def send_signal(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal this very process. False if it is gone (also when its PID belongs to another process now).

    After SIGSTOP it returns when every thread stands still: the kernel stops them one after the other, and
    one that runs on another processor may still answer until then (seen with a brick of gluster). Raises
    LabError when they do not.
    """
    fd = _open(record)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        if number is signal.SIGSTOP:
            wait_until(
                lambda: not is_alive(record) or _stands_still(record.pid),
                timeout=_STOP_SECONDS,
                what=f"{record.name} standing still after SIGSTOP",
                interval=0.001,
            )
            return is_alive(record)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _stands_still(pid: int) -> bool:
    """Whether every thread is stopped (T) or has ended; also when the process has."""
    states = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has just ended
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread has
                text = (thread / "stat").read_text(encoding="utf-8", errors="replace")
                states.append(text.rpartition(")")[2].split()[0])
    return set(states) <= {"T", "Z", "X"}


def wait_gone(record: ProcessRecord, timeout: float) -> bool:
    """Wait at most `timeout` seconds for the process to end (need not be a child). True if it has."""
    fd = _open(record)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)


def children_by_parent() -> dict[int, list[int]]:
    """PIDs of all processes by the PID of their parent, zombies included."""
    tree: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only, thousands of them
        if entry.isdigit():
            fields = _stat_fields(int(entry))
            if fields is not None:
                tree.setdefault(int(fields[1]), []).append(int(entry))
    return tree


def descendants(pid: int) -> list[int]:
    """PIDs of all processes below `pid`, parents before children."""
    tree = children_by_parent()
    found: list[int] = []
    todo = [pid]
    while todo:
        below = tree.get(todo.pop(), [])
        found.extend(below)
        todo.extend(below)
    return found
