"""The controller's loop around the pure core: plan, check, apply, until there is nothing left to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from controller.chain.circumstances import Circumstances
from controller.chain.desired import Memory, Want
from controller.chain.journal import Owner
from controller.chain.plan import Plan, State
from controller.chain.planner import plan
from controller.chain.steps import Step
from tests.chain.builders import NOW
from tests.chain.model import Fault, Machine, Refused

MOST_ROUNDS = 300


@dataclass
class Loop:
    """Runs the planner against a :class:`Machine` until it rests, checking each plan on the way."""

    machine: Machine
    wants: list[Want]
    now: datetime = NOW
    faults: Iterator[Fault] = field(default_factory=lambda: iter(()))
    steps: list[Step] = field(default_factory=list)
    released: list[Want] = field(default_factory=list)
    """Objects that were told to be gone."""
    kept_images: dict[str, datetime] = field(default_factory=dict)
    """Images that could not be removed because somebody uses them: tried again much later."""
    held: set[Owner] = field(default_factory=set)
    """Objects that were told that their point is there."""
    steady: bool = True
    """Nobody takes points away by hand: what was held once is held until its deletion."""
    rounds: int = 0

    def plan(self) -> Plan:
        """Plan now. The same arguments give the same plan, whatever the order of the wants."""
        observation, circumstances = (
            self.machine.observe(),
            Circumstances(now=self.now, discard_holds=self.kept_images),
        )
        found = plan(observation, self.wants, circumstances)
        if found.wants_opened:
            observation = self.machine.observe(asked=True)
            return plan(observation, self.wants, circumstances)
        assert plan(self.machine.observe(), list(reversed(self.wants)), circumstances) == found
        return found

    def run(self, between: Callable[[], None] = lambda: None) -> Plan:
        """Go on until nothing is left to do; ``between`` is called after each step."""
        while True:
            self.rounds += 1
            assert self.rounds < MOST_ROUNDS, "the loop does not come to rest"
            found = self.plan()
            self._check(found)
            self._release(found)
            if found.steps:
                guest = self.machine.content()
                for step in found.steps:
                    self.steps.append(step)
                    self._apply(step)
                assert self.machine.content() == guest, "the guest's content changed"
                between()
            elif self.machine.job is not None:
                if next(self.faults, Fault.NONE) is Fault.JOB_LOST:
                    self.machine.lose_job()
                else:
                    self.machine.advance()
            elif found.wake_at is not None:
                assert found.wake_at > self.now
                self.now = found.wake_at
            else:
                return found

    def _apply(self, step: Step) -> None:
        try:
            self.machine.apply(step, next(self.faults, Fault.NONE))
        except Refused as refused:
            self.kept_images[str(refused)] = datetime.max.replace(tzinfo=UTC)

    def _check(self, found: Plan) -> None:
        """At any moment: one step per disk at most, and what is called held reads as when it was taken."""
        assert len(found.steps) <= 1
        assert [standing.want for standing in found.standings] == sorted(
            self.wants, key=lambda want: want.owner
        )
        for standing in found.standings:
            owner = standing.want.owner
            if standing.state is not State.HELD:
                gone = self.steady and owner in self.held and not standing.want.deleting
                assert not gone, f"the point of {owner.name} is suddenly {standing.state}"
                continue
            self.held.add(owner)
            assert standing.point is not None
            assert standing.frozen is not None
            position = self.machine.chain.index(standing.frozen.key)
            if owner in self.machine.moments:
                taken = self.machine.moments[owner]
                assert self.machine.content(position) == taken, f"the point of {owner.name} changed"

    def _release(self, found: Plan) -> None:
        """What the reporter does: remember points in the status, let objects go whose work is done."""
        points = {standing.want.owner: standing.point for standing in found.standings}
        gone = {standing.want.owner for standing in found.standings if standing.state is State.GONE}
        self.released += [want for want in self.wants if want.owner in gone]
        self.wants = [
            replace(want, memory=Memory(point.taken)) if (point := points[want.owner]) else want
            for want in self.wants
            if want.owner not in gone
        ]

    def delete(self, names: Iterable[str]) -> None:
        """Ask for the deletion of these objects now."""
        chosen = set(names)
        self.wants = [
            replace(want, deleted_at=self.now) if want.owner.name in chosen and not want.deleting else want
            for want in self.wants
        ]

    def state(self, name: str) -> State:
        """Where the object stands now."""
        return next(one.state for one in self.plan().standings if one.want.owner.name == name)
