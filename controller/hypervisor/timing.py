"""How long a libvirt daemon is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Deadlines in seconds. A call that passes its deadline is given up, not repeated."""

    connect: float = 10
    read: float = 10
    definition: float = 2
    """For each machine's definition when those of all are read: longer takes only one that hangs."""
    sweep: float = 60
    """For reading every domain of the hypervisor."""
    change: float = 60
    close: float = 5
    keepalive_interval: int = 5
    keepalive_count: int = 3


DEFAULT_TIMING = Timing()
