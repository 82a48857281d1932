"""What the controller costs while nothing is to be done, and how long it takes to be of use after a start.

The objects are real ones on real machines. Points of one disk that are pending together share one boundary,
and those that are applied while no controller runs are; so a few machines carry any number of
VolumeSnapshots.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.life import written
from bench.stage import NOW, Stage

_CLIENTS = 8
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Idle:
    """Cost of so many VolumeSnapshots at rest."""

    snapshots: int
    machines: int
    backlog_seconds: float
    """From the start of the process until all points, applied before it, were Ready."""
    ready_seconds: float
    """Cold start: from the start of the process until /readyz said yes."""
    first_point_seconds: float
    """Cold start: from the start of the process until a point that waited for it was Ready."""
    window_seconds: float
    resync_seconds: float
    """The period of the resync in the window: about one of them falls into it."""
    writes: float
    """To the API in the window, the Lease apart."""
    cpu_seconds: float
    resident_bytes: int

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_seconds / self.window_seconds


def idle(stage: Stage, snapshots: int, machines: int, window: float) -> Idle:
    """Make so many VolumeSnapshots, start the controller anew, and watch it rest for ``window`` seconds.

    The resync, which by default comes every 300 s, comes once per window here, so the share of a core that is
    found is an upper bound when the window is shorter than that.
    """
    ours = [stage.machine(f"idle-{number}") for number in range(machines)]
    names = [f"idle-{number}" for number in range(snapshots)]
    stage.controller.stop()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        sent = [
            pool.submit(stage.snapshots.apply, name, ours[at % machines].name, volumeSnapshotClassName=NOW)
            for at, name in enumerate(names)
        ]
    for one in sent:
        one.result()
    began = time.monotonic()
    stage.controller.start(timeout=120)
    backlog = max(stage.snapshots.until_ready(name) for name in names) - began
    stage.controller.stop()
    stage.snapshots.apply("idle-late", ours[0].name, volumeSnapshotClassName=NOW)
    began = time.monotonic()
    stage.controller.start(f"--resync-seconds={window:g}", timeout=120)
    ready = time.monotonic() - began
    late = stage.snapshots.until_ready("idle-late") - began
    before, cpu = _quiet(stage), _cpu_seconds(stage.controller.pid)
    threading.Event().wait(window)
    after = sum(written(stage).values())
    return Idle(
        snapshots=snapshots + 1,
        machines=machines,
        backlog_seconds=backlog,
        ready_seconds=ready,
        first_point_seconds=late,
        window_seconds=window,
        resync_seconds=window,
        writes=after - before,
        cpu_seconds=_cpu_seconds(stage.controller.pid) - cpu,
        resident_bytes=_resident_bytes(stage.controller.pid),
    )


def _quiet(stage: Stage) -> float:
    """Wait until the controller has written nothing for ten seconds, because VolumeChains are told some
    seconds after the rest; returns its writes so far."""
    pause, before = threading.Event(), -1.0
    while (now := sum(written(stage).values())) != before:
        before = now
        pause.wait(10.0)
    return now


def _cpu_seconds(pid: int) -> float:
    """User and system time of the process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
