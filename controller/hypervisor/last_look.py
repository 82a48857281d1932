"""The last look before a call: reasons not to make it that only show now. Nothing here changes anything."""

from __future__ import annotations

from controller.chain.access import model_of
from controller.chain.blocked import Why
from controller.chain.disk import Disk, DomainDefinition
from controller.chain.guards import in_use, unasked, unread
from controller.chain.journal import Operation, OperationKind
from controller.chain.observation import Observation, RunState
from controller.chain.prepared import fault
from controller.chain.source import Source
from controller.chain.steps import Take
from controller.hypervisor.bystanders import WAYS_OUT, Bystanders
from controller.hypervisor.driver import Driver
from controller.hypervisor.errors import (
    NoStorageDriver,
    NotExaminable,
    NotListable,
    NotRemovable,
    Unreadable,
)
from controller.hypervisor.observe import Fleet, definition_of


class Stale(Exception):
    """The chain is not what the plan was made for. Nothing was done; observe and plan again."""

    def __init__(self, message: str, why: Why = Why.FAILED) -> None:
        super().__init__(message)
        self.told = message
        self.why = why


class Refused(Exception):
    """The last look before the call found a reason not to make it. Nothing was done.

    ``told`` is for the objects of tenants; what ``detail`` adds tells of others.
    """

    def __init__(self, told: str, why: Why = Why.IMAGE_PROTECTED, *, detail: str = "") -> None:
        super().__init__(f"{told}: {detail}" if detail else told)
        self.told = told
        self.detail = detail
        self.why = why


class LastLook:
    """Looks at one domain once more, and at others who may use the same images."""

    def __init__(self, driver: Driver, observation: Observation, fleet: Fleet) -> None:
        self._driver = driver
        self._observation = observation
        self._uuid = observation.uuid
        self._fleet = fleet
        self._bystanders = Bystanders(driver, observation)

    async def look_again(self) -> DomainDefinition:
        """The live chains as they are now. Raises Stale when the domain does not run any more."""
        reading = await self._driver.read(self._uuid, sizes=False)
        if reading.state not in (RunState.RUNNING, RunState.PAUSED) or reading.live_xml is None:
            raise Stale("the domain stopped running")
        return definition_of(reading)

    async def refuse_unless_prepared(self, step: Take) -> None:
        """libvirt checks nothing of an overlay that was made beforehand: look into it, just before."""
        prepared = [one for one in step.disks if one.operation.prepared]
        if not prepared:
            return
        definition = await self.look_again()
        for one in prepared:
            disk, overlay = disk_of(definition, one.target), one.operation.kept.source
            if disk.active is None or not one.operation.capacity:
                raise Stale(f"the size of disk {one.target} is not known yet", Why.SIZE_UNKNOWN)
            known = model_of(overlay, (layer.source for layer in disk.layers))
            way_in = next((layer.index for layer in disk.layers if layer.source == known), None)
            try:
                found = await self._driver.examine(self._uuid, overlay, way_in=way_in)
                wrong = fault(found, overlay, disk.active, one.operation.capacity)
            except NotExaminable as error:
                wrong = error.message
            if wrong:
                text = f"{overlay.uri} is not used as content: Prepared says: {NotExaminable.public}"
                raise Refused(text, Why.OVERLAY_UNUSABLE, detail=wrong)

    async def is_empty(self, target: str, source: Source) -> bool:
        """Whether an image that a call named as the new top of a disk holds nothing that a guest wrote.

        Absent is empty: QEMU keeps no file open that was never made. What cannot be looked into is not.
        """
        if await self._driver.present(source) is False:
            return True
        facts = self._observation.disks.get(target)
        layers = facts.live.layers if facts is not None and facts.live is not None else ()
        known = model_of(source, (layer.source for layer in layers))
        way_in = next((layer.index for layer in layers if layer.source == known), None)
        try:
            return (await self._driver.examine(self._uuid, source, way_in=way_in)).empty
        except NotExaminable:
            return False

    async def refuse_if_claimed(self, step: Take) -> None:
        """An overlay that was made beforehand may be named for two points at once. Each puts it into its
        journal before it looks, so at least one of them sees the other."""
        lent = [one for one in step.disks if one.operation.lent]
        if not lent:
            return
        here = await self._driver.definitions()
        if here.unread:
            raise Refused(
                "whether another machine uses the place cannot be told now: the point waits for that",
                Why.USERS_UNKNOWN,
                detail=f"machine {', '.join(sorted(here.unread.values()))} does not answer",
            )
        claims = await self._fleet.claims(here.documents)
        for one in lent:
            source = one.operation.kept.source
            names = set(source.claimed_as)
            for claim in claims:
                own = claim.recorded and (claim.uuid, claim.target) == (self._uuid, one.target)
                if claim.name in names and not own:
                    raise Refused(in_use(source), Why.OVERLAY_UNUSABLE, detail=f"{claim.user} names it")

    async def refuse_if_referred(self, operation: Operation) -> None:
        """A commit writes into the kept image: nobody else's header may name it, nor a layer above it."""
        if operation.kind is OperationKind.PULL:
            return
        layers = [operation.kept, *operation.merged]
        try:
            found = await self._bystanders.referrers([layer.source for layer in layers])
        except (NotListable, Unreadable) as error:
            raise Refused(
                f"whether another image stands on {operation.kept.source.uri}, and would change with it, "
                f"is not known: an administrator finds why in the events of the Hypervisor",
                Why.CAPABILITY_MISSING if isinstance(error, NoStorageDriver) else Why.USERS_UNKNOWN,
                detail=error.message,
            ) from error
        if found.users:
            objection = found.objection(operation.kept.source)
            raise Refused(objection, detail=f"{found.named}; {WAYS_OUT}")

    async def refuse_if_used(self, source: Source) -> None:
        """No chain of this domain, nobody else's, and no header may name an image that is about to go,
        whatever hosts it names it by. Raises NotListable where that cannot be told, and NotRemovable when
        only a leftover of this disk does."""
        for facts in self._observation.disks.values():
            for chain in (facts.live, facts.inactive):
                if chain is not None and source.footprints & chain.footprints:
                    raise Refused(f"the image is still in the chain of disk {facts.target}")
        elsewhere = self._observation.in_use_elsewhere
        if elsewhere is None:
            raise Stale("who else uses the image was not read")
        if named := sorted(source.footprints & elsewhere.keys()):
            raise Refused("the image is in use", detail=f"it is used by {elsewhere[named[0]]}")
        obstacle = unread(self._observation, source)
        if obstacle is None and source.type == "network":
            obstacle = unasked(self._observation, source)
        if obstacle is not None:
            raise Refused(obstacle.message, obstacle.why, detail=obstacle.detail)
        found = await self._bystanders.referrers([source])
        if found.users:
            text = (
                found.objection(source) if found.cut_off else f"{source.uri} is the backing image of another"
            )
            raise Refused(text, detail=f"{found.named}; {WAYS_OUT}")
        if found.leftovers:
            raise NotRemovable(
                f"it is the backing image of {', '.join(found.leftovers)}, which left the chain before it "
                f"and stays"
            )


def disk_of(definition: DomainDefinition, target: str) -> Disk:
    """The disk of this target. Raises Stale when it is gone."""
    disk = definition.disk(target)
    if disk is None:
        raise Stale(f"disk {target} is gone")
    return disk
