"""What tenants are not told goes to the log and the events of the Hypervisor, once when it becomes true."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controller.chain.blocked import Blocked
from controller.chain.observation import Observation
from controller.chain.plan import DiskPlan, Plan
from controller.kube.events import EventRecorder
from controller.reconcile.store import DomainKey, Store

log = logging.getLogger(__name__)

_MOST = 16
"""Of one domain, at a time: however many objects fail, a hypervisor's events stay readable."""


@dataclass(frozen=True, order=True)
class Note:
    """Why something on a disk waits."""

    target: str
    why: str
    detail: str
    message: str = field(default="", compare=False)


@dataclass
class Details:
    """What was told of each domain. Use from one event loop; may be lost at any time."""

    recorder: EventRecorder
    store: Store
    _told: dict[DomainKey, frozenset[Note]] = field(default_factory=dict)

    def tell(self, key: DomainKey, observation: Observation, found: Plan) -> None:
        """Tell what is new of what the domain's objects wait for, where they do not say all."""
        notes = frozenset(sorted(set(_notes(found)))[:_MOST])
        news = notes - self._told.get(key, frozenset())
        if notes:
            self._told[key] = notes
        else:
            self._told.pop(key, None)
        for note in sorted(news):
            text = f"disk {note.target} of {observation.name}: {note.message}: {note.detail}"
            log.info("waits", extra={"disk": note.target, "why": note.why, "detail": note.detail})
            hypervisor = self.store.hypervisors.get(key.hypervisor)
            if hypervisor is not None:
                self.recorder.warning(hypervisor[0], note.why, "Wait", text)

    def forget(self, key: DomainKey) -> None:
        """The domain is of no interest any more."""
        self._told.pop(key, None)


def _notes(found: Plan) -> Iterator[Note]:
    for disk in found.disks:
        yield from (_note(disk.target, one) for one in _of_disk(disk) if one is not None and one.detail)
    for standing in found.standings:
        if standing.blocked is not None and standing.blocked.detail:
            yield _note(standing.want.target, standing.blocked)


def _note(target: str, blocked: Blocked) -> Note:
    message = next((text for _, text in blocked.own), blocked.message)
    return Note(target, blocked.why.value, blocked.detail, message)


def _of_disk(disk: DiskPlan) -> Iterable[Blocked | None]:
    return (disk.blocked, disk.untaken, *disk.refused.values(), *disk.staying.values())
