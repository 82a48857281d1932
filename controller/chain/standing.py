"""Where each VolumeSnapshot stands, told from the same facts and the same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.drift import overlay_of
from controller.chain.explicit import goes_on, is_started_short
from controller.chain.guards import definition_guard
from controller.chain.journal import DiskJournal, Operation, OperationKind, Point
from controller.chain.moved import as_moved
from controller.chain.observation import DiskFacts, Observation
from controller.chain.outcome import Outcome, outcome, settled
from controller.chain.plan import DiskPlan, Standing, State
from controller.chain.upkeep import has_point

_SPOILING = {OperationKind.COMMIT, OperationKind.ACTIVE_COMMIT}
"""What writes to the images of the points that it removes, from its first moment on."""


@dataclass(frozen=True)
class _Look:
    """What is the same for all that is wanted of one disk."""

    observation: Observation
    disk: DiskPlan

    @property
    def facts(self) -> DiskFacts | None:
        """What was seen of it."""
        return self.observation.disks.get(self.disk.target)

    @cached_property
    def written(self) -> DiskJournal:
        """Its record as it is written."""
        return self.observation.journal.disk(self.disk.target)

    @cached_property
    def moved(self) -> tuple[DiskJournal, bool]:
        """The record with the layers where they are now, and whether one may be another image."""
        chain = self.facts.chain if self.facts else None
        return (self.written, False) if chain is None else as_moved(self.written, chain)

    @cached_property
    def as_is(self) -> DiskJournal:
        """The record as it will read when what was done is recorded."""
        return self.moved[0] if self.facts is None else _as_is(self.moved[0], self.facts)


def standings(
    observation: Observation, wants: Mapping[str, Sequence[Want]], disks: Iterable[DiskPlan]
) -> tuple[Standing, ...]:
    """One standing per want, in the order of the wants."""
    looks = {disk.target: _Look(observation, disk) for disk in disks}
    return tuple(_standing(want, looks[target]) for target, wanted in wants.items() for want in wanted)


def _standing(want: Want, look: _Look) -> Standing:
    observation, disk, facts = look.observation, look.disk, look.facts
    chain = facts.chain if facts else None
    if observation.is_refused or facts is None or chain is None:
        return _without_facts(want, look.written, disk, observation)
    record, unsure = look.moved
    operation = record.operation
    mine = operation if operation and operation.concerns(want.owner) else None
    point = (record if want.deleting else look.as_is).point_of(want.owner)
    frozen = _frozen(point, chain)
    spoiled = point is not None and (point.spoiled or (mine is not None and mine.kind in _SPOILING))
    if want.deleting:
        state = _leaving(want, record, point, mine is not None)
        if state is State.GONE and _is_hidden(want, facts):
            state = State.LEAVING
    else:
        state = _staying(want, point, mine, chain, spoiled=spoiled)
        if unsure and not spoiled and state in (State.LOST, State.HELD):
            state = State.UNKNOWN  # it may be another image of the same name
    blocked = disk.common(disk.blocked)
    if state is State.PENDING:
        blocked = disk.refused.get(want.owner) or disk.common(disk.untaken) or blocked
    if state is State.LEAVING:
        blocked = disk.staying.get(want.owner) or blocked
    if state is State.LOST:
        blocked = _lost(want, record, facts, point, spoiled=spoiled)
    if state is State.HELD:
        blocked = _of_a_held_one(blocked, disk) or elsewhere_next(observation, facts)
    hidden = state is State.LEAVING and (point is None or has_point(point, chain) is None)
    if blocked is None and (state is State.UNKNOWN or hidden):
        blocked = out_of_sight(facts)
    blocked = blocked.to(want.owner.namespace) if blocked is not None else None
    return Standing(want, state, point=point, frozen=frozen, operation=mine, blocked=blocked)


def _of_a_held_one(blocked: Blocked | None, disk: DiskPlan) -> Blocked | None:
    """What a point that is there has to tell: not that another one is not taken."""
    if blocked is not None and blocked.why is Why.CHAIN_DIVERGED:
        return blocked
    if disk.too_long is not None:
        return disk.too_long
    return None if blocked is not None and blocked.why is Why.CHAIN_TOO_LONG else blocked


def _as_is(record: DiskJournal, facts: DiskFacts) -> DiskJournal:
    """The record as it will read when what was done is recorded: a pull has moved the boundary below it to
    the image that it kept. That may take long, when the pull cannot be flushed."""
    operation = record.operation
    if operation is None or operation.kind is not OperationKind.PULL:
        return record
    done = outcome(operation, facts) in (Outcome.DONE, Outcome.HALF)
    return settled(record, operation, facts) if done else record


def _staying(want: Want, point: Point | None, mine: Operation | None, chain: Disk, *, spoiled: bool) -> State:
    if point is not None:
        present = has_point(point, chain)
        return State.UNKNOWN if present is None else State.HELD if present and not spoiled else State.LOST
    if mine is not None and mine.kind is OperationKind.TAKE:
        return State.TAKING
    if want.memory is None:
        return State.PENDING
    # The record went with a definition, and the point may be where libvirt does not look.
    return State.UNKNOWN if chain.end is ChainEnd.UNKNOWN else State.LOST


def _leaving(want: Want, record: DiskJournal, point: Point | None, begun: bool) -> State:
    if begun:
        return State.MERGING
    if point is not None:
        return State.LEAVING
    return State.REMOVING if record.delays(want.owner) else State.GONE


def _is_hidden(want: Want, facts: DiskFacts) -> bool:
    """The record went with a definition, and so did the layers of the point: nobody merged them."""
    if want.memory is None or not goes_on(facts):
        return False
    shown = facts.chain.layers if facts.chain else ()
    return all(layer.source.uri != want.memory.layer for layer in shown)


def _without_facts(want: Want, record: DiskJournal, disk: DiskPlan, observation: Observation) -> Standing:
    """The disk is not there, or the journal cannot be read: nothing is known of the point itself."""
    recorded = record.point_of(want.owner) is not None or record.operation is not None
    hidden = bool(observation.journal_problem or observation.journal_untrusted)
    # Of a disk that is not there: the point stays in its record, unowned.
    left = not want.merge and not observation.is_refused
    free = want.deleting and (left or not (recorded or want.memory or hidden))
    blocked = disk.blocked.to(want.owner.namespace) if disk.blocked is not None else None
    return Standing(want, State.GONE if free else State.UNKNOWN, blocked=blocked)


def _frozen(point: Point | None, chain: Disk) -> Layer | None:
    position = chain.position(point.overlay) if point else None
    if position is None or position + 1 >= len(chain.layers):
        return None
    return chain.layers[position + 1]


def elsewhere_next(observation: Observation, facts: DiskFacts) -> Blocked | None:
    """The next start would use another image than the machine runs on. The point is whole all the same."""
    live, stored = facts.live, facts.inactive
    if live is None or stored is None or not stored.layers:
        return None
    same = stored.layers[0].source.footprint in live.footprints
    return None if same else definition_guard(observation, facts)


def _lost(
    want: Want, record: DiskJournal, facts: DiskFacts, point: Point | None, *, spoiled: bool
) -> Blocked:
    what = (
        f"a merge that was begun and did not end has written to the point's layer on disk {want.target}"
        if spoiled
        else f"the point's layer is no longer in the chain of disk {want.target}: somebody merged or "
        f"replaced it by hand"
    )
    return Blocked(
        Why.LOST,
        f"{what}. It is not taken again, because that would be another moment: delete this object and make a "
        f"new one{_way_back(record, facts, point)}",
    )


def _way_back(record: DiskJournal, facts: DiskFacts, point: Point | None) -> str:
    """What the guest wrote after the point is in its overlay; when no job took that away, it is still
    there."""
    overlay = None if point is None else overlay_of(point)
    left = next((one.layer for one in record.removals if one.left and one.layer.key == overlay), None)
    if left is None or (facts.chain is not None and facts.chain.position(left.key) is not None):
        return ""
    return (
        f". What the guest wrote after it is in {left.source.uri}, which is kept: to go on from there, shut "
        f"the machine down and let disk {facts.target} name that image again (virsh edit)"
    )


def out_of_sight(facts: DiskFacts) -> Blocked:
    """A point may be below the last layer that libvirt shows."""
    if is_started_short(facts):
        text = (
            f"the machine was started from a definition that did not name all layers of disk {facts.target}, "
            f"so libvirt cannot reach the point; the definition names them now: shut the machine down and "
            f"start it once"
        )
    else:
        chain = facts.chain
        last = f" below {chain.layers[-1].source.uri}" if chain and chain.layers else ""
        text = (
            f"libvirt does not show what is{last} on disk {facts.target}, where the point may be: the "
            f"definition does not name all layers (docs/operations.md, section Layers out of sight)"
        )
    return Blocked(Why.CHAIN_UNKNOWN, text)
