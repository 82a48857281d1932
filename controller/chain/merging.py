"""Merging: which job takes away what nobody wants any more on one disk, and what that waits for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances, Hold
from controller.chain.consent import asked
from controller.chain.cost import Choice, Range, choices
from controller.chain.desired import Direction, Policy, Want
from controller.chain.disk import Disk
from controller.chain.division import Division, divide
from controller.chain.journal import DiskJournal, Operation, OperationKind, Owner, Point
from controller.chain.merge_guards import MergeCase, merge_verdict
from controller.chain.observation import DiskFacts, Observation
from controller.chain.plan import DiskPlan
from controller.chain.ranges import owners_in, ranges
from controller.chain.remembered import forgotten
from controller.chain.steps import StartMerge
from controller.chain.strangers import at_once, has_strangers, is_strange


@dataclass(frozen=True)
class Agreed:
    """One merge of a plan that somebody can agree to, and what it waits for at this moment."""

    choice: Choice
    blocked: Blocked | None


@dataclass(frozen=True)
class Merging:
    """One disk with a record and no operation."""

    observation: Observation
    facts: DiskFacts
    chain: Disk
    record: DiskJournal
    wants: tuple[Want, ...]
    circumstances: Circumstances

    def plan(self, waiting: DiskPlan | None) -> DiskPlan:
        """The next merge, the lowest first; ``waiting`` is the answer when none may begin now."""
        spans = ranges(self.chain, self.record, self.wants)
        if not spans:
            return DiskPlan(self.facts.target)
        if waiting is not None:
            return waiting
        verdicts = [self._told(span, self._range(span)) for span in self._apart(spans)]
        if len(verdicts) == 1:
            return verdicts[0]
        ready = next((found for found in verdicts if found.step is not None or found.wants_usage), None)
        never = datetime.max.replace(tzinfo=self.circumstances.now.tzinfo)
        chosen = ready or min(verdicts, key=lambda found: found.wake_at or never)
        return replace(chosen, staying={o: why for one in verdicts for o, why in one.staying.items()})

    def terms(self, span: Range) -> tuple[tuple[Want, ...], Policy]:
        """Whose deletions the range serves, and the policy that holds for it."""
        owners = owners_in(self.chain, self.record, span)
        wants = tuple(want for want in self.wants if want.owner in owners)
        # What one object's class protects is protected from the deletions of all, and from boundaries that
        # nobody owns.
        protected = Policy.strictest(want.policy for want in self.wants).protected
        policy = Policy.strictest(want.policy for want in wants)
        if has_strangers(span, self.chain, self.record):
            policy = at_once(policy)
        return wants, policy if policy.protected == protected else replace(policy, protected=protected)

    def _apart(self, spans: tuple[Range, ...]) -> tuple[Range, ...]:
        """The ranges to merge, those last that failed before, each apart from its neighbours that did not:
        what is the matter may be an image of somebody else. What was agreed to goes as it was agreed to. A
        stranger goes first, and alone."""

        def strange(point: Point) -> bool:
            return is_strange(point, self.record)

        if urgent := ranges(self.chain, self.record, self.wants, only=strange):
            others = ranges(self.chain, self.record, self.wants, only=lambda point: not strange(point))
            return (*urgent, *others)
        holds = self.circumstances.holds
        if self._is_asked_for:
            return spans

        def failed(point: Point) -> bool:
            return any(owner in holds for owner in point.owners)

        fresh = ranges(self.chain, self.record, self.wants, only=lambda point: not failed(point))
        return (*fresh, *ranges(self.chain, self.record, self.wants, only=failed))

    def _told(self, span: Range, found: DiskPlan) -> DiskPlan:
        """What a range waits for is said to those whose boundaries lie in it, and to nobody else."""
        if found.blocked is None:
            return found
        held = self.circumstances.held
        owners = {
            owner: hold.blocked if (hold := held([owner])) is not None else found.blocked
            for owner in owners_in(self.chain, self.record, span)
        }
        return replace(found, staying={**owners, **found.staying})

    def _range(self, span: Range) -> DiskPlan:
        wants, policy = self.terms(span)
        hold = self.circumstances.held(want.owner for want in wants)
        if hold is not None:
            return replace(self._waiting(hold.blocked), wake_at=hold.until)
        deleted = max((want.deleted_at for want in wants if want.deleted_at), default=self.circumstances.now)
        due = deleted + timedelta(seconds=policy.settle_seconds)
        if due > self.circumstances.now:
            text = f"waiting {policy.settle_seconds} s for other deletions to share the merge"
            return replace(self._waiting(Blocked(Why.SETTLING, text)), wake_at=due)
        if self.circumstances.merge_slots <= 0:
            text = "as many merges run on this hypervisor as maxConcurrentPerHypervisor allows"
            return self._waiting(Blocked(Why.QUEUED, text))
        if self.observation.in_use_elsewhere is None:
            spare = Policy.strictest(want.policy for want in self.wants).min_free
            return DiskPlan(self.facts.target, wants_usage=True, merging=True, spare=spare)
        return self._divided(span, policy, wants)

    def division(
        self, span: Range, policy: Policy, wants: tuple[Want, ...], *, lasting: bool = False
    ) -> Division:
        """As much of the range as may go, and what is against the rest; with ``lasting`` as if all that
        passes by itself were over."""

        def ways(part: Range) -> list[Choice]:
            if policy.direction is Direction.PULL and span.top == 0 and part.top > 0:
                return []  # up where libvirt can: what cannot be pulled now is not committed instead
            pulls_last = self.circumstances.pulls_last
            return choices(part, self.facts, self.chain, policy.direction, pulls_last=pulls_last)

        def verdict(choice: Choice) -> Blocked | None:
            return self._verdict(choice, policy, wants, lasting=lasting)

        return divide(span, ways, verdict)

    def agreed(self, span: Range, policy: Policy, wants: tuple[Want, ...]) -> tuple[Division, list[Agreed]]:
        """What somebody can agree to: how the range goes once all that passes by itself is over, and what is
        against each of its parts at this moment."""
        found = self.division(span, policy, wants, lasting=True)
        parts = [Agreed(choice, self._verdict(choice, policy, wants)) for choice in found.choices]
        return found, parts

    def _verdict(
        self, choice: Choice, policy: Policy, wants: tuple[Want, ...], *, lasting: bool = False
    ) -> Blocked | None:
        hold = None if lasting else self._commit_hold
        if hold is not None and choice.first is OperationKind.ACTIVE_COMMIT:
            return hold.blocked
        full = None if lasting else self._full_hold(choice)
        if full is not None:
            return full.blocked
        obstacle = forgotten(choice.span, self.chain, self.record, self.wants)
        if obstacle is not None:
            return obstacle
        gate = self.circumstances.gate
        case = MergeCase(self.observation, self.facts, self.chain, choice, policy, wants, gate)
        return merge_verdict(case, lasting=lasting)

    def _divided(self, span: Range, policy: Policy, wants: tuple[Want, ...]) -> DiskPlan:
        """The first part that may go; the boundaries that may not say why to those who want them gone."""
        found = self._allowed(span, policy, wants)
        staying: dict[Owner, Blocked] = {}
        for position, why in found.staying.items():
            boundary = Range(position, position + 1)
            staying |= dict.fromkeys(owners_in(self.chain, self.record, boundary), why)
        if found.choices:
            step = self._start(found.choices[0], policy)
            return DiskPlan(self.facts.target, step=step, staying=staying)
        hold = self._commit_hold
        waiting = replace(self._waiting(next(iter(found.staying.values()))), staying=staying)
        return waiting if hold is None else replace(waiting, wake_at=hold.until)

    def _allowed(self, span: Range, policy: Policy, wants: tuple[Want, ...]) -> Division:
        """What may begin now. Where somebody has to agree, only what was agreed to: it waits for what passes
        by itself, and no other way is taken meanwhile."""
        if not self._is_asked_for:
            return self.division(span, policy, wants)
        found, parts = self.agreed(span, policy, wants)
        staying = dict(found.staying)
        for part in parts:
            if part.blocked is not None:
                staying |= dict.fromkeys(range(part.choice.span.top, part.choice.span.bottom), part.blocked)
        return Division(tuple(part.choice for part in parts if part.blocked is None), staying)

    @property
    def _is_asked_for(self) -> bool:
        """Somebody has to agree to the merges of this disk."""
        return bool(asked(self.circumstances.approvals, self.facts.target, self.wants))

    @property
    def _commit_hold(self) -> Hold | None:
        hold = self.circumstances.commit_holds.get(self.facts.target)
        return hold if hold is not None and hold.until > self.circumstances.now else None

    def _full_hold(self, choice: Choice) -> Hold | None:
        if choice.first is OperationKind.PULL:
            return None
        hold = self.circumstances.full.get(self.chain.layers[choice.kept].key)
        return hold if hold is not None and hold.until > self.circumstances.now else None

    def _start(self, choice: Choice, policy: Policy) -> StartMerge:
        merged = choice.first_merged(self.chain)
        pull = choice.first is OperationKind.PULL
        bottom = choice.span.bottom + 1
        below = self.chain.layers[bottom] if pull and bottom < len(self.chain.layers) else None
        # The boundary below the range stays, though its overlay is pulled away.
        overlays = (self.chain.layers[choice.kept], *merged[:-1]) if pull else merged
        touched = {layer.key for layer in overlays}
        operation = Operation(
            kind=choice.first,
            begun=timestamp(self.circumstances.now),
            owners=tuple(
                sorted({o for point in self.record.points if point.overlay in touched for o in point.owners})
            ),
            kept=self.chain.layers[choice.kept].lasting,
            merged=tuple(layer.lasting for layer in merged),
            below=None if below is None else below.lasting,
            run=self.facts.run,
            capacity=self.facts.capacity,
        )
        return StartMerge(self.facts.target, operation, policy.bandwidth, choice.copies, policy.protected)

    def _waiting(self, blocked: Blocked) -> DiskPlan:
        return DiskPlan(self.facts.target, blocked=blocked)


def timestamp(now: datetime) -> str:
    """RFC 3339, UTC, whole seconds, as the journal has it."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
