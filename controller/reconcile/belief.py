"""What of a record is believed in this process: its seal, and whether the record had one before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from controller.chain.desired import Want
from controller.chain.observation import Observation
from controller.chain.untrusted import stripped
from controller.chain.vetting import vetted


@dataclass
class Belief:
    """Remembers which disks had a sealed record. While this process works, no older version does, which would
    write records without seals."""

    _sealed: dict[str, frozenset[str]] = field(default_factory=dict)
    """By UUID of the domain: targets."""

    def checked(self, observation: Observation, wants: Iterable[Want], *, sealing: bool) -> Observation:
        """The observation with as much of its journal as may be believed; unchanged without ``sealing``."""
        if not sealing or observation.is_refused:
            return observation
        before = self._sealed.get(observation.uuid, frozenset())
        if lost := sorted(before & observation.unsealed):
            return replace(observation, journal_untrusted=stripped(observation.name, lost[0]))
        sealed = {disk.target for disk in observation.journal.disks} - observation.unsealed
        if sealed - before:
            self._sealed[observation.uuid] = before | sealed
        return vetted(observation, wants)

    def forget(self, uuid: str) -> None:
        """The domain is gone."""
        self._sealed.pop(uuid, None)
