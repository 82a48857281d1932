"""Many machines at once: points of all of them applied together, and all deleted together.

Beside it runs a bare loop that makes the same number of points with as many threads as the controller has for
one hypervisor. Points of one disk that are pending together share one boundary, so the controller needs fewer
libvirt calls than there are points; the loop is measured with a call for each point, and with a call for each
machine, which is the least that anybody could make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bench.bare import Bare
from bench.life import written
from bench.stage import NOW, Stage
from lab import Machine

T = TypeVar("T")

CONCURRENCY = 3
"""Calls to the domains of one hypervisor that the controller has under way at most."""

_CLIENTS = 8
"""Connections that apply and delete at once."""

LIMIT = 1.2
"""Of the bare loop that makes a call for each point."""


@dataclass(frozen=True)
class Crowd:
    """What it took, in seconds from the first request until the last object was there, or gone."""

    machines: int
    points: int
    """Of each machine."""
    ready_seconds: float
    gone_seconds: float
    call_per_point_seconds: float
    call_per_machine_seconds: float
    boundaries: int
    """New layers that the points came to."""
    writes_per_point: float
    """Writes of the controller to the API until all were Ready."""

    @property
    def ratio(self) -> float:
        """All Ready, against the bare loop with a call for each point."""
        return self.ready_seconds / self.call_per_point_seconds

    @property
    def met(self) -> bool:
        """Whether the budget is met."""
        return self.ratio <= LIMIT


def crowd(stage: Stage, machines: int, points: int) -> Crowd:
    """Apply ``points`` points of each of so many machines at once, and delete them all again."""
    ours = [stage.machine(f"crowd-{number}") for number in range(machines)]
    names = [(f"crowd-{number}-{at}", machine) for at in range(points) for number, machine in enumerate(ours)]
    per_point = _bare_loop(stage, ours, points)
    per_machine = _bare_loop(stage, ours, 1)
    before = sum(written(stage).values())
    began = time.monotonic()
    _at_once(
        partial(stage.snapshots.apply, name, machine.name, volumeSnapshotClassName=NOW)
        for name, machine in names
    )
    ready = max(stage.snapshots.until_ready(name) for name, _ in names) - began
    writes = sum(written(stage).values()) - before
    boundaries = sum(len(machine.chain()) - 1 for machine in ours)
    began = time.monotonic()
    _at_once(partial(stage.snapshots.delete, name) for name, _ in names)
    gone = max(stage.snapshots.until_gone(name) for name, _ in names) - began
    for machine in ours:
        machine.remove()
    return Crowd(machines, points, ready, gone, per_point, per_machine, boundaries, writes / len(names))


def _bare_loop(stage: Stage, machines: list[Machine], points: int) -> float:
    """Seconds for ``points`` bare takes of each machine; merges them again afterwards."""
    connections = [Bare(stage.host, stage.lab.access) for _ in range(CONCURRENCY)]

    def work(thread: int) -> None:
        for machine in machines[thread::CONCURRENCY]:
            for number in range(points):
                connections[thread].take(machine, f"bare-{machine.name}-{number}")

    began = time.monotonic()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for _ in pool.map(work, range(CONCURRENCY)):
            pass
    seconds = time.monotonic() - began
    for machine in machines:
        for _ in range(points):
            stage.bare.merge(machine, 0)
    for connection in connections:
        connection.close()
    return seconds


def _at_once(acts: Iterable[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        return [one.result() for one in [pool.submit(act) for act in acts]]
