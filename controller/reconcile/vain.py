"""Steps of a pass that came to nothing. They are planned anew at once, because most often somebody has just
changed something; but not for ever: what stays so would be tried thousands of times a second."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.chain.disk import Disk
from controller.chain.journal import Owner
from controller.chain.observation import Observation
from controller.chain.plan import Plan
from controller.chain.steps import StartMerge, Step, Take, targets_of

_MOST = 3
"""In one pass, before the step is waited for."""


@dataclass
class Vain:
    """For one pass."""

    _count: int = 0
    _before: object = field(default=None)
    """What was done in the round before, and how the domain looked then."""

    def happened(self) -> bool:
        """A step came to nothing. True when that is once too often."""
        self._before = None  # nothing was done
        self._count += 1
        return self._count >= _MOST

    def repeats(self, observation: Observation, plan: Plan) -> bool:
        """True when the same is about to be done once too often, and the domain looks as it did before."""
        steps = tuple((type(step), targets_of(step), _owners(step)) for step in plan.steps)
        before, now = self._before, (steps, _look(observation))
        if before == now and self.happened():
            return True
        self._before = now
        return False


def _owners(step: Step) -> tuple[Owner, ...]:
    """Whom a step is for: what came to nothing for one says nothing of the same for another."""
    if isinstance(step, Take):
        return tuple(owner for one in step.disks for owner in one.operation.owners)
    return step.operation.owners if isinstance(step, StartMerge) else ()


def _look(observation: Observation) -> object:
    """What a step changes. Sizes and the progress of jobs change by themselves."""
    disks = (
        (facts.target, _chain(facts.live), _chain(facts.inactive), facts.job.kind if facts.job else None)
        for facts in observation.disks.values()
    )
    return observation.state, observation.journal, tuple(disks)


def _chain(disk: Disk | None) -> object:
    return None if disk is None else (disk.keys, disk.mirror, disk.end)
