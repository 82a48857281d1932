"""What the planner must know besides the domain and the wishes: the clock, and what else goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.chain.guards import Blocked


@dataclass(frozen=True)
class Hold:
    """A failure that is waited out."""

    until: datetime
    blocked: Blocked


@dataclass(frozen=True)
class Circumstances:
    """Facts of the moment that a plan depends on."""

    now: datetime
    merge_slots: int = 1_000_000
    """How many more merges may run on this hypervisor now."""
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """By target: what failed, and when to try again."""
    pulls_last: bool = False
    """Pull only where no commit is allowed, whatever it would save: this QEMU is not known to survive it."""
    split_takes: bool = False
    """Take disk by disk, after a transaction over several disks failed."""
    discard_tries: Mapping[str, int] = field(default_factory=dict)
    """By image identity: how often removing it has failed."""
    discard_holds: Mapping[str, datetime] = field(default_factory=dict)
    """By image identity: not before when to try again to remove it."""
