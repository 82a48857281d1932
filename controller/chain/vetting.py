"""Vetting: what a record without a seal may say (ADR 17).

A version before seals wrote it, or somebody who may edit the domain. So it gives no right that does not
follow from something else as well: from names that varve gives to images of this very disk, from the places
that the disk's chain has, and from the objects of the cluster. What it says beyond that is left out or left
alone; points whose objects are there keep them. With the next write of varve it is sealed as vetted.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from controller.chain.desired import Want
from controller.chain.disk import Boundary, Disk, Layer
from controller.chain.drift import is_lost
from controller.chain.journal import DiskJournal, Operation, OperationKind, Owner, Point, Removal
from controller.chain.naming import is_for_disk, is_for_machine, is_named_for
from controller.chain.observation import DiskFacts, Observation
from controller.chain.outcome import NOT_OURS
from controller.chain.source import Source
from controller.chain.untrusted import unfit

UNSIGNED = (
    "the record that named it had no seal, and its name or place is none that varve gives to images of this "
    "disk; look into it, and remove it by hand when it is not needed"
)
"""Why an image stays that only an unsealed record says varve made."""


def vetted(observation: Observation, wants: Iterable[Want]) -> Observation:
    """The observation with what may be believed of its unsealed records. ``wants``: all of the domain."""
    if not observation.unsealed or observation.is_refused:
        return observation
    known = tuple(wants)
    journal = observation.journal
    for target in sorted(observation.unsealed):
        mine = {want.owner: want for want in known if want.target == target}
        one = _Vetting(observation.name, observation.disks.get(target), journal.disk(target), mine)
        wrong = one.operation_fault
        if wrong:
            return replace(observation, journal_untrusted=unfit(observation.name, target, wrong))
        journal = journal.with_disk(one.record_vetted)
    return replace(observation, journal=journal)


@dataclass(frozen=True)
class _Vetting:
    domain: str
    facts: DiskFacts | None
    record: DiskJournal
    wants: Mapping[Owner, Want]

    @cached_property
    def record_vetted(self) -> DiskJournal:
        """What may be believed, but for the operation, which is judged as a whole."""
        operation = self.record.operation
        return replace(
            self.record,
            points=self._points,
            images=frozenset(key for key in self.record.images if self._is_for_disk(key)),
            lent=frozenset(key for key in self.record.lent if key in self._shown),
            # Whether QEMU has to be asked is not for such a record to say; nor what somebody has agreed to.
            operation=operation and self._operation(operation),
            removals=tuple(self._removal(removal) for removal in self.record.removals),
            approved=None,
        )

    def _operation(self, operation: Operation) -> Operation:
        merged = tuple(self._known(layer, operation) for layer in operation.merged)
        kept = self._known(operation.kept, operation)
        return replace(operation, kept=kept, merged=merged, run="", approved=None)

    def _known(self, layer: Layer, operation: Operation) -> Layer:
        """The layer as something else than the record says how to reach it; as it is when nothing does."""
        lent = (self.wants[o].placement.target for o in operation.owners if o in self.wants)
        sources = (*self._shown.values(), *(place for place in lent if place is not None))
        found = next((one for one in sources if one.key == layer.key), None) or self._made_here(layer.source)
        return layer if found is None else replace(layer, source=found)

    # Points --------------------------------------------------------------------------------------------

    @property
    def _points(self) -> tuple[Point, ...]:
        """One for each boundary, whatever is written twice: who has a claim in one of them has it."""
        found: dict[str, Point] = {}
        for point in filter(None, map(self._point, self.record.points)):
            before = found.setdefault(point.overlay, point)
            owners = dict.fromkeys((*before.owners, *point.owners))
            found[point.overlay] = replace(before, owners=tuple(owners))
        return tuple(found.values())

    def _point(self, point: Point) -> Point | None:
        """The point with the owners that have a claim to it; None when nobody has: the layer stays, and
        belongs to nobody."""
        if is_lost(point):
            return point
        owners = tuple(owner for owner in point.owners if self._claims(owner, point.overlay))
        nobodys = not point.owners and self._is_for_disk(point.overlay)
        return replace(point, owners=owners) if owners or nobodys else None

    def _claims(self, owner: Owner, overlay: str) -> bool:
        """Whether something else than the record says that the boundary below this overlay is this object's.
        One that is not known is believed where varve made the overlay: it has no right to a merge."""
        want = self._want(owner)
        if want is None or want.owner != owner:  # gone, or made anew
            return self._is_for_disk(overlay)
        if is_named_for(posixpath.basename(overlay), owner):
            return True
        boundary = self._boundary(overlay)
        said = {want.adopt, "" if want.memory is None else want.memory.layer}
        return boundary is not None and boundary.frozen.source.uri in said

    def _want(self, owner: Owner) -> Want | None:
        if owner in self.wants:
            return self.wants[owner]
        name = (owner.namespace, owner.name)
        return next((w for o, w in self.wants.items() if (o.namespace, o.name) == name), None)

    def _is_for_disk(self, key: str) -> bool:
        return is_for_disk(posixpath.basename(key), self.record.target)

    # Images --------------------------------------------------------------------------------------------

    def _removal(self, removal: Removal) -> Removal:
        source = self._made_here(removal.layer.source)
        if source is None:
            # Not one of ours by any other word: nobody's leftover, and nothing that may come back as ours.
            left = NOT_OURS if removal.left == NOT_OURS else UNSIGNED
            return replace(removal, owners=(), left=left, attempted=True)
        asked_for = bool(removal.owners) and all(self._is_leaving(owner) for owner in removal.owners)
        attempted = removal.attempted or not (removal.left or asked_for)
        run = self.facts.run if attempted and self.facts is not None and self.facts.run else removal.run
        return replace(removal, layer=Layer(source, "qcow2"), attempted=attempted, run=run)

    def _made_here(self, source: Source) -> Source | None:
        """The image as varve itself would name it beside a layer of the disk, or where an object asks for its
        layer: nothing of how it is reached comes from the record. None when varve would not."""
        leaf, target = source.leaf, self.record.target
        mine = is_for_machine(leaf, target, self.domain) or any(is_named_for(leaf, o) for o in self.wants)
        if not mine or not is_for_disk(leaf, target):
            return None
        places = (place.beside(leaf) for place in self._places)
        return next((one for one in places if one is not None and one.key == source.key), None)

    @cached_property
    def _places(self) -> tuple[Source, ...]:
        layers = (layer.source for chain in self._chains for layer in chain.layers)
        wanted = (want.placement.template for want in self.wants.values())
        return (*layers, *(template for template in wanted if template is not None))

    @cached_property
    def _chains(self) -> tuple[Disk, ...]:
        found = (self.facts.live, self.facts.inactive) if self.facts is not None else ()
        return tuple(chain for chain in found if chain is not None)

    @cached_property
    def _shown(self) -> dict[str, Source]:
        """By identity, the images of the disk's chains."""
        return {layer.key: layer.source for chain in reversed(self._chains) for layer in chain.layers}

    def _boundary(self, overlay: str) -> Boundary | None:
        boundaries = (boundary for chain in self._chains for boundary in chain.boundaries)
        return next((found for found in boundaries if found.overlay.key == overlay), None)

    # The operation -------------------------------------------------------------------------------------

    @property
    def operation_fault(self) -> str:
        """What is wrong with the operation; empty when it may be seen through, or when there is none."""
        operation = self.record.operation
        if operation is None:
            return ""
        if operation.kind is not OperationKind.TAKE:
            return "" if self._may_merge(operation) else "a merge was begun that no deletion asks for"
        return "" if self._may_be_taken(operation) else "a point was taken that no object asks for"

    def _may_be_taken(self, operation: Operation) -> bool:
        """Whether the overlay is one that these objects ask for."""
        kept = operation.kept.source
        if not operation.lent:
            named = bool(operation.owners) and is_named_for(kept.leaf, operation.owners[0])
            return named and self._made_here(kept) is not None
        wants = (self.wants.get(owner) for owner in operation.owners)
        places = [want.placement.target for want in wants if want is not None]
        return any(place is not None and place.key == kept.key for place in places)

    def _may_merge(self, operation: Operation) -> bool:
        """Whether all that goes with it goes anyway, and it touches nothing but layers of this disk."""
        pull = operation.kind is OperationKind.PULL
        overlays = (operation.kept, *operation.merged[:-1]) if pull else operation.merged
        points = [self.record_vetted.point(overlay.key) for overlay in overlays]
        unwanted = all(
            point is not None and all(self._is_leaving(owner) for owner in point.owners) for point in points
        )
        images = (operation.kept, *operation.merged)
        ours = all(layer.key in self._shown or self._made_here(layer.source) is not None for layer in images)
        return bool(operation.merged) and unwanted and ours

    def _is_leaving(self, owner: Owner) -> bool:
        want = self.wants.get(owner)
        return want is not None and want.deleting and want.merge and not want.suspended
