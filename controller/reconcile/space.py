"""How much is free where images lie, as it was last read. May be lost at any time: it is only read anew.

A take does not wait for a reading. What is known may be old: enough was free then, and it is read again soon
after. A merge waits for one, unless there was plenty within the last 30 seconds: libvirt lists a place to
tell, which takes longer the more images lie there, and while a merge runs it is not read more often either.
Too little is read again before anybody is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.chain.blocked import Why
from controller.chain.observation import Observation
from controller.chain.plan import Plan
from controller.chain.source import Source
from controller.hypervisor.driver import Driver
from controller.reconcile.store import DomainKey

_BUSY = timedelta(seconds=30)
"""How old a reading may get where layers are made or merged."""
_IDLE = timedelta(seconds=300)
"""And where nothing is done."""
_PLENTY = 4
"""So many times what has to remain."""


@dataclass
class Space:
    """By hypervisor and directory (:attr:`Source.home`)."""

    now: Callable[[], datetime]
    _free: dict[str, dict[str, int]] = field(default_factory=dict)
    _asked: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def known(self, key: DomainKey) -> Mapping[str, int]:
        """Free bytes by directory."""
        return dict(self._free.get(key.hypervisor, {}))

    def note(self, key: DomainKey, observation: Observation, targets: Collection[str]) -> None:
        """What was just read of where the images of these disks lie; where nothing could be told, nothing is
        known any more."""
        known, now = self._free.setdefault(key.hypervisor, {}), self.now()
        for home in homes_of(observation, targets):
            self._asked[key.hypervisor, home] = now
            if home in observation.free:
                known[home] = observation.free[home]
            else:
                known.pop(home, None)

    def unsure(self, key: DomainKey, observation: Observation, spare: Mapping[str, int]) -> list[str]:
        """Those disks of which it must be read before a merge; ``spare`` has the bytes that must remain, by
        target."""
        known = self._free.get(key.hypervisor, {})
        return [
            target
            for target, bytes_ in spare.items()
            for homes in [homes_of(observation, {target})]
            if self._is_old(key, homes, _BUSY)
            or any(known.get(home, _PLENTY * bytes_) < _PLENTY * bytes_ for home in homes)
        ]

    async def was_short(self, key: DomainKey, driver: Driver, observation: Observation, found: Plan) -> bool:
        """Read again what keeps somebody from being served, when that was long ago: True when the plan may be
        another one now. Raises HypervisorError."""
        short = [one for one in found.standings if one.blocked and one.blocked.why is Why.INSUFFICIENT_SPACE]
        return await self._read(key, driver, observation, {one.want.target for one in short}, _BUSY)

    async def refresh(
        self, key: DomainKey, driver: Driver, observation: Observation, found: Plan, *, took: bool
    ) -> None:
        """Read how much is free when that was long ago; call it when everybody was told of what was done.
        Raises HypervisorError."""
        busy = took or any(disk.running for disk in found.disks)
        targets = {one.want.target for one in found.standings if one.want.policy.min_free}
        await self._read(key, driver, observation, targets, _BUSY if busy else _IDLE)

    async def _read(
        self,
        key: DomainKey,
        driver: Driver,
        observation: Observation,
        targets: Collection[str],
        age: timedelta,
    ) -> bool:
        if not self._is_old(key, homes_of(observation, targets), age):
            return False
        read = await driver.surroundings(key.uuid, images_of(observation, targets))
        self.note(key, replace(observation, free=read.free), targets)
        return True

    def _is_old(self, key: DomainKey, homes: Collection[str], age: timedelta) -> bool:
        asked = [self._asked.get((key.hypervisor, home)) for home in homes]
        return any(at is None or at < self.now() - age for at in asked)


def images_of(observation: Observation, targets: Collection[str]) -> list[Source]:
    """The images of these disks."""
    chains = (facts.chain for facts in observation.disks.values() if facts.target in targets)
    return [layer.source for chain in chains if chain is not None for layer in chain.layers]


def homes_of(observation: Observation, targets: Collection[str]) -> set[str]:
    """Where the images of these disks lie."""
    return {image.home for image in images_of(observation, targets)}
