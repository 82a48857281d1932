"""What the planner must know besides the domain and the wishes: the clock, and what else goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.chain.blocked import Blocked
from controller.chain.consent import Approval
from controller.chain.convergence import Progress
from controller.chain.gate import UNKNOWN, Gate
from controller.chain.journal import Owner
from controller.chain.observation import JobKind


@dataclass(frozen=True)
class Hold:
    """A failure that is waited out."""

    until: datetime
    blocked: Blocked


@dataclass(frozen=True)
class Circumstances:
    """Facts of the moment that a plan depends on."""

    now: datetime
    gate: Gate = UNKNOWN
    """The known faults of the hypervisor."""
    merge_slots: int = 1_000_000
    """How many more merges may run on this hypervisor now."""
    holds: Mapping[Owner | str, Hold] = field(default_factory=dict)
    """By VolumeSnapshot: what failed for it, and when to try again; what is due stays until it has worked. By
    target what failed for nobody in particular, and holds up the whole disk."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """By target: how near the active commit that runs came to its end."""
    commit_holds: Mapping[str, Hold] = field(default_factory=dict)
    """By target: an active commit that was given up, and when to try again."""
    full: Mapping[str, Hold] = field(default_factory=dict)
    """By image identity: a commit into it has failed again and again, and when to try again."""
    pulls_last: bool = False
    """Pull only where no commit is allowed, whatever it would save: this QEMU is not known to survive it."""
    split_takes: bool = False
    """Take disk by disk, after a transaction over several disks failed."""
    discard_tries: Mapping[str, int] = field(default_factory=dict)
    """By image identity: how often removing it has failed."""
    discard_holds: Mapping[str, datetime] = field(default_factory=dict)
    """By image identity: not before when to try again to remove it."""
    distrusted: frozenset[tuple[str, str]] = frozenset()
    """UIDs of objects, each with the footprint of a place where QEMU has opened something else for it than
    was verified there."""
    approvals: Mapping[str, tuple[Approval, ...]] = field(default_factory=dict)
    """By target: what the VolumeChains of each namespace say about its merges."""
    adopts_drift: frozenset[str] = frozenset()
    """Targets whose chain is taken as somebody else left it."""
    witnessed: Mapping[str, frozenset[JobKind]] = field(default_factory=dict)
    """By target: kinds of the jobs of others that were seen since the chain was as known."""
    judged_at: Mapping[str, datetime] = field(default_factory=dict)
    """By target: not before when to conclude something from layers that are gone, if no job was seen: the
    event of its end may be on its way."""

    def held(self, subjects: Iterable[Owner | str]) -> Hold | None:
        """The failure of one of these that is still waited out, the one that is waited out longest."""
        found = [self.holds[one] for one in subjects if one in self.holds]
        return max(
            (hold for hold in found if hold.until > self.now), key=lambda hold: hold.until, default=None
        )
